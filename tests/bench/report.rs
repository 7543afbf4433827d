//! The comparison as a table, a page and JSON: medians of the trials.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use crate::machine::Machine;
use crate::trial::Trial;
use crate::{postfix, postroad};

/// What a run has shown.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    machine: Machine,
    summaries: Vec<Summary>,
    trials: &'a [Trial],
}

/// The medians of one relay's trials in one way of sending.
#[derive(Debug, Serialize)]
struct Summary {
    relay: &'static str,
    kept_connections: bool,
    end_to_end_per_second: f64,
    accepted_per_second: f64,
    cpu_milliseconds_per_message: f64,
    memory_mib: f64,
    processes: usize,
    acknowledged_p50_milliseconds: f64,
    acknowledged_p99_milliseconds: f64,
    upstream_connections: usize,
    duplicates: usize,
}

impl<'a> Report<'a> {
    /// Sums up the trials.
    pub fn new(machine: Machine, trials: &'a [Trial]) -> Self {
        let mut summaries = Vec::new();
        for kept in [true, false] {
            for relay in [postroad::NAME, postfix::NAME] {
                let own: Vec<&Trial> = trials
                    .iter()
                    .filter(|trial| trial.relay == relay && trial.kept_connections == kept)
                    .collect();
                summaries.extend(Summary::of(&own));
            }
        }
        Self { machine, summaries, trials }
    }

    /// The medians, a line for each relay and way of sending, and how Postroad compares.
    pub fn table(&self) -> String {
        let mut table = "| clients | relay | messages/s end to end | accepted/s | CPU ms a message | memory MiB | processes | 250 after ms, p50 / p99 |\n\
                         |---|---|---|---|---|---|---|---|\n"
            .to_owned();
        for summary in &self.summaries {
            let _ = writeln!(
                table,
                "| {} | {} | {:.0} | {:.0} | {:.3} | {:.0} | {} | {:.1} / {:.1} |",
                way(summary.kept_connections),
                summary.relay,
                summary.end_to_end_per_second,
                summary.accepted_per_second,
                summary.cpu_milliseconds_per_message,
                summary.memory_mib,
                summary.processes,
                summary.acknowledged_p50_milliseconds,
                summary.acknowledged_p99_milliseconds,
            );
        }
        for kept in [true, false] {
            if let Some(factor) = self.factor(kept) {
                let _ = write!(
                    table,
                    "\nWith {}, Postroad carries {factor:.1} times what Postfix does.",
                    way(kept)
                );
            }
        }
        table
    }

    fn factor(&self, kept: bool) -> Option<f64> {
        let of = |relay| {
            let mut all = self.summaries.iter();
            all.find(|summary| summary.relay == relay && summary.kept_connections == kept)
        };
        Some(of(postroad::NAME)?.end_to_end_per_second / of(postfix::NAME)?.end_to_end_per_second)
    }

    /// Writes `performance.md` and `performance.json` into `folder`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self)? + "\n";
        for (name, text) in [("performance.md", self.page()), ("performance.json", json)] {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    fn page(&self) -> String {
        let Machine { processors, model, memory_gib, kernel, file_system, relays } = &self.machine;
        let (messages, octets, sessions) =
            self.trials.first().map_or((0, 0, 0), |trial| (trial.messages, trial.octets, trial.sessions));
        let rounds = self.trials.len() / self.summaries.len().max(1);
        format!(
            "# Performance\n\n\
             Written by `make bench`, which compares Postroad with a Postfix that is tuned for throughput\n\
             (`tests/src/postfix.rs`), in turn, in one run. Figures of different runs or machines are not comparable.\n\n\
             - {}, in release builds or as Debian packages them.\n\
             - {processors} processors ({model}), {memory_gib} GiB, Linux {kernel}; queues on {file_system}. Source and sink\n  \
               run on the same processors.\n\
             - A trial is {messages} messages of {octets} octets from {sessions} clients at the same time, without TLS, each command\n  \
               answered before the next is sent; medians of {rounds} trials. Every message is on stable storage before\n  \
               its 250, in both relays, and arrived once (duplicates: {}).\n\
             - *End to end* counts from the first connection of a client to the arrival of the last message at the sink.\n  \
               CPU is that of all of the relay's processes, memory their anonymous pages.\n\n\
             {}\n\n\
             All trials: [performance.json](performance.json).\n",
            relays.join(" and "),
            self.trials.iter().map(|trial| trial.duplicates).sum::<usize>(),
            self.table(),
        )
    }
}

impl Summary {
    fn of(trials: &[&Trial]) -> Option<Self> {
        let first = trials.first()?;
        let figure = |value: fn(&Trial) -> f64| median(trials.iter().map(|trial| value(trial)).collect());
        Some(Self {
            relay: first.relay,
            kept_connections: first.kept_connections,
            end_to_end_per_second: figure(|trial| trial.end_to_end_per_second),
            accepted_per_second: figure(|trial| trial.accepted_per_second),
            cpu_milliseconds_per_message: figure(|trial| trial.cpu_milliseconds_per_message),
            memory_mib: figure(|trial| trial.memory_mib),
            processes: trials.iter().map(|trial| trial.processes).max()?,
            acknowledged_p50_milliseconds: figure(|trial| trial.acknowledged_p50_milliseconds),
            acknowledged_p99_milliseconds: figure(|trial| trial.acknowledged_p99_milliseconds),
            upstream_connections: trials.iter().map(|trial| trial.upstream_connections).max()?,
            duplicates: trials.iter().map(|trial| trial.duplicates).sum(),
        })
    }
}

fn way(kept: bool) -> &'static str {
    if kept { "kept connections" } else { "one message a connection" }
}

/// The middle value; of two middle ones their mean.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_both_middles() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
