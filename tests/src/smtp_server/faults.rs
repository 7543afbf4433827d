//! Faults by script: at which stage, on which occurrence, what goes wrong. Deciding only; `session` carries it out.
//!
//! Faults live here, in the peer, so that product code needs no hook for tests.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;

use crate::lock::lock;

/// A point in the dialogue at which something can go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// In place of the greeting.
    Greeting,
    /// In place of the answer to EHLO or HELO.
    Ehlo,
    /// In place of the answer to STARTTLS.
    StartTls,
    /// Before the TLS handshake: after the 220 to STARTTLS, or at once with implicit TLS.
    Handshake,
    /// In place of the answer to AUTH.
    Authentication,
    /// In place of the answer to MAIL.
    Mail,
    /// In place of the answer to any RCPT.
    Recipient,
    /// In place of the answer to a RCPT for this address, compared without regard to case.
    RecipientIs(String),
    /// In place of the answer to DATA.
    Data,
    /// After 354 or behind BDAT, once the first octets of the content have come.
    ContentStart,
    /// After the final dot or the last chunk, in place of the answer to the content.
    Content,
    /// In place of the answer to RSET.
    Reset,
    /// In place of the answer to NOOP.
    Noop,
    /// In place of the answer to QUIT.
    Quit,
}

/// Which of the occurrences of its stage a fault hits. Occurrences are counted per fault, over all sessions, from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// Each one.
    #[default]
    Always,
    /// Only this one.
    Nth(usize),
    /// This many, then none.
    First(usize),
    /// Each one after this many.
    After(usize),
    /// Each one in a session that has carried at least this many messages.
    SessionCarried(usize),
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this reply, CRLF added, and leave the command without effect. The text may hold several lines.
    /// After the content even a positive reply leaves the message unrecorded.
    Reply(String),
    /// Send this reply and close the connection, as a server does after 421.
    ReplyThenClose(String),
    /// Send exactly these octets in place of a reply: malformed ones, or half of one.
    Raw(Vec<u8>),
    /// The same, and close the connection.
    RawThenClose(Vec<u8>),
    /// Wait, then go on as if nothing had been.
    Delay(Duration),
    /// Wait until the fault is withdrawn, and any other that holds, then go on as if nothing had been.
    Hold,
    /// Close the connection without a reply.
    Close,
    /// Reset the connection (RST) without a reply.
    Abort,
    /// Never reply; read and forget what comes until the client goes.
    Stall,
    /// At [`Stage::Content`]: keep the message and close without the reply, which makes a duplicate unavoidable. Elsewhere as `Close`.
    KeepThenClose,
    /// At [`Stage::Content`]: keep the message and never reply. Elsewhere as `Stall`.
    KeepThenStall,
    /// At [`Stage::Content`]: keep the message and send this reply all the same. Elsewhere as `Reply`.
    KeepThenReply(String),
}

/// One line of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub stage: Stage,
    /// On which occurrence.
    pub when: When,
    /// What.
    pub action: Action,
}

impl Fault {
    /// A fault that hits each occurrence of `stage`.
    #[must_use]
    pub fn always(stage: Stage, action: Action) -> Self {
        Self { stage, when: When::Always, action }
    }

    /// A fault that hits as `when` says.
    #[must_use]
    pub fn on(stage: Stage, when: When, action: Action) -> Self {
        Self { stage, when, action }
    }

    /// A reply at `stage`, each time: the commonest fault.
    #[must_use]
    pub fn reply(stage: Stage, reply: &str) -> Self {
        Self::always(stage, Action::Reply(reply.to_owned()))
    }
}

/// Names a fault in a script, to withdraw it or to ask how often it fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FaultId(usize);

/// Where a session stands, as a script sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Occurrence<'a> {
    pub(crate) stage: &'a Stage,
    /// The recipient, at [`Stage::Recipient`].
    pub(crate) recipient: Option<&'a str>,
    /// Messages the session has carried.
    pub(crate) carried: usize,
}

impl<'a> Occurrence<'a> {
    fn matches(&self, stage: &Stage) -> bool {
        match (stage, self.recipient) {
            (Stage::RecipientIs(address), Some(recipient)) => address.eq_ignore_ascii_case(recipient),
            (stage, _) => stage == self.stage,
        }
    }

    /// A stage without further facts.
    pub(crate) fn new(stage: &'a Stage, carried: usize) -> Self {
        Self { stage, recipient: None, carried }
    }
}

