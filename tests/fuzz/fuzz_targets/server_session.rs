//! The server session: two splits give the same session, every accepted MAIL has one end, replies are well formed, memory is
//! bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_protocol::auth::authentication_failed;
use smtp_protocol::{
    AuthOffer, BareNewline, Event, Mechanism, Reply, ScramKeys, ServerConfig, ServerSession, TlsOffer,
};
use std::sync::Arc;

#[derive(Debug, Default, PartialEq)]
struct Seen {
    events: Vec<String>,
    content: Vec<u8>,
    output: Vec<u8>,
    open: bool,
}

impl Seen {
    fn drive(&mut self, session: &mut ServerSession) {
        while let Some(event) = session.poll() {
            if !matches!(event, Event::Content(_)) {
                self.events.push(format!("{event:?}"));
            }
            self.perform(event, session);
        }
        self.output.extend_from_slice(&session.take_output());
    }

    fn perform(&mut self, event: Event, session: &mut ServerSession) {
        match event {
            Event::StartTls => session.tls_established(),
            Event::Authenticate(_) => session.respond(authentication_failed()),
            Event::LookUpKeys { .. } => {
                let keys =
                    ScramKeys { salt: vec![1; 16], iterations: 4096, stored_key: [2; 32], server_key: [3; 32] };
                session.provide_keys(keys, "nonce");
            }
            Event::Proof { proven, .. } => {
                assert!(!proven, "nobody knows a password for these keys");
                session.respond(Reply::new(235, (2, 7, 0), "ok"));
                assert_eq!(session.authenticated_user(), None);
            }
            Event::Mail { reverse_path, smtputf8, .. } => {
                assert!(!self.open && (smtputf8 || reverse_path.is_ascii()));
                self.open = true;
                session.respond(Reply::new(250, (2, 1, 0), "ok"));
            }
            Event::Recipient { forward_path, .. } => {
                assert!(self.open);
                let refused = forward_path.local_part().starts_with('r');
                let code = if refused { (550, (5, 1, 1)) } else { (250, (2, 1, 5)) };
                session.respond(Reply::new(code.0, code.1, "recipient"));
            }
            Event::Data => session.respond(Reply::bare(354, "go")),
            Event::Content(slice) => {
                assert!(self.open && !slice.is_empty());
                self.content.extend_from_slice(&slice);
            }
            Event::EndOfContent => {
                self.content.clear();
                self.open = false;
                session.respond(Reply::new(250, (2, 0, 0), "kept"));
            }
            Event::Abort => {
                assert!(self.open);
                self.content.clear();
                self.open = false;
            }
            Event::Closed => assert!(!self.open),
        }
    }
}

fn serve(mode: u8, octets: &[u8], size: usize) -> Seen {
    let mut session = ServerSession::new(Arc::new(ServerConfig {
        tls: if mode & 1 == 0 { TlsOffer::None } else { TlsOffer::Established },
        authentication: AuthOffer::Optional,
        mechanisms: Mechanism::ALL.to_vec(),
        auth_without_tls: mode & 2 != 0,
        bare_newline: if mode & 4 == 0 { BareNewline::Reject } else { BareNewline::Normalise },
        smtputf8: mode & 8 != 0,
        dsn: mode & 16 != 0,
        message_bytes: 200,
        header_bytes: 60,
        header_fields: 4,
        recipients: 3,
        ..ServerConfig::default()
    }));
    let mut seen = Seen::default();
    seen.drive(&mut session);
    for piece in octets.chunks(size) {
        session.receive(piece);
        seen.drive(&mut session);
        assert!(session.buffered() <= 12_288);
        assert!(seen.content.len() <= 202);
    }
    seen.content.clear();
    seen
}

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (mode, size, octets) = input;
    let whole = serve(mode, octets, usize::MAX);
    assert_eq!(whole, serve(mode, octets, usize::from(size).max(1)));
    assert!(whole.output.ends_with(b"\r\n"));
    assert!(whole.output.split(|b| *b == b'\n').all(|line| line.len() < 512));
});
