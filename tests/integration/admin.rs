//! The admin API over TCP and the command line that speaks to it.

use std::cell::RefCell;
use std::collections::BTreeSet;

use postroad_tests::binaries;
use postroad_tests::http;
use postroad_tests::ports::free_port;
use postroad_tests::processes::{Process, Program};
use postroad_tests::prometheus::Metrics;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::{Action, Fault, SmtpServer, Stage};
use serde_json::Value;

use crate::{LIMIT, client, config};

/// A relay whose upstream puts off `slow@…` and takes everything else.
struct Setting {
    upstream: SmtpServer,
    relay: RelayProcess,
    port: u16,
}

async fn setting() -> Setting {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let mut config = config(port, &upstream, "secret");
    config.queue.minimum_backoff_seconds = 500;
    config.queue.maximum_backoff_seconds = 500;
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    Setting { upstream, relay, port }
}

impl Setting {
    /// Sends a message and returns its queue id.
    async fn send(&self, from: &str, to: &[&str]) -> String {
        let mut client = client(self.port).await;
        let reply = client.message(from, to, b"Subject: x\r\n\r\nsecret content\r\n").await.unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
        reply.text().rsplit(' ').next().unwrap().to_owned()
    }

    /// The queue ids that a search finds.
    async fn find(&self, query: &str) -> Vec<String> {
        let page = self.api("GET", &format!("/admin/v1/queue{query}"), 200).await;
        let id = |message: &Value| message["id"].as_str().unwrap().to_owned();
        page["messages"].as_array().unwrap().iter().map(id).collect()
    }

    async fn api(&self, method: &str, path: &str, status: u16) -> Value {
        let response = self.relay.admin_api(method, path).await.unwrap();
        assert_eq!(response.status, status, "{method} {path}: {}", response.body);
        serde_json::from_str(&response.body).unwrap()
    }

