//! The chart, installed once for all tests of this binary, with default values, into a namespace that enforces restricted Pod Security.

use std::path::{Path, PathBuf};

use postroad_tests::cluster::{Cluster, eventually};
use postroad_tests::control_plane::ControlPlaneError;
use tokio::sync::OnceCell;

use crate::LIMIT;

/// The release and its namespace.
pub const RELEASE: &str = "postroad";
/// See [`RELEASE`].
pub const NAMESPACE: &str = "postroad-system";

pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

pub fn chart() -> String {
    repository("charts/postroad").display().to_string()
}

/// The cluster with Postroad on it.
pub async fn installed() -> &'static Cluster {
    static INSTALLED: OnceCell<&'static Cluster> = OnceCell::const_new();
    let install = || async {
        let cluster = Cluster::shared().await.unwrap();
        let control_plane = cluster.control_plane();
        let manifest = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels: {{pod-security.kubernetes.io/enforce: restricted}}\n"
        );
        control_plane.apply(&manifest).await.unwrap();
        // A cluster that is kept between runs holds the release of the last one.
        let there = control_plane.helm(&["status", RELEASE, "--namespace", NAMESPACE]).await.is_ok();
        if there {
            upgrade(cluster, &[]).await.unwrap();
            // The images may be others under the same tag.
            let deployment = format!("deployment/{RELEASE}");
            control_plane
                .kubectl(&["--namespace", NAMESPACE, "rollout", "restart", &deployment])
                .await
                .unwrap();
            control_plane
                .kubectl(&["--namespace", NAMESPACE, "rollout", "status", &deployment])
                .await
                .unwrap();
        } else {
            let chart = chart();
            let arguments =
                ["install", RELEASE, &chart, "--namespace", NAMESPACE, "--wait", "--timeout", "3m"];
            control_plane.helm(&arguments).await.unwrap();
        }
        // The API server serves new kinds some time before its list of kinds, which kubectl goes by, has them.
        let known = async || {
            let listed = control_plane.kubectl(&["get", "relaypools,upstreams", "--all-namespaces"]).await;
            Ok::<_, ControlPlaneError>(Ok(listed?))
        };
        eventually("kubectl to know the new kinds", LIMIT, known).await.unwrap();
        cluster
    };
    INSTALLED.get_or_init(install).await
}

/// Upgrades the release with default values and these besides, and waits for the operator's pods.
pub async fn upgrade(cluster: &Cluster, values: &[&str]) -> Result<(), ControlPlaneError> {
    let chart = chart();
    let mut arguments = vec![
        "upgrade",
        RELEASE,
        &chart,
        "--namespace",
        NAMESPACE,
        "--reset-values",
        "--wait",
        "--timeout",
        "3m",
    ];
    arguments.extend(values.iter().flat_map(|value| ["--set", value]));
    cluster.control_plane().helm(&arguments).await.map(drop)
}
