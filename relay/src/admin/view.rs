//! What the admin API tells, as JSON: camelCase, times in RFC 3339. The command line reads the same types.

use serde::{Deserialize, Serialize};

use crate::message::{MessageId, RecipientState};
use crate::order::{Act, UpstreamState};

/// Messages found by a search, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    /// At most as many as were asked for.
    pub messages: Vec<Summary>,
    /// Where the search goes on, as `after`; missing when it is at its end. A page may hold fewer messages than asked for, or
    /// none, and still have a next one: a request looks at a bounded number of messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<MessageId>,
}

/// Where all upstreams stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstreams {
    /// By name.
    pub upstreams: Vec<UpstreamState>,
}

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum MessageState {
    /// A person wants it left alone.
    Held,
    /// It waits for the time of its next attempt.
    Waiting,
    /// It is being delivered, or waits for its turn or for its upstream.
    Due,
}

/// A message in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The queue id.
    pub id: MessageId,
    /// Where it stands.
    pub state: MessageState,
    /// When it was accepted.
    pub accepted_at: String,
    /// Seconds since then.
    pub age_seconds: u64,
    /// When it is attempted next, at the earliest.
    pub due_at: String,
    /// Attempts so far.
    pub attempts: u32,
    /// The identity rule that let its client in; missing for what the relay composed itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The user its client authenticated as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The reverse-path; empty for the null reverse-path.
    pub sender: String,
    /// The recipients still to be delivered to.
    pub queued: usize,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_recipient: Option<String>,
    /// The upstreams that the routes in force choose for them.
    pub upstreams: Vec<String>,
    /// Octets of its content.
    pub size: u64,
    /// What the latest attempt came to for one of the recipients still queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reply: Option<String>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// What a list says of it.
    #[serde(flatten)]
    pub summary: Summary,
    /// All its recipients, those delivered to as well, in the order of their RCPT commands.
    pub recipients: Vec<RecipientView>,
    /// The latest attempts, oldest first.
    pub history: Vec<AttemptView>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    /// When its outcome was there.
    pub at: String,
    /// The upstream.
    pub upstream: String,
    /// Where its session led; missing for a sandbox, and when no session came to an outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// How long it took.
    pub milliseconds: u64,
    /// What recipients were answered.
    pub replies: Vec<ReplyView>,
}

/// What one or more recipients were answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplyView {
    /// Their mailboxes.
    pub recipients: Vec<String>,
    /// The upstream's reply, or why there was none; shortened.
    pub text: String,
}

/// An order that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// The message.
    pub id: MessageId,
    /// What was done.
    pub done: Act,
}

/// One recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecipientView {
    /// The mailbox.
    pub address: String,
    /// Where it stands.
    pub state: RecipientState,
    /// The upstream that the routes in force choose for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
}
