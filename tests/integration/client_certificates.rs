//! Clients known by their certificates: which certificates a listener believes, and which names an identity admits.

use postroad_crds::relay_config::{
    Certificate, ClientCertificateRequest, Identity, IdentityKind, ListenerTls, Priority, RelayConfig,
    Sensitive,
};
use postroad_tests::certificates::{CertificateAuthority, Holder, IssuedCertificate, Usage};
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_client::{ClientError, SmtpClient};
use postroad_tests::smtp_server::SmtpServer;

use crate::{LIMIT, config};

const REFUSED: &str = "postroad_relay_refusals_total{reason=\"client-certificate\"}";
const BILLING: Holder<'_> = Holder {
    dns_names: &["billing.example"],
    uris: &[],
    common_name: Some("ignored"),
    expired: false,
    usage: Usage::Client,
};

struct Setting {
    upstream: SmtpServer,
    relay: RelayProcess,
    /// Issues the relay's certificate.
    servers: CertificateAuthority,
    /// Issues the clients'.
    clients: CertificateAuthority,
    config: RelayConfig,
    port: u16,
}

/// A relay with one listener that begins with TLS. Identity `billing` holds the certificates for `billing.example`.
async fn setting(required: bool) -> Setting {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let servers = CertificateAuthority::new("servers' authority").unwrap();
    let clients = CertificateAuthority::new("clients' authority").unwrap();
    let port = free_port().unwrap();
    let mut config = config(port, &upstream, "secret");
    let own = servers.issue(&["localhost"]).unwrap();
    config.certificate = Some(Certificate {
        certificate_chain_pem: own.certificate_pem,
        private_key_pem: Sensitive(own.key_pem),
    });
    config.listeners[0].tls = ListenerTls::Implicit;
    config.listeners[0].client_certificate =
        Some(ClientCertificateRequest { required, ca_bundle_pem: clients.pem() });
    config.identities = vec![identity("billing", &["billing.example"], &[], &[])];
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    Setting { upstream, relay, servers, clients, config, port }
}

fn identity(name: &str, dns_names: &[&str], uris: &[&str], common_names: &[&str]) -> Identity {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let kind = IdentityKind::ClientCertificate {
        dns_names: owned(dns_names),
        uris: owned(uris),
        common_names: owned(common_names),
    };
    Identity {
        name: name.to_owned(),
        kind,
        allowed_senders: Vec::new(),
        priority: Priority::Normal,
        rates: Vec::new(),
    }
}

impl Setting {
    /// A client that has been greeted, or what it met instead.
    async fn client(&self, shown: Option<&IssuedCertificate>) -> Result<SmtpClient, ClientError> {
        let mut client = SmtpClient::connect(([127, 0, 0, 1], self.port).into()).await?;
        client.set_patience(LIMIT);
        client.encrypt_as("localhost", &self.servers.pem(), shown).await?;
        client.reply().await?;
        client.ehlo("client.example").await?;
        Ok(client)
    }

