//! What the faults share: a pool of two relays on two nodes, a service upstream and an app under load on the node that survives.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use postroad_crds::v1alpha1::{RelayPool, condition};
use postroad_tests::certificates::CertificateAuthority;
use postroad_tests::cluster::{Cluster, NodeFacts, eventually};
use postroad_tests::control_plane::{ControlPlaneError, TestNamespace, until};

use crate::LIMIT;
use crate::account::Row;
use crate::installation::{NAMESPACE, RELEASE};
use crate::peers::{Arrived, Ledger, Load, Sending, Service, Totals, is_ready, tls_secret};

/// Relays of the pool that meets the faults, and sessions that all of them together may hold to the service.
pub const RELAYS: usize = 2;
/// See [`RELAYS`].
pub const SESSIONS: usize = 4;
/// Offered load: messages per second, and over how many sessions.
const RATE: usize = 150;
/// See [`RATE`].
const CLIENTS: usize = 12;
/// What has to be held before a fault, messages per second.
const HELD: f64 = 100.0;

pub struct Scene {
    pub cluster: &'static Cluster,
    pub namespace: TestNamespace,
    pub service: Service,
    pub load: Load,
    /// The node of the app and the service.
    pub surviving: NodeFacts,
    /// The node that faults befall.
    pub failing: NodeFacts,
}

pub fn pool_is_ready(pool: Option<&RelayPool>) -> bool {
    let conditions: &[Condition] =
        pool.and_then(|pool| pool.status.as_ref()).map_or(&[], |status| &status.conditions);
    condition(conditions, "Ready").is_some_and(|ready| ready.status == "True")
}

fn pool(replicas: usize) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: mail-users}}
stringData: {{app: hunter2}}
---
apiVersion: postroad.dev/v1alpha1
kind: RelayPool
metadata: {{name: main}}
spec:
  replicas: {replicas}
  queue: {{storage: {{size: 1Gi}}, minimumBackoffSeconds: 1, maximumBackoffSeconds: 5}}
  certificate: {{secretRef: {{name: main-tls}}}}
  listeners:
  - {{name: submission, port: 587, tls: Required, authentication: Required}}
  clients: {{identities: [{{name: apps, type: Password, password: {{usersSecretRef: {{name: mail-users}}}}}}]}}
  routes: [{{name: everything, upstreams: [{{name: service}}]}}]
"
    )
}

/// What came of a fault under load.
pub struct Ran {
    ledger: Ledger,
    arrived: Arrived,
    pub before: Totals,
    pub after: Totals,
    recovery: Duration,
}

impl Ran {
    /// Its line of the table; what is wrong with it goes to `problems`. For `dead` see [`Row::of`].
    pub fn row(self, title: &'static str, dead: usize, problems: &mut Vec<String>) -> Row {
        let totals = [&self.before, &self.after];
        let row = Row::of(title, self.ledger, &self.arrived, totals, dead, self.recovery);
        problems.extend(row.problems(&self.arrived));
        row
    }
}

impl Scene {
    /// A pool of this many relays, ready. Each has two sessions to the service, or more while they are few.
    pub async fn set(cluster: &'static Cluster, prefix: &str, relays: usize) -> Self {
        let [surviving, failing] = cluster.nodes().await.unwrap();
        cluster.volumes(relays).await.unwrap();
        let namespace = cluster.namespace(prefix).await.unwrap();
        let host = format!("main.{}.svc.cluster.local", namespace.name());
        let authority = CertificateAuthority::new("Pool").unwrap();
        namespace
            .apply(&tls_secret("main-tls", &authority, &authority.issue(&[&host]).unwrap()))
            .await
            .unwrap();
        let sessions = SESSIONS.max(2 * relays);
        let service = Service::start(&namespace, sessions, Some(&surviving.name)).await;
        namespace.apply(&pool(relays)).await.unwrap();
        until(&namespace.api::<RelayPool>(), "main", "is ready", LIMIT, pool_is_ready).await.unwrap();
        let user = Some(("app", "hunter2"));
        let sending = Sending {
            host: &host,
            port: 587,
            tls: "starttls",
            user,
            certificate: None,
            node: Some(&surviving.name),
        };
        let load = Load::start(&namespace, sending).await;
        Self { cluster, namespace, service, load, surviving, failing }
    }

