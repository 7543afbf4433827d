//! The spool: keeps accepted messages on stable storage until their last recipient's fate is known (promises P1, P2, P8).
//!
//! It is not the queue: it knows no order and no clock. Called by the submission (drafts), by dispatch (load, content, update,
//! settle, remove) and at start (open).
//!
//! # Contract
//!
//! - **What is durable.** When [`Draft::commit`], [`Spool::update`], [`Spool::remove`], [`Spool::settle`] and
//!   [`Spool::quarantine`] return `Ok`, what they say is on stable storage (`fdatasync` has returned) and survives the death
//!   of the process and a power cut. [`Spool::settle`] holds in full or not at all.
//! - **What a failure means.** The first write or sync that fails makes the spool [`Health::Unhealthy`] for good: every later
//!   change, and those in the failed batch, are answered [`SpoolError::Unhealthy`]; nothing is tried again, as a sync that
//!   succeeds after a failed one proves nothing (the kernel has dropped what it could not write). Whether the failed batch is
//!   found by the next start is unknown: its clients were answered 451, and a copy they send again may arrive beside it.
//!   Reading, and with it delivery, goes on; outcomes cannot be recorded, so each message is tried once and again by the next
//!   process. Readiness and health fall (`admin`): Kubernetes takes the pod out of its Service and starts the container anew.
//! - **Group commit.** One thread writes. All changes that arrive while a sync runs are written and synced together after it,
//!   up to 1024 changes or 8 MiB at once; a change waits for at most the running and its own sync, and no delay is added to
//!   fill a batch. Reclaiming adds at most [`Options::reclaim_bytes_per_batch`] to a batch.
//! - **What was being sent.** [`Spool::sending`] notes the recipients of a content before its end is sent. A note costs no sync of
//!   its own unless that is asked for, and goes with the next batch. Recipients of which the next start finds a note, no outcome and no
//!   [withdrawal](Spool::not_sent) may have the message already; all others have not ([`Recovery::ambiguous`]).
//! - **What recovery does.** [`Spool::open`] looks at the segments' headers and begins a segment of its own: from then on mail is
//!   taken, kept and delivered. Beside that every record of the earlier segments is replayed; what they hold becomes known as
//!   a whole at the end ([`Recovering::finished`]), as the last record may still end the first message. A crash in between
//!   leaves it all to the next start. A torn end of a segment is cut off: nothing in it was acknowledged. Everything has a checksum; damage elsewhere costs only the messages it touches, which are put into
//!   `quarantine/` and reported in [`Recovery::quarantined`]. Content outside of the last segment is verified when it is read
//!   ([`SpoolError::Damaged`], ended by [`Spool::quarantine`]) or copied by reclaiming.
//! - **Space.** Stores beyond [`Options::maximum_bytes`] are answered [`SpoolError::Full`], those that would leave less than
//!   three segments of the file system free [`SpoolError::DiskFull`]; everything that ends mail goes on. A full spool looks
//!   every second whether there is room again. What is removed is given back a segment at a time, without pauses. The blocks of
//!   the next segment are reserved ahead (`spare`), so a volume that others have filled to the last byte still opens, and
//!   what is queued is delivered and settled.
//! - **The account.** What every record adds to the account of recipients ([`Ledger`]) is in that record, and every segment
//!   begins with the account as it stands: a change and its posting are one, over crashes too, and at every instant
//!   `accepted = fates + queued` ([`Spool::usage`]). A change whose fates do not make up for the recipients it ends is refused.
//!   Where damage took recipients they count as quarantined; those whose end it took are accepted again.
//! - **Format.** Every segment bears a format version. A version that is not this one's is refused ([`SpoolError::Version`])
//!   with the file untouched, so going back to an earlier relay needs that relay to read what the later one wrote; a version
//!   that changes the format reads the one before it, and rewrites it by reclaiming. This is version 2: version 1 had neither
//!   the account nor the mark of a segment begun after a crash. Envelope and state are JSON: a field that is added has a
//!   default and needs no new version.
//! - **Memory.** About 110 bytes a stored message, and 256 KiB a draft.
//!
//! # On disk
//!
//! ```text
//! lock                            held by the process that has the spool open
//! segment-0000000000000001.log    header, then records in the order of their writing (`record`)
//! spare                           the next segment, its blocks reserved or prepared ahead (`spare`)
//! quarantine/                     what was found damaged, for people (`quarantine`)
//! ```
//!
//! The path of a store: `draft` → `command` → `writer` (one batch) → `log` (stage, write, sync) → `index`; that of a start:
//! `survey` → `recovery` → `replay` over `scan` → `command` → `writer` → `index`. Why it is built so, with figures: docs/adr/0001-spool.md.

mod command;
mod draft;
mod error;
mod handle;
mod index;
mod ledger;
mod log;
mod options;
mod quarantine;
mod reader;
mod reclaim;
mod record;
mod recovery;
mod replay;
mod scan;
mod segment;
mod shared;
mod space;
mod spare;
mod survey;
#[cfg(test)]
mod tests;
mod writer;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use crate::message::{DeliveryState, Envelope, MessageId};
use command::{Change, Command, NewMessage, Sending};
use error::Context;
use handle::Handle;
use log::Log;
use reclaim::Reclaim;
use record::MAXIMUM_PAYLOAD;
use recovery::Reading;
use shared::Shared;
use writer::Writer;

