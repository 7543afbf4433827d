//! The operator as a process against a real API server: quickstart manifests in, children and conditions out.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams};
use postroad_crds::admin_token;
use postroad_crds::relay_config::{FILE_NAME, IdentityKind, RelayConfig};
use postroad_crds::v1alpha1::{RelayPool, condition};
use postroad_tests::certificates::CertificateAuthority;
use postroad_tests::control_plane::{ControlPlane, TestNamespace, until};
use tokio::sync::OnceCell;

use crate::{LIMIT, operator};

fn committed(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// The API with Postroad's definitions served.
pub(crate) async fn control_plane() -> &'static ControlPlane {
    static READY: OnceCell<&'static ControlPlane> = OnceCell::const_new();
    let ready = || async {
        let control_plane = ControlPlane::shared().await.unwrap();
        for definition in ["relaypools", "upstreams"] {
            let path =
                Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../crds/{definition}.postroad.dev.yaml"));
            control_plane.kubectl(&["apply", "--server-side", "-f", path.to_str().unwrap()]).await.unwrap();
            let crd = format!("crd/{definition}.postroad.dev");
            control_plane.kubectl(&["wait", "--for=condition=Established", &crd]).await.unwrap();
        }
        control_plane
    };
    READY.get_or_init(ready).await
}

pub(crate) fn quickstart(file: &str, namespace: &TestNamespace) -> String {
    committed(&format!("docs/quickstart/{file}"))
        .replace("namespace: mail", &format!("namespace: {}", namespace.name()))
}

pub(crate) async fn certificate(namespace: &TestNamespace) {
    let issued = CertificateAuthority::new("test").unwrap().issue(&["main.mail.svc"]).unwrap();
    let indented = |pem: &str| pem.replace('\n', "\n    ");
    let manifest = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: main-tls}}\ntype: kubernetes.io/tls\nstringData:\n  \
         tls.crt: |\n    {}\n  tls.key: |\n    {}\n",
        indented(&issued.certificate_pem),
        indented(&issued.key_pem)
    );
    namespace.apply(&manifest).await.unwrap();
}

pub(crate) fn is(pool: Option<&RelayPool>, kind: &str, status: &str, reason: &str) -> bool {
    let conditions: &[Condition] =
        pool.and_then(|pool| pool.status.as_ref()).map_or(&[], |status| &status.conditions);
    condition(conditions, kind).is_some_and(|held| held.status == status && held.reason == reason)
}

pub(crate) fn programmed(pool: Option<&RelayPool>) -> bool {
    is(pool, "Programmed", "True", "Programmed")
}

async fn token(namespace: &TestNamespace) -> Vec<u8> {
    let secret = namespace.api::<Secret>().get("main-relay-config").await.unwrap();
    secret.data.unwrap().remove(admin_token::FILE_NAME).unwrap().0
}

