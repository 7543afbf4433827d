//! A namespace for one test, with a look at what was in it when the test fails.

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use rand::RngExt;

use crate::control_plane::cli::Cli;
use crate::control_plane::error::ControlPlaneError;

/// A fresh namespace.
///
/// Dropping it in a panicking test prints its objects, its events and what its pods logged, Secrets by name only. On the harness's own control plane
/// it is left behind, on another cluster its deletion is begun.
pub struct TestNamespace {
    name: String,
    client: Client,
    cli: Cli,
    delete: bool,
}

impl TestNamespace {
    pub(crate) async fn create(
        client: Client,
        cli: Cli,
        prefix: &str,
        delete: bool,
    ) -> Result<Self, ControlPlaneError> {
        let name = format!("{prefix}-{:06x}", rand::rng().random_range(0..0x0100_0000_u32));
        let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(Self { name, client, cli, delete })
    }

    /// Its name: the prefix asked for and a random suffix.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client it was made with.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The objects of one kind in this namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Runs kubectl in this namespace and returns its standard output.
    ///
    /// # Errors
    /// [`ControlPlaneError::Command`] with the API server's words.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, ControlPlaneError> {
        self.cli.run("kubectl", &[&["--namespace", &self.name], arguments].concat(), None).await
    }

    /// Applies manifests, as a user would: `kubectl apply`.
    ///
    /// # Errors
    /// [`ControlPlaneError::Command`] with the API server's words, as when a validation rule refuses.
    pub async fn apply(&self, manifests: &str) -> Result<String, ControlPlaneError> {
        self.cli.run("kubectl", &["--namespace", &self.name, "apply", "-f", "-"], Some(manifests)).await
    }

    /// Everything in the namespace as YAML, then events, then the tail of each pod's log; Secrets by name only.
    ///
    /// # Errors
    /// [`ControlPlaneError::Command`] when kubectl fails.
    pub async fn dump(&self) -> Result<String, ControlPlaneError> {
        let listed = ["api-resources", "--namespaced", "--verbs=list", "--output=name"];
        let kinds = self.cli.run("kubectl", &listed, None).await?;
        let shown =
            |kind: &&str| !matches!(*kind, "secrets" | "events" | "events.events.k8s.io" | "endpoints");
        let kinds = kinds.lines().filter(shown).collect::<Vec<_>>().join(",");
        let objects = self.kubectl(&["get", &kinds, "--output=yaml", "--ignore-not-found"]).await?;
        let secrets = self.kubectl(&["get", "secrets"]).await?;
        let events = self.kubectl(&["get", "events", "--sort-by=.lastTimestamp", "--output=wide"]).await?;
        let logs = self.logs().await?;
        Ok(format!("{objects}\nsecrets:\n{secrets}\nevents:\n{events}\nlogs:\n{logs}"))
    }

    async fn logs(&self) -> Result<String, ControlPlaneError> {
        let mut logs = String::new();
        for pod in self.kubectl(&["get", "pods", "--output=name"]).await?.lines() {
            let arguments = ["logs", pod, "--all-containers", "--prefix", "--ignore-errors", "--tail=100"];
            // A pod that never started has no log, and that is no reason to lose the others.
            logs.push_str(&self.kubectl(&arguments).await.unwrap_or_else(|error| error.to_string()));
        }
        Ok(logs)
    }

    /// [`Self::dump`] from a destructor, where nothing can be awaited on the test's own runtime.
    fn dump_in_a_thread(&self) -> String {
        let dump = || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.dump()).unwrap_or_else(|error| error.to_string()),
            Err(error) => error.to_string(),
        };
        std::thread::scope(|scope| scope.spawn(dump).join()).unwrap_or_else(|_| "the dump failed".to_owned())
    }

    fn delete_in_a_thread(&self) {
        let delete = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let arguments = ["delete", "namespace", &self.name, "--wait=false"];
            runtime.block_on(self.cli.run("kubectl", &arguments, None)).ok()
        };
        // A namespace that cannot be deleted is seen by whoever looks at that cluster.
        let _ = std::thread::scope(|scope| scope.spawn(delete).join());
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- namespace {} ----\n{}", self.name, self.dump_in_a_thread());
        }
        if self.delete {
            self.delete_in_a_thread();
        }
    }
}
