//! What an app sees of a pool made from the README's manifests, on every port and from both sides of the network rule; what the
//! pods look like from inside.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use postroad_crds::v1alpha1::RelayPool;
use postroad_tests::certificates::CertificateAuthority;
use postroad_tests::cluster::Cluster;
use postroad_tests::control_plane::{TestNamespace, until};

use crate::LIMIT;
use crate::installation::{NAMESPACE, RELEASE, installed, repository};
use crate::peers::{Load, Sending, Service, send, tls_secret};
use crate::scene::pool_is_ready;

/// The manifests of docs/quickstart, in the test's namespace.
async fn quickstart(namespace: &TestNamespace) {
    for file in ["users.yaml", "upstream.yaml", "relay-pool.yaml"] {
        let text = std::fs::read_to_string(repository("docs/quickstart").join(file)).unwrap();
        let text = text.replace("namespace: mail", &format!("namespace: {}", namespace.name()));
        namespace.apply(&text).await.unwrap();
    }
}

/// A namespace with the certificate that the README makes by hand.
async fn with_certificate(cluster: &Cluster, prefix: &str) -> (TestNamespace, String) {
    let namespace = cluster.namespace(prefix).await.unwrap();
    let host = format!("main.{}.svc.cluster.local", namespace.name());
    let authority = CertificateAuthority::new("README").unwrap();
    namespace.apply(&tls_secret("main-tls", &authority, &authority.issue(&[&host]).unwrap())).await.unwrap();
    (namespace, host)
}

async fn wait_ready(namespace: &TestNamespace) {
    until(&namespace.api::<RelayPool>(), "main", "is ready", LIMIT, pool_is_ready).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn the_quickstart_serves_apps_by_cluster_dns_and_mail_leaves_over_persistent_sessions() {
    let cluster = installed().await;
    cluster.volumes(1).await.unwrap();
    let (namespace, host) = with_certificate(cluster, "mail").await;
    quickstart(&namespace).await;
    wait_ready(&namespace).await;
    let user = Some(("app", "change-me"));
    let submission = Sending { host: &host, port: 587, tls: "starttls", user, certificate: None, node: None };
    let by_password = send(&namespace, "by-password", submission, "sandbox-password").await;
    assert_eq!(by_password.exit_code, 0, "{by_password:?}");
    let by_network = Sending { port: 25, tls: "plain", user: None, ..submission };
    let by_network = send(&namespace, "by-network", by_network, "sandbox-network").await;
    assert_eq!(by_network.exit_code, 0, "{by_network:?}");

    let service = Service::start(&namespace, 4, None).await;
    let patch = r#"{"spec": {"routes": [{"name": "everything", "upstreams": [{"name": "service"}]}]}}"#;
    namespace.kubectl(&["patch", "relaypool", "main", "--type=merge", "--patch", patch]).await.unwrap();
    let load = Load::start(&namespace, submission).await;
    load.begin("flow", 100, 4).await.unwrap();
    // The route is swapped while mail flows: what the sandbox took before is not expected upstream.
    let routed = async || {
        let count = service.arrived("flow").await?.len();
        anyhow::Ok(if count >= 300 { Ok(()) } else { Err(format!("{count} messages")) })
    };
    postroad_tests::cluster::eventually("300 messages at the service", LIMIT, routed).await.unwrap();
    let ledger = load.end().await.unwrap();
    assert_eq!(ledger.refused, None);
    let totals = service.totals().await.unwrap();
    assert!(totals.most_open_sessions <= 4 && totals.sessions * 20 < totals.messages, "{totals:?}");
    assert_eq!(totals.violations, Vec::<String>::new());
    for (token, (count, digest)) in service.arrived("flow").await.unwrap() {
        assert_eq!((count, Some(&digest)), (1, ledger.acknowledged.get(&token)), "{token}");
    }
    let said =
        cluster.control_plane().helm(&["test", RELEASE, "--namespace", NAMESPACE, "--logs"]).await.unwrap();
    assert!(said.contains("Phase:          Succeeded") && said.contains("reported on each of the"), "{said}");
}

/// A pool whose network rule holds one node's pods alone, with all three kinds of listener.
fn by_node(range: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: mail-users}}
stringData: {{app: hunter2}}
---
apiVersion: postroad.dev/v1alpha1
kind: Upstream
metadata: {{name: sandbox}}
spec: {{sandbox: {{}}}}
---
apiVersion: postroad.dev/v1alpha1
kind: RelayPool
metadata: {{name: main}}
spec:
  replicas: 1
  queue: {{ephemeral: {{sizeLimit: 1Gi}}}}
  certificate: {{secretRef: {{name: main-tls}}}}
  listeners:
  - {{name: smtp, port: 25, tls: Optional}}
  - {{name: submission, port: 587, tls: Required, authentication: Required}}
  - {{name: submissions, port: 465, tls: Implicit, authentication: Required}}
  clients:
    identities:
    - {{name: one-node, type: Network, network: {{cidrs: ['{range}']}}}}
    - {{name: apps, type: Password, password: {{usersSecretRef: {{name: mail-users}}}}}}
  routes: [{{name: everything, upstreams: [{{name: sandbox}}]}}]
