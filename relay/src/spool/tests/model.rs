//! Random histories against a model: nothing acknowledged is lost, nothing removed comes back, a settlement is whole, whatever
//! byte a crash cuts the last write at, with segments rotating and being reclaimed underneath; and damaged bytes cost only what they
//! touch.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::record::CHUNK;
use super::super::segment::{SEGMENT_HEADER, file_name};
use super::super::{Fate, Fates, Ledger, Settlement, Spool};
use super::examination::{Kept, examine};
use super::support::{
    Found, assert_balanced, assert_stored_as, content, directory, envelope, image, open, reclaimed, runtime,
    small, state, store,
};
use crate::message::{DeliveryState, MessageId, RecipientState};

/// What must be there.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    messages: BTreeMap<u128, Message>,
    /// Recipients that may be being sent to.
    sending: BTreeMap<u128, BTreeSet<usize>>,
    ledger: Ledger,
}

/// A message that must be there.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Message {
    size: usize,
    attempts: u32,
    /// Whether the first of its two recipients has ended.
    halved: bool,
}

impl Message {
    fn new(size: usize) -> Self {
        Self { size, attempts: 0, halved: false }
    }

    fn queued(self) -> u64 {
        if self.halved { 1 } else { 2 }
    }

    fn state(self) -> DeliveryState {
        let mut state = state(self.attempts);
        if self.halved {
            state.recipients[0] = RecipientState::Failed;
        }
        state
    }
}

impl Model {
    fn accept(&mut self, id: u128, size: usize) {
        self.messages.insert(id, Message::new(size));
        self.ledger.accepted += 2;
    }

    /// The message's queued recipients end; returns the fates to be told.
    fn end(&mut self, id: u128, fate: Fate) -> Fates {
        self.sending.remove(&id);
        let fates = Fates::of(fate, self.messages.remove(&id).map_or(0, Message::queued));
        self.ledger.fates += fates;
        fates
    }

    /// The attempt has come to its outcome, but for those.
    fn attempted(&mut self, id: u128, under_way: &[usize]) {
        if let Some(sending) = self.sending.get_mut(&id) {
            sending.retain(|index| under_way.contains(index));
        }
        self.sending.retain(|_, sending| !sending.is_empty());
    }

    fn ambiguous(&self) -> Vec<(MessageId, Vec<usize>)> {
        let recipients = |sending: &BTreeSet<usize>| sending.iter().copied().collect();
        self.sending.iter().map(|(id, sending)| (MessageId(*id), recipients(sending))).collect()
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Store(usize),
    /// Of the message at this place of the model, as the following.
    Update(prop::sample::Index, u32),
    /// The content is being sent to some recipients.
    Sending(prop::sample::Index, Vec<usize>, bool),
    /// It is not being sent to these after all.
    NotSent(prop::sample::Index, Vec<usize>),
    /// The first recipient ends; whether the attempt for the second goes on.
    Outcome(prop::sample::Index, Fate, bool),
    Remove(prop::sample::Index, Fate),
    Settle(prop::sample::Index, Option<u32>, Fate, Vec<usize>),
    /// Content of a draft that is never committed.
    Abandon(usize),
    Close,
}

/// An operation and, after it, perhaps a crash that cuts off its last write at this part of it, with zeros behind or not.
#[derive(Clone, Debug)]
struct Step {
    operation: Operation,
    crash: Option<(f64, bool)>,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0..6_000_usize, 1 => CHUNK - 10..CHUNK + 10, 1 => 2 * CHUNK..2 * CHUNK + 9_000]
}

fn fate() -> impl Strategy<Value = Fate> {
    prop::sample::select(Fate::ALL.as_slice())
}

fn step() -> impl Strategy<Value = Step> {
    let place = any::<prop::sample::Index>;
    let operation = prop_oneof![
        6 => size().prop_map(Operation::Store),
        3 => (place(), 1..9_u32).prop_map(|(place, attempts)| Operation::Update(place, attempts)),
        4 => (place(), prop::sample::subsequence(vec![0, 1], 1..=2), any::<bool>())
            .prop_map(|(place, recipients, synced)| Operation::Sending(place, recipients, synced)),
        2 => (place(), prop::sample::subsequence(vec![0, 1], 1..=2))
            .prop_map(|(place, recipients)| Operation::NotSent(place, recipients)),
        3 => (place(), fate(), any::<bool>())
            .prop_map(|(place, fate, goes_on)| Operation::Outcome(place, fate, goes_on)),
        5 => (place(), fate()).prop_map(|(place, fate)| Operation::Remove(place, fate)),
        3 => (place(), prop::option::of(1..9_u32), fate(), prop::collection::vec(size(), 0..3))
            .prop_map(|(place, attempts, fate, accept)| Operation::Settle(place, attempts, fate, accept)),
        1 => size().prop_map(Operation::Abandon),
        1 => Just(Operation::Close),
    ];
    (operation, prop::option::weighted(0.2, (0.0..=1.0, any::<bool>())))
        .prop_map(|(operation, crash)| Step { operation, crash })
}