pub(crate) async fn rendered(namespace: &TestNamespace) -> Option<RelayConfig> {
    let secret = namespace.api::<Secret>().get_opt("main-relay-config").await.unwrap()?;
    let text = secret.data?.remove(FILE_NAME)?;
    Some(RelayConfig::from_yaml(std::str::from_utf8(&text.0).unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_heals_when_its_secret_appears_settles_and_leaves_nothing_behind() {
    let control_plane = control_plane().await;
    let namespace = control_plane.namespace("operator").await.unwrap();
    let lease = (namespace.name(), "postroad-operator");
    let _operator = operator(control_plane.kubeconfig(), lease, namespace.name()).await;
    certificate(&namespace).await;
    namespace.apply(&quickstart("upstream.yaml", &namespace)).await.unwrap();
    namespace.apply(&quickstart("relay-pool.yaml", &namespace)).await.unwrap();
    let pools = namespace.api::<RelayPool>();

    let missing = |pool: Option<&RelayPool>| is(pool, "ResolvedRefs", "False", "SecretNotFound");
    until(&pools, "main", "ResolvedRefs=False/SecretNotFound", LIMIT, missing).await.unwrap();
    assert!(rendered(&namespace).await.is_none(), "nothing is made of what is not resolved");

    namespace.apply(&quickstart("users.yaml", &namespace)).await.unwrap();
    until(&pools, "main", "Programmed=True", LIMIT, programmed).await.unwrap();
    for service in ["main", "main-headless"] {
        namespace.api::<Service>().get(service).await.unwrap();
    }
    namespace.api::<StatefulSet>().get("main").await.unwrap();
    namespace.api::<ServiceAccount>().get("main").await.unwrap();
    namespace.api::<PodDisruptionBudget>().get("main").await.unwrap();
    let shown = namespace.kubectl(&["get", "postroad"]).await.unwrap();
    assert!(shown.contains("relaypool.postroad.dev/main") && shown.contains("READY"), "{shown}");

    let made = token(&namespace).await;
    assert!(admin_token::is_usable(std::str::from_utf8(&made).unwrap()));
    a_rotated_password_is_rendered(&namespace).await;
    assert_eq!(token(&namespace).await, made, "the admin token outlives changes of the configuration");
    a_settled_pool_costs_no_writes(control_plane, &namespace).await;
    deletion_leaves_nothing(&namespace).await;
}

async fn a_rotated_password_is_rendered(namespace: &TestNamespace) {
    namespace.apply(&quickstart("users.yaml", namespace).replace("change-me", "rotated")).await.unwrap();
    let secrets = namespace.api::<Secret>();
    let holds = |secret: Option<&Secret>| {
        let data = secret.and_then(|secret| secret.data.as_ref()).and_then(|data| data.get(FILE_NAME));
        let config = data
            .and_then(|text| std::str::from_utf8(&text.0).ok())
            .and_then(|text| RelayConfig::from_yaml(text).ok());
        let users = |kind: &IdentityKind| match kind {
            IdentityKind::Password { users, .. } => {
                users.get("app").is_some_and(|password| password.0 == "rotated")
            }
            IdentityKind::Network { .. } | IdentityKind::ClientCertificate { .. } => false,
        };
        config.is_some_and(|config| config.identities.iter().any(|identity| users(&identity.kind)))
    };
    until(&secrets, "main-relay-config", "the rotated password", LIMIT, holds).await.unwrap();
}

/// Waiting is the test: the promise is about a minute in which nothing happens.
async fn a_settled_pool_costs_no_writes(control_plane: &ControlPlane, namespace: &TestNamespace) {
    let written = || {
        let writes = control_plane.writes().unwrap();
        let ours = writes
            .into_iter()
            .filter(|write| write.namespace == namespace.name() && write.resource != "leases");
        ours.collect::<Vec<_>>()
    };
    // The last change's own writes may still be on their way.
    let mut before = written().len();
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let now = written().len();
        if std::mem::replace(&mut before, now) == now {
            break;
        }
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = written();
    assert_eq!(after.len(), before, "{:?}", &after[before..]);
}

async fn deletion_leaves_nothing(namespace: &TestNamespace) {
    namespace.api::<RelayPool>().delete("main", &DeleteParams::default()).await.unwrap();
    until(&namespace.api::<StatefulSet>(), "main", "its absence", LIMIT, |set| set.is_none()).await.unwrap();
    until(&namespace.api::<Secret>(), "main-relay-config", "its absence", LIMIT, |secret| secret.is_none())
        .await
        .unwrap();
    until(&namespace.api::<Service>(), "main", "its absence", LIMIT, |service| service.is_none())
        .await
        .unwrap();
    let budgets = namespace.api::<PodDisruptionBudget>();
    until(&budgets, "main", "its absence", LIMIT, |budget| budget.is_none()).await.unwrap();
    let services = namespace.api::<Service>();
    until(&services, "main-headless", "its absence", LIMIT, |service| service.is_none()).await.unwrap();
    let left = services.list(&ListParams::default()).await.unwrap();
    assert!(left.items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_spec_is_refused_by_the_api_server_with_what_to_do() {
    let namespace = control_plane().await.namespace("refused").await.unwrap();
    let pool = quickstart("relay-pool.yaml", &namespace);
    let refused = [
        ("  certificate:\n    secretRef:\n      name: main-tls\n", "", "need spec.certificate"),
        ("port: 587", "port: 25", "a port of its own"),
        ("10.0.0.0/8", "10.0.0.0/99", "each entry is a network such as"),
        ("    tls: Required\n", "", "authentication needs TLS"),
    ];
    for (from, to, expected) in refused {
        assert!(pool.contains(from), "{from}");
        let error = namespace.apply(&pool.replace(from, to)).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{expected:?} is not in {error}");
    }
}
