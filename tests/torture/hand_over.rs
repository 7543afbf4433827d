//! A relay hands its mail over to another while both are killed: every message arrives once.

use std::time::{Duration, Instant};

use postroad_tests::conservation::account;
use postroad_tests::load::{Load, Sent};
use postroad_tests::relay_pool::Pool;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::SmtpServer;
use serde::Serialize;

use crate::judge::record;
use crate::{LIMIT, rounds};

/// A relay that stays.
const STAYS: u32 = 0;
/// A relay that leaves.
const LEAVES: u32 = 1;

/// Two relays in front of an upstream that is down, the leaving one full of mail.
struct Scene {
    pool: Pool,
    upstream: SmtpServer,
    stays: RelayProcess,
    leaves: RelayProcess,
    sent: Sent,
    messages: usize,
}

impl Scene {
    async fn new() -> Self {
        let messages = rounds("POSTROAD_TORTURE_HAND_OVER", 1_000);
        let mut upstream = SmtpServer::plain().await.unwrap();
        upstream.stop().await;
        let pool = Pool::new(2, upstream.port()).unwrap();
        let start = |ordinal| {
            let options = RelayOptions { ordinal, ..RelayOptions::default() };
            let config = pool.config(ordinal, []);
            async move { RelayProcess::start(&config, options).await.unwrap() }
        };
        let (stays, leaves) = (start(STAYS).await, start(LEAVES).await);
        let mut load = Load::to_address(pool.smtp(LEAVES));
        load.messages_per_client = messages / load.clients;
        load.deadline = LIMIT;
        let sent = load.start().finish().await;
        assert_eq!(sent.acknowledged.len(), messages, "{:?}", sent.refused);
        Self { pool, upstream, stays, leaves, sent, messages }
    }

    fn tell(&self) {
        self.stays.rewrite_config(&self.pool.config(STAYS, [LEAVES])).unwrap();
        self.leaves.rewrite_config(&self.pool.config(LEAVES, [LEAVES])).unwrap();
    }

    async fn left(&self) -> Option<f64> {
        self.leaves.scrape().await.ok()?.value("postroad_relay_queue_messages")
    }

    /// Waits until at most `messages` are left; `false` when that takes longer than `limit`.
    async fn at_most(&self, messages: usize, limit: Duration) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if self.left().await.is_some_and(|left| left <= messages as f64) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        false
    }

    /// Waits for the last message, and says what has come.
    async fn judge(self, scenario: &str, kills: usize, begin: Instant) {
        assert!(self.at_most(0, LIMIT).await, "{:?} messages are left", self.left().await);
        self.upstream.wait_for(self.messages, LIMIT).await.unwrap();
        let account = account(&self.sent.acknowledged, self.upstream.ledger(|ledger| ledger.tokens()));
        assert!(account.balanced(), "{scenario}: {account:?}");
        let empty = |metrics: &postroad_tests::prometheus::Metrics| {
            metrics.value("postroad_relay_queue_messages") == Some(0.0)
        };
        self.stays.wait_for_metrics("nothing queued", LIMIT, empty).await.unwrap();
        record(&Verdict {
            scenario: scenario.to_owned(),
            crashes: kills,
            handed_over: self.messages,
            arrived: self.upstream.ledger(|ledger| ledger.messages.len()),
            lost: account.lost.len(),
            duplicates: account.duplicated.len(),
            seconds: begin.elapsed().as_secs(),
        });
    }
}

#[derive(Debug, Serialize)]
struct Verdict {
    scenario: String,
    crashes: usize,
    handed_over: usize,
    arrived: usize,
    lost: usize,
    duplicates: usize,
    seconds: u64,
}

/// How many messages are left at the kill of this number out of `kills`: spread over all of them.
fn threshold(messages: usize, kill: usize, kills: usize) -> usize {
    messages - messages * (2 * kill + 1) / (2 * kills)
}

/// The upstream is down meanwhile: a relay killed while it delivers could send twice whatever hand-over does (RFC 5321 §4.2.5).
#[tokio::test(flavor = "multi_thread")]
async fn mail_that_is_handed_over_while_both_sides_are_killed_arrives_once() {
    let begin = Instant::now();
    let mut scene = Scene::new().await;
    scene.tell();
    let kills = rounds("POSTROAD_TORTURE_HAND_OVER_KILLS", 10);
    for kill in 0..kills {
        scene.at_most(threshold(scene.messages, kill, kills), Duration::from_secs(5)).await;
        match kill % 3 {
            0 => scene.leaves.relaunch().await.unwrap(),
            1 => scene.stays.relaunch().await.unwrap(),
            _ => {
                scene.leaves.sigkill().await.unwrap();
                scene.stays.relaunch().await.unwrap();
                scene.leaves.relaunch().await.unwrap();
            }
        }
    }
    assert!(scene.at_most(0, LIMIT).await, "{:?} messages are left", scene.left().await);
    scene.upstream.restart().await.unwrap();
    scene.judge("SIGKILL of both sides of a hand-over", kills, begin).await;
}

/// Here what was handed over is delivered, and often done with, before its sender, killed again and again, asks for it once more.
#[tokio::test(flavor = "multi_thread")]
async fn mail_that_is_delivered_while_its_sender_is_killed_arrives_once() {
    let begin = Instant::now();
    let mut scene = Scene::new().await;
    scene.upstream.restart().await.unwrap();
    scene.tell();
    let kills = rounds("POSTROAD_TORTURE_HAND_OVER_KILLS", 10);
    for kill in 0..kills {
        scene.at_most(threshold(scene.messages, kill, kills), Duration::from_secs(5)).await;
        scene.leaves.relaunch().await.unwrap();
    }
    scene.judge("SIGKILL of the giving side while the taking side delivers", kills, begin).await;
}