/// The spool under test and what it should hold.
struct Trial {
    directory: TempDir,
    spool: Spool,
    model: Model,
    next: u128,
}

impl Trial {
    fn new() -> Self {
        let directory = directory();
        let (spool, _) = open(directory.path(), small());
        Self { directory, spool, model: Model::default(), next: 1 }
    }

    fn name(&mut self) -> u128 {
        self.next += 1;
        self.next
    }

    fn pick(&self, place: &prop::sample::Index) -> Option<u128> {
        let ids: Vec<_> = self.model.messages.keys().copied().collect();
        (!ids.is_empty()).then(|| *place.get(&ids))
    }

    async fn step(&mut self, step: Step) {
        reclaimed(&self.spool).await;
        let (model, oldest, end) = (self.model.clone(), self.oldest(), self.end());
        self.carry_out(step.operation).await;
        reclaimed(&self.spool).await;
        let Some((part, zeros)) = step.crash else { return };
        // Cutting may undo nothing that was synced: the deletion of a segment comes after its copies are.
        let (active, written) = self.end();
        let synced = if self.oldest() != oldest {
            written
        } else if active == end.0 {
            end.1
        } else {
            SEGMENT_HEADER
        };
        let cut = synced + ((written - synced) as f64 * part) as u64;
        self.crash(active, cut, zeros, &model, cut == written).await;
    }

    fn oldest(&self) -> Option<u32> {
        self.spool.handle.shared.index().segments.keys().next().copied()
    }

    /// The active segment, and how far it is written.
    fn end(&self) -> (u32, u64) {
        let index = self.spool.handle.shared.index();
        let (number, usage) = index.segments.last_key_value().unwrap();
        (*number, usage.written)
    }

    async fn carry_out(&mut self, operation: Operation) {
        match operation {
            Operation::Store(size) => {
                let id = self.name();
                store(&self.spool, id, size).await.unwrap();
                self.model.accept(id, size);
            }
            Operation::Update(place, attempts) => {
                let Some(id) = self.pick(&place) else { return };
                let message = self.retry(id, attempts);
                self.spool.update(MessageId(id), message.state()).await.unwrap();
            }
            Operation::Sending(place, recipients, synced) => {
                let Some(id) = self.pick(&place) else { return };
                self.spool
                    .sending(MessageId(id), &recipients, synced)
                    .await
                    .unwrap()
                    .answered()
                    .await
                    .unwrap();
                self.model.sending.entry(id).or_default().extend(recipients);
            }
            Operation::NotSent(place, recipients) => {
                let Some(id) = self.pick(&place) else { return };
                self.spool.not_sent(MessageId(id), &recipients).await.unwrap().answered().await.unwrap();
                let others: Vec<_> = [0, 1].into_iter().filter(|index| !recipients.contains(index)).collect();
                self.model.attempted(id, &others);
            }
            Operation::Outcome(place, fate, goes_on) => {
                let Some(id) = self.pick(&place) else { return };
                let Some(message) = self.model.messages.get_mut(&id).filter(|message| !message.halved) else {
                    return;
                };
                message.halved = true;
                let (state, fates) = (Some(message.state()), Fates::of(fate, 1));
                let under_way = if goes_on { vec![1] } else { vec![] };
                self.model.ledger.fates += fates;
                self.model.attempted(id, &under_way);
                let settlement = Settlement { id: MessageId(id), state, fates, under_way, accept: vec![] };
                self.spool.settle(settlement).await.unwrap();
            }
            Operation::Remove(place, fate) => {
                let Some(id) = self.pick(&place) else { return };
                self.spool.remove(MessageId(id), fate).await.unwrap();
                self.model.end(id, fate);
            }
            Operation::Settle(place, attempts, fate, sizes) => {
                let Some(id) = self.pick(&place) else { return };
                let new: Vec<_> = sizes.into_iter().map(|size| (self.name(), size)).collect();
                let accept =
                    new.iter().map(|&(id, size)| (envelope(id, size), state(0), content(id, size))).collect();
                let state = attempts.map(|attempts| self.retry(id, attempts).state());
                let fates = if state.is_none() { self.model.end(id, fate) } else { Fates::default() };
                let settlement = Settlement { id: MessageId(id), state, fates, under_way: vec![], accept };
                self.spool.settle(settlement).await.unwrap();
                new.into_iter().for_each(|(id, size)| self.model.accept(id, size));
            }
            Operation::Abandon(size) => {
                let mut draft = self.spool.draft();
                draft.append(content(0, size)).await.unwrap();
                drop(draft);
                // Once this is answered, a turn that saw the draft gone is over.
                self.spool.remove(MessageId(0), Fate::Delivered).await.unwrap_err();
            }
            Operation::Close => {
                self.spool.clone().close().await;
                let (spool, recovery) = open(self.directory.path(), small());
                assert!(recovery.clean);
                self.spool = spool;
                self.verify(&recovery).await;
            }
        }
    }

