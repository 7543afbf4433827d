//! Routes with several upstreams: fail-over and fail-back, and a message whose recipients take different ways.

use std::collections::BTreeSet;

use postroad_crds::relay_config::{
    Destination, Rate, RateUnit, RelayConfig, RouteUpstream, Upstream, UpstreamPort, UpstreamTls,
};
use postroad_tests::ports::free_port;
use postroad_tests::prometheus::Metrics;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_client::Reply;
use postroad_tests::smtp_server::{ReceivedMessage, SmtpServer};

use crate::{LIMIT, client, config};

/// The upstream `service` of [`config`], under another name.
fn named(name: &str, server: &SmtpServer) -> Upstream {
    Upstream { name: name.to_owned(), ..config(1, server, "secret").upstreams.remove(0) }
}

fn way(name: &str, priority: u32) -> RouteUpstream {
    RouteUpstream { name: name.to_owned(), weight: 1, priority }
}

/// A relay whose routes the test names, with two upstreams: `first` and `second`.
struct Setting {
    first: SmtpServer,
    second: SmtpServer,
    relay: RelayProcess,
    config: RelayConfig,
    port: u16,
}

async fn setting(routes: impl FnOnce(&mut RelayConfig)) -> Setting {
    let first = SmtpServer::service("relay", "secret").await.unwrap();
    let second = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let mut config = config(port, &first, "secret");
    config.upstreams = vec![named("first", &first), named("second", &second)];
    routes(&mut config);
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    Setting { first, second, relay, config, port }
}

impl Setting {
    async fn accepts(&self, subjects: std::ops::Range<usize>) {
        let mut client = client(self.port).await;
        for number in subjects {
            let content = format!("Subject: {number}\r\n\r\n");
            let reply =
                client.message("a@example.com", &["b@example.net"], content.as_bytes()).await.unwrap();
            assert_eq!(reply.code, 250, "{reply:?}");
        }
    }

    async fn route_is_at(&self, priority: f64) {
        let at = |metrics: &Metrics| metrics.sum("postroad_relay_route_priority") == Some(priority);
        self.relay.wait_for_metrics(&format!("priority {priority}"), LIMIT, at).await.unwrap();
    }

