//! Each fault in turn, under load: after it every acknowledged message has arrived, duplicates are explained by sessions that were cut,
//! and clients saw nothing but what may be retried. Then each departure.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use postroad_tests::cluster::{Bed, BedError, eventually};
use postroad_tests::control_plane::until;

use crate::LIMIT;
use crate::account::{Row, publish};
use crate::departures::{self, Departure};
use crate::installation::{NAMESPACE, installed, upgrade};
use crate::scene::{RELAYS, SESSIONS, Scene};

/// The time that outages last.
const OUTAGE: Duration = Duration::from_secs(60);
/// The relay's program in its image.
const RELAY: &str = "/postroad-relay";
/// The time between two changes of configuration.
const CHANGE: Duration = Duration::from_secs(5);

/// What happens. Each is under way when its function is called and over when it returns.
#[derive(Clone, Copy, Debug)]
enum Fault {
    RollingUpdate,
    ChartUpgrade,
    Changes,
    RelayKilled,
    OperatorKilled,
    ApiServerDown,
    UpstreamDown,
    Drain,
    PowerOff,
}

impl Fault {
    /// In the order in which they come: first those that any cluster can have.
    const ALL: [Self; 9] = [
        Self::RollingUpdate,
        Self::ChartUpgrade,
        Self::Changes,
        Self::UpstreamDown,
        Self::Drain,
        Self::RelayKilled,
        Self::OperatorKilled,
        Self::ApiServerDown,
        Self::PowerOff,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::RollingUpdate => "rolling update of the relay image",
            Self::ChartUpgrade => "chart upgrade (the operators restart)",
            Self::Changes => "configuration and credentials changed every 5 s for a minute",
            Self::RelayKilled => "SIGKILL of a relay",
            Self::OperatorKilled => "SIGKILL of the leading operator",
            Self::ApiServerDown => "API server down for a minute, a relay killed meanwhile",
            Self::UpstreamDown => "upstream down for a minute",
            Self::Drain => "drain of a node",
            Self::PowerOff => "power-off of a node for a minute, and its return",
        }
    }

    /// The prefix of its messages' tokens.
    fn prefix(self) -> String {
        format!("{self:?}")
    }

    fn needs_the_bed(self) -> bool {
        matches!(self, Self::RelayKilled | Self::OperatorKilled | Self::ApiServerDown | Self::PowerOff)
    }

    /// Whether the relay pods go on living through it.
    fn spares_relays(self) -> bool {
        matches!(self, Self::ChartUpgrade | Self::Changes | Self::OperatorKilled | Self::UpstreamDown)
    }

    /// Makes it happen, and answers from when on the recovery counts.
    async fn befall(self, scene: &Scene) -> anyhow::Result<Instant> {
        match self {
            Self::RollingUpdate => return update_relays(scene).await,
            // The relays keep the image of the update before.
            Self::ChartUpgrade => {
                let values =
                    ["relay.image.tag=next", "log.level=debug", "podAnnotations.example\\.com/upgraded=yes"];
                upgrade(scene.cluster, &values).await?;
            }
            Self::Changes => change(scene).await?,
            Self::RelayKilled => return kill_relay(scene).await,
            Self::OperatorKilled => return kill_leader(scene).await,
            Self::ApiServerDown => stop_api_server(scene).await?,
            Self::UpstreamDown => {
                scene.service.down().await?;
                tokio::time::sleep(OUTAGE).await;
                scene.service.up().await?;
            }
            Self::Drain => return drain(scene).await,
            Self::PowerOff => {
                let bed = bed(scene)?;
                let number = scene.failing.name.trim_start_matches(|c: char| !c.is_ascii_digit());
                bed.run(&["node", "kill", number]).await?;
                tokio::time::sleep(OUTAGE).await;
                bed.run(&["node", "start", number]).await?;
            }
        }
        Ok(Instant::now())
    }
}

