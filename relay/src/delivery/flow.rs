//! Jobs over a session that stands: begun as early as the protocol allows, reported in order.

use std::collections::VecDeque;

use smtp_protocol::{ClientEvent, TransactionRecipient, TransactionReplies, Undecided};
use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::content::Content;
use super::note::{self, Note};
use super::outcome::{Fate, Outcome, disbelief, judge};
use super::prepare::{Prepared, prepare};
use super::session::Session;
use super::{Contact, Job, ReplyCounts, Report};
use crate::spool::SpoolError;

/// A job whose transaction runs.
struct Begun {
    job: Job,
    content: Content,
    /// Which recipients' senders want to hear of success.
    wants_success: Vec<bool>,
    since: Instant,
    /// Until its content is sent.
    note: Option<Note>,
    /// Why its content was not sent to its end.
    unsent: Option<SpoolError>,
}

/// The jobs of one session.
pub(super) struct Flow<'a> {
    session: &'a mut Session,
    connection: Connection,
    /// Oldest first.
    begun: VecDeque<Begun>,
    /// Transactions that may still be begun.
    left: u32,
    /// Whether the upstream has taken a message for what it was, so that it believed the session's credentials then.
    believed: bool,
    oldest: Instant,
    idle_until: Instant,
    /// Why the session failed.
    fault: Option<String>,
}

/// What a session does next.
enum Next {
    Begin(Job),
    Hear(ClientEvent),
    Retire,
}

impl<'a> Flow<'a> {
    pub(super) fn new(session: &'a mut Session, connection: Connection) -> Self {
        let now = Instant::now();
        Self {
            left: session.upstream.connections.messages_per_connection,
            oldest: now + session.maximum_age(),
            idle_until: now + session.idle_timeout(),
            session,
            connection,
            believed: false,
            begun: VecDeque::new(),
            fault: None,
        }
    }

    /// Takes jobs until the session is to be retired, and gives back the connection if QUIT can still be said on it.
    pub(super) async fn run(mut self) -> Option<Connection> {
        let retired = loop {
            match self.next().await {
                Next::Begin(job) => self.begin(job).await,
                Next::Hear(ClientEvent::Closed) => break false,
                Next::Hear(event) => self.hear(event).await,
                Next::Retire => break true,
            }
        };
        if !retired && let Some(fault) = self.fault {
            let (upstream, session) = (&self.session.upstream.name, self.session.id.0);
            tracing::debug!(upstream, session, fault, "session lost");
        }
        retired.then_some(self.connection)
    }

    async fn next(&mut self) -> Next {
        let idle = self.begun.is_empty();
        let ending = self.left == 0 || self.session.is_stopping() || Instant::now() >= self.oldest;
        let may_begin = !ending && self.connection.may_start();
        if ending && idle && self.connection.may_start() {
            return Next::Retire;
        }
        tokio::select! {
            // A job that is there already goes before any reason to retire, and with the content before it.
            biased;
            job = self.session.jobs.recv(), if may_begin => {
                match job {
                    Some(job) => Next::Begin(job),
                    None if idle => Next::Retire,
                    None => Next::Hear(self.connection.event().await),
                }
            }
            event = self.connection.event() => Next::Hear(event),
            () = sleep_until(self.idle_until.min(self.oldest)), if idle && self.connection.may_start() => Next::Retire,
        }
    }

    fn contact(&self, since: Instant) -> Contact {
        Contact { address: self.connection.peer(), took: since.elapsed(), replies: ReplyCounts::default() }
    }

    async fn begin(&mut self, job: Job) {
        self.left -= 1;
        let since = Instant::now();
        match prepare(&self.session.messages, &job, self.connection.extensions()).await {
            Ok(Prepared::Ready(transaction, content)) => {
                let wants_success = transaction.recipients.iter().map(wants_success).collect();
                let note = Some(self.session.note(&job).await);
                self.connection.start(transaction);
                self.begun.push_back(Begun { job, content, wants_success, since, note, unsent: None });
            }
            Ok(Prepared::Unsupported(unmet)) => {
                let fates = job.recipients.iter().map(|_| Fate::Unsupported(unmet)).collect();
                self.session.report(Report::Finished { job, fates, contact: self.contact(since) }).await;
            }
            Err(error) if job.in_transit => {
                let fates = job.recipients.iter().map(|_| Fate::Deferred(error.to_string().into())).collect();
                self.session.report(Report::Finished { job, fates, contact: self.contact(since) }).await;
            }
            Err(error) => self.session.report(Report::Unreadable { job, error }).await,
        }
    }

