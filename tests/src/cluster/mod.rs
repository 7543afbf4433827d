//! A real cluster for the end-to-end suite: nodes, pods, cluster DNS, helm.
//!
//! `tests/cluster/cluster.sh` brings it up on this machine, or one that is up is used; `POSTROAD_TEST_KUBECONFIG` names another one,
//! which must hold the images already and is harmed only with `POSTROAD_TEST_DESTRUCTIVE=1`. It stays up after the tests:
//! `make e2e` takes it down, a developer may want to look at it.
//!
//! ```text
//! mod        what a test holds              bed        cluster.sh: nodes and API server that fail, processes that are killed
//! pod_port   HTTP to a pod, through the API server
//! ```

mod bed;
mod pod_port;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use tokio::sync::OnceCell;

pub use crate::cluster::bed::{Bed, BedError};
pub use crate::cluster::pod_port::PodPort;

use crate::control_plane::{ControlPlane, ControlPlaneError, TEST_KUBECONFIG, TestNamespace};
use crate::waiting::TimedOut;

/// Allows faults on the cluster that `POSTROAD_TEST_KUBECONFIG` names.
const DESTRUCTIVE: &str = "POSTROAD_TEST_DESTRUCTIVE";

/// Rest between two looks at something that cannot be watched: a ledger in a pod.
const REST: Duration = Duration::from_millis(250);

/// Why the cluster could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// cluster.sh failed.
    #[error(transparent)]
    Bed(#[from] BedError),
    /// kubectl, helm or the API server failed.
    #[error(transparent)]
    ControlPlane(#[from] ControlPlaneError),
    /// It has not the nodes that the suite needs.
    #[error("the cluster has {0} schedulable nodes and the suite needs two")]
    Nodes(usize),
}

/// A cluster that is up, with the images of the suite on its nodes.
pub struct Cluster {
    control_plane: ControlPlane,
    bed: Option<Bed>,
}

impl Cluster {
    /// The cluster that all tests of this binary share.
    ///
    /// # Errors
    /// [`ClusterError`] when it cannot be brought up; cluster.sh says what the machine lacks.
    pub async fn shared() -> Result<&'static Self, ClusterError> {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    async fn start() -> Result<Self, ClusterError> {
        let bed = Bed::here();
        let own = bed.kubeconfig().await.ok();
        let other =
            std::env::var_os(TEST_KUBECONFIG).map(PathBuf::from).filter(|path| Some(path) != own.as_ref());
        if let Some(kubeconfig) = other {
            return Ok(Self { control_plane: ControlPlane::at(&kubeconfig)?, bed: None });
        }
        bed.run(&["up"]).await?;
        let archives: Vec<String> = archives().iter().map(|path| path.display().to_string()).collect();
        let arguments: Vec<&str> =
            ["load-image"].into_iter().chain(archives.iter().map(String::as_str)).collect();
        bed.run(&arguments).await?;
        Ok(Self { control_plane: ControlPlane::at(&bed.kubeconfig().await?)?, bed: Some(bed) })
    }

    /// kubectl, helm and a client with all rights.
    #[must_use]
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The harness's own bed, for faults that only it can make; `None` on another cluster.
    #[must_use]
    pub fn bed(&self) -> Option<&Bed> {
        self.bed.as_ref()
    }

    /// Whether tests may drain nodes and the like here.
    #[must_use]
    pub fn may_be_harmed(&self) -> bool {
        self.bed.is_some() || std::env::var(DESTRUCTIVE).is_ok_and(|value| value == "1")
    }

    /// A fresh namespace that enforces restricted Pod Security.
    ///
    /// # Errors
    /// [`ClusterError::ControlPlane`].
    pub async fn namespace(&self, prefix: &str) -> Result<TestNamespace, ClusterError> {
        let namespace = self.control_plane.namespace(prefix).await?;
        let label = "pod-security.kubernetes.io/enforce=restricted";
        self.control_plane.kubectl(&["label", "namespace", namespace.name(), label]).await?;
        Ok(namespace)
    }

    /// Sees to it that this many volumes can be bound. Another cluster has a provisioner.
    ///
    /// # Errors
    /// [`ClusterError::Bed`].
    pub async fn volumes(&self, count: usize) -> Result<(), ClusterError> {
        if let Some(bed) = &self.bed {
            bed.run(&["volumes", &count.to_string()]).await?;
        }
        Ok(())
    }

    /// Two nodes that pods can be placed on, in the order of their names, with their ranges of pod addresses.
    ///
    /// # Errors
    /// [`ClusterError::Nodes`] when there are fewer.
    pub async fn nodes(&self) -> Result<[NodeFacts; 2], ClusterError> {
        let api: Api<Node> = Api::all(self.control_plane.client().await?);
        let listed = api.list(&ListParams::default()).await.map_err(ControlPlaneError::from)?;
        let usable = |node: &Node| {
            let spec = node.spec.as_ref();
            spec.is_some_and(|spec| {
                spec.unschedulable != Some(true) && spec.taints.as_ref().is_none_or(Vec::is_empty)
            })
        };
        let mut nodes: Vec<NodeFacts> =
            listed.items.iter().filter(|node| usable(node)).map(NodeFacts::of).collect();
        nodes.sort_by(|left, right| left.name.cmp(&right.name));
        let count = nodes.len();
        let mut nodes = nodes.into_iter();
        nodes
            .next()
            .zip(nodes.next())
            .map(|(first, second)| [first, second])
            .ok_or(ClusterError::Nodes(count))
    }
}

/// What tests need to know of a node.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// The range that its pods' addresses are from, in CIDR form; empty when the cluster does not say.
    pub pod_range: String,
}

impl NodeFacts {
    fn of(node: &Node) -> Self {
        let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
        Self { name: node.metadata.name.clone().unwrap_or_default(), pod_range: range.unwrap_or_default() }
    }
}

/// The image archives that `tests/e2e/images.sh` makes.
fn archives() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/e2e/images");
    let names = ["postroad-operator", "postroad-relay", "postroad-relay-next", "fake-upstream", "app"];
    names.iter().map(|name| folder.join(format!("{name}.tar"))).collect()
}

/// Looks again and again at what cannot be watched, until `look` answers `Ok(Ok(value))`; `Ok(Err(…))` says what was found instead. An
/// error counts as "not yet": the API server, which carries the question, may be away.
///
/// # Errors
/// [`TimedOut`] after `limit`, with what was found last.
pub async fn eventually<T, E: std::fmt::Display>(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<Result<T, String>, E>,
) -> Result<T, TimedOut> {
    let begin = Instant::now();
    loop {
        let found = match look().await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(found)) => found,
            Err(error) => error.to_string(),
        };
        if begin.elapsed() >= limit {
            return Err(TimedOut { what: what.to_owned(), waited: limit, found });
        }
        tokio::time::sleep(REST).await;
    }
}
