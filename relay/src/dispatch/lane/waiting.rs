//! The jobs that wait for the sessions of a lane: in turn, or aside while a route or an identity that they count for has no room.
//!
//! Pure. What is aside keeps nobody else waiting, however much it is: it comes back into turn one by one, each when the one before it
//! has gone.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::budget::{Budgets, Refused, Scope, Until};
use crate::delivery::Job;
use crate::queue::fair::Fair;

/// All jobs that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    turns: Fair<Job>,
    aside: BTreeMap<Scope, Aside>,
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
        taken
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Job> {
        self.turns.iter().chain(self.aside.values().flat_map(|aside| &aside.jobs))
    }

    /// How many are in turn.
    pub(super) fn in_turn(&self) -> usize {
        self.turns.len()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.turns.len() + self.aside.values().map(|aside| aside.jobs.len()).sum::<usize>()
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
