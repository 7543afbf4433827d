//! Power cuts under load, on real file systems: what the disk was not told to flush is gone, in whole or in part.
//!
//! The relay runs on while its disk has no power, and is killed after it. What it acknowledges meanwhile counts as well: without
//! power no sync succeeds.

use std::time::{Duration, Instant};

use postroad_tests::conservation::account;
use postroad_tests::smtp_server::{Fault, Ledger, Stage};
use rand::RngExt;

use crate::judge::judge;
use crate::volume::{Kind, Volume};
use crate::{LIMIT, Scene, rounds, strace};

/// How much of what the disk had not flushed comes to its medium, in turn: nothing, all but little, half in any order.
const SURVIVING: [f64; 3] = [0.0, 0.9, 0.5];

async fn cuts(kind: Kind) {
    let begin = Instant::now();
    let volume = Volume::new(kind, 2 << 30);
    let mut scene = Scene::new(Some(&volume.path().join("data")), 1_000_000_000).await;
    let running = scene.load.clone().start();
    let mut crashes = Vec::new();
    let rounds = rounds("POSTROAD_TORTURE_CUTS", 6);
    for (round, surviving) in (1..=rounds).zip(SURVIVING.into_iter().cycle()) {
        let reached = running.acknowledged() + 1 + (round * 37) % 120;
        running.wait_for_acknowledged(reached, LIMIT).await.unwrap();
        volume.disk().medium().cut(surviving);
        scene.relay.sigkill().await.unwrap();
        crashes.push(Instant::now());
        volume.remount();
        scene.relay.restart().await.unwrap();
    }
    running.stop();
    let sent = running.finish().await;
    let scenario = format!("power cut, {kind:?}");
    judge(&scenario, &sent, &scene.upstream, &crashes, begin, LIMIT).await;
    scene.relay.sigkill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts file systems: make torture"]
async fn nothing_acknowledged_is_lost_by_power_cuts_on_ext4() {
    cuts(Kind::Ext4).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts file systems: make torture"]
async fn nothing_acknowledged_is_lost_by_power_cuts_on_xfs() {
    cuts(Kind::Xfs).await;
}

/// The power cut itself is tried: a relay whose syncs are made to do nothing must lose what it acknowledged.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts file systems, traces the relay: make torture"]
async fn a_relay_whose_syncs_do_nothing_would_lose_mail_in_such_a_power_cut() {
    let volume = Volume::new(Kind::Ext4, 1 << 30);
    let mut scene = Scene::new(Some(&volume.path().join("data")), 1_000_000_000).await;
    let outage = scene.upstream.inject(Fault::reply(Stage::Mail, "451 4.3.2 later"));
    let calls = ["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:retval=0", "-o", "/dev/null"];
    let strace = strace::attach(&scene.relay, &calls).await;
    let running = scene.load.clone().start();
    running.wait_for_acknowledged(100, LIMIT).await.unwrap();
    volume.disk().medium().cut(0.0);
    scene.relay.sigkill().await.unwrap();
    strace.wait(LIMIT).await.unwrap();
    running.stop();
    let sent = running.finish().await;
    volume.remount();
    scene.upstream.withdraw(outage);
    // It goes with the mail.
    scene.relay.forgive_lost_account();
    scene.relay.restart().await.unwrap();
    let emptied = scene.relay.wait_for_metrics("an empty queue", LIMIT, |metrics| {
        metrics.value("postroad_relay_queue_messages") == Some(0.0)
    });
    emptied.await.unwrap();
    let account = account(&sent.acknowledged, scene.upstream.ledger(Ledger::tokens));
    assert!(!account.lost.is_empty(), "the cut took nothing of {} messages", sent.acknowledged.len());
    scene.relay.sigkill().await.unwrap();
}

/// Syncs as slow as those of a network volume in trouble; then a power cut.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "mounts file systems: make torture"]
async fn a_slow_disk_breaks_no_client_and_loses_nothing() {
    let begin = Instant::now();
    let volume = Volume::new(Kind::Ext4, 1 << 30);
    let mut scene = Scene::new(Some(&volume.path().join("data")), 1_000_000_000).await;
    volume.disk().slow_down(|| Duration::from_millis(rand::rng().random_range(50..=500)));
    let running = scene.load.clone().start();
    running.wait_for_acknowledged(200, LIMIT).await.unwrap();
    assert_eq!(scene.relay.get("/readyz").await.unwrap().status, 200);
    volume.disk().medium().cut(0.5);
    scene.relay.sigkill().await.unwrap();
    let killed = Instant::now();
    volume.remount();
    scene.relay.restart().await.unwrap();
    let acknowledged = running.acknowledged();
    running.wait_for_acknowledged(acknowledged + 200, LIMIT).await.unwrap();
    running.stop();
    let sent = running.finish().await;
    // Each client loses the connection that the cut took, and tries in vain while there is no relay.
    assert!(sent.refused.is_empty() && sent.unknown.len() <= scene.load.clients, "{sent:?}");
    judge("slow disk", &sent, &scene.upstream, &[killed], begin, LIMIT).await;
    scene.relay.sigkill().await.unwrap();
}
