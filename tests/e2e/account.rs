//! What a fault came to: lost, doubled, refused; and the table of all of them, docs/reference/resilience.md.

use std::fmt::Write;
use std::time::Duration;

use crate::installation::repository;
use crate::peers::{Arrived, Ledger, Totals};

/// One fault, as it went.
pub struct Row {
    pub fault: &'static str,
    pub ledger: Ledger,
    pub lost: usize,
    /// Copies beyond the first.
    pub duplicates: usize,
    /// Sessions to the service that ended without QUIT, those of a dead node among them: each may have doubled one message.
    pub cut: usize,
    pub recovery: Duration,
}

impl Row {
    /// The account of one fault. `dead` are sessions that died with their node and that the service may not have noticed.
    pub fn of(
        fault: &'static str,
        ledger: Ledger,
        arrived: &Arrived,
        totals: [&Totals; 2],
        dead: usize,
        recovery: Duration,
    ) -> Self {
        let lost = ledger.acknowledged.keys().filter(|token| !arrived.contains_key(*token)).count();
        let duplicates = arrived.values().map(|(count, _)| count - 1).sum();
        let cut = totals[1].cut_sessions - totals[0].cut_sessions + dead;
        Self { fault, ledger, lost, duplicates, cut, recovery }
    }

    pub fn rate(&self) -> f64 {
        self.ledger.acknowledged.len() as f64 * 1000.0 / self.ledger.milliseconds as f64
    }

    /// What is wrong with it, in sentences; empty when the promises held.
    pub fn problems(&self, arrived: &Arrived) -> Vec<String> {
        let mut problems = Vec::new();
        if self.lost > 0 {
            problems.push(format!("{} acknowledged messages were lost", self.lost));
        }
        if self.duplicates > self.cut {
            problems.push(format!("{} duplicates, and only {} sessions were cut", self.duplicates, self.cut));
        }
        if let Some(refused) = &self.ledger.refused {
            problems.push(format!("clients were refused for good: {refused:?}"));
        }
        let changed = self
            .ledger
            .acknowledged
            .iter()
            .find(|(token, digest)| arrived.get(*token).is_some_and(|(_, arrived)| arrived != *digest));
        if let Some((token, _)) = changed {
            problems.push(format!("the content of {token} did not arrive as it was sent"));
        }
        problems
            .iter()
            .map(|problem| format!("{}: {problem}; the app saw {:?}", self.fault, self.ledger.troubles))
            .collect()
    }

    fn why(&self) -> String {
        match (self.duplicates, self.cut) {
            (0, _) => "0".to_owned(),
            (count, cut) => format!(
                "{count} ({cut} sessions to the service were cut, each in the middle of a message at most)"
            ),
        }
    }

    fn line(&self) -> String {
        format!(
            "| {} | {:.0}/s | {} | {} | {} | {} + {} | {:.1} s | {:.1} s |\n",
            self.fault,
            self.rate(),
            self.ledger.acknowledged.len(),
            self.lost,
            self.why(),
            self.ledger.transient,
            self.ledger.lost + self.ledger.unknown.as_ref().map_or(0, Vec::len),
            Duration::from_millis(self.ledger.longest_pause_milliseconds).as_secs_f64(),
            self.recovery.as_secs_f64()
        )
    }
}

const HEAD: &str = "# Resilience

What faults did to mail under load, as `make resilience` measured it: two relays with a volume each on two nodes, an app that
sends by Go's `net/smtp` with STARTTLS and AUTH over twelve sessions and offers 150 messages per second, one service upstream.
The machine was a container with two cores that ran all of it, both nodes and the control plane included; the binaries were debug
builds. Figures from another machine differ, and what is lost must not.

- *load held*: acknowledged messages per second over the whole run, outages included.
- *lost*: acknowledged and never arrived. The suite fails unless it is 0.
- *duplicated*: copies beyond the first. The suite fails when they are more than the sessions that were cut.
- *clients saw*: transient replies (4xx) + connections that failed or broke. A permanent refusal fails the suite. A message whose
  connection broke after the final dot and before the reply is not sent again by the app, and counts here.
- *longest pause*: the longest time without any message acknowledged, all clients together.
- *recovered after*: until all relays and operators were ready, an operator had acted on a change, and everything acknowledged by then
  had arrived. It counts from a kill, from the end of an outage, and otherwise from the end of the command (`helm upgrade --wait`,
  `kubectl drain`) or of the last change. For relays that go it counts from the command, with the upstream down and the pool deleted
  from the upstream's return, until no pod and no volume claim is left but those that stay.

| fault | load held | acknowledged | lost | duplicated (why) | clients saw | longest pause | recovered after |
|---|---|---|---|---|---|---|---|
";

/// The table as a page; prints it, and writes it when the caller says `UPDATE=1`.
pub fn publish(rows: &[Row]) {
    let mut page = HEAD.to_owned();
    for row in rows {
        page.push_str(&row.line());
    }
    let _ = write!(page, "\n{}", include_str!("resilience_notes.md"));
    eprintln!("{page}");
    if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
        std::fs::write(repository("docs/reference/resilience.md"), page).unwrap();
    }
}
