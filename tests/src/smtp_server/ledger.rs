//! What the fake upstream saw: messages, sessions, and where its peer broke the protocol.
//!
//! The ledger is the evidence of every mail-flow test. `session` writes it, tests read it and wait for it to change.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;

use crate::conservation;
use crate::lock::lock;
use crate::waiting::{TimedOut, watched};

/// A message the server kept.
#[derive(Clone, Debug)]
pub struct ReceivedMessage {
    /// The session that carried it.
    pub session: u64,
    /// Its place among the session's messages, from zero.
    pub index: usize,
    /// The reverse-path without angle brackets; empty for the null reverse-path.
    pub reverse_path: String,
    /// The parameters of MAIL as they came, as `SIZE=500`.
    pub mail_parameters: Vec<String>,
    /// The accepted forward-paths without angle brackets.
    pub recipients: Vec<String>,
    /// The content, transparency undone (RFC 5321 §4.5.2), without the final dot's line.
    pub content: Bytes,
    /// Whether the connection was encrypted.
    pub tls: bool,
    /// Who had authenticated.
    pub user: Option<String>,
    /// Whether a positive reply was sent. When not, the client cannot know that the message was kept and a second copy is unavoidable.
    pub acknowledged: bool,
    /// When the final dot had come.
    pub received: Instant,
}

impl ReceivedMessage {
    /// The token of a test message ([`conservation::TOKEN_FIELD`]).
    #[must_use]
    pub fn token(&self) -> Option<String> {
        conservation::token(&self.content)
    }
}

/// A session, from connection to close.
#[derive(Clone, Debug)]
pub struct SessionRecord {
    /// Its number, from zero in order of connection.
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// When the connection was accepted.
    pub opened: Instant,
    /// When it ended; `None` while it is open.
    pub closed: Option<Instant>,
    /// How it ended, in words.
    pub end: Option<String>,
    /// The TLS version, as `TLSv1_3`, once the connection is encrypted.
    pub tls: Option<String>,
    /// The name the client asked for by SNI.
    pub server_name: Option<String>,
    /// The name given with EHLO or HELO.
    pub client_name: Option<String>,
    /// Who has authenticated.
    pub user: Option<String>,
    /// Failed attempts to authenticate.
    pub failed_authentications: usize,
    /// Messages kept.
    pub messages: usize,
    /// The commands as they came, credentials left out.
    pub commands: Vec<String>,
}

impl SessionRecord {
    pub(crate) fn new(id: u64, peer: SocketAddr) -> Self {
        Self {
            id,
            peer,
            opened: Instant::now(),
            closed: None,
            end: None,
            tls: None,
            server_name: None,
            client_name: None,
            user: None,
            failed_authentications: 0,
            messages: 0,
            commands: Vec::new(),
        }
    }

    /// How many of the session's commands begin with `verb`.
    #[must_use]
    pub fn count(&self, verb: &str) -> usize {
        self.commands.iter().filter(|command| command.split(' ').next() == Some(verb)).count()
    }
}

/// A place where the client broke the protocol: what the server, as judge, would hold against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The session.
    pub session: u64,
    /// What the client did, and the rule.
    pub what: String,
}

/// Everything the server saw since its start, restarts included.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// The messages kept, in order.
    pub messages: Vec<ReceivedMessage>,
    /// The sessions, in order of connection; those turned away by the session limit are not among them.
    pub sessions: Vec<SessionRecord>,
    /// Sessions open now.
    pub open_sessions: usize,
    /// The most that were open at once.
    pub most_open_sessions: usize,
    /// Connections turned away by the session limit.
    pub turned_away: usize,
    /// Where clients broke the protocol.
    pub violations: Vec<Violation>,
}

impl Ledger {
    /// The messages by token; one without a token stands under the empty string.
    #[must_use]
    pub fn by_token(&self) -> BTreeMap<String, Vec<&ReceivedMessage>> {
        let mut by_token: BTreeMap<String, Vec<&ReceivedMessage>> = BTreeMap::new();
        for message in &self.messages {
            by_token.entry(message.token().unwrap_or_default()).or_default().push(message);
        }
        by_token
    }