    async fn apply(&self, configurations: u32) {
        self.relay.rewrite_config(&self.config).unwrap();
        let applied = "postroad_relay_configurations_applied_total";
        let there = |value| value == Some(f64::from(configurations));
        self.relay.wait_for_metrics("it", LIMIT, |metrics| there(metrics.value(applied))).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_named_certificate_sends_and_the_trace_says_whose_it_was() {
    let mut setting = setting(true).await;
    setting.config.identities[0].allowed_senders = vec!["billing.example".to_owned()];
    setting.apply(2).await;
    let shown = setting.clients.issue_client(&BILLING).unwrap();
    let mut client = setting.client(Some(&shown)).await.unwrap();
    let other = client.command("MAIL FROM:<boss@example.com>").await.unwrap();
    assert!(
        other
            .text()
            .ends_with("sender boss@example.com not permitted for identity billing (RelayPool mail/main)"),
        "{other:?}"
    );
    let sent =
        client.message("app@billing.example", &["b@example.net"], b"Subject: x\r\n\r\n").await.unwrap();
    assert_eq!(sent.code, 250, "{sent}");
    let received = setting.upstream.wait_for(1, LIMIT).await.unwrap();
    let text = String::from_utf8_lossy(&received[0].content).into_owned();
    assert!(text.contains(" with ESMTPS\r\n"), "it did not use AUTH: {text}");
    assert!(text.contains("(TLSv1.3)\r\n\t(client certificate billing.example);\r\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_valid_gets_no_session_even_where_none_is_needed() {
    for required in [true, false] {
        let setting = setting(required).await;
        let strangers = CertificateAuthority::new("clients' authority").unwrap();
        let bad = [
            ("issued by another authority of the same name", strangers.issue_client(&BILLING)),
            ("expired", setting.clients.issue_client(&Holder { expired: true, ..BILLING })),
            ("a server's", setting.clients.issue_client(&Holder { usage: Usage::Server, ..BILLING })),
        ];
        for (what, shown) in &bad {
            assert!(setting.client(Some(shown.as_ref().unwrap())).await.is_err(), "{what} was believed");
        }
        let none = setting.client(None).await;
        assert_eq!(none.is_err(), required, "without a certificate");
        let refused = f64::from(3 + u8::from(required));
        let all =
            setting.relay.wait_for_metrics("all", LIMIT, |metrics| metrics.value(REFUSED) == Some(refused));
        all.await.unwrap();
        let log = setting.relay.log();
        log.wait_for("the reason", LIMIT, |line| {
            line.contains("client-certificate") && line.contains("xpired")
        })
        .await
        .unwrap();
        let good = setting.clients.issue_client(&BILLING).unwrap();
        assert!(setting.client(Some(&good)).await.is_ok(), "and others are served");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_no_identity_lists_is_refused_with_a_text_that_names_it() {
    let mut setting = setting(true).await;
    setting.config.identities = vec![
        identity("dns", &["*.billing.example"], &[], &[]),
        identity("uri", &[], &["spiffe://cluster.local/ns/billing/*"], &[]),
        identity("common", &[], &[], &["billing"]),
    ];
    setting.apply(2).await;
    let nobody = Holder { dns_names: &[], common_name: None, ..BILLING };
    let cases = [
        (Holder { dns_names: &["a.billing.example"], ..nobody }, 250),
        (
            Holder {
                dns_names: &["other.example"],
                uris: &["spiffe://cluster.local/ns/billing/sa/a"],
                ..nobody
            },
            250,
        ),
        (Holder { common_name: Some("billing"), ..nobody }, 250),
        (Holder { dns_names: &["billing.example"], ..nobody }, 550),
        (Holder { dns_names: &["*.billing.example"], ..nobody }, 550),
        (Holder { uris: &["spiffe://cluster.local/ns/other/sa/a"], ..nobody }, 550),
        (Holder { dns_names: &["billing"], common_name: Some("other"), ..nobody }, 550),
    ];
    for (holder, code) in cases {
        let shown = setting.clients.issue_client(&holder).unwrap();
        let mut client = setting.client(Some(&shown)).await.unwrap();
        let reply = client.command("MAIL FROM:<a@example.com>").await.unwrap();
        assert_eq!(reply.code, code, "{holder:?}: {reply}");
    }
    let shown = setting.clients.issue_client(&BILLING).unwrap();
    let mut client = setting.client(Some(&shown)).await.unwrap();
    let reply = client.command("MAIL FROM:<a@example.com>").await.unwrap();
    assert_eq!(
        reply.text(),
        "5.7.1 client 127.0.0.1 with the certificate of billing.example matches no identity of RelayPool mail/main: \
         have its certificate's name or its network added to spec.clients.identities, or authenticate on a port that offers it"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_certificate_is_optional_other_identities_count_without_one() {
    let mut setting = setting(false).await;
    let mut refused = setting.client(None).await.unwrap();
    assert_eq!(refused.command("MAIL FROM:<a@example.com>").await.unwrap().code, 550);
    let kind = IdentityKind::Network { cidrs: vec!["127.0.0.0/8".parse().unwrap()] };
    setting.config.identities.push(Identity {
        name: "local".to_owned(),
        kind,
        allowed_senders: Vec::new(),
        priority: Priority::Normal,
        rates: Vec::new(),
    });
    setting.apply(2).await;
    assert_eq!(refused.command("MAIL FROM:<a@example.com>").await.unwrap().code, 250);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_authorities_count_from_the_next_connection_and_names_from_the_next_message() {
    let mut setting = setting(true).await;
    let old = setting.clients.issue_client(&BILLING).unwrap();
    let mut running = setting.client(Some(&old)).await.unwrap();
    for command in ["MAIL FROM:<a@example.com>", "RCPT TO:<b@example.net>"] {
        assert_eq!(running.command(command).await.unwrap().code, 250, "{command}");
    }
    let next = CertificateAuthority::new("next authority").unwrap();
    let new = next.issue_client(&BILLING).unwrap();
    assert!(setting.client(Some(&new)).await.is_err(), "not yet");
    setting.config.listeners[0].client_certificate =
        Some(ClientCertificateRequest { required: true, ca_bundle_pem: next.pem() });
    setting.apply(2).await;
    assert!(setting.client(Some(&old)).await.is_err(), "not any more");
    assert!(setting.client(Some(&new)).await.is_ok());
    // The session that was there goes on with its message, until its name is struck off.
    assert_eq!(running.command("DATA").await.unwrap().code, 354);
    assert_eq!(running.command("Subject: x\r\n\r\n.").await.unwrap().code, 250);
    assert_eq!(running.command("MAIL FROM:<a@example.com>").await.unwrap().code, 250);
    assert_eq!(running.command("RSET").await.unwrap().code, 250);
    setting.config.identities = vec![identity("billing", &["other.example"], &[], &[])];
    setting.apply(3).await;
    assert_eq!(running.command("MAIL FROM:<a@example.com>").await.unwrap().code, 550);
}
