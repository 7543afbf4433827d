//! SIGKILL under load: no code of the relay runs any more, what it handed to the system stays.

use std::time::Instant;

use crate::judge::judge;
use crate::{LIMIT, Scene, rounds};

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_by_sigkill_under_load() {
    let begin = Instant::now();
    let mut scene = Scene::new(None, 1_000_000_000).await;
    let running = scene.load.clone().start();
    let mut crashes = Vec::new();
    for round in 1..=rounds("POSTROAD_TORTURE_KILLS", 20) {
        // The kills are spread over the load by what it has achieved, not by time.
        let reached = running.acknowledged() + 1 + (round * 37) % 120;
        running.wait_for_acknowledged(reached, LIMIT).await.unwrap();
        scene.relay.sigkill().await.unwrap();
        crashes.push(Instant::now());
        scene.relay.restart().await.unwrap();
    }
    running.stop();
    let sent = running.finish().await;
    judge("SIGKILL", &sent, &scene.upstream, &crashes, begin, LIMIT).await;
}
