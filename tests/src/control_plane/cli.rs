//! kubectl and helm against one cluster: the tools a platform engineer uses, with no state of the user's own.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::control_plane::binaries::locate;
use crate::control_plane::error::{ControlPlaneError, failed};

/// Runs commands with a kubeconfig and a home of their own.
#[derive(Clone, Debug)]
pub(crate) struct Cli {
    pub(crate) kubeconfig: PathBuf,
    /// Where kubectl and helm keep their caches.
    pub(crate) home: PathBuf,
}

impl Cli {
    /// Runs `tool` (`kubectl` or `helm`) and returns its standard output.
    pub(crate) async fn run(
        &self,
        tool: &str,
        arguments: &[&str],
        input: Option<&str>,
    ) -> Result<String, ControlPlaneError> {
        let mut command = Command::new(locate(tool).await?);
        command.args(arguments).kill_on_drop(true);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, value) in self.environment() {
            command.env(name, value);
        }
        let shown = format!("{tool} {}", arguments.join(" "));
        let mut child = command.spawn().map_err(failed(shown.as_str()))?;
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
            // A tool that ends without reading its input says why in its own words.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        outcome(shown.clone(), child.wait_with_output().await.map_err(failed(shown))?)
    }

    /// What a tool sees of the machine's user: nothing.
    pub(crate) fn environment(&self) -> Vec<(&'static str, &Path)> {
        vec![
            ("KUBECONFIG", &self.kubeconfig),
            ("KUBECACHEDIR", &self.home),
            ("HELM_CACHE_HOME", &self.home),
            ("HELM_CONFIG_HOME", &self.home),
            ("HELM_DATA_HOME", &self.home),
        ]
    }
}

fn outcome(command: String, output: Output) -> Result<String, ControlPlaneError> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ControlPlaneError::Command { command, status: output.status, stdout, stderr })
}
