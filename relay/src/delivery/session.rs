//! The life of one upstream session: open, take jobs, be retired calmly.
//!
//! Where the upstream offers PIPELINING the next job is begun while the one before awaits its reply. A session ends after the
//! upstream's configured number of messages, age or idle time, when its jobs' channel is closed, when the upstream closes it,
//! and after anything in the protocol that was not expected. A job it was given and did not begin is returned, never dropped.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use smtp_protocol::{ClientConfig, ClientTls};
use tokio::sync::{mpsc, watch};

use super::connect::{self, OpenError};
use super::connection::Connection;
use super::flow::Flow;
use super::note::Note;
use super::ports::PortMemory;
use super::{Job, Report, SessionId};
use crate::config::{AmbiguousDelivery, Destination, Policy, UpstreamPolicy};
use crate::messages::Messages;
use crate::sandbox;
use crate::shutdown::{Phase, Shutdown};

/// What a session is made of.
#[derive(Debug)]
pub struct Session {
    /// Its name in reports.
    pub id: SessionId,
    /// The upstream as configured when the session was decided on.
    pub upstream: Arc<UpstreamPolicy>,
    /// The relay's address that it connects from; `None`: the system chooses.
    pub source: Option<IpAddr>,
    /// Which of its ports works.
    pub ports: Arc<PortMemory>,
    /// Where messages are.
    pub messages: Messages,
    /// The relay's data folder, below which a sandbox keeps what it captures.
    pub data: PathBuf,
    /// The policy in force.
    pub policy: watch::Receiver<Arc<Policy>>,
    /// When the relay stops it begins no further job.
    pub shutdown: Shutdown,
    /// Its jobs: as many at once as [`Report::Opened`] has room for.
    pub jobs: mpsc::Receiver<Job>,
    /// Where it reports.
    pub reports: mpsc::Sender<(SessionId, Report)>,
}

/// Runs a session until it is over. The last report is `NotOpened` or `Closed`.
pub async fn run(mut session: Session) {
    match session.open().await {
        Err(error) => session.report(Report::NotOpened(error)).await,
        Ok(connection) => {
            // With the next one at hand, it goes in one piece with the content before.
            let room = if connection.room() > 1 { connection.room() + 1 } else { 1 };
            session.report(Report::Opened { room }).await;
            let retired = Flow::new(&mut session, connection).run().await;
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
                connect::open(smarthost, &self.upstream, self.source, &self.ports).await
            }
            Destination::Sandbox { keep_messages } => {
                let stream = sandbox::connect(&self.data, &self.upstream.name, *keep_messages, self.id.0);
                let config = ClientConfig {
                    ehlo_name: self.upstream.ehlo_name.clone(),
                    tls: ClientTls::None,
                    credentials: None,
                    nonce: String::new(),
                };
                let established =
                    Connection::establish(Box::new(stream), config, None, self.upstream.patience()).await;
                established.map_err(|failure| OpenError::Declined { reason: failure.to_string(), hold: None })
            }
        }
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.upstream.connections.idle_timeout_seconds))
    }

    pub(super) fn maximum_age(&self) -> Duration {
        Duration::from_secs(u64::from(self.upstream.connections.maximum_age_seconds))
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.shutdown.phase() == Phase::Stopping
    }

    /// Asks for the note that the content of a job is about to be sent, so that a start after a crash knows whose outcome is unknown.
    pub(super) async fn note(&self, job: &Job) -> Note {
        let hold = self.policy.borrow().ambiguous_delivery == AmbiguousDelivery::Hold;
        Note::ask(&self.messages.spool, job, hold).await
    }

    async fn return_unstarted(&mut self) {
        self.jobs.close();
        while let Some(job) = self.jobs.recv().await {
            self.report(Report::Returned { job, fault: None }).await;
        }
    }

    pub(super) async fn report(&self, report: Report) {
        // Dispatch outlives its sessions except when the process is being torn down.
        let _ = self.reports.send((self.id, report)).await;
    }
}
