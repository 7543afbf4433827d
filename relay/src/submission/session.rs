//! One client's session: each event of the SMTP protocol answered.
//!
//! The protocol is `smtp_protocol::ServerSession`, which does no IO. 250 is said to content only when the spool has returned (P1).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use smtp_protocol::{Event, ForwardPath, Notify, OriginalRecipient, Reply, ServerSession};
use tokio::time::Instant;

use super::authentication::{self, NotAuthenticated};
use super::authorize::{self, AuthenticatedUser, Client};
use super::context::{Accepted, Context};
use super::header_section::{HeaderRules, HeaderSection};
use super::received::{self, TlsFacts, Trace};
use super::refusal::{Reason, Refusal};
use super::transaction::{Complete, Content, Draft, Mail, NotStored, Transaction};
use crate::client_certificate::ClientCertificate;
use crate::config::{Acceptance, Listener, Policy};
use crate::message::{DeliveryState, Envelope, MessageId, Recipient, Timestamp};
use crate::metrics;
use crate::spool::{Health, SpoolError};
use crate::transit::{self, NoRoom};

/// What the connection is to do after the events have been answered and the output written.
pub(super) enum Next {
    /// Wait for the client.
    Read,
    /// Begin TLS.
    StartTls,
    /// End.
    Close,
}

/// A client, what it has proved to be, and its transaction.
pub(super) struct Session {
    /// Octets in, events and octets out.
    pub(super) protocol: ServerSession,
    client: IpAddr,
    listener: Listener,
    context: Context,
    tls: Option<TlsFacts>,
    certificate: Option<Arc<ClientCertificate>>,
    user: Option<AuthenticatedUser>,
    transaction: Option<Box<Transaction>>,
}

impl Session {
    /// A client that has just connected.
    pub(super) fn new(client: IpAddr, listener: Listener, context: Context) -> Self {
        Self {
            protocol: ServerSession::new(listener.session.clone()),
            client,
            listener,
            context,
            tls: None,
            certificate: None,
            user: None,
            transaction: None,
        }
    }

    /// The settings of the port that the client came to.
    pub(super) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// The connection is under TLS now: who the client was in the clear is forgotten (RFC 3207 §4.2).
    pub(super) fn secured(&mut self, tls: Option<TlsFacts>, certificate: Option<ClientCertificate>) {
        self.tls = tls;
        self.certificate = certificate.map(Arc::new);
        self.user = None;
    }

    /// The handshake failed because of the client's certificate.
    pub(super) fn certificate_refused(&self, fault: &rustls::Error) {
        let reason = Reason::ClientCertificate;
        self.context.metrics.refusals.get_or_create(&metrics::refusal(reason)).inc();
        tracing::warn!(client = %self.client, listener = self.listener.name, reason = reason.name(), %fault, "refused");
    }

    /// When the content that is under way has to be complete.
    pub(super) fn content_deadline(&self) -> Option<Instant> {
        self.transaction.as_ref()?.content_deadline()
    }

    /// Does what the client has asked for so far.
    pub(super) async fn answer(&mut self) -> Next {
        while let Some(event) = self.protocol.poll() {
            match event {
                Event::StartTls => return Next::StartTls,
                Event::Closed => return Next::Close,
                Event::Authenticate(credentials) => {
                    let checked = authentication::by_password(&self.context, self.client, &credentials).await;
                    let reply = self.authenticated(checked);
                    self.protocol.respond(reply);
                }
                Event::LookUpKeys { username } => self.provide_keys(&username).await,
                Event::Proof { username, proven } => {
                    let checked = authentication::by_proof(&self.context, self.client, &username, proven);
                    let reply = self.authenticated(checked);
                    self.protocol.respond(reply);
                }
                Event::Mail { reverse_path, size: _, body, smtputf8: smtp_utf8, ret, envelope_id } => {
                    let reply = self.mail(Mail { reverse_path, body, smtp_utf8, ret, envelope_id });
                    self.protocol.respond(reply);
                }
                Event::Recipient { forward_path, notify, original_recipient } => {
                    let reply = self.recipient(&forward_path, notify, original_recipient.as_ref());
                    self.protocol.respond(reply);
                }
                Event::Data => {
                    let reply = self.data().await;
                    self.protocol.respond(reply);
                }
                Event::Content(slice) => {
                    if let Some(transaction) = &mut self.transaction {
                        transaction.append(slice).await;
                    }
                }
                Event::EndOfContent => {
                    let reply = self.end_of_content().await;
                    self.protocol.respond(reply);
                }
                Event::Abort => self.transaction = None,
            }
        }
        Next::Read
    }

