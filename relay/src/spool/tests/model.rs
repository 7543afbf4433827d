//! Random histories against a model: nothing acknowledged is lost, nothing removed comes back, a settlement is whole, whatever
//! byte a crash cuts the last write at, with segments rotating and being reclaimed underneath.

use std::collections::BTreeMap;
use std::fs::OpenOptions;

use proptest::prelude::*;
use tempfile::TempDir;

use super::super::record::CHUNK;
use super::super::segment::{SEGMENT_HEADER, file_name};
use super::super::{Recovery, Settlement, Spool};
use super::support::{
    assert_stored, content, directory, envelope, image, open, reclaimed, runtime, small, state, store,
};
use crate::message::MessageId;

/// The messages that must be there: size and attempts.
type Model = BTreeMap<u128, (usize, u32)>;

#[derive(Clone, Debug)]
enum Operation {
    Store(usize),
    /// Of the message at this place of the model, as the following.
    Update(prop::sample::Index, u32),
    Remove(prop::sample::Index),
    Settle(prop::sample::Index, Option<u32>, Vec<usize>),
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

fn step() -> impl Strategy<Value = Step> {
    let place = any::<prop::sample::Index>;
    let operation = prop_oneof![
        6 => size().prop_map(Operation::Store),
        3 => (place(), 1..9_u32).prop_map(|(place, attempts)| Operation::Update(place, attempts)),
        5 => place().prop_map(Operation::Remove),
        3 => (place(), prop::option::of(1..9_u32), prop::collection::vec(size(), 0..3))
            .prop_map(|(place, attempts, accept)| Operation::Settle(place, attempts, accept)),
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
        Self { directory, spool, model: Model::new(), next: 1 }
    }

    fn name(&mut self) -> u128 {
        self.next += 1;
        self.next
    }

    fn pick(&self, place: &prop::sample::Index) -> Option<u128> {
        (!self.model.is_empty()).then(|| *place.get(&self.model.keys().copied().collect::<Vec<_>>()))
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
                self.model.insert(id, (size, 0));
            }
            Operation::Update(place, attempts) => {
                let Some(id) = self.pick(&place) else { return };
                self.spool.update(MessageId(id), state(attempts)).await.unwrap();
                self.model.entry(id).and_modify(|message| message.1 = attempts);
            }
            Operation::Remove(place) => {
                let Some(id) = self.pick(&place) else { return };
                self.spool.remove(MessageId(id)).await.unwrap();
                self.model.remove(&id);
            }
            Operation::Settle(place, attempts, sizes) => {
                let Some(id) = self.pick(&place) else { return };
                let new: Vec<_> = sizes.into_iter().map(|size| (self.name(), size)).collect();
                let accept =
                    new.iter().map(|&(id, size)| (envelope(id, size), state(0), content(id, size))).collect();
                let settlement = Settlement { id: MessageId(id), state: attempts.map(state), accept };
                self.spool.settle(settlement).await.unwrap();
                match attempts {
                    Some(attempts) => drop(self.model.entry(id).and_modify(|message| message.1 = attempts)),
                    None => drop(self.model.remove(&id)),
                }
                self.model.extend(new.into_iter().map(|(id, size)| (id, (size, 0))));
            }
            Operation::Abandon(size) => {
                let mut draft = self.spool.draft();
                draft.append(content(0, size)).await.unwrap();
                drop(draft);
                // Once this is answered, a turn that saw the draft gone is over.
                self.spool.remove(MessageId(0)).await.unwrap_err();
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
            model.iter().map(|(id, message)| (*id, state(message.1).due_at.0)).collect()
        };
        if found != expected(&self.model) {
            assert!(!all, "found {found:?} instead of {:?}", self.model);
            assert_eq!(found, expected(before), "neither all of the last operation nor nothing of it");
            self.model = before.clone();
        }
        (self.directory, self.spool) = (image, spool);
        self.verify(&recovery).await;
    }

    async fn verify(&self, recovery: &Recovery) {
        assert_eq!(recovery.quarantined, [], "nothing is damaged");
        assert_eq!(recovery.messages.len(), self.model.len());
        for (id, (size, attempts)) in &self.model {
            assert_stored(&self.spool, *id, *size, *attempts).await;
        }
        let live = self.spool.usage().live_bytes;
        let counted: u64 = {
            let index = self.spool.handle.shared.index();
            let parts = self.model.keys().filter_map(|id| index.parts(MessageId(*id)));
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
}
