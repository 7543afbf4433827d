//! A start with much mail in the spool: the relay takes more at once, and soon knows of all of it.

use std::time::{Duration, Instant};

use postroad_tests::recipients::Recipients;
use postroad_tests::smtp_client::{Security, SmtpClient};
use postroad_tests::smtp_server::{Fault, Stage};
use serde::Serialize;

use crate::judge::record;
use crate::{LIMIT, Scene, rounds};

const CLIENTS: usize = 50;
/// From the start of the process until it has acknowledged a message.
const ACCEPTING_WITHIN: Duration = Duration::from_secs(2);
/// Until it knows all that is queued.
const KNOWN_WITHIN: Duration = Duration::from_secs(30);

#[derive(Serialize)]
struct Verdict {
    scenario: &'static str,
    queued: u64,
    seconds_until_accepting: f64,
    seconds_until_all_known: f64,
    resident_mebibytes: u64,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_takes_mail_at_once_and_soon_knows_all_that_is_queued() {
    let mut scene = Scene::new(None, 16 << 30).await;
    let outage = scene.upstream.inject(Fault::reply(Stage::Greeting, "421 4.3.2 later"));
    let mut load = scene.load.clone();
    (load.clients, load.octets) = (CLIENTS, 512);
    load.messages_per_client = rounds("POSTROAD_TORTURE_QUEUED", 2_000) / CLIENTS;
    let mut expected = load.start().finish().await.acknowledged.len() as u64;
    scene.relay.sigkill().await.unwrap();

    let begin = Instant::now();
    scene.relay.restart().await.unwrap();
    let mut client = SmtpClient::open(scene.load.address, &Security::None, "client.example").await.unwrap();
    let content = scene.load.content("after-the-start");
    let reply = client.message("a@example.com", &["b@example.net"], &content).await.unwrap();
    let accepting = begin.elapsed();
    assert_eq!(reply.code, 250);
    expected += 1;
    let all_known = |metrics: &_| Recipients::read(metrics).is_some();
    scene.relay.wait_for_metrics("all mail to be known", LIMIT, all_known).await.unwrap();
    let known = begin.elapsed();
    let account = Recipients::read(&scene.relay.scrape().await.unwrap()).unwrap();
    assert_eq!((account.accepted, account.queued), (expected, expected));
    record(&Verdict {
        scenario: "start",
        queued: expected,
        seconds_until_accepting: accepting.as_secs_f64(),
        seconds_until_all_known: known.as_secs_f64(),
        resident_mebibytes: scene.relay.resident_octets().unwrap_or_default() >> 20,
    });
    assert!(accepting <= ACCEPTING_WITHIN && known <= KNOWN_WITHIN, "{accepting:?}, {known:?}");
    if expected < 10_000 {
        scene.upstream.withdraw(outage);
        let account = scene.relay.wait_until_all_ended(LIMIT).await.unwrap();
        assert_eq!(account.ended_as("delivered"), expected);
    }
}
