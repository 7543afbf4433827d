//! A mail transaction (RFC 5321 §3.3): what has been agreed to since MAIL, and the content on its way into the spool.

use std::sync::Arc;

use bytes::Bytes;
use smtp_protocol::{Body, EnvelopeId, Return, ReversePath};
use tokio::time::Instant;

use super::header_section::HeaderSection;
use crate::message::{DeliveryState, Envelope, MessageId, Recipient, Timestamp};
use crate::routing::Origin;
use crate::spool::{Draft, SpoolError};

/// What MAIL said.
#[derive(Debug)]
pub(super) struct Mail {
    pub(super) reverse_path: ReversePath,
    pub(super) body: Body,
    pub(super) smtp_utf8: bool,
    pub(super) ret: Option<Return>,
    pub(super) envelope_id: Option<EnvelopeId>,
}

/// What has been agreed to since MAIL.
pub(super) struct Transaction {
    identity: Arc<str>,
    mail: Mail,
    recipients: Vec<Recipient>,
    eight_bit: bool,
    content: Option<Content>,
}

/// The content on its way into the spool.
pub(super) struct Content {
    id: MessageId,
    draft: Draft,
    header_section: HeaderSection,
    accepted_at: Timestamp,
    deadline: Instant,
    /// The first failure; what follows it is read and dropped, because the reply comes after the final dot.
    failure: Option<SpoolError>,
}

/// Why a message whose content has ended is not accepted.
#[derive(Debug)]
pub(super) enum NotStored {
    /// It has more `Received` fields than it may have: so many.
    Loop(usize),
    /// The spool did not take it.
    Spool(SpoolError),
    /// No content was begun.
    OutOfSequence,
}

impl Transaction {
    /// MAIL was accepted from a client that `identity` permits.
    pub(super) fn new(identity: Arc<str>, mail: Mail) -> Self {
        let eight_bit = mail.body == Body::EightBitMime;
        Self { identity, mail, recipients: Vec::new(), eight_bit, content: None }
    }

    /// Where the message comes from, for the routes.
    pub(super) fn origin(&self) -> Origin<'_> {
        Origin { sender: self.mail.reverse_path.as_str(), identity: Some(&self.identity) }
    }

    /// Whether the client has announced addresses in UTF-8 (RFC 6531).
    pub(super) fn is_smtp_utf8(&self) -> bool {
        self.mail.smtp_utf8
    }

    /// RCPT was accepted.
    pub(super) fn add(&mut self, recipient: Recipient) {
        self.recipients.push(recipient);
    }

    /// When the content that is under way has to be complete.
    pub(super) fn content_deadline(&self) -> Option<Instant> {
        self.content.as_ref().map(|content| content.deadline)
    }

    /// DATA or the first BDAT was accepted.
    pub(super) fn begin(&mut self, content: Content) {
        self.content = Some(content);
    }

    /// The next slice of the content, as the client sent it.
    pub(super) async fn append(&mut self, slice: Bytes) {
        // Many clients send such octets without BODY=8BITMIME; the upstream is told what is there (RFC 6152 §3).
        self.eight_bit |= !slice.is_ascii();
        if let Some(content) = &mut self.content {
            let slice = content.header_section.filter(slice);
            content.append(slice).await;
        }
    }

    /// Stores the message; it is on stable storage when this returns.
    ///
    /// # Errors
    /// When it is not, because of `hops`, the most `Received` fields that it may have, or because the spool did not take it.
    pub(super) async fn store(
        self,
        user: Option<&str>,
        hops: usize,
    ) -> Result<(Envelope, DeliveryState), NotStored> {
        let Some(mut content) = self.content else { return Err(NotStored::OutOfSequence) };
        let rest = content.header_section.finish();
        content.append(rest).await;
        let received = content.header_section.received();
        if received > hops {
            return Err(NotStored::Loop(received));
        }
        if let Some(failure) = content.failure {
            return Err(NotStored::Spool(failure));
        }
        let envelope = Envelope {
            id: content.id,
            reverse_path: self.mail.reverse_path.as_str().to_owned(),
            recipients: self.recipients,
            eight_bit: self.eight_bit,
            smtp_utf8: self.mail.smtp_utf8,
            ret: self.mail.ret,
            envelope_id: self.mail.envelope_id.map(|id| id.to_string()),
            size: content.draft.size(),
            accepted_at: content.accepted_at,
            identity: Some(self.identity.to_string()),
            user: user.map(ToOwned::to_owned),
        };
        let state = DeliveryState::new(envelope.recipients.len(), content.accepted_at);
        content.draft.commit(envelope.clone(), state.clone()).await.map_err(NotStored::Spool)?;
        Ok((envelope, state))
    }
}

impl Content {
    /// Content that begins with `trace`, whose header section is mended as it comes, and that has to be complete by `deadline`.
    pub(super) async fn new(
        id: MessageId,
        draft: Draft,
        header_section: HeaderSection,
        trace: String,
        accepted_at: Timestamp,
        deadline: Instant,
    ) -> Self {
        let mut content = Self { id, draft, header_section, accepted_at, deadline, failure: None };
        content.append(Bytes::from(trace)).await;
        content
    }

    async fn append(&mut self, slice: Bytes) {
        if self.failure.is_none()
            && let Err(failure) = self.draft.append(slice).await
        {
            self.failure = Some(failure);
        }
    }
}
