//! A real control plane for tests: etcd, kube-apiserver and kube-controller-manager on loopback ports, in a few seconds.
//!
//! No kubelet and no scheduler: objects live, pods do not run. It is not a mock; schema, CEL, RBAC, admission, garbage
//! collection and watches are the real ones. `POSTROAD_TEST_KUBECONFIG` names another cluster to use instead; a plain
//! `KUBECONFIG` is ignored, so that nobody's cluster is touched by accident.
//!
//! ```text
//! mod        starting, sharing and asking it       namespace  one namespace a test
//! parts      the processes' flags and credentials  cli        kubectl and helm
//! binaries   where the programs are                audit      who wrote what
//! ```

mod audit;
mod binaries;
mod cli;
mod error;
mod namespace;
mod parts;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, Client, Config, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Mutex, OnceCell};

pub use crate::control_plane::audit::Write;
pub use crate::control_plane::error::ControlPlaneError;
pub use crate::control_plane::namespace::TestNamespace;

use crate::control_plane::cli::Cli;
use crate::control_plane::error::failed;
use crate::control_plane::parts::Parts;
use crate::processes::{Process, Signal};
use crate::scratch::ScratchFolder;
use crate::waiting::TimedOut;

/// The variable that names another cluster to test on.
pub const TEST_KUBECONFIG: &str = "POSTROAD_TEST_KUBECONFIG";

const READY_LIMIT: Duration = Duration::from_secs(60);
/// Rest between two looks at something that cannot be watched, the API server's own readiness above all.
const POLL_REST: Duration = Duration::from_millis(20);

/// What a control plane runs.
#[derive(Clone, Debug)]
pub struct ControlPlaneOptions {
    /// The controllers of kube-controller-manager; none leaves it out.
    pub controllers: Vec<String>,
    /// Further flags for kube-apiserver.
    pub api_server_flags: Vec<String>,
}

impl Default for ControlPlaneOptions {
    /// Garbage collection, namespaces and default service accounts: what objects need, without anything that makes pods.
    fn default() -> Self {
        let controllers =
            ["garbage-collector-controller", "namespace-controller", "serviceaccount-controller"];
        Self { controllers: controllers.map(str::to_owned).to_vec(), api_server_flags: Vec::new() }
    }
}

/// A control plane, the harness's own or another.
///
/// Its processes end with this value, and with the test process however that ends.
pub struct ControlPlane {
    own: Option<OwnControlPlane>,
    cli: Cli,
    folder: ScratchFolder,
}

/// The processes, before the folder they write to. Order matters: fields are dropped from the first to the last.
struct OwnControlPlane {
    _controller_manager: Option<Process>,
    api_server: Mutex<Process>,
    api_server_flags: Vec<String>,
    _etcd: Process,
    parts: Parts,
}