/// Gives the relays another image. The operators' pods are ready some time before one of them leads and acts on it.
async fn update_relays(scene: &Scene) -> anyhow::Result<Instant> {
    upgrade(scene.cluster, &["relay.image.tag=next"]).await?;
    let begin = Instant::now();
    let updating = |set: Option<&StatefulSet>| {
        let template = set.and_then(|set| set.spec.as_ref()?.template.spec.as_ref());
        template.is_some_and(|pod| {
            pod.containers[0].image.as_deref().is_some_and(|image| image.ends_with(":next"))
        })
    };
    until(&scene.namespace.api::<StatefulSet>(), "main", "has the new image", LIMIT, updating).await?;
    Ok(begin)
}

fn bed(scene: &Scene) -> anyhow::Result<&Bed> {
    scene.cluster.bed().ok_or_else(|| anyhow::anyhow!("only the harness's own cluster can have this fault"))
}

/// Limits, users and the credentials for the service, in turn: each change comes while the one before is fresh.
async fn change(scene: &Scene) -> anyhow::Result<()> {
    for (turn, credentials) in
        ["other-credentials", "service-credentials"].iter().cycle().take(12).enumerate()
    {
        let upstream = format!(
            r#"{{"spec": {{"smarthost": {{"credentials": {{"secretRef": {{"name": "{credentials}"}}}}}}}}}}"#
        );
        scene.kubectl(&["patch", "upstream", "service", "--type=merge", "--patch", &upstream]).await?;
        let limits = format!(r#"{{"spec": {{"limits": {{"recipientsPerMessage": {}}}}}}}"#, 100 + turn);
        scene.kubectl(&["patch", "relaypool", "main", "--type=merge", "--patch", &limits]).await?;
        let users = format!(r#"{{"stringData": {{"other": "password-{turn}"}}}}"#);
        scene.kubectl(&["patch", "secret", "mail-users", "--patch", &users]).await?;
        tokio::time::sleep(CHANGE).await;
    }
    Ok(())
}

async fn kill_relay(scene: &Scene) -> anyhow::Result<Instant> {
    let bed = bed(scene)?;
    let relay = scene.relays().await?.remove(0);
    bed.kill(bed.process(&relay.uid().unwrap_or_default(), RELAY)?).await?;
    Ok(Instant::now())
}

async fn kill_leader(scene: &Scene) -> anyhow::Result<Instant> {
    let bed = bed(scene)?;
    let path = "jsonpath={.spec.holderIdentity}";
    let arguments = ["--namespace", NAMESPACE, "get", "lease", "postroad-leader", "--output", path];
    let holder = scene.cluster.control_plane().kubectl(&arguments).await?.trim().to_owned();
    let operators = scene.operators().await?;
    let Some(operator) = operators.iter().find(|pod| pod.name_any() == holder) else {
        anyhow::bail!("the Lease is held by {holder:?}, which is none of the operator's pods");
    };
    bed.kill(bed.process(&operator.uid().unwrap_or_default(), "/postroad-operator")?).await?;
    let killed = Instant::now();
    let restarted = async || {
        let operators = scene.operators().await?;
        let back = operators.iter().any(|pod| pod.name_any() == holder && restarts(pod) > restarts(operator));
        anyhow::Ok(if back { Ok(()) } else { Err("no restart".to_owned()) })
    };
    eventually("the kubelet to restart the operator", LIMIT, restarted).await?;
    Ok(killed)
}

/// The API server is away for the time of an outage. Half-way a relay is killed: its container must come back without an API server, and
/// serve.
async fn stop_api_server(scene: &Scene) -> anyhow::Result<()> {
    let bed = bed(scene)?;
    let relay = scene.relays().await?.remove(0).uid().unwrap_or_default();
    bed.run(&["api-server", "kill"]).await?;
    tokio::time::sleep(OUTAGE / 2).await;
    let first = bed.process(&relay, RELAY)?;
    bed.kill(first).await?;
    let replaced = async || {
        let second = bed.process(&relay, RELAY)?;
        Ok::<_, BedError>(if second == first { Err("still the first".to_owned()) } else { Ok(()) })
    };
    let replaced = eventually("the relay's container to come back", OUTAGE / 2, replaced).await;
    tokio::time::sleep(OUTAGE / 2).await;
    bed.run(&["api-server", "start"]).await?;
    Ok(replaced?)
}

fn restarts(pod: &k8s_openapi::api::core::v1::Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).sum()
}

/// The relay moves to the other node with its volume; then the node is given back.
async fn drain(scene: &Scene) -> anyhow::Result<Instant> {
    let node = &scene.failing.name;
    let arguments =
        ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=170s"];
    let drained = scene.kubectl(&arguments).await;
    let empty = Instant::now();
    let moved = match drained {
        Ok(_) => scene.wait_whole().await,
        Err(error) => Err(error.into()),
    };
    scene.kubectl(&["uncordon", node]).await?;
    moved.map(|()| empty)
}

/// Puts a relay back on the failing node, where the coming fault is to meet it.
async fn spread(scene: &Scene) -> anyhow::Result<()> {
    let on_failing = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) == Some(&scene.failing.name)
    };
    let relays = scene.relays().await?;
    if relays.iter().any(on_failing) {
        return Ok(());
    }
    scene.kubectl(&["cordon", &scene.surviving.name]).await?;
    let deleted = scene.kubectl(&["delete", "pod", &relays[0].name_any()]).await;
    let whole = scene.wait_whole().await;
    scene.kubectl(&["uncordon", &scene.surviving.name]).await?;
    deleted?;
    whole
}

