//! The next segment's file: its blocks are reserved as soon as there is room for them, and written with zeros and synced when it
//! is about to be needed.
//!
//! Reserved, so that a volume that others have filled leaves room to settle what is queued, over restarts too. Zeros, because a
//! sync after appending to a file must also bring the file system's metadata to disk (new blocks, new length); after
//! overwriting prepared blocks it need not, which on ext4 makes a commit two to three times as fast
//! (docs/adr/0001-spool.md). When no spare is ready the log goes on in an empty file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::fs::{FallocateFlags, fallocate};

const NAME: &str = "spare";
/// Written and synced in pieces, so that commits of the active segment do not wait for all of it.
const PIECE: usize = 1 << 20;

/// A file that is reserved, being prepared, or ready to become the next segment.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    bytes: u64,
    /// There in its full length, and not being prepared.
    reserved: Option<File>,
    preparation: Option<JoinHandle<io::Result<File>>>,
}

impl Spare {
    /// What an earlier process left, if its length is that of a segment; nothing else.
    pub(super) fn find(directory: &Path, bytes: u64) -> io::Result<Self> {
        let path = directory.join(NAME);
        let reserved = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) if file.metadata()?.len() == bytes => Some(file),
            Ok(_) => {
                fs::remove_file(&path)?;
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { path, bytes, reserved, preparation: None })
    }

    /// Takes blocks for it, where there is room and the file system can; at once, as nothing is written.
    pub(super) fn reserve(&mut self) {
        if self.reserved.is_none() && self.preparation.is_none() {
            self.reserved = reserve(&self.path, self.bytes).ok();
        }
    }

    /// Begins the preparation on a thread of its own, unless it has begun.
    pub(super) fn prepare(&mut self) {
        if self.preparation.is_none() {
            let (path, bytes, reserved) = (self.path.clone(), self.bytes, self.reserved.take());
            let thread = std::thread::Builder::new().name("spool-spare".into());
            self.preparation = thread.spawn(move || fill(reserved, &path, bytes)).ok();
        }
    }

    /// The file and its path, prepared or merely reserved; never waits.
    pub(super) fn take(&mut self) -> Option<(PathBuf, File)> {
        if let Some(file) = self.reserved.take() {
            return Some((self.path.clone(), file));
        }
        if !self.preparation.as_ref().is_some_and(JoinHandle::is_finished) {
            return None;
        }
        match self.preparation.take()?.join().ok()? {
            Ok(file) => Some((self.path.clone(), file)),
            Err(error) => {
                tracing::debug!(%error, "the next spool segment could not be prepared; commits are slower");
                None
            }
        }
    }
}

impl Drop for Spare {
    /// The file stays for the next process.
    fn drop(&mut self) {
        if let Some(preparation) = self.preparation.take() {
            let _ = preparation.join();
        }
    }
}

/// The file, reserved; deleted when that fails.
fn reserve(path: &Path, bytes: u64) -> io::Result<File> {
    let file = create(path)?;
    let reserved = fallocate(&file, FallocateFlags::empty(), 0, bytes).map_err(io::Error::from);
    keep(reserved.map(|()| file), path)
}

/// The file, filled; deleted when that fails, as the space is needed then.
fn fill(reserved: Option<File>, path: &Path, bytes: u64) -> io::Result<File> {
    let file = reserved.map_or_else(|| create(path), Ok)?;
    keep(write_zeros(&file, bytes).map(|()| file), path)
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
}

fn keep(outcome: io::Result<File>, path: &Path) -> io::Result<File> {
    if outcome.is_err() {
        let _ = fs::remove_file(path);
    }
    outcome
}

fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; PIECE];
    let mut offset = 0;
    while offset < bytes {
        let piece = &zeros[..PIECE.min((bytes - offset) as usize)];
        file.write_all_at(piece, offset)?;
        file.sync_data()?;
        offset += piece.len() as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_outlives_its_process_unless_segments_have_another_size_now() {
        let directory = tempfile::tempdir().unwrap();
        let find = |bytes| Spare::find(directory.path(), bytes).unwrap();
        let mut spare = find(8_192);
        assert!(spare.take().is_none());
        spare.reserve();
        drop(spare);
        let (path, file) = find(8_192).take().expect("left by the one before");
        assert_eq!((path, file.metadata().unwrap().len()), (directory.path().join(NAME), 8_192));
        assert!(find(4_096).take().is_none());
        assert!(!directory.path().join(NAME).exists());
    }
}
