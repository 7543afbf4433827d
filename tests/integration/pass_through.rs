//! A pool that passes through: the client hears what the upstream says, all recipients have the message or none, and nothing is kept.

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use postroad_crds::relay_config::{Acceptance, Rate, RateUnit, RelayConfig, Route, RouteUpstream, Upstream};
use postroad_tests::conservation;
use postroad_tests::ports::free_port;
use postroad_tests::prometheus::Metrics;
use postroad_tests::recipients::Recipients;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_client::Reply;
use postroad_tests::smtp_server::{Action, Fault, SmtpServer, Stage, When};

use crate::{LIMIT, client, config};

const A: &str = "a@example.net";
const B: &str = "b@example.net";

const SENDER: &str = "app@example.com";

struct Setting {
    upstream: SmtpServer,
    relay: RelayProcess,
    config: RelayConfig,
    port: u16,
}

async fn setting(change: impl FnOnce(&mut RelayConfig)) -> Setting {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let mut config = config(port, &upstream, "secret");
    config.acceptance = Acceptance::PassThrough;
    change(&mut config);
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    Setting { upstream, relay, config, port }
}

impl Setting {
    /// Sends one message on a connection of its own.
    async fn send(&self, to: &[&str]) -> Reply {
        client(self.port).await.message(SENDER, to, &conservation::content("token", 2_000)).await.unwrap()
    }

    async fn account(&self) -> Recipients {
        Recipients::read(&self.relay.scrape().await.unwrap()).unwrap()
    }

    /// Nothing has ever been in the spool.
    async fn has_kept_nothing(&self) {
        let metrics = self.relay.scrape().await.unwrap();
        assert_eq!(metrics.value("postroad_relay_queue_messages"), Some(0.0));
        assert_eq!(self.account().await.accepted, 0);
    }
}

