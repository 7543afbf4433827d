//! The chart by the real helm on a real API server. No kubelet runs, so installed means: every object was admitted.

use kube::api::DeleteParams;
use postroad_crds::v1alpha1::RelayPool;
use postroad_tests::control_plane::{ControlPlane, ControlPlaneOptions, until};
use postroad_tests::processes::Signal;

use crate::departure::uninstall;
use crate::operator::{certificate, programmed, quickstart};
use crate::{LIMIT, operator};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/postroad");
const SYSTEM: [&str; 2] = ["--namespace", "postroad-system"];

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_installs_upgrades_and_leaves_the_definitions_for_the_next_install() {
    // A control plane of its own: the definitions are cluster-wide, and helm must be the one that makes them. Some
    // distributions enforce rights on owner references, so that is on.
    let enforced =
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement".to_owned();
    let options = ControlPlaneOptions { api_server_flags: vec![enforced], ..ControlPlaneOptions::default() };
    let control_plane = ControlPlane::start(options).await.unwrap();
    let helm = async |command: &str, more: &[&str]| {
        control_plane.helm(&[&[command, "postroad"], more, &SYSTEM].concat()).await.unwrap()
    };
    let names =
        async |kind: &str| control_plane.kubectl(&["get", kind, "--output=name", "-A"]).await.unwrap();
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    control_plane.kubectl(&["create", "namespace", "postroad-system"]).await.unwrap();
    control_plane.kubectl(&["label", "namespace", "postroad-system", enforce]).await.unwrap();

    let notes = helm("install", &[CHART]).await;
    assert!(notes.contains("kind: RelayPool"), "the notes tell the next step: {notes}");
    assert!(names("deployments").await.contains("deployment.apps/postroad"));
    helm("upgrade", &[CHART, "--set", "replicas=1"]).await;

    let pool =
        "apiVersion: postroad.dev/v1alpha1\nkind: Upstream\nmetadata: {name: kept}\nspec: {sandbox: {}}\n";
    let namespace = control_plane.namespace("chart").await.unwrap();
    namespace.apply(pool).await.unwrap();
    // The job that runs before needs a node: tests/e2e uninstalls with it.
    helm("uninstall", &["--no-hooks"]).await;
    assert!(!names("deployments").await.contains("postroad"));
    let definitions = names("crds").await;
    assert!(
        definitions.contains("relaypools.postroad.dev") && definitions.contains("upstreams.postroad.dev")
    );
    assert!(names("upstreams").await.contains("kept"), "what users made survives");

    helm("install", &[CHART]).await;
    assert!(names("deployments").await.contains("deployment.apps/postroad"));

    the_charts_rights_suffice(&control_plane).await;
}

/// The operator with no other rights than the chart gives its ServiceAccount.
async fn the_charts_rights_suffice(control_plane: &ControlPlane) {
    let namespace = control_plane.namespace("rights").await.unwrap();
    let account = control_plane.service_account_kubeconfig("postroad-system", "postroad").await.unwrap();
    let lease = ("postroad-system", "postroad-leader");
    let operator = operator(&account, lease, "").await;
    certificate(&namespace).await;
    for file in ["users.yaml", "upstream.yaml", "relay-pool.yaml"] {
        namespace.apply(&quickstart(file, &namespace)).await.unwrap();
    }
    until(&namespace.api(), "main", "Programmed=True", LIMIT, programmed).await.unwrap();
    operator.signal(Signal::Terminate);
    operator.wait(LIMIT).await.unwrap();
    uninstall(&account, lease, Some("postroad")).await;
    let replicas = ["get", "deployment", "postroad", "--output=jsonpath={.spec.replicas}"];
    assert_eq!(control_plane.kubectl(&[&replicas[..], &SYSTEM].concat()).await.unwrap(), "0");
    namespace.api::<RelayPool>().delete("main", &DeleteParams::default()).await.unwrap();
    let pools = namespace.api::<RelayPool>();
    until(&pools, "main", "its absence", LIMIT, |pool| pool.is_none()).await.unwrap();
}