impl ControlPlane {
    /// The control plane that all tests of this binary share: started with default options by the first that asks.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn shared() -> Result<&'static Self, ControlPlaneError> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(ControlPlaneOptions::default())).await
    }

    /// Starts a control plane and waits until the API server is ready, or uses the one that `POSTROAD_TEST_KUBECONFIG` names.
    ///
    /// # Errors
    /// [`ControlPlaneError`]: the binaries are missing, a process ended, or it was not ready within a minute.
    pub async fn start(options: ControlPlaneOptions) -> Result<Self, ControlPlaneError> {
        if let Some(kubeconfig) = std::env::var_os(TEST_KUBECONFIG) {
            return Self::at(Path::new(&kubeconfig));
        }
        let folder = ScratchFolder::new("postroad-control-plane-").map_err(failed("a folder"))?;
        let parts = Parts::prepare(folder.path())?;
        let cli = Cli { kubeconfig: parts.kubeconfig(), home: folder.path().join("home") };
        let etcd = Process::start(parts.etcd().await?).await?;
        let api_server = Process::start(parts.api_server(&options.api_server_flags).await?).await?;
        wait_ready(&cli.kubeconfig, &parts, &[&etcd, &api_server]).await?;
        let controller_manager = match &options.controllers[..] {
            [] => None,
            controllers => Some(Process::start(parts.controller_manager(controllers).await?).await?),
        };
        let own = OwnControlPlane {
            _controller_manager: controller_manager,
            api_server: Mutex::new(api_server),
            api_server_flags: options.api_server_flags,
            _etcd: etcd,
            parts,
        };
        Ok(Self { own: Some(own), cli, folder })
    }

    /// A cluster that is up already, by its kubeconfig.
    ///
    /// # Errors
    /// [`ControlPlaneError::Io`] when no folder for the tools' caches can be made.
    pub fn at(kubeconfig: &Path) -> Result<Self, ControlPlaneError> {
        let folder = ScratchFolder::new("postroad-control-plane-").map_err(failed("a folder"))?;
        let cli = Cli { kubeconfig: kubeconfig.to_owned(), home: folder.path().to_owned() };
        Ok(Self { own: None, cli, folder })
    }

    /// A client with all rights, for the runtime of the caller: do not carry it over to another test.
    ///
    /// # Errors
    /// [`ControlPlaneError::Kubeconfig`] or [`ControlPlaneError::Api`].
    pub async fn client(&self) -> Result<Client, ControlPlaneError> {
        client(&self.cli.kubeconfig).await
    }

    /// The kubeconfig with all rights, for a process under test.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.cli.kubeconfig
    }

    /// A kubeconfig with the rights of a service account that exists, for a process that has to get by with its RBAC rules.
    ///
    /// # Errors
    /// [`ControlPlaneError::NotOurs`] on another cluster; [`ControlPlaneError::Command`] when there is no such account.
    pub async fn service_account_kubeconfig(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<PathBuf, ControlPlaneError> {
        let own = self.own("a kubeconfig for a service account")?;
        let token =
            self.kubectl(&["create", "token", name, "--namespace", namespace, "--duration=1h"]).await?;
        let path = self.folder.path().join(format!("{namespace}.{name}.kubeconfig"));
        std::fs::write(&path, own.parts.kubeconfig_text(token.trim())?).map_err(failed("a kubeconfig"))?;
        Ok(path)
    }

    /// Runs kubectl and returns its standard output.
    ///
    /// # Errors
    /// [`ControlPlaneError::Command`] with the API server's words.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, ControlPlaneError> {
        self.cli.run("kubectl", arguments, None).await
    }

    /// Applies manifests, as a user would: `kubectl apply`.
    ///
    /// # Errors
    /// [`ControlPlaneError::Command`] with the API server's words.
    pub async fn apply(&self, manifests: &str) -> Result<String, ControlPlaneError> {
        self.cli.run("kubectl", &["apply", "-f", "-"], Some(manifests)).await
    }

    /// Runs helm and returns its standard output.
    ///
    /// # Errors
    /// [`ControlPlaneError::Command`] with helm's words.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String, ControlPlaneError> {
        self.cli.run("helm", arguments, None).await
    }

    /// Makes a fresh namespace; its name begins with `prefix`.
    ///
    /// # Errors
    /// [`ControlPlaneError::Api`].
    pub async fn namespace(&self, prefix: &str) -> Result<TestNamespace, ControlPlaneError> {
        TestNamespace::create(self.client().await?, self.cli.clone(), prefix, self.own.is_none()).await
    }

    /// All writes since the start, in the order of their answers, those of the control plane itself included.
    ///
    /// # Errors
    /// [`ControlPlaneError::NotOurs`] on another cluster, whose audit log is not at hand.
    pub fn writes(&self) -> Result<Vec<Write>, ControlPlaneError> {
        audit::read(&self.own("the audit log")?.parts.audit_log())
    }

    /// Kills the API server and waits until it is gone; etcd and the controllers stay. Only for a control plane of the test's own.
    ///
    /// # Errors
    /// [`ControlPlaneError::NotOurs`] on another cluster.
    pub async fn kill_api_server(&self) -> Result<(), ControlPlaneError> {
        let own = self.own("killing the API server")?;
        let api_server = own.api_server.lock().await;
        api_server.signal(Signal::Kill);
        api_server.wait(READY_LIMIT).await?;
        Ok(())
    }

    /// Starts the API server again after [`Self::kill_api_server`], on its port and with its data, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart_api_server(&self) -> Result<(), ControlPlaneError> {
        let own = self.own("starting the API server")?;
        let mut api_server = own.api_server.lock().await;
        *api_server = Process::start(own.parts.api_server(&own.api_server_flags).await?).await?;
        wait_ready(&self.cli.kubeconfig, &own.parts, &[&api_server]).await
    }

    fn own(&self, what: &'static str) -> Result<&OwnControlPlane, ControlPlaneError> {
        self.own.as_ref().ok_or(ControlPlaneError::NotOurs(what))
    }
}

