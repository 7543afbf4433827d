//! Five relays share what a service takes: 500 messages a second, a fifth each, also while one of them is replaced.

use futures::future::join_all;
use kube::ResourceExt;
use postroad_tests::cluster::eventually;

use crate::LIMIT;
use crate::installation::installed;
use crate::scene::Scene;

const RELAYS: usize = 5;
/// Messages that the service takes in any second from each relay.
const SHARE: usize = 100;
/// Messages that wait when the relays begin: so many that the one which is replaced has some left, though it sends while it stops.
const QUEUED: usize = 10_000;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn five_relays_never_exceed_their_budget_though_one_is_replaced_in_the_middle() {
    let scene = Scene::set(installed().await, "rates", RELAYS).await;
    let rate = RELAYS * SHARE;
    let budget = format!(r#"{{"spec": {{"rates": [{{"messages": {rate}, "perSeconds": 1}}]}}}}"#);
    scene.kubectl(&["patch", "upstream", "service", "--type=merge", "--patch", &budget]).await.unwrap();
    scene.wait_obeyed().await.unwrap();

    // Held back by order and not by an outage, after which each relay would come back at a time of its own.
    order(&scene, "drain").await;
    // Connections are spread over the relays at random: many, so that each relay gets its part.
    scene.load.begin("rates", 1000, 20 * RELAYS).await.unwrap();
    scene.wait_acknowledged(QUEUED).await.unwrap();
    let ledger = scene.load.end().await.unwrap();

    order(&scene, "resume").await;
    let fifth = async || {
        let count = scene.service.arrived("rates").await?.len();
        anyhow::Ok(if count >= QUEUED / 5 { Ok(()) } else { Err(format!("{count} have")) })
    };
    eventually("a fifth to arrive", LIMIT, fifth).await.unwrap();
    let relay = scene.relays().await.unwrap().remove(2).name_any();
    scene.kubectl(&["delete", "pod", &relay, "--wait=false"]).await.unwrap();
    let arrived = scene.service.wait_for("rates", ledger.acknowledged.keys()).await.unwrap();
    let copies: usize = arrived.values().map(|(count, _)| count).sum();
    assert_eq!(copies, ledger.acknowledged.len(), "each arrives once");

    let busiest = scene.service.busiest().await.unwrap();
    eprintln!("{busiest:?}");
    assert!(busiest.all <= rate, "{busiest:?}");
    assert!(busiest.by_client.values().all(|count| *count <= SHARE), "{busiest:?}");
    // The replaced relay has two addresses.
    assert_eq!(busiest.by_client.len(), RELAYS + 1, "{busiest:?}");
    // Without their budgets relays that have so much to send would send more.
    assert!(busiest.all > rate * 4 / 5, "the rate was not used: {busiest:?}");
    scene.wait_whole().await.unwrap();
}

/// Gives every relay the order about its upstream, as a person would.
async fn order(scene: &Scene, act: &str) {
    let orders = scene.relays().await.unwrap().into_iter().map(|relay| async move {
        let pod = relay.name_any();
        scene.kubectl(&["exec", &pod, "--", "postroad-relay", "upstream", act, "service"]).await.unwrap();
    });
    join_all(orders).await;
}