pub use draft::Draft;
pub use error::SpoolError;
pub use handle::Pending;
pub use ledger::{Fate, Fates, Ledger};
pub use options::Options;
pub use reader::{ContentReader, Stored};
pub use recovery::{Backlog, Quarantined, Recovered, Recovering, Recovery, Subject};
pub use shared::{Health, Usage};

/// Commands that may wait for the writer before senders do.
const WAITING_COMMANDS: usize = 1024;

/// A handle to an open spool; clones are handles to the same one.
///
/// When the last handle and draft are dropped the writer finishes what it was given and closes the spool in the background;
/// [`close`](Self::close) waits for that.
#[derive(Clone, Debug)]
pub struct Spool {
    handle: Handle,
}

/// What becomes of a message after an attempt, and what comes into being with it.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The message.
    pub id: MessageId,
    /// Its state from now on; `None` removes it.
    pub state: Option<DeliveryState>,
    /// What became of the recipients that are queued no longer.
    pub fates: Fates,
    /// Recipients, by index, whose attempt goes on: what [`Spool::sending`] has noted of all others is over.
    pub under_way: Vec<usize>,
    /// Messages that come into being in the same instant (DSNs), with their content; each must fit in memory. The budget
    /// does not hold them up.
    pub accept: Vec<(Envelope, DeliveryState, Bytes)>,
}

impl Spool {
    /// Opens the spool in `directory`, which is created if it is missing, and begins to read what earlier runs left there. Takes
    /// mail when it returns; what was left is there once [`Recovering::finished`] returns.
    ///
    /// Blocks for some system calls a segment; to be called before serving. *Errors*: `Locked` when another process has it
    /// open; `Version` when a later version wrote it; `Io` with path and cause. Damage is no error: see
    /// [`Recovery::quarantined`].
    pub fn open(directory: &Path, options: Options) -> Result<(Self, Recovering), SpoolError> {
        let options = options.bounded();
        fs::create_dir_all(directory).context("create", directory)?;
        let lock = survey::lock(directory)?;
        let survey = survey::survey(directory)?;
        let shared = Arc::new(Shared::new(survey.bytes(), quarantine::count(directory)?));
        let earlier = (survey.bytes(), !survey.clean());
        let log = Log::begin(directory, options.segment_bytes, survey.next()?, earlier, shared.clone())?;
        let (sender, commands) = mpsc::channel(WAITING_COMMANDS);
        let (reading, recovering) = Reading::new(directory, survey, shared.clone(), sender.downgrade());
        let reading = thread("spool-recovery", directory, move || reading.run())?;
        let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let clock = clock.context("start the clock of", directory)?;
        let reclaim = Reclaim::new(directory, options.clone(), shared.clone());
        let writer = Writer {
            directory: directory.to_owned(),
            options,
            shared: shared.clone(),
            commands,
            log,
            reclaim,
            lock,
            reading,
            clock,
        };
        thread("spool-writer", directory, move || writer.run())?;
        Ok((Self { handle: Handle::new(shared, sender) }, recovering))
    }

    /// Begins a message.
    #[must_use]
    pub fn draft(&self) -> Draft {
        Draft::new(self.handle.clone())
    }

    /// The envelope and the current state of a message.
    ///
    /// *Errors*: `Unknown`; `Damaged`, after which [`quarantine`](Self::quarantine) ends the message; `Io`.
    pub async fn load(&self, id: MessageId) -> Result<Stored, SpoolError> {
        reader::load(&self.handle.shared, id).await
    }

    /// Whether a message of this id is kept.
    #[must_use]
    pub fn contains(&self, id: MessageId) -> bool {
        self.handle.shared.index().contains(id)
    }

    /// The content of a message, to be read in chunks.
    ///
    /// *Errors*: `Unknown`.
    pub fn content(&self, id: MessageId) -> Result<ContentReader, SpoolError> {
        ContentReader::open(&self.handle.shared, id)
    }

    /// The `count` messages accepted first after `after`, in the order of their ids. Looks at every id: some 20 ms a million.
    #[must_use]
    pub fn ids_after(&self, after: Option<MessageId>, count: usize) -> Vec<MessageId> {
        let later = |id: &MessageId| after.is_none_or(|after| *id > after);
        let mut ids: Vec<_> = self.handle.shared.index().ids().filter(later).collect();
        if ids.len() > count {
            ids.select_nth_unstable(count);
            ids.truncate(count);
        }
        ids.sort_unstable();
        ids
    }

