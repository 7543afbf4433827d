//! Where local mode keeps things, and writing a configuration so that a relay never reads half of one.
//!
//! `<data>/<namespace>/<pool>-<ordinal>/` is a relay's spool, `<data>/<namespace>/.config/<pool>-<ordinal>/` the folder with
//! its configuration. A name that begins with a dot is no pool's, so the two cannot meet.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use postroad_crds::admin_token;
use postroad_crds::relay_config::{FILE_NAME, ObjectName};

use crate::relay_pool::admin_token::AdminToken;

/// The places of one relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The folder of its spool.
    pub data: PathBuf,
    config: PathBuf,
}

impl Places {
    /// The places of a pool's relay under the data folder.
    #[must_use]
    pub fn of(data: &Path, pool: &ObjectName, ordinal: u32) -> Self {
        let namespace = data.join(&pool.namespace);
        let relay = format!("{}-{ordinal}", pool.name);
        Self { config: namespace.join(".config").join(&relay), data: namespace.join(relay) }
    }

    /// The file with its configuration.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.config.join(FILE_NAME)
    }

    /// Puts the configuration in place by renaming: readers see the old file or the new one. Readable by the owner alone.
    ///
    /// # Errors
    /// When a folder or file cannot be written; the text names it.
    pub fn write_config(&self, text: &str) -> io::Result<()> {
        self.write(FILE_NAME, text)
    }

    /// Gives the relay the token of its admin API, in the same way.
    ///
    /// # Errors
    /// As [`write_config`](Self::write_config).
    pub fn write_admin_token(&self, token: &AdminToken) -> io::Result<()> {
        self.write(admin_token::FILE_NAME, token.reveal())
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        private_folder(&self.data)?;
        private_folder(&self.config)?;
        let (file, temporary) = (self.config.join(name), self.config.join(format!(".{name}.new")));
        let written = (|| {
            // One that an interrupted run has left may have another mode.
            let _ = fs::remove_file(&temporary);
            let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
            new.write_all(text.as_bytes())?;
            new.sync_all()?;
            fs::rename(&temporary, &file)
        })();
        written.map_err(|error| named("cannot write", &file, &error))
    }

    /// Removes the configuration, which holds secrets. What is in the spool stays.
    pub fn remove_config(&self) {
        let _ = fs::remove_dir_all(&self.config);
    }
}

/// Makes a folder and those above it, for the owner alone.
///
/// # Errors
/// When it cannot be made; the text names it.
pub fn private_folder(path: &Path) -> io::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| named("cannot make the folder", path, &error))
}

fn named(what: &str, path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn places(data: &Path, name: &str, ordinal: u32) -> Places {
        Places::of(data, &ObjectName { namespace: "mail".into(), name: name.into() }, ordinal)
    }

    #[test]
    fn a_configuration_is_the_owners_alone_and_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path(), "main", 1);
        for text in ["one", "two"] {
            places.write_config(text).unwrap();
            assert_eq!(fs::read_to_string(places.config_file()).unwrap(), text);
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&places.config_file()), 0o600);
        assert_eq!((mode(&places.config), mode(&places.data)), (0o700, 0o700));
        places.remove_config();
        assert!(!places.config_file().exists() && places.data.exists());
    }

    #[test]
    fn a_spool_is_never_inside_another_pools_configuration() {
        let data = Path::new("data");
        assert_eq!(places(data, "a", 0).data, Path::new("data/mail/a-0"));
        assert!(!places(data, "a", 0).data.starts_with(places(data, "a-0", 0).config));
    }
}
