//! The fake upstream against lettre and the raw client: what it takes, what it records, how it fails on demand.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::conservation::{self, account};
use crate::lettre_client::{LettreClient, LettreOptions};
use crate::load::Load;
use crate::smtp_client::{ClientError, Security, SmtpClient};

const SOON: Duration = Duration::from_secs(10);
const SENDER: &str = "sender@client.example";
const RECIPIENT: &str = "recipient@example.com";

fn lettre_options(server: &SmtpServer, password: &str) -> LettreOptions {
    LettreOptions {
        host: "localhost".to_owned(),
        port: server.port(),
        ca_pem: Some(server.ca_pem().to_owned()),
        implicit: false,
        credentials: Some(("user".to_owned(), password.to_owned())),
    }
}

async fn open(server: &SmtpServer) -> SmtpClient {
    SmtpClient::open(server.address(), &Security::None, "client.example").await.unwrap()
}

async fn send(client: &mut SmtpClient, token: &str) -> Result<u16, ClientError> {
    let content = conservation::content(token, 600);
    client.message(SENDER, &[RECIPIENT], &content).await.map(|reply| reply.code)
}

async fn with_fault(fault: Fault) -> (SmtpServer, SmtpClient) {
    let server = SmtpServer::plain().await.unwrap();
    server.inject(fault);
    let client = open(&server).await;
    (server, client)
}

#[tokio::test]
async fn a_message_from_lettre_over_starttls_and_auth_is_recorded() {
    let server = SmtpServer::service("user", "secret").await.unwrap();
    let client = LettreClient::new(&lettre_options(&server, "secret")).unwrap();
    client.send("t-1", SENDER, &[RECIPIENT, "other@example.com"], "Hello\r\n.dot\r\n").await.unwrap();
    let messages = server.wait_for(1, SOON).await.unwrap();
    let message = &messages[0];
    assert_eq!(message.token().as_deref(), Some("t-1"));
    assert_eq!(message.reverse_path, SENDER);
    assert_eq!(message.recipients, [RECIPIENT, "other@example.com"]);
    assert_eq!((message.tls, message.user.as_deref(), message.acknowledged), (true, Some("user"), true));
    let text = String::from_utf8_lossy(&message.content);
    assert!(text.contains("\r\n\r\nHello\r\n.dot\r\n"), "{text:?}");
    let session = &server.sessions()[0];
    assert_eq!(session.server_name.as_deref(), Some("localhost"));
    assert!(session.tls.as_deref().is_some_and(|version| version.starts_with("TLSv1")), "{session:?}");
    assert_eq!(server.violations(), []);
}

#[tokio::test]
async fn a_message_from_lettre_over_implicit_tls_is_recorded() {
    let options = Options { tls: TlsMode::Implicit, ..Options::default() };
    let server = SmtpServer::start(options).await.unwrap();
    let lettre = LettreOptions { implicit: true, credentials: None, ..lettre_options(&server, "") };
    LettreClient::new(&lettre).unwrap().send("t-1", SENDER, &[RECIPIENT], "Hello\r\n").await.unwrap();
    assert_eq!(server.wait_for(1, SOON).await.unwrap()[0].token().as_deref(), Some("t-1"));
}

#[tokio::test]
async fn a_changed_password_holds_for_the_next_session() {
    let server = SmtpServer::service("user", "old").await.unwrap();
    server.set_password("user", "new");
    let old = LettreClient::new(&lettre_options(&server, "old")).unwrap();
    let error = old.send("t-1", SENDER, &[RECIPIENT], "Hello\r\n").await.unwrap_err();
    assert!(error.to_string().contains("535"), "{error}");
    let new = LettreClient::new(&lettre_options(&server, "new")).unwrap();
    new.send("t-2", SENDER, &[RECIPIENT], "Hello\r\n").await.unwrap();
    assert_eq!(server.ledger(Ledger::tokens), ["t-2"]);
}