    /// The token of each message, in order, for [`conservation::account`].
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.messages.iter().filter_map(ReceivedMessage::token).collect()
    }

    /// "token recipient" for each recipient of each message, for an account over recipients.
    #[must_use]
    pub fn deliveries(&self) -> Vec<String> {
        let pairs = |message: &ReceivedMessage| {
            let token = message.token().unwrap_or_default();
            message.recipients.iter().map(move |recipient| format!("{token} {recipient}")).collect::<Vec<_>>()
        };
        self.messages.iter().flat_map(pairs).collect()
    }

    /// The most messages that came within any span of this length, wherever it begins: in all, and from each client's address.
    #[must_use]
    pub fn busiest(&self, span: Duration) -> (usize, BTreeMap<IpAddr, usize>) {
        let mut all = Vec::new();
        let mut by_client: BTreeMap<IpAddr, Vec<Instant>> = BTreeMap::new();
        let peers: BTreeMap<u64, IpAddr> =
            self.sessions.iter().map(|session| (session.id, session.peer.ip())).collect();
        for message in &self.messages {
            all.push(message.received);
            if let Some(client) = peers.get(&message.session) {
                by_client.entry(*client).or_default().push(message.received);
            }
        }
        let by_client = by_client.into_iter().map(|(client, times)| (client, most_within(span, times)));
        (most_within(span, all), by_client.collect())
    }

    /// Messages kept without a positive reply: the most duplicates this server can be the cause of.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        self.messages.iter().filter(|message| !message.acknowledged).count()
    }

    /// A short account in words, for the report of a failed wait.
    #[must_use]
    pub fn summary(&self) -> String {
        let last = self.sessions.iter().rev().take(3).map(|session| {
            let commands: Vec<&str> =
                session.commands.iter().rev().take(4).rev().map(String::as_str).collect();
            let end = session.end.as_deref().unwrap_or("open");
            format!(
                "\n  session {}: {} messages, {end}, last commands {commands:?}",
                session.id, session.messages
            )
        });
        format!(
            "the upstream has {} messages, {} sessions ({} open, at most {} at once), {} turned away, violations {:?}{}",
            self.messages.len(),
            self.sessions.len(),
            self.open_sessions,
            self.most_open_sessions,
            self.turned_away,
            self.violations,
            last.collect::<String>()
        )
    }

    fn session(&mut self, id: u64) -> Option<&mut SessionRecord> {
        self.sessions.iter_mut().rev().find(|session| session.id == id)
    }
}

/// The most of these that lie within a span of this length; one that lies a whole span behind the first is outside.
fn most_within(span: Duration, mut times: Vec<Instant>) -> usize {
    times.sort_unstable();
    let within = |first: usize| times[first..].partition_point(|time| *time - times[first] < span);
    (0..times.len()).map(within).max().unwrap_or_default()
}

/// The ledger behind its lock, with an announcement after each change.
pub(crate) struct Record {
    ledger: Mutex<Ledger>,
    changes: watch::Sender<u64>,
}

impl Record {
    pub(crate) fn new() -> Self {
        Self { ledger: Mutex::default(), changes: watch::Sender::new(0) }
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&lock(&self.ledger))
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut Ledger) -> T) -> T {
        let outcome = change(&mut lock(&self.ledger));
        self.changes.send_modify(|version| *version += 1);
        outcome
    }

    pub(crate) fn change_session(&self, id: u64, change: impl FnOnce(&mut SessionRecord)) {
        self.change(|ledger| ledger.session(id).map(change));
    }

    pub(crate) fn violation(&self, session: u64, what: impl Into<String>) {
        let what = what.into();
        self.change(|ledger| ledger.violations.push(Violation { session, what }));
    }

    /// Opens a session unless `limit` are open already.
    pub(crate) fn open(&self, peer: SocketAddr, limit: Option<usize>) -> Option<u64> {
        self.change(|ledger| {
            if limit.is_some_and(|limit| ledger.open_sessions >= limit) {
                ledger.turned_away += 1;
                return None;
            }
            let id = ledger.sessions.len() as u64;
            ledger.sessions.push(SessionRecord::new(id, peer));
            ledger.open_sessions += 1;
            ledger.most_open_sessions = ledger.most_open_sessions.max(ledger.open_sessions);
            Some(id)
        })
    }

    pub(crate) fn close(&self, id: u64, end: &str) {
        self.change(|ledger| {
            ledger.open_sessions -= 1;
            if let Some(session) = ledger.session(id) {
                session.closed = Some(Instant::now());
                session.end = Some(end.to_owned());
            }
        });
    }

    pub(crate) async fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        mut predicate: impl FnMut(&Ledger) -> bool,
    ) -> Result<(), TimedOut> {
        let check = || self.read(&mut predicate).then_some(());
        watched(self.changes.subscribe(), what, limit, check, || self.read(Ledger::summary)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_span_is_found_wherever_it_begins() {
        let start = Instant::now();
        let times = |milliseconds: &[u64]| {
            milliseconds.iter().map(|time| start + Duration::from_millis(*time)).collect()
        };
        let second = Duration::from_secs(1);
        assert_eq!(most_within(second, Vec::new()), 0);
        assert_eq!(most_within(second, times(&[0, 1000, 2000])), 1);
        assert_eq!(most_within(second, times(&[1499, 0, 600, 700, 1400, 1599])), 5);
        assert_eq!(most_within(second, times(&[0, 600, 700, 1400, 1600])), 3);
    }
}
