//! Ports for servers that have to come back on the same port after a restart.
//!
//! A port taken from the kernel by binding port 0 lies in the range it also gives to outgoing connections: while a
//! relay restarts, one of the load's own connections can take its port. Ports from here lie below that range.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below Linux's default `ip_local_port_range` (32768 and up), above what services of a machine commonly use.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A TCP port on 127.0.0.1 that nothing listens on now and that no other call in this process was given.
///
/// Test processes start at different places of the range, so two that run at once rarely meet; a port that is in use is
/// passed over.
///
/// # Errors
/// The last bind's error when no port of the range is free.
pub fn free_port() -> io::Result<u16> {
    let start = std::process::id().wrapping_mul(131);
    let mut failure = None;
    for _ in 0..COUNT {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset).map_err(io::Error::other)?;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| io::Error::other("no port was tried")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_nor_while_it_is_in_use() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port().unwrap())).unwrap();
        let given: BTreeSet<u16> = (0..50).map(|_| free_port().unwrap()).collect();
        assert_eq!(given.len(), 50);
        assert!(!given.contains(&held.local_addr().unwrap().port()));
    }
}
