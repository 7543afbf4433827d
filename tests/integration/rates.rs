//! Rates of upstreams, routes and identities hold at the upstream, in every span, also over a crash.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use postroad_crds::relay_config::{
    Authentication, Identity, IdentityKind, Priority, Rate, RateUnit, Route, Sensitive,
};
use postroad_tests::load::Load;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::{Action, Fault, Ledger, ReceivedMessage, SmtpServer, Stage};

use crate::{LIMIT, config};

#[tokio::test(flavor = "multi_thread")]
async fn no_span_holds_more_than_its_rate_though_the_relay_dies_in_between() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let mut config = config(port, &upstream, "secret");
    let rates = [(40, RateUnit::Messages, 1), (150, RateUnit::Recipients, 12)];
    config.upstreams[0].rates =
        rates.map(|(limit, unit, per_seconds)| Rate { limit, unit, per_seconds }).to_vec();
    let mut relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    let load =
        Load { clients: 10, messages_per_client: 20, ..Load::to_address(([127, 0, 0, 1], port).into()) };
    let sent = load.start().finish().await;
    assert_eq!(sent.acknowledged.len(), 200, "{:?}", sent.refused);

    upstream.wait_for(60, LIMIT).await.unwrap();
    relay.sigkill().await.unwrap();
    relay.restart().await.unwrap();
    upstream.wait_for(200, LIMIT).await.unwrap();

    let tokens: BTreeSet<_> = upstream.messages().iter().filter_map(|message| message.token()).collect();
    assert!(tokens.len() >= 190, "only {} different messages of 200", tokens.len());
    for (limit, _, seconds) in rates {
        keeps(&upstream.messages(), |_| true, limit, seconds);
    }
}

/// No span holds more of the messages `wanted` than the limit.
fn keeps(messages: &[ReceivedMessage], wanted: impl Fn(&ReceivedMessage) -> bool, limit: u32, seconds: u32) {
    let wanted = messages.iter().filter(|message| wanted(message));
    let mut times: Vec<Instant> = wanted.map(|message| message.received).collect();
    times.sort_unstable();
    let (span, limit) = (Duration::from_secs(u64::from(seconds)), usize::try_from(limit).unwrap());
    assert!(times.len() > limit, "{} messages show nothing", times.len());
    for (first, beyond) in times.iter().zip(&times[limit..]) {
        assert!(*beyond - *first >= span, "{} messages within {:?}", limit + 1, *beyond - *first);
    }
}

/// A relay behind whose one upstream the identity `shop` and the route `bulk` have rates; all others go at once.
async fn with_rates_of_its_own(upstream: &SmtpServer, port: u16) -> RelayProcess {
    let mut config = config(port, upstream, "secret");
    let listener = &mut config.listeners[0];
    (listener.authentication, listener.insecure_authentication) = (Authentication::Optional, true);
    let users = [("shop".to_owned(), Sensitive("hunter2".to_owned()))].into();
    let rate = |limit, per_seconds| vec![Rate { limit, unit: RateUnit::Recipients, per_seconds }];
    let shop = Identity {
        name: "shop".to_owned(),
        kind: IdentityKind::Password { users, user_senders: BTreeMap::new() },
        allowed_senders: Vec::new(),
        priority: Priority::Normal,
        rates: rate(SHOP.0, SHOP.1),
    };
    config.identities.insert(0, shop);
    let bulk = Route {
        name: "bulk".to_owned(),
        recipient_domains: vec!["bulk.example".to_owned()],
        rates: rate(BULK.0, BULK.1),
        ..config.routes[0].clone()
    };
    config.routes.insert(0, bulk);
    RelayProcess::start(&config, RelayOptions::default()).await.unwrap()
}

const SHOP: (u32, u32) = (20, 11);
const BULK: (u32, u32) = (10, 2);

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_and_a_route_keep_their_own_rates_over_a_crash_while_others_go_at_once() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    // So that all is queued before anything leaves.
    let held = upstream.inject(Fault::always(Stage::Greeting, Action::Hold));
    let port = free_port().unwrap();
    let mut relay = with_rates_of_its_own(&upstream, port).await;
    let load = |name: &str, domain: &str, messages_per_client| Load {
        clients: 2,
        messages_per_client,
        from: format!("{name}@client.example"),
        to: vec![format!("a@{domain}")],
        token_prefix: name.to_owned(),
        ..Load::to_address(([127, 0, 0, 1], port).into())
    };
    let credentials = Some(("shop".to_owned(), "hunter2".to_owned()));
    let shop = Load { credentials, ..load("shop", "example.net", 18) };
    for load in [shop, load("bulk", "bulk.example", 20), load("free", "example.net", 50)] {
        let count = load.clients * load.messages_per_client;
        assert_eq!(load.start().finish().await.acknowledged.len(), count);
    }
    upstream.withdraw(held);
    let of = |name: &'static str| move |message: &ReceivedMessage| message.reverse_path.starts_with(name);
    let arrived = |ledger: &Ledger, name| ledger.messages.iter().filter(|message| of(name)(message)).count();
    upstream.wait_until("all others", LIMIT, |ledger| arrived(ledger, "free") == 100).await.unwrap();

    let some = |ledger: &Ledger| arrived(ledger, "shop") >= 20 && arrived(ledger, "bulk") >= 20;
    upstream.wait_until("a part of both", LIMIT, some).await.unwrap();
    relay.sigkill().await.unwrap();
    relay.restart().await.unwrap();
    let all = |ledger: &Ledger| arrived(ledger, "shop") >= 36 && arrived(ledger, "bulk") >= 40;
    upstream.wait_until("all of both", LIMIT, all).await.unwrap();
    let last = |name| upstream.messages().into_iter().filter(of(name)).map(|message| message.received).max();
    assert!(last("free") < last("bulk") && last("free") < last("shop"), "others have waited for them");
    keeps(&upstream.messages(), of("shop"), SHOP.0, SHOP.1);
    keeps(&upstream.messages(), of("bulk"), BULK.0, BULK.1);
}
