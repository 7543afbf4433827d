//! What one relay does with changed configurations, refused clients and input that is not as it should be.

use postroad_tests::load::Load;
use postroad_tests::ports::free_port;
use postroad_tests::prometheus::Metrics;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_client::SmtpClient;
use postroad_tests::smtp_server::{Action, Fault, SmtpServer, Stage, When};

use crate::{LIMIT, config};

struct Setting {
    upstream: SmtpServer,
    relay: RelayProcess,
    port: u16,
}

async fn setting() -> Setting {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let relay =
        RelayProcess::start(&config(port, &upstream, "secret"), RelayOptions::default()).await.unwrap();
    Setting { upstream, relay, port }
}

impl Setting {
    async fn client(&self) -> SmtpClient {
        crate::client(self.port).await
    }

    async fn accepts(&self, to: &str, content: &[u8]) {
        let reply = self.client().await.message("a@example.com", &[to], content).await.unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_password_is_used_by_the_next_session_without_a_failed_message() {
    let setting = setting().await;
    setting.accepts("b@example.net", b"Subject: before\r\n\r\n").await;
    setting.upstream.wait_for(1, LIMIT).await.unwrap();

    // The service takes only the new password from now on, and ends the session that was opened with the old one.
    setting.upstream.set_password("relay", "rotated");
    setting.relay.rewrite_config(&config(setting.port, &setting.upstream, "rotated")).unwrap();
    let applied =
        |metrics: &Metrics| metrics.value("postroad_relay_configurations_applied_total") == Some(2.0);
    setting.relay.wait_for_metrics("the new configuration", LIMIT, applied).await.unwrap();
    setting.accepts("b@example.net", b"Subject: after\r\n\r\n").await;

    setting.upstream.wait_for(2, LIMIT).await.unwrap();
    let sessions = setting.upstream.sessions();
    let failed: usize = sessions.iter().map(|session| session.failed_authentications).sum();
    assert_eq!((failed, sessions.len()), (0, 2));
    assert_eq!(setting.relay.metrics().await.unwrap().get("postroad_relay_notifications_total"), Some(&0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_refused_with_a_reason_and_the_last_good_one_stays() {
    let setting = setting().await;
    setting.relay.rewrite_config_text("version: relay-config.postroad.dev/v1\npool: 7\n").unwrap();
    let refused =
        |metrics: &Metrics| metrics.value("postroad_relay_configurations_refused_total") == Some(1.0);
    setting.relay.wait_for_metrics("the refusal", LIMIT, refused).await.unwrap();
    let told = |line: &str| line.contains("the last good one stays in force");
    setting.relay.log().wait_for("the reason in the log", LIMIT, told).await.unwrap();
    setting.accepts("b@example.net", b"Subject: still here\r\n\r\n").await;
    setting.upstream.wait_for(1, LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_identity_is_told_which_pool_refused_it_and_what_would_let_it_in() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let mut stranger = config(port, &upstream, "secret");
    stranger.identities.clear();
    let relay = RelayProcess::start(&stranger, RelayOptions::default()).await.unwrap();
    let setting = Setting { upstream, relay, port };
    let mut client = setting.client().await;
    client.ehlo("client.example").await.unwrap();
    let reply = client.command("MAIL FROM:<a@example.com>").await.unwrap();
    assert_eq!((reply.code, reply.enhanced()), (550, Some("5.7.1")));
    let text = reply.text();
    assert!(text.contains("RelayPool mail/main") && text.contains("spec.clients.identities"), "{text}");
    assert_eq!(client.command("RCPT TO:<b@example.net>").await.unwrap().code, 503);
    assert!(setting.upstream.sessions().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_the_reply_it_deserves_and_the_session_goes_on() {
    let setting = setting().await;
    let mut client = setting.client().await;
    client.ehlo("client.example").await.unwrap();
    let over_long = "NOOP ".to_owned() + &"x".repeat(100_000);
    for (line, code) in [
        (over_long.as_str(), 500),
        ("FROB", 500),
        ("MAIL FROM:a@example.com", 501),
        ("MAIL FROM:<a@example.com> SIZE=99999999999", 552),
        ("MAIL FROM:<a@example.com> FROB=1", 555),
        ("MAIL FROM:<gr\u{fc}n@example.com>", 553),
        ("AUTH PLAIN !!!!", 502),
        ("RCPT TO:<b@example.net>", 503),
    ] {
        let reply = client.command(line).await.unwrap();
        assert_eq!(reply.code, code, "{}: {reply:?}", &line[..line.len().min(40)]);
    }
    client.send(b"NOOP \xff\xfe\r\n").await.unwrap();
    assert!(matches!(client.reply().await.unwrap().code, 250 | 500 | 501));
    let before = setting.relay.resident_octets().unwrap();
    assert_eq!(bare_line_feed(&mut client).await, 550);
    assert_eq!(oversize(&mut client).await, 552);
    let grown = setting.relay.resident_octets().unwrap().saturating_sub(before);
    assert!(grown < 8 << 20, "memory grew by {grown} octets");
    assert_eq!(
        client.message("a@example.com", &["b@example.net"], b"Subject: fine\r\n\r\n").await.unwrap().code,
        250
    );
    assert_eq!(setting.upstream.wait_for(1, LIMIT).await.unwrap().len(), 1, "nothing refused was sent on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_message_lacks_is_added_and_what_goes_in_circles_is_refused() {
    let setting = setting().await;
    setting
        .accepts("b@example.net", b"Return-Path: <forged@example.com>\r\nSubject: bare\r\n\r\nbody\r\n")
        .await;
    let received = setting.upstream.wait_for(1, LIMIT).await.unwrap();
    let text = String::from_utf8(received[0].content.to_vec()).unwrap();
    let id = text.split("\tid ").nth(1).unwrap().split(';').next().unwrap();
    assert!(text.contains(&format!("\r\nMessage-ID: <{id}@relay.example>\r\n\r\nbody\r\n")), "{text}");
    assert!(text.contains("\r\nSubject: bare\r\nDate: ") && !text.contains("Return-Path"), "{text}");

    let circling = "Received: from a by b\r\n".repeat(101) + "\r\nbody\r\n";
    let mut client = setting.client().await;
    let reply = client.message("a@example.com", &["b@example.net"], circling.as_bytes()).await.unwrap();
    assert_eq!((reply.code, reply.enhanced()), (554, Some("5.4.6")), "{reply:?}");
    let metrics = setting.relay.scrape().await.unwrap();
    assert_eq!(metrics.value("postroad_relay_refusals_total{reason=\"loop\"}"), Some(1.0));
}

async fn begin_content(client: &mut SmtpClient) {
    for (line, code) in [("MAIL FROM:<a@example.com>", 250), ("RCPT TO:<b@example.net>", 250), ("DATA", 354)]
    {
        assert_eq!(client.command(line).await.unwrap().code, code, "{line}");
    }
}

/// A line feed alone ends neither a line nor, with a dot, the message: what follows it is content, not commands.
async fn bare_line_feed(client: &mut SmtpClient) -> u16 {
    begin_content(client).await;
    client.send(b"Subject: smuggled\r\n\r\nx\n.\r\nMAIL FROM:<evil@example.com>\r\n.\r\n").await.unwrap();
    client.reply().await.unwrap().code
}

/// Twice the limit of ten million octets, without a declared size.
async fn oversize(client: &mut SmtpClient) -> u16 {
    begin_content(client).await;
    let line = [b'x'; 998];
    for _ in 0..20_000 {
        client.send(&line).await.unwrap();
        client.send(b"\r\n").await.unwrap();
    }
    client.send(b".\r\n").await.unwrap();
    client.reply().await.unwrap().code
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_recipient_comes_back_to_the_sender_and_the_others_are_delivered() {
    let setting = setting().await;
    let no_such_user = Action::Reply("550 5.1.1 no such user".to_owned());
    setting.upstream.inject(Fault::always(Stage::RecipientIs("gone@example.net".to_owned()), no_such_user));
    let mut client = setting.client().await;
    let recipients = ["b@example.net", "gone@example.net"];
    let reply = client.message("a@example.com", &recipients, b"Subject: two\r\n\r\nbody\r\n").await.unwrap();
    assert_eq!(reply.code, 250);
    let received = setting.upstream.wait_for(2, LIMIT).await.unwrap();
    assert_eq!(received[0].recipients, ["b@example.net"]);
    let notification = &received[1];
    let text = String::from_utf8_lossy(&notification.content);
    assert_eq!(
        (notification.reverse_path.as_str(), &notification.recipients[..]),
        ("", &["a@example.com".to_owned()][..])
    );
    assert!(
        text.contains("Final-Recipient: rfc822; gone@example.net") && text.contains("550 5.1.1"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_that_is_refused_is_dropped_counted_and_told_to_nobody() {
    let setting = setting().await;
    for recipient in ["gone@example.net", "a@example.com"] {
        let no_such_user = Action::Reply("550 5.1.1 no such user".to_owned());
        setting.upstream.inject(Fault::always(Stage::RecipientIs(recipient.to_owned()), no_such_user));
    }
    let mut client = setting.client().await;
    let reply =
        client.message("a@example.com", &["gone@example.net"], b"Subject: one\r\n\r\n").await.unwrap();
    assert_eq!(reply.code, 250);
    // A notification is queued in the instant in which it is decided, so that nothing more can come.
    setting.relay.wait_until_all_ended(LIMIT).await.unwrap();
    let metrics = setting.relay.scrape().await.unwrap();
    let ended = |fate: &str| metrics.value(&format!("postroad_relay_ledger_ended_total{{fate=\"{fate}\"}}"));
    assert_eq!((ended("failed_notified"), ended("failed_unnotified")), (Some(1.0), Some(1.0)));
    assert_eq!(metrics.value("postroad_relay_notifications_total"), Some(1.0));
    assert_eq!(metrics.value("postroad_relay_notifications_undeliverable_total"), Some(1.0));
    assert!(setting.upstream.messages().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_puts_off_arrives_later() {
    let setting = setting().await;
    let busy = Action::Reply("451 4.7.0 later".to_owned());
    setting.upstream.inject(Fault::on(Stage::Content, When::First(2), busy));
    setting.accepts("b@example.net", b"Subject: patience\r\n\r\n").await;
    setting.upstream.wait_for(1, LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_is_kept_while_the_upstream_is_down_and_a_stop_cuts_no_transaction() {
    let mut setting = setting().await;
    setting.upstream.stop().await;
    let load = Load { messages_per_client: 5, ..Load::to_address(([127, 0, 0, 1], setting.port).into()) };
    let sent = load.start().finish().await;
    assert_eq!(sent.acknowledged.len(), 100);
    setting.relay.sigterm();
    assert!(setting.relay.wait(LIMIT).await.unwrap().success());
    setting.upstream.restart().await.unwrap();
    setting.relay.restart().await.unwrap();
    setting.upstream.wait_for(100, LIMIT).await.unwrap();
    let received = setting.upstream.ledger(|ledger| ledger.tokens());
    let account = postroad_tests::conservation::account(&sent.acknowledged, received);
    assert!(account.balanced(), "{account:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_relay_ends_the_running_transaction_and_begins_no_other() {
    let setting = setting().await;
    let mut client = setting.client().await;
    client.ehlo("client.example").await.unwrap();
    begin_content(&mut client).await;
    setting.relay.sigterm();
    setting.relay.wait_for_readiness(false, LIMIT).await.unwrap();
    client.send(b"Subject: last\r\n\r\n.\r\n").await.unwrap();
    assert_eq!(client.reply().await.unwrap().code, 250);
    assert_eq!(client.reply().await.unwrap().code, 421);
    assert!(setting.relay.wait(LIMIT).await.unwrap().success());
}
