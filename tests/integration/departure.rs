//! Relays that are to go, and pools that are deleted, as the operator handles them on a real API server. Neither nodes nor the
//! StatefulSet's controller run: no relay ever says anything, and claims are what a test makes of them.

use std::path::Path;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use postroad_crds::v1alpha1::RelayPool;
use postroad_tests::binaries;
use postroad_tests::control_plane::{ControlPlane, TestNamespace, until};
use postroad_tests::processes::{Process, Program, Signal};
use serde_json::json;

use crate::operator::{certificate, control_plane, is, programmed, quickstart, rendered};
use crate::{LIMIT, operator};

/// A pool of one relay, programmed by an operator.
struct Scene {
    control_plane: &'static ControlPlane,
    namespace: TestNamespace,
    pools: Api<RelayPool>,
    sets: Api<StatefulSet>,
    claims: Api<PersistentVolumeClaim>,
    operator: Process,
}

impl Scene {
    async fn set(prefix: &str) -> Self {
        let control_plane = control_plane().await;
        let namespace = control_plane.namespace(prefix).await.unwrap();
        let lease = (namespace.name(), "postroad-operator");
        let operator = operator(control_plane.kubeconfig(), lease, namespace.name()).await;
        certificate(&namespace).await;
        for file in ["upstream.yaml", "users.yaml", "relay-pool.yaml"] {
            namespace.apply(&quickstart(file, &namespace)).await.unwrap();
        }
        let (pools, sets, claims) = (namespace.api(), namespace.api(), namespace.api());
        until(&pools, "main", "Programmed=True", LIMIT, programmed).await.unwrap();
        Self { control_plane, namespace, pools, sets, claims, operator }
    }

    /// The claim of a relay, bound to a volume or not, that nothing keeps from going.
    async fn claim(&self, ordinal: u32, phase: &str) {
        let name = format!("spool-main-{ordinal}");
        let manifest = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "postroad-relay", "app.kubernetes.io/instance": "main"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        });
        self.namespace.apply(&manifest.to_string()).await.unwrap();
        let merge = PatchParams::default();
        let unprotected = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.claims.patch(&name, &merge, &unprotected).await.unwrap();
        let phase = Patch::Merge(json!({"status": {"phase": phase}}));
        self.claims.patch_status(&name, &merge, &phase).await.unwrap();
    }

    async fn scale(&self, replicas: u32) {
        let replicas = format!("--replicas={replicas}");
        self.namespace.kubectl(&["scale", "relaypool/main", &replicas]).await.unwrap();
    }

    async fn has(&self, replicas: i32) {
        let has = move |set: Option<&StatefulSet>| {
            set.is_some_and(|set| set.spec.as_ref().unwrap().replicas == Some(replicas))
        };
        until(&self.sets, "main", &format!("{replicas} relays"), LIMIT, has).await.unwrap();
    }

    async fn drains(&self, status: &str, reason: &str) {
        let what = format!("Draining={status}/{reason}");
        let drains = |pool: Option<&RelayPool>| is(pool, "Draining", status, reason);
        until(&self.pools, "main", &what, LIMIT, drains).await.unwrap();
    }

    async fn delete_pool(&self) {
        self.pools.delete("main", &DeleteParams::default()).await.unwrap();
    }

    async fn pool_goes(&self) {
        until(&self.pools, "main", "its absence", LIMIT, |pool| pool.is_none()).await.unwrap();
    }

    async fn claim_goes(&self, ordinal: u32) {
        let name = format!("spool-main-{ordinal}");
        until(&self.claims, &name, "its absence", LIMIT, |claim| claim.is_none()).await.unwrap();
    }

    async fn claim_is_there(&self, ordinal: u32) -> bool {
        self.claims.get_opt(&format!("spool-main-{ordinal}")).await.unwrap().is_some()
    }

    /// The text of the Event with this reason.
    async fn told(&self, reason: &str) -> String {
        let events = self.namespace.api::<Event>().list(&ListParams::default()).await.unwrap();
        let event = events.items.into_iter().find(|event| event.reason.as_deref() == Some(reason));
        event.and_then(|event| event.note).unwrap_or_default()
    }
}

