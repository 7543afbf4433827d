//! Between the end of a content and its reply only the upstream knows whether it has the message (P3): when the relay dies there,
//! or the session breaks, what was being sent is sent again or held, by the pool's policy, and counted; nothing else is.

use std::time::{Duration, Instant};

use postroad_crds::relay_config::AmbiguousDelivery;
use postroad_tests::conservation;
use postroad_tests::http::Response;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::{Action, Fault, SmtpServer, Stage, When};

use crate::{LIMIT, client, config};

const DIED: &str = "postroad_relay_recipients_ambiguous_total{cause=\"relay_died\"}";
const LOST: &str = "postroad_relay_recipients_ambiguous_total{cause=\"session_lost\"}";

struct Setting {
    upstream: SmtpServer,
    relay: RelayProcess,
    port: u16,
}

impl Setting {
    /// A relay that tries no message twice within the test, unless it is told to.
    async fn new(delivery: AmbiguousDelivery) -> Self {
        let upstream = SmtpServer::service("relay", "secret").await.unwrap();
        let port = free_port().unwrap();
        let mut config = config(port, &upstream, "secret");
        (config.queue.minimum_backoff_seconds, config.queue.maximum_backoff_seconds) = (500, 500);
        config.queue.ambiguous_delivery = delivery;
        let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
        Self { upstream, relay, port }
    }

    /// Sends a message of so many octets to two recipients and returns its queue id.
    async fn send(&self, token: &str, octets: usize) -> String {
        let mut client = client(self.port).await;
        let content = conservation::content(token, octets);
        let to = ["a@example.net", "b@example.net"];
        let reply = client.message("app@example.com", &to, &content).await.unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
        reply.text().rsplit(' ').next().unwrap().to_owned()
    }

    async fn wait_for(&self, series: &str, value: f64) {
        let reached = |metrics: &postroad_tests::prometheus::Metrics| metrics.value(series) == Some(value);
        self.relay.wait_for_metrics(series, LIMIT, reached).await.unwrap();
    }

    /// Kills the relay and starts it again.
    async fn die(&mut self) {
        self.relay.sigkill().await.unwrap();
        self.upstream.withdraw_all();
        self.relay.restart().await.unwrap();
    }

    /// Obeyed as soon as the relay has found the message in its spool.
    async fn order(&self, id: &str, act: &str) {
        let path = format!("/admin/v1/queue/{id}/{act}");
        self.until(act, "POST", &path, |answer| answer.status == 200).await;
    }

    async fn until_held(&self, id: &str) -> String {
        let path = "/admin/v1/queue?state=Held";
        self.until("held", "GET", path, |answer| answer.body.contains(id)).await
    }

    async fn until(&self, what: &str, method: &str, path: &str, done: impl Fn(&Response) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let answer = self.relay.admin_api(method, path).await.unwrap();
            if done(&answer) {
                return answer.body;
            }
            assert!(begin.elapsed() < LIMIT, "{what}: {}", answer.body);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Two messages wait: one was put off, the other was being sent when the relay died, and the upstream has it. Returns their
    /// queue ids.
    async fn die_amid_a_message(&mut self, octets: usize) -> (String, String) {
        let put_off = self.upstream.inject(Fault::reply(Stage::Mail, "451 4.3.2 later"));
        let waiting = self.send("waiting", octets).await;
        self.wait_for("postroad_relay_recipients_deferred_total{upstream=\"service\"}", 2.0).await;
        self.upstream.withdraw(put_off);
        self.upstream.inject(Fault::always(Stage::Content, Action::KeepThenStall));
        let sent = self.send("sent", octets).await;
        self.upstream.wait_for(1, LIMIT).await.unwrap();
        self.die().await;
        (waiting, sent)
    }

    fn copies(&self) -> Vec<String> {
        let mut tokens = self.upstream.ledger(|ledger| ledger.tokens());
        tokens.sort_unstable();
        tokens
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_being_sent_when_the_relay_died_is_sent_again_and_counted_once() {
    // By BDAT in one piece, and by DATA.
    for octets in [4_000, 400_000] {
        let mut setting = Setting::new(AmbiguousDelivery::Resend).await;
        let (waiting, _) = setting.die_amid_a_message(octets).await;
        setting.upstream.wait_for(2, LIMIT).await.unwrap();
        assert_eq!(setting.copies(), ["sent", "sent"]);
        setting.wait_for(DIED, 2.0).await;
        assert!(setting.relay.log().contains("sent again: it was being sent when the relay died"));
        setting.die().await;
        setting.order(&waiting, "retry").await;
        assert_eq!(setting.relay.scrape().await.unwrap().value(DIED), None, "told by one start only");
        setting.upstream.wait_for(3, LIMIT).await.unwrap();
        setting.relay.wait_until_all_ended(LIMIT).await.unwrap();
        assert_eq!(setting.copies(), ["sent", "sent", "waiting"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_being_sent_when_the_relay_died_is_held_until_somebody_releases_it() {
    let mut setting = Setting::new(AmbiguousDelivery::Hold).await;
    let (waiting, sent) = setting.die_amid_a_message(4_000).await;
    setting.wait_for(DIED, 2.0).await;
    assert!(setting.relay.log().contains("held: it was being sent when the relay died"));
    for _ in 0..2 {
        let held = setting.until_held(&sent).await;
        assert!(!held.contains(&waiting), "{held}");
        setting.die().await;
    }
    setting.order(&waiting, "retry").await;
    assert_eq!(setting.relay.scrape().await.unwrap().value(DIED), None, "told by one start only");
    setting.upstream.wait_for(2, LIMIT).await.unwrap();
    assert_eq!(setting.copies(), ["sent", "waiting"]);
    setting.order(&sent, "release").await;
    setting.upstream.wait_for(3, LIMIT).await.unwrap();
    setting.relay.wait_until_all_ended(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_and_given_back_before_its_end_was_sent_is_not_ambiguous_when_the_relay_dies() {
    let mut setting = Setting::new(AmbiguousDelivery::Hold).await;
    setting.upstream.inject(Fault::always(Stage::Data, Action::Close));
    setting.upstream.inject(Fault::on(Stage::Greeting, When::After(1), Action::Close));
    // By DATA, so that the upstream has none of the content when the session breaks.
    setting.send("begun", 400_000).await;
    let broken = |line: &str| line.contains("session lost before an outcome");
    setting.relay.log().wait_for("a broken session", LIMIT, broken).await.unwrap();
    // Kept behind all that the spool was told before.
    setting.send("waiting", 4_000).await;
    setting.die().await;
    setting.upstream.wait_for(2, LIMIT).await.unwrap();
    setting.relay.wait_until_all_ended(LIMIT).await.unwrap();
    assert_eq!(setting.copies(), ["begun", "waiting"]);
    assert_eq!(setting.relay.scrape().await.unwrap().value(DIED), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_left_unknown_is_counted_and_held_where_the_pool_says_so() {
    let setting = Setting::new(AmbiguousDelivery::Hold).await;
    setting.upstream.inject(Fault::on(Stage::Content, When::First(1), Action::KeepThenClose));
    let id = setting.send("sent", 4_000).await;
    setting.wait_for(LOST, 2.0).await;
    setting
        .relay
        .log()
        .wait_for("held", LIMIT, |line| line.contains("held: it may have arrived"))
        .await
        .unwrap();
    setting.until_held(&id).await;
    setting.order(&id, "drop").await;
    let account = setting.relay.wait_until_all_ended(LIMIT).await.unwrap();
    assert_eq!((account.ended_as("dropped"), setting.copies().len()), (2, 1));
}
