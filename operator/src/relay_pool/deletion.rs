//! The end of a pool (promise P8): it goes when its relays hold nothing any more, or at once if its deletion policy says so.
//!
//! A finalizer keeps the pool until then. It keeps nothing else: a pool whose relays are gone already, as when its namespace goes, is
//! let go at once, and `postroad-operator uninstall` takes the finalizer from all pools before the operator goes.
//!
//! Until the end the relays run by the configuration that was rendered last, changed in one point: they all leave. The spec is not
//! looked at, because what it names is often deleted together with it.

use std::collections::BTreeSet;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use postroad_crds::relay_config::{FILE_NAME, RelayConfig};
use postroad_crds::v1alpha1::DeletionPolicy;

use crate::client::Objects;
use crate::error::Error;
use crate::reason::{Problem, Reason};
use crate::relay_pool::apply::announce;
use crate::relay_pool::build::config::render;
use crate::relay_pool::credentials::{self, Credentials};
use crate::relay_pool::departure::{Departure, Remains};
use crate::relay_pool::heard::Heard;

/// Keeps a pool that is deleted until its relays hold nothing.
pub const FINALIZER: &str = "postroad.dev/drain";

/// Whether the operator has a word in when the pool goes.
#[must_use]
pub fn is_held(pool: &ObjectMeta) -> bool {
    pool.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// How far a pool has got.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// Its relays still hold something, or do not say: the pool waits.
    Waits(Remains),
    /// Nothing keeps the pool any more. With what is lost by it or stays behind, if anything.
    Free(Option<Problem>),
}

/// The next step towards the end of the pool: its relays are told to leave and asked what they hold; what is to go before the pool
/// is removed.
///
/// # Errors
/// When the API server does not answer or refuses; the step may then be done in part and is done again.
pub async fn pursue(
    objects: &Objects,
    departure: &Departure<'_>,
    secret: Option<&Secret>,
    policy: DeletionPolicy,
    heard: &Heard,
) -> Result<End, Error> {
    let rendered = credentials::rendered(secret);
    let credentials = rendered.as_ref().and_then(Credentials::of);
    let (situation, remains) = departure.situation(0, credentials.as_ref(), heard).await;
    let present = departure.present().unwrap_or_default();
    if situation.empty.len() == present as usize {
        let kept = departure.unaccounted(present);
        departure.remove(|ordinal| !kept.contains_key(&ordinal)).await?;
        return Ok(End::Free(stay(kept.into_values().collect())));
    }
    match policy {
        DeletionPolicy::Drain => {
            if let (Some(secret), Some(config)) = (secret, rendered) {
                tell(objects, secret, config, present).await?;
            }
            Ok(End::Waits(remains))
        }
        DeletionPolicy::Discard => {
            departure.remove(|_| true).await?;
            Ok(End::Free(Some(discarded(&remains))))
        }
    }
}

/// Tells all relays that they leave.
async fn tell(
    objects: &Objects,
    secret: &Secret,
    mut config: RelayConfig,
    present: u32,
) -> Result<(), Error> {
    let Some(hand_over) = &mut config.hand_over else { return Ok(()) };
    let all: BTreeSet<u32> = (0..present).collect();
    let mut version = secret.resource_version();
    if hand_over.leaving != all {
        hand_over.leaving = all;
        let text = render(&config).map_err(Error::Refused)?;
        version = objects.set_data(secret, FILE_NAME, ByteString(text.into_bytes())).await?;
    }
    let (namespace, pool) = (&config.pool.namespace, &config.pool.name);
    Ok(announce(objects, namespace, pool, &version.unwrap_or_default()).await?)
}

fn stay(claims: Vec<String>) -> Option<Problem> {
    let claims = Some(claims.join(", ")).filter(|claims| !claims.is_empty())?;
    let message = format!(
        "nobody has said that the volumes of the claims {claims} hold no mail, so they stay: a pool of the same name delivers what is \
         on them"
    );
    Some(Problem::new(Reason::VolumesStay, message))
}

fn discarded(remains: &Remains) -> Problem {
    let mut message =
        format!("deleted with {} queued messages, as spec.deletionPolicy asks", remains.total());
    let silent: Vec<String> = remains.silent().map(|ordinal| ordinal.to_string()).collect();
    if !silent.is_empty() {
        message = format!("{message}; relays {} did not say what they hold", silent.join(", "));
    }
    Problem::new(Reason::MailDiscarded, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_discarded_is_told_with_its_number_and_who_was_silent() {
        let some = Remains { messages: [(0, Some(7)), (1, None), (2, Some(5))].into() };
        let Problem { reason, message } = discarded(&some);
        assert_eq!(reason, Reason::MailDiscarded);
        assert!(
            message.contains("12 queued messages")
                && message.ends_with("relays 1 did not say what they hold"),
            "{message}"
        );
        assert!(!discarded(&Remains { messages: [(0, Some(7))].into() }).message.contains("did not say"));
    }

    #[test]
    fn volumes_that_stay_are_named() {
        assert_eq!(stay(Vec::new()), None);
        let told = stay(vec!["spool-main-3".to_owned(), "spool-main-4".to_owned()]).unwrap();
        assert!(told.message.contains("spool-main-3, spool-main-4"), "{}", told.message);
    }
}