    async fn logs(&self, words: &'static str) {
        self.relay.log().wait_for(words, LIMIT, |line| line.contains(words)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_fails_over_with_what_waits_and_comes_back() {
    let mut setting =
        setting(|config| config.routes[0].upstreams = vec![way("second", 2), way("first", 1)]).await;
    setting.accepts(0..5).await;
    setting.first.wait_for(5, LIMIT).await.unwrap();
    setting.route_is_at(1.0).await;

    setting.first.stop().await;
    setting.accepts(5..55).await;
    setting.second.wait_for(50, LIMIT).await.unwrap();
    setting.route_is_at(2.0).await;
    setting.logs("route failed over").await;

    setting.first.restart().await.unwrap();
    let mut number = 55;
    while setting.first.messages().len() < 10 {
        // Each may be the one by which the first upstream is tried again.
        setting.accepts(number..number + 1).await;
        number += 1;
        let queued = |metrics: &Metrics| metrics.value("postroad_relay_queue_messages");
        let empty = |metrics: &Metrics| queued(metrics) == Some(0.0);
        setting.relay.wait_for_metrics("an empty queue", LIMIT, empty).await.unwrap();
    }
    setting.route_is_at(1.0).await;
    setting.logs("route is back").await;
    let metrics = setting.relay.scrape().await.unwrap();
    assert_eq!(metrics.sum("postroad_relay_route_fail_overs_total"), Some(1.0));
    let total = setting.first.messages().len() + setting.second.messages().len();
    assert_eq!(total, number, "each message arrives once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_does_not_answer_is_passed_over_and_told() {
    let refused = free_port().unwrap();
    let setting = setting(|config| {
        config.routes[0].upstreams = vec![way("first", 1)];
        let Destination::Smarthost(smarthost) = &mut config.upstreams[0].destination else { unreachable!() };
        smarthost.ports.insert(0, UpstreamPort { port: refused, tls: UpstreamTls::StartTLS });
    })
    .await;
    setting.accepts(0..1).await;
    setting.first.wait_for(1, LIMIT).await.unwrap();
    let port = f64::from(setting.first.port());
    let used = |metrics: &Metrics| metrics.sum("postroad_relay_upstream_port") == Some(port);
    setting.relay.wait_for_metrics("the port in use", LIMIT, used).await.unwrap();
    let reason = format!("port {refused}: ");
    let told = |line: &str| line.contains("upstream reached on another port") && line.contains(&reason);
    setting.relay.log().wait_for("the port passed over", LIMIT, told).await.unwrap();
}

fn recipients(messages: &[ReceivedMessage]) -> BTreeSet<String> {
    messages.iter().flat_map(|message| message.recipients.iter().cloned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn recipients_of_one_message_take_their_own_routes_and_one_without_a_route_is_refused() {
    let setting = setting(|config| {
        let mut other = config.routes[0].clone();
        other.name = "other".to_owned();
        other.recipient_domains = vec!["*.example.org".to_owned()];
        other.upstreams = vec![way("second", 1)];
        config.routes[0].recipient_domains = vec!["example.net".to_owned()];
        config.routes[0].upstreams = vec![way("first", 1)];
        config.routes.push(other);
    })
    .await;
    let mut client = client(setting.port).await;
    client.ehlo("client.example").await.unwrap();
    assert_eq!(client.command("MAIL FROM:<a@example.com>").await.unwrap().code, 250);
    let told = |reply: Reply| (reply.code, reply.text());
    for recipient in ["b@example.net", "c@sub.example.org", "d@example.net"] {
        let (code, text) = told(client.command(&format!("RCPT TO:<{recipient}>")).await.unwrap());
        assert_eq!(code, 250, "{text}");
    }
    let (code, text) = told(client.command("RCPT TO:<e@example.edu>").await.unwrap());
    assert!(
        code == 550 && text.contains("no route of RelayPool mail/main takes mail from a@example.com"),
        "{text}"
    );
    assert!(text.contains("identity local"), "{text}");
    assert_eq!(client.command("DATA").await.unwrap().code, 354);
    assert_eq!(client.command("Subject: split\r\n\r\n.").await.unwrap().code, 250);
    setting.first.wait_for(1, LIMIT).await.unwrap();
    setting.second.wait_for(1, LIMIT).await.unwrap();
    let expected = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(recipients(&setting.first.messages()), expected(&["b@example.net", "d@example.net"]));
    assert_eq!(recipients(&setting.second.messages()), expected(&["c@sub.example.org"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_upstream_is_given_nothing_until_it_is_resumed() {
    let setting =
        setting(|config| config.routes[0].upstreams = vec![way("first", 1), way("second", 2)]).await;
    let order = async |name: &str, act: &str| {
        setting.relay.admin_api("POST", &format!("/admin/v1/upstreams/{name}/{act}")).await.unwrap()
    };
    setting.accepts(0..5).await;
    setting.first.wait_for(5, LIMIT).await.unwrap();

    let drained = order("first", "drain").await;
    assert!(drained.status == 200 && drained.body.contains("\"drained\":true"), "{}", drained.body);
    setting.accepts(5..15).await;
    setting.second.wait_for(10, LIMIT).await.unwrap();
    setting.logs("route failed over").await;
    let no_sessions = |metrics: &Metrics| {
        metrics.value("postroad_relay_sessions_open{upstream=\"first\"}") == Some(0.0)
            && metrics.value("postroad_relay_upstream_drained{upstream=\"first\"}") == Some(1.0)
    };
    setting.relay.wait_for_metrics("the drained one's sessions to end", LIMIT, no_sessions).await.unwrap();

    assert_eq!(order("second", "drain").await.status, 200);
    setting.accepts(15..20).await;
    let waiting = async || {
        let list = setting.relay.admin_api("GET", "/admin/v1/upstreams").await.unwrap();
        list.body.contains("\"name\":\"first\",\"drained\":true,\"works\":false,\"waiting\":5")
    };
    let begin = std::time::Instant::now();
    while !waiting().await {
        assert!(begin.elapsed() < LIMIT, "what has no other way waits");
    }
    assert_eq!((setting.first.messages().len(), setting.second.messages().len()), (5, 10));

    let resumed = order("first", "resume").await;
    assert!(resumed.status == 200 && resumed.body.contains("\"drained\":false"), "{}", resumed.body);
    setting.first.wait_for(10, LIMIT).await.unwrap();
    assert_eq!(order("third", "drain").await.status, 404);
    assert_eq!(order("first", "explode").await.status, 400);
    setting.relay.wait_until_all_ended(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_an_upstream_and_a_route_go_when_the_configuration_names_them_no_more() {
    let rate = Rate { limit: 1000, unit: RateUnit::Messages, per_seconds: 3600 };
    let setting = setting(|config| {
        config.routes[0].upstreams = vec![way("first", 1), way("second", 2)];
        config.routes[0].rates = vec![rate];
        config.upstreams[0].rates = vec![rate];
    })
    .await;
    setting.accepts(0..1).await;
    setting.first.wait_for(1, LIMIT).await.unwrap();
    let named = |metrics: &Metrics, name: &str| {
        let label = format!("=\"{name}\"");
        metrics.series().keys().filter(|series| series.contains(&label)).count()
    };
    let both = |metrics: &Metrics| named(metrics, "first") > 5 && named(metrics, "all") > 1;
    setting.relay.wait_for_metrics("series of both", LIMIT, both).await.unwrap();

    let mut config = setting.config.clone();
    config.upstreams.remove(0);
    config.routes[0].name = "other".to_owned();
    config.routes[0].upstreams = vec![way("second", 1)];
    setting.relay.rewrite_config(&config).unwrap();
    let only_what_is_there = |metrics: &Metrics| {
        named(metrics, "first") + named(metrics, "all") == 0
            && named(metrics, "second") > 1
            && named(metrics, "other") > 0
    };
    setting.relay.wait_for_metrics("no series of what is gone", LIMIT, only_what_is_there).await.unwrap();
}
