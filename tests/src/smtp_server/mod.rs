//! The fake upstream: a real SMTP server on a loopback port that records what it receives and fails as a script says.
//!
//! It is the peer that judges Postroad, so it shares no protocol code with it. It is not a relay and not a sandbox: it
//! keeps messages in memory and sends nothing on. Started by every suite in which mail leaves a relay.
//!
//! ```text
//! mod        the accept loop; what a test holds
//! settings   how the server presents itself
//! faults     what goes wrong, when
//! session    the dialogue
//! authentication, content, path, wire   its parts without SMTP state
//! ledger     what was seen
//! ```

mod authentication;
mod content;
mod faults;
mod ledger;
mod path;
mod session;
mod settings;
mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub use crate::smtp_server::faults::{Action, Fault, FaultId, Stage, When};
pub use crate::smtp_server::ledger::{Ledger, ReceivedMessage, SessionRecord, Violation};
pub use crate::smtp_server::settings::{Options, Pace, Settings, TlsMode};

use crate::certificates::{CertificateAuthority, CertificateError};
use crate::lock::lock;
use crate::ports::free_port;
use crate::smtp_server::faults::Script;
use crate::smtp_server::ledger::Record;
use crate::smtp_server::session::{Shared, serve};
use crate::waiting::TimedOut;

/// How long an address may be in use that nobody listens on, and the rest between two looks.
const BIND_LIMIT: Duration = Duration::from_secs(2);
/// See [`BIND_LIMIT`].
const BIND_REST: Duration = Duration::from_millis(5);

/// Why the fake upstream could not start.
#[derive(Debug, thiserror::Error)]
pub enum SmtpServerError {
    /// Its port could not be bound.
    #[error("the fake upstream could not listen: {0}")]
    Listen(#[from] io::Error),
    /// Its certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// A running fake upstream.
///
/// *Cancellation*: dropping it closes the port and cuts every session.
pub struct SmtpServer {
    address: SocketAddr,
    ca_pem: String,
    shared: Arc<Shared>,
    running: Option<Running>,
}

struct Running {
    accepting: JoinHandle<()>,
    cuts: mpsc::UnboundedSender<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl SmtpServer {
    /// Starts a server on the runtime of the caller: on a free port of 127.0.0.1 unless the options name an address.
    ///
    /// # Errors
    /// [`SmtpServerError`] when no port can be bound or the certificate cannot be made.
    pub async fn start(options: Options) -> Result<Self, SmtpServerError> {
        let authority = match options.authority {
            Some(authority) => authority,
            None => CertificateAuthority::new("Postroad test upstreams")?,
        };
        let names: Vec<&str> =
            ["localhost", "127.0.0.1"].into_iter().chain(options.names.iter().map(String::as_str)).collect();
        let certificate = match options.certificate {
            Some(certificate) => certificate,
            None => authority.issue(&names)?,
        };
        let shared = Arc::new(Shared {
            settings: Mutex::new(options.settings),
            script: Script::default(),
            record: Record::new(),
            tls: options.tls,
            acceptor: TlsAcceptor::from(certificate.server_config()?),
        });
        for fault in options.faults {
            shared.script.add(fault);
        }
        let address = match options.listen {
            Some(address) => address,
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
        };
        let mut server = Self { address, ca_pem: authority.pem(), shared, running: None };
        server.restart().await?;
        Ok(server)
    }

    /// A server in the clear with default settings.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn plain() -> Result<Self, SmtpServerError> {
        Self::start(Options::default()).await
    }

    /// A server that requires STARTTLS and the authentication of `user`: what a mail service looks like.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn service(user: &str, password: &str) -> Result<Self, SmtpServerError> {
        let settings = Settings { require_tls: true, require_authentication: true, ..Settings::default() };
        let settings = settings.with_user(user, password);
        Self::start(Options { tls: TlsMode::StartTls, settings, ..Options::default() }).await
    }

    /// Where it listens, or listened before it was stopped.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port of [`Self::address`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The certificate of the authority that issued the server's, in PEM form.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Changes how the server presents itself; sessions see it at their next step.
    pub fn change(&self, change: impl FnOnce(&mut Settings)) {
        change(&mut lock(&self.shared.settings));
    }

    /// Gives `user` this password from now on; [`Settings::expired_credentials`] says what becomes of sessions that have
    /// authenticated.
    pub fn set_password(&self, user: &str, password: &str) {
        self.change(|settings| {
            settings.users.insert(user.to_owned(), password.to_owned());
        });
    }

    /// Lets `user` authenticate with this access token, and with no other, from now on; [`Settings::expired_credentials`] says what
    /// becomes of sessions that have authenticated.
    pub fn set_access_token(&self, user: &str, token: &str) {
        self.change(|settings| {
            settings.access_tokens.insert(user.to_owned(), token.to_owned());
        });
    }

    /// Adds a fault to the script. Of several that fit, the one added first decides.
    pub fn inject(&self, fault: Fault) -> FaultId {
        self.shared.script.add(fault)
    }

    /// Takes a fault out of the script.
    pub fn withdraw(&self, fault: FaultId) {
        self.shared.script.withdraw(fault);
    }

    /// Takes all faults out of the script, those of [`Options::faults`] too.
    pub fn withdraw_all(&self) {
        self.shared.script.withdraw_all();
    }

    /// How often a fault has hit.
    #[must_use]
    pub fn fired(&self, fault: FaultId) -> usize {
        self.shared.script.fired(fault)
    }

    /// Looks at the ledger under its lock: without copying, and without waiting.
    pub fn ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        self.shared.record.read(look)
    }

