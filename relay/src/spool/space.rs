//! How much may still be written: the budget, and what the file system has left. Pure, but for the one look at it.
//!
//! The file system's end is kept away from: a write that fails there ends the spool (see the contract), while a store that
//! is refused before costs a client one retry. What ends mail is never refused, and lives on the reserve.

use std::path::Path;

use super::error::SpoolError;

/// Segments' worth of the file system that stores leave free: one that is being prepared ahead, one for what reclaiming
/// copies before it gives back, one for changes, removals and settlements.
const RESERVE_SEGMENTS: u64 = 3;
/// Stores are taken again once this part of the budget is free …
const HYSTERESIS: u64 = 20;
/// … and so many segments beyond the reserve.
const RESUME_SEGMENTS: u64 = 1;

/// What is in use, and what there is. In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    /// In all segments, what is staged included.
    pub(super) total: u64,
    /// The budget.
    pub(super) maximum: u64,
    /// What the file system gives to unprivileged processes, what is staged taken off.
    pub(super) free: u64,
    pub(super) segment_bytes: u64,
}

impl Space {
    /// Whether a store of `bytes` fits.
    ///
    /// *Errors*: `Full` or `DiskFull`.
    pub(super) fn admit(&self, bytes: u64) -> Result<(), SpoolError> {
        let Self { total, maximum, free, .. } = *self;
        if total.saturating_add(bytes) > maximum {
            return Err(SpoolError::Full { total, maximum });
        }
        let reserve = self.reserve();
        if free.saturating_sub(bytes) < reserve {
            return Err(SpoolError::DiskFull { free, reserve });
        }
        Ok(())
    }

    /// Whether there is so little that nothing may be stored, however small.
    pub(super) fn exhausted(&self) -> bool {
        self.admit(0).is_err()
    }

    /// Whether there is so much that stores refused before may come again.
    pub(super) fn roomy(&self) -> bool {
        self.total <= self.maximum - self.maximum / HYSTERESIS
            && self.free >= self.reserve() + RESUME_SEGMENTS * self.segment_bytes
    }

    fn reserve(&self) -> u64 {
        RESERVE_SEGMENTS * self.segment_bytes
    }
}

/// Bytes free in the file system of `directory`. One that cannot be asked is taken to have room: a write will tell.
pub(super) fn free(directory: &Path) -> u64 {
    rustix::fs::statvfs(directory).map_or(u64::MAX, |answer| answer.f_bavail.saturating_mul(answer.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: Space = Space { total: 500, maximum: 1_000, free: 1_000, segment_bytes: 100 };

    #[test]
    fn a_store_beyond_the_budget_is_refused() {
        assert!(SPACE.admit(500).is_ok());
        assert!(matches!(SPACE.admit(501), Err(SpoolError::Full { total: 500, maximum: 1_000 })));
    }

    #[test]
    fn a_store_that_would_use_the_file_systems_reserve_is_refused() {
        let space = Space { free: 400, ..SPACE };
        assert!(space.admit(100).is_ok());
        assert!(matches!(space.admit(101), Err(SpoolError::DiskFull { free: 400, reserve: 300 })));
    }

    #[test]
    fn between_exhausted_and_roomy_is_a_gap_so_that_readiness_does_not_flap() {
        let at = |free| Space { free, ..SPACE };
        assert!(at(299).exhausted() && !at(299).roomy());
        assert!(!at(300).exhausted() && !at(300).roomy());
        assert!(!at(400).exhausted() && at(400).roomy());
        assert!(!Space { total: 951, ..SPACE }.roomy() && Space { total: 950, ..SPACE }.roomy());
    }

    #[test]
    fn a_file_system_that_cannot_be_asked_is_taken_to_have_room() {
        assert_eq!(free(Path::new("/nowhere at all")), u64::MAX);
        assert!((1..u64::MAX).contains(&free(Path::new("/"))));
    }
}