/// One fault under load.
async fn survive(scene: &Scene, fault: Fault, problems: &mut Vec<String>) -> anyhow::Result<Row> {
    spread(scene).await?;
    scene.wait_whole().await?;
    let lives = scene.lives().await?;
    let ran = scene
        .under_load(&fault.prefix(), async || {
            let over = fault.befall(scene).await?;
            if !fault.spares_relays() {
                scene.wait_touched(&lives).await?;
            }
            scene.wait_whole().await?;
            scene.wait_obeyed().await?;
            Ok(over)
        })
        .await?;
    let now = scene.lives().await?;
    if fault.spares_relays() != (now == lives) {
        problems.push(format!("{}: relay pods were {lives:?}, and are {now:?}", fault.title()));
    }
    if matches!(fault, Fault::Changes) && ran.after.users.get("other") <= ran.before.users.get("other") {
        problems.push(format!("the credentials were changed and never used: {:?}", ran.after.users));
    }
    let dead = if matches!(fault, Fault::PowerOff) { SESSIONS } else { 0 };
    Ok(ran.row(fault.title(), dead, problems))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: make e2e"]
async fn every_acknowledged_message_arrives_through_each_fault() {
    let cluster = installed().await;
    if !cluster.may_be_harmed() {
        eprintln!("not run: faults on this cluster need POSTROAD_TEST_DESTRUCTIVE=1");
        return;
    }
    let scene = Scene::set(cluster, "faults", RELAYS).await;
    let (mut rows, mut problems) = (Vec::new(), Vec::new());
    let chosen = std::env::var("POSTROAD_TEST_FAULT").ok();
    for fault in Fault::ALL {
        if fault.needs_the_bed() && cluster.bed().is_none()
            || chosen.as_ref().is_some_and(|name| *name != fault.prefix())
        {
            continue;
        }
        match survive(&scene, fault, &mut problems).await {
            Ok(row) => rows.push(row),
            Err(error) => problems.push(format!("{}: {error:#}", fault.title())),
        }
        if let Some(problem) = problems.last() {
            eprintln!("{problem}");
        }
    }
    for departure in Departure::ALL {
        if chosen.as_ref().is_some_and(|name| *name != departure.prefix()) {
            continue;
        }
        match departures::survive(&scene, departure, &mut problems).await {
            Ok(row) => rows.push(row),
            Err(error) => problems.push(format!("{}: {error:#}", departure.title())),
        }
        if let Some(problem) = problems.last() {
            eprintln!("{problem}");
        }
    }
    publish(&rows);
    upgrade(cluster, &[]).await.unwrap();
    let violations = scene.service.totals().await.unwrap().violations;
    assert!(problems.is_empty() && violations.is_empty(), "{}\n{violations:?}", problems.join("\n"));
}
