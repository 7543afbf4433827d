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
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::timeout;

use super::command::{Command, NewMessage, Reply};
use super::error::SpoolError;
use super::log::Log;
use super::options::Options;
use super::reclaim::{Effect, Reclaim, quarantine_stored};
use super::record::{Kind, Location, Record};
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
    /// Lets the thread wait for commands no longer than a time.
    pub(super) clock: Runtime,
}

/// What one turn is going to answer and to change in the index, once it is synced.
#[derive(Default)]
struct Batch {
    effects: Vec<Effect>,
    answers: Vec<Answer>,
    /// Messages that this batch makes come or go: what later commands of it must see.
    presence: HashMap<MessageId, bool>,
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
            self.fail(&error);
        }
        if let Some(reason) = self.failure() {
            let refusal = || SpoolError::Unhealthy(reason.clone());
            batch.answers.into_iter().for_each(|answer| answer.refuse(refusal()));
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
        while let Some(command) = commands.front() {
            self.log.room(command.bytes())?;
            if let Some(command) = commands.pop_front() {
                self.stage(command, batch);
            }
        }
        self.log.write()?;
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
            Command::Change { record, reply } => {
                let staged = self.change(&record, batch);
                batch.answers.push(Answer::Done(reply, staged));
            }
            Command::Settle { record, messages, reply } => {
                let staged = self.settle(record, messages, batch);
                batch.answers.push(Answer::Done(reply, staged));
            }
            Command::Quarantine { id, reason, reply } => {
                let kept = self
                    .expect(id, true, batch)
                    .and_then(|()| quarantine_stored(&self.directory, id, &reason, &self.shared));
                let staged = kept.and_then(|record| self.change(&record, batch));
                batch.answers.push(Answer::Done(reply, staged));
            }
            Command::Close { reply } => batch.answers.push(Answer::Done(reply, Err(SpoolError::Closed))),
        }
    }

    fn store(&mut self, message: NewMessage, batch: &mut Batch) -> Result<(), SpoolError> {
        self.expect(message.id, false, batch)?;
        let places = message.records.iter().map(|record| self.log.stage(record)).collect();
        batch.accept(message, places);
        Ok(())
    }

    fn change(&mut self, record: &Record, batch: &mut Batch) -> Result<(), SpoolError> {
        self.expect(record.id, true, batch)?;
        let place = self.log.stage(record);
        batch.change(record, place);
        Ok(())
    }

    fn settle(
        &mut self,
        record: Record,
        messages: Vec<NewMessage>,
        batch: &mut Batch,
    ) -> Result<(), SpoolError> {
        self.expect(record.id, true, batch)?;
        for message in &messages {
            self.expect(message.id, false, batch)?;
        }
        // The change last: what it lets go of is then replaced already.
        let members: Vec<_> = messages.iter().flat_map(|message| &message.records).chain([&record]).collect();
        let mut places = self.log.stage_group(&members);
        let change = places.pop();
        let mut places = places.into_iter();
        for message in messages {
            let own = places.by_ref().take(message.records.len()).collect();
            batch.accept(message, own);
        }
        change.into_iter().for_each(|place| batch.change(&record, place));
        Ok(())
    }

    /// Whether the message is there, or not there, as the command supposes.
    fn expect(&self, id: MessageId, present: bool, batch: &Batch) -> Result<(), SpoolError> {
        let found = batch.presence.get(&id).copied().unwrap_or_else(|| self.shared.index().contains(id));
        match (present, found) {
            (true, false) => Err(SpoolError::Unknown(id)),
            (false, true) => Err(SpoolError::Duplicate(id)),
            _ => Ok(()),
        }
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
    fn apply(&self, effects: Vec<Effect>) {
        let mut unpinned = Vec::new();
        let mut index = self.shared.index();
        for effect in effects {
            match effect {
                Effect::Accepted { id, accepted, content, pins } => {
                    index.accept(id, accepted, &content);
                    unpinned.extend(pins);
                }
                Effect::State { id, state } => {
                    index.change_state(id, state);
                }
                Effect::Removed { id } => {
                    index.remove(id);
                }
            }
        }
        // Pins are let go of after the index, which they lock.
        drop(index);
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

    fn fail(&self, error: &SpoolError) {
        tracing::error!(%error, "the spool keeps nothing more until the relay is restarted");
        self.shared.health.send_replace(Health::Unhealthy(error.to_string()));
    }

    /// Closes the log, lets other processes in, and then answers.
    fn finish(mut self, closing: Option<Reply<()>>) {
        if self.failure().is_none()
            && let Err(error) = self.log.close()
        {
            self.fail(&error);
        }
        let outcome = self.failure().map_or(Ok(()), |reason| Err(SpoolError::Unhealthy(reason)));
        let Self { log, lock, .. } = self;
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
        let NewMessage { id, written: pins, .. } = message;
        let mut content: Vec<_> = pins.iter().map(|chunk| chunk.location).chain(places).collect();
        let accepted = content.pop().expect("a new message has an Accepted record");
        self.presence.insert(id, true);
        self.effects.push(Effect::Accepted { id, accepted, content, pins });
    }

    fn change(&mut self, record: &Record, place: Location) {
        let id = record.id;
        self.presence.insert(id, record.kind != Kind::Removed);
        self.effects.push(match record.kind {
            Kind::Removed => Effect::Removed { id },
            _ => Effect::State { id, state: place },
        });
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
