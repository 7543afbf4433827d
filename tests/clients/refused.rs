//! What the relay refuses, every client reports as refused, in the relay's words; and nothing of it reaches the upstream.

use postroad_tests::certificates::CertificateAuthority;

use crate::clients::{CLIENTS, Client};
use crate::messages::Kind;
use crate::send::Send;
use crate::setting::{STRICT, Setting, Way};

/// Something a client does that must not succeed.
pub struct Refusal {
    /// What it does.
    pub name: &'static str,
    way: Way,
    change: fn(&mut Send, &Setting),
    /// What the client's own words must contain; `a|b` means one of the two.
    pub told: &'static [&'static str],
}

/// All refusals.
pub const REFUSALS: [Refusal; 7] = [
    Refusal {
        name: "a wrong password",
        way: Way::StartTls,
        change: |send, _| send.password = "wrong".to_owned(),
        told: &["535"],
    },
    Refusal {
        name: "no AUTH where it is required",
        way: Way::Implicit,
        change: |send, _| send.mechanism = None,
        told: &["530", "5.7.0"],
    },
    Refusal {
        name: "no TLS where it is required",
        way: Way::Clear,
        change: |send, setting| send.port = setting.port(Way::StartTls),
        told: &["530", "STARTTLS"],
    },
    Refusal {
        name: "a client that no rule permits",
        way: Way::Clear,
        change: |_, _| {},
        told: &["550", "matches no identity of RelayPool mail/main"],
    },
    Refusal {
        name: "a recipient that no route takes",
        way: Way::StartTls,
        change: |send, _| send.recipients = vec!["someone@elsewhere.example".to_owned()],
        told: &["550", "no route of RelayPool mail/main"],
    },
    Refusal {
        name: "a message that is too large",
        way: Way::StartTls,
        change: |send, _| send.content.extend(b"more and more and more\r\n".repeat(10_000)),
        told: &["552|size limit 100000"],
    },
    Refusal {
        name: "a relay whose certificate is not trusted",
        way: Way::StartTls,
        change: |send, _| send.authority_pem = CertificateAuthority::new("another").unwrap().pem(),
        told: &[],
    },
];

async fn is_refused(client: &Client) {
    let setting = Setting::start(STRICT).await;
    for (number, refusal) in REFUSALS.iter().enumerate() {
        let mut send = Send::new(&setting, client, Kind::Small, refusal.way);
        send.name = format!("{}-refusal-{number}", client.name);
        (refusal.change)(&mut send, &setting);
        let told = send.by(client, &setting).await.err();
        let told = told.unwrap_or_else(|| panic!("{}: {} was taken", client.name, refusal.name));
        for words in refusal.told {
            let found = words.split('|').any(|words| told.contains(words));
            assert!(found, "{}: {}: {words:?} is not in\n{told}", client.name, refusal.name);
        }
    }
    // Whatever had been accepted would stand before this message in the queue.
    Send::new(&setting, client, Kind::Small, Way::StartTls).by(client, &setting).await.unwrap();
    let arrived = setting.upstream.wait_for(1, std::time::Duration::from_secs(60)).await.unwrap();
    assert_eq!(arrived.len(), 1, "{}: something refused was sent on", client.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_are_refused_and_say_so() {
    for client in CLIENTS.iter().filter(|client| client.name != "postfix") {
        is_refused(client).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_is_refused_and_says_so() {
    is_refused(Client::named("postfix")).await;
}
