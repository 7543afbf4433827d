//! A file system of its own on a [`Disk`] of its own, to be filled, to fail, to lose power. Needs root and, so that a run that
//! is killed leaves no mount behind, a mount namespace of its own: `tests/torture/run.sh` makes it.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::disk::Disk;
use crate::medium::Medium;

/// What the file system is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    fn make(self) -> &'static [&'static str] {
        match self {
            Self::Ext4 => &["mkfs.ext4", "-q", "-F"],
            Self::Xfs => &["mkfs.xfs", "-q", "-f"],
        }
    }
}

/// A mounted file system. Unmounted when dropped; the loop device goes with the mount.
pub(crate) struct Volume {
    disk: Disk,
    mount: PathBuf,
    _folder: TempDir,
}

impl Volume {
    /// A file system of this size.
    pub(crate) fn new(kind: Kind, octets: u64) -> Self {
        assert!(
            std::env::var_os("POSTROAD_TORTURE_NAMESPACE").is_some(),
            "this test mounts file systems: run it by `make torture`, as root, which gives it a mount namespace"
        );
        let folder = TempDir::with_prefix("postroad-torture-").unwrap();
        let path = |name: &str| {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        };
        let (mount, served) = (path("mount"), path("disk"));
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(octets).unwrap();
        let make = kind.make();
        run(Command::new(make[0]).args(&make[1..]).arg(&image));
        let image = OpenOptions::new().read(true).write(true).open(&image).unwrap();
        let disk = Disk::serve(Medium::new(image, octets).unwrap(), &served).unwrap();
        let volume = Self { disk, mount, _folder: folder };
        volume.mount();
        volume
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// What it stands on.
    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.disk.file()).arg(&self.mount));
    }

    /// Mounts it anew, with power, as a machine that starts again does. Nothing may have a file in it open.
    pub(crate) fn remount(&self) {
        run(Command::new("umount").arg(&self.mount));
        self.disk.medium().restore_power();
        self.mount();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily, as a relay may still be ending; there is nobody to tell of a failure.
        let _ = Command::new("umount").arg("--lazy").arg(&self.mount).output();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