"
    )
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn apps_are_served_on_every_port_and_a_stranger_is_told_why_not() {
    let cluster = installed().await;
    let [inside, outside] = cluster.nodes().await.unwrap();
    let (namespace, host) = with_certificate(cluster, "ports").await;
    namespace.apply(&by_node(&inside.pod_range)).await.unwrap();
    wait_ready(&namespace).await;
    let user = Some(("app", "hunter2"));
    let submission = Sending {
        host: &host,
        port: 587,
        tls: "starttls",
        user,
        certificate: None,
        node: Some(&outside.name),
    };
    let implicit = Sending { port: 465, tls: "implicit", ..submission };
    let clear = Sending { port: 25, tls: "plain", user: None, node: Some(&inside.name), ..submission };
    for (name, sending) in [("submission", submission), ("implicit", implicit), ("clear", clear)] {
        let sent = send(&namespace, name, sending, name).await;
        assert_eq!(sent.exit_code, 0, "{name}: {sent:?}");
    }
    let stranger =
        send(&namespace, "stranger", Sending { node: Some(&outside.name), ..clear }, "stranger").await;
    let pool = format!("RelayPool {}/main", namespace.name());
    // The code, who decided, and what would help.
    assert_eq!(stranger.exit_code, 1, "{stranger:?}");
    assert!(stranger.said.starts_with("550 5.7.1") && stranger.said.contains(&pool), "{stranger:?}");
    assert!(stranger.said.contains("spec.clients.identities"), "{stranger:?}");
    let wrong = Sending { user: Some(("app", "wrong")), ..submission };
    let wrong = send(&namespace, "wrong-password", wrong, "wrong").await;
    assert!(wrong.exit_code == 1 && wrong.said.starts_with("535 5.7.8"), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn relay_pods_are_restricted_without_a_token_and_cannot_write_to_their_root() {
    let cluster = installed().await;
    let (namespace, _) = with_certificate(cluster, "restricted").await;
    let lax = "apiVersion: v1\nkind: Pod\nmetadata: {name: lax}\nspec: {containers: [{name: a, image: localhost/a}]}\n";
    let refusal = namespace.apply(lax).await.unwrap_err().to_string();
    assert!(refusal.contains("violates PodSecurity \"restricted"), "{refusal}");
    namespace.apply(&by_node("10.0.0.0/8")).await.unwrap();
    wait_ready(&namespace).await;
    let pods = namespace.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(pods.len(), 1);
    let spec = pods[0].spec.as_ref().unwrap();
    assert_eq!(spec.automount_service_account_token, Some(false));
    let volumes = spec.volumes.as_ref().unwrap();
    assert!(volumes.iter().all(|volume| volume.projected.is_none()), "{volumes:?}");
    let security = spec.containers[0].security_context.as_ref().unwrap();
    assert_eq!(security.read_only_root_filesystem, Some(true));
    // On the harness's own nodes the kernel is asked too.
    if let Some(bed) = cluster.bed() {
        let mounts = bed.process(&pods[0].uid().unwrap(), "/postroad-relay").unwrap().mounts().unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).unwrap();
        assert!(root.split(' ').nth(3).unwrap().split(',').any(|option| option == "ro"), "{root}");
        assert!(!mounts.contains("serviceaccount"), "{mounts}");
    }
}
