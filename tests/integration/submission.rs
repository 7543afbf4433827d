//! What clients of a listener with TLS and AUTH meet: who may send as whom, and what a session learns passes on.

use std::collections::BTreeMap;

use postroad_crds::relay_config::{
    Authentication, Certificate, Identity, IdentityKind, ListenerTls, RelayConfig, Sensitive,
};
use postroad_tests::certificates::CertificateAuthority;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_client::{Security, SmtpClient};
use postroad_tests::smtp_server::SmtpServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{LIMIT, config};

/// "hunter2".
const BCRYPT: &str = "$2b$06$GwfbzFUhRSIUqVKDVcmpfOfJK0pN6OXnJLuT0BP29IfvbjeyfRsWy";

struct Setting {
    upstream: SmtpServer,
    relay: RelayProcess,
    authority: CertificateAuthority,
    config: RelayConfig,
    port: u16,
}

fn certificate(authority: &CertificateAuthority) -> Certificate {
    let issued = authority.issue(&["localhost"]).unwrap();
    Certificate { certificate_chain_pem: issued.certificate_pem, private_key_pem: Sensitive(issued.key_pem) }
}

async fn setting() -> Setting {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let authority = CertificateAuthority::new("clients' authority").unwrap();
    let port = free_port().unwrap();
    let mut config = config(port, &upstream, "secret");
    config.certificate = Some(certificate(&authority));
    config.listeners[0].tls = ListenerTls::Required;
    config.listeners[0].authentication = Authentication::Required;
    let users = [("hashed", BCRYPT), ("plain", "hunter2")];
    let users = users.map(|(name, value)| (name.to_owned(), Sensitive(value.to_owned()))).into();
    let user_senders = BTreeMap::from([("hashed".to_owned(), vec!["*.example.com".to_owned()])]);
    let kind = IdentityKind::Password { users, user_senders };
    config.identities = vec![Identity {
        name: "apps".to_owned(),
        kind,
        allowed_senders: vec!["example.com".to_owned()],
        priority: postroad_crds::relay_config::Priority::Normal,
        rates: Vec::new(),
    }];
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    Setting { upstream, relay, authority, config, port }
}

impl Setting {
    async fn client(&self) -> SmtpClient {
        let address = ([127, 0, 0, 1], self.port).into();
        let mut client = SmtpClient::open(address, &Security::None, "client.example").await.unwrap();
        client.set_patience(LIMIT);
        client.ehlo("client.example").await.unwrap();
        client.starttls("localhost", &self.authority.pem()).await.unwrap();
        client.ehlo("client.example").await.unwrap();
        client
    }

