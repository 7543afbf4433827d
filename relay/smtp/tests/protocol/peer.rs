//! A driver for a server session that answers at once, by what the addresses say.

use smtp_protocol::{Event, Mailbox, Reply, ScramKeys, ServerSession, auth};
use std::sync::LazyLock;

/// The one user there is.
pub(crate) const USER: (&str, &str) = ("alice", "s3cret");

/// The client's nonce in RFC 7677 §3.
pub(crate) const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
/// The nonce of every challenge; the example of RFC 7677 §3.
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

/// The salt of that example.
const SALT: [u8; 16] = *b"[m\x99h\x9d\x125\x8e\xec\xa0K\x14\x126\xfa\x81";
/// The keys of that example's password, which are slow to derive.
static KEYS: LazyLock<ScramKeys> = LazyLock::new(|| ScramKeys::derive("pencil", &SALT, 4096));

/// The user of that example has a password; others get keys that no password fits.
fn keys(username: &str) -> ScramKeys {
    let salt = SALT;
    match username {
        "user" => KEYS.clone(),
        _ => ScramKeys { salt: salt.to_vec(), iterations: 4096, stored_key: [0; 32], server_key: [0; 32] },
    }
}

/// What a session's driver saw: events as text, content joined, messages accepted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) events: Vec<String>,
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) content: Vec<u8>,
}

impl Seen {
    /// Performs and answers everything the session asks for.
    pub(crate) fn drive(&mut self, session: &mut ServerSession) {
        while let Some(event) = session.poll() {
            if let Event::LookUpKeys { username } = &event {
                self.events.push(format!("{event:?}"));
                session.provide_keys(keys(username), SERVER_NONCE);
            } else if let Some(reply) = self.perform(event) {
                session.respond(reply);
            }
        }
    }

    fn perform(&mut self, event: Event) -> Option<Reply> {
        match &event {
            Event::Content(slice) => {
                assert!(!slice.is_empty(), "an empty slice is no event");
                self.content.extend_from_slice(slice);
                return None;
            }
            Event::EndOfContent => self.messages.push(std::mem::take(&mut self.content)),
            Event::Abort => self.content.clear(),
            _ => {}
        }
        self.events.push(format!("{event:?}"));
        match event {
            Event::Authenticate(given) if (given.username(), given.password()) == USER => {
                Some(Reply::new(235, (2, 7, 0), "Authentication successful"))
            }
            Event::Authenticate(_) => Some(auth::authentication_failed()),
            Event::LookUpKeys { .. } => None,
            // Said of every proof: that a failed one gets 535 all the same is the session's to see to.
            Event::Proof { .. } => Some(Reply::new(235, (2, 7, 0), "Authentication successful")),
            Event::Mail { reverse_path, .. } => Some(verdict(reverse_path.mailbox(), "sender", (5, 7, 1))),
            Event::Recipient { forward_path, .. } => {
                Some(verdict(forward_path.mailbox(), "recipient", (5, 4, 4)))
            }
            Event::Data => Some(Reply::bare(354, "Start mail input; end with <CRLF>.<CRLF>")),
            Event::EndOfContent => Some(self.keep()),
            Event::StartTls | Event::Content(_) | Event::Abort | Event::Closed => None,
        }
    }

    fn keep(&mut self) -> Reply {
        let size = self.messages.last().map_or(0, Vec::len);
        let refused = self.messages.last().is_some_and(|message| message.starts_with(b"Subject: full\r\n"));
        if refused {
            self.messages.pop();
            return Reply::new(452, (4, 3, 1), "Spool is full");
        }
        Reply::new(250, (2, 0, 0), format!("Kept {size} octets"))
    }
}

/// Mailboxes beginning with `refused` and `later` are refused for good and for now, `busy` closes the session.
fn verdict(mailbox: Option<&Mailbox>, what: &str, refused: (u8, u16, u16)) -> Reply {
    match mailbox.map_or("", Mailbox::local_part) {
        "refused" => Reply::new(550, refused, format!("No such {what}")),
        "later" => Reply::new(451, (4, 7, 1), format!("Not this {what} now")),
        "busy" => Reply::new(421, (4, 3, 2), "Busy"),
        _ => Reply::new(250, (2, 1, 0), format!("{what} OK")),
    }
}