#[track_caller]
fn is(reply: &Reply, expected: &str) {
    assert_eq!(reply.to_string(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_hears_the_upstreams_own_reply_and_nothing_is_kept() {
    let setting = setting(|_| {}).await;
    let kept = Action::KeepThenReply("250 2.0.0 Ok 0100018f-kept".to_owned());
    setting.upstream.inject(Fault::always(Stage::Content, kept));
    let mut client = client(setting.port).await;
    assert!(!client.ehlo("client.example").await.unwrap().offers("DSN"), "the reply says all there is");
    // Of pieces and whole, small and large.
    for (token, octets) in [("small", 500), ("large", 1_000_000)] {
        let content = conservation::content(token, octets);
        let reply = client.message(SENDER, &[A, B], &content).await.unwrap();
        is(&reply, "250 2.0.0 Ok 0100018f-kept");
        let arrived = setting.upstream.messages().pop().unwrap();
        assert_eq!(arrived.recipients, [A, B]);
        assert!(arrived.content.ends_with(&content), "{token} has changed on its way");
    }
    assert_eq!(setting.upstream.sessions().len(), 1, "one session for both");
    setting.has_kept_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_does_not_take_is_the_clients_to_know() {
    let setting = setting(|_| {}).await;
    let only_b = || Stage::RecipientIs(B.to_owned());
    let close = Action::ReplyThenClose("421 4.3.2 closing".to_owned());
    let table = [
        (Fault::reply(Stage::Mail, "550 5.7.1 not from you"), &[A][..], "550 5.7.1 not from you"),
        (Fault::reply(Stage::Recipient, "550 5.1.1 unknown"), &[A], "550 5.1.1 unknown"),
        (
            Fault::reply(Stage::Recipient, "450-4.2.1 come\r\n450 4.2.1 later"),
            &[A],
            "450 4.2.1 come / 4.2.1 later",
        ),
        (Fault::reply(Stage::Data, "554 5.6.0 no"), &[A], "554 5.6.0 no"),
        (Fault::reply(Stage::Content, "552 5.3.4 too big"), &[A], "552 5.3.4 too big"),
        (Fault::reply(Stage::Content, "451 4.7.1 greylisted"), &[A], "451 4.7.1 greylisted"),
        (
            Fault::reply(only_b(), "550 5.1.1 unknown"),
            &[A, B, "c@example.net"],
            "550 5.1.1 <b@example.net>: unknown",
        ),
        (Fault::reply(only_b(), "450 4.2.1 busy"), &[A, B], "450 4.2.1 <b@example.net>: busy"),
        (
            Fault::always(Stage::Mail, close),
            &[A],
            "451 4.4.1 the upstream closed the session: 421 4.3.2 closing",
        ),
        (
            Fault::reply(Stage::Mail, "530 5.7.0 authenticate"),
            &[A],
            "451 4.3.2 the upstream takes no mail now: the upstream answered Mail: 530 5.7.0 authenticate",
        ),
    ];
    for (fault, to, expected) in table {
        let fault = setting.upstream.inject(fault);
        is(&setting.send(to).await, expected);
        assert!(setting.upstream.fired(fault) > 0);
        setting.upstream.withdraw(fault);
    }
    assert_eq!(setting.upstream.messages().len(), 0, "all recipients have a message or none");
    setting.has_kept_nothing().await;
    let refused = setting.relay.scrape().await.unwrap();
    let series = "postroad_relay_refusals_total{reason=\"upstream\"}";
    assert_eq!(refused.value(series), Some(10.0));
    let replies = |class| {
        refused.value(&format!("postroad_relay_replies_total{{upstream=\"service\",class=\"{class}\"}}"))
    };
    assert_eq!([replies("2yz"), replies("4yz"), replies("5yz")], [None, Some(3.0), Some(6.0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_may_have_arrived_is_the_clients_to_send_again() {
    let setting = setting(|_| {}).await;
    setting.upstream.inject(Fault::on(Stage::Content, When::First(1), Action::KeepThenClose));
    let reply = setting.send(&[A]).await;
    assert!(reply.code == 451 && reply.text().contains("may have arrived"), "{reply}");
    assert!(setting.send(&[A]).await.is_positive());
    assert_eq!(setting.upstream.messages().len(), 2);
    setting.has_kept_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_down_is_told_soon_and_tried_again() {
    let mut setting = setting(|_| {}).await;
    assert!(setting.send(&[A]).await.is_positive());
    setting.upstream.stop().await;
    for _ in 0..3 {
        let begin = Instant::now();
        let reply = setting.send(&[A]).await;
        assert!(reply.code == 451 && reply.text().contains("upstream service"), "{reply}");
        assert!(begin.elapsed() < Duration::from_secs(10), "after {:?}", begin.elapsed());
    }
    setting.upstream.restart().await.unwrap();
    let begin = Instant::now();
    while !setting.send(&[A]).await.is_positive() {
        assert!(begin.elapsed() < LIMIT, "it is not tried again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    setting.has_kept_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_upstream_of_the_route_is_asked_when_one_is_down() {
    let second = SmtpServer::service("relay", "secret").await.unwrap();
    let way = |name: &str, priority| RouteUpstream { name: name.to_owned(), weight: 1, priority };
    let mut setting = setting(|pool| {
        let other = config(1, &second, "secret").upstreams.remove(0);
        pool.upstreams.push(Upstream { name: "second".to_owned(), ..other });
        pool.routes[0].upstreams = vec![way("service", 1), way("second", 2)];
    })
    .await;
    setting.upstream.stop().await;
    for number in 1..4 {
        let reply = setting.send(&[A, B]).await;
        assert!(reply.is_positive(), "{reply}");
        assert_eq!(second.messages().len(), number);
    }
    setting.has_kept_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_of_different_routes_go_in_transactions_of_their_own() {
    let setting = setting(|pool| {
        let partner = Route {
            name: "partner".to_owned(),
            recipient_domains: vec!["partner.example".to_owned()],
            ..pool.routes[0].clone()
        };
        pool.routes.insert(0, partner);
    })
    .await;
    let mut client = client(setting.port).await;
    client.command("MAIL FROM:<app@example.com>").await.unwrap();
    assert!(client.command("RCPT TO:<a@example.net>").await.unwrap().is_positive());
    let other = client.command("RCPT TO:<a@partner.example>").await.unwrap();
    assert!(other.code == 452 && other.text().contains("route partner"), "{other}");
    assert!(client.command("RCPT TO:<b@example.net>").await.unwrap().is_positive());
    client.command("DATA").await.unwrap();
    assert!(client.command("Subject: x\r\n\r\n.").await.unwrap().is_positive());
    assert_eq!(setting.upstream.messages()[0].recipients, [A, B]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_pool_amid_a_transaction_changes_no_route_that_is_as_it_was() {
    let mut setting = setting(|_| {}).await;
    let mut client = client(setting.port).await;
    client.command("MAIL FROM:<app@example.com>").await.unwrap();
    assert!(client.command("RCPT TO:<a@example.net>").await.unwrap().is_positive());
    setting.config.queue.expire_after_seconds += 1;
    setting.relay.rewrite_config(&setting.config).unwrap();
    let series = "postroad_relay_configurations_applied_total";
    let changed = |metrics: &Metrics| metrics.value(series) == Some(2.0);
    setting.relay.wait_for_metrics("the change", LIMIT, changed).await.unwrap();
    let second = client.command("RCPT TO:<b@example.net>").await.unwrap();
    assert!(second.is_positive(), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_which_the_rates_leave_no_room_is_told_at_once() {
    let setting = setting(|pool| {
        pool.upstreams[0].rates = vec![Rate { limit: 2, unit: RateUnit::Recipients, per_seconds: 3600 }];
    })
    .await;
    let begin = Instant::now();
    let three = setting.send(&[A, B, "c@example.net"]).await;
    assert!(three.code == 451 && three.text().contains("no more than 2 recipients"), "{three}");
    assert!(setting.send(&[A, B]).await.is_positive());
    let used_up = setting.send(&[A]).await;
    assert!(used_up.code == 451 && used_up.text().contains("used up"), "{used_up}");
    assert!(begin.elapsed() < Duration::from_secs(30), "after {:?}", begin.elapsed());
    assert_eq!(setting.upstream.messages().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stops_ends_what_is_begun_and_turns_back_what_is_not() {
    const CLIENTS: usize = 12;
    let setting = setting(|pool| pool.upstreams[0].connections.maximum = 1).await;
    let held = setting.upstream.inject(Fault::always(Stage::Content, Action::Hold));
    let mut clients = FuturesUnordered::new();
    for _ in 0..CLIENTS {
        clients.push(setting.send(&[A]));
    }
    let all_wait = async {
        let waits = |metrics: &Metrics| {
            metrics.value("postroad_relay_messages_in_transit") == Some(CLIENTS as f64)
                && setting.upstream.fired(held) > 0
        };
        setting.relay.wait_for_metrics("all in transit", LIMIT, waits).await.unwrap();
        setting.relay.sigterm();
    };
    // The first answers are those of clients that are turned back, as what is begun is held up.
    let first = tokio::select! {
        Some(reply) = clients.next() => panic!("{reply} before the relay was to stop"),
        () = all_wait => clients.next().await.unwrap(),
    };
    assert!(first.code == 451 && first.text().contains("upstream service"), "{first}");
    setting.upstream.withdraw(held);
    let (delivered, turned_back): (Vec<Reply>, Vec<Reply>) =
        clients.collect::<Vec<_>>().await.into_iter().partition(Reply::is_positive);
    assert!(!delivered.is_empty() && turned_back.iter().all(|reply| reply.code == 451), "{turned_back:?}");
    assert!(setting.relay.wait(LIMIT).await.unwrap().success());
    assert_eq!(setting.upstream.messages().len(), delivered.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_queued_before_the_pool_passes_through_is_delivered_as_before() {
    let mut setting = setting(|pool| pool.acceptance = Acceptance::Queued).await;
    let held = setting.upstream.inject(Fault::reply(Stage::Mail, "451 4.3.0 not yet"));
    let reply = setting.send(&[A]).await;
    assert!(reply.is_positive() && reply.text().contains("queued as"), "{reply}");
    setting.config.acceptance = Acceptance::PassThrough;
    setting.relay.rewrite_config(&setting.config).unwrap();
    let begin = Instant::now();
    while setting.send(&[B]).await.is_positive() {
        assert!(begin.elapsed() < LIMIT, "the change is not obeyed");
    }
    setting.upstream.withdraw(held);
    let account = setting.relay.wait_until_all_ended(LIMIT).await.unwrap();
    assert_eq!(account.ended_as("delivered"), account.accepted, "{account:?}");
}
