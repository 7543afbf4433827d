//! The next segment's file, prepared ahead: its blocks written with zeros and synced.
//!
//! A sync after appending to a file must also bring the file system's metadata to disk (new blocks, new length); after
//! overwriting prepared blocks it need not, which on ext4 makes a commit two to three times as fast (docs/adr/0001-spool.md).
//! A matter of speed only: when no spare is ready the log goes on in an empty file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

const NAME: &str = "spare";
/// Written and synced in pieces, so that commits of the active segment do not wait for all of it.
const PIECE: usize = 1 << 20;

/// A file that is being prepared, or is ready, to become the next segment.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    bytes: u64,
    preparation: Option<JoinHandle<io::Result<File>>>,
}

impl Spare {
    pub(super) fn new(directory: &Path, bytes: u64) -> Self {
        Self { path: directory.join(NAME), bytes, preparation: None }
    }

    /// Deletes what an earlier process prepared and did not use.
    pub(super) fn discard(directory: &Path) -> io::Result<()> {
        match fs::remove_file(directory.join(NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Begins the preparation on a thread of its own, unless it has begun.
    pub(super) fn prepare(&mut self) {
        if self.preparation.is_none() {
            let (path, bytes) = (self.path.clone(), self.bytes);
            let thread = std::thread::Builder::new().name("spool-spare".into());
            self.preparation = thread.spawn(move || fill(&path, bytes)).ok();
        }
    }

    /// The prepared file and its path, when it is ready; never waits.
    pub(super) fn take(&mut self) -> Option<(PathBuf, File)> {
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
    fn drop(&mut self) {
        if let Some(preparation) = self.preparation.take() {
            // Left over, the file is dead weight that the next open deletes.
            let _ = preparation.join();
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The file, filled; deleted when that fails, as the space is needed then.
fn fill(path: &Path, bytes: u64) -> io::Result<File> {
    let filled = write_zeros(path, bytes);
    if filled.is_err() {
        let _ = fs::remove_file(path);
    }
    filled
}

fn write_zeros(path: &Path, bytes: u64) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0; PIECE];
    let mut offset = 0;
    while offset < bytes {
        let piece = &zeros[..PIECE.min((bytes - offset) as usize)];
        file.write_all_at(piece, offset)?;
        file.sync_data()?;
        offset += piece.len() as u64;
    }
    file.sync_all()?;
    Ok(file)
}
