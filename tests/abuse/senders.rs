//! A permitted client that sends as somebody else than it may: refused by the address that counts, however it is written.

use crate::probe::{Probe, Start, probe, run_all};
use crate::setting::{OURS, PASSWORD, Port, Setting, USER};

/// Senders that are refused: the identity and the user may use `sender.example` and `*.below.example`.
const REFUSED: [&[u8]; 14] = [
    b"MAIL FROM:<a@other.example>\r\n",
    b"MAIL FROM:<a@sub.sender.example>\r\n",
    b"MAIL FROM:<a@notsender.example>\r\n",
    b"MAIL FROM:<a@sender.example.other.example>\r\n",
    b"MAIL FROM:<a@below.example>\r\n",
    b"MAIL FROM:<a@xbelow.example>\r\n",
    b"MAIL FROM:<>\r\n",
    b"MAIL FROM:<\"a@sender.example\"@other.example>\r\n",
    b"MAIL FROM:<a%sender.example@other.example>\r\n",
    b"MAIL FROM:<sender.example!a@other.example>\r\n",
    b"MAIL FROM:<@sender.example:a@other.example>\r\n",
    b"MAIL FROM:<@sender.example,@x.below.example:a@other.example>\r\n",
    b"MAIL FROM:<a@[192.0.2.1]>\r\n",
    b"MAIL FROM:<a@other.example> AUTH=a@sender.example\r\n",
];

/// Senders that are accepted.
const ACCEPTED: [&[u8]; 5] = [
    b"MAIL FROM:<a@sender.example>\r\n",
    b"MAIL FROM:<A@SENDER.Example>\r\n",
    b"MAIL FROM:<a@x.below.example>\r\n",
    b"MAIL FROM:<\"a@other.example\"@sender.example>\r\n",
    b"MAIL FROM:<@other.example:a@sender.example>\r\n",
];

fn probes(port: Port, start: Start) -> Vec<Probe> {
    let named = |octets: &[u8]| format!("{port:?}: {}", octets.escape_ascii());
    // AUTH= is a parameter only where AUTH is offered.
    let refused = REFUSED.iter().map(|octets| probe(&named(octets), port, start, [(octets, "550|555")]));
    let accepted = ACCEPTED.iter().map(|octets| probe(&named(octets), port, start, [(octets, "250")]));
    refused.chain(accepted).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sends_as_somebody_else_whether_known_by_network_or_by_password() {
    let setting = Setting::start_with(OURS, |config| {
        for identity in &mut config.identities {
            identity.allowed_senders = vec!["sender.example".to_owned(), "*.below.example".to_owned()];
        }
    })
    .await;
    run_all(&probes(Port::Smtp, Start::Ready), &setting).await;
    run_all(&probes(Port::Submissions, Start::Authenticated), &setting).await;
    // Who has authenticated is judged as the user, though the network would be let in too.
    let mut client = setting.client(Port::Submission).await;
    assert_eq!(client.auth_plain(USER, PASSWORD).await.unwrap().code, 235);
    let refused = client.command("MAIL FROM:<a@other.example>").await.unwrap();
    assert!(
        refused.text().contains("sender a@other.example not permitted for user app (RelayPool mail/main)"),
        "{refused}"
    );
    setting.only_what_is_in_order_arrives(0).await;
}
