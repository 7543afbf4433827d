//! Finding programs: the relay binary and `setpriv`.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

const RELAY: &str = "postroad-relay";

/// The relay binary is nowhere.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The one that was named does not exist.
    #[error("there is no relay binary at {} (--relay, POSTROAD_RELAY)", .0.display())]
    Missing(PathBuf),
    /// None was named and none was found.
    #[error(
        "the relay binary {RELAY} is neither beside this program nor in PATH: build it with `cargo build -p {RELAY}`, or \
         name it by --relay or POSTROAD_RELAY"
    )]
    NotFound,
}

/// The relay binary: the one named, else the one beside `own`, this program, else the one in `path`.
///
/// # Errors
/// When there is none.
pub fn relay(
    named: Option<PathBuf>,
    own: Option<&Path>,
    path: Option<&OsStr>,
) -> Result<PathBuf, ProgramError> {
    if let Some(named) = named.filter(|named| !named.as_os_str().is_empty()) {
        return if named.is_file() { Ok(named) } else { Err(ProgramError::Missing(named)) };
    }
    let beside =
        own.and_then(Path::parent).map(|folder| folder.join(RELAY)).filter(|beside| beside.is_file());
    beside.or_else(|| in_path(RELAY, path)).ok_or(ProgramError::NotFound)
}

/// The program of this name in `path`, the value of PATH.
#[must_use]
pub fn in_path(name: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    env::split_paths(path?).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_named_one_wins_then_the_one_beside_then_path() {
        let directory = tempfile::tempdir().unwrap();
        let (here, there) = (directory.path().join("here"), directory.path().join("there"));
        for folder in [&here, &there] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(RELAY), "").unwrap();
        }
        let (own, path) = (here.join("postroad-operator"), there.as_os_str());
        let find = |named: Option<PathBuf>, own: Option<&Path>, path| relay(named, own, path);
        assert_eq!(find(Some(there.join(RELAY)), Some(&own), None).unwrap(), there.join(RELAY));
        assert_eq!(find(None, Some(&own), Some(path)).unwrap(), here.join(RELAY));
        assert_eq!(find(None, None, Some(path)).unwrap(), there.join(RELAY));
        assert!(find(None, None, None).unwrap_err().to_string().contains("cargo build -p postroad-relay"));
        let missing = find(Some(here.join("x")), Some(&own), Some(path)).unwrap_err();
        assert!(missing.to_string().contains("here/x"), "{missing}");
    }
}
