//! How the operator divides an Upstream over the pools that name it, against a real API server. Pods are objects without a kubelet:
//! their relays do not answer, which is the case that matters.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::DeleteParams;
use postroad_crds::relay_config::{Division, FILE_NAME, RelayConfig, least_share};
use postroad_crds::v1alpha1::{Upstream, condition};
use postroad_tests::control_plane::{TestNamespace, until};

use crate::operator::control_plane;
use crate::{LIMIT, operator};

const UPSTREAM: &str = "apiVersion: postroad.dev/v1alpha1
kind: Upstream
metadata: {name: shared}
spec:
  sandbox: {}
  connections: {maximum: 4}
  rates: [{messages: 10, perSeconds: 2}]
";

fn pool(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: postroad.dev/v1alpha1
kind: RelayPool
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  listeners: [{{name: smtp, port: 25}}]
  clients: {{identities: []}}
  routes: [{{name: all, upstreams: [{{name: shared}}]}}]
"
    )
}

/// A pod of the pool `first` that runs, as far as anybody can see, on a node that does not answer.
async fn silent_pod(namespace: &TestNamespace) {
    let pod = "apiVersion: v1
kind: Pod
metadata:
  name: first-0
  labels: {app.kubernetes.io/name: postroad-relay, app.kubernetes.io/instance: first}
spec:
  serviceAccountName: first
  automountServiceAccountToken: false
  nodeName: away
  containers: [{name: relay, image: relay}]
";
    namespace.apply(pod).await.unwrap();
    let status = r#"{"status": {"phase": "Running", "podIP": "127.0.0.9", "podIPs": [{"ip": "127.0.0.9"}]}}"#;
    let patch = ["patch", "pod", "first-0", "--subresource=status", "--type=merge", "-p", status];
    namespace.kubectl(&patch).await.unwrap();
}

async fn divisions(namespace: &TestNamespace, pool: &str) -> Vec<Division> {
    let secret = namespace.api::<Secret>().get(&format!("{pool}-relay-config")).await.unwrap();
    let text = secret.data.unwrap().remove(FILE_NAME).unwrap();
    let config = RelayConfig::from_yaml(std::str::from_utf8(&text.0).unwrap()).unwrap();
    config.upstreams[0].divisions.clone()
}

/// What the pool's relays may use of 12 connections, as soon as that is so many.
async fn has_shares(namespace: &TestNamespace, pool: &str, replicas: u32, expected: &[u32]) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let divisions = divisions(namespace, pool).await;
        let shares: Vec<u32> = (0..replicas).map(|it| least_share(&divisions, 12, 0, it)).collect();
        if shares == expected {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{pool}: {shares:?} by {divisions:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn division_count(count: usize) -> impl Fn(Option<&Upstream>) -> bool {
    move |upstream| {
        let status = upstream.and_then(|upstream| upstream.status.as_ref());
        status.is_some_and(|status| status.divisions.len() == count)
    }
}

fn too_small(status: &'static str) -> impl Fn(Option<&Upstream>) -> bool {
    move |upstream| {
        let found = upstream.and_then(|upstream| upstream.status.as_ref());
        found
            .and_then(|found| condition(&found.conditions, "BudgetTooSmall"))
            .is_some_and(|held| held.status == status)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_comes_has_no_share_until_the_relays_before_it_have_let_go() {
    let control_plane = control_plane().await;
    let namespace = control_plane.namespace("divided").await.unwrap();
    let lease = (namespace.name(), "postroad-operator");
    let _operator = operator(control_plane.kubeconfig(), lease, namespace.name()).await;
    let upstreams = namespace.api::<Upstream>();
    namespace.apply(UPSTREAM).await.unwrap();
    namespace.apply(&pool("first", 2)).await.unwrap();
    until(&namespace.api::<Secret>(), "first-relay-config", "it is there", LIMIT, |it| it.is_some())
        .await
        .unwrap();
    has_shares(&namespace, "first", 2, &[6, 6]).await;
    until(&upstreams, "shared", "enough for all", LIMIT, too_small("False")).await.unwrap();

    silent_pod(&namespace).await;
    namespace.apply(&pool("second", 4)).await.unwrap();
    until(&upstreams, "shared", "two divisions", LIMIT, division_count(2)).await.unwrap();
    until(&upstreams, "shared", "too little for six", LIMIT, too_small("True")).await.unwrap();
    has_shares(&namespace, "first", 2, &[2, 2]).await;
    until(&namespace.api::<Secret>(), "second-relay-config", "it is there", LIMIT, |it| it.is_some())
        .await
        .unwrap();
    has_shares(&namespace, "second", 4, &[0, 0, 0, 0]).await;
    // Waiting is the test: however long it is silent, it may be sending.
    tokio::time::sleep(Duration::from_secs(6)).await;
    has_shares(&namespace, "second", 4, &[0, 0, 0, 0]).await;

    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    namespace.api::<Pod>().delete("first-0", &now).await.unwrap();
    has_shares(&namespace, "second", 4, &[2, 2, 2, 2]).await;
    until(&upstreams, "shared", "one division", LIMIT, division_count(1)).await.unwrap();
}
