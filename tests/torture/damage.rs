//! Damage in every file of a killed relay's data folder: each message hit is found, put aside and reported, all others arrive.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use postroad_crds::relay_config::{Rate, RateUnit};
use postroad_tests::conservation::account;
use postroad_tests::load::Sent;
use postroad_tests::relay_process::RelayOptions;
use postroad_tests::smtp_server::{Fault, Stage};
use serde::Serialize;

use crate::judge::{judge, record};
use crate::{LIMIT, Scene, rounds};

/// Seconds. A rate over more than ten is recorded; what was spent of it is unknown, hence all, when the record is lost.
const RECORDED_WINDOW: u32 = 12;

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

/// A relay that was killed with about `messages` in its spool, and what was sent to it. The upstream takes mail again.
async fn killed(mut scene: Scene, messages: usize) -> (Scene, Sent) {
    scene.load.token_prefix = "hit".to_owned();
    let outage = scene.upstream.inject(Fault::reply(Stage::Mail, "451 4.3.2 later"));
    let running = scene.load.clone().start();
    running.wait_for_acknowledged(messages, LIMIT).await.unwrap();
    running.stop();
    let sent = running.finish().await;
    scene.relay.sigkill().await.unwrap();
    scene.upstream.withdraw(outage);
    (scene, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn flipped_bytes_cost_only_the_messages_they_hit_and_each_is_reported() {
    let begin = Instant::now();
    // Segments of 1 MiB.
    let (mut scene, sent) = killed(Scene::new(None, 16 << 20).await, 800).await;
    let (segments, _) = files(scene.relay.data());
    let flips = rounds("POSTROAD_TORTURE_FLIPS", 10);
    for segment in &segments {
        let bytes = fs::read(segment).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // Beyond both copies of the header.
        let places = (0..flips).map(|number| 64 + (used - 64) * number / flips + 17 * number);
        flip(segment, places.map(|place| place.min(used - 1)));
    }
    scene.relay.forgive_lost_account();
    scene.relay.restart().await.unwrap();
    scene.relay.wait_until_all_ended(LIMIT).await.unwrap();
    let arrived: BTreeSet<String> = scene.upstream.ledger(|ledger| ledger.tokens().into_iter().collect());
    let account = account(&sent.acknowledged, &arrived);
    assert!(!account.lost.is_empty() && account.lost.len() <= segments.len() * flips);
    let quarantine = scene.relay.data().join("spool/quarantine");
    let (messages, entries) = quarantined(&quarantine, &sent.acknowledged);
    for token in &account.lost {
        assert!(messages.contains(token), "{token} has neither arrived nor is it in quarantine");
    }
    for token in messages.iter().filter(|token| sent.acknowledged.contains(*token)) {
        assert!(!arrived.contains(token), "{token} is in quarantine and has arrived");
    }
    // Counted and reported, each.
    let metrics = scene.relay.scrape().await.unwrap();
    assert_eq!(metrics.value("postroad_relay_spool_quarantined"), Some(entries as f64));
    assert!(scene.relay.log().contains("quarantine"));
    record(&Verdict {
        scenario: "flipped bytes",
        segments: segments.len(),
        flipped_bytes: segments.len() * flips,
        acknowledged: sent.acknowledged.len(),
        quarantined: entries,
        missing: account.lost.len(),
        seconds: begin.elapsed().as_secs(),
    });
}

/// What else there is serves speed, or a budget that is spent to the safe side when its record is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_or_a_torn_end_of_any_other_file_costs_no_message() {
    for (form, damage) in [("flipped", flip_middle as fn(&Path)), ("torn", tear)] {
        let begin = Instant::now();
        let rate = Rate { limit: 100_000, unit: RateUnit::Recipients, per_seconds: RECORDED_WINDOW };
        let scene = Scene::with(16 << 20, RelayOptions::default(), |config| {
            config.upstreams[0].rates = vec![rate];
        });
        let (mut scene, sent) = killed(scene.await, 400).await;
        let (_, others) = files(scene.relay.data());
        let names: Vec<_> = others.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert!(names.contains(&"lock") && names.contains(&"service.json"), "{names:?}");
        others.iter().filter(|path| fs::metadata(path).unwrap().len() > 0).for_each(|path| damage(path));
        scene.relay.restart().await.unwrap();
        let scenario = format!("every other file {form}");
        judge(&scenario, &sent, &scene.upstream, &[], begin, LIMIT).await;
        let metrics = scene.relay.scrape().await.unwrap();
        assert_eq!(metrics.value("postroad_relay_spool_quarantined"), Some(0.0));
        assert!(scene.relay.log().contains("what was sent before cannot be read"));
    }
}

/// The segments and all other files below a data folder.
fn files(folder: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let (below, files): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
        folders.extend(below);
        found.extend(files);
    }
    found.into_iter().partition(|path| path.extension().is_some_and(|extension| extension == "log"))
}

fn flip_middle(path: &Path) {
    let middle = fs::metadata(path).unwrap().len() as usize / 2;
    flip(path, std::iter::once(middle));
}

fn tear(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

fn flip(path: &Path, places: impl Iterator<Item = usize>) {
    let mut bytes = fs::read(path).unwrap();
    places.for_each(|place| bytes[place] ^= 0x20);
    fs::write(path, bytes).unwrap();
}

/// The messages whose content is in quarantine, by their tokens (each has it three times, of which a flipped byte hits one at
/// most), and how many entries there are.
fn quarantined(folder: &Path, tokens: &BTreeSet<String>) -> (BTreeSet<String>, usize) {
    let entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let contents =
        entries.iter().map(|entry| if entry.is_dir() { entry.join("content") } else { entry.clone() });
    let mut found = BTreeSet::new();
    for content in contents {
        let bytes = fs::read(&content).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let near = |token: &&String| {
            let forms = [format!("Subject: {token}\r"), format!("<{token}@"), format!("-Test: {token}\r")];
            forms.iter().any(|form| text.contains(form))
        };
        found.extend(tokens.iter().filter(near).cloned());
    }
    (found, entries.len())
}
