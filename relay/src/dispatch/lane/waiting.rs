//! The jobs that wait for the sessions of a lane: in turn, or aside while a route or an identity that they count for has no room.
//!
//! Pure. What is aside keeps nobody else waiting, however much it is: it comes back into turn one by one, each when the one before it
//! has gone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::budget::{Budgets, Refused, Scope, Until};
use crate::delivery::Job;
use crate::message::MessageId;
use crate::queue::fair::Fair;

/// All jobs that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    turns: Fair<Job>,
    aside: BTreeMap<Scope, Aside>,
    /// The message accepted first of those that wait; `None` when it has gone and the next has not been looked for.
    oldest: Option<MessageId>,
    /// How many of them carry a message in transit.
    in_transit: usize,
}

/// The jobs that count for one scope which has no room, oldest first.
#[derive(Debug)]
struct Aside {
    jobs: VecDeque<Job>,
    next: Next,
}

/// What the first of the jobs aside waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// There may be room.
    Room(Until),
    /// The one before it, which is in turn.
    Predecessor,
    /// Nothing.
    Due,
}

impl Waiting {
    /// Adds a job behind those that it has to wait for.
    pub(super) fn push(&mut self, job: Job) {
        self.come(&job);
        match job.scopes.iter().find(|scope| self.aside.contains_key(scope)) {
            Some(scope) => {
                let scope = scope.clone();
                self.behind(&scope, job);
            }
            None => self.turns.push(job.rank, job),
        }
    }

    /// Puts back a job that was taken and not used: it is the next.
    pub(super) fn push_front(&mut self, job: Job) {
        self.come(&job);
        self.turns.push_front(job.rank, job);
    }

    /// The job whose turn it is.
    pub(super) fn front(&mut self) -> Option<&Job> {
        self.turns.front()
    }

    /// Takes the job whose turn it is to be given to a session: the next of those aside for the same reasons follows it.
    pub(super) fn pop(&mut self) -> Option<Job> {
        let job = self.turns.pop()?;
        self.gone(&job, None);
        self.oldest.take_if(|oldest| *oldest == job.id);
        self.in_transit -= usize::from(job.in_transit);
        Some(job)
    }

    /// Sets the job whose turn it is aside, because a scope has no room for it.
    pub(super) fn set_aside(&mut self, refused: Refused) {
        let Some(job) = self.turns.pop() else { return };
        let Refused { scope, until } = refused;
        let aside =
            self.aside.entry(scope.clone()).or_insert(Aside { jobs: VecDeque::new(), next: Next::Due });
        aside.next = Next::Room(until);
        aside.jobs.push_front(job.clone());
        self.gone(&job, Some(&scope));
    }

    /// Sets the job whose turn it is aside without asking, when others of its kind are known to have no room.
    pub(super) fn follow_others(&mut self) -> bool {
        let waits =
            |scope: &&Scope| self.aside.get(*scope).is_some_and(|aside| matches!(aside.next, Next::Room(_)));
        let Some(scope) = self.turns.front().and_then(|job| job.scopes.iter().find(waits).cloned()) else {
            return false;
        };
        if let Some(job) = self.turns.pop() {
            self.gone(&job, Some(&scope));
            self.behind(&scope, job);
        }
        true
    }

    /// Brings the first of those aside back into turn where there may be room now.
    pub(super) fn release(&mut self, budgets: &Budgets, now: Instant) {
        for (scope, aside) in &mut self.aside {
            let due = match aside.next {
                Next::Room(until) => budgets.may_have_room(scope, until, now),
                Next::Predecessor => false,
                Next::Due => true,
            };
            if due && let Some(job) = aside.jobs.pop_front() {
                aside.next = Next::Predecessor;
                self.turns.push(job.rank, job);
            }
        }
        self.aside.retain(|_, aside| !aside.jobs.is_empty() || aside.next == Next::Predecessor);
    }

    /// When to [release](Self::release) by time alone.
    pub(super) fn wake_at(&self, now: Instant) -> Option<Instant> {
        let wake = |aside: &Aside| match aside.next {
            Next::Room(Until::Moment(moment)) => Some(moment),
            Next::Room(Until::Revision(_)) | Next::Predecessor => None,
            Next::Due => Some(now),
        };
        self.aside.values().filter_map(wake).min()
    }

