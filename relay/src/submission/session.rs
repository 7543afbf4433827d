//! One client's connection: bytes between the socket and the protocol's state machine, and the state machine's events
//! carried out.
//!
//! The protocol is `smtp_protocol::ServerSession`, which does no IO; the decisions are `authorize`'s. This file connects them
//! to the socket and the spool, and says 250 only when the spool has returned (P1).

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use smtp_protocol::{
    Body, EnvelopeId, Event, ForwardPath, Notify, OriginalRecipient, PlainCredentials, Reply, Return,
    ReversePath, ServerSession,
};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::authorize::{self, AuthenticatedUser, Client};
use super::header_section::{HeaderRules, HeaderSection};
use super::received::{self, TlsFacts, Trace};
use super::refusal::{Reason, Refusal};
use super::stream::Stream;
use super::{Accepted, Context};
use crate::client_certificate::ClientCertificate;
use crate::config::{Listener, ListenerTls, Policy};
use crate::credentials;
use crate::limits::Exceeded;
use crate::message::{DeliveryState, Envelope, MessageId, Recipient, Timestamp};
use crate::metrics;
use crate::routing::Origin;
use crate::shutdown::Phase;
use crate::spool::{Draft, Health, SpoolError};

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
pub(super) fn run(
    stream: TcpStream,
    client: IpAddr,
    listener: Listener,
    context: Context,
) -> impl Future<Output = ()> {
    // Replies are whole when they are written; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    let mut connection = Box::new(Connection {
        session: ServerSession::new(listener.session.clone()),
        user: None,
        client,
        listener,
        context,
        transaction: None,
        tls: None,
        certificate: None,
        deadline: Instant::now(),
    });
    async move {
        let ended = connection.serve(stream).await;
        let name = &connection.listener.name;
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

/// Octets of a session's state, for the test that keeps it small.
#[cfg(test)]
pub(super) const STATE_OCTETS: usize = size_of::<Connection>();

struct Connection {
    session: ServerSession,
    user: Option<AuthenticatedUser>,
    client: IpAddr,
    listener: Listener,
    context: Context,
    transaction: Option<Box<Transaction>>,
    tls: Option<TlsFacts>,
    certificate: Option<Arc<ClientCertificate>>,
    /// When the command or message that is under way has to be complete.
    deadline: Instant,
}

/// What has been agreed to since MAIL.
struct Transaction {
    identity: Arc<str>,
    mail: Mail,
    recipients: Vec<Recipient>,
    eight_bit: bool,
    content: Option<Content>,
}

/// What MAIL said.
struct Mail {
    reverse_path: ReversePath,
    body: Body,
    smtp_utf8: bool,
    ret: Option<Return>,
    envelope_id: Option<EnvelopeId>,
}

/// The content on its way into the spool.
struct Content {
    id: MessageId,
    draft: Draft,
    header_section: HeaderSection,
    accepted_at: Timestamp,
    /// The first failure; what follows it is read and dropped, because the reply comes after the final dot.
    failure: Option<SpoolError>,
}

/// What is to be done after the events have been handled and the output written.
enum Next {
    Read,
    StartTls,
    Close,
}

impl Connection {
    async fn serve(&mut self, stream: TcpStream) -> Result<(), Ended> {
        let mut stream = Stream::Plain(stream);
        if self.listener.tls == ListenerTls::Implicit {
            stream = self.handshake(stream).await?;
        }
        let mut shutdown = self.context.shutdown.clone();
        loop {
            match Box::pin(self.turn(&mut stream)).await? {
                Next::Close => return Ok(()),
                Next::StartTls => {
                    stream = self.handshake(stream).await?;
                    self.session.tls_established();
                    self.user = None;
                    continue;
                }
                Next::Read => {}
            }
            let stopping = shutdown.phase() >= Phase::Draining;
            let deadline = self.next_deadline();
            tokio::select! {
                read = timeout_at(deadline, stream.receive()) => match read {
                    Err(_) => self.session.timed_out(),
                    Ok(read) => match read? {
                        octets if octets.is_empty() => return Err(Ended::ByClient),
                        octets => self.session.receive_buffer(octets),
                    },
                },
                () = shutdown.reached(Phase::Draining), if !stopping => self.session.shut_down(),
            }
        }
    }

    /// Does what the client has asked for so far, and says how that went.
    async fn turn(&mut self, stream: &mut Stream) -> Result<Next, Ended> {
        let next = self.handle_events().await;
        self.write(stream).await?;
        if matches!(next, Next::Close) {
            let _ = timeout(REFUSAL_TIMEOUT, stream.shutdown()).await;
        }
        Ok(next)
    }

    /// When to give up waiting for the client: silence is bounded, and so is the time for a whole command or message, or else
    /// an octet a minute would hold a connection for ever.
    fn next_deadline(&mut self) -> Instant {
        let silence = Instant::now() + self.session.read_timeout();
        // Refused content has no transaction any more, and still has to end.
        let receiving = self.session.is_receiving()
            || self.transaction.as_ref().is_some_and(|transaction| transaction.content.is_some());
        if !receiving && self.session.buffered() == 0 {
            self.deadline = silence;
        }
        silence.min(self.deadline)
    }

    async fn handshake(&mut self, stream: Stream) -> Result<Stream, Ended> {
        let Some(certificate) = self.listener.certificate.clone() else {
            return Err(io::Error::other("the listener has no certificate").into());
        };
        match timeout(HANDSHAKE_TIMEOUT, Box::pin(stream.handshake(certificate.0))).await {
            Err(_) => Err(Ended::Handshake),
            Ok(Err(error)) => Err(self.handshake_failed(error)),
            Ok(Ok(stream)) => {
                self.tls = stream.tls_facts();
                self.certificate = stream.client_certificate().map(Arc::new);
                Ok(stream)
            }
        }
    }

    /// TLS tells the client no more than a word, so the log has to say whose certificate was refused, and why.
    fn handshake_failed(&self, error: io::Error) -> Ended {
        let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()).cloned();
        match fault {
            Some(fault @ (rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)) => {
                let reason = Reason::ClientCertificate;
                self.context.metrics.refusals.get_or_create(&metrics::refusal(reason)).inc();
                tracing::warn!(client = %self.client, listener = self.listener.name, reason = reason.name(), %fault, "refused");
                Ended::ClientCertificate(fault)
            }
            _ => Ended::Io(error),
        }
    }

    async fn write(&mut self, stream: &mut Stream) -> Result<(), Ended> {
        let output = self.session.take_output();
        if output.is_empty() {
            return Ok(());
        }
        let write = async {
            stream.write_all(&output).await?;
            stream.flush().await
        };
        match timeout(self.session.read_timeout(), write).await {
            Err(_) => Err(Ended::NotReading),
            Ok(result) => Ok(result?),
        }
    }

    async fn handle_events(&mut self) -> Next {
        while let Some(event) = self.session.poll() {
            match event {
                Event::StartTls => return Next::StartTls,
                Event::Closed => return Next::Close,
                Event::Authenticate(credentials) => {
                    let reply = self.authenticate(&credentials).await;
                    self.session.respond(reply);
                }
                Event::LookUpKeys { username } => self.provide_keys(&username).await,
                Event::Proof { username, proven } => {
                    let reply = self.proof(&username, proven);
                    self.session.respond(reply);
                }
                Event::Mail { reverse_path, size: _, body, smtputf8: smtp_utf8, ret, envelope_id } => {
                    let reply = self.mail(Mail { reverse_path, body, smtp_utf8, ret, envelope_id });
                    self.session.respond(reply);
                }
                Event::Recipient { forward_path, notify, original_recipient } => {
                    let reply = self.recipient(&forward_path, notify, original_recipient.as_ref());
                    self.session.respond(reply);
                }
                Event::Data => {
                    let reply = self.data().await;
                    self.session.respond(reply);
                }
                Event::Content(slice) => self.content(slice).await,
                Event::EndOfContent => {
                    let reply = self.end_of_content().await;
                    self.session.respond(reply);
                }
                Event::Abort => self.transaction = None,
            }
        }
        Next::Read
    }

    async fn authenticate(&mut self, offered: &PlainCredentials) -> Reply {
        if let Some(refusal) = self.must_wait() {
            return self.refused(refusal);
        }
        let policy = self.context.policy.borrow().clone();
        let identity = self.context.verifier.verify(&policy, offered).await;
        self.authenticated(&policy, offered.username(), identity)
    }

    async fn provide_keys(&mut self, username: &str) {
        if let Some(refusal) = self.must_wait() {
            let reply = self.refused(refusal);
            return self.session.respond(reply);
        }
        let policy = self.context.policy.borrow().clone();
        let keys = self.context.verifier.scram_keys(&policy, username).await;
        let nonce = STANDARD.encode(rand::random::<[u8; 24]>());
        self.session.provide_keys(keys, &nonce);
    }

    fn proof(&mut self, username: &str, proven: bool) -> Reply {
        let policy = self.context.policy.borrow().clone();
        let identity = credentials::identity_of(&policy, username).filter(|_| proven);
        self.authenticated(&policy, username, identity)
    }

    /// The outcome of any AUTH.
    fn authenticated(&mut self, policy: &Policy, username: &str, identity: Option<Arc<str>>) -> Reply {
        let Some(identity) = identity else {
            self.context.verifier.failed(self.client, Instant::now());
            self.context.metrics.authentication_failures.inc();
            tracing::warn!(client = %self.client, listener = self.listener.name, pool = policy.pool, "authentication failed");
            return smtp_protocol::auth::authentication_failed();
        };
        self.user = Some(AuthenticatedUser { identity, username: username.to_owned() });
        Reply::new(235, (2, 7, 0), "authentication succeeded")
    }

    /// This address has failed so often that no password of its is looked at now.
    fn must_wait(&self) -> Option<Refusal> {
        let wait = self.context.verifier.wait(self.client, Instant::now())?;
        let text = format!(
            "too many failed authentications from {}, try again in {} seconds",
            self.client,
            wait.as_secs() + 1
        );
        Some(Refusal::new(Reason::Throttled, 454, (4, 7, 0), text))
    }

    fn mail(&mut self, mail: Mail) -> Reply {
        let policy = self.context.policy.borrow().clone();
        let client = Client {
            address: self.client,
            user: self.user.clone(),
            certificate: self.certificate.clone(),
            tls: self.session.is_tls(),
        };
        let identity = match authorize::mail(&policy, &self.listener, &client, &mail.reverse_path) {
            Ok(identity) => identity,
            Err(refusal) => return self.refused(refusal),
        };
        if let Some(refusal) = self.cannot_store() {
            return self.refused(refusal);
        }
        self.transaction = Some(Box::new(Transaction {
            identity,
            eight_bit: mail.body == Body::EightBitMime,
            mail,
            recipients: Vec::new(),
            content: None,
        }));
        Reply::new(250, (2, 1, 0), "sender ok")
    }

    fn refused(&self, Refusal { reason, reply }: Refusal) -> Reply {
        self.context.metrics.refusals.get_or_create(&metrics::refusal(reason)).inc();
        tracing::warn!(client = %self.client, listener = self.listener.name, reason = reason.name(), %reply, "refused");
        reply
    }

    /// The spool or the memory makes it pointless to let the client send its content.
    fn cannot_store(&self) -> Option<Refusal> {
        match &*self.context.spool.health().borrow() {
            Health::Healthy => self.context.memory.is_short().then(memory_short),
            Health::Full => Some(spool_full()),
            Health::Unhealthy(_) => Some(spool_not_writable()),
        }
    }

    fn recipient(
        &mut self,
        forward_path: &ForwardPath,
        notify: Option<Notify>,
        original: Option<&OriginalRecipient>,
    ) -> Reply {
        let policy = self.context.policy.borrow().clone();
        let Some(transaction) = &mut self.transaction else { return out_of_sequence() };
        let address = match forward_path.mailbox() {
            Some(mailbox) => mailbox.as_str().to_owned(),
            // RFC 5321 §4.1.1.3: <Postmaster> without a domain is this host's.
            None => format!("{}@{}", forward_path.local_part(), policy.hostname),
        };
        let origin =
            Origin { sender: transaction.mail.reverse_path.as_str(), identity: Some(&transaction.identity) };
        match authorize::recipient(&policy, origin, &address) {
            Ok(()) => {
                transaction.recipients.push(Recipient {
                    address,
                    notify,
                    original: original.map(ToString::to_string),
                });
                authorize::recipient_accepted()
            }
            Err(refusal) => self.refused(refusal),
        }
    }

    async fn data(&mut self) -> Reply {
        let policy = self.context.policy.borrow().clone();
        let now = SystemTime::now();
        let accepted_at = Timestamp::from(now);
        let id = MessageId::new(accepted_at, rand::random());
        let trace = received::header(&Trace {
            helo_name: self.session.helo_name().unwrap_or("unknown"),
            client: self.client,
            hostname: &policy.hostname,
            id,
            esmtp: self.session.is_esmtp(),
            smtp_utf8: self.transaction.as_ref().is_some_and(|transaction| transaction.mail.smtp_utf8),
            tls: self.tls,
            certificate: self.certificate.as_deref(),
            authenticated: self.user.is_some(),
            now,
        });
        let header_section = HeaderSection::new(HeaderRules {
            remove: policy.removed_fields.clone(),
            date: format!("Date: {}\r\n", received::date(now)),
            message_id: format!("Message-ID: <{id}@{}>\r\n", policy.hostname),
        });
        let Some(transaction) = &mut self.transaction else { return out_of_sequence() };
        let draft = self.context.spool.draft();
        let mut content = Content { id, draft, header_section, accepted_at, failure: None };
        content.append(Bytes::from(trace)).await;
        transaction.content = Some(content);
        self.deadline = Instant::now() + policy.limits.content;
        Reply::bare(354, "start mail input; end with <CRLF>.<CRLF>")
    }

    async fn content(&mut self, slice: Bytes) {
        let Some(transaction) = &mut self.transaction else { return };
        // Many clients send such octets without BODY=8BITMIME; the upstream is told what is there (RFC 6152 §3).
        transaction.eight_bit |= !slice.is_ascii();
        if let Some(content) = &mut transaction.content {
            let slice = content.header_section.filter(slice);
            content.append(slice).await;
        }
    }

    async fn end_of_content(&mut self) -> Reply {
        let Some(transaction) = self.transaction.take() else { return out_of_sequence() };
        let Some(mut content) = transaction.content else { return out_of_sequence() };
        let rest = content.header_section.finish();
        content.append(rest).await;
        if let Err(refusal) = self.no_loop(content.header_section.received()) {
            return self.refused(refusal);
        }
        let envelope = Envelope {
            id: content.id,
            reverse_path: transaction.mail.reverse_path.as_str().to_owned(),
            recipients: transaction.recipients,
            eight_bit: transaction.eight_bit,
            smtp_utf8: transaction.mail.smtp_utf8,
            ret: transaction.mail.ret,
            envelope_id: transaction.mail.envelope_id.map(|id| id.to_string()),
            size: content.draft.size(),
            accepted_at: content.accepted_at,
            identity: Some(transaction.identity.to_string()),
            user: self.user.as_ref().map(|user| user.username.clone()),
        };
        let state = DeliveryState::new(envelope.recipients.len(), content.accepted_at);
        let stored = match content.failure {
            Some(failure) => Err(failure),
            None => content.draft.commit(envelope.clone(), state.clone()).await,
        };
        match stored {
            Ok(()) => self.announce(envelope, state).await,
            Err(error) => {
                tracing::error!(client = %self.client, %error, "a message could not be stored; the client was told to try again");
                self.refused(match error {
                    SpoolError::Full { .. } | SpoolError::DiskFull { .. } => spool_full(),
                    _ => spool_not_writable(),
                })
            }
        }
    }

    /// RFC 5321 §6.3.
    fn no_loop(&self, received: usize) -> Result<(), Refusal> {
        let policy = self.context.policy.borrow();
        let limit = policy.limits.hops;
        if received <= limit {
            return Ok(());
        }
        let text = format!(
            "the message goes in circles: it has {received} Received fields and the limit is {limit} (RelayPool {})",
            policy.pool
        );
        Err(Refusal::new(Reason::Loop, 554, (5, 4, 6), text))
    }

    /// The message is on stable storage: tell dispatch, then the client.
    async fn announce(&self, envelope: Envelope, state: DeliveryState) -> Reply {
        let metrics = &self.context.metrics;
        metrics.messages_accepted.inc();
        metrics.recipients_accepted.inc_by(envelope.recipients.len() as u64);
        tracing::info!(
            id = %envelope.id,
            client = %self.client,
            identity = envelope.identity,
            from = envelope.reverse_path,
            recipients = envelope.recipients.len(),
            size = envelope.size,
            "accepted"
        );
        let reply = Reply::new(250, (2, 6, 0), format!("queued as {}", envelope.id));
        if self.context.accepted.send(Accepted { envelope: Arc::new(envelope), state }).await.is_err() {
            // Dispatch has ended because the relay stops; the message is in the spool and found at the next start.
            tracing::info!("accepted while stopping; delivered after the next start");
        }
        reply
    }
}

impl Content {
    async fn append(&mut self, slice: Bytes) {
        if self.failure.is_none()
            && let Err(failure) = self.draft.append(slice).await
        {
            self.failure = Some(failure);
        }
    }
}

fn spool_full() -> Refusal {
    Refusal::new(Reason::Spool, 452, (4, 3, 1), "spool full, try again later")
}

fn memory_short() -> Refusal {
    Refusal::new(Reason::Memory, 452, (4, 3, 1), "memory short, try again later")
}

fn spool_not_writable() -> Refusal {
    Refusal::new(Reason::Spool, 451, (4, 3, 0), "spool not writable, try again later")
}

/// The session asks for nothing in this order; a reply is still better than a panic.
fn out_of_sequence() -> Reply {
    Reply::new(503, (5, 5, 1), "bad sequence of commands")
}
