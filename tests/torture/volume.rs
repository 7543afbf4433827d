//! A file system of its own on a loop device, to be filled, to fail, to lose power. Needs root and, so that a run that is
//! killed leaves no mount behind, a mount namespace of its own: `tests/torture/run.sh` makes it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

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

/// A mounted file system on a file. Unmounted when dropped; the loop device goes with the mount.
pub(crate) struct Volume {
    image: PathBuf,
    mount: PathBuf,
    /// The image lies in it when the medium is a tmpfs, which is to be full.
    medium: Option<PathBuf>,
    _folder: TempDir,
}

impl Volume {
    /// A file system of this size on a sparse file.
    pub(crate) fn new(kind: Kind, octets: u64) -> Self {
        Self::on(kind, octets, None)
    }

    /// A file system that believes it has `octets`, on a tmpfs that has only `medium_octets`.
    pub(crate) fn overcommitted(kind: Kind, octets: u64, medium_octets: u64) -> Self {
        Self::on(kind, octets, Some(medium_octets))
    }

    fn on(kind: Kind, octets: u64, medium_octets: Option<u64>) -> Self {
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
        let (mount, medium) = (path("mount"), path("medium"));
        if let Some(octets) = medium_octets {
            let size = format!("size={octets}");
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&medium));
        }
        let image = medium.join("image");
        File::create(&image).unwrap().set_len(octets).unwrap();
        let make = kind.make();
        run(Command::new(make[0]).args(&make[1..]).arg(&image));
        let medium = medium_octets.map(|_| medium);
        let volume = Self { image, mount, medium, _folder: folder };
        volume.mount();
        volume
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.mount));
    }

    /// Cuts the power: what was not synced is gone, and nothing can be written until the next [`remount`](Self::remount).
    pub(crate) fn power_cut(&self) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("torture/power_cut.py");
        run(Command::new("python3").arg(script).arg(&self.mount));
    }

    /// Mounts it anew, as a machine that starts again does. Nothing may have a file in it open.
    pub(crate) fn remount(&self) {
        run(Command::new("umount").arg(&self.mount));
        self.mount();
    }

    /// Takes what the medium has left, so that nothing of the file system can be written any more.
    pub(crate) fn exhaust_medium(&self) {
        let filler = self.filler();
        // Ends with ENOSPC, which is the purpose.
        let ended = Command::new("dd").args(["if=/dev/zero", "bs=64k", "status=none"]).arg(filler).output();
        assert!(!ended.unwrap().status.success(), "the medium was not full");
    }

    /// Gives back what [`exhaust_medium`](Self::exhaust_medium) took.
    pub(crate) fn relieve_medium(&self) {
        let filler = self.medium.as_ref().expect("an overcommitted volume").join("filler");
        fs::remove_file(filler).unwrap();
    }

    fn filler(&self) -> String {
        let medium = self.medium.as_ref().expect("an overcommitted volume");
        format!("of={}", medium.join("filler").display())
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily, as a relay may still be ending; there is nobody to tell of a failure.
        for mounted in [Some(&self.mount), self.medium.as_ref()].into_iter().flatten() {
            let _ = Command::new("umount").arg("--lazy").arg(mounted).output();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
