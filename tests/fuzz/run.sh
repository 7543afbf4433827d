#!/usr/bin/env bash
# Builds the fuzz targets with coverage instrumentation and runs each for SECONDS_EACH seconds (default 600).
#
# usage: tests/fuzz/run.sh [target ...]      SECONDS_EACH=12 for a short look
#
# The flags are those of cargo-fuzz without the sanitizers, which need a nightly compiler: the crates are free of unsafe code, so
# what is looked for are panics, broken assertions, hangs and memory, and libFuzzer finds those by itself. New inputs go to
# target/fuzz/corpus; what is worth keeping is committed to tests/fuzz/corpus by hand.
set -euo pipefail
cd "$(dirname "$0")"
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(address command data server_session)
seconds=${SECONDS_EACH:-600}
out=$(realpath -m ../../target/fuzz)
flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="$flags" cargo build --release --quiet --target "$host" --target-dir "$out"
for target in "${targets[@]}"; do
  mkdir -p "$out/corpus/$target" "$out/artifacts"
  echo "fuzz: $target for $seconds seconds"
  "$out/$host/release/$target" "$out/corpus/$target" "corpus/$target" -max_total_time="$seconds" -max_len=2048 \
    -timeout=10 -rss_limit_mb=1024 -artifact_prefix="$out/artifacts/$target-" -print_final_stats=1 2>"$out/$target.log" || {
    tail -40 "$out/$target.log"
    echo "fuzz: $target found something; the input is in target/fuzz/artifacts"
    exit 1
  }
  grep -E "stat::number_of_executed_units|stat::peak_rss_mb" "$out/$target.log"
done
