//! What several messages in flight on one session are for: an upstream that is far away.

use std::time::{Duration, Instant};

use postroad_tests::distance::Distance;
use postroad_tests::load::Load;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::{Options, Settings, SmtpServer, TlsMode};

use crate::{alone, arrived_once, best_of_three, config};

const ROUND_TRIP: Duration = Duration::from_millis(100);
const MESSAGES: usize = 30;
/// How many times as much PIPELINING has to carry.
const TIMES: f64 = 3.0;

/// Messages a second over one session with an upstream that is [`ROUND_TRIP`] away and offers these extensions.
async fn messages_per_second(pipelining: bool) -> f64 {
    let settings =
        Settings { pipelining, require_tls: true, require_authentication: true, ..Settings::default() };
    let settings = settings.with_user("relay", "secret");
    let options = Options { tls: TlsMode::StartTls, settings, ..Options::default() };
    let upstream = SmtpServer::start(options).await.unwrap();
    let distance = Distance::to(upstream.address(), ROUND_TRIP).await.unwrap();
    let port = free_port().unwrap();
    let mut config = config(port, &upstream, "secret");
    config.upstreams[0].connections.maximum = 1;
    if let postroad_crds::relay_config::Destination::Smarthost(smarthost) =
        &mut config.upstreams[0].destination
    {
        smarthost.ports[0].port = distance.address().port();
    }
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    let load = Load {
        clients: 5,
        messages_per_client: MESSAGES / 5,
        ..Load::to_address(([127, 0, 0, 1], port).into())
    };
    let sent = load.clone().start().finish().await;
    let received = arrived_once(&load, &sent, &upstream, 1).await;
    assert!(upstream.violations().is_empty(), "{:?}", upstream.violations());
    drop(relay);
    let times: Vec<Instant> = received.iter().map(|message| message.received).collect();
    let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    (MESSAGES - 1) as f64 / (*last - *first).as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "the figure, for who asks for it by --nocapture")]
async fn pipelining_carries_three_times_as_much_to_an_upstream_a_tenth_of_a_second_away() {
    let _alone = alone().await;
    let times = best_of_three(TIMES, async || {
        let (with, without) = tokio::join!(messages_per_second(true), messages_per_second(false));
        println!("{with:.1} messages a second over one session with PIPELINING, {without:.1} without");
        with / without
    });
    let times = times.await;
    assert!(times >= TIMES, "{times:.1} times as many with PIPELINING");
}
