//! Reading what earlier runs left, while this one takes mail already: replay of all segments, quarantine of what is damaged.
//!
//! Nothing found may be delivered before all is read, as a later segment may say that a message of an earlier one is gone; so it
//! becomes known as a whole. Header checksums and the payload checksums of everything but content are verified in all segments,
//! those of content in a segment that may be torn (elsewhere on every read). A torn end is cut off; it holds nothing that was
//! acknowledged.

use std::collections::hash_map;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::command::{Command, Restored};
use super::error::{Context, SpoolError};
use super::index::Index;
use super::ledger::Ledger;
use super::quarantine;
use super::replay::{Replay, Summary, Tail};
use super::segment::SEGMENT_HEADER;
use super::shared::Shared;
use super::survey::{Found, Survey, data_end};
use crate::message::{MessageId, Timestamp};

/// How often the log tells how far the reading is.
const PROGRESS: Duration = Duration::from_secs(5);

/// The reading of what earlier runs left; see [`finished`](Self::finished).
#[derive(Debug)]
pub struct Recovering(oneshot::Receiver<Result<Recovery, SpoolError>>);

impl Recovering {
    /// Waits until all of it is known to the spool, and tells what was found.
    ///
    /// *Errors*: `Io` when a segment cannot be read, the spool is unhealthy then; `Closed` when it was closed before.
    /// *Cancellation*: a dropped future stops nothing.
    pub async fn finished(self) -> Result<Recovery, SpoolError> {
        self.0.await.unwrap_or(Err(SpoolError::Closed))
    }

    /// The same where there is no runtime to wait on.
    #[cfg(test)]
    pub(super) fn finished_blocking(mut self) -> Result<Recovery, SpoolError> {
        loop {
            match self.0.try_recv() {
                Ok(outcome) => return outcome,
                Err(oneshot::error::TryRecvError::Closed) => return Err(SpoolError::Closed),
                Err(oneshot::error::TryRecvError::Empty) => std::thread::sleep(Duration::from_micros(50)),
            }
        }
    }
}

/// What earlier runs have left.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The messages stored.
    pub messages: Backlog,
    /// Recipients of them, by index, that the content was being sent to when the process died: they may have it already.
    pub ambiguous: Vec<(MessageId, Vec<usize>)>,
    /// What could not be recovered and was put into the `quarantine` directory; each is reported by one open only.
    pub quarantined: Vec<Quarantined>,
    /// Bytes cut off segments: the last write of a process that died during it.
    pub torn_bytes: u64,
    /// Segment files read.
    pub segments: usize,
    /// Whether the spool had been closed in order.
    pub clean: bool,
}

/// The messages found, in no order. Held compactly, so that a million of them cost 70 MB until the last is taken.
#[derive(Debug, Default)]
pub struct Backlog {
    summaries: hash_map::IntoIter<MessageId, Summary>,
    identities: Vec<Arc<str>>,
}

impl Iterator for Backlog {
    type Item = Recovered;

    fn next(&mut self) -> Option<Recovered> {
        let (id, summary) = self.summaries.next()?;
        let identity = summary.identity.and_then(|number| self.identities.get(number as usize).cloned());
        Some(Recovered { id, due_at: summary.due_at, identity })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.summaries.size_hint()
    }
}

impl ExactSizeIterator for Backlog {}

/// A message found in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Its name.
    pub id: MessageId,
    /// When its next attempt is due.
    pub due_at: Timestamp,
    /// The identity rule that let its client in.
    pub identity: Option<Arc<str>>,
}

/// Something damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// What it is.
    pub subject: Subject,
    /// What is wrong with it, and where; without content or mailboxes.
    pub reason: String,
}

/// What is damaged: a message, or bytes of which that cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A message whose envelope, content or latest state is damaged.
    Message(MessageId),
    /// A stretch of a segment: a message accepted, changed or removed by it stands as it did before.
    Stretch {
        /// The segment's number.
        segment: u32,
        /// Where the stretch begins, in bytes.
        offset: u64,
        /// Its length in bytes; zero for a segment that is missing.
        length: u64,
    },
}

/// The reading, to be run on a thread of its own.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) directory: PathBuf,
    pub(super) survey: Survey,
    pub(super) shared: Arc<Shared>,
    /// To the writer, which ends when all others are done with it.
    pub(super) commands: mpsc::WeakSender<Command>,
    done: oneshot::Sender<Result<Recovery, SpoolError>>,
}

impl Reading {
    pub(super) fn new(
        directory: &Path,
        survey: Survey,
        shared: Arc<Shared>,
        commands: mpsc::WeakSender<Command>,
    ) -> (Self, Recovering) {
        let (done, recovering) = oneshot::channel();
        (Self { directory: directory.to_owned(), survey, shared, commands, done }, Recovering(recovering))
    }

    /// Reads all, makes it known to the writer, and tells what it was. Gives up when the spool is closed.
    pub(super) fn run(mut self) {
        let outcome =
            self.read().and_then(|(restored, recovery)| self.hand_over(restored).map(|()| recovery));
        if let Err(error) = &outcome
            && !matches!(error, SpoolError::Closed)
        {
            self.shared.fail(error);
        }
        // Nobody may want to know.
        let _ = self.done.send(outcome);
    }

