//! `spec.acceptance`, `spec.queue` and `spec.shutdown`: what becomes of mail.

use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::{Acceptance, AmbiguousDelivery, Queue, Shutdown};

use super::place::At;
use super::valid::ValidatedStorage;
use crate::reason::Problem;

pub(super) fn acceptance(spec: Acceptance) -> relay::Acceptance {
    match spec {
        Acceptance::Queued => relay::Acceptance::Queued,
        Acceptance::PassThrough => relay::Acceptance::PassThrough,
    }
}

pub(super) fn storage(at: &At<'_>, spec: &Queue) -> Result<(ValidatedStorage, u64), Problem> {
    match (&spec.storage, &spec.ephemeral) {
        (Some(_), Some(_)) => Err(at.invalid("queue", "set at most one of storage and ephemeral")),
        (None, Some(ephemeral)) => {
            let bytes = at.octets("queue.ephemeral.sizeLimit", &ephemeral.size_limit)?;
            Ok((ValidatedStorage::Ephemeral(ephemeral.size_limit.clone()), bytes))
        }
        (storage, None) => {
            let storage = storage.clone().unwrap_or_default();
            let bytes = at.octets("queue.storage.size", &storage.size)?;
            Ok((ValidatedStorage::Volume(storage), bytes))
        }
    }
}

pub(super) fn queue(at: &At<'_>, spec: &Queue, volume_bytes: u64) -> Result<relay::Queue, Problem> {
    if spec.minimum_backoff_seconds > spec.maximum_backoff_seconds {
        return Err(at.invalid("queue.minimumBackoffSeconds", "must not exceed maximumBackoffSeconds"));
    }
    Ok(relay::Queue {
        expire_after_seconds: at.count("queue.expireAfterSeconds", spec.expire_after_seconds)?,
        minimum_backoff_seconds: at.count("queue.minimumBackoffSeconds", spec.minimum_backoff_seconds)?,
        maximum_backoff_seconds: at.count("queue.maximumBackoffSeconds", spec.maximum_backoff_seconds)?,
        maximum_bytes: volume_bytes / 10 * 9,
        ambiguous_delivery: match spec.ambiguous_delivery {
            AmbiguousDelivery::Resend => relay::AmbiguousDelivery::Resend,
            AmbiguousDelivery::Hold => relay::AmbiguousDelivery::Hold,
        },
    })
}

pub(super) fn message_fits(at: &At<'_>, queue: &relay::Queue, limits: &relay::Limits) -> Result<(), Problem> {
    if limits.message_bytes <= queue.maximum_bytes {
        return Ok(());
    }
    Err(at.invalid(
        "limits.messageSize",
        format!(
            "{} octets do not fit into a queue of {} octets (nine tenths of its volume): lower it or enlarge the queue",
            limits.message_bytes, queue.maximum_bytes
        ),
    ))
}

pub(super) fn shutdown(at: &At<'_>, spec: &Shutdown) -> Result<relay::Shutdown, Problem> {
    let accept_seconds = u32::try_from(spec.accept_seconds)
        .map_err(|_| at.invalid("shutdown.acceptSeconds", "must not be negative"))?;
    let grace_period_seconds = at.count("shutdown.gracePeriodSeconds", spec.grace_period_seconds)?;
    if accept_seconds >= grace_period_seconds {
        return Err(at.invalid("shutdown.acceptSeconds", "must be less than gracePeriodSeconds"));
    }
    Ok(relay::Shutdown { accept_seconds, grace_period_seconds })
}
