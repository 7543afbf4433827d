//! Figures for docs/adr/0001-spool.md: `cargo test -p postroad-relay --release spool::tests::bench -- --ignored --nocapture
//! --test-threads 1`. The directory is that of `TMPDIR`, which must be on the disk in question.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::super::{Fate, Options, Spool, SpoolError};
use super::support::{open, read, store};
use crate::message::MessageId;

const SIZE: usize = 10 << 10;

async fn stores_per_second(callers: u128, seconds: u64) {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { maximum_bytes: 64 << 30, ..Options::default() };
    let (spool, _) = open(directory.path(), options);
    // Past the first segment, which nothing was prepared for.
    let first = tokio::task::JoinSet::from_iter((0..7_000).map(|id| {
        let spool = spool.clone();
        async move { store(&spool, id, SIZE).await.unwrap() }
    }));
    first.join_all().await;
    let (before, start) = (spool.usage(), Instant::now());
    let until = start + Duration::from_secs(seconds);
    let tasks = tokio::task::JoinSet::from_iter((1..=callers).map(|caller| {
        let spool = spool.clone();
        async move {
            let mut latencies = Vec::new();
            while Instant::now() < until {
                let began = Instant::now();
                store(&spool, (caller << 64) | latencies.len() as u128, SIZE).await.unwrap();
                latencies.push(began.elapsed());
            }
            latencies
        }
    }));
    let mut latencies = tasks.join_all().await.concat();
    latencies.sort_unstable();
    let (elapsed, usage) = (start.elapsed().as_secs_f64(), spool.usage());
    let messages = latencies.len() as f64;
    eprintln!(
        "{callers:4} callers: {:7.0} stores/s, {:5.1} messages a sync, latency p50 {:?} p99 {:?}",
        messages / elapsed,
        messages / (usage.syncs - before.syncs) as f64,
        latencies[latencies.len() / 2],
        latencies[latencies.len() * 99 / 100],
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn stores_of_10_kib() {
    for callers in [1, 10, 50, 200] {
        stores_per_second(callers, 5).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn stores_and_removals_with_reclaiming() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { segment_bytes: 16 << 20, maximum_bytes: 1 << 30, ..Options::default() };
    let (spool, _) = open(directory.path(), options);
    let (start, until) = (Instant::now(), Instant::now() + Duration::from_secs(10));
    let tasks = tokio::task::JoinSet::from_iter((1..=50_u128).map(|caller| {
        let spool = spool.clone();
        async move {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while Instant::now() < until {
                let id = (caller << 64) | count;
                let began = Instant::now();
                store(&spool, id, SIZE).await.unwrap();
                slowest = slowest.max(began.elapsed());
                // One of sixteen stays for a while, which pins its segment.
                if count % 16 != 0 {
                    spool.remove(MessageId(id), Fate::Delivered).await.unwrap();
                } else if count > 320 {
                    spool.remove(MessageId(id - 320), Fate::Delivered).await.unwrap();
                }
                count += 1;
            }
            (count, slowest)
        }
    }));
    let results = tasks.join_all().await;
    let stored: u128 = results.iter().map(|result| result.0).sum();
    let slowest = results.iter().map(|result| result.1).max().unwrap();
    eprintln!(
        "50 callers, store then remove: {:.0} messages/s, slowest store {slowest:?}, at the end {:?}",
        stored as f64 / start.elapsed().as_secs_f64(),
        spool.usage()
    );
}

/// What a process that is to be killed fills: directory, messages, octets of each.
const FILL: [&str; 3] = ["POSTROAD_BENCH_DIRECTORY", "POSTROAD_BENCH_MESSAGES", "POSTROAD_BENCH_OCTETS"];
/// The file that says that it has.
const FILLED: &str = "filled";

fn roomy() -> Options {
    Options { maximum_bytes: 64 << 30, ..Options::default() }
}

async fn fill(spool: &Spool, messages: u128, size: usize) {
    for block in 0..messages / 1_000 {
        let stores = tokio::task::JoinSet::from_iter((0..1_000).map(|id| {
            let spool = spool.clone();
            async move { store(&spool, block * 1_000 + id, size).await.unwrap() }
        }));
        stores.join_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by `reopening`, in a process of its own that it kills"]
async fn fills_a_spool_until_it_is_killed() {
    let [directory, messages, octets] = FILL.map(|name| std::env::var(name).unwrap_or_default());
    let Ok(messages) = messages.parse() else { return };
    let (spool, _) = open(Path::new(&directory), roomy());
    fill(&spool, messages, octets.parse().unwrap()).await;
    fs::write(Path::new(&directory).join(FILLED), []).unwrap();
    std::future::pending::<()>().await;
}

fn killed(directory: &Path, messages: u128, octets: usize) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "spool::tests::bench::fills_a_spool_until_it_is_killed"])
        .env(FILL[0], directory)
        .env(FILL[1], messages.to_string())
        .env(FILL[2], octets.to_string())
        .spawn()
        .unwrap();
    while !directory.join(FILLED).exists() {
        std::thread::sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures; 11 GB of disk"]
async fn reopening() {
    for (messages, size) in [(1_000_000_u128, 1_000), (1_000_000, SIZE)] {
        let directory = tempfile::tempdir().unwrap();
        killed(directory.path(), messages, size);
        let memory = resident();
        let start = Instant::now();
        let (spool, recovering) = Spool::open(directory.path(), roomy()).unwrap();
        let open = start.elapsed();
        store(&spool, u128::MAX, SIZE).await.unwrap();
        let accepting = start.elapsed();
        let recovery = recovering.finished().await.unwrap();
        let elapsed = start.elapsed();
        assert_eq!(recovery.messages.len() as u128, messages);
        let peak = resident();
        drop(recovery);
        eprintln!(
            "{messages} messages of {size} bytes ({} MiB) after SIGKILL: open after {open:?}, first store after {accepting:?}, all known after {elapsed:?}, {} MiB resident with the backlog, {} bytes a message without",
            spool.usage().total_bytes >> 20,
            peak.saturating_sub(memory) >> 20,
            (resident().saturating_sub(memory)) as u128 / messages
        );
        let start = Instant::now();
        spool.handle.shared.index().in_segment(1);
        eprintln!("    looking for a segment's messages: {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn one_corrupt_page_a_segment() {
    const MESSAGES: u128 = 50_000;
    const PAGE: u64 = 4096;
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path(), roomy());
    fill(&spool, MESSAGES, SIZE).await;
    spool.close().await;
    let mut pages = 0;
    for entry in fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            let middle = file.metadata().unwrap().len() / 2 / PAGE * PAGE;
            file.write_all_at(&[0xa5; PAGE as usize], middle).unwrap();
            pages += 1;
        }
    }
    let (spool, recovery) = open(directory.path(), roomy());
    let mut damaged = 0;
    for message in &recovery.messages {
        let content = spool.content(message.id);
        damaged += u128::from(matches!(read(content.unwrap()).await, Err(SpoolError::Damaged { .. })));
    }
    let intact = recovery.messages.len() as u128 - damaged;
    eprintln!(
        "{pages} corrupt pages of {PAGE} bytes, one a segment: of {MESSAGES} messages of {SIZE} bytes {intact} intact, {damaged} found damaged when read, {} entries in quarantine at the start",
        recovery.quarantined.len()
    );
}

/// Bytes of memory this process has in use.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
