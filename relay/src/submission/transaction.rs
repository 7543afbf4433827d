//! A mail transaction (RFC 5321 §3.3): what has been agreed to since MAIL, and the content on its way to where it is kept.

use std::sync::Arc;

use bytes::Bytes;
use smtp_protocol::{Body, EnvelopeId, Return, ReversePath};
use tokio::time::Instant;

use super::header_section::HeaderSection;
use crate::config::{Acceptance, CompiledRoute};
use crate::message::{DeliveryState, Envelope, MessageId, Recipient, Timestamp};
use crate::routing::Origin;
use crate::spool::{self, SpoolError};
use crate::transit::{self, NoRoom};

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
    acceptance: Acceptance,
    /// The way of a message that passes through, which all its recipients take.
    route: Option<Arc<CompiledRoute>>,
    mail: Mail,
    recipients: Vec<Recipient>,
    eight_bit: bool,
    content: Option<Content>,
}

/// Where a message is kept: decided when it is begun.
pub(super) enum Draft {
    /// On disk.
    Stored(spool::Draft),
    /// In memory, until the upstream has answered.
    InTransit(transit::Draft),
}

/// A message that is complete.
pub(super) enum Complete {
    /// It is on stable storage.
    Stored(Envelope, DeliveryState),
    /// It is to pass through.
    InTransit(Envelope, transit::Draft),
}

/// The content on its way to where it is kept.
pub(super) struct Content {
    id: MessageId,
    draft: Draft,
    header_section: HeaderSection,
    accepted_at: Timestamp,
    deadline: Instant,
    /// The first failure; what follows it is read and dropped, because the reply comes after the final dot.
    failure: Option<NotStored>,
}

/// Why a message whose content has ended is not accepted.
#[derive(Debug)]
pub(super) enum NotStored {
    /// It has more `Received` fields than it may have: so many.
    Loop(usize),
    /// The spool did not take it.
    Spool(SpoolError),
    /// There is no memory for it.
    Memory(NoRoom),
    /// No content was begun.
    OutOfSequence,
}

impl Transaction {
    /// MAIL was accepted from a client that `identity` permits.
    pub(super) fn new(identity: Arc<str>, mail: Mail, acceptance: Acceptance) -> Self {
        let eight_bit = mail.body == Body::EightBitMime;
        Self { identity, acceptance, route: None, mail, recipients: Vec::new(), eight_bit, content: None }
    }

    /// When its message is accepted.
    pub(super) fn acceptance(&self) -> Acceptance {
        self.acceptance
    }

    /// Where the message comes from, for the routes.
    pub(super) fn origin(&self) -> Origin<'_> {
        Origin { sender: self.mail.reverse_path.as_str(), identity: Some(&self.identity) }
    }

    /// Whether the client has announced addresses in UTF-8 (RFC 6531).
    pub(super) fn is_smtp_utf8(&self) -> bool {
        self.mail.smtp_utf8
    }

    /// Whether a recipient that takes this route can go with those before: of a message that passes through all take the same one.
    pub(super) fn goes_by(&self, route: &Arc<CompiledRoute>) -> bool {
        self.acceptance == Acceptance::Queued
            || self.route.as_ref().is_none_or(|held| held.name == route.name)
    }

    /// RCPT was accepted.
    pub(super) fn add(&mut self, recipient: Recipient, route: &Arc<CompiledRoute>) {
        self.recipients.push(recipient);
        self.route.get_or_insert_with(|| route.clone());
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

    /// Completes the message; what is stored is on stable storage when this returns.
    ///
    /// # Errors
    /// When it is not kept, because of `hops`, the most `Received` fields that it may have, or because there was no room for it.
    pub(super) async fn complete(self, user: Option<&str>, hops: usize) -> Result<Complete, NotStored> {
        let Some(mut content) = self.content else { return Err(NotStored::OutOfSequence) };
        let rest = content.header_section.finish();
        content.append(rest).await;
        let received = content.header_section.received();
        if received > hops {
            return Err(NotStored::Loop(received));
        }
        if let Some(failure) = content.failure {
            return Err(failure);
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
        match content.draft {
            Draft::InTransit(draft) => Ok(Complete::InTransit(envelope, draft)),
            Draft::Stored(draft) => {
                let state = DeliveryState::new(envelope.recipients.len(), content.accepted_at);
                draft.commit(envelope.clone(), state.clone()).await.map_err(NotStored::Spool)?;
                Ok(Complete::Stored(envelope, state))
            }
        }
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
        if self.failure.is_some() {
            return;
        }
        self.failure = match &mut self.draft {
            Draft::Stored(draft) => draft.append(slice).await.map_err(NotStored::Spool).err(),
            Draft::InTransit(draft) => draft.append(&slice).map_err(NotStored::Memory).err(),
        };
    }
}

impl Draft {
    fn size(&self) -> u64 {
        match self {
            Self::Stored(draft) => draft.size(),
            Self::InTransit(draft) => draft.size(),
        }
    }
}
