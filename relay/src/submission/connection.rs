//! One client's connection: octets between the socket and the session, TLS, and how long is waited for what.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use smtp_protocol::{Reply, ServerSession};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::context::Context;
use super::session::{Next, Session};
use super::stream::Stream;
use crate::config::{Listener, ListenerTls, Policy};
use crate::limits::Exceeded;
use crate::shutdown::{Phase, Shutdown};

/// A handshake that takes longer belongs to no mail client.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// A connection that is one too many gets this long to hear so.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a connection ended other than by QUIT.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the client closed the connection")]
    ByClient,
    #[error("the client did not read its replies in time")]
    NotReading,
    #[error("the TLS handshake took too long")]
    Handshake,
    #[error("the client certificate is missing or not valid: {0}")]
    ClientCertificate(rustls::Error),
}

/// Serves one connection until either side ends it.
///
/// The future is small, as there may be ten thousand that wait for a client's next word: what a session is lies behind one
/// pointer, and what it does is boxed while it is done.
pub(super) fn serve(
    stream: TcpStream,
    client: IpAddr,
    listener: Listener,
    context: Context,
) -> impl Future<Output = ()> {
    // Replies are whole when they are written; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let shutdown = context.shutdown.clone();
    let mut connection = Box::new(Connection {
        session: Session::new(client, listener, context),
        shutdown,
        deadline: Instant::now(),
    });
    async move {
        let ended = connection.serve(stream).await;
        let name = &connection.session.listener().name;
        match ended {
            Ok(()) => tracing::debug!(%client, listener = name, "session ended"),
            Err(ended) => tracing::debug!(%client, listener = name, reason = %ended, "connection ended"),
        }
    }
}

/// Tells a connection that is one too many to come back later.
pub(super) async fn refuse(
    mut stream: TcpStream,
    client: IpAddr,
    listener: Listener,
    policy: Arc<Policy>,
    exceeded: Exceeded,
) {
    let text = match exceeded {
        Exceeded::Total => {
            format!("{} has as many connections as it may have, try again later", policy.hostname)
        }
        Exceeded::Client => {
            format!("{client} has as many connections as one client may have, try again later")
        }
    };
    tracing::warn!(%client, listener = listener.name, pool = policy.pool, ?exceeded, "connection refused");
    if listener.tls == ListenerTls::Implicit {
        return;
    }
    let output =
        ServerSession::refuse(listener.session.clone(), Reply::new(421, (4, 7, 0), text)).take_output();
    let _ = timeout(REFUSAL_TIMEOUT, async {
        stream.write_all(&output).await?;
        stream.shutdown().await
    })
    .await;
}

/// Octets of a connection's state, for the test that keeps it small.
#[cfg(test)]
pub(super) const STATE_OCTETS: usize = size_of::<Connection>();

struct Connection {
    session: Session,
    shutdown: Shutdown,
    /// When the command or message that is under way has to be complete.
    deadline: Instant,
}

impl Connection {
    async fn serve(&mut self, stream: TcpStream) -> Result<(), Ended> {
        let mut stream = Stream::Plain(stream);
        if self.session.listener().tls == ListenerTls::Implicit {
            stream = self.handshake(stream).await?;
        }
        let mut told = false;
        loop {
            match Box::pin(self.turn(&mut stream)).await? {
                Next::Close => return Ok(()),
                Next::StartTls => {
                    stream = self.handshake(stream).await?;
                    self.session.protocol.tls_established();
                    continue;
                }
                Next::Read => {}
            }
            let deadline = self.next_deadline();
            let protocol = &mut self.session.protocol;
            tokio::select! {
                read = timeout_at(deadline, stream.receive()) => match read {
                    Err(_) => protocol.timed_out(),
                    Ok(read) => match read? {
                        octets if octets.is_empty() => return Err(Ended::ByClient),
                        octets => protocol.receive_buffer(octets),
                    },
                },
                () = self.shutdown.reached(Phase::Draining), if !told => {
                    told = true;
                    protocol.shut_down();
                }
            }
        }
    }

    /// Does what the client has asked for so far, and says how that went.
    async fn turn(&mut self, stream: &mut Stream) -> Result<Next, Ended> {
        let next = self.session.answer().await;
        self.write(stream).await?;
        if matches!(next, Next::Close) {
            let _ = timeout(REFUSAL_TIMEOUT, stream.shutdown()).await;
        }
        Ok(next)
    }

    async fn write(&mut self, stream: &mut Stream) -> Result<(), Ended> {
        let output = self.session.protocol.take_output();
        if output.is_empty() {
            return Ok(());
        }
        let write = async {
            stream.write_all(&output).await?;
            stream.flush().await
        };
        match timeout(self.session.protocol.read_timeout(), write).await {
            Err(_) => Err(Ended::NotReading),
            Ok(result) => Ok(result?),
        }
    }

    /// When to give up waiting for the client: silence is bounded, and so is the time for a whole command or message, or else
    /// an octet a minute would hold a connection for ever.
    fn next_deadline(&mut self) -> Instant {
        let protocol = &self.session.protocol;
        let silence = Instant::now() + protocol.read_timeout();
        if let Some(end) = self.session.content_deadline() {
            self.deadline = end;
        } else if !protocol.is_receiving() && protocol.buffered() == 0 {
            self.deadline = silence;
        }
        silence.min(self.deadline)
    }

    async fn handshake(&mut self, stream: Stream) -> Result<Stream, Ended> {
        let Some(certificate) = self.session.listener().certificate.clone() else {
            return Err(io::Error::other("the listener has no certificate").into());
        };
        match timeout(HANDSHAKE_TIMEOUT, Box::pin(stream.handshake(certificate.0))).await {
            Err(_) => Err(Ended::Handshake),
            Ok(Err(error)) => Err(self.handshake_failed(error)),
            Ok(Ok(stream)) => {
                self.session.secured(stream.tls_facts(), stream.client_certificate());
                Ok(stream)
            }
        }
    }

    /// TLS tells the client no more than a word, so the log has to say whose certificate was refused, and why.
    fn handshake_failed(&self, error: io::Error) -> Ended {
        let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
        match fault {
            Some(fault @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) => {
                self.session.certificate_refused(&fault);
                Ended::ClientCertificate(fault)
            }
            _ => Ended::Io(error),
        }
    }
}
