//! Asks relays to which division of an Upstream they keep, over their pool's own channel. Reads, and decides nothing beyond what
//! a pod's status means.

use std::collections::BTreeMap;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use postroad_crds::v1alpha1::PoolRelays;

use super::division::Relay;
use crate::client::{ApiError, Objects};
use crate::relay_pool::build::metadata::{query, selector};
use crate::relay_pool::credentials::{self, Credentials};
use crate::relay_pool::departure::has_started;
use crate::relay_pool::names::Names;
use crate::relay_pool::remaining::Inquiry;

/// What is known of the relays of these pools, by pool and ordinal, when the Upstream's newest division is this one.
///
/// # Errors
/// When the API server does not answer or refuses. A relay that does not is no error.
pub async fn ask(
    objects: &Objects,
    namespace: &str,
    upstream: &str,
    pools: &[PoolRelays],
    number: i64,
) -> Result<BTreeMap<(String, u32), Relay>, ApiError> {
    let mut known = BTreeMap::new();
    for pool in pools {
        let Ok(names) = Names::of(&pool.name) else { continue };
        let secret: Option<Secret> = objects.find(namespace, &names.config_secret).await?;
        let pods: Vec<Pod> = objects.list(namespace, &query(&selector(&pool.name))).await?;
        let config = credentials::rendered(secret.as_ref());
        let named = config.as_ref().and_then(|config| config.upstreams.iter().find(|it| it.name == upstream));
        let newest = named.and_then(|it| i64::try_from(it.divisions.last()?.number).ok());
        // Until it is rendered, a pod that starts now knows nothing of it.
        let unused = config.is_some() && named.is_none();
        let rendered = secret.is_none() || unused || newest.is_some_and(|newest| newest >= number);
        let inquiry = config.as_ref().and_then(Credentials::of).and_then(|held| Inquiry::new(&held).ok());
        let relay = async |ordinal: u32| {
            let pod = pods.iter().find(|pod| pod.name_any() == format!("{}-{ordinal}", pool.name));
            let relay = match pod {
                _ if !rendered => Relay::Silent,
                None => Relay::Gone,
                Some(pod) if !runs(pod) => Relay::Gone,
                Some(pod) => match asked(pod, inquiry.as_ref(), ordinal).await {
                    None => Relay::Silent,
                    // It knows that it is to use it no longer, and has no session left.
                    Some(kept) if unused && !kept.is_empty() && !kept.contains_key(upstream) => Relay::Gone,
                    Some(kept) => Relay::Keeps(kept.get(upstream).copied().unwrap_or_default()),
                },
            };
            ((pool.name.clone(), ordinal), relay)
        };
        known.extend(join_all((0..u32::try_from(pool.replicas).unwrap_or_default()).map(relay)).await);
    }
    Ok(known)
}

/// Whether anything of the pod may run.
fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    has_started(pod) && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// What the relay in the pod says, by upstream; `None` when it says nothing.
async fn asked(pod: &Pod, inquiry: Option<&Inquiry>, ordinal: u32) -> Option<BTreeMap<String, i64>> {
    let address = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    match inquiry?.ask(ordinal, address).await {
        Ok(answer) => {
            let number = |(upstream, number)| (upstream, i64::try_from(number).unwrap_or_default());
            Some(answer.divisions.into_iter().map(number).collect())
        }
        Err(error) => {
            tracing::info!(pod = pod.name_any(), %error, "a relay does not say to which shares it keeps");
            None
        }
    }
}
