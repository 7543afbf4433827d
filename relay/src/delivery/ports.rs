//! Which of an upstream's ports its sessions use: the best that works. A worse one is remembered, so that not every session waits
//! for a blocked port again, and the better ones are tried again after a while. Shared by the sessions of a lane; `now` is passed in.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::UpstreamPort;

/// How long better ports that did not work are left alone: a firewall that is opened is noticed within it, and one session in it
/// waits for a blocked port.
const TRY_BETTER_AFTER: Duration = Duration::from_secs(600);

/// Which port of one upstream worked last.
#[derive(Debug, Default)]
pub struct PortMemory(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// The port that worked last.
    used: Option<u16>,
    /// Why those before it in the list did not, when they were tried last.
    passed_over: Vec<String>,
    /// When ports before it in the list are tried again.
    try_better_at: Option<Instant>,
    change: Option<PortChange>,
}

/// Sessions use another port than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortChange {
    /// The port that they use now.
    pub port: u16,
    /// The one they used before; `None` for the first session since the start.
    pub before: Option<u16>,
    /// Why ports that are preferred to it were passed over, a reason a port.
    pub passed_over: Vec<String>,
}

impl PortMemory {
    /// The change that nobody has been told of yet.
    #[must_use]
    pub fn take_change(&self) -> Option<PortChange> {
        self.memory().change.take()
    }

    /// The port that worked last, and why those that are preferred to it did not.
    #[must_use]
    pub fn in_use(&self) -> Option<(u16, Vec<String>)> {
        let memory = self.memory();
        memory.used.map(|port| (port, memory.passed_over.clone()))
    }

    /// The ports in the order in which the next session tries them.
    pub(super) fn order<'a>(&self, ports: &'a [UpstreamPort], now: Instant) -> Vec<&'a UpstreamPort> {
        let mut memory = self.memory();
        let mut order: Vec<_> = ports.iter().collect();
        let used = memory.used.and_then(|used| ports.iter().position(|port| port.port == used)).unwrap_or(0);
        if used > 0 && memory.try_better_at.is_none_or(|at| at <= now) {
            // One session tries; those that are opened meanwhile use what works.
            memory.try_better_at = Some(now + TRY_BETTER_AFTER);
        } else {
            order[..=used].rotate_right(1);
        }
        order
    }

    /// A session stands on `port`; `passed_over` says why those tried before it did not work.
    pub(super) fn worked(&self, ports: &[UpstreamPort], port: u16, passed_over: Vec<String>, now: Instant) {
        let mut memory = self.memory();
        let best = ports.first().is_some_and(|first| first.port == port);
        if best || !passed_over.is_empty() {
            memory.passed_over.clone_from(&passed_over);
        }
        if memory.used != Some(port) {
            memory.try_better_at = (!best).then_some(now + TRY_BETTER_AFTER);
            memory.change = Some(PortChange { port, before: memory.used, passed_over });
            memory.used = Some(port);
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamTls;

    #[test]
    fn what_works_is_remembered_and_the_better_ones_are_tried_again_by_one_session_at_a_time() {
        let ports = [587, 2587, 465].map(|port| UpstreamPort { port, tls: UpstreamTls::StartTLS });
        let (memory, start) = (PortMemory::default(), Instant::now());
        let order = |now| memory.order(&ports, now).iter().map(|port| port.port).collect::<Vec<_>>();
        assert_eq!(order(start), [587, 2587, 465]);
        memory.worked(&ports, 2587, vec!["port 587: refused".to_owned()], start);
        let change = memory.take_change().unwrap();
        assert_eq!((change.port, change.before, change.passed_over.len()), (2587, None, 1));
        assert_eq!(memory.in_use(), Some((2587, vec!["port 587: refused".to_owned()])));
        assert_eq!(order(start), [2587, 587, 465]);
        let later = start + TRY_BETTER_AFTER;
        assert_eq!(order(later), [587, 2587, 465], "it is time");
        assert_eq!(order(later), [2587, 587, 465], "one is enough");
        memory.worked(&ports, 2587, vec!["port 587: silent".to_owned()], later);
        memory.worked(&ports, 2587, Vec::new(), later);
        let latest = Some((2587, vec!["port 587: silent".to_owned()]));
        assert_eq!(memory.in_use(), latest, "a session that tried no better one says nothing of them");
        assert_eq!((memory.take_change(), order(later)), (None, vec![2587, 587, 465]));
        memory.worked(&ports, 587, Vec::new(), later + TRY_BETTER_AFTER);
        let back = PortChange { port: 587, before: Some(2587), passed_over: Vec::new() };
        assert_eq!((memory.take_change(), order(later)), (Some(back), vec![587, 2587, 465]));
        assert_eq!(memory.in_use(), Some((587, Vec::new())));
    }

    #[test]
    fn a_port_that_has_become_the_preferred_one_is_tried_at_once() {
        let port = |port| UpstreamPort { port, tls: UpstreamTls::None };
        let (memory, now) = (PortMemory::default(), Instant::now());
        memory.worked(&[port(25), port(2525)], 25, Vec::new(), now);
        let ports = [port(2525), port(25)];
        let first = || memory.order(&ports, now)[0].port;
        assert_eq!([first(), first()], [2525, 25], "by one session");
    }

    #[test]
    fn a_port_that_is_no_longer_configured_is_forgotten() {
        let port = |port| UpstreamPort { port, tls: UpstreamTls::None };
        let (memory, now) = (PortMemory::default(), Instant::now());
        memory.worked(&[port(25), port(2525)], 2525, Vec::new(), now);
        let ports = [port(25), port(26)];
        assert_eq!(memory.order(&ports, now)[0].port, 25);
    }
}
