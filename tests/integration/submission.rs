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
    config.identities =
        vec![Identity { name: "apps".to_owned(), kind, allowed_senders: vec!["example.com".to_owned()] }];
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
