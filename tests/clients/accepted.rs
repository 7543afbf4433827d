//! Every client sends every kind of message it can, by every way: it arrives once, unchanged, to exactly its recipients.

use std::collections::BTreeSet;
use std::time::Duration;

use postroad_tests::conservation::intact;
use postroad_tests::smtp_server::ReceivedMessage;

use crate::clients::Client;
use crate::messages::Kind;
use crate::send::Send;
use crate::setting::{GENEROUS, Setting, Way};

const LIMIT: Duration = Duration::from_secs(60);
/// What may be put in front of a message: trace information, and what RFC 6409 §8 lets a submission server add where it lacks.
/// Postfix, which is one too, adds From to the empty message.
const ADDED: [&str; 4] = ["Received", "Message-ID", "Date", "From"];

/// What a client sends: all kinds that are quick by all ways; the long ones, and its other mechanisms, under STARTTLS.
pub fn plan(client: &Client) -> Vec<(Kind, Way, Option<&'static str>)> {
    let mut plan = Vec::new();
    for way in Way::ALL {
        for kind in Kind::ALL {
            let (able, everywhere) = match kind {
                Kind::Attachment => (client.attachment, false),
                Kind::Recipients => (true, false),
                Kind::Utf8Addresses => (client.smtputf8, true),
                Kind::Empty => (client.empty, true),
                Kind::Small | Kind::EightBit | Kind::Dots => (true, true),
            };
            if able && (everywhere || way == Way::StartTls) {
                plan.push((kind, way, client.mechanism(way)));
            }
        }
    }
    plan.extend(
        client.mechanisms[1..].iter().map(|mechanism| (Kind::Small, Way::StartTls, Some(*mechanism))),
    );
    plan
}

async fn sends_everything(client: &str) {
    let client = Client::named(client);
    let setting = Setting::start(GENEROUS).await;
    for (kind, way, mechanism) in plan(client) {
        let mut send = Send::new(&setting, client, kind, way);
        if mechanism != send.mechanism {
            send.mechanism = mechanism;
            send.name = format!("{}-{}", send.name, mechanism.unwrap_or_default().to_lowercase());
            (send.recipients, send.content) = (kind.recipients(&send.name), kind.content(&send.name));
        }
        if let Err(error) = send.by(client, &setting).await {
            panic!("{} by {mechanism:?} was not sent: {error}\n{}", send.name, setting.log());
        }
        arrived(&send, client, &setting).await;
    }
    assert!(setting.upstream.violations().is_empty(), "{:?}", setting.upstream.violations());
}

/// Exactly its recipients got it, each once, with its content.
async fn arrived(send: &Send, client: &Client, setting: &Setting) {
    let reverse_path = send.reverse_path();
    let ours = |message: &&ReceivedMessage| message.reverse_path == reverse_path;
    let reached = |messages: &[ReceivedMessage]| {
        messages.iter().filter(ours).flat_map(|message| message.recipients.clone()).collect::<Vec<_>>()
    };
    let all = |ledger: &postroad_tests::smtp_server::Ledger| {
        reached(&ledger.messages).len() >= send.recipients.len()
    };
    setting.upstream.wait_until(&send.name, LIMIT, all).await.unwrap();
    let messages = setting.upstream.messages();
    let recipients = reached(&messages);
    assert_eq!(recipients.len(), send.recipients.len(), "{}: some got it twice", send.name);
    assert_eq!(
        recipients.iter().collect::<BTreeSet<_>>(),
        send.recipients.iter().collect::<BTreeSet<_>>(),
        "{}",
        send.name
    );
    for message in messages.iter().filter(ours) {
        let outcome = unchanged(send, client, &message.content);
        outcome.unwrap_or_else(|difference| panic!("{}: {difference}", send.name));
    }
}

/// Octet for octet, save for the empty line with which some clients end every message and most an empty one.
fn unchanged(send: &Send, client: &Client, received: &[u8]) -> Result<(), String> {
    let mut expected = send.content.clone();
    if client.empty_line || (expected.is_empty() && received.ends_with(b"\r\n\r\n")) {
        expected.extend_from_slice(b"\r\n");
    }
    intact(&expected, received, &ADDED)
}

macro_rules! clients {
    ($($test:ident: $client:literal),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                sends_everything($client).await;
            }
        )*

        #[test]
        fn every_client_of_the_table_has_its_test() {
            assert_eq!(crate::clients::CLIENTS.map(|client| client.name), [$($client),*]);
        }
    };
}

clients! {
    lettre_sends_everything: "lettre",
    smtplib_sends_everything: "smtplib",
    nodemailer_sends_everything: "nodemailer",
    net_smtp_sends_everything: "net-smtp",
    swaks_sends_everything: "swaks",
    curl_sends_everything: "curl",
    msmtp_sends_everything: "msmtp",
    postfix_sends_everything: "postfix",
    jakarta_mail_sends_everything: "jakarta-mail",
}
