//! Fail-over as a person sees it with kubectl: an operator on a real API server asks a real relay how its upstreams stand. The relay's pod
//! is an object without a kubelet, whose address is one of this machine's.

use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use postroad_crds::relay_config::RelayConfig;
use postroad_crds::v1alpha1::{RelayPool, Upstream, condition};
use postroad_tests::control_plane::{TestNamespace, until};
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_client::{Security, SmtpClient};
use postroad_tests::smtp_server::SmtpServer;

use crate::operator::{control_plane, is, programmed, rendered};
use crate::{LIMIT, operator};

/// Where relays are asked.
const HAND_OVER_PORT: u16 = 9091;

fn manifests(first: u16, second: u16) -> String {
    let upstream = |name: &str, ports: &str| {
        format!(
            "apiVersion: postroad.dev/v1alpha1
kind: Upstream
metadata: {{name: {name}}}
spec:
  smarthost: {{host: 127.0.0.1, ports: [{ports}]}}
  connections: {{messagesPerConnection: 1}}
---
"
        )
    };
    let pool = "apiVersion: postroad.dev/v1alpha1
kind: RelayPool
metadata: {name: main}
spec:
  listeners: [{name: smtp, port: 2525}]
  clients: {identities: [{name: all, type: Network, network: {cidrs: [127.0.0.0/8]}}]}
  routes: [{name: all, upstreams: [{name: first}, {name: second, priority: 2}]}]
  queue: {minimumBackoffSeconds: 1, maximumBackoffSeconds: 1}
";
    let blocked = free_port().unwrap();
    let port = |port: u16| format!("{{port: {port}, tls: None}}");
    upstream("first", &port(first))
        + &upstream("second", &format!("{}, {}", port(blocked), port(second)))
        + pool
}

/// A loopback address that no other run of this test has at the moment.
fn own_address() -> Ipv4Addr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, 64 | (high << 4) | middle >> 4, middle << 4 | low >> 4, 2 + (low & 15))
}

/// A running pod of the pool at this address, as far as the API server knows.
async fn pod(namespace: &TestNamespace, address: Ipv4Addr) {
    let pod = "apiVersion: v1
kind: Pod
metadata:
  name: main-0
  labels: {app.kubernetes.io/name: postroad-relay, app.kubernetes.io/instance: main}
spec:
  serviceAccountName: main
  automountServiceAccountToken: false
  nodeName: here
  containers: [{name: relay, image: relay}]
";
    namespace.apply(pod).await.unwrap();
    let status = format!(
        r#"{{"status": {{"phase": "Running", "podIP": "{address}", "podIPs": [{{"ip": "{address}"}}]}}}}"#
    );
    let patch = ["patch", "pod", "main-0", "--subresource=status", "--type=merge", "-p", &status];
    namespace.kubectl(&patch).await.unwrap();
}

/// What the pod's relay is told, as soon as it has a share of every Upstream, with listeners at this address.
async fn configuration(namespace: &TestNamespace, address: Ipv4Addr) -> RelayConfig {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        if let Some(mut config) = rendered(namespace).await
            && config.upstreams.iter().all(|it| it.divisions.last().is_some_and(|last| last.relays == 1))
        {
            config.listeners[0].address = format!("{address}:2525");
            config.hand_over.as_mut().unwrap().address = format!("{address}:{HAND_OVER_PORT}");
            return config;
        }
        assert!(tokio::time::Instant::now() < deadline, "no share");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

struct Scene {
    namespace: TestNamespace,
    client: SmtpClient,
}

impl Scene {
    async fn send(&mut self) {
        let reply =
            self.client.message("a@example.com", &["b@example.net"], b"Subject: x\r\n\r\n").await.unwrap();
        assert_eq!(reply.code, 250, "{reply:?}");
    }

    /// Waits for a condition of an Upstream and returns its message.
    async fn upstream_is(&self, name: &str, type_: &str, status: &str, reason: &str) -> String {
        let held = |upstream: Option<&Upstream>| {
            let found = condition(&upstream?.status.as_ref()?.conditions, type_)?;
            (found.status == status && found.reason == reason).then(|| found.message.clone())
        };
        let what = format!("{type_}={status}/{reason}");
        let upstreams = self.namespace.api::<Upstream>();
        let held_now = |upstream: Option<&Upstream>| held(upstream).is_some();
        until(&upstreams, name, &what, LIMIT, held_now).await.unwrap();
        held(Some(&upstreams.get(name).await.unwrap())).unwrap_or_default()
    }

    async fn pool_is(&self, status: &str, reason: &str) {
        let what = format!("PreferredUpstreams={status}/{reason}");
        let held = |pool: Option<&RelayPool>| is(pool, "PreferredUpstreams", status, reason);
        until(&self.namespace.api::<RelayPool>(), "main", &what, LIMIT, held).await.unwrap();
    }

    async fn events(&self) -> Vec<String> {
        let events = self.namespace.api::<Event>().list(&ListParams::default()).await.unwrap();
        events.items.into_iter().filter_map(|event| event.reason).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_when_an_upstream_fails_and_where_its_mail_goes_and_when_it_is_back() {
    let control_plane = control_plane().await;
    let namespace = control_plane.namespace("standing").await.unwrap();
    let lease = (namespace.name(), "postroad-operator");
    let _operator = operator(control_plane.kubeconfig(), lease, namespace.name()).await;
    let mut first = SmtpServer::plain().await.unwrap();
    let second = SmtpServer::plain().await.unwrap();
    namespace.apply(&manifests(first.port(), second.port())).await.unwrap();
    until(&namespace.api::<RelayPool>(), "main", "Programmed=True", LIMIT, programmed).await.unwrap();
    let address = own_address();
    let config = configuration(&namespace, address).await;
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    let at = (address, 2525).into();
    let client = SmtpClient::open(at, &Security::None, "client.example").await.unwrap();
    let mut scene = Scene { namespace, client };

    // Before its pod is known the first of the two fails; so nothing is asked twice.
    scene.send().await;
    first.wait_for(1, LIMIT).await.unwrap();
    first.stop().await;
    scene.send().await;
    second.wait_for(1, LIMIT).await.unwrap();
    pod(&scene.namespace, address).await;
    let message = scene.upstream_is("first", "Reachable", "False", "Unreachable").await;
    let why = format!("main-0: no port could be used: port {}: ", first.port());
    assert!(message.contains(&why), "{message}");
    scene.upstream_is("second", "Reachable", "True", "Reachable").await;
    let message = scene.upstream_is("second", "PreferredPort", "False", "PortPassedOver").await;
    assert!(message.contains(&format!("main-0 on port {}", second.port())), "{message}");
    scene.pool_is("False", "FailedOver").await;
    let shown = scene.namespace.kubectl(&["get", "upstreams"]).await.unwrap();
    assert!(shown.contains("REACHABLE"), "{shown}");

    first.restart().await.unwrap();
    while first.messages().len() < 2 {
        // Each may be the one by which it is tried again.
        scene.send().await;
        relay.wait_until_all_ended(LIMIT).await.unwrap();
    }
    scene.upstream_is("first", "Reachable", "True", "Reachable").await;
    scene.pool_is("True", "AsPreferred").await;
    let events = scene.events().await;
    for reason in ["Unreachable", "Reachable", "FailedOver", "AsPreferred", "PortPassedOver"] {
        assert!(events.iter().any(|told| told == reason), "{reason} is not in {events:?}");
    }
    drop(relay);
}
