//! The writer thread: the only one that changes the log and the index.
//!
//! It takes all commands that wait (within a bound), stages their records, writes them at once, syncs once and then answers
//! all: group commit. No latency is added on purpose; batches form because commands arrive while a sync runs. A command is
//! answered, and seen in the index, only after the sync that covers it. The first failed write or sync is the last: every
//! command from then on, those of the batch included, is answered `Unhealthy`.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::timeout;

use super::command::{Change, Command, NewMessage, Reply, Restored, Sending};
use super::error::SpoolError;
use super::ledger::Fate;
use super::log::Log;
use super::options::Options;
use super::reclaim::{Effect, Reclaim, quarantine_stored};
use super::record::{Kind, Location};
use super::shared::{Health, Pinned, Shared};
use super::space::{self, Space};
use crate::message::MessageId;

/// A batch takes no further command once it has so many …
const BATCH_COMMANDS: usize = 1024;
/// … or so many bytes.
const BATCH_BYTES: u64 = 8 << 20;
/// How often a full spool looks whether there is room again.
const EXAMINE_EVERY: Duration = Duration::from_secs(1);

/// The writer's state. [`run`](Self::run) is its thread.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) directory: PathBuf,
    pub(super) options: Options,
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) log: Log,
    pub(super) reclaim: Reclaim,
    /// Keeps other processes out; released when the thread ends.
    pub(super) lock: File,
    /// What reads the segments of earlier runs.
    pub(super) reading: JoinHandle<()>,
    /// Lets the thread wait for commands no longer than a time.
    pub(super) clock: Runtime,
}

/// What one turn is going to answer and to change in the index, once it is synced.
#[derive(Default)]
struct Batch {
    effects: Vec<Effect>,
    answers: Vec<Answer>,
    /// Who waits for no more than that the batch is written.
    written: Vec<Reply<()>>,
    /// The queued recipients of messages that this batch changes, `None` for those it ends: what later commands of it must
    /// see.
    queued: HashMap<MessageId, Option<u32>>,
    refused_full: bool,
    /// What the file system had free when the batch first asked.
    free: Option<u64>,
}

/// Given at the end of the turn, refusals too: what they say may rest on what the batch changes.
enum Answer {
    Done(Reply<()>, Result<(), SpoolError>),
    Chunk(Reply<Pinned>, Result<Pinned, SpoolError>),
}

impl Answer {
    fn give(self) {
        // A caller that is gone needs no answer; its chunk is unpinned by being dropped.
        match self {
            Self::Done(reply, outcome) => drop(reply.send(outcome)),
            Self::Chunk(reply, outcome) => drop(reply.send(outcome)),
        }
    }

    fn refuse(self, error: SpoolError) {
        match self {
            Self::Done(reply, _) => drop(reply.send(Err(error))),
            Self::Chunk(reply, _) => drop(reply.send(Err(error))),
        }
    }
}

