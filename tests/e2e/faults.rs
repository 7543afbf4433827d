//! Each fault in turn, under load: after it every acknowledged message has arrived, duplicates are explained by sessions that were cut,
//! and clients saw nothing but what may be retried.

use std::time::{Duration, Instant};

use kube::ResourceExt;
use postroad_tests::cluster::{Bed, eventually};

use crate::LIMIT;
use crate::account::{Row, publish};
use crate::installation::{installed, upgrade};
use crate::scene::{RELAYS, SESSIONS, Scene};

/// Offered load: messages per second, and over how many sessions.
const RATE: usize = 150;
const CLIENTS: usize = 12;
/// What has to be held before a fault, messages per second.
const HELD: f64 = 100.0;
/// The time that outages last.
const OUTAGE: Duration = Duration::from_secs(60);
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
    /// Those that only the harness's own cluster can have come last in the list's second half.
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
            Self::ApiServerDown => "API server down for a minute",
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
        matches!(
            self,
            Self::ChartUpgrade
                | Self::Changes
                | Self::OperatorKilled
                | Self::ApiServerDown
                | Self::UpstreamDown
        )
    }

    async fn befall(self, scene: &Scene) -> anyhow::Result<()> {
        match self {
            Self::RollingUpdate => Ok(upgrade(scene.cluster, &["relay.image.tag=next"]).await?),
            // The relays keep the image of the update before.
            Self::ChartUpgrade => {
                let values =
                    ["relay.image.tag=next", "log.level=debug", "podAnnotations.example\\.com/upgraded=yes"];
                Ok(upgrade(scene.cluster, &values).await?)
            }
            Self::Changes => change(scene).await,
            Self::RelayKilled => kill_relay(scene).await,
            Self::OperatorKilled => kill_leader(scene).await,
            Self::ApiServerDown => {
                let bed = bed(scene)?;
                bed.run(&["api-server", "kill"]).await?;
                tokio::time::sleep(OUTAGE).await;
                bed.run(&["api-server", "start"]).await?;
                Ok(())
            }
            Self::UpstreamDown => {
                scene.service.down().await?;
                tokio::time::sleep(OUTAGE).await;
                Ok(scene.service.up().await?)
            }
            Self::Drain => drain(scene).await,
            Self::PowerOff => {
                let bed = bed(scene)?;
                let number = scene.failing.name.trim_start_matches(|c: char| !c.is_ascii_digit());
                bed.run(&["node", "kill", number]).await?;
                tokio::time::sleep(OUTAGE).await;
                bed.run(&["node", "start", number]).await?;
                Ok(())
            }
        }
    }
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

async fn kill_relay(scene: &Scene) -> anyhow::Result<()> {
    let bed = bed(scene)?;
    let relay = scene.relays().await?.remove(0);
    let before = scene.lives().await?;
    bed.kill(bed.process(&relay.uid().unwrap_or_default(), "/postroad-relay")?).await?;
    // Readiness lags behind: the kubelet has to notice first.
    let noticed = async || {
        anyhow::Ok(if scene.lives().await? == before { Err("no restart".to_owned()) } else { Ok(()) })
    };
    Ok(eventually("the kubelet to restart the relay", LIMIT, noticed).await?)
}

async fn kill_leader(scene: &Scene) -> anyhow::Result<()> {
    let bed = bed(scene)?;
    let leader = async || {
        let path = "jsonpath={.spec.holderIdentity}";
        let namespace = [
            "--namespace",
            crate::installation::NAMESPACE,
            "get",
            "lease",
            "postroad-leader",
            "--output",
            path,
        ];
        anyhow::Ok(scene.cluster.control_plane().kubectl(&namespace).await?.trim().to_owned())
    };
    let holder = leader().await?;
    let operators = scene.operators().await?;
    let Some(operator) = operators.iter().find(|pod| pod.name_any() == holder) else {
        anyhow::bail!("the Lease is held by {holder:?}, which is none of the operator's pods");
    };
    bed.kill(bed.process(&operator.uid().unwrap_or_default(), "/postroad-operator")?).await?;
    // Killed, not stopped: nobody gives the Lease up, the other takes it when it has run out or the first comes back.
    let renewed = async || {
        let now = leader().await?;
        let restarted = scene
            .operators()
            .await?
            .iter()
            .any(|pod| pod.name_any() == holder && restarts(pod) > restarts(operator));
        anyhow::Ok(if restarted && !now.is_empty() { Ok(()) } else { Err(format!("held by {now}")) })
    };
    Ok(eventually("the operator to be back", LIMIT, renewed).await?)
}

fn restarts(pod: &k8s_openapi::api::core::v1::Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).sum()
}

/// The relay moves to the other node with its volume; the node is given back.
async fn drain(scene: &Scene) -> anyhow::Result<()> {
    let node = &scene.failing.name;
    let arguments =
        ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=170s"];
    let drained = scene.kubectl(&arguments).await;
    let moved = match drained {
        Ok(_) => scene.wait_whole().await,
        Err(error) => Err(error.into()),
    };
    scene.kubectl(&["uncordon", node]).await?;
    moved
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
    let (before, lives, prefix) = (scene.service.totals().await?, scene.lives().await?, fault.prefix());
    scene.load.begin(&prefix, RATE, CLIENTS).await?;
    let begin = Instant::now();
    let held = async {
        scene.wait_acknowledged(5 * RATE).await?;
        let rate = (5 * RATE) as f64 / begin.elapsed().as_secs_f64();
        anyhow::ensure!(rate >= HELD, "only {rate:.0} messages per second were held before the fault");
        fault.befall(scene).await?;
        let over = Instant::now();
        scene.wait_whole().await?;
        scene.wait_drained(&prefix).await?;
        anyhow::Ok(over.elapsed())
    };
    let recovery = held.await;
    // Whatever went wrong, the load ends here, or the next fault would find it running.
    let ledger = scene.load.end().await?;
    let recovery = recovery?;
    let arrived = scene.service.wait_for(&prefix, ledger.acknowledged.keys()).await?;
    let after = scene.service.totals().await?;
    if fault.spares_relays() {
        let now = scene.lives().await?;
        if now != lives {
            problems.push(format!("{}: relay pods were touched: {lives:?}, then {now:?}", fault.title()));
        }
    }
    let dead = if matches!(fault, Fault::PowerOff) { SESSIONS } else { 0 };
    let row = Row::of(fault.title(), ledger, &arrived, [&before, &after], dead, recovery);
    problems.extend(row.problems(&arrived));
    Ok(row)
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
    publish(&rows);
    upgrade(cluster, &[]).await.unwrap();
    let violations = scene.service.totals().await.unwrap().violations;
    assert!(problems.is_empty() && violations.is_empty(), "{}\n{violations:?}", problems.join("\n"));
}