    fn retry(&mut self, id: u128, attempts: u32) -> Message {
        let message = self.model.messages.get_mut(&id).unwrap();
        message.attempts = attempts;
        let message = *message;
        self.model.attempted(id, &[]);
        message
    }

    /// Goes on from what a crash left behind: all of the last operation or none of it.
    async fn crash(&mut self, active: u32, cut: u64, zeros: bool, before: &Model, all: bool) {
        let image = image(self.directory.path());
        let file = OpenOptions::new().write(true).open(image.path().join(file_name(active))).unwrap();
        file.set_len(cut).unwrap();
        if zeros {
            file.set_len(cut + 5_000).unwrap();
        }
        let (spool, recovery) = open(image.path(), small());
        let found: Vec<_> =
            recovery.messages.iter().map(|message| (message.id.0, message.due_at.0)).collect();
        let expected = |model: &Model| -> Vec<_> {
            model.messages.iter().map(|(id, message)| (*id, message.state().due_at.0)).collect()
        };
        let ambiguous = &recovery.ambiguous;
        if (&found, spool.usage().ledger, ambiguous)
            != (&expected(&self.model), self.model.ledger, &self.model.ambiguous())
        {
            assert!(!all, "found {found:?} instead of {:?}", self.model);
            assert_eq!(found, expected(before), "neither all of the last operation nor nothing of it");
            self.model = before.clone();
        }
        (self.directory, self.spool) = (image, spool);
        self.verify(&recovery).await;
    }

    /// The messages as they must be found, and where they are.
    fn kept(&self) -> Kept {
        let index = self.spool.handle.shared.index();
        let kept = |(id, message): (&u128, &Message)| {
            (*id, (message.size, message.state(), index.parts(MessageId(*id)).unwrap()))
        };
        self.model.messages.iter().map(kept).collect()
    }

    /// What a crash leaves behind, or an end in order, with these bytes of its segments flipped.
    async fn damage(self, crash: bool, flips: Vec<(prop::sample::Index, prop::sample::Index)>) {
        reclaimed(&self.spool).await;
        let kept = self.kept();
        let spool = self.spool.clone();
        if !crash {
            spool.close().await;
        }
        let image = image(self.directory.path());
        let numbers: Vec<u32> =
            (1..10_000).filter(|number| image.path().join(file_name(*number)).exists()).collect();
        let mut flipped = Vec::new();
        for (segment, place) in flips {
            let segment = *segment.get(&numbers);
            let path = image.path().join(file_name(segment));
            let mut bytes = fs::read(&path).unwrap();
            let place = place.index(bytes.len());
            bytes[place] ^= 0xa5;
            fs::write(&path, bytes).unwrap();
            flipped.push((segment, place as u64));
        }
        examine(image.path(), small(), &kept, &flipped).await;
    }

    async fn verify(&self, recovery: &Found) {
        assert_eq!(recovery.quarantined, [], "nothing is damaged");
        assert_eq!(recovery.messages.len(), self.model.messages.len());
        assert_eq!(self.spool.usage().ledger, self.model.ledger);
        assert_eq!(recovery.ambiguous, self.model.ambiguous());
        assert_balanced(&self.spool);
        for (id, message) in &self.model.messages {
            assert_stored_as(&self.spool, *id, message.size, message.state()).await;
        }
        let live = self.spool.usage().live_bytes;
        let counted: u64 = {
            let index = self.spool.handle.shared.index();
            let parts = self.model.messages.keys().filter_map(|id| index.parts(MessageId(*id)));
            parts
                .flat_map(|parts| parts.content.into_iter().chain([parts.accepted]).chain(parts.state))
                .map(|location| location.record_bytes())
                .sum()
        };
        assert_eq!(live, counted, "live bytes are those of the messages' parts");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_history_of_operations_crashes_and_reclaiming_keeps_what_was_acknowledged(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        runtime().block_on(async {
            let mut trial = Trial::new();
            for step in steps {
                trial.step(step).await;
            }
            trial.carry_out(Operation::Close).await;
        });
    }

    #[test]
    fn damage_anywhere_after_any_history_costs_only_the_messages_it_touches(
        steps in prop::collection::vec(step(), 1..60),
        flips in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 1..5),
        crash in any::<bool>(),
    ) {
        runtime().block_on(async {
            let mut trial = Trial::new();
            for step in steps {
                trial.step(step).await;
            }
            trial.damage(crash, flips).await;
        });
    }
}