impl Writer {
    /// Serves until the spool is closed or its last handle is dropped.
    pub(super) fn run(mut self) {
        let _fuse = Fuse(self.shared.clone());
        let mut closing = None;
        while closing.is_none() {
            let idle_work = self.reclaim.pending() && self.failure().is_none();
            self.shared.reclaiming.store(idle_work, Ordering::Relaxed);
            let first = if idle_work {
                match self.commands.try_recv() {
                    Ok(command) => Some(command),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Disconnected) => break,
                }
            } else if matches!(&*self.shared.health.borrow(), Health::Full) {
                // Room may come without a command: a volume is enlarged, another's files go.
                let waiting = async { timeout(EXAMINE_EVERY, self.commands.recv()).await };
                match self.clock.block_on(waiting) {
                    Ok(None) => break,
                    Ok(command) => command,
                    Err(_) => None,
                }
            } else {
                let Some(command) = self.commands.blocking_recv() else { break };
                Some(command)
            };
            let mut commands = VecDeque::new();
            closing = self.gather(first, &mut commands);
            self.turn(commands);
        }
        self.finish(closing);
    }

    /// Takes the commands that wait; returns the reply of a `Close`, which ends the batch.
    fn gather(&mut self, first: Option<Command>, commands: &mut VecDeque<Command>) -> Option<Reply<()>> {
        let mut bytes = 0;
        let mut next = first;
        while let Some(command) = next {
            if let Command::Close { reply } = command {
                return Some(reply);
            }
            bytes += command.bytes();
            commands.push_back(command);
            let more = commands.len() < BATCH_COMMANDS && bytes < BATCH_BYTES;
            next = if more { self.commands.try_recv().ok() } else { None };
        }
        None
    }

    /// One group commit.
    fn turn(&mut self, mut commands: VecDeque<Command>) {
        let mut batch = Batch::default();
        if self.failure().is_none()
            && let Err(error) = self.commit(&mut commands, &mut batch)
        {
            self.shared.fail(&error);
        }
        if let Some(reason) = self.failure() {
            let refusal = || SpoolError::Unhealthy(reason.clone());
            batch.answers.into_iter().for_each(|answer| answer.refuse(refusal()));
            batch.written.into_iter().for_each(|reply| drop(reply.send(Err(refusal()))));
            commands.into_iter().for_each(|command| command.refuse(refusal()));
            return;
        }
        self.apply(batch.effects);
        self.watch_budget(batch.refused_full);
        self.shared.reclaiming.store(self.reclaim.pending(), Ordering::Relaxed);
        batch.answers.into_iter().for_each(Answer::give);
    }

    /// Stages, writes and syncs. Commands left in the queue were not staged.
    fn commit(&mut self, commands: &mut VecDeque<Command>, batch: &mut Batch) -> Result<(), SpoolError> {
        // First, while the index shows all that is in the log.
        self.reclaim.step(&mut self.log, &mut batch.effects)?;
        batch.queued.extend(batch.effects.iter().filter_map(Effect::end).map(|id| (id, None)));
        while let Some(command) = commands.front() {
            self.log.room(command.bytes())?;
            if let Some(command) = commands.pop_front() {
                self.stage(command, batch);
            }
        }
        self.log.write()?;
        batch.written.drain(..).for_each(|reply| drop(reply.send(Ok(()))));
        self.log.sync()
    }

    fn stage(&mut self, command: Command, batch: &mut Batch) {
        match command {
            Command::Content { record, reply } => {
                let fits = self.fits(record.record_bytes(), batch);
                let chunk = fits.map(|()| Pinned::new(self.log.stage(&record), &self.shared));
                batch.answers.push(Answer::Chunk(reply, chunk));
            }
            Command::Store { message, reply } => {
                let staged = self.fits(message.bytes(), batch).and_then(|()| self.store(message, batch));
                batch.answers.push(Answer::Done(reply, staged));
            }
            Command::Change { change, reply } => {
                let staged = self.change(&change, batch);
                batch.answers.push(Answer::Done(reply, staged));
            }
            Command::Sending { sending, reply } => self.sending(sending, reply, batch),
            Command::Settle { change, messages, reply } => {
                let staged = self.settle(&change, messages, batch);
                batch.answers.push(Answer::Done(reply, staged));
            }
            Command::Remove { id, fate, reply } => {
                let staged = self.end(id, fate, batch);
                batch.answers.push(Answer::Done(reply, staged));
            }
            Command::Quarantine { id, reason, reply } => {
                let kept = self
                    .present(id, batch)
                    .and_then(|_| quarantine_stored(&self.directory, id, &reason, &self.shared));
                let staged = kept.and_then(|_| self.end(id, Fate::Quarantined, batch));
                batch.answers.push(Answer::Done(reply, staged));
            }
            Command::Restore { restored, reply } => {
                self.restore(*restored, batch);
                batch.answers.push(Answer::Done(reply, Ok(())));
            }
            Command::Close { reply } => batch.answers.push(Answer::Done(reply, Err(SpoolError::Closed))),
        }
    }

    fn store(&mut self, message: NewMessage, batch: &mut Batch) -> Result<(), SpoolError> {
        self.absent(message.id, batch)?;
        let places = message.records.iter().map(|record| self.log.stage(record)).collect();
        batch.accept(message, places);
        Ok(())
    }

    fn change(&mut self, change: &Change, batch: &mut Batch) -> Result<(), SpoolError> {
        self.accounted(change, batch)?;
        let place = self.log.stage(&change.record);
        batch.change(change, place);
        Ok(())
    }

    fn sending(&mut self, sending: Sending, reply: Reply<()>, batch: &mut Batch) {
        let Sending { record, recipients } = sending;
        if let Err(error) = self.present(record.id, batch) {
            return batch.answers.push(Answer::Done(reply, Err(error)));
        }
        self.log.stage(&record);
        let id = record.id;
        batch.effects.push(match record.kind {
            Kind::NotSent => Effect::NotSent { id, recipients },
            _ => Effect::Sending { id, recipients },
        });
        if record.synced {
            batch.answers.push(Answer::Done(reply, Ok(())));
        } else {
            batch.written.push(reply);
        }
    }

    fn end(&mut self, id: MessageId, fate: Fate, batch: &mut Batch) -> Result<(), SpoolError> {
        let recipients = self.present(id, batch)?;
        self.change(&Change::end(id, fate, recipients), batch)
    }

    fn settle(
        &mut self,
        change: &Change,
        messages: Vec<NewMessage>,
        batch: &mut Batch,
    ) -> Result<(), SpoolError> {
        self.accounted(change, batch)?;
        for message in &messages {
            self.absent(message.id, batch)?;
        }
        // The change last: what it lets go of is then replaced already.
        let members: Vec<_> =
            messages.iter().flat_map(|message| &message.records).chain([&change.record]).collect();
        let mut places = self.log.stage_group(&members);
        let place = places.pop();
        let mut places = places.into_iter();
        for message in messages {
            let own = places.by_ref().take(message.records.len()).collect();
            batch.accept(message, own);
        }
        place.into_iter().for_each(|place| batch.change(change, place));
        Ok(())
    }

    fn restore(&mut self, restored: Restored, batch: &mut Batch) {
        for removal in restored.removals() {
            self.log.stage(&removal);
        }
        self.log.restore(restored.index.ledger);
        batch.effects.push(Effect::Restored { index: Box::new(restored.index) });
    }

    /// The recipients of a message that are queued as far as the batch has got; `None` when it is not there.
    fn queued(&self, id: MessageId, batch: &Batch) -> Option<u32> {
        batch.queued.get(&id).copied().unwrap_or_else(|| self.shared.index().queued_of(id))
    }

    fn present(&self, id: MessageId, batch: &Batch) -> Result<u32, SpoolError> {
        self.queued(id, batch).ok_or(SpoolError::Unknown(id))
    }

    fn absent(&self, id: MessageId, batch: &Batch) -> Result<(), SpoolError> {
        self.queued(id, batch).map_or(Ok(()), |_| Err(SpoolError::Duplicate(id)))
    }

    /// Whether the message is there, and the change says of every recipient that it ends what became of it.
    fn accounted(&self, change: &Change, batch: &Batch) -> Result<(), SpoolError> {
        let before = self.present(change.record.id, batch)?;
        let after = u64::from(change.queued) + change.record.posting.fates.total();
        if u64::from(before) == after {
            return Ok(());
        }
        Err(SpoolError::Inconsistent("the fates are not those of the recipients that are queued no longer"))
    }

    fn fits(&self, bytes: u64, batch: &mut Batch) -> Result<(), SpoolError> {
        let free = *batch.free.get_or_insert_with(|| space::free(&self.directory));
        let admitted = self.space(free.saturating_sub(self.log.staged_bytes())).admit(bytes);
        batch.refused_full |= admitted.is_err();
        admitted
    }

    fn space(&self, free: u64) -> Space {
        let Options { maximum_bytes: maximum, segment_bytes, .. } = self.options;
        Space { total: self.log.total_bytes(), maximum, free, segment_bytes }
    }

    /// Makes the index show what is now on stable storage.
    fn apply(&mut self, effects: Vec<Effect>) {
        let mut unpinned = Vec::new();
        let mut restored = false;
        let mut index = self.shared.index();
        for effect in effects {
            match effect {
                Effect::Accepted { id, accepted, content, queued, pins } => {
                    index.accept(id, accepted, &content, queued);
                    unpinned.extend(pins);
                }
                Effect::State { id, state, queued, under_way } => {
                    index.change_state(id, state, queued, &under_way);
                }
                Effect::Sending { id, recipients } => index.send(id, &recipients),
                Effect::NotSent { id, recipients } => index.not_sent(id, &recipients),
                Effect::Removed { id } => {
                    index.remove(id);
                }
                Effect::Restored { index: earlier } => {
                    index.restore(*earlier);
                    restored = true;
                }
            }
        }
        index.ledger = self.log.ledger();
        // Pins are let go of after the index, which they lock.
        drop(index);
        if restored {
            self.shared.unread.send_replace(None);
            self.log.measure();
        }
    }

    fn watch_budget(&self, refused: bool) {
        let space = self.space(space::free(&self.directory));
        let roomy = space.roomy();
        let health = if space.exhausted() || refused && !roomy {
            Health::Full
        } else if roomy {
            Health::Healthy
        } else {
            return;
        };
        let changed = self.shared.health.send_if_modified(|current| {
            let changed = *current != health;
            current.clone_from(&health);
            changed
        });
        if changed {
            match health {
                Health::Full => tracing::warn!(?space, "the spool is full: no mail is accepted"),
                _ => tracing::info!(?space, "the spool has room again"),
            }
        }
    }

    fn failure(&self) -> Option<String> {
        match &*self.shared.health.borrow() {
            Health::Unhealthy(reason) => Some(reason.clone()),
            _ => None,
        }
    }

    /// Closes the log, lets other processes in, and then answers.
    fn finish(mut self, closing: Option<Reply<()>>) {
        if self.failure().is_none()
            && let Err(error) = self.log.close()
        {
            self.shared.fail(&error);
        }
        let outcome = self.failure().map_or(Ok(()), |reason| Err(SpoolError::Unhealthy(reason)));
        let Self { log, lock, commands, reading, shared, .. } = self;
        shared.closing.store(true, Ordering::Relaxed);
        // It waits for an answer that it will not get, or looks at `closing` after the segment it is at.
        drop(commands);
        let _ = reading.join();
        drop(log);
        drop(lock);
        if let Some(reply) = closing {
            drop(reply.send(outcome));
        }
    }
}

impl Batch {
    /// Notes that a message with these records, its `Accepted` the last, is staged at `places`.
    fn accept(&mut self, message: NewMessage, places: Vec<Location>) {
        let NewMessage { id, queued, written: pins, .. } = message;
        let mut content: Vec<_> = pins.iter().map(|chunk| chunk.location).chain(places).collect();
        let accepted = content.pop().expect("a new message has an Accepted record");
        self.queued.insert(id, Some(queued));
        self.effects.push(Effect::Accepted { id, accepted, content, queued, pins });
    }

    fn change(&mut self, change: &Change, place: Location) {
        let Change { record, queued, under_way } = change;
        let (id, queued) = (record.id, *queued);
        let removed = record.kind == Kind::Removed;
        self.queued.insert(id, (!removed).then_some(queued));
        let effect = if removed {
            Effect::Removed { id }
        } else {
            Effect::State { id, state: place, queued, under_way: under_way.clone() }
        };
        self.effects.push(effect);
    }
}

/// Makes a writer that ends by a panic known.
struct Fuse(Arc<Shared>);

impl Drop for Fuse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.health.send_replace(Health::Unhealthy("the spool's writer has crashed".into()));
        }
    }
}
