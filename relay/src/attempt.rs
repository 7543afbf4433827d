//! The attempts to deliver a message: how each was made, and the bounded history that is kept with the message's state.
//!
//! Leaf: pure data and how it grows. Dispatch writes it, the spool keeps it, the admin API shows it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::excerpt::excerpt;
use crate::message::Timestamp;

/// How many attempts a history holds: the latest.
const KEPT: usize = 20;
/// How much is kept of what an upstream answered, in octets of UTF-8.
const TEXT: usize = 300;

/// How one mail transaction was made, for the log and the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The upstream's name.
    pub upstream: Arc<str>,
    /// Where its session leads; `None` for a sandbox, and when no session came to an outcome.
    pub address: Option<SocketAddr>,
    /// How long it took.
    pub took: Duration,
    /// The recipients, as indices into the envelope's.
    pub recipients: Arc<[usize]>,
}

/// An attempt as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastAttempt {
    /// When its outcome was there.
    pub at: Timestamp,
    /// The upstream's name.
    pub upstream: String,
    /// Where its session led.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How long it took, in milliseconds.
    pub took: u64,
    /// What came of it.
    pub results: Vec<PastResult>,
}

/// What came of an attempt for recipients that were answered the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastResult {
    /// The recipients, as indices into the envelope's.
    pub recipients: Vec<usize>,
    /// The upstream's reply, or why there was none; shortened.
    pub text: String,
}

/// Adds an attempt to the history, and lets the oldest go when it is full. `text` says what a recipient was answered; those
/// for whom it says nothing had no outcome.
pub fn remember(
    history: &mut Vec<PastAttempt>,
    attempt: &Attempt,
    text: impl Fn(usize) -> Option<String>,
    now: Timestamp,
) {
    let mut results: Vec<PastResult> = Vec::new();
    for &recipient in &*attempt.recipients {
        let Some(text) = text(recipient).map(|text| excerpt(text, TEXT)) else { continue };
        match results.iter_mut().find(|result| result.text == text) {
            Some(result) => result.recipients.push(recipient),
            None => results.push(PastResult { recipients: vec![recipient], text }),
        }
    }
    history.push(PastAttempt {
        at: now,
        upstream: attempt.upstream.to_string(),
        address: attempt.address.map(|address| address.to_string()),
        took: u64::try_from(attempt.took.as_millis()).unwrap_or(u64::MAX),
        results,
    });
    let surplus = history.len().saturating_sub(KEPT);
    history.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(recipients: &[usize]) -> Attempt {
        let took = Duration::from_millis(7);
        Attempt { upstream: "ses".into(), address: None, took, recipients: recipients.into() }
    }

    #[test]
    fn recipients_that_were_answered_the_same_share_a_result() {
        let mut history = Vec::new();
        let texts = ["250 ok", "451 busy", "451 busy"];
        let text = |index: usize| texts.get(index).map(ToString::to_string);
        remember(&mut history, &attempt(&[0, 1, 2, 9]), text, Timestamp(5));
        let results = &history[0].results;
        assert_eq!(
            (results[0].recipients.as_slice(), results[1].recipients.as_slice()),
            (&[0][..], &[1, 2][..])
        );
        assert_eq!((results.len(), history[0].took, history[0].at), (2, 7, Timestamp(5)));
    }

    #[test]
    fn a_history_keeps_the_latest_attempts_and_bounds_what_it_quotes() {
        let mut history = Vec::new();
        for time in 0..50 {
            remember(&mut history, &attempt(&[0]), |_| Some("é".repeat(1000)), Timestamp(time));
        }
        assert_eq!(
            (history.len(), history[0].at, history[KEPT - 1].at),
            (KEPT, Timestamp(30), Timestamp(49))
        );
        assert!(history[0].results[0].text.len() <= TEXT + '…'.len_utf8());
    }
}