#[tokio::test]
async fn auth_login_is_taken_and_mail_without_auth_is_not() {
    let server = SmtpServer::service("user", "secret").await.unwrap();
    let security =
        Security::StartTls { server_name: "localhost".to_owned(), ca_pem: server.ca_pem().to_owned() };
    let mut client = SmtpClient::open(server.address(), &security, "client.example").await.unwrap();
    assert_eq!(send(&mut client, "t-1").await.unwrap(), 530);
    assert_eq!(client.auth_login("user", "wrong").await.unwrap().code, 535);
    assert_eq!(client.auth_login("user", "secret").await.unwrap().code, 235);
    assert_eq!(send(&mut client, "t-1").await.unwrap(), 250);
    assert_eq!(server.sessions()[0].failed_authentications, 1);
}

#[tokio::test]
async fn an_access_token_is_taken_while_it_is_the_users() {
    let settings = Settings {
        require_authentication: true,
        authentication_in_the_clear: true,
        expired_credentials: Some("530 5.7.0 expired".to_owned()),
        ..Settings::default()
    };
    let server = SmtpServer::start(Options { settings, ..Options::default() }).await.unwrap();
    server.set_access_token("user", "token");
    let mut client = open(&server).await;
    let bearer = |token: &str| STANDARD.encode(format!("user=user\u{1}auth=Bearer {token}\u{1}\u{1}"));
    let refused = client.command(&format!("AUTH XOAUTH2 {}", bearer("other"))).await.unwrap();
    assert_eq!(refused.code, 334, "an error report comes before the refusal");
    assert_eq!(client.command("").await.unwrap().code, 535);
    assert_eq!(client.command(&format!("AUTH XOAUTH2 {}", bearer("token"))).await.unwrap().code, 235);
    assert_eq!(send(&mut client, "t-1").await.unwrap(), 250);
    server.set_access_token("user", "next");
    assert_eq!(send(&mut client, "t-2").await.unwrap(), 530);
    assert_eq!(server.messages()[0].user.as_deref(), Some("user"));
}

#[tokio::test]
async fn chunks_are_put_together_and_one_that_nobody_takes_is_read_all_the_same() {
    let server = SmtpServer::plain().await.unwrap();
    server.change(|settings| settings.chunking = true);
    let mut client = open(&server).await;
    client
        .send(b"BDAT 6 LAST\r\nQUIT\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n")
        .await
        .unwrap();
    client.send(b"BDAT 5\r\na\r\n.\rBDAT 1 LAST\r\n\n").await.unwrap();
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(client.reply().await.unwrap().code);
    }
    assert_eq!(codes, [503, 250, 250, 250, 250]);
    assert_eq!(server.messages()[0].content, "a\r\n.\r\n");
    assert_eq!(server.violations(), []);
    server.change(|settings| settings.chunking = false);
    assert_eq!(client.command("BDAT 0 LAST").await.unwrap().code, 503);
    assert!(server.violations()[0].what.contains("BDAT was not offered"));
}

#[tokio::test]
async fn a_pipelined_group_is_answered_in_order_and_in_one_piece_of_content() {
    let server = SmtpServer::plain().await.unwrap();
    let mut client = open(&server).await;
    client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<>\r\nDATA\r\n").await.unwrap();
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(client.reply().await.unwrap().code);
    }
    assert_eq!(codes, [250, 250, 501, 354]);
    client.send(b"Subject: x\r\n\r\n..\r\n.\r\nQUIT\r\n").await.unwrap();
    assert_eq!(client.reply().await.unwrap().code, 250);
    assert_eq!(client.reply().await.unwrap().code, 221);
    assert_eq!(server.messages()[0].content, "Subject: x\r\n\r\n.\r\n");
}

#[tokio::test]
async fn what_a_client_does_wrong_is_held_against_it() {
    let server = SmtpServer::plain().await.unwrap();
    server.change(|settings| settings.pipelining = false);
    let mut client = open(&server).await;
    client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\nDATA\r\n").await.unwrap();
    for _ in 0..3 {
        client.reply().await.unwrap();
    }
    client.send(b"bare\nline \xff\r\n.\r\n").await.unwrap();
    client.reply().await.unwrap();
    let found: Vec<String> = server.violations().into_iter().map(|violation| violation.what).collect();
    for rule in ["PIPELINING was not offered", "bare LF", "bare CR or LF", "8-bit content"] {
        assert!(found.iter().any(|what| what.contains(rule)), "{rule}: {found:?}");
    }
}

