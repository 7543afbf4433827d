//! Where the control plane's binaries are: in the folder `KUBEBUILDER_ASSETS`, else built from their Go modules into a cache.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::control_plane::error::{ControlPlaneError, failed};

/// The variable by which controller tests in general are given a control plane.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// Finds `name` (as `etcd` or `helm`). What `KUBEBUILDER_ASSETS` lacks, helm for instance, comes from the cache.
///
/// An up-to-date cache costs milliseconds; an empty one is built, which takes minutes and is announced on stderr.
pub(crate) async fn locate(name: &str) -> Result<PathBuf, ControlPlaneError> {
    if let Some(assets) = std::env::var_os(ASSETS) {
        let path = PathBuf::from(assets).join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    static CACHE: OnceCell<PathBuf> = OnceCell::const_new();
    let path = CACHE.get_or_try_init(build).await?.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(ControlPlaneError::NotBuilt(format!("{} is missing", path.display())))
    }
}

async fn build() -> Result<PathBuf, ControlPlaneError> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("control-plane/build.sh");
    let output = Command::new(&script)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .map_err(failed(script.display().to_string()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().last() {
        Some(folder) if output.status.success() => Ok(PathBuf::from(folder)),
        _ => Err(ControlPlaneError::NotBuilt(format!("{} failed ({})", script.display(), output.status))),
    }
}
