//! Where Postroad's own binaries are: those the suites start as real processes.
//!
//! They are never built here: a test that builds what it tests hides a stale build. The make target named in the error does.

use std::path::{Path, PathBuf};

/// The variable that names the folder of the binaries, for suites that run against a build from elsewhere.
pub const BIN_DIR: &str = "POSTROAD_BIN_DIR";

/// Why a binary could not be found.
#[derive(Debug, thiserror::Error)]
#[error(
    "{name} is in none of {}: build it with `make build`, or set {BIN_DIR} to the folder that holds it",
    .searched.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ")
)]
pub struct BinaryMissing {
    /// The binary.
    pub name: String,
    /// Where it was looked for.
    pub searched: Vec<PathBuf>,
}

/// Finds the binary `name`: in the folder that `POSTROAD_BIN_DIR` names, else beside the running test, in the folder of its own
/// profile first and that of the other profile (debug, release) then.
///
/// # Errors
/// [`BinaryMissing`] names the folders and what builds it.
pub fn locate(name: &str) -> Result<PathBuf, BinaryMissing> {
    let folders = match std::env::var_os(BIN_DIR) {
        Some(folder) => vec![PathBuf::from(folder)],
        None => std::env::current_exe().map(|test| profile_folders(&test)).unwrap_or_default(),
    };
    find(name, folders)
}

fn find(name: &str, folders: Vec<PathBuf>) -> Result<PathBuf, BinaryMissing> {
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| BinaryMissing { name: name.to_owned(), searched: folders })
}

/// Cargo puts a test at `target/PROFILE/deps/TEST` and a binary at `target/PROFILE/BINARY`.
fn profile_folders(test: &Path) -> Vec<PathBuf> {
    let Some(own) = test.ancestors().skip(1).find(|folder| !folder.ends_with("deps")) else {
        return Vec::new();
    };
    let others = ["release", "debug"].map(|profile| own.with_file_name(profile));
    let mut folders = vec![own.to_owned()];
    folders.extend(others.into_iter().filter(|other| other != own));
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_profile_comes_before_the_other() {
        let folders = profile_folders(Path::new("/w/target/debug/deps/integration-0123"));
        assert_eq!(folders, [Path::new("/w/target/debug"), Path::new("/w/target/release")]);
    }

    #[test]
    fn a_missing_binary_is_told_with_what_builds_it() {
        let error = find("postroad-relay", vec![PathBuf::from("/nowhere")]).unwrap_err().to_string();
        assert!(error.contains("/nowhere") && error.contains("make build"), "{error}");
    }
}
