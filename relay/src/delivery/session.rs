//! The life of one upstream session: open, take jobs one after the other, be retired calmly.
//!
//! It ends after the upstream's configured number of messages, age or idle time, when its jobs' channel is closed, when the
//! upstream closes it, and after anything in the protocol that was not expected. A job it was given and did not start is
//! returned, never dropped.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use smtp_protocol::{
    Body, ClientConfig, ClientTls, Extensions, ForwardPath, ReversePath, Transaction, TransactionRecipient,
    Unmet,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::connect::{self, OpenError};
use super::connection::{Connection, Transacted};
use super::non_ascii::NonAscii;
use super::outcome::{Fate, Outcome, judge};
use super::ports::PortMemory;
use super::{Contact, Job, Report, SessionId};
use crate::config::{Destination, UpstreamPolicy};
use crate::sandbox;
use crate::spool::{Spool, SpoolError};

/// What a session is made of.
#[derive(Debug)]
pub struct Session {
    /// Its name in reports.
    pub id: SessionId,
    /// The upstream as configured when the session was decided on.
    pub upstream: Arc<UpstreamPolicy>,
    /// Which of its ports works.
    pub ports: Arc<PortMemory>,
    /// Where messages are.
    pub spool: Spool,
    /// The relay's data folder, below which a sandbox keeps what it captures.
    pub data: PathBuf,
    /// Its jobs, one at a time.
    pub jobs: mpsc::Receiver<Job>,
    /// Where it reports.
    pub reports: mpsc::Sender<(SessionId, Report)>,
}

/// Runs a session until it is over. The last report is `NotOpened` or `Closed`.
pub async fn run(mut session: Session) {
    match session.open().await {
        Err(error) => session.report(Report::NotOpened(error)).await,
        Ok(connection) => {
            session.report(Report::Opened).await;
            let retired = session.work(connection).await;
            session.return_unstarted().await;
            if let Some(connection) = retired {
                connection.quit().await;
            }
            // Only now does the upstream count one session less.
            session.report(Report::Closed).await;
        }
    }
}

impl Session {
    async fn open(&self) -> Result<Connection, OpenError> {
        match &self.upstream.destination {
            Destination::Smarthost(smarthost) => {
                connect::open(smarthost, &self.upstream.replies, &self.upstream.ehlo_name, &self.ports).await
            }
            Destination::Sandbox { keep_messages } => {
                let stream = sandbox::connect(&self.data, &self.upstream.name, *keep_messages, self.id.0);
                let config = ClientConfig {
                    ehlo_name: self.upstream.ehlo_name.clone(),
                    tls: ClientTls::None,
                    credentials: None,
                    nonce: String::new(),
                };
                let established = Connection::establish(Box::new(stream), config, None).await;
                established.map_err(|failure| OpenError::Declined { reason: failure.to_string(), hold: None })
            }
        }
    }

    /// Takes jobs until the session is to be retired, and gives back the connection if QUIT can still be said on it.
    async fn work(&mut self, mut connection: Connection) -> Option<Connection> {
        let limits = &self.upstream.connections;
        let idle = Duration::from_secs(u64::from(limits.idle_timeout_seconds));
        let oldest = Instant::now() + Duration::from_secs(u64::from(limits.maximum_age_seconds));
        for _ in 0..limits.messages_per_connection {
            let job = tokio::select! {
                // A job that is there already goes before any reason to retire.
                biased;
                job = self.jobs.recv() => job,
                failure = connection.unsolicited() => {
                    tracing::debug!(upstream = self.upstream.name, session = self.id.0, %failure, "session ended by the upstream");
                    return None;
                }
                () = sleep(idle) => return Some(connection),
                () = sleep_until(oldest) => return Some(connection),
            };
            let Some(job) = job else { return Some(connection) };
            let (report, reusable) = self.deliver(&mut connection, job).await;
            if !reusable {
                self.report(report).await;
                return None;
            }
            let retire = Instant::now() >= oldest;
            self.report(report).await;
            if retire {
                break;
            }
        }
        Some(connection)
    }

