//! Relays that go for good, under load, with the service up and down: afterwards everything has arrived, and no volume is left with
//! mail on it.

use std::time::Instant;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::ListParams;
use postroad_crds::v1alpha1::{RelayPool, condition};
use postroad_tests::cluster::eventually;

use crate::LIMIT;
use crate::account::Row;
use crate::scene::Scene;

/// Relays before; the service allows each of them one session.
const MANY: usize = 4;
/// Messages that wait for a service that is down.
const WAITING: usize = 1500;

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Departure {
    ScaleDown,
    ScaleDownWhileUpstreamDown,
    Deletion,
    DeletionWhileUpstreamDown,
}

impl Departure {
    /// In the order in which they come.
    pub const ALL: [Self; 4] =
        [Self::ScaleDown, Self::ScaleDownWhileUpstreamDown, Self::Deletion, Self::DeletionWhileUpstreamDown];

    pub fn title(self) -> &'static str {
        match self {
            Self::ScaleDown => "scale from 4 relays to 1",
            Self::ScaleDownWhileUpstreamDown => "scale from 4 relays to 1, upstream down",
            Self::Deletion => "deletion of a pool of 4 relays",
            Self::DeletionWhileUpstreamDown => "deletion of a pool of 4 relays, upstream down",
        }
    }

    /// The prefix of its messages' tokens.
    pub fn prefix(self) -> String {
        format!("{self:?}")
    }

    fn deletes(self) -> bool {
        matches!(self, Self::Deletion | Self::DeletionWhileUpstreamDown)
    }

    fn cuts_upstream(self) -> bool {
        matches!(self, Self::ScaleDownWhileUpstreamDown | Self::DeletionWhileUpstreamDown)
    }

    /// How many relays, and claims, are left.
    fn left(self) -> usize {
        if self.deletes() { 0 } else { 1 }
    }

    /// Makes it happen while mail flows. Answers from when on the recovery counts.
    async fn befall(self, scene: &Scene) -> anyhow::Result<Instant> {
        if self.cuts_upstream() {
            scene.service.down().await?;
            let queued = scene.load.acknowledged().await? + WAITING;
            scene.wait_acknowledged(queued).await?;
        }
        let begin = Instant::now();
        match self {
            Self::ScaleDown => scene.kubectl(&["scale", "relaypool", "main", "--replicas=1"]).await?,
            Self::Deletion => scene.kubectl(&["delete", "relaypool", "main", "--wait=false"]).await?,
            Self::ScaleDownWhileUpstreamDown => {
                scene.kubectl(&["scale", "relaypool", "main", "--replicas=1"]).await?;
                // All of it goes to the relay that stays: nothing can leave otherwise.
                wait_left(scene, self.left()).await?;
                scene.service.up().await?;
                return Ok(begin);
            }
            Self::DeletionWhileUpstreamDown => {
                scene.kubectl(&["delete", "relaypool", "main", "--wait=false"]).await?;
                wait_told(scene).await?;
                scene.service.up().await?;
                return Ok(Instant::now());
            }
        };
        Ok(begin)
    }
}

/// Waits until the pool says that it waits, for how many messages.
async fn wait_told(scene: &Scene) -> anyhow::Result<()> {
    let pools = scene.namespace.api::<RelayPool>();
    let told = async || {
        let status = pools.get("main").await?.status.unwrap_or_default();
        let waits = condition(&status.conditions, "Draining").is_some_and(|draining| {
            (draining.status.as_str(), draining.reason.as_str()) == ("True", "BeingDeleted")
        });
        let messages = usize::try_from(status.draining_messages.unwrap_or_default())?;
        let enough = waits && messages >= WAITING;
        anyhow::Ok(if enough { Ok(()) } else { Err(format!("it says {messages}, waits: {waits}")) })
    };
    Ok(eventually("the pool to say that its relays hold the mail", LIMIT, told).await?)
}

/// Waits until no more than so many relays and claims are there, and no pool when it is none.
async fn wait_left(scene: &Scene, count: usize) -> anyhow::Result<()> {
    let (pools, claims) =
        (scene.namespace.api::<RelayPool>(), scene.namespace.api::<PersistentVolumeClaim>());
    let left = async || {
        let relays = scene.relays().await?.len();
        let claims = claims.list(&ListParams::default()).await?.items.len();
        let pools = pools.list(&ListParams::default()).await?.items.len();
        let gone = (relays, claims, pools) == (count, count, count);
        let found = format!("{pools} pools, {relays} relays, {claims} claims");
        anyhow::Ok(if gone { Ok(()) } else { Err(found) })
    };
    Ok(eventually(&format!("{count} relays and volumes to be left"), LIMIT, left).await?)
}

/// One departure under load.
pub async fn survive(scene: &Scene, departure: Departure, problems: &mut Vec<String>) -> anyhow::Result<Row> {
    scene.make_pool(MANY).await?;
    let ran = scene
        .under_load(&departure.prefix(), async || {
            let over = departure.befall(scene).await?;
            wait_left(scene, departure.left()).await?;
            if !departure.deletes() {
                scene.wait_whole().await?;
                scene.wait_obeyed().await?;
            }
            Ok(over)
        })
        .await?;
    Ok(ran.row(departure.title(), 0, problems))
}
