//! Hops 7 and 8: carry messages over sessions with an upstream and say how that went.
//!
//! A [`session`](run) is a task with one connection that takes jobs until it is retired; [`outcome`] turns the upstream's
//! replies into fates. Which job goes to which session, and when one is opened, is dispatch's to decide: it alone calls this
//! module, through [`run`], a channel of [`Job`]s and a channel of [`Report`]s.

pub mod classification;
mod connect;
mod connection;
mod content;
mod flow;
mod non_ascii;
mod note;
pub mod outcome;
mod ports;
mod prepare;
mod session;

pub use classification::{Hold, HoldKind};
pub use connect::OpenError;
pub use outcome::{Fate, Obstacle};
pub use ports::{PortChange, PortMemory};
pub use session::{Session, run};

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use smtp_protocol::{ClientSession, RecipientReply};

use crate::budget::Scope;
use crate::message::MessageId;
use crate::queue::fair::Rank;
use crate::spool::SpoolError;

/// The most jobs that a session takes at once: those that may be on their way, and the next at hand.
pub const MOST_JOBS: usize = ClientSession::MOST_IN_FLIGHT + 1;

/// Names a session within this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Some recipients of one message, to be delivered in one mail transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The message.
    pub id: MessageId,
    /// Indices into the envelope's recipients; at least one.
    pub recipients: Arc<[usize]>,
    /// What decides when it has its turn.
    pub rank: Rank,
    /// The budgets that it counts for, beside its upstream's.
    pub scopes: Arc<[Scope]>,
    /// Whether its client waits for the outcome: all recipients are to have the message or none, and it does not wait long.
    pub in_transit: bool,
    /// Sessions that broke under this job, so that one message cannot break them for ever.
    pub broken_sessions: u8,
}

/// Where a job was carried, and how long that took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The other end of the session; `None` for a sandbox.
    pub address: Option<SocketAddr>,
    /// From the beginning of the job to its last reply.
    pub took: Duration,
    /// The replies that decided its recipients.
    pub replies: ReplyCounts,
}

/// How many recipients were decided by a reply of each class (RFC 5321 §4.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplyCounts {
    /// 2yz, with which the upstream took the content.
    pub positive: u32,
    /// 4yz.
    pub transient: u32,
    /// 5yz.
    pub permanent: u32,
}

impl ReplyCounts {
    /// Counts these.
    fn of(replies: &[RecipientReply]) -> Self {
        let count = |wanted: fn(&RecipientReply) -> bool| {
            u32::try_from(replies.iter().filter(|decided| wanted(decided)).count()).unwrap_or(u32::MAX)
        };
        Self {
            positive: count(RecipientReply::is_delivered),
            transient: count(|decided| decided.reply.is_transient()),
            permanent: count(|decided| decided.reply.is_permanent()),
        }
    }
}

/// What a session tells dispatch.
#[derive(Debug)]
pub enum Report {
    /// The connection stands and is authenticated: the session takes its first job.
    Opened {
        /// How many jobs it takes at once, at most [`MOST_JOBS`], so that none waits for the reply to the one before: one where
        /// the upstream does not offer PIPELINING.
        room: usize,
    },
    /// It could not be opened; the session is over.
    NotOpened(OpenError),
    /// The job is over. The session takes the next one unless [`Report::Closed`] follows.
    Finished {
        /// The job.
        job: Job,
        /// One fate per recipient of the job, in its order.
        fates: Vec<Fate>,
        /// How it was carried.
        contact: Contact,
    },
    /// Nothing was delivered and nothing was decided: the job is to be tried again on another session.
    Returned {
        /// The job.
        job: Job,
        /// What happened to the connection under it; `None` when the session had not begun with the job.
        fault: Option<String>,
    },
    /// The message cannot be read.
    Unreadable {
        /// The job.
        job: Job,
        /// Why.
        error: SpoolError,
    },
    /// The session is over.
    Closed,
}
