//! What was spent, on disk: one small file a scope, replaced atomically. Does what [`Budget`](super::Budget) decides.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{Saved, Scope};

fn path(data: &Path, scope: &Scope) -> PathBuf {
    data.join("budgets").join(scope.kind()).join(format!("{}.json", scope.name()))
}

/// What was recorded of this scope; `None` when nothing was. Blocks.
///
/// # Errors
/// When the file is there and cannot be read: what it would have said is not known.
pub fn read(data: &Path, scope: &Scope) -> io::Result<Option<Saved>> {
    match fs::read(path(data, scope)) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Records. *Durability*: on stable storage when it returns. Blocks.
///
/// # Errors
/// When the file cannot be written; the last record stays.
pub fn write(data: &Path, scope: &Scope, saved: &Saved) -> io::Result<()> {
    let path = path(data, scope);
    let all = data.join("budgets");
    let folder = all.join(scope.kind());
    fs::create_dir_all(&folder)?;
    let next = path.with_extension("next");
    let mut file = File::create(&next)?;
    file.write_all(&serde_json::to_vec(saved)?)?;
    file.sync_all()?;
    fs::rename(&next, &path)?;
    [folder.as_path(), all.as_path(), data].iter().try_for_each(|folder| File::open(folder)?.sync_all())
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
        let scope = Scope::Upstream("ses".into());
        assert_eq!(read(folder.path(), &scope).unwrap(), None);
        let rates = [Rate { limit: 10, unit: Unit::Recipients, per: Duration::from_secs(3600) }];
        let mut budget = Budget::new(&rates, None, Timestamp(0));
        assert!(budget.admit(1, Timestamp(1)).is_err(), "nothing is recorded yet");
        let (saved, _) = budget.record(Timestamp(1)).unwrap();
        write(folder.path(), &scope, &saved).unwrap();
        assert_eq!(read(folder.path(), &scope).unwrap(), Some(saved));
        fs::write(path(folder.path(), &scope), "{").unwrap();
        assert!(read(folder.path(), &scope).is_err());
        assert_eq!(read(folder.path(), &Scope::Route("ses".into())).unwrap(), None, "another of that name");
    }
}
