//! Rounds of questions to all relays of a scope: how their upstreams stand. Reads the API server and relays, and decides nothing.
//!
//! A pool costs two reads and a relay one connection over the pool's own channel, every [`EVERY`], however many objects name its
//! Upstreams; what has changed brings objects back to their reconciles, and nothing else is written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use postroad_crds::relay_config::UpstreamStanding;
use tokio::time::{MissedTickBehavior, interval};

use super::board::Answer;
use crate::client::{ApiError, Objects};
use crate::context::Context;
use crate::relay_pool::build::metadata::{query, selector};
use crate::relay_pool::credentials::{self, Credentials};
use crate::relay_pool::names::Names;
use crate::relay_pool::remaining::Inquiry;
use crate::watches::{GuardedPool, Watched};

/// How often every relay is asked; less often where a round takes longer.
pub const EVERY: Duration = Duration::from_secs(15);
/// Pools that are looked at at the same time.
const POOLS: usize = 8;
/// Relays of one pool that are asked at the same time. One that does not answer takes five seconds.
const RELAYS: usize = 16;

/// Asks until dropped.
pub async fn go(watched: &Watched, context: &Context) {
    let mut rounds = interval(EVERY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        round(watched, context).await;
    }
}

async fn round(watched: &Watched, context: &Context) {
    let pools = watched.pools.state();
    let is = |pool: &GuardedPool, namespace: &str, name: &str| {
        pool.namespace().as_deref() == Some(namespace) && pool.name_any() == name
    };
    context.board.retain(|namespace, name| pools.iter().any(|pool| is(pool, namespace, name)));
    let look = async |pool: Arc<GuardedPool>| {
        let (namespace, name) = (pool.namespace().unwrap_or_default(), pool.name_any());
        match ask(&context.objects, &namespace, &name).await {
            Ok(answers) => {
                if context.board.note(&namespace, &name, answers) {
                    watched.pool_with_upstreams(&pool);
                }
            }
            // The watches tell people of an API server that does not answer.
            Err(error) => tracing::debug!(namespace, pool = name, %error, "relays are not asked"),
        }
    };
    stream::iter(pools).for_each_concurrent(POOLS, look).await;
}

/// Asks all relays of the pool that run.
async fn ask(objects: &Objects, namespace: &str, pool: &str) -> Result<BTreeMap<u32, Answer>, ApiError> {
    let Ok(names) = Names::of(pool) else { return Ok(BTreeMap::new()) };
    let pods: Vec<Pod> = objects.list(namespace, &query(&selector(pool))).await?;
    let running: Vec<_> = pods.iter().filter_map(|pod| Some((ordinal(pod, pool)?, pod))).collect();
    if running.is_empty() {
        return Ok(BTreeMap::new());
    }
    let secret: Option<Secret> = objects.find(namespace, &names.config_secret).await?;
    let held = credentials::rendered(secret.as_ref()).as_ref().and_then(Credentials::of);
    let inquiry = held.and_then(|held| Inquiry::new(&held).ok());
    let answer = async |(ordinal, pod): (u32, &Pod)| {
        let standings = match &inquiry {
            Some(inquiry) => standings(inquiry, ordinal, pod).await,
            None => None,
        };
        (ordinal, Answer { pod: pod.uid().unwrap_or_default(), standings })
    };
    Ok(stream::iter(running).map(answer).buffer_unordered(RELAYS).collect().await)
}

async fn standings(inquiry: &Inquiry, ordinal: u32, pod: &Pod) -> Option<Vec<UpstreamStanding>> {
    let address = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    match inquiry.ask(ordinal, address).await {
        Ok(answer) => Some(answer.upstreams),
        Err(error) => {
            tracing::debug!(pod = pod.name_any(), %error, "a relay does not say how upstreams stand");
            None
        }
    }
}

/// Its relay's ordinal, if it runs.
fn ordinal(pod: &Pod, pool: &str) -> Option<u32> {
    let phase = pod.status.as_ref()?.phase.as_deref();
    (phase == Some("Running")).then_some(pod.name_any().strip_prefix(pool)?.strip_prefix('-')?.parse().ok()?)
}