    async fn provide_keys(&mut self, username: &str) {
        match authentication::scram_challenge(&self.context, self.client, username).await {
            Ok((keys, nonce)) => self.protocol.provide_keys(keys, &nonce),
            Err(failure) => {
                let reply = self.authenticated(Err(failure));
                self.protocol.respond(reply);
            }
        }
    }

    /// The reply to any AUTH.
    fn authenticated(&mut self, checked: Result<AuthenticatedUser, NotAuthenticated>) -> Reply {
        match checked {
            Ok(user) => {
                self.user = Some(user);
                Reply::new(235, (2, 7, 0), "authentication succeeded")
            }
            Err(NotAuthenticated::Throttled(refusal)) => self.refused(refusal),
            Err(NotAuthenticated::Failed) => {
                let pool = &self.context.policy.borrow().pool;
                tracing::warn!(client = %self.client, listener = self.listener.name, %pool, "authentication failed");
                smtp_protocol::auth::authentication_failed()
            }
        }
    }

    fn mail(&mut self, mail: Mail) -> Reply {
        let policy = self.policy();
        let client = Client {
            address: self.client,
            user: self.user.clone(),
            certificate: self.certificate.clone(),
            tls: self.protocol.is_tls(),
        };
        let identity = match authorize::mail(&policy, &self.listener, &client, &mail.reverse_path) {
            Ok(identity) => identity,
            Err(refusal) => return self.refused(refusal),
        };
        if let Some(refusal) = self.cannot_keep(policy.acceptance) {
            return self.refused(refusal);
        }
        self.transaction = Some(Box::new(Transaction::new(identity, mail, policy.acceptance)));
        Reply::new(250, (2, 1, 0), "sender ok")
    }

