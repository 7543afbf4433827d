//! A node dies for good: the relay's volume follows its pod to the other node, with the mail in it.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use postroad_tests::control_plane::until;

use crate::LIMIT;
use crate::installation::installed;
use crate::peers::is_ready;
use crate::scene::Scene;

const TAINT: &str = "node.kubernetes.io/out-of-service";

fn not_ready(node: Option<&Node>) -> bool {
    let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
    conditions.is_some_and(|held| held.iter().any(|held| held.type_ == "Ready" && held.status != "True"))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn a_volume_follows_its_pod_to_the_other_node_mail_included() {
    let cluster = installed().await;
    let Some(bed) = cluster.bed() else {
        eprintln!("not run: only the harness's own nodes can be powered off");
        return;
    };
    let scene = Scene::set(cluster, "volume", 1).await;
    // The one relay starts on the node that will fail.
    scene.kubectl(&["cordon", &scene.surviving.name]).await.unwrap();
    let first = scene.relays().await.unwrap().remove(0);
    scene.kubectl(&["delete", "pod", &first.name_any()]).await.unwrap();
    scene.wait_whole().await.unwrap();
    scene.kubectl(&["uncordon", &scene.surviving.name]).await.unwrap();
    let on = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    assert_eq!(on(&scene.relays().await.unwrap()[0]), scene.failing.name);

    scene.service.down().await.unwrap();
    scene.load.begin("volume", 100, 4).await.unwrap();
    scene.wait_acknowledged(500).await.unwrap();
    let ledger = scene.load.end().await.unwrap();
    assert_eq!(scene.service.arrived("volume").await.unwrap().len(), 0, "the mail is queued");

    let number = scene.failing.name.trim_start_matches(|c: char| !c.is_ascii_digit()).to_owned();
    bed.run(&["node", "kill", &number]).await.unwrap();
    let nodes: Api<Node> = Api::all(scene.namespace.client());
    until(&nodes, &scene.failing.name, "is not ready", LIMIT, not_ready).await.unwrap();
    let taint = format!("{TAINT}=nodeshutdown:NoExecute");
    scene.kubectl(&["taint", "node", &scene.failing.name, &taint]).await.unwrap();
    let moved = |pod: Option<&Pod>| is_ready(pod) && pod.is_some_and(|pod| on(pod) == scene.surviving.name);
    let moved =
        until(&scene.namespace.api::<Pod>(), "main-0", "is ready on the other node", LIMIT, moved).await;
    // The node comes back whatever became of the test: others need it.
    scene.kubectl(&["taint", "node", &scene.failing.name, &format!("{TAINT}-")]).await.unwrap();
    bed.run(&["node", "start", &number]).await.unwrap();
    moved.unwrap();
    scene.service.up().await.unwrap();
    let arrived = scene.service.wait_for("volume", ledger.acknowledged.keys()).await.unwrap();
    for (token, digest) in &ledger.acknowledged {
        assert_eq!(arrived.get(token), Some(&(1, digest.clone())), "{token}");
    }
    until(&nodes, &scene.failing.name, "is ready again", LIMIT, |node| !not_ready(node)).await.unwrap();
}