#[tokio::test]
async fn a_scripted_reply_hits_its_recipient_only() {
    let (server, mut client) =
        with_fault(Fault::reply(Stage::RecipientIs("bad@example.com".to_owned()), "550 5.1.1 no such user"))
            .await;
    client.command("MAIL FROM:<>").await.unwrap();
    let reply = client.command("RCPT TO:<bad@example.com>").await.unwrap();
    assert_eq!((reply.code, reply.enhanced()), (550, Some("5.1.1")));
    assert_eq!(client.command("RCPT TO:<good@example.com>").await.unwrap().code, 250);
    client.command("DATA").await.unwrap();
    client.command(".").await.unwrap();
    assert_eq!(server.messages()[0].recipients, ["good@example.com"]);
}

#[tokio::test]
async fn closing_after_the_final_dot_keeps_the_message_and_counts_it_as_unacknowledged() {
    let (server, mut client) =
        with_fault(Fault::on(Stage::Content, When::Nth(1), Action::KeepThenClose)).await;
    assert!(matches!(send(&mut client, "t-1").await, Err(ClientError::Closed { .. })));
    assert_eq!(send(&mut open(&server).await, "t-1").await.unwrap(), 250);
    server.ledger(|ledger| {
        let account = account(&BTreeSet::from(["t-1".to_owned()]), ledger.tokens());
        assert_eq!(account.duplicated.get("t-1"), Some(&2));
        assert_eq!(ledger.unacknowledged(), 1);
    });
}

#[tokio::test]
async fn closing_before_the_message_is_kept_loses_it() {
    let (server, mut client) = with_fault(Fault::always(Stage::Content, Action::Close)).await;
    assert!(matches!(send(&mut client, "t-1").await, Err(ClientError::Closed { .. })));
    assert_eq!(server.messages().len(), 0);
}

#[tokio::test]
async fn a_reset_is_seen_as_a_failed_connection() {
    let (_server, mut client) = with_fault(Fault::always(Stage::Mail, Action::Abort)).await;
    assert!(matches!(send(&mut client, "t-1").await, Err(ClientError::Connection(_))));
}

#[tokio::test]
async fn the_421_after_n_messages_ends_the_session() {
    let gone = Action::ReplyThenClose("421 4.7.0 enough for one session".to_owned());
    let (server, mut client) = with_fault(Fault::on(Stage::Mail, When::SessionCarried(2), gone)).await;
    let mut codes = Vec::new();
    for token in ["t-1", "t-2", "t-3"] {
        codes.push(send(&mut client, token).await.unwrap());
    }
    assert_eq!(codes, [250, 250, 421]);
    client.closed().await.unwrap();
    assert_eq!(send(&mut open(&server).await, "t-3").await.unwrap(), 250);
    let carried: Vec<usize> = server.sessions().iter().map(|session| session.messages).collect();
    assert_eq!(carried, [2, 1]);
}

#[tokio::test]
async fn a_stalled_reply_never_comes_and_a_malformed_one_is_sent_as_it_is() {
    let server = SmtpServer::plain().await.unwrap();
    let stall = server.inject(Fault::on(Stage::Mail, When::Nth(1), Action::Stall));
    server.inject(Fault::always(Stage::Recipient, Action::Raw(b"2x0 what\r\n".to_vec())));
    let mut stalled = open(&server).await;
    stalled.set_patience(Duration::from_millis(50));
    assert!(matches!(send(&mut stalled, "t-1").await, Err(ClientError::TimedOut { .. })));
    assert_eq!(server.fired(stall), 1);
    assert!(matches!(send(&mut open(&server).await, "t-1").await, Err(ClientError::Malformed(_))));
}

