//! Sessions from several addresses of the relay: what leaves from each keeps to a rate of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use postroad_crds::relay_config::{Destination, Rate, RateUnit, RelayConfig};
use postroad_tests::load::Load;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::{Action, Fault, SmtpServer, Stage};

use crate::{LIMIT, alone, best_of_three, config};

const ADDRESSES: [IpAddr; 5] = [address(2), address(3), address(4), address(5), address(6)];
/// Messages a second from each.
const CAP: usize = 100;
const MESSAGES: usize = 3000;

const fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// As [`config`], over one session from each of these addresses.
fn from_addresses(port: u16, upstream: &SmtpServer, addresses: &[IpAddr]) -> RelayConfig {
    let mut config = config(port, upstream, "secret");
    let connections = &mut config.upstreams[0].connections;
    connections.maximum = u32::try_from(addresses.len()).unwrap();
    connections.messages_per_connection = 1_000_000;
    connections.source_addresses = addresses.to_vec();
    config
}

/// When each message arrived, by the address that it came from.
fn arrivals(upstream: &SmtpServer) -> BTreeMap<IpAddr, Vec<Instant>> {
    let sessions: BTreeMap<u64, IpAddr> =
        upstream.sessions().into_iter().map(|session| (session.id, session.peer.ip())).collect();
    let mut arrivals: BTreeMap<IpAddr, Vec<Instant>> = BTreeMap::new();
    for message in upstream.messages() {
        arrivals.entry(sessions[&message.session]).or_default().push(message.received);
    }
    arrivals.values_mut().for_each(|times| times.sort_unstable());
    arrivals
}

/// The most that any span of this length holds.
fn most_within(times: &[Instant], span: Duration) -> usize {
    let within = |(index, first): (usize, &Instant)| {
        times[index..].iter().take_while(|time| **time - *first < span).count()
    };
    times.iter().enumerate().map(within).max().unwrap_or(0)
}

/// In the best three seconds of all addresses together. Each gives a second's messages at once, so whole seconds are looked at: from
/// one message to the one that takes its place three windows later.
fn messages_per_second(mut times: Vec<Instant>) -> f64 {
    times.sort_unstable();
    let count = 3 * CAP * ADDRESSES.len();
    let took = times.iter().zip(&times[count..]).map(|(first, last)| *last - *first).min();
    count as f64 / took.unwrap().as_secs_f64()
}

/// Sends [`MESSAGES`] at once through a relay with a session from each address, and says how many a second came for three seconds.
/// None of the addresses has exceeded its cap.
async fn steady() -> f64 {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    // So that all is queued before anything leaves.
    let held = upstream.inject(Fault::always(Stage::Greeting, Action::Hold));
    let port = free_port().unwrap();
    let mut config = from_addresses(port, &upstream, &ADDRESSES);
    let cap = Rate { limit: u32::try_from(CAP).unwrap(), unit: RateUnit::Messages, per_seconds: 1 };
    config.upstreams[0].connections.rates_per_source_address = vec![cap];
    let _relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    let load = Load {
        messages_per_client: MESSAGES / 20,
        octets: 1000,
        ..Load::to_address(([127, 0, 0, 1], port).into())
    };
    assert_eq!(load.start().finish().await.acknowledged.len(), MESSAGES);
    upstream.withdraw(held);
    upstream.wait_for(MESSAGES, LIMIT).await.unwrap();

    let arrivals = arrivals(&upstream);
    assert!(arrivals.keys().eq(&ADDRESSES), "{:?}", arrivals.keys());
    assert_eq!(upstream.sessions().len(), ADDRESSES.len(), "one persistent session each");
    for (address, times) in &arrivals {
        let most = most_within(times, Duration::from_secs(1));
        assert!(most <= CAP, "{most} within a second from {address}");
    }
    messages_per_second(arrivals.into_values().flatten().collect())
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stdout, reason = "the figure, for who asks for it by --nocapture")]
async fn five_addresses_of_a_hundred_a_second_carry_five_hundred_and_none_more_than_its_cap() {
    let _alone = alone().await;
    let steady = best_of_three(480.0, steady).await;
    println!("{steady:.0} messages a second for three seconds");
    assert!(steady >= 480.0, "{steady:.0} messages a second");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_the_relay_lacks_is_passed_over_and_the_upstream_is_told_its_own_name() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let mut config = from_addresses(port, &upstream, &["192.0.2.1".parse().unwrap(), ADDRESSES[0]]);
    if let Destination::Smarthost(smarthost) = &mut config.upstreams[0].destination {
        smarthost.ehlo_name = Some("out.example.com".to_owned());
    }
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    let load = Load { clients: 2, messages_per_client: 5, ..Load::to_address(([127, 0, 0, 1], port).into()) };
    load.start().finish().await;
    upstream.wait_for(10, LIMIT).await.unwrap();
    for session in upstream.sessions() {
        assert_eq!(session.peer.ip(), ADDRESSES[0]);
        assert_eq!(session.client_name.as_deref(), Some("out.example.com"));
    }
    assert!(relay.log().contains("does not have the address 192.0.2.1"), "{}", relay.log().tail(20));
}
