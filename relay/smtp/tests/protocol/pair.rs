//! Both sessions against each other.

use super::peer::{NONCE, Seen, USER};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use smtp_protocol::{
    AuthOffer, Body, ClientConfig, ClientEvent, ClientSession, ClientTls, Credentials, ForwardPath, Mailbox,
    PlainCredentials, ReversePath, ServerConfig, ServerSession, TlsOffer, Transaction, TransactionCommand,
};
use std::sync::Arc;

/// A client and a server with a wire between them that carries `piece` octets at a time.
struct Pair {
    client: ClientSession,
    server: ServerSession,
    seen: Seen,
    events: Vec<ClientEvent>,
    piece: usize,
}

impl Pair {
    fn new(tls: (ClientTls, TlsOffer), credentials: bool, piece: usize) -> Self {
        let credentials = credentials.then(|| Credentials::Password(PlainCredentials::new(USER.0, USER.1)));
        let authentication = if credentials.is_some() { AuthOffer::Required } else { AuthOffer::None };
        let server = ServerConfig { tls: tls.1, authentication, ..ServerConfig::default() };
        let client =
            ClientConfig { ehlo_name: "client.example".into(), tls: tls.0, credentials, nonce: NONCE.into() };
        Self {
            client: ClientSession::new(client),
            server: ServerSession::new(Arc::new(server)),
            seen: Seen::default(),
            events: Vec::new(),
            piece,
        }
    }

    fn secure(piece: usize) -> Self {
        Self::new((ClientTls::StartTls, TlsOffer::StartTlsRequired), true, piece)
    }

    /// Carries octets until nobody has anything to say.
    fn settle(&mut self) {
        loop {
            self.seen.drive(&mut self.server);
            let to_client = self.server.take_output();
            for piece in to_client.chunks(self.piece) {
                self.client.receive(piece);
                self.poll_client();
            }
            let to_server = self.client.take_output();
            if to_server.is_empty() && to_client.is_empty() {
                return;
            }
            for piece in to_server.chunks(self.piece) {
                self.server.receive(piece);
                self.seen.drive(&mut self.server);
            }
            self.poll_client();
        }
    }

    /// The client hears of TLS last, so both are ready for it then.
    fn poll_client(&mut self) {
        while let Some(event) = self.client.poll() {
            if event == ClientEvent::StartTls {
                self.server.tls_established();
                self.client.tls_established();
            }
            self.events.push(event);
        }
    }

    /// Sends one message and gives the fate of each recipient.
    fn send(&mut self, recipients: &[&str], content: &[u8]) -> Vec<(TransactionCommand, u16)> {
        self.settle();
        assert!(self.client.is_ready(), "{:?}", self.events);
        self.events.clear();
        let recipient = |text: &&str| ForwardPath::from(text.parse::<Mailbox>().unwrap()).into();
        self.client.start(Transaction {
            reverse_path: ReversePath::Null,
            recipients: recipients.iter().map(recipient).collect(),
            whole: false,
            size: content.len() as u64,
            body: Body::EightBitMime,
            smtputf8: false,
            ret: None,
            envelope_id: None,
        });
        self.settle();
        if self.events.contains(&ClientEvent::SendContent) {
            for chunk in content.chunks(7) {
                self.client.content(chunk);
            }
            self.client.end_of_content();
            self.settle();
        }
        let done = self.events.iter().find_map(|event| match event {
            ClientEvent::Done(done) => Some(done),
            _ => None,
        });
        let done = done.unwrap_or_else(|| panic!("no outcome: {:?}", self.events));
        done.recipients.iter().map(|recipient| (recipient.command, recipient.reply.code.value())).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn content_arrives_octet_for_octet(
        messages in vec(vec(vec(select(b".. abc\t\x80\xff".to_vec()), 0..1200), 0..8), 1..4), piece in 1usize..3000
    ) {
        let messages: Vec<Vec<u8>> =
            messages.iter().map(|lines| lines.iter().flat_map(|line| [&line[..], b"\r\n"].concat()).collect()).collect();
        let mut pair = Pair::secure(piece);
        for message in &messages {
            prop_assert_eq!(pair.send(&["a@b.example"], message), [(TransactionCommand::Content, 250)]);
        }
        prop_assert_eq!(&pair.seen.messages, &messages);
    }
}

#[test]
fn a_session_comes_up_in_every_mode() {
    let modes = [
        (ClientTls::None, TlsOffer::None, false),
        (ClientTls::None, TlsOffer::StartTls, false),
        (ClientTls::StartTls, TlsOffer::StartTls, false),
        (ClientTls::StartTls, TlsOffer::StartTlsRequired, true),
        (ClientTls::Implicit, TlsOffer::Established, true),
    ];
    for (client, server, credentials) in modes {
        let mut pair = Pair::new((client, server), credentials, 1);
        assert_eq!(pair.send(&["a@b.example"], b"x\r\n"), [(TransactionCommand::Content, 250)], "{client:?}");
        assert_eq!(pair.server.authenticated_user().is_some(), credentials);
        assert_eq!(pair.client.is_tls(), pair.server.is_tls());
        assert_eq!(pair.server.helo_name(), Some("client.example"));
    }
}

#[test]
fn rcpt_refused_leaves_other_recipients_delivered() {
    let mut pair = Pair::secure(1000);
    let fates = pair.send(&["refused@b.example", "a@b.example", "later@b.example"], b"x\r\n");
    let rcpt = TransactionCommand::Recipient;
    assert_eq!(fates, [(rcpt, 550), (TransactionCommand::Content, 250), (rcpt, 451)]);
    assert_eq!(pair.seen.messages, [b"x\r\n"]);
}

#[test]
fn a_failed_transaction_leaves_the_session_usable() {
    let mut pair = Pair::secure(1000);
    assert_eq!(pair.send(&["refused@b.example"], b"x\r\n"), [(TransactionCommand::Recipient, 550)]);
    assert_eq!(pair.send(&["a@b.example"], b"Subject: full\r\n"), [(TransactionCommand::Content, 452)]);
    assert_eq!(pair.send(&["a@b.example"], b"x\r\n"), [(TransactionCommand::Content, 250)]);
    assert_eq!(pair.seen.messages, [b"x\r\n"]);
}

#[test]
fn more_recipients_than_the_window_all_get_their_reply() {
    let recipients: Vec<String> = (0..700).map(|number| format!("r{number}@b.example")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let mut pair = Pair::secure(512);
    let fates = pair.send(&recipients, b"x\r\n");
    assert_eq!(fates, [(TransactionCommand::Content, 250); 700]);
    assert_eq!(pair.seen.events.iter().filter(|event| event.starts_with("Recipient(")).count(), 700);
}

#[test]
fn a_closing_server_ends_the_clients_session() {
    let mut pair = Pair::secure(1000);
    pair.settle();
    pair.server.shut_down();
    pair.settle();
    assert!(pair.client.is_closed() && pair.server.is_closed());
    assert!(
        matches!(pair.events[..], [.., ClientEvent::Failed(_), ClientEvent::Closed]),
        "{:?}",
        pair.events
    );
}

#[test]
fn quit_closes_both_sides() {
    let mut pair = Pair::secure(1000);
    pair.settle();
    pair.client.quit();
    pair.settle();
    assert!(pair.client.is_closed() && pair.server.is_closed());
    assert_eq!(pair.events.last(), Some(&ClientEvent::Closed));
}
