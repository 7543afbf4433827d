//! What was spent, on disk: one small file an upstream, replaced atomically. Does what [`Budget`](super::Budget) decides.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Saved;

fn path(data: &Path, upstream: &str) -> PathBuf {
    data.join("budgets").join(format!("{upstream}.json"))
}

/// What was recorded of this upstream; `None` when nothing was. Blocks.
///
/// # Errors
/// When the file is there and cannot be read: what it would have said is not known.
pub fn read(data: &Path, upstream: &str) -> io::Result<Option<Saved>> {
    match fs::read(path(data, upstream)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Records. *Durability*: on stable storage when it returns. Blocks.
///
/// # Errors
/// When the file cannot be written; the last record stays.
pub fn write(data: &Path, upstream: &str, saved: &Saved) -> io::Result<()> {
    let path = path(data, upstream);
    let folder = data.join("budgets");
    fs::create_dir_all(&folder)?;
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec(saved)?)?;
    file.sync_all()?;
    fs::rename(&next, &path)?;
    File::open(&folder)?.sync_all()?;
    File::open(data)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Budget, Rate, Unit};
    use crate::message::Timestamp;
    use std::time::Duration;

    #[test]
    fn what_was_recorded_is_read_again_and_damage_is_no_clean_slate() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), "ses").unwrap(), None);
        let rates = [Rate { limit: 10, unit: Unit::Recipients, per: Duration::from_secs(3600) }];
        let (saved, _) = Budget::new(&rates, None, Timestamp(0)).record(1, Timestamp(1)).unwrap();
        write(folder.path(), "ses", &saved).unwrap();
        assert_eq!(read(folder.path(), "ses").unwrap(), Some(saved));
        fs::write(path(folder.path(), "ses"), "{").unwrap();
        assert!(read(folder.path(), "ses").is_err());
    }
}
