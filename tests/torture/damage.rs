//! Flipped bytes in every segment of a spool that was killed: each damaged message is found and put aside, all others arrive.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use postroad_tests::conservation::account;
use postroad_tests::smtp_server::{Fault, Ledger, Stage};
use serde::Serialize;

use crate::judge::record;
use crate::{LIMIT, Scene, rounds};

#[derive(Serialize)]
struct Verdict {
    scenario: &'static str,
    segments: usize,
    flipped_bytes: usize,
    acknowledged: usize,
    quarantined: usize,
    missing: usize,
    seconds: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bytes_cost_only_the_messages_they_hit_and_each_is_reported() {
    let begin = Instant::now();
    // Segments of 1 MiB.
    let mut scene = Scene::new(None, 16 << 20).await;
    let outage = scene.upstream.inject(Fault::reply(Stage::Mail, "451 4.3.2 later"));
    let running = scene.load.clone().start();
    running.wait_for_acknowledged(800, LIMIT).await.unwrap();
    running.stop();
    let sent = running.finish().await;
    scene.relay.sigkill().await.unwrap();
    let segments = segments(&scene);
    let flips = rounds("POSTROAD_TORTURE_FLIPS", 10);
    for segment in &segments {
        flip(segment, flips);
    }
    scene.upstream.withdraw(outage);
    scene.relay.forgive_lost_account();
    scene.relay.restart().await.unwrap();

    let account_now = |ledger: &Ledger| account(&sent.acknowledged, ledger.tokens());
    scene.relay.wait_until_all_ended(LIMIT).await.unwrap();
    let account = scene.upstream.ledger(account_now);
    let metrics = scene.relay.scrape().await.unwrap();
    let quarantined = metrics.value("postroad_relay_spool_quarantined").unwrap() as usize;
    assert!(account.lost.len() <= quarantined, "{} missing, {quarantined} in quarantine", account.lost.len());
    assert!(!account.lost.is_empty() && account.lost.len() <= segments.len() * flips);
    assert!(scene.relay.log().contains("quarantine"));
    record(&Verdict {
        scenario: "flipped bytes",
        segments: segments.len(),
        flipped_bytes: segments.len() * flips,
        acknowledged: sent.acknowledged.len(),
        quarantined,
        missing: account.lost.len(),
        seconds: begin.elapsed().as_secs(),
    });
}

fn segments(scene: &Scene) -> Vec<PathBuf> {
    let entries = fs::read_dir(scene.relay.data().join("spool")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect()
}

/// Flips a byte in each of `count` stretches of what the segment holds.
fn flip(segment: &PathBuf, count: usize) {
    let mut bytes = fs::read(segment).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for number in 0..count {
        // Beyond both copies of the header.
        let place = 64 + (used - 64) * number / count + 17 * number;
        bytes[place.min(used - 1)] ^= 0x20;
    }
    fs::write(segment, bytes).unwrap();
}