/// The faults in force. The first that fits an occurrence decides.
#[derive(Default)]
pub(crate) struct Script {
    entries: Mutex<Vec<Entry>>,
    withdrawals: watch::Sender<()>,
}

struct Entry {
    fault: Fault,
    withdrawn: bool,
    seen: usize,
    fired: usize,
}

impl Script {
    pub(crate) fn add(&self, fault: Fault) -> FaultId {
        let mut entries = lock(&self.entries);
        entries.push(Entry { fault, withdrawn: false, seen: 0, fired: 0 });
        FaultId(entries.len() - 1)
    }

    pub(crate) fn withdraw(&self, id: FaultId) {
        if let Some(entry) = lock(&self.entries).get_mut(id.0) {
            entry.withdrawn = true;
        }
        self.withdrawals.send_replace(());
    }

    pub(crate) fn withdraw_all(&self) {
        lock(&self.entries).iter_mut().for_each(|entry| entry.withdrawn = true);
        self.withdrawals.send_replace(());
    }

    /// Waits until no fault holds any more.
    pub(crate) async fn released(&self) {
        let mut withdrawals = self.withdrawals.subscribe();
        let holds = |entry: &Entry| !entry.withdrawn && entry.fault.action == Action::Hold;
        while lock(&self.entries).iter().any(holds) && withdrawals.changed().await.is_ok() {}
    }

    pub(crate) fn fired(&self, id: FaultId) -> usize {
        lock(&self.entries).get(id.0).map_or(0, |entry| entry.fired)
    }

    /// Counts the occurrence for every fault of its stage and returns what the first that hits it asks for.
    pub(crate) fn decide(&self, occurrence: Occurrence<'_>) -> Option<Action> {
        let mut decision = None;
        for entry in lock(&self.entries).iter_mut() {
            if entry.withdrawn || !occurrence.matches(&entry.fault.stage) {
                continue;
            }
            entry.seen += 1;
            if decision.is_none() && hits(entry.fault.when, entry.seen, occurrence.carried) {
                entry.fired += 1;
                decision = Some(entry.fault.action.clone());
            }
        }
        decision
    }
}

fn hits(when: When, seen: usize, carried: usize) -> bool {
    match when {
        When::Always => true,
        When::Nth(n) => seen == n,
        When::First(n) => seen <= n,
        When::After(n) => seen > n,
        When::SessionCarried(n) => carried >= n,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits_of(when: When) -> Vec<bool> {
        let script = Script::default();
        script.add(Fault::on(Stage::Mail, when, Action::Close));
        (0..4).map(|carried| script.decide(Occurrence::new(&Stage::Mail, carried)).is_some()).collect()
    }

    #[test]
    fn a_fault_hits_the_occurrences_it_names() {
        assert_eq!(hits_of(When::Always), [true, true, true, true]);
        assert_eq!(hits_of(When::Nth(2)), [false, true, false, false]);
        assert_eq!(hits_of(When::First(2)), [true, true, false, false]);
        assert_eq!(hits_of(When::After(3)), [false, false, false, true]);
        assert_eq!(hits_of(When::SessionCarried(2)), [false, false, true, true]);
    }

    #[test]
    fn a_recipient_fault_hits_only_its_address() {
        let script = Script::default();
        let id = script.add(Fault::reply(Stage::RecipientIs("bad@example.com".to_owned()), "550 no"));
        let at = |recipient| Occurrence { stage: &Stage::Recipient, recipient: Some(recipient), carried: 0 };
        assert_eq!(script.decide(at("good@example.com")), None);
        assert_eq!(script.decide(at("BAD@example.com")), Some(Action::Reply("550 no".to_owned())));
        assert_eq!(script.fired(id), 1);
    }

    #[test]
    fn a_withdrawn_fault_hits_nothing() {
        let script = Script::default();
        let id = script.add(Fault::always(Stage::Data, Action::Close));
        script.withdraw(id);
        assert_eq!(script.decide(Occurrence::new(&Stage::Data, 0)), None);
    }

    #[tokio::test]
    async fn what_is_held_goes_on_when_the_fault_is_withdrawn() {
        let script = Script::default();
        let id = script.add(Fault::always(Stage::Greeting, Action::Hold));
        let mut released = std::pin::pin!(script.released());
        assert!(futures::poll!(released.as_mut()).is_pending());
        script.withdraw(id);
        released.await;
    }
}
