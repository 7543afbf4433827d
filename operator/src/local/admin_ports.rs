//! Ports for the relays' probes and metrics on this machine: the lowest free ones from 9090 on, and each relay keeps its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};

use crate::relay_pool::ports::ADMIN_PORT;

/// The ports given out so far, by relay.
#[derive(Default)]
pub struct AdminPorts {
    given: BTreeMap<String, u16>,
}

impl AdminPorts {
    /// The relay's port. `reserved` are those that listeners use or will use; `free` says whether a port can be bound now.
    /// `None`: none is left.
    pub fn of(&mut self, relay: &str, reserved: &BTreeSet<u16>, free: impl Fn(u16) -> bool) -> Option<u16> {
        if let Some(port) = self.given.get(relay) {
            return Some(*port);
        }
        let given: BTreeSet<u16> = self.given.values().copied().collect();
        let usable = |port: &u16| !given.contains(port) && !reserved.contains(port) && free(*port);
        let port = (ADMIN_PORT..=u16::MAX).find(usable)?;
        self.given.insert(relay.to_owned(), port);
        Some(port)
    }

    /// Takes a relay's port back.
    pub fn release(&mut self, relay: &str) {
        self.given.remove(relay);
    }
}

/// Whether a port of this machine can be bound now.
#[must_use]
pub fn bindable(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_the_lowest_free_ones_and_stay() {
        let mut ports = AdminPorts::default();
        let reserved = BTreeSet::from([9091]);
        assert_eq!(ports.of("a", &reserved, |_| true), Some(9090));
        assert_eq!(ports.of("b", &reserved, |port| port != 9092), Some(9093));
        assert_eq!(ports.of("a", &reserved, |_| false), Some(9090), "it is taken by the relay itself");
        ports.release("a");
        assert_eq!(ports.of("c", &reserved, |_| true), Some(9090));
    }
}
