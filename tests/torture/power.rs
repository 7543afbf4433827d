//! Power cuts under load: what the relay wrote and did not sync is gone, on real file systems.

use std::fs;
use std::time::{Duration, Instant};

use postroad_tests::processes::Signal;

use crate::judge::judge;
use crate::volume::{Kind, Volume};
use crate::{LIMIT, Scene, rounds};

/// Waits until no thread of the process runs: each is stopped, or in a system call that it will not return from.
async fn stands_still(process: u32) {
    let still = |state: &str| state.starts_with('T') || state.starts_with('D');
    loop {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let stats = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
        // The name before the state is in parentheses and may hold any.
        let mut states = stats.map(|stat| stat.rsplit(") ").next().is_some_and(still));
        if states.all(|still| still) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn cuts(kind: Kind) {
    let begin = Instant::now();
    let volume = Volume::new(kind, 2 << 30);
    let mut scene = Scene::new(Some(&volume.path().join("data")), 1_000_000_000).await;
    let running = scene.load.clone().start();
    let mut crashes = Vec::new();
    for round in 1..=rounds("POSTROAD_TORTURE_CUTS", 5) {
        let reached = running.acknowledged() + 1 + (round * 37) % 120;
        running.wait_for_acknowledged(reached, LIMIT).await.unwrap();
        // The machine stands still first, as without power it says nothing more: a sync that is under way while ext4 or XFS is
        // shut down may return 0 though the file system has dropped what it was to bring to the medium.
        scene.relay.signal(Signal::Stop);
        stands_still(scene.relay.id()).await;
        volume.power_cut();
        scene.relay.sigkill().await.unwrap();
        crashes.push(Instant::now());
        volume.remount();
        scene.relay.restart().await.unwrap();
    }
    running.stop();
    let sent = running.finish().await;
    let scenario = format!("power cut, {kind:?}");
    judge(&scenario, &sent, &scene.upstream, &crashes, begin, LIMIT).await;
    assert_eq!(scene.relay.scrape().await.unwrap().value("postroad_relay_spool_quarantined"), Some(0.0));
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
