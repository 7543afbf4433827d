//! Relays on their way out: what they still hold, and what is removed behind them. Reads and writes; what follows from it is
//! decided by `membership`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;

use crate::client::{ApiError, Objects};
use crate::relay_pool::build::metadata::{query, selector};
use crate::relay_pool::build::stateful_set::SPOOL_VOLUME;
use crate::relay_pool::credentials::Credentials;
use crate::relay_pool::heard::{Heard, Held};
use crate::relay_pool::membership::Situation;
use crate::relay_pool::remaining::Inquiry;

/// The annotation on a claim whose relay has said that it holds nothing: the claim goes once the pod is gone. Without it a claim is
/// never removed.
pub const DRAINED_ANNOTATION: &str = "postroad.dev/drained";

/// What the relays of a pool that leave still hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Messages by ordinal; `None` for a relay that did not say.
    pub messages: BTreeMap<u32, Option<u64>>,
}

impl Remains {
    /// The messages of all that said.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.messages.values().flatten().sum()
    }

    /// The ordinals that did not say.
    pub fn silent(&self) -> impl Iterator<Item = u32> + '_ {
        self.messages.iter().filter(|(_, messages)| messages.is_none()).map(|(ordinal, _)| *ordinal)
    }
}

/// A pool's pods and claims.
pub struct Departure<'a> {
    objects: &'a Objects,
    pool: &'a str,
    present: Option<u32>,
    pods: BTreeMap<u32, Pod>,
    claims: BTreeMap<u32, PersistentVolumeClaim>,
}

impl<'a> Departure<'a> {
    /// Looks at what there is.
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn observe(
        objects: &'a Objects,
        namespace: &str,
        pool: &'a str,
        set: Option<&StatefulSet>,
    ) -> Result<Self, ApiError> {
        let labels = query(&selector(pool));
        let pods: Vec<Pod> = objects.list(namespace, &labels).await?;
        let claims: Vec<PersistentVolumeClaim> = objects.list(namespace, &labels).await?;
        let present = set.and_then(|set| u32::try_from(set.spec.as_ref()?.replicas?).ok());
        let (of_pod, of_claim) = (format!("{pool}-"), format!("{SPOOL_VOLUME}-{pool}-"));
        Ok(Self {
            objects,
            pool,
            present,
            pods: by_ordinal(pods, &of_pod),
            claims: by_ordinal(claims, &of_claim),
        })
    }

    /// How many relays the StatefulSet has.
    #[must_use]
    pub fn present(&self) -> Option<u32> {
        self.present
    }

    /// Asks the relays from ordinal `staying` on, and says what follows for the pool. Without credentials none answers.
    pub async fn situation(
        &self,
        staying: u32,
        credentials: Option<&Credentials>,
        heard: &Heard,
    ) -> (Situation, Remains) {
        let mut messages = BTreeMap::new();
        // From the top: what a relay has handed over before it said that it is empty, those below it then count.
        for ordinal in (staying..self.present.unwrap_or_default()).rev() {
            messages.insert(ordinal, self.holds(ordinal, credentials, heard).await);
        }
        let situation = Situation {
            present: self.present,
            empty: messages
                .iter()
                .filter(|(_, held)| **held == Some(Held::NOTHING))
                .map(|(ordinal, _)| *ordinal)
                .collect(),
            left_behind: self.left_behind(),
        };
        let messages =
            messages.into_iter().map(|(ordinal, held)| (ordinal, held.map(|held| held.messages))).collect();
        (situation, Remains { messages })
    }

    async fn holds(&self, ordinal: u32, credentials: Option<&Credentials>, heard: &Heard) -> Option<Held> {
        let pod = self.pods.get(&ordinal);
        if !pod.is_some_and(has_started) && !self.claims.get(&ordinal).is_some_and(is_bound) {
            return Some(Held::NOTHING);
        }
        let uid = pod?.uid()?;
        if let Some(lately) = heard.lately(&uid, Instant::now()) {
            return lately;
        }
        let address = pod?.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
        let asked = match Inquiry::new(credentials?) {
            Ok(inquiry) => inquiry.ask(ordinal, address).await,
            Err(error) => Err(error),
        };
        let held = match asked {
            // What is in quarantine is nobody's to deliver, yet somebody may want to look at it.
            Ok(remaining) => {
                Some(Held { closed: remaining.closed, messages: remaining.messages + remaining.quarantined })
            }
            Err(error) => {
                tracing::info!(pool = self.pool, ordinal, %error, "a relay that is to leave does not say what it holds");
                None
            }
        };
        heard.note(&uid, held, Instant::now());
        held
    }