    async fn user(&self, name: &str) -> SmtpClient {
        let mut client = self.client().await;
        assert_eq!(client.auth_plain(name, "hunter2").await.unwrap().code, 235, "{name}");
        client
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_send_from_their_own_addresses_and_are_told_who_decided_otherwise() {
    let setting = setting().await;
    let mut plain = setting.user("plain").await;
    let refused = plain.command("MAIL FROM:<boss@sub.example.com>").await.unwrap();
    assert_eq!((refused.code, refused.enhanced()), (550, Some("5.7.1")));
    assert!(
        refused
            .text()
            .ends_with("sender boss@sub.example.com not permitted for user plain (RelayPool mail/main)"),
        "{refused:?}"
    );
    assert_eq!(plain.command("MAIL FROM:<>").await.unwrap().code, 550, "the null reverse-path is not listed");
    assert_eq!(plain.command("MAIL FROM:<App@EXAMPLE.com>").await.unwrap().code, 250);
    let mut hashed = setting.user("hashed").await;
    assert_eq!(hashed.command("MAIL FROM:<app@example.com>").await.unwrap().code, 550);
    let sent = hashed.message("app@a.example.com", &["b@example.net"], b"Subject: x\r\n\r\n").await.unwrap();
    assert_eq!(sent.code, 250);
    let received = setting.upstream.wait_for(1, LIMIT).await.unwrap();
    let text = String::from_utf8_lossy(&received[0].content).into_owned();
    assert!(text.contains(" with ESMTPSA\r\n") && text.contains("(TLSv1.3);"), "{text}");
    let refusals =
        setting.relay.scrape().await.unwrap().value("postroad_relay_refusals_total{reason=\"sender\"}");
    assert_eq!(refusals, Some(3.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_answered_always_the_same_and_then_slowed_down() {
    let setting = setting().await;
    let mut client = setting.client().await;
    for user in ["plain", "hashed", "nobody", "plain", "nobody"] {
        let refused = client.auth_plain(user, "guess").await.unwrap();
        assert_eq!(refused.lines, ["5.7.8 Authentication credentials invalid"], "{user}");
    }
    assert_eq!(client.auth_plain("plain", "hunter2").await.unwrap().code, 235, "five failures are free");
    let mut client = setting.client().await;
    assert_eq!(client.auth_plain("plain", "guess").await.unwrap().code, 535);
    let wait = client.auth_plain("plain", "hunter2").await.unwrap();
    assert_eq!((wait.code, wait.enhanced()), (454, Some("4.7.0")), "{wait:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_to_the_next_client_and_cuts_no_transaction() {
    let mut setting = setting().await;
    let mut before = setting.user("plain").await;
    for (line, code) in [("MAIL FROM:<a@example.com>", 250), ("RCPT TO:<b@example.net>", 250), ("DATA", 354)]
    {
        assert_eq!(before.command(line).await.unwrap().code, code);
    }
    setting.authority = CertificateAuthority::new("another authority").unwrap();
    setting.config.certificate = Some(certificate(&setting.authority));
    setting.relay.rewrite_config(&setting.config).unwrap();
    let applied = "postroad_relay_configurations_applied_total";
    setting
        .relay
        .wait_for_metrics("the certificate", LIMIT, |metrics| metrics.value(applied) == Some(2.0))
        .await
        .unwrap();
    // Trusts the new authority alone.
    setting.user("hashed").await;
    before.send(b"Subject: begun before\r\n\r\n.\r\n").await.unwrap();
    assert_eq!(before.reply().await.unwrap().code, 250);
    assert_eq!(
        before.message("a@example.com", &["b@example.net"], b"Subject: y\r\n\r\n").await.unwrap().code,
        250
    );
    setting.upstream.wait_for(2, LIMIT).await.unwrap();
}

/// What a client that sends `octets` at once and then nothing reads until the relay closes, or `ends_with`.
async fn raw(port: u16, octets: &[u8], ends_with: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(octets).await.unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 1024]);
    let read = async {
        while !text.ends_with(ends_with) {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(count) => text.push_str(&String::from_utf8_lossy(&buffer[..count])),
            }
        }
    };
    tokio::time::timeout(LIMIT, read).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_balancer_is_believed_and_nobody_else() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let mut config = config(port, &upstream, "secret");
    let IdentityKind::Network { cidrs } = &mut config.identities[0].kind else { panic!() };
    *cidrs = vec!["192.0.2.0/24".parse().unwrap()];
    config.listeners[0].proxies = vec!["127.0.0.1/32".parse().unwrap()];
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    let mail = "EHLO c.example\r\nMAIL FROM:<a@example.com>\r\nQUIT\r\n";
    let check = async |header: &[u8], expected: &str| {
        let text = raw(port, &[header, mail.as_bytes()].concat(), "closing\r\n").await;
        assert!(text.contains(expected), "{:?}: {text}", String::from_utf8_lossy(header));
    };
    check(b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 25\r\n", "250 2.1.0").await;
    check(b"PROXY TCP4 198.51.100.7 127.0.0.1 4000 25\r\n", "client 198.51.100.7 matches no identity").await;
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\x7f\0\0\x01\x0f\xa0\0\x19";
    check(binary, "250 2.1.0").await;
    assert_eq!(raw(port, mail.as_bytes(), "\n").await, "", "without a header there is no session");

    config.listeners[0].proxies = vec!["192.0.2.1/32".parse().unwrap()];
    relay.rewrite_config(&config).unwrap();
    let applied = "postroad_relay_configurations_applied_total";
    relay
        .wait_for_metrics("the proxies", LIMIT, |metrics| metrics.value(applied) == Some(2.0))
        .await
        .unwrap();
    let text = raw(port, b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 25\r\n", "recognised\r\n").await;
    assert!(text.contains("\r\n500 "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_cross_the_network_in_the_clear_only_where_the_listener_says_so() {
    let mut setting = setting().await;
    setting.config.listeners[0].tls = ListenerTls::Optional;
    for (insecure, offered, code) in [(false, false, 538), (true, true, 235)] {
        setting.config.listeners[0].insecure_authentication = insecure;
        setting.relay.rewrite_config(&setting.config).unwrap();
        let address = ([127, 0, 0, 1], setting.port).into();
        let applied = 2.0 + f64::from(u8::from(insecure));
        let metric = "postroad_relay_configurations_applied_total";
        setting
            .relay
            .wait_for_metrics("it", LIMIT, |metrics| metrics.value(metric) == Some(applied))
            .await
            .unwrap();
        let mut client = SmtpClient::open(address, &Security::None, "client.example").await.unwrap();
        assert_eq!(client.ehlo("client.example").await.unwrap().offers("AUTH"), offered);
        assert_eq!(client.auth_plain("plain", "hunter2").await.unwrap().code, code);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_short_of_memory_asks_clients_to_come_back() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let options = RelayOptions {
        environment: vec![("POSTROAD_MEMORY_LIMIT".to_owned(), "1000000".to_owned())],
        ..RelayOptions::default()
    };
    let relay = RelayProcess::start(&config(port, &upstream, "secret"), options).await.unwrap();
    relay.log().wait_for("memory", LIMIT, |line| line.contains("memory is short")).await.unwrap();
    let address = ([127, 0, 0, 1], port).into();
    let mut client = SmtpClient::open(address, &Security::None, "client.example").await.unwrap();
    client.ehlo("client.example").await.unwrap();
    let reply = client.command("MAIL FROM:<a@example.com>").await.unwrap();
    assert_eq!((reply.code, reply.enhanced()), (452, Some("4.3.1")), "{reply:?}");
    assert_eq!(client.command("NOOP").await.unwrap().code, 250, "the session goes on");
}

/// `make bench-connections`: what ten thousand sessions that say nothing cost, and how fast they come.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: make bench-connections"]
async fn idle_sessions() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let authority = CertificateAuthority::new("clients' authority").unwrap();
    for tls in [ListenerTls::None, ListenerTls::Implicit] {
        let port = free_port().unwrap();
        let mut config = config(port, &upstream, "secret");
        config.certificate = Some(certificate(&authority));
        config.listeners[0].tls = tls;
        (config.limits.connections, config.limits.connections_per_client) = (20_000, 20_000);
        let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
        let sessions: usize = std::env::var("SESSIONS").map_or(10_000, |text| text.parse().unwrap());
        let mut open = Vec::with_capacity(sessions);
        let (before, begin) = (relay.resident_octets().unwrap(), std::time::Instant::now());
        while open.len() < sessions {
            let mut batch = JoinSet::new();
            for _ in 0..50.min(sessions - open.len()) {
                let pem = authority.pem();
                batch.spawn(async move {
                    let address = ([127, 0, 0, 1], port).into();
                    match tls {
                        ListenerTls::Implicit => SmtpClient::connect_tls(address, "localhost", &pem).await,
                        _ => SmtpClient::connect(address).await,
                    }
                });
            }
            open.extend(batch.join_all().await.into_iter().map(Result::unwrap));
        }
        let rate = sessions as f64 / begin.elapsed().as_secs_f64();
        let octets = (relay.resident_octets().unwrap() - before) as usize / sessions;
        let begin = std::time::Instant::now();
        let address = ([127, 0, 0, 1], port).into();
        let security = match tls {
            ListenerTls::Implicit => {
                Security::Implicit { server_name: "localhost".into(), ca_pem: authority.pem() }
            }
            _ => Security::None,
        };
        let mut late = SmtpClient::open(address, &security, "client.example").await.unwrap();
        late.ehlo("client.example").await.unwrap();
        let reply = late.message("a@example.com", &["b@example.net"], b"Subject: x\r\n\r\n").await.unwrap();
        assert_eq!(reply.code, 250);
        eprintln!(
            "{tls:?}: {sessions} sessions, {octets} octets each, {rate:.0} a second; a message then in {:?}",
            begin.elapsed()
        );
    }
}