    /// Makes the pool anew, or changes it to so many relays, and waits until all are ready.
    pub async fn make_pool(&self, relays: usize) -> anyhow::Result<()> {
        self.cluster.volumes(relays).await?;
        self.namespace.apply(&pool(relays)).await?;
        let sets: Api<StatefulSet> = self.namespace.api();
        let complete = move |set: Option<&StatefulSet>| {
            let status = set.and_then(|set| set.status.as_ref());
            set.is_some_and(set_is_whole)
                && status.is_some_and(|status| status.ready_replicas == i32::try_from(relays).ok())
        };
        until(&sets, "main", &format!("has {relays} ready relays"), LIMIT, complete).await?;
        Ok(())
    }

    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String, ControlPlaneError> {
        self.namespace.kubectl(arguments).await
    }

    /// The relay pods, in the order of their names.
    pub async fn relays(&self) -> anyhow::Result<Vec<Pod>> {
        let labels = ListParams::default().labels("app.kubernetes.io/name=postroad-relay");
        Ok(self.namespace.api::<Pod>().list(&labels).await?.items)
    }

    /// The pods of the operator.
    pub async fn operators(&self) -> anyhow::Result<Vec<Pod>> {
        let labels = ListParams::default().labels("app.kubernetes.io/component=operator");
        Ok(Api::<Pod>::namespaced(self.namespace.client(), NAMESPACE).list(&labels).await?.items)
    }

    /// UIDs and restarts of the relay pods: equal before and after what must not touch a pod.
    pub async fn lives(&self) -> anyhow::Result<Vec<String>> {
        let life = |pod: &Pod| {
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
            let restarts: i32 = statuses.into_iter().flatten().map(|status| status.restart_count).sum();
            format!("{} {} restarted {restarts}", pod.name_any(), pod.uid().unwrap_or_default())
        };
        Ok(self.relays().await?.iter().map(life).collect())
    }

    /// Waits until a relay pod is another, or restarted, than when `before` was taken. Readiness lags behind what happened: a node
    /// that comes back repeats for a moment what it reported before it went.
    pub async fn wait_touched(&self, before: &[String]) -> anyhow::Result<()> {
        let touched = async || {
            let same = self.lives().await? == before;
            anyhow::Ok(if same { Err(format!("they are still {before:?}")) } else { Ok(()) })
        };
        Ok(eventually("the relay pods to be restarted or replaced", LIMIT, touched).await?)
    }

    /// Waits until every relay runs the wanted revision and is ready, and so are the operators.
    pub async fn wait_whole(&self) -> anyhow::Result<()> {
        let sets: Api<StatefulSet> = self.namespace.api();
        let deployments = Api::<Deployment>::namespaced(self.namespace.client(), NAMESPACE);
        let whole = async || {
            let (set, deployment) = (sets.get("main").await?, deployments.get(RELEASE).await?);
            if !set_is_whole(&set) {
                return Ok(Err(format!("the StatefulSet: {:?}", set.status)));
            }
            // The status of a dead node's pods lags behind: the pods are asked too.
            if let Some(pod) = self.relays().await?.iter().find(|pod| !is_ready(Some(pod))) {
                return Ok(Err(format!("{} is not ready", pod.name_any())));
            }
            let (wanted, status) =
                (deployment.spec.and_then(|spec| spec.replicas), deployment.status.unwrap_or_default());
            let ready = (status.ready_replicas, status.updated_replicas) == (wanted, wanted);
            anyhow::Ok(if ready { Ok(()) } else { Err(format!("the operator: {status:?}")) })
        };
        Ok(eventually("relays and operators to be ready", LIMIT, whole).await?)
    }

