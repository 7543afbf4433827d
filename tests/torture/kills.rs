//! SIGKILL under load: no code of the relay runs any more, what it handed to the system stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use postroad_tests::relay_process::RelayProcess;
use postroad_tests::smtp_server::Ledger;
use serde::Serialize;

use crate::judge::{judge, record};
use crate::{LIMIT, Scene, rounds};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_sigkill_under_load() {
    let begin = Instant::now();
    let mut scene = Scene::new(None, 1_000_000_000).await;
    let running = scene.load.clone().start();
    let (mut crashes, mut noted) = (Vec::new(), BTreeSet::new());
    for round in 1..=rounds("POSTROAD_TORTURE_KILLS", 20) {
        // The kills are spread over the load by what it has achieved, not by time.
        let reached = running.acknowledged() + 1 + (round * 37) % 120;
        running.wait_for_acknowledged(reached, LIMIT).await.unwrap();
        scene.relay.sigkill().await.unwrap();
        crashes.push(Instant::now());
        noted.extend(ambiguous(&scene.relay));
        scene.relay.restart().await.unwrap();
    }
    running.stop();
    let sent = running.finish().await;
    judge("SIGKILL", &sent, &scene.upstream, &crashes, begin, LIMIT).await;
    noted.extend(ambiguous(&scene.relay));
    let twice = scene.upstream.ledger(arrived_twice);
    let surprises: Vec<_> = twice.difference(&noted).collect();
    assert!(surprises.is_empty(), "arrived twice without having been noted: {surprises:?}");
    record(&Noted {
        scenario: "SIGKILL, noted before the final dot",
        noted: noted.len(),
        twice: twice.len(),
    });
}

#[derive(Serialize)]
struct Noted {
    scenario: &'static str,
    /// Messages that were being sent when the relay was killed, by its own account.
    noted: usize,
    /// Messages that arrived twice.
    twice: usize,
}

/// The messages of which this run of the relay has said that they may arrive twice.
fn ambiguous(relay: &RelayProcess) -> Vec<String> {
    let lines = relay.log().lines();
    let lines = lines.iter().filter(|line| line.contains("may arrive twice"));
    lines.map(|line| field(line, "id=").expect("the line names the message")).collect()
}

/// The messages, by the id in the relay's `Received` field, of which more than one copy has arrived.
fn arrived_twice(ledger: &Ledger) -> BTreeSet<String> {
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    for message in &ledger.messages {
        let content = String::from_utf8_lossy(&message.content);
        *copies.entry(field(&content, "\tid ").expect("trace information")).or_default() += 1;
    }
    copies.into_iter().filter(|(_, count)| *count > 1).map(|(id, _)| id).collect()
}

/// The message id that follows `before`.
fn field(text: &str, before: &str) -> Option<String> {
    Some(text.split_once(before)?.1.get(..26)?.to_owned())
}