    /// Takes all jobs for which `wanted` holds, in no order, each with the scope for which it is aside.
    pub(super) fn take(
        &mut self,
        wanted: impl Fn(&Job, Option<&Scope>) -> bool,
    ) -> Vec<(Job, Option<Scope>)> {
        let mut taken: Vec<_> =
            self.turns.take(|job| wanted(job, None)).into_iter().map(|job| (job, None)).collect();
        for (scope, aside) in &mut self.aside {
            let (mine, others): (VecDeque<Job>, VecDeque<Job>) =
                std::mem::take(&mut aside.jobs).into_iter().partition(|job| wanted(job, Some(scope)));
            aside.jobs = others;
            taken.extend(mine.into_iter().map(|job| (job, Some(scope.clone()))));
            // The one they wait for may be among those taken.
            if aside.next == Next::Predecessor {
                aside.next = Next::Due;
            }
        }
        self.oldest.take_if(|_| !taken.is_empty());
        self.in_transit -= taken.iter().filter(|(job, _)| job.in_transit).count();
        taken
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.turns.iter().chain(self.aside.values().flat_map(|aside| &aside.jobs))
    }

    /// The message accepted first of those that wait. Looks at all of them when the one that was it has gone since.
    pub(super) fn oldest(&mut self) -> Option<MessageId> {
        if self.oldest.is_none() {
            self.oldest = self.iter().map(|job| job.id).min();
        }
        self.oldest
    }

    /// How many carry a message in transit.
    pub(super) fn in_transit(&self) -> usize {
        self.in_transit
    }

    /// How many are in turn.
    pub(super) fn in_turn(&self) -> usize {
        self.turns.len()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.turns.len() + self.aside.values().map(|aside| aside.jobs.len()).sum::<usize>()
    }

    /// The job is about to wait.
    fn come(&mut self, job: &Job) {
        if self.len() == 0 {
            self.oldest = Some(job.id);
        }
        self.oldest = self.oldest.map(|oldest| oldest.min(job.id));
        self.in_transit += usize::from(job.in_transit);
    }

    fn behind(&mut self, scope: &Scope, job: Job) {
        if let Some(aside) = self.aside.get_mut(scope) {
            aside.jobs.push_back(job);
        }
    }

    /// The job is in turn no longer: who waited for it, other than in `kept`, waits for nothing now.
    fn gone(&mut self, job: &Job, kept: Option<&Scope>) {
        for scope in job.scopes.iter().filter(|scope| Some(*scope) != kept) {
            if let Some(aside) = self.aside.get_mut(scope)
                && aside.next == Next::Predecessor
            {
                aside.next = Next::Due;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::queue::fair::{Priority, Rank, Tenant};

    fn job(id: u128, scoped: bool) -> Job {
        let rank = Rank { tenant: Tenant(id as u32 % 3), priority: Priority::Normal };
        let scopes = if scoped { [Scope::Identity("shop".into())].into() } else { [].into() };
        Job {
            id: MessageId(id),
            recipients: [0].into(),
            rank,
            scopes,
            broken_sessions: 0,
            in_transit: id.is_multiple_of(2),
        }
    }

    proptest! {
        #[test]
        fn the_oldest_and_the_count_are_those_of_the_jobs_that_wait_whatever_came_and_went(
            operations in prop::collection::vec((0_u8..7, 0_u128..30, any::<bool>()), 0..100),
        ) {
            let mut waiting = Waiting::default();
            let until = Until::Moment(Instant::now() + Duration::from_secs(1));
            for (operation, id, scoped) in operations {
                match operation {
                    0 | 1 => waiting.push(job(id, scoped)),
                    2 => waiting.push_front(job(id, scoped)),
                    3 => drop(waiting.pop()),
                    4 => waiting.set_aside(Refused { scope: Scope::Identity("shop".into()), until }),
                    5 => drop(waiting.take(|job, _| job.id.0 == id)),
                    _ => {
                        let oldest = waiting.iter().map(|job| job.id).min();
                        prop_assert_eq!(waiting.oldest(), oldest);
                    }
                }
            }
            let oldest = waiting.iter().map(|job| job.id).min();
            prop_assert_eq!(waiting.oldest(), oldest);
            prop_assert_eq!(waiting.in_transit(), waiting.iter().filter(|job| job.in_transit).count());
        }
    }
}
