//! The spool's sizes. Durability is not an option.

/// No segment is smaller than this, so that its header and one small message fit.
const SMALLEST_SEGMENT: u64 = 4 << 10;
/// Offsets within a segment are kept in 32 bits.
const LARGEST_SEGMENT: u64 = 1 << 30;
/// The budget holds at least so many segments, so that reclaiming has room to move.
const SEGMENTS_IN_BUDGET: u64 = 16;

/// Sizes of the spool. The defaults suit a volume of 10 GiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes after which the next segment is begun. 64 MiB unless told; taken to be within 4 KiB and 1 GiB, and at most a
    /// sixteenth of `maximum_bytes`.
    pub segment_bytes: u64,
    /// The budget: stores that would make the segments' total exceed it are answered `Full`. 8 GiB unless told. State
    /// changes, removals, settlements and reclaiming go on beyond it, and the next segment is prepared ahead, so the volume
    /// needs about four segments more than this. On a smaller volume stores are refused while three segments are still free.
    pub maximum_bytes: u64,
    /// How much reclaiming may copy with each batch, in bytes: the bound on what it adds to the latency of a store. 1 MiB
    /// unless told.
    pub reclaim_bytes_per_batch: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, maximum_bytes: 8 << 30, reclaim_bytes_per_batch: 1 << 20 }
    }
}

impl Options {
    /// These options with every value within its bounds.
    #[must_use]
    pub(super) fn bounded(self) -> Self {
        let maximum = (self.maximum_bytes / SEGMENTS_IN_BUDGET).clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT);
        Self { segment_bytes: self.segment_bytes.clamp(SMALLEST_SEGMENT, maximum), ..self }
    }
}
