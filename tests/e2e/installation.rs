//! The chart, installed once for all tests of this binary, with default values, into a namespace that enforces restricted Pod Security.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use postroad_crds::v1alpha1::RelayPool;
use postroad_tests::cluster::{Cluster, eventually};
use postroad_tests::control_plane::{ControlPlaneError, until};
use tokio::sync::OnceCell;

use crate::LIMIT;
use crate::peers::is_ready;
use crate::scene::pool_is_ready;

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
            install(cluster).await.unwrap();
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

async fn install(cluster: &Cluster) -> Result<(), ControlPlaneError> {
    let chart = chart();
    let arguments = ["install", RELEASE, &chart, "--namespace", NAMESPACE, "--wait", "--timeout", "3m"];
    cluster.control_plane().helm(&arguments).await.map(drop)
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

const POOL: &str = "apiVersion: postroad.dev/v1alpha1
kind: Upstream
metadata: {name: sandbox}
spec: {sandbox: {}}
---
apiVersion: postroad.dev/v1alpha1
kind: RelayPool
metadata: {name: main}
spec:
  queue: {ephemeral: {sizeLimit: 1Gi}}
  listeners: [{name: smtp, port: 25}]
  clients: {identities: [{name: all, type: Network, network: {cidrs: [10.0.0.0/8]}}]}
  routes: [{name: everything, upstreams: [{name: sandbox}]}]
";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn an_uninstallation_lets_pools_go_while_relays_run_on_and_the_next_release_takes_them_over() {
    let cluster = installed().await;
    let namespace = cluster.namespace("uninstalled").await.unwrap();
    namespace.apply(POOL).await.unwrap();
    let pools = namespace.api::<RelayPool>();
    until(&pools, "main", "is ready", LIMIT, pool_is_ready).await.unwrap();
    let held = |pool: Option<&RelayPool>| pool.is_some_and(|pool| !pool.finalizers().is_empty());
    assert!(held(pools.get_opt("main").await.unwrap().as_ref()));
    let relay = namespace.api::<Pod>().get("main-0").await.unwrap().uid();

    let arguments = ["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "3m"];
    cluster.control_plane().helm(&arguments).await.unwrap();
    assert!(!held(Some(&pools.get("main").await.unwrap())));
    assert!(is_ready(namespace.api::<Pod>().get_opt("main-0").await.unwrap().as_ref()));

    install(cluster).await.unwrap();
    until(&pools, "main", "is held again", LIMIT, held).await.unwrap();
    let now = namespace.api::<Pod>().get("main-0").await.unwrap();
    assert_eq!((now.uid(), is_ready(Some(&now))), (relay, true), "the relay was not touched");
    pools.delete("main", &DeleteParams::default()).await.unwrap();
    until(&pools, "main", "has gone", LIMIT, |pool| pool.is_none()).await.unwrap();
}
