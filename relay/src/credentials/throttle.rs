//! Slowing down those who guess passwords. Pure: time is passed in.
//!
//! A few failures are free, because people mistype and Secrets rotate. Each further one makes the client's address wait
//! twice as long before the next password of its is looked at. An address without failures for a while is forgotten.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::time::Instant;

/// Failures without consequence.
const FREE_FAILURES: u32 = 5;
/// The first wait; it doubles with each failure.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How long after its last failure an address is forgotten.
const MEMORY: Duration = Duration::from_secs(900);
/// Addresses remembered at once. When there are more, the one whose last failure is longest ago goes.
const ADDRESSES: usize = 4096;

/// Failed authentications by client.
#[derive(Debug, Default)]
pub struct Throttle(HashMap<IpAddr, Failures>);

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    fn until(self) -> Instant {
        let beyond = self.count.saturating_sub(FREE_FAILURES);
        let wait = match beyond.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_WAIT.saturating_mul(1 << doublings.min(16)).min(LONGEST_WAIT),
        };
        self.last + wait
    }
}

impl Throttle {
    /// How long `client` still has to wait; `None` when it need not.
    #[must_use]
    pub fn wait(&self, client: IpAddr, now: Instant) -> Option<Duration> {
        let failures = self.0.get(&network(client)).filter(|failures| now < failures.last + MEMORY)?;
        Some(failures.until().saturating_duration_since(now)).filter(|wait| !wait.is_zero())
    }

    /// Counts a failure of `client`.
    pub fn failed(&mut self, client: IpAddr, now: Instant) {
        let client = network(client);
        if !self.0.contains_key(&client) && self.0.len() >= ADDRESSES {
            self.make_room(now);
        }
        let failures = self.0.entry(client).or_insert(Failures { count: 0, last: now });
        let count = if now < failures.last + MEMORY { failures.count } else { 0 };
        *failures = Failures { count: count.saturating_add(1), last: now };
    }

    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, failures| now < failures.last + MEMORY);
        if self.0.len() >= ADDRESSES
            && let Some(oldest) =
                self.0.iter().min_by_key(|(_, failures)| failures.last).map(|(client, _)| *client)
        {
            self.0.remove(&oldest);
        }
    }
}

/// One host has a whole /64 of IPv6 addresses.
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_few_failures_are_free_and_each_further_one_doubles_the_wait() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for _ in 0..FREE_FAILURES {
            throttle.failed(client(1), now);
            assert_eq!(throttle.wait(client(1), now), None);
        }
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            throttle.failed(client(1), now);
            assert_eq!(throttle.wait(client(1), now), Some(Duration::from_secs(seconds)));
        }
        assert_eq!(throttle.wait(client(1), now + Duration::from_secs(299)), Some(Duration::from_secs(1)));
        assert_eq!(throttle.wait(client(1), now + Duration::from_secs(300)), None);
        assert_eq!(throttle.wait(client(2), now), None, "others do not wait");
    }

    #[test]
    fn an_address_without_failures_for_a_while_is_forgotten() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        (0..20).for_each(|_| throttle.failed(client(1), now));
        throttle.failed(client(1), now + MEMORY);
        assert_eq!(throttle.wait(client(1), now + MEMORY), None);
    }

    #[test]
    fn the_table_is_bounded_and_the_longest_quiet_goes_first() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..=u32::try_from(ADDRESSES).unwrap() {
            (0..=FREE_FAILURES).for_each(|_| {
                throttle.failed(client(number), now + Duration::from_millis(u64::from(number) / 100))
            });
        }
        assert_eq!(throttle.0.len(), ADDRESSES);
        assert!(throttle.wait(client(u32::try_from(ADDRESSES).unwrap()), now).is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let (mut throttle, now) = (Throttle::default(), Instant::now());
        for host in 0..=FREE_FAILURES {
            throttle.failed(format!("2001:db8::{host}").parse().unwrap(), now);
        }
        assert!(throttle.wait("2001:db8::ffff".parse().unwrap(), now).is_some());
        assert_eq!(throttle.wait("2001:db8:0:1::1".parse().unwrap(), now), None);
    }
}
