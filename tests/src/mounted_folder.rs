//! A folder that changes the way a mounted Secret does: the kubelet's atomic writer.
//!
//! The files live in a folder named after the time of their writing; `..data` is a symbolic link to it, the visible names
//! are links into `..data`. A change is a new folder and one rename of `..data`, so a reader sees all old files or all new
//! ones. What watches such a folder sees no event on the file itself, which is why tests must not simply overwrite it.

use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fs, process};

/// The link that is swapped.
const DATA: &str = "..data";

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// A folder as the kubelet mounts it.
pub struct MountedFolder {
    path: PathBuf,
}

impl MountedFolder {
    /// Makes the folder, or takes it over if it is there.
    ///
    /// # Errors
    /// The file system's error.
    pub fn new(path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the folder's content by `files` (name and content) in one step.
    ///
    /// # Errors
    /// The file system's error; the old content is then still whole.
    pub fn write(&self, files: &[(&str, &[u8])]) -> io::Result<()> {
        let replaced = fs::read_link(self.path.join(DATA)).ok();
        let generation = self.path.join(generation_name());
        fs::create_dir(&generation)?;
        for (name, content) in files {
            fs::write(generation.join(name), content)?;
        }
        let next = self.path.join("..data_tmp");
        let name = generation.file_name().ok_or_else(|| io::Error::other("a generation without a name"))?;
        symlink(name, &next)?;
        fs::rename(&next, self.path.join(DATA))?;
        self.link_names(files)?;
        match replaced {
            Some(replaced) => fs::remove_dir_all(self.path.join(replaced)),
            None => Ok(()),
        }
    }

    /// Visible links for new names; those of names that are gone are taken away.
    fn link_names(&self, files: &[(&str, &[u8])]) -> io::Result<()> {
        for (name, _) in files {
            let link = self.path.join(name);
            if link.symlink_metadata().is_err() {
                symlink(Path::new(DATA).join(name), link)?;
            }
        }
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let kept =
                name.to_string_lossy().starts_with("..") || files.iter().any(|(file, _)| name == *file);
            if !kept {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn generation_name() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("..{now}.{}.{}", process::id(), GENERATION.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_swaps_all_files_and_leaves_one_generation() {
        let root = tempfile::tempdir().unwrap();
        let folder = MountedFolder::new(root.path().join("mount")).unwrap();
        folder.write(&[("a", b"1"), ("b", b"1")]).unwrap();
        folder.write(&[("a", b"2"), ("c", b"2")]).unwrap();
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name == DATA || !name.starts_with(".."))
            .collect();
        names.sort();
        assert_eq!(names, [DATA, "a", "c"]);
        assert_eq!(fs::read_to_string(folder.path().join("a")).unwrap(), "2");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "the old generation is gone");
    }
}