    fn read(&mut self) -> Result<(Restored, Recovery), SpoolError> {
        let mut replay = Replay::default();
        let mut recovery = Recovery {
            quarantined: std::mem::take(&mut self.survey.quarantined),
            segments: self.survey.segments.len(),
            clean: self.survey.clean(),
            ..Recovery::default()
        };
        let (total, mut told) = (self.survey.bytes(), Instant::now());
        let mut unread = total;
        for found in &self.survey.segments {
            if self.commands.strong_count() == 0 || self.shared.closing.load(Ordering::Relaxed) {
                return Err(SpoolError::Closed);
            }
            recovery.torn_bytes += replay_segment(found, &mut replay)?;
            unread -= found.bytes;
            self.shared.unread.send_replace(Some(unread));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                tracing::info!(
                    unread_bytes = unread,
                    of_bytes = total,
                    "reading what earlier runs left in the spool"
                );
            }
        }
        let damaged = quarantine_damaged(&self.directory, &mut replay, &mut recovery.quarantined)?;
        settle_account(&mut replay, &recovery);
        self.shared.quarantined.store(quarantine::count(&self.directory)?, Ordering::Relaxed);
        let (summaries, identities) = (replay.summaries.into_iter(), replay.identities.into_names());
        recovery.ambiguous = ambiguous(&replay.index);
        recovery.messages = Backlog { summaries, identities };
        Ok((Restored { index: replay.index, damaged }, recovery))
    }

    fn hand_over(&self, restored: Restored) -> Result<(), SpoolError> {
        let (reply, answer) = oneshot::channel();
        let commands = self.commands.upgrade().ok_or(SpoolError::Closed)?;
        let command = Command::Restore { restored: Box::new(restored), reply };
        commands.blocking_send(command).map_err(|_| self.shared.gone())?;
        drop(commands);
        answer.blocking_recv().unwrap_or_else(|_| Err(self.shared.gone()))
    }
}

fn ambiguous(index: &Index) -> Vec<(MessageId, Vec<usize>)> {
    let recipients = |id| index.sending(id).iter().map(|index| *index as usize).collect();
    index.being_sent().map(|id| (id, recipients(id))).collect()
}

/// Replays one segment; returns how much was cut off its end.
fn replay_segment(found: &Found, replay: &mut Replay) -> Result<u64, SpoolError> {
    let Found { segment, bytes, open } = found;
    if !open {
        replay.segment(segment.clone(), *bytes, Tail::Complete).context("read", &segment.path)?;
        return Ok(0);
    }
    let data_end = data_end(&segment.file, *bytes).context("read", &segment.path)?.max(SEGMENT_HEADER);
    let tail = Tail::Open { data_end };
    let end = replay.segment(segment.clone(), *bytes, tail).context("read", &segment.path)?;
    // What the dead process wrote and did not sync is about to be relied upon.
    segment.file.set_len(end).and_then(|()| segment.file.sync_all()).context("truncate", &segment.path)?;
    Ok(data_end.saturating_sub(end))
}

/// Puts what is damaged into quarantine; returns the messages, which the log must then call removed.
fn quarantine_damaged(
    directory: &Path,
    replay: &mut Replay,
    quarantined: &mut Vec<Quarantined>,
) -> Result<Vec<MessageId>, SpoolError> {
    let damaged = replay.take_damaged();
    for (id, damage) in &damaged {
        let find = |number| replay.index.segment(number);
        quarantine::keep_message(directory, *id, &damage.reason, &damage.remains, find)?;
        quarantined.push(Quarantined { subject: Subject::Message(*id), reason: damage.reason.clone() });
    }
    for stretch in &replay.stretches {
        let Some(segment) = replay.index.segment(stretch.segment) else { continue };
        if quarantine::keep_stretch(directory, &segment, stretch.from, stretch.to)? {
            let length = stretch.to - stretch.from;
            quarantined.push(Quarantined {
                subject: Subject::Stretch { segment: stretch.segment, offset: stretch.from, length },
                reason: segment.place("damaged records", stretch.from),
            });
        }
    }
    Ok(damaged.into_iter().map(|(id, _)| id).collect())
}

/// Lets the account agree with what was found, as far as damage explains that it does not. An earlier format had no account: it
/// begins with what is queued.
fn settle_account(replay: &mut Replay, recovery: &Recovery) {
    let queued = replay.index.queued();
    let ledger = &mut replay.index.ledger;
    if !replay.accounted {
        *ledger = Ledger::accepted(queued);
    }
    if replay.doubtful || !replay.stretches.is_empty() || !recovery.quarantined.is_empty() {
        ledger.reconcile(queued);
    }
    if ledger.accepted != ledger.fates.total() + queued {
        tracing::error!(
            ?ledger,
            queued,
            "the spool's account of recipients does not balance; please report this"
        );
    }
}