    /// Waits until a message has had this many attempts.
    async fn attempted(&self, id: &str, attempts: u64) -> Value {
        let path = format!("/admin/v1/queue/{id}");
        let begin = std::time::Instant::now();
        loop {
            let message = self.api("GET", &path, 200).await;
            if message["attempts"] == attempts {
                return message;
            }
            assert!(begin.elapsed() < LIMIT, "{message}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Waits until so many messages are told of as held; if any are, they have an age by then.
    async fn counts_as_held(&self, messages: f64) {
        let counted = |metrics: &Metrics| {
            let oldest = metrics.value("postroad_relay_queue_held_oldest_seconds");
            metrics.value("postroad_relay_queue_held") == Some(messages)
                && oldest.is_some_and(|age| (age > 0.0) == (messages > 0.0))
        };
        self.relay.wait_for_metrics("the held messages", LIMIT, counted).await.unwrap();
    }

    /// What `postroad-relay queue …`, or another such command, prints, and whether it succeeded.
    async fn command(&self, command: &str, arguments: &[&str]) -> (String, bool) {
        let admin = self.relay.admin().to_string();
        let token = self.relay.token_file().display().to_string();
        let fixed = [command, "--admin", &admin, "--token-file", &token];
        let program = Program {
            name: format!("postroad-relay {command}"),
            path: binaries::locate("postroad-relay").unwrap(),
            arguments: fixed.iter().chain(arguments).map(ToString::to_string).collect(),
            environment: Vec::new(),
        };
        let process = Process::start(program).await.unwrap();
        let status = process.wait(LIMIT).await.unwrap();
        (process.log().tail(1000), status.success())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_looks_at_the_queue_without_the_token() {
    let setting = setting().await;
    let admin = setting.relay.admin();
    for token in [None, Some("token-of-the-test-0123456789abcdeF"), Some("")] {
        for path in ["/admin/v1/queue", "/admin/v1/queue/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/admin/v1/nothing"] {
            let response = http::request(admin, "GET", path, token).await.unwrap();
            assert_eq!(response.status, 401, "{path}: {}", response.body);
        }
    }
    assert_eq!(setting.find("").await, [""; 0]);
    setting.api("GET", "/admin/v1/queue/01ARZ3NDEKTSV4RRFFQ69G5FAV", 404).await;
    setting.api("GET", "/admin/v1/queue?tennant=x", 400).await;
    setting.api("GET", "/admin/v1/nothing", 404).await;

    // Without a token the relay lets nobody in, not everybody.
    std::fs::write(setting.relay.token_file(), "").unwrap();
    assert_eq!(http::request(admin, "GET", "/admin/v1/queue", Some("")).await.unwrap().status, 503);
    assert_eq!(setting.relay.get("/readyz").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn queued_mail_is_found_by_what_it_is() {
    let setting = setting().await;
    setting.upstream.inject(Fault::reply(Stage::Recipient, "451 4.2.1 greylisted"));
    let first = setting.send("app@shop.example", &["slow@example.net"]).await;
    let second = setting.send("app@bank.example", &["slow@example.org", "also@example.net"]).await;
    for id in [&first, &second] {
        setting.attempted(id, 1).await;
    }

    assert_eq!(setting.find("").await, [&first, &second].map(String::as_str));
    assert_eq!(setting.find("?sender=bank.example").await, [second.as_str()]);
    assert_eq!(setting.find("?recipientDomain=example.org&state=Waiting").await, [second.as_str()]);
    assert_eq!(setting.find("?upstream=service&tenant=local&limit=1").await, [first.as_str()]);
    assert_eq!(setting.find(&format!("?after={first}")).await, [second.as_str()]);
    assert_eq!(setting.find("?minimumAgeSeconds=3600").await, [""; 0]);
    let page = setting.api("GET", "/admin/v1/queue?limit=1", 200).await;
    assert_eq!(page["next"].as_str(), Some(first.as_str()));

    let history = setting.api("GET", &format!("/admin/v1/queue/{second}"), 200).await["history"].clone();
    assert_eq!(history[0]["upstream"], "service");
    assert!(
        history[0]["address"].as_str().unwrap().ends_with(&format!(":{}", setting.upstream.port())),
        "{history}"
    );
    let reply = &history[0]["replies"][0];
    assert!(reply["text"].as_str().unwrap().contains("451 4.2.1 greylisted"), "{history}");
    assert_eq!(reply["recipients"].as_array().unwrap().len(), 2);
    let logged = setting.relay.log().tail(1000);
    let line =
        logged.lines().find(|line| line.contains("deferred") && line.contains("also@example.net")).unwrap();
    for part in [second.as_str(), "upstream=\"service\"", "milliseconds=", "greylisted", "next="] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!logged.contains("secret content"));

    let metrics = setting.relay.scrape().await.unwrap();
    assert_eq!(metrics.value("postroad_relay_transactions_total{upstream=\"service\"}"), Some(2.0));
    assert!(metrics.value("postroad_relay_upstream_waiting{upstream=\"service\"}").is_some());

    let (listed, success) = setting.command("queue", &["list", "--sender", "shop.example"]).await;
    assert!(success && listed.contains(&first) && !listed.contains(&second), "{listed}");
    let (shown, success) = setting.command("queue", &["show", &second]).await;
    assert!(success && shown.contains("<slow@example.org> Queued service"), "{shown}");
    assert!(shown.contains("greylisted"), "{shown}");
    assert!(!shown.contains("secret content"));
    let (told, success) = setting.command("queue", &["show", "01ARZ3NDEKTSV4RRFFQ69G5FAV"]).await;
    assert!(!success && told.contains("is not in the spool"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn held_mail_stays_over_a_restart_and_goes_when_it_is_released() {
    let mut setting = setting().await;
    let busy = setting.upstream.inject(Fault::reply(Stage::Recipient, "451 4.2.1 greylisted"));
    let held = setting.send("app@shop.example", &["held@example.net"]).await;
    let retried = setting.send("app@shop.example", &["retried@example.net"]).await;
    let dropped = setting.send("app@shop.example", &["one@example.net", "two@example.net"]).await;
    for id in [&held, &retried, &dropped] {
        setting.attempted(id, 1).await;
    }
    let order = |id: &str, act: &str| format!("/admin/v1/queue/{id}/{act}");

    let (told, success) = setting.command("queue", &["hold", &held]).await;
    assert!(success && told.contains("hold: done"), "{told}");
    setting.api("POST", &order(&held, "retry"), 409).await;
    setting.api("POST", &order(&retried, "release"), 409).await;
    setting.api("POST", &order(&retried, "explode"), 400).await;
    setting.api("POST", &order("01ARZ3NDEKTSV4RRFFQ69G5FAV", "drop"), 404).await;
    let without = http::request(setting.relay.admin(), "POST", &order(&dropped, "drop"), None).await.unwrap();
    assert_eq!(without.status, 401);

    setting.api("POST", &order(&retried, "retry"), 200).await;
    setting.attempted(&retried, 2).await;

    setting.api("POST", &order(&dropped, "drop"), 200).await;
    setting.api("GET", &format!("/admin/v1/queue/{dropped}"), 404).await;
    let lines = RefCell::new(BTreeSet::new());
    let both = |line: &str| {
        let of_it = line.contains("dropped by order") && line.contains(&dropped);
        (of_it && lines.borrow_mut().insert(line.to_owned())) && lines.borrow().len() == 2
    };
    setting.relay.log().wait_for("a line for each of two recipients", LIMIT, both).await.unwrap();

    setting.relay.restart().await.unwrap();
    // It is ready before it knows what the last run left.
    setting.relay.log().wait_for("the queue", LIMIT, |line| line.contains("spool read")).await.unwrap();
    assert_eq!(setting.find("?state=Held").await, [held.as_str()]);
    setting.counts_as_held(1.0).await;
    assert_eq!(setting.find("").await, [&held, &retried].map(String::as_str));
    let fates = setting.relay.scrape().await.unwrap();
    assert_eq!(fates.value("postroad_relay_ledger_ended_total{fate=\"dropped\"}"), Some(2.0), "{fates:?}");

    setting.upstream.withdraw(busy);
    setting.api("POST", &order(&retried, "retry"), 200).await;
    setting.upstream.wait_for(1, LIMIT).await.unwrap();
    setting.api("POST", &order(&held, "release"), 200).await;
    let received = setting.upstream.wait_for(2, LIMIT).await.unwrap();
    assert_eq!(received[1].recipients, ["held@example.net"]);
    setting.counts_as_held(0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_waits_for_a_dead_upstream_can_be_held() {
    let setting = setting().await;
    setting.upstream.inject(Fault::always(Stage::Greeting, Action::Close));
    let id = setting.send("app@shop.example", &["a@example.net"]).await;
    setting.api("POST", &format!("/admin/v1/queue/{id}/hold"), 200).await;
    assert_eq!(setting.find("?state=Held").await, [id.as_str()]);
    setting.upstream.withdraw_all();
    setting.api("POST", &format!("/admin/v1/queue/{id}/release"), 200).await;
    setting.upstream.wait_for(1, LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_drains_an_upstream_and_resumes_it() {
    let setting = setting().await;
    let (drained, done) = setting.command("upstream", &["drain", "service"]).await;
    assert!(done && drained.contains("service  drained  0 waiting"), "{drained}");
    setting.send("a@example.com", &["b@example.net"]).await;
    let begin = std::time::Instant::now();
    loop {
        let (list, done) = setting.command("upstream", &["list"]).await;
        if done && list.contains("service  drained  1 waiting") {
            break;
        }
        assert!(begin.elapsed() < LIMIT, "{list}");
    }
    assert!(setting.upstream.messages().is_empty());
    let (resumed, done) = setting.command("upstream", &["resume", "service"]).await;
    assert!(done && resumed.contains("service  untried"), "{resumed}");
    setting.upstream.wait_for(1, LIMIT).await.unwrap();
    let (list, _) = setting.command("upstream", &["list"]).await;
    let on = format!("sessions  port {}", setting.upstream.port());
    assert!(list.contains("service  works  0 waiting") && list.contains(&on), "{list}");
    let (refusal, done) = setting.command("upstream", &["drain", "nobody"]).await;
    assert!(!done && refusal.contains("no route of the pool names an Upstream"), "{refusal}");
}