    async fn hear(&mut self, event: ClientEvent) {
        match event {
            ClientEvent::SendContent => self.send_content().await,
            ClientEvent::Done(replies) => {
                if let Some(ended) = self.begun.pop_front() {
                    self.done(ended, replies).await;
                }
            }
            ClientEvent::Undecided(state) => {
                if let Some(ended) = self.begun.pop_front() {
                    self.undecided(ended, state).await;
                }
            }
            ClientEvent::Ready => self.idle_until = Instant::now() + self.session.idle_timeout(),
            ClientEvent::Failed(failure) => self.fault = Some(failure.to_string()),
            ClientEvent::StartTls | ClientEvent::Closed => {}
        }
    }

    /// The newest transaction is the one whose content is awaited.
    async fn send_content(&mut self) {
        let Some(newest) = self.begun.back_mut() else { return };
        let Some(note) = newest.note.take() else { return };
        let sent = match note.made().await {
            Ok(()) => self.connection.send_content(&mut newest.content).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            self.connection.give_up("the content could not be sent to its end");
            newest.unsent = Some(error);
        }
    }

    async fn done(&mut self, ended: Begun, replies: TransactionReplies) {
        let rules = &self.session.upstream.replies;
        if let Some(reply) = disbelief(&replies, rules) {
            // What comes after would fare no better here. On another session it may, with the credentials of then.
            self.left = 0;
            if self.believed {
                let fault =
                    Some(format!("the upstream believes the session's credentials no longer: {reply}"));
                return self.give_back(ended.job, fault).await;
            }
        } else {
            self.believed = true;
        }
        let Begun { job, wants_success, since, .. } = ended;
        match judge(&replies, rules) {
            Outcome::Decided(mut fates) => {
                if !replies.notifies {
                    fates.iter_mut().zip(wants_success).for_each(|(fate, wanted)| relayed(fate, wanted));
                }
                let contact =
                    Contact { replies: ReplyCounts::of(&replies.recipients), ..self.contact(since) };
                self.session.report(Report::Finished { job, fates, contact }).await;
            }
            Outcome::SessionClosed(reply) => {
                self.give_back(job, Some(format!("the upstream closed the session: {reply}"))).await;
            }
        }
    }

    async fn undecided(&mut self, ended: Begun, state: Undecided) {
        let Begun { job, since, unsent, .. } = ended;
        if let Some(error) = unsent {
            note::withdraw(&self.session.messages.spool, &job).await;
            return self.session.report(Report::Unreadable { job, error }).await;
        }
        let fault = self.fault.clone().unwrap_or_else(|| "the upstream closed the session".to_owned());
        match state {
            Undecided::NotBegun => self.give_back(job, None).await,
            Undecided::Broken => self.give_back(job, Some(fault)).await,
            Undecided::Ambiguous => {
                let reason =
                    format!("the session broke behind the content, which may have been delivered: {fault}");
                let fates = job.recipients.iter().map(|_| Fate::Ambiguous(reason.clone())).collect();
                self.session.report(Report::Finished { job, fates, contact: self.contact(since) }).await;
            }
        }
    }

    /// Nothing was delivered.
    async fn give_back(&mut self, job: Job, fault: Option<String>) {
        note::withdraw(&self.session.messages.spool, &job).await;
        self.session.report(Report::Returned { job, fault }).await;
    }
}

fn wants_success(recipient: &TransactionRecipient) -> bool {
    recipient.notify.is_some_and(|notify| notify.success)
}

fn relayed(fate: &mut Fate, wants_success: bool) {
    if let (Fate::Delivered(reply), true) = (&fate, wants_success) {
        *fate = Fate::Relayed(reply.clone());
    }
}
