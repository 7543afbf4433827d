//! The bed: `tests/cluster/cluster.sh`, the harness's own cluster on this machine, and what only its owner can do to it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

/// A command of the bed that failed, with its words.
#[derive(Debug, thiserror::Error)]
#[error("{command} failed: {words}")]
pub struct BedError {
    command: String,
    words: String,
}

/// The cluster of `tests/cluster/cluster.sh` under the name that `POSTROAD_CLUSTER` gives.
pub struct Bed {
    script: PathBuf,
}

/// A process of a pod, as this machine sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodProcess {
    id: u32,
}

impl Bed {
    pub(crate) fn here() -> Self {
        Self { script: Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/cluster.sh") }
    }

    /// Runs a command of cluster.sh and answers its standard output.
    ///
    /// # Errors
    /// [`BedError`] with what it said on standard error.
    pub async fn run(&self, arguments: &[&str]) -> Result<String, BedError> {
        run(self.script.as_os_str(), arguments).await
    }

    /// Where the administrator's kubeconfig is, whether the cluster is up or not.
    ///
    /// # Errors
    /// [`BedError`].
    pub async fn kubeconfig(&self) -> Result<PathBuf, BedError> {
        Ok(PathBuf::from(self.run(&["kubeconfig"]).await?.trim()))
    }

    /// The process of `program` (an absolute path in its image) in the pod with this UID.
    ///
    /// # Errors
    /// [`BedError`] when there is none.
    pub fn process(&self, pod_uid: &str, program: &str) -> Result<PodProcess, BedError> {
        let missing = || BedError {
            command: format!("looking for {program} in pod {pod_uid}"),
            words: "no process of this machine belongs to the pod".to_owned(),
        };
        let folders = std::fs::read_dir("/proc").map_err(|_| missing())?;
        let ids = folders.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let belongs = |id: &u32| {
            let groups = std::fs::read_to_string(format!("/proc/{id}/cgroup")).unwrap_or_default();
            let command = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
            // The systemd driver writes a UID with underscores.
            (groups.contains(pod_uid) || groups.contains(&pod_uid.replace('-', "_")))
                && command.split('\0').next() == Some(program)
        };
        ids.filter(belongs).map(|id| PodProcess { id }).next().ok_or_else(missing)
    }

    /// SIGKILL: the process has no chance to do anything.
    ///
    /// # Errors
    /// [`BedError`] when it is gone already.
    pub async fn kill(&self, process: PodProcess) -> Result<(), BedError> {
        run(OsStr::new("kill"), &["-KILL", &process.id.to_string()]).await.map(drop)
    }
}

impl PodProcess {
    /// What is mounted in the process's container: the text of `/proc/PID/mounts`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn mounts(self) -> std::io::Result<String> {
        std::fs::read_to_string(format!("/proc/{}/mounts", self.id))
    }
}

async fn run(program: &OsStr, arguments: &[&str]) -> Result<String, BedError> {
    let shown = format!("{} {}", program.to_string_lossy(), arguments.join(" "));
    let failed = |words: String| BedError { command: shown.clone(), words };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(format!("{}: {words}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
