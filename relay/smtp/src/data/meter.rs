//! How large content may be: the whole, its header section, the number of its fields.

use super::fault::ContentFault;
use super::header::HeaderScanner;

/// The limits of one message. 0 anywhere: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContentLimits {
    /// Octets of content, line ends included, stuffed dots not (RFC 1870 §3).
    pub message_bytes: u64,
    /// Octets of the header section.
    pub header_bytes: u64,
    /// Fields of the header section.
    pub header_fields: u32,
}

/// Counts content against its limits.
#[derive(Debug)]
pub(super) struct Meter {
    limits: ContentLimits,
    octets: u64,
    header: HeaderScanner,
}

impl Meter {
    pub(super) fn new(limits: ContentLimits) -> Self {
        Self { limits, octets: 0, header: HeaderScanner::new() }
    }

    /// Octets counted.
    pub(super) fn octets(&self) -> u64 {
        self.octets
    }

    /// Counts the next slice of content.
    ///
    /// # Errors
    /// When it goes beyond a limit: the limit that the content reaches first, however it is cut into slices.
    pub(super) fn count(&mut self, slice: &[u8]) -> Result<(), ContentFault> {
        let limits = self.limits;
        let within = room(limits.message_bytes, self.octets).min(slice.len());
        if !self.header.is_over() {
            let header_room = room(limits.header_bytes, self.header.octets).min(within);
            self.header.scan(&slice[..header_room]);
            if limits.header_fields > 0 && self.header.fields > limits.header_fields {
                return Err(ContentFault::TooManyFields { limit: limits.header_fields });
            }
            if header_room < within && !self.header.is_over() {
                return Err(ContentFault::HeaderTooLarge { limit: limits.header_bytes });
            }
        }
        self.octets += slice.len() as u64;
        if within < slice.len() {
            Err(ContentFault::TooLarge { limit: limits.message_bytes })
        } else {
            Ok(())
        }
    }
}

fn room(limit: u64, used: u64) -> usize {
    if limit == 0 { usize::MAX } else { usize::try_from(limit - used.min(limit)).unwrap_or(usize::MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_reached_first_is_named_however_content_is_cut() {
        let check = |content: &[u8], limits: (u64, u64, u32), expected| {
            let (message_bytes, header_bytes, header_fields) = limits;
            let limits = ContentLimits { message_bytes, header_bytes, header_fields };
            for size in 1..=content.len() {
                let mut meter = Meter::new(limits);
                let found = content.chunks(size).find_map(|slice| meter.count(slice).err());
                assert_eq!(found, expected, "{limits:?} in slices of {size}");
            }
        };
        let content = b"A: 1\r\nB: 2\r\n\r\nbody\r\n";
        check(content, (0, 0, 0), None);
        check(content, (20, 13, 2), None);
        check(content, (19, 13, 2), Some(ContentFault::TooLarge { limit: 19 }));
        check(content, (20, 12, 2), Some(ContentFault::HeaderTooLarge { limit: 12 }));
        check(content, (20, 13, 1), Some(ContentFault::TooManyFields { limit: 1 }));
        check(content, (3, 4, 0), Some(ContentFault::TooLarge { limit: 3 }));
        check(content, (4, 3, 0), Some(ContentFault::HeaderTooLarge { limit: 3 }));
    }
}
