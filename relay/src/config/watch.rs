//! Notices when the configuration file changes, however it was replaced.
//!
//! The kubelet replaces a mounted Secret by swapping the `..data` symbolic link of its folder, editors write a new file
//! and rename it, local mode renames too: so the folder is watched, not the file, and the content decides.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Some file systems deliver no notifications: the file is looked at this often in any case.
const RECHECK: Duration = Duration::from_secs(10);
/// A replacement causes several notifications; they are answered by one look.
const SETTLE: Duration = Duration::from_millis(20);

/// Sends `()` whenever the content of `path` differs from what it was at the last look, the first of which is taken before this
/// returns: a reader that loads the file afterwards misses no change. Ends when the receiver is dropped.
///
/// # Errors
/// When the folder that holds the file cannot be watched.
pub fn watch(path: PathBuf) -> Result<mpsc::Receiver<()>, notify::Error> {
    let (wake, mut woken) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |_| {
        // A full channel already holds the wake-up that this one would be.
        let _ = wake.try_send(());
    })?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    let (changed, changes) = mpsc::channel(1);
    let mut seen = std::fs::read(&path).ok();
    tokio::spawn(async move {
        let _watcher = watcher;
        loop {
            tokio::select! {
                () = changed.closed() => return,
                _ = woken.recv() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(RECHECK) => {}
            }
            let found = content(&path).await;
            if found.is_some() && found != seen {
                seen = found;
                if changed.send(()).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(changes)
}

/// `None` while the file is missing, which a swap may make it for an instant.
async fn content(path: &Path) -> Option<Vec<u8>> {
    tokio::fs::read(path).await.ok()
}