    async fn deliver(&self, connection: &mut Connection, job: Job) -> (Report, bool) {
        let (began, address) = (Instant::now(), connection.peer());
        let contact = || Contact { address, took: began.elapsed() };
        let (mut transaction, content) = match self.read(&job).await {
            Ok(read) => read,
            Err(error) => return (Report::Unreadable { job, error }, true),
        };
        match self.unmet(&job, &mut transaction, connection.extensions()).await {
            Ok(None) => {}
            Ok(Some(unmet)) => {
                let fates = job.recipients.iter().map(|_| Fate::Unsupported(unmet)).collect();
                return (Report::Finished { job, fates, contact: contact() }, true);
            }
            Err(error) => return (Report::Unreadable { job, error }, true),
        }
        let wants_success: Vec<bool> = transaction.recipients.iter().map(wants_success).collect();
        match connection.transact(transaction, content).await {
            Transacted::Replies(replies) => match judge(&replies, &self.upstream.replies) {
                Outcome::Decided(mut fates) => {
                    if !replies.notifies {
                        fates.iter_mut().zip(wants_success).for_each(|(fate, wanted)| relayed(fate, wanted));
                    }
                    (Report::Finished { job, fates, contact: contact() }, replies.reusable)
                }
                Outcome::SessionClosed(reply) => (
                    Report::Returned {
                        job,
                        fault: Some(format!("the upstream closed the session: {reply}")),
                    },
                    false,
                ),
            },
            Transacted::Failed(failure) if failure.is_ambiguous() => {
                let fates = job.recipients.iter().map(|_| Fate::Deferred(failure.to_string())).collect();
                tracing::warn!(
                    id = %job.id, upstream = self.upstream.name, %failure,
                    "the outcome is unknown; the message is sent again and may arrive twice"
                );
                (Report::Finished { job, fates, contact: contact() }, false)
            }
            Transacted::Failed(failure) => {
                (Report::Returned { job, fault: Some(failure.to_string()) }, false)
            }
            Transacted::Unreadable(error) => (Report::Unreadable { job, error }, false),
        }
    }

    async fn read(&self, job: &Job) -> Result<(Transaction, crate::spool::ContentReader), SpoolError> {
        let envelope = self.spool.load(job.id).await?.envelope;
        let content = self.spool.content(job.id)?;
        let damaged = |reason: String| SpoolError::Damaged { id: job.id, reason };
        let recipients = job
            .recipients
            .iter()
            .map(|&index| {
                let recipient =
                    envelope.recipients.get(index).ok_or_else(|| damaged("a recipient is missing".into()))?;
                let mailbox = recipient
                    .address
                    .parse()
                    .map_err(|error| damaged(format!("a recipient is invalid: {error}")))?;
                Ok(TransactionRecipient {
                    path: ForwardPath::Mailbox(mailbox),
                    notify: recipient.notify,
                    original: recipient.original.as_deref().and_then(|value| value.parse().ok()),
                })
            })
            .collect::<Result<Vec<_>, SpoolError>>()?;
        let reverse_path = if envelope.reverse_path.is_empty() {
            ReversePath::Null
        } else {
            let mailbox = envelope.reverse_path.parse();
            ReversePath::Mailbox(
                mailbox.map_err(|error| damaged(format!("the reverse-path is invalid: {error}")))?,
            )
        };
        let body = if envelope.eight_bit { Body::EightBitMime } else { Body::SevenBit };
        let transaction = Transaction {
            reverse_path,
            recipients,
            size: envelope.size,
            body,
            smtputf8: envelope.smtp_utf8,
            ret: envelope.ret,
            envelope_id: envelope.envelope_id.as_deref().and_then(|value| value.parse().ok()),
        };
        Ok((transaction, content))
    }

    /// What the message needs and the upstream does not offer. Where that depends on the content it is looked at, and the
    /// transaction then declares what is so.
    async fn unmet(
        &self,
        job: &Job,
        transaction: &mut Transaction,
        offered: &Extensions,
    ) -> Result<Option<Unmet>, SpoolError> {
        if transaction.unmet(offered).is_none() {
            return Ok(None);
        }
        let mut content = self.spool.content(job.id)?;
        let mut seen = NonAscii::default();
        while let Some(chunk) = content.next().await? {
            seen.look(&chunk);
        }
        let addresses_are_ascii = transaction.reverse_path.is_ascii()
            && transaction.recipients.iter().all(|recipient| recipient.path.is_ascii());
        transaction.body = if seen.anywhere { Body::EightBitMime } else { Body::SevenBit };
        transaction.smtputf8 &= seen.in_header_section || !addresses_are_ascii;
        Ok(transaction.unmet(offered))
    }

    async fn return_unstarted(&mut self) {
        self.jobs.close();
        while let Some(job) = self.jobs.recv().await {
            self.report(Report::Returned { job, fault: None }).await;
        }
    }

    async fn report(&self, report: Report) {
        // Dispatch outlives its sessions except when the process is being torn down.
        let _ = self.reports.send((self.id, report)).await;
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