    /// Asks for a note that the content of a message is about to be sent to these recipients, by index. Its end must not be sent
    /// before the [answer](Pending::answered). It is over for each of them with the next state of the message in which its attempt
    /// does not go on ([`Settlement::under_way`]), or by [`not_sent`](Self::not_sent); what is not over when the process dies is told
    /// by the next one ([`Recovery::ambiguous`]).
    ///
    /// *Durability*: when it is answered, the system has it, so that it outlives the process; with `synced` it is on stable storage
    /// and outlives a power cut too. *Errors* of the answer: `Unknown`, `Unhealthy`. *Cancellation*: a dropped future may or may
    /// not have asked.
    pub async fn sending(
        &self,
        id: MessageId,
        recipients: &[usize],
        synced: bool,
    ) -> Result<Pending<()>, SpoolError> {
        let sending = Sending::new(id, recipients, synced);
        self.handle.send(|reply| Command::Sending { sending, reply }).await
    }

    /// Asks to take back what [`sending`](Self::sending) has noted of these recipients, as the content's end was not sent to them.
    ///
    /// *Durability*: as an unsynced note. *Errors* of the answer: `Unknown`, `Unhealthy`. *Cancellation*: a dropped future may or
    /// may not have asked.
    pub async fn not_sent(&self, id: MessageId, recipients: &[usize]) -> Result<Pending<()>, SpoolError> {
        let sending = Sending::withdrawn(id, recipients);
        self.handle.send(|reply| Command::Sending { sending, reply }).await
    }

    /// Replaces the state of a message, with the same recipients queued. Durable when it returns.
    ///
    /// *Errors*: `Unknown`, `Unhealthy`; `Inconsistent` when other recipients are queued, as what became of them is for
    /// [`settle`](Self::settle) to say. *Cancellation*: a dropped future may or may not have changed the state.
    pub async fn update(&self, id: MessageId, state: DeliveryState) -> Result<(), SpoolError> {
        let change = Change::new(id, Some(state), Fates::default(), &[]);
        self.handle.ask(|reply| Command::Change { change, reply }).await
    }

    /// Removes a message whose recipients that are still queued all have this `fate`. Durable when it returns.
    ///
    /// *Errors*: `Unknown`, `Unhealthy`. *Cancellation*: a dropped future may or may not have removed it.
    pub async fn remove(&self, id: MessageId, fate: Fate) -> Result<(), SpoolError> {
        self.handle.ask(|reply| Command::Remove { id, fate, reply }).await
    }

    /// Changes or removes a message and accepts others, all or nothing and in one sync.
    ///
    /// *Errors*: `Unknown` when the message is not there, `Duplicate` when one of the new ones is, `Inconsistent` as in
    /// [`Draft::commit`] or when the fates are not as many as the recipients queued no longer, `Unhealthy`; nothing has happened then, save that after `Unhealthy` it is unknown. *Cancellation*: a
    /// dropped future leaves all of it done or nothing.
    pub async fn settle(&self, settlement: Settlement) -> Result<(), SpoolError> {
        let Settlement { id, state, fates, under_way, accept } = settlement;
        let change = Change::new(id, state, fates, &under_way);
        if accept.is_empty() {
            return self.handle.ask(|reply| Command::Change { change, reply }).await;
        }
        let messages =
            accept.into_iter().map(|(envelope, state, content)| NewMessage::whole(envelope, state, &content));
        let messages: Vec<_> = messages.collect::<Result<_, _>>()?;
        if messages.iter().map(NewMessage::bytes).sum::<u64>() > MAXIMUM_PAYLOAD as u64 {
            return Err(SpoolError::Inconsistent("too large to be stored in one piece"));
        }
        self.handle.ask(|reply| Command::Settle { change, messages, reply }).await
    }

    /// Takes a damaged message out of the spool and keeps what can be read of it in `quarantine/<id>/`, for `reason` (which
    /// holds no content). Durable when it returns.
    ///
    /// *Errors*: `Unknown`, `Unhealthy`; `Io` when the quarantine directory cannot be written, the message stays then.
    pub async fn quarantine(&self, id: MessageId, reason: &str) -> Result<(), SpoolError> {
        let reason = reason.to_owned();
        self.handle.ask(|reply| Command::Quarantine { id, reason, reply }).await
    }

    /// Waits until what earlier runs left is known. Before that, a message of theirs is `Unknown`, and none `Duplicate`: whoever
    /// brings an id that may have been here before must have waited.
    pub async fn recovered(&self) {
        // The sender is in what this handle shares.
        let _ = self.handle.shared.unread.subscribe().wait_for(Option::is_none).await;
    }

    /// Whether the spool takes mail, to be watched.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Health> {
        self.handle.shared.health.subscribe()
    }

    /// How much it holds and has done. Cheap enough for every scrape of metrics.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.handle.shared.usage()
    }

    /// Finishes what was asked before, marks the log as complete, stops the writer and releases the lock. Other handles are
    /// answered `Closed` from then on.
    pub async fn close(self) {
        // An unhealthy spool has said so already, and there is nothing the caller could do about it here.
        let _ = self.handle.ask(|reply| Command::Close { reply }).await;
    }
}

fn thread(
    name: &str,
    directory: &Path,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, SpoolError> {
    let builder = std::thread::Builder::new().name(name.into());
    builder.spawn(work).context("start a thread for", directory)
}
