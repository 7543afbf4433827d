//! Apps that are known by a certificate: the pod that shows one whose name the pool admits sends; others are refused.

use postroad_crds::v1alpha1::RelayPool;
use postroad_tests::certificates::{CertificateAuthority, Holder, Usage};
use postroad_tests::control_plane::until;

use crate::LIMIT;
use crate::installation::installed;
use crate::peers::{Sending, send, tls_secret};
use crate::scene::pool_is_ready;

/// A pool that asks every client for a certificate, and admits those for `billing.example`.
const POOL: &str = "apiVersion: postroad.dev/v1alpha1
kind: Upstream
metadata: {name: sandbox}
spec: {sandbox: {}}
---
apiVersion: postroad.dev/v1alpha1
kind: RelayPool
metadata: {name: main}
spec:
  replicas: 1
  queue: {ephemeral: {sizeLimit: 1Gi}}
  certificate: {secretRef: {name: main-tls}}
  listeners:
  - name: submissions
    port: 465
    tls: Implicit
    clientCertificate: {mode: Required, caBundleSecretRef: {name: apps-authority}}
  clients:
    identities:
    - {name: billing, type: ClientCertificate, clientCertificate: {dnsNames: [billing.example]}}
  routes: [{name: everything, upstreams: [{name: sandbox}]}]
";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn an_app_with_a_named_certificate_sends_and_one_with_another_or_none_is_refused() {
    let namespace = installed().await.namespace("certificates").await.unwrap();
    let host = format!("main.{}.svc.cluster.local", namespace.name());
    let servers = CertificateAuthority::new("servers").unwrap();
    let apps = CertificateAuthority::new("apps").unwrap();
    namespace.apply(&tls_secret("main-tls", &servers, &servers.issue(&[&host]).unwrap())).await.unwrap();
    for name in ["billing", "shop"] {
        let dns_name = format!("{name}.example");
        let holder = Holder {
            dns_names: &[&dns_name],
            uris: &[],
            common_name: None,
            expired: false,
            usage: Usage::Client,
        };
        let issued = apps.issue_client(&holder).unwrap();
        namespace.apply(&tls_secret(&format!("{name}-tls"), &servers, &issued)).await.unwrap();
    }
    let bundle = apps.pem().trim_end().replace('\n', "\n    ");
    let authority = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: apps-authority}}\nstringData:\n  ca.crt: |\n    {bundle}\n"
    );
    namespace.apply(&authority).await.unwrap();
    namespace.apply(POOL).await.unwrap();
    until(&namespace.api::<RelayPool>(), "main", "is ready", LIMIT, pool_is_ready).await.unwrap();

    let without =
        Sending { host: &host, port: 465, tls: "implicit", user: None, certificate: None, node: None };
    let sent =
        send(&namespace, "billing", Sending { certificate: Some("billing-tls"), ..without }, "billing");
    let sent = sent.await;
    assert_eq!(sent.exit_code, 0, "{sent:?}");
    let other = send(&namespace, "shop", Sending { certificate: Some("shop-tls"), ..without }, "shop").await;
    let pool = format!("RelayPool {}/main", namespace.name());
    assert!(other.exit_code == 1 && other.said.starts_with("550 5.7.1"), "{other:?}");
    assert!(other.said.contains("shop.example") && other.said.contains(&pool), "{other:?}");
    let none = send(&namespace, "stranger", without, "stranger").await;
    assert!(none.exit_code == 2 && none.said.contains("certificate required"), "{none:?}");
}
