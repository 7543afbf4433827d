//! A client that shows a certificate of its own, or somebody else's: only a valid one with a name that a rule lists gets a
//! message through, and only on the listener that asks for it.

use postroad_tests::certificates::{CertificateAuthority, Holder, IssuedCertificate, Usage};
use postroad_tests::smtp_client::{ClientError, SmtpClient};

use crate::setting::{CERTIFIED, ELSEWHERE, LIMIT, Port, Setting};

const LISTED: Holder<'_> =
    Holder { dns_names: &[CERTIFIED], uris: &[], common_name: None, expired: false, usage: Usage::Client };

/// The answer to MAIL of a client that shows this, or what it met before.
async fn mail(setting: &Setting, port: Port, shown: Option<&IssuedCertificate>) -> Result<u16, ClientError> {
    let mut client = setting.connect(port).await;
    client.encrypt_as("localhost", &setting.authority.pem(), shown).await?;
    client.reply().await?;
    client.ehlo("client.example").await?;
    Ok(client.command("MAIL FROM:<a@sender.example>").await?.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_but_a_valid_one_with_a_listed_name_opens_the_door() {
    let setting = Setting::start(ELSEWHERE).await;
    let ours = |holder: Holder<'_>| setting.clients.issue_client(&holder).unwrap();
    let pretender = CertificateAuthority::new("Postroad abuse clients").unwrap();
    let self_signed = CertificateAuthority::new(CERTIFIED).unwrap();
    let refused_in_the_handshake = [
        ("none", None),
        ("another authority of the same name", Some(pretender.issue_client(&LISTED).unwrap())),
        ("an authority of the client's own", Some(self_signed.issue_client(&LISTED).unwrap())),
        ("one of the relay's own authority", Some(setting.authority.issue(&[CERTIFIED]).unwrap())),
        ("expired", Some(ours(Holder { expired: true, ..LISTED }))),
        ("for servers only", Some(ours(Holder { usage: Usage::Server, ..LISTED }))),
    ];
    for (what, shown) in &refused_in_the_handshake {
        assert!(mail(&setting, Port::Certified, shown.as_ref()).await.is_err(), "{what}");
    }
    let refused_by_name = [
        ("another name", Holder { dns_names: &["other.example"], ..LISTED }),
        ("a name below it", Holder { dns_names: &["x.certified.example"], ..LISTED }),
        ("a wildcard that covers it", Holder { dns_names: &["*.example"], ..LISTED }),
        ("the name as common name", Holder { dns_names: &[], common_name: Some(CERTIFIED), ..LISTED }),
        ("the name as a URI", Holder { dns_names: &[], uris: &[CERTIFIED], ..LISTED }),
        (
            "the name as the host of a URI",
            Holder { dns_names: &[], uris: &["https://certified.example"], ..LISTED },
        ),
        ("no name", Holder { dns_names: &[], ..LISTED }),
    ];
    for (what, holder) in refused_by_name {
        let found = mail(&setting, Port::Certified, Some(&ours(holder))).await;
        assert_eq!(found.unwrap(), 550, "{what}");
    }
    // Where nobody asks for it the best certificate proves nothing.
    assert_eq!(mail(&setting, Port::Submissions, Some(&ours(LISTED))).await.unwrap(), 530);
    assert_eq!(mail(&setting, Port::Certified, Some(&ours(LISTED))).await.unwrap(), 250);
    let count = format!("{}.0", refused_in_the_handshake.len());
    let metric = "postroad_relay_refusals_total{reason=\"client-certificate\"}";
    let all = |value: Option<f64>| value.map(|value| format!("{value:.1}")) == Some(count.clone());
    setting.relay.wait_for_metrics("all", LIMIT, |metrics| all(metrics.value(metric))).await.unwrap();
    setting.only_what_is_in_order_arrives(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_asks_for_certificates_speaks_nothing_before_tls() {
    let setting = Setting::start(ELSEWHERE).await;
    let mut client: SmtpClient = setting.connect(Port::Certified).await;
    client.send(b"EHLO a.example\r\nMAIL FROM:<a@sender.example>\r\n").await.unwrap();
    let rest = client.closed().await.unwrap();
    assert!(rest.is_empty() || rest[0] == 21, "an alert at most: {}", rest.escape_ascii());
    setting.only_what_is_in_order_arrives(0).await;
}