/// Watches the object `name` until `condition` holds, and returns it; `None` when the condition holds for its absence.
///
/// Interrupted watches are begun again. *Cancellation*: dropping the future ends the watch.
///
/// # Errors
/// [`ControlPlaneError::TimedOut`] after `limit`, with the object as it then is, Secret data left out.
pub async fn until<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    limit: Duration,
    condition: impl Fn(Option<&K>) -> bool,
) -> Result<Option<K>, ControlPlaneError>
where
    K: Clone + Debug + Send + DeserializeOwned + Serialize + Resource + 'static,
{
    let watching = async {
        loop {
            let condition = ByReference(&condition);
            match await_condition(api.clone(), name, condition).await {
                Ok(object) => return object,
                // The API server was away, or the kind is not served yet.
                Err(_) => tokio::time::sleep(POLL_REST).await,
            }
        }
    };
    if let Ok(object) = tokio::time::timeout(limit, watching).await {
        return Ok(object);
    }
    let found = match api.get_opt(name).await {
        Ok(Some(object)) => described(&object),
        Ok(None) => format!("there is no {name}"),
        Err(error) => format!("{name} could not be read: {error}"),
    };
    Err(TimedOut { what: format!("{name}: {what}"), waited: limit, found }.into())
}

/// Lets one condition serve several watches.
struct ByReference<'a, F>(&'a F);

impl<K, F: Fn(Option<&K>) -> bool> Condition<K> for ByReference<'_, F> {
    fn matches_object(&self, object: Option<&K>) -> bool {
        (self.0)(object)
    }
}

fn described(object: &impl Serialize) -> String {
    let Ok(mut value) = serde_json::to_value(object) else {
        return "an object that cannot be shown".to_owned();
    };
    for secret in ["data", "stringData"] {
        if let Some(fields) = value.as_object_mut() {
            fields.remove(secret);
        }
    }
    if let Some(metadata) = value.pointer_mut("/metadata").and_then(serde_json::Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    serde_yaml::to_string(&value).unwrap_or_else(|error| error.to_string())
}

async fn client(kubeconfig: &Path) -> Result<Client, ControlPlaneError> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    // A proxy of the machine's user leads away from loopback.
    if config.cluster_url.host() == Some("127.0.0.1") {
        config.proxy_url = None;
    }
    Ok(Client::try_from(config)?)
}

/// Waits until the API server is ready, as it says so itself, or until one of `processes` has ended.
async fn wait_ready(
    kubeconfig: &Path,
    parts: &Parts,
    processes: &[&Process],
) -> Result<(), ControlPlaneError> {
    let client = client(kubeconfig).await?;
    let begin = Instant::now();
    loop {
        let request = Request::get("/readyz").body(Vec::new()).expect("a constant path makes a request");
        let answer = tokio::time::timeout(READY_LIMIT, client.request_text(request)).await;
        if matches!(&answer, Ok(Ok(text)) if text == "ok") {
            return Ok(());
        }
        for process in processes {
            if let Some(status) = process.exited() {
                let (name, log) = (process.name().to_owned(), process.log().tail(20));
                return Err(ControlPlaneError::Ended { name, status, log });
            }
        }
        if begin.elapsed() >= READY_LIMIT {
            let found = format!("{answer:?}");
            let what = format!("the API server at {} to be ready", parts.address());
            return Err(TimedOut { what, waited: READY_LIMIT, found }.into());
        }
        tokio::time::sleep(POLL_REST).await;
    }
}