    /// Changes the pool and waits until an operator has reported on the change.
    pub async fn wait_obeyed(&self) -> anyhow::Result<()> {
        let pools: Api<RelayPool> = self.namespace.api();
        let obeyed = async || {
            let generation = pools.get("main").await?.metadata.generation.unwrap_or_default();
            // Another number than the present one, whatever that is.
            let patch = format!(
                r#"{{"spec": {{"limits": {{"recipientsPerMessage": {}}}}}}}"#,
                200 + generation % 100
            );
            self.kubectl(&["patch", "relaypool", "main", "--type=merge", "--patch", &patch]).await?;
            anyhow::Ok(Ok(generation + 1))
        };
        let generation = eventually("the API server to take a change", LIMIT, obeyed).await?;
        let reported = move |pool: Option<&RelayPool>| {
            let conditions = pool.and_then(|pool| pool.status.as_ref()).map(|status| &status.conditions);
            let accepted = conditions.and_then(|conditions| condition(conditions, "Accepted"));
            accepted.is_some_and(|accepted| accepted.observed_generation >= Some(generation))
        };
        until(&pools, "main", "is reported on by an operator", LIMIT, reported).await?;
        Ok(())
    }

    /// What `fault` comes to while an app sends. It answers from when on the recovery counts, which lasts until what was acknowledged
    /// by its end has arrived.
    pub async fn under_load(
        &self,
        prefix: &str,
        fault: impl AsyncFnOnce() -> anyhow::Result<Instant>,
    ) -> anyhow::Result<Ran> {
        let before = self.service.totals().await?;
        self.load.begin(prefix, RATE, CLIENTS).await?;
        let recovery = async {
            self.wait_held(HELD).await?;
            let over = fault().await?;
            self.wait_drained(prefix).await?;
            anyhow::Ok(over.elapsed())
        };
        let recovery = recovery.await;
        // Whatever went wrong, the load ends here, or the next fault would find it running.
        let ledger = self.load.end().await?;
        let recovery = recovery?;
        let arrived = self.service.wait_for(prefix, ledger.acknowledged.keys()).await?;
        let after = self.service.totals().await?;
        Ok(Ran { ledger, arrived, before, after, recovery })
    }

    /// Waits until as many messages have arrived as were acknowledged at the time of the call.
    pub async fn wait_drained(&self, prefix: &str) -> anyhow::Result<()> {
        let acknowledged = async || anyhow::Ok(Ok(self.load.acknowledged().await?));
        let acknowledged = eventually("the app to answer", LIMIT, acknowledged).await?;
        let drained = async || {
            let count = self.service.arrived(prefix).await?.len();
            let missing = acknowledged.saturating_sub(count);
            anyhow::Ok(if missing == 0 { Ok(()) } else { Err(format!("{missing} have not arrived")) })
        };
        Ok(eventually("what was acknowledged to arrive", LIMIT, drained).await?)
    }

    /// Waits until the load has had this many messages acknowledged in the present run.
    pub async fn wait_acknowledged(&self, count: usize) -> anyhow::Result<()> {
        let enough = async || {
            let now = self.load.acknowledged().await?;
            anyhow::Ok(if now >= count { Ok(()) } else { Err(format!("{now} are acknowledged")) })
        };
        Ok(eventually(&format!("{count} messages to be acknowledged"), LIMIT, enough).await?)
    }

    /// Waits until the load is held: `rate` messages per second or more, over five seconds.
    pub async fn wait_held(&self, rate: f64) -> anyhow::Result<()> {
        let held = async || {
            let (before, begin) = (self.load.acknowledged().await?, Instant::now());
            tokio::time::sleep(Duration::from_secs(5)).await;
            let count = self.load.acknowledged().await? - before;
            let found = count as f64 / begin.elapsed().as_secs_f64();
            anyhow::Ok(if found >= rate {
                Ok(())
            } else {
                Err(format!("{found:.0} messages per second are held"))
            })
        };
        Ok(eventually(&format!("{rate} messages per second"), LIMIT, held).await?)
    }
}

fn set_is_whole(set: &StatefulSet) -> bool {
    let (Some(spec), Some(status)) = (&set.spec, &set.status) else { return false };
    let current = status.observed_generation == set.metadata.generation
        && status.current_revision == status.update_revision;
    current
        && status.ready_replicas == spec.replicas
        && status.updated_replicas.or(spec.replicas) == spec.replicas
}