/// What `helm uninstall` runs.
pub(crate) async fn uninstall(kubeconfig: &Path, lease: (&str, &str), deployment: Option<&str>) {
    let variables = [
        ("KUBECONFIG", kubeconfig.to_str().unwrap()),
        ("LEASE_NAMESPACE", lease.0),
        ("LEASE_NAME", lease.1),
        ("DEPLOYMENT", deployment.unwrap_or_default()),
    ];
    let program = Program {
        name: "uninstall".to_owned(),
        path: binaries::locate("postroad-operator").unwrap(),
        arguments: vec!["uninstall".to_owned()],
        environment: variables.map(|(name, value)| (format!("POSTROAD_{name}"), value.to_owned())).to_vec(),
    };
    let uninstall = Process::start(program).await.unwrap();
    let status = uninstall.wait(LIMIT).await.unwrap();
    assert!(status.success(), "{}", uninstall.log().tail(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_goes_only_when_nothing_can_be_left_with_it_and_its_claim_goes_then() {
    let scene = Scene::set("scaled").await;
    scene.scale(3).await;
    scene.has(3).await;
    scene.claim(1, "Bound").await;
    scene.claim(2, "Pending").await;

    scene.scale(1).await;
    scene.has(2).await;
    scene.claim_goes(2).await;
    scene.drains("True", "RelaysLeaving").await;
    let leaving = rendered(&scene.namespace).await.unwrap().hand_over.unwrap();
    assert_eq!((leaving.peers.len(), leaving.leaving), (2, [1].into()), "nobody knows what is on its volume");
    assert!(scene.claim_is_there(1).await);

    scene.scale(2).await;
    scene.drains("False", "NoRelayLeaves").await;
    let stayed = rendered(&scene.namespace).await.unwrap().hand_over.unwrap();
    assert!(stayed.leaving.is_empty());
    assert_eq!(stayed.certificate, leaving.certificate, "the relays' certificate outlives changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pool_waits_for_what_may_be_left_until_its_policy_gives_it_up() {
    let scene = Scene::set("deleted").await;
    scene.claim(0, "Bound").await;
    // As when everything is deleted by one command.
    scene.namespace.kubectl(&["delete", "upstream,secret", "--all"]).await.unwrap();
    scene.delete_pool().await;
    scene.drains("True", "BeingDeleted").await;
    assert!(scene.claim_is_there(0).await && scene.sets.get_opt("main").await.unwrap().is_some());

    let discard = Patch::Merge(json!({"spec": {"deletionPolicy": "Discard"}}));
    scene.pools.patch("main", &PatchParams::default(), &discard).await.unwrap();
    scene.pool_goes().await;
    scene.claim_goes(0).await;
    until(&scene.sets, "main", "its absence", LIMIT, |set| set.is_none()).await.unwrap();
    let told = scene.told("MailDiscarded").await;
    assert!(told.contains("0 queued messages") && told.contains("relays 0 did not say"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relays_of_a_deleted_pool_are_told_to_finish_even_when_what_it_names_is_gone() {
    let scene = Scene::set("finishing").await;
    scene.claim(0, "Bound").await;
    scene.namespace.kubectl(&["delete", "upstream", "--all"]).await.unwrap();
    scene.delete_pool().await;
    let told = |secret: Option<&Secret>| {
        let text = secret.and_then(|secret| secret.data.as_ref()?.get("relay-config.yaml").cloned());
        text.is_some_and(|text| String::from_utf8_lossy(&text.0).contains("leaving"))
    };
    let secrets = scene.namespace.api::<Secret>();
    until(&secrets, "main-relay-config", "who leaves", LIMIT, told).await.unwrap();
    let config = rendered(&scene.namespace).await.unwrap();
    assert_eq!(config.hand_over.unwrap().leaving, [0].into());
    assert_eq!(config.upstreams.len(), 1, "they deliver by what they had");

    // A namespace that goes takes the pool along.
    let namespaces: Api<Namespace> = Api::all(scene.namespace.client());
    namespaces.delete(scene.namespace.name(), &DeleteParams::default()).await.unwrap();
    scene.pool_goes().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_uninstallation_pools_go_without_an_operator_and_their_volumes_stay() {
    let scene = Scene::set("uninstalled").await;
    scene.claim(0, "Bound").await;
    scene.operator.signal(Signal::Terminate);
    scene.operator.wait(LIMIT).await.unwrap();
    let kept = scene.pools.get("main").await.unwrap();
    assert_eq!(kept.metadata.finalizers, Some(vec!["postroad.dev/drain".to_owned()]));
    let lease = (scene.namespace.name(), "postroad-operator");
    uninstall(scene.control_plane.kubeconfig(), lease, None).await;
    scene.delete_pool().await;
    scene.pool_goes().await;
    assert!(scene.claim_is_there(0).await);
}