    /// The messages so far.
    #[must_use]
    pub fn messages(&self) -> Vec<ReceivedMessage> {
        self.ledger(|ledger| ledger.messages.clone())
    }

    /// The sessions so far.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionRecord> {
        self.ledger(|ledger| ledger.sessions.clone())
    }

    /// Where clients broke the protocol so far: a test of a well-behaved client ends by asserting that this is empty.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.ledger(|ledger| ledger.violations.clone())
    }

    /// Waits until at least `count` messages were kept, and returns all there are.
    ///
    /// # Errors
    /// [`TimedOut`] after `limit`, with a summary of the ledger.
    pub async fn wait_for(&self, count: usize, limit: Duration) -> Result<Vec<ReceivedMessage>, TimedOut> {
        self.wait_until(&format!("{count} messages"), limit, |ledger| ledger.messages.len() >= count).await?;
        Ok(self.messages())
    }

    /// Waits until the ledger satisfies `predicate`; `what` names it for the error.
    ///
    /// # Errors
    /// [`TimedOut`] after `limit`, with a summary of the ledger.
    pub async fn wait_until(
        &self,
        what: &str,
        limit: Duration,
        predicate: impl FnMut(&Ledger) -> bool,
    ) -> Result<(), TimedOut> {
        self.shared.record.wait_until(what, limit, predicate).await
    }

    /// Cuts every open session without a word, and goes on listening.
    pub fn cut_sessions(&self) {
        if let Some(running) = &self.running {
            // The accept loop lives as long as `running`.
            let _ = running.cuts.send(());
        }
    }

    /// Stops listening and cuts every session, as a crash of the upstream would. Returns when the port is closed.
    pub async fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.accepting.abort();
            // Cancelled is what it is meant to be.
            let _ = (&mut running.accepting).await;
        }
    }

    /// Listens on the same port again after [`Self::stop`], with the ledger, settings and script as they are.
    ///
    /// # Errors
    /// The bind's error.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.stop().await;
        let listener = bind(self.address).await?;
        let (cuts, cut_orders) = mpsc::unbounded_channel();
        let accepting = tokio::spawn(accept(listener, cut_orders, Arc::clone(&self.shared)));
        self.running = Some(Running { accepting, cuts });
        Ok(())
    }
}

/// Binds, and tries again for a moment while the address is in use: between its fork and its exec a process that another test
/// starts holds a copy of every socket, of one that has just been closed too.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let begin = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && begin.elapsed() < BIND_LIMIT => {
                tokio::time::sleep(BIND_REST).await;
            }
            bound => return bound,
        }
    }
}

/// Accepts until it is aborted; its sessions end with it.
async fn accept(listener: TcpListener, mut cuts: mpsc::UnboundedReceiver<()>, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // An error here belongs to one connection that went away before it was accepted.
                if let Ok((stream, peer)) = accepted {
                    sessions.spawn(serve(stream, peer, Arc::clone(&shared)));
                }
            }
            Some(()) = cuts.recv() => sessions.abort_all(),
            Some(_) = sessions.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests;