    /// The spool or the memory makes it pointless to let the client send its content.
    fn cannot_keep(&self, acceptance: Acceptance) -> Option<Refusal> {
        let short = || self.context.memory.is_short().then(memory_short);
        if acceptance == Acceptance::PassThrough {
            return short();
        }
        match &*self.context.spool.health().borrow() {
            Health::Healthy => short(),
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
        let policy = self.policy();
        let Some(transaction) = &mut self.transaction else { return out_of_sequence() };
        let address = match forward_path.mailbox() {
            Some(mailbox) => mailbox.as_str().to_owned(),
            // RFC 5321 §4.1.1.3: <Postmaster> without a domain is this host's.
            None => format!("{}@{}", forward_path.local_part(), policy.hostname),
        };
        let route = match authorize::recipient(&policy, transaction.origin(), &address) {
            Ok(route) => route,
            Err(refusal) => return self.refused(refusal),
        };
        if !transaction.goes_by(route) {
            return self.refused(authorize::takes_another_route(&policy, route));
        }
        transaction.add(Recipient { address, notify, original: original.map(ToString::to_string) }, route);
        authorize::recipient_accepted()
    }

    async fn data(&mut self) -> Reply {
        let Some(transaction) = &self.transaction else { return out_of_sequence() };
        let (policy, now) = (self.policy(), SystemTime::now());
        let accepted_at = Timestamp::from(now);
        let id = MessageId::new(accepted_at, rand::random());
        let trace = received::header(&Trace {
            helo_name: self.protocol.helo_name().unwrap_or("unknown"),
            client: self.client,
            hostname: &policy.hostname,
            id,
            esmtp: self.protocol.is_esmtp(),
            smtp_utf8: transaction.is_smtp_utf8(),
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
        let deadline = Instant::now() + policy.limits.content;
        let draft = match transaction.acceptance() {
            Acceptance::Queued => Draft::Stored(self.context.spool.draft()),
            Acceptance::PassThrough => Draft::InTransit(self.context.passage.transit.draft()),
        };
        let content = Content::new(id, draft, header_section, trace, accepted_at, deadline).await;
        if let Some(transaction) = &mut self.transaction {
            transaction.begin(content);
        }
        Reply::bare(354, "start mail input; end with <CRLF>.<CRLF>")
    }

    async fn end_of_content(&mut self) -> Reply {
        let Some(transaction) = self.transaction.take() else { return out_of_sequence() };
        let policy = self.policy();
        let user = self.user.as_ref().map(|user| user.username.as_str());
        match transaction.complete(user, policy.limits.hops).await {
            Ok(Complete::Stored(envelope, state)) => self.announce(envelope, state).await,
            Ok(Complete::InTransit(envelope, draft)) => self.pass_through(envelope, draft).await,
            Err(NotStored::OutOfSequence) => out_of_sequence(),
            Err(NotStored::Loop(received)) => self.refused(goes_in_circles(&policy, received)),
            Err(NotStored::Memory(NoRoom::Now)) => self.refused(memory_short()),
            Err(NotStored::Memory(error @ NoRoom::Ever(_))) => {
                self.refused(Refusal::new(Reason::Memory, 552, (5, 3, 4), error.to_string()))
            }
            Err(NotStored::Spool(error)) => {
                tracing::error!(client = %self.client, %error, "a message could not be stored; the client was told to try again");
                self.refused(match error {
                    SpoolError::Full { .. } | SpoolError::DiskFull { .. } => spool_full(),
                    _ => spool_not_writable(),
                })
            }
        }
    }

    /// The message is on stable storage: tell dispatch, then the client.
    async fn announce(&self, envelope: Envelope, state: DeliveryState) -> Reply {
        self.count_accepted(&envelope);
        let reply = Reply::new(250, (2, 6, 0), format!("queued as {}", envelope.id));
        if self.context.accepted.send(Accepted::stored(envelope, state)).await.is_err() {
            // Dispatch has ended because the relay stops; the message is in the spool and found at the next start.
            tracing::info!("accepted while stopping; delivered after the next start");
        }
        reply
    }

    /// The message is in memory: the client is told what the upstream says.
    async fn pass_through(&self, envelope: Envelope, draft: transit::Draft) -> Reply {
        let Context { passage, accepted, shutdown, .. } = &self.context;
        let envelope = Arc::new(envelope);
        let in_transit = &self.context.metrics.messages_in_transit;
        in_transit.inc();
        let reply = passage.send(draft, envelope.clone(), accepted, &mut shutdown.clone()).await;
        in_transit.dec();
        if !reply.is_positive() {
            return self.refused(Refusal { reason: Reason::Upstream, reply });
        }
        self.count_accepted(&envelope);
        reply
    }

    fn count_accepted(&self, envelope: &Envelope) {
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
    }

    fn policy(&self) -> Arc<Policy> {
        self.context.policy.borrow().clone()
    }

    fn refused(&self, Refusal { reason, reply }: Refusal) -> Reply {
        self.context.metrics.refusals.get_or_create(&metrics::refusal(reason)).inc();
        tracing::warn!(client = %self.client, listener = self.listener.name, reason = reason.name(), %reply, "refused");
        reply
    }
}

/// RFC 5321 §6.3.
fn goes_in_circles(policy: &Policy, received: usize) -> Refusal {
    let limit = policy.limits.hops;
    let text = format!(
        "the message goes in circles: it has {received} Received fields and the limit is {limit} (RelayPool {})",
        policy.pool
    );
    Refusal::new(Reason::Loop, 554, (5, 4, 6), text)
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
