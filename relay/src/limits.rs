//! How many connections are open, in all and from each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts open connections. Cheap to clone; every clone counts the same connections.
#[derive(Clone, Debug, Default)]
pub struct ConnectionLimits(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// Why a connection is one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The relay has as many as it may have.
    Total,
    /// This address has.
    Client,
}

/// One counted connection; it is counted until this is dropped.
#[derive(Debug)]
pub struct Permit {
    limits: ConnectionLimits,
    client: IpAddr,
}

impl ConnectionLimits {
    /// Counts a connection from `client`.
    ///
    /// # Errors
    /// When `total` connections are open already, or `per_client` from this address.
    pub fn admit(&self, client: IpAddr, total: usize, per_client: usize) -> Result<Permit, Exceeded> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= total {
            return Err(Exceeded::Total);
        }
        if open.by_client.get(&client).copied().unwrap_or(0) >= per_client {
            return Err(Exceeded::Client);
        }
        open.total += 1;
        *open.by_client.entry(client).or_default() += 1;
        Ok(Permit { limits: self.clone(), client })
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.limits.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.total -= 1;
        if let Some(count) = open.by_client.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_until_its_permit_is_dropped() {
        let limits = ConnectionLimits::default();
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = limits.admit(a, 2, 1).unwrap();
        assert_eq!(limits.admit(a, 2, 1).unwrap_err(), Exceeded::Client);
        let _second = limits.admit(b, 2, 1).unwrap();
        assert_eq!(limits.admit("10.0.0.3".parse().unwrap(), 2, 1).unwrap_err(), Exceeded::Total);
        drop(first);
        assert_eq!(limits.open(), 1);
        limits.admit(a, 2, 1).unwrap();
    }
}
