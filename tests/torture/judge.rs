//! What a scenario has shown: nothing lost, every duplicate explained by a crash; said in a line of JSON for the report.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::{Duration, Instant};

use postroad_tests::conservation::account;
use postroad_tests::load::Sent;
use postroad_tests::smtp_server::{Ledger, ReceivedMessage, SmtpServer};
use serde::Serialize;

/// The file that verdicts are appended to, a line of JSON each.
const RESULTS: &str = "POSTROAD_TORTURE_RESULTS";

/// One scenario's figures.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) scenario: String,
    /// Kills, power cuts or failures.
    pub(crate) crashes: usize,
    /// Answered 250.
    pub(crate) acknowledged: usize,
    /// Never answered after the final dot.
    pub(crate) unknown: usize,
    pub(crate) transient_refusals: usize,
    pub(crate) arrived: usize,
    pub(crate) lost: usize,
    /// Copies beyond the first of each message. Each has a crash between it and the copy before, or its client was told 451 by
    /// a relay that could not write, and sent it again.
    pub(crate) duplicates: usize,
    pub(crate) seconds: u64,
}

/// Waits until all that was acknowledged has arrived, and judges. `crashes` are the instants between which the relay ran.
///
/// Panics on a lost message, on one that came twice without a reason, and on one nobody sent.
pub(crate) async fn judge(
    scenario: &str,
    sent: &Sent,
    upstream: &SmtpServer,
    crashes: &[Instant],
    begin: Instant,
    limit: Duration,
) -> Verdict {
    // Each message is looked at once: who looks keeps the upstream from taking the next.
    let (mut missing, mut seen) = (sent.acknowledged.clone(), 0);
    let complete = |ledger: &Ledger| {
        for token in ledger.messages[seen..].iter().filter_map(ReceivedMessage::token) {
            missing.remove(&token);
        }
        seen = ledger.messages.len();
        missing.is_empty()
    };
    let arrived = upstream.wait_until("every acknowledged message", limit, complete).await;
    let account = account(&sent.acknowledged, upstream.ledger(Ledger::tokens));
    arrived.unwrap_or_else(|error| panic!("{scenario}: {} lost: {error}", account.lost.len()));
    for token in &account.unexpected {
        assert!(sent.unknown.contains(token) || sent.unsent.contains(token), "{token} was never sent");
    }
    let duplicates = upstream.ledger(|ledger| copies(ledger, &sent.repeated, crashes));
    let duplicates =
        duplicates.unwrap_or_else(|token| panic!("{scenario}: {token} came twice without a reason"));
    let verdict = Verdict {
        scenario: scenario.to_owned(),
        crashes: crashes.len(),
        acknowledged: sent.acknowledged.len(),
        unknown: sent.unknown.len(),
        transient_refusals: sent.transient_refusals,
        arrived: upstream.ledger(|ledger| ledger.messages.len()),
        lost: account.lost.len(),
        duplicates,
        seconds: begin.elapsed().as_secs(),
    };
    record(&verdict);
    verdict
}

/// The number of further copies, or the token of one that nothing explains.
///
/// A crash explains a copy when it ended the session that carried the copy before: what a killed relay has sent may be read, and be
/// dated, after its death.
fn copies(ledger: &Ledger, repeated: &BTreeSet<String>, crashes: &[Instant]) -> Result<usize, String> {
    let opened: BTreeMap<u64, Instant> =
        ledger.sessions.iter().map(|session| (session.id, session.opened)).collect();
    let mut last: BTreeMap<String, Instant> = BTreeMap::new();
    let mut copies = 0;
    for message in &ledger.messages {
        let Some(token) = message.token() else { continue };
        if let Some(before) = last.insert(token.clone(), opened[&message.session]) {
            let crashed = crashes.iter().any(|crash| (before..=message.received).contains(crash));
            let sent_again = repeated.contains(&token) && !crashes.is_empty();
            if !crashed && !sent_again {
                return Err(token);
            }
            copies += 1;
        }
    }
    Ok(copies)
}

/// Prints the figures, and appends them to the results of the run when it keeps any.
pub(crate) fn record(verdict: &impl Serialize) {
    let line = serde_json::to_string(verdict).unwrap();
    eprintln!("{line}");
    if let Some(path) = std::env::var_os(RESULTS) {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "{line}").unwrap();
    }
}
