//! The medium of a disk with a volatile write cache: what was flushed stays, of the rest any part may.
//!
//! Knows no file system and no kernel: octets at offsets, flushes, power. Served to the kernel as a file by `disk`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a disk writes whole or not at all.
pub(crate) const SECTOR: usize = 4096;

/// Sectors on stable storage and those in the cache.
pub(crate) struct Medium {
    stable: File,
    octets: u64,
    /// By their number, in their latest form.
    cache: BTreeMap<u64, Vec<u8>>,
    powered: bool,
    failing_flushes: usize,
    random: StdRng,
}

impl Medium {
    /// The disk that `image` is; `seed` decides what a power cut takes.
    pub(crate) fn new(image: File, seed: u64) -> io::Result<Self> {
        let octets = image.metadata()?.len();
        let random = StdRng::seed_from_u64(seed);
        Ok(Self { stable: image, octets, cache: BTreeMap::new(), powered: true, failing_flushes: 0, random })
    }

    pub(crate) fn octets(&self) -> u64 {
        self.octets
    }

    /// *Errors*: without power, every call.
    pub(crate) fn read(&self, offset: u64, octets: usize) -> io::Result<Vec<u8>> {
        self.power()?;
        let octets = octets.min(usize::try_from(self.octets.saturating_sub(offset)).unwrap_or(usize::MAX));
        let mut read = vec![0; octets];
        self.stable.read_exact_at(&mut read, offset)?;
        for (number, from, to) in sectors(offset, octets) {
            if let Some(cached) = self.cache.get(&number) {
                let at = usize::try_from(number * SECTOR as u64 + from as u64 - offset).unwrap();
                read[at..at + (to - from)].copy_from_slice(&cached[from..to]);
            }
        }
        Ok(read)
    }

    /// Takes `octets` into the cache.
    pub(crate) fn write(&mut self, offset: u64, octets: &[u8]) -> io::Result<()> {
        self.power()?;
        let mut rest = octets;
        for (number, from, to) in sectors(offset, octets.len()) {
            let (part, behind) = rest.split_at(to - from);
            rest = behind;
            let mut sector = self.sector(number)?;
            sector[from..to].copy_from_slice(part);
            self.cache.insert(number, sector);
        }
        Ok(())
    }

    fn sector(&self, number: u64) -> io::Result<Vec<u8>> {
        if let Some(cached) = self.cache.get(&number) {
            return Ok(cached.clone());
        }
        let mut sector = vec![0; SECTOR];
        self.stable.read_exact_at(&mut sector, number * SECTOR as u64)?;
        Ok(sector)
    }

    /// Brings the cache to stable storage.
    ///
    /// *Errors*: without power; when flushes are to fail, and the cache is gone then, as it is when a medium cannot be written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.power()?;
        if self.failing_flushes > 0 {
            self.failing_flushes -= 1;
            self.cache.clear();
            return Err(io::Error::other("the medium cannot be written"));
        }
        for (number, sector) in std::mem::take(&mut self.cache) {
            self.stable.write_all_at(&sector, number * SECTOR as u64)?;
        }
        Ok(())
    }

    /// Lets the next `count` flushes fail.
    pub(crate) fn fail_flushes(&mut self, count: usize) {
        self.failing_flushes = count;
    }

    /// Ends the power: of the cache each sector comes to stable storage with this probability, whatever the order of writing.
    pub(crate) fn cut(&mut self, surviving: f64) {
        self.powered = false;
        for (number, sector) in std::mem::take(&mut self.cache) {
            if self.random.random_bool(surviving) {
                self.stable.write_all_at(&sector, number * SECTOR as u64).unwrap();
            }
        }
    }

    pub(crate) fn restore_power(&mut self) {
        self.powered = true;
    }

    fn power(&self) -> io::Result<()> {
        if self.powered { Ok(()) } else { Err(io::Error::other("no power")) }
    }
}

/// The sectors that a stretch touches: number, and from where to where within it.
fn sectors(offset: u64, octets: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let size = SECTOR as u64;
    let end = offset + octets as u64;
    (offset / size..end.div_ceil(size)).map(move |number| {
        let start = number * size;
        let within = |place: u64| usize::try_from(place.clamp(start, start + size) - start).unwrap();
        (number, within(offset), within(end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medium() -> Medium {
        let image = tempfile::tempfile().unwrap();
        image.set_len(16 * SECTOR as u64).unwrap();
        Medium::new(image, 1).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back_and_only_what_was_flushed_survives() {
        let mut medium = medium();
        medium.write(4000, &[1; 200]).unwrap();
        medium.flush().unwrap();
        medium.write(4100, &[2; 50]).unwrap();
        assert_eq!(medium.read(4090, 70).unwrap(), [[1; 10].as_slice(), &[2; 50], &[1; 10]].concat());
        medium.cut(0.0);
        assert!(medium.read(0, 1).is_err() && medium.write(0, &[1]).is_err() && medium.flush().is_err());
        medium.restore_power();
        assert_eq!(medium.read(3999, 202).unwrap(), [[0].as_slice(), &[1; 200], &[0]].concat());
    }

    #[test]
    fn a_power_cut_keeps_any_part_of_the_cache() {
        let mut medium = medium();
        medium.write(0, &[1; 16 * SECTOR]).unwrap();
        medium.cut(0.5);
        medium.restore_power();
        let kept = medium.read(0, 16 * SECTOR).unwrap();
        let whole = kept.chunks(SECTOR).filter(|sector| sector.iter().all(|octet| *octet == 1)).count();
        let gone = kept.chunks(SECTOR).filter(|sector| sector.iter().all(|octet| *octet == 0)).count();
        assert!(whole > 0 && gone > 0 && whole + gone == 16, "{whole} {gone}");
    }

    #[test]
    fn a_failed_flush_has_lost_what_it_was_to_bring_and_the_next_succeeds() {
        let mut medium = medium();
        medium.write(0, &[1]).unwrap();
        medium.fail_flushes(1);
        assert!(medium.flush().is_err());
        assert_eq!(medium.read(0, 1).unwrap(), [0]);
        assert!(medium.flush().is_ok());
    }
}