    /// Claims of relays that are gone, drained before.
    fn left_behind(&self) -> BTreeSet<u32> {
        let gone = |ordinal: &u32| self.present.is_none_or(|present| *ordinal >= present);
        self.claims
            .iter()
            .filter(|(ordinal, claim)| gone(ordinal) && is_drained(claim))
            .map(|(ordinal, _)| *ordinal)
            .collect()
    }

    /// Before the ordinals from `replicas` on are taken away: notes on their claims that these are empty. And takes the note from
    /// claims of relays that stay.
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn mark(&self, replicas: u32) -> Result<(), ApiError> {
        let going = replicas..self.present.unwrap_or_default();
        for (ordinal, claim) in &self.claims {
            let drained = if going.contains(ordinal) {
                true
            } else if *ordinal < replicas {
                false
            } else {
                continue;
            };
            if is_drained(claim) != drained {
                self.objects.annotate(claim, DRAINED_ANNOTATION, &drained.to_string()).await?;
            }
        }
        Ok(())
    }

    /// Removes the claims of relays that are gone and were drained; true when some have to wait for their pods.
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn tidy(&self, replicas: u32) -> Result<bool, ApiError> {
        let mut waiting = false;
        for (ordinal, claim) in self.claims.range(replicas..) {
            // What this look has not seen drained may have been marked since: the next look decides.
            let removable = is_drained(claim) && !self.pods.contains_key(ordinal);
            if removable && claim.metadata.deletion_timestamp.is_none() {
                tracing::info!(
                    claim = claim.name_any(),
                    "the volume of a relay that is gone holds nothing and is removed"
                );
                self.objects.delete(claim).await?;
            }
            waiting |= is_drained(claim) || ordinal < &self.present.unwrap_or_default();
        }
        Ok(waiting)
    }

    /// The claims, by ordinal, of which no relay has said that they are empty, beyond those of the first `asked` ordinals.
    #[must_use]
    pub fn unaccounted(&self, asked: u32) -> BTreeMap<u32, String> {
        let claims = self.claims.range(asked..).filter(|(_, claim)| is_bound(claim) && !is_drained(claim));
        claims.map(|(ordinal, claim)| (*ordinal, claim.name_any())).collect()
    }

    /// Removes the claims of these ordinals, whatever is on them: they go with their pods.
    ///
    /// # Errors
    /// When the API server does not answer or refuses.
    pub async fn remove(&self, which: impl Fn(u32) -> bool) -> Result<(), ApiError> {
        let chosen = self.claims.iter().filter(|(ordinal, _)| which(**ordinal));
        for (_, claim) in chosen.filter(|(_, claim)| claim.metadata.deletion_timestamp.is_none()) {
            self.objects.delete(claim).await?;
        }
        Ok(())
    }
}

/// Objects by the number behind the prefix of their name.
fn by_ordinal<K: ResourceExt>(objects: Vec<K>, prefix: &str) -> BTreeMap<u32, K> {
    let ordinal = |object: &K| object.name_any().strip_prefix(prefix)?.parse().ok();
    objects.into_iter().filter_map(|object| Some((ordinal(&object)?, object))).collect()
}

/// Whether any container of the pod has ever run.
#[must_use]
pub fn has_started(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let states = status.container_statuses.iter().flatten();
    status.phase.as_deref() != Some("Pending")
        || states.into_iter().any(|container| container.started == Some(true) || container.restart_count > 0)
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Pending")
}

fn is_drained(claim: &PersistentVolumeClaim) -> bool {
    claim.annotations().get(DRAINED_ANNOTATION).is_some_and(|value| value == "true")
}
