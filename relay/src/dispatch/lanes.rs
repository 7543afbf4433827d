//! The lanes of all upstreams, and which lane a session belongs to. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::lane::{self, Lane};
use crate::budget::Budgets;
use crate::config::{Policy, UpstreamPolicy};
use crate::delivery::{Job, SessionId};

/// All lanes. A session's lane stays as long as the session.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: BTreeMap<Arc<str>, Lane>,
    sessions: HashMap<SessionId, Arc<str>>,
    next_session: u64,
    /// Upstreams whose lanes have gone, of which nobody has been told.
    gone: Vec<Arc<str>>,
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self { lanes: BTreeMap::new(), sessions: HashMap::new(), next_session: 0, gone: Vec::new() }
    }

    pub(super) fn get(&self, upstream: &str) -> Option<&Lane> {
        self.lanes.get(upstream)
    }

    pub(super) fn get_mut(&mut self, upstream: &str) -> Option<&mut Lane> {
        self.lanes.get_mut(upstream)
    }

    /// Whether messages that have another way should go to this upstream.
    pub(super) fn works(&self, upstream: &str) -> bool {
        self.lanes.get(upstream).is_some_and(Lane::works)
    }

    /// Whether a message may go to this upstream although it has another way: it works, or is tried again by one message.
    pub(super) fn takes(&self, upstream: &str, now: Instant) -> bool {
        self.lanes.get(upstream).is_some_and(|lane| lane.works() || lane.wants_probe(now))
    }

    /// The lane of a session that is not over.
    pub(super) fn of(&mut self, session: SessionId) -> Option<(Arc<str>, &mut Lane)> {
        let upstream = self.sessions.get(&session)?.clone();
        let lane = self.lanes.get_mut(&upstream)?;
        Some((upstream, lane))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Lane)> {
        self.lanes.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Arc<str>, &mut Lane)> {
        self.lanes.iter_mut()
    }

    /// The next thing that a lane wants done.
    pub(super) fn next_action(
        &mut self,
        budgets: &mut Budgets,
        now: Instant,
    ) -> Option<(Arc<str>, lane::Action)> {
        self.lanes.iter_mut().find_map(|(upstream, lane)| {
            lane.next_action(budgets, now).map(|action| (upstream.clone(), action))
        })
    }

    /// Names the session that is being opened from this source.
    pub(super) fn open(
        &mut self,
        upstream: &Arc<str>,
        source: Option<IpAddr>,
    ) -> Option<(SessionId, Arc<UpstreamPolicy>)> {
        let lane = self.lanes.get_mut(upstream)?;
        let id = SessionId(self.next_session);
        self.next_session += 1;
        lane.opening(id, source);
        self.sessions.insert(id, upstream.clone());
        Some((id, lane.upstream().clone()))
    }

    /// The session is over. Returns the jobs of its lane when that goes with it.
    pub(super) fn forget(&mut self, session: SessionId, policy: &Policy) -> Vec<Job> {
        match self.sessions.remove(&session) {
            Some(upstream) => self.drop_unused(&upstream, policy),
            None => Vec::new(),
        }
    }

    fn drop_unused(&mut self, upstream: &str, policy: &Policy) -> Vec<Job> {
        let unused = |lane: &Lane| !lane.has_sessions() && !policy.upstreams.contains_key(upstream);
        if !self.lanes.get(upstream).is_some_and(unused) {
            return Vec::new();
        }
        let Some((name, mut lane)) = self.lanes.remove_entry(upstream) else { return Vec::new() };
        self.gone.push(name);
        lane.take_ready()
    }

    /// The upstreams whose lanes have gone since this was last asked.
    pub(super) fn take_gone(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.gone)
    }

    /// A lane for every upstream of the policy, with these shares of sessions. Lanes of other upstreams take no more sessions and go with their last one. Returns
    /// the jobs of lanes that have gone.
    pub(super) fn configure(&mut self, policy: &Policy, shares: &BTreeMap<&str, u32>) -> Vec<Job> {
        for (name, upstream) in &policy.upstreams {
            let share = shares.get(name.as_str()).copied().unwrap_or_default() as usize;
            match self.lanes.get_mut(name.as_str()) {
                Some(lane) => lane.reconfigure(upstream.clone(), share),
                None => {
                    self.lanes.insert(name.as_str().into(), Lane::new(upstream.clone(), share));
                }
            }
        }
        let gone: Vec<_> =
            self.lanes.keys().filter(|name| !policy.upstreams.contains_key(&***name)).cloned().collect();
        let mut jobs = Vec::new();
        for name in gone {
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.reconfigure(lane.upstream().clone(), 0);
            }
            jobs.extend(self.drop_unused(&name, policy));
        }
        jobs
    }
}