#[tokio::test]
async fn a_delayed_reply_comes_late() {
    let delay = Duration::from_millis(50);
    let (_server, mut client) = with_fault(Fault::always(Stage::Content, Action::Delay(delay))).await;
    let before = Instant::now();
    assert_eq!(send(&mut client, "t-1").await.unwrap(), 250);
    assert!(before.elapsed() >= delay);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_turned_away() {
    let server = SmtpServer::plain().await.unwrap();
    server.change(|settings| settings.session_limit = Some(1));
    let _first = open(&server).await;
    let mut second = SmtpClient::connect(server.address()).await.unwrap();
    assert_eq!(second.reply().await.unwrap().code, 421);
    second.closed().await.unwrap();
    server.ledger(|ledger| assert_eq!((ledger.most_open_sessions, ledger.turned_away), (1, 1)));
}

#[tokio::test]
async fn a_slow_reader_still_reads_everything() {
    let server = SmtpServer::plain().await.unwrap();
    let mut client = open(&server).await;
    server.change(|settings| settings.pace = Some(Pace { octets: 7, rest: Duration::from_micros(100) }));
    assert_eq!(send(&mut client, "t-1").await.unwrap(), 250);
    assert_eq!(server.messages()[0].content, conservation::content("t-1", 600));
}

#[tokio::test]
async fn a_stopped_server_refuses_and_comes_back_on_its_port_with_its_ledger() {
    let mut server = SmtpServer::plain().await.unwrap();
    let mut client = open(&server).await;
    send(&mut client, "t-1").await.unwrap();
    server.stop().await;
    assert!(matches!(SmtpClient::connect(server.address()).await, Err(ClientError::Connection(_))));
    assert!(client.command("NOOP").await.is_err());
    server.wait_until("no open session", SOON, |ledger| ledger.open_sessions == 0).await.unwrap();
    server.restart().await.unwrap();
    send(&mut open(&server).await, "t-2").await.unwrap();
    assert_eq!(server.ledger(Ledger::tokens), ["t-1", "t-2"]);
}

#[tokio::test]
async fn a_cut_session_ends_and_the_server_goes_on() {
    let server = SmtpServer::plain().await.unwrap();
    let mut client = open(&server).await;
    server.cut_sessions();
    client.closed().await.unwrap();
    assert_eq!(send(&mut open(&server).await, "t-1").await.unwrap(), 250);
}

#[tokio::test]
async fn a_wait_that_fails_says_what_was_there() {
    let server = SmtpServer::plain().await.unwrap();
    send(&mut open(&server).await, "t-1").await.unwrap();
    let error = server.wait_for(2, Duration::from_millis(10)).await.unwrap_err().to_string();
    assert!(error.contains("2 messages") && error.contains("the upstream has 1 messages"), "{error}");
}

#[tokio::test]
async fn a_load_arrives_whole_and_intact() {
    let server = SmtpServer::plain().await.unwrap();
    let load = Load { clients: 5, messages_per_client: 20, ..Load::to_address(server.address()) };
    let sent = load.clone().start().finish().await;
    assert_eq!((sent.acknowledged.len(), sent.unknown.len(), sent.lost_connections), (100, 0, 0));
    server.ledger(|ledger| {
        assert!(account(&sent.acknowledged, ledger.tokens()).balanced());
        for message in &ledger.messages {
            let token = message.token().unwrap();
            assert_eq!(conservation::intact(&load.content(&token), &message.content, &[]), Ok(()));
        }
        assert_eq!(ledger.most_open_sessions, 5);
    });
}

#[tokio::test]
async fn a_load_survives_a_server_that_comes_and_goes() {
    let mut server = SmtpServer::plain().await.unwrap();
    let load = Load { clients: 4, messages_per_client: 50, ..Load::to_address(server.address()) };
    let running = load.start();
    for round in 1..4 {
        running.wait_for_acknowledged(round * 30, SOON).await.unwrap();
        server.stop().await;
        server.restart().await.unwrap();
    }
    let sent = running.finish().await;
    assert!(sent.lost_connections > 0);
    assert_eq!(sent.acknowledged.len() + sent.unknown.len(), 200);
    let account = server.ledger(|ledger| account(&sent.acknowledged, ledger.tokens()));
    assert_eq!(account.lost, BTreeSet::new());
    assert!(account.unexpected.is_subset(&sent.unknown), "{account:?}");
}

#[tokio::test]
async fn a_load_tells_refused_from_retried() {
    let server = SmtpServer::plain().await.unwrap();
    server.inject(Fault::on(Stage::Mail, When::First(3), Action::Reply("451 4.3.0 later".to_owned())));
    server.inject(Fault::on(Stage::Content, When::Nth(2), Action::Reply("554 5.6.0 never".to_owned())));
    let load = Load { clients: 1, messages_per_client: 3, ..Load::to_address(server.address()) };
    let sent = load.start().finish().await;
    assert_eq!((sent.acknowledged.len(), sent.refused.len(), sent.transient_refusals), (2, 1, 3));
}
