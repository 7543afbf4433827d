//! A temporary folder that does not outlive the test process, however that ends.
//!
//! A folder in a static is never dropped, and a killed test drops nothing. So a small shell waits for the end of a pipe
//! that only the test holds, and removes the folder then.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Waits for the end of its input, then removes the folder; files that a dying process still writes are taken in the next round.
const REMOVE: &str = "cat >/dev/null; while [ -e \"$0\" ] && ! rm -rf \"$0\" 2>/dev/null; do sleep 0.1; done";

/// A temporary folder, removed when this is dropped or the process ends.
pub struct ScratchFolder {
    path: PathBuf,
    remover: Child,
}

impl ScratchFolder {
    /// Makes a folder whose name begins with `prefix`, below the system's folder for temporary files.
    ///
    /// # Errors
    /// The file system's error, or that of starting the shell.
    pub fn new(prefix: &str) -> io::Result<Self> {
        let path = tempfile::TempDir::with_prefix(prefix)?.keep();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", REMOVE])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Its own group: an interrupt at the terminal must end the test and not its cleaner.
        let remover = shell.process_group(0).spawn()?;
        Ok(Self { path, remover })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        // It ends once the folder is gone; that it cannot be awaited would mean that it was not started.
        let _ = self.remover.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_folder_is_gone_with_what_it_held() {
        let folder = ScratchFolder::new("postroad-scratch-").unwrap();
        let path = folder.path().to_owned();
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        std::fs::write(path.join("a/b/c"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }
}
