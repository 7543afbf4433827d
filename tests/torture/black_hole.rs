//! An upstream that vanishes: what is sent to it and by it is dropped, as by a firewall or a cut cable. Nothing is refused and nothing
//! reset, so only the relay's own deadlines tell. Needs root and a network namespace of its own: `tests/torture/run.sh` makes it.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use postroad_crds::relay_config::{Destination, RouteUpstream};
use postroad_tests::conservation::account;
use postroad_tests::load::Load;
use postroad_tests::ports::free_port;
use postroad_tests::prometheus::Metrics;
use postroad_tests::relay_process::RelayOptions;
use postroad_tests::smtp_server::{Ledger, Options, SmtpServer};
use serde::Serialize;

use crate::judge::record;
use crate::{LIMIT, Scene};

/// Where the upstream is that vanishes. All of 127.0.0.0/8 is this machine.
const VANISHING: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);
/// How long the relay waits for a reply, or for a connection.
const PATIENCE_SECONDS: u32 = 2;
/// Until the other upstream has the first message: the sessions that stand are given up, then those that were to replace them, and
/// where a single one tried, another a second later. The rest is for a machine that has other things to do.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(3 * PATIENCE_SECONDS as u64 + 1 + 8);

/// While it lives no packet goes to or comes from [`VANISHING`].
struct BlackHole;

impl BlackHole {
    fn open() -> Self {
        assert!(
            std::env::var_os("POSTROAD_TORTURE_NAMESPACE").is_some(),
            "this test drops packets: run it by `make torture`, as root, which gives it a network namespace"
        );
        nft("add table inet hole");
        nft("add chain inet hole input { type filter hook input priority 0; }");
        nft(&format!("add rule inet hole input ip daddr {VANISHING} drop"));
        nft(&format!("add rule inet hole input ip saddr {VANISHING} drop"));
        Self
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        nft("delete table inet hole");
    }
}

fn nft(command: &str) {
    assert!(Command::new("nft").arg(command).status().unwrap().success(), "nft {command}");
}

#[derive(Serialize)]
struct Verdict {
    scenario: &'static str,
    acknowledged: usize,
    lost: usize,
    /// Copies beyond the first of each message.
    duplicates: usize,
    /// Recipients that the relay has noted as possibly delivered.
    noted: u64,
    seconds_until_taken_over: f64,
}

/// A relay whose mail goes to an upstream at [`VANISHING`], and to [`Scene::upstream`] when that fails.
async fn scene() -> (SmtpServer, Scene) {
    let port = free_port().unwrap();
    let listen = Some((VANISHING, port).into());
    let vanishing = SmtpServer::start(Options { listen, ..Options::default() }).await.unwrap();
    let scene = Scene::with(1 << 30, RelayOptions::default(), |config| {
        config.upstreams[0].connections.reply_timeout_seconds = Some(PATIENCE_SECONDS);
        let mut first = config.upstreams[0].clone();
        first.name = "vanishing".to_owned();
        let Destination::Smarthost(smarthost) = &mut first.destination else { unreachable!() };
        smarthost.host = VANISHING.to_string();
        smarthost.ports[0].port = port;
        config.upstreams.push(first);
        let way = |name: &str, priority| RouteUpstream { name: name.to_owned(), weight: 1, priority };
        config.routes[0].upstreams = vec![way("vanishing", 1), way("service", 2)];
    })
    .await;
    (vanishing, scene)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "drops packets: make torture"]
async fn an_upstream_that_vanishes_is_noticed_and_another_takes_over_with_nothing_lost() {
    let (vanishing, scene) = scene().await;
    let running = scene.load.clone().start();
    vanishing.wait_for(200, LIMIT).await.unwrap();

    let (hole, begin) = (BlackHole::open(), Instant::now());
    scene.upstream.wait_for(1, LIMIT).await.unwrap();
    let taken_over = begin.elapsed();
    assert!(taken_over < TAKEN_OVER_WITHIN, "after {taken_over:?}");
    scene.upstream.wait_for(200, LIMIT).await.unwrap();
    running.stop();
    let sent = running.finish().await;
    scene.relay.wait_until_all_ended(LIMIT).await.unwrap();

    // What the kernel still had to send arrives now: a final dot of a session that was given up is among it.
    drop(hole);
    let back = |metrics: &Metrics| metrics.sum("postroad_relay_route_priority") == Some(1.0);
    let after = Load { token_prefix: "after".to_owned(), ..scene.load.clone() }.start();
    scene.relay.wait_for_metrics("the way back", LIMIT, back).await.unwrap();
    after.stop();
    let sent_after = after.finish().await;
    scene.relay.wait_until_all_ended(LIMIT).await.unwrap();
    let gone = |ledger: &Ledger| ledger.sessions.iter().filter(|it| it.closed.is_none()).count() <= 4;
    vanishing.wait_until("the sessions that were given up to end", LIMIT, gone).await.unwrap();

    let acknowledged = sent.acknowledged.union(&sent_after.acknowledged).cloned().collect();
    let tokens = [&vanishing, &scene.upstream].map(|upstream| upstream.ledger(Ledger::tokens)).concat();
    let account = account(&acknowledged, tokens);
    assert!(account.lost.is_empty() && account.unexpected.is_empty(), "{account:?}");
    let copies = &account.duplicated;
    assert!(copies.values().all(|copies| *copies == 2), "{copies:?}");
    let metrics = scene.relay.scrape().await.unwrap();
    let noted = metrics.sum("postroad_relay_recipients_ambiguous_total").unwrap_or(0.0) as u64;
    assert!(copies.len() as u64 <= noted, "{} came twice, {noted} were noted", copies.len());
    record(&Verdict {
        scenario: "black hole",
        acknowledged: acknowledged.len(),
        lost: account.lost.len(),
        duplicates: copies.len(),
        noted,
        seconds_until_taken_over: taken_over.as_secs_f64(),
    });
}
