//! The budgets of lanes and their records on disk: what of [`budget`](crate::budget) needs a policy or a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use postroad_crds::relay_config::{RateUnit, share};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::lane::Lane;
use crate::budget::{Budget, Clock, Rate, Saved, Unit, ledger};
use crate::config::UpstreamPolicy;

/// What became of a record.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) upstream: String,
    /// The amount it covers; `None` when it could not be written.
    pub(super) covered: Option<u64>,
}

/// This relay's shares of the upstream's rates.
pub(super) fn rates(upstream: &UpstreamPolicy, ordinal: u32, replicas: u32) -> Vec<Rate> {
    let of = |rate: &postroad_crds::relay_config::Rate| Rate {
        limit: u64::from(share(rate.limit, ordinal, replicas)),
        unit: match rate.unit {
            RateUnit::Messages => Unit::Messages,
            RateUnit::Recipients => Unit::Recipients,
        },
        per: Duration::from_secs(u64::from(rate.per_seconds)),
    };
    upstream.rates.iter().map(of).collect()
}

/// The budget as the last process has left it. Reads one small file.
pub(super) fn open(data: &Path, upstream: &str, rates: &[Rate], clock: Clock) -> Budget {
    let saved = match ledger::read(data, upstream) {
        _ if rates.is_empty() => None,
        Ok(saved) => saved,
        Err(error) => {
            tracing::error!(
                upstream, %error,
                "what was sent before cannot be read; its rates count as used up until their time is over"
            );
            Some(Saved::unknown())
        }
    };
    Budget::new(rates, saved, clock.time(Instant::now()))
}

/// Writes a record and tells the driver.
pub(super) async fn record(
    data: PathBuf,
    upstream: String,
    saved: Saved,
    covered: u64,
    done: mpsc::Sender<Recorded>,
) {
    let name = upstream.clone();
    let written = spawn_blocking(move || ledger::write(&data, &name, &saved)).await;
    let covered = match written {
        Ok(Ok(())) => Some(covered),
        Ok(Err(error)) => {
            tracing::error!(upstream, %error, "what is sent cannot be recorded; mail under a long rate waits");
            None
        }
        Err(_) => None,
    };
    let _ = done.send(Recorded { upstream, covered }).await;
}

/// Records what was really spent, when nothing more will be.
pub(super) async fn leave(data: &Path, lanes: &BTreeMap<String, Lane>) {
    let records: Vec<_> =
        lanes.iter().filter_map(|(name, lane)| Some((name.clone(), lane.last_record()?))).collect();
    let data = data.to_owned();
    let _ = spawn_blocking(move || {
        for (upstream, saved) in records {
            if let Err(error) = ledger::write(&data, &upstream, &saved) {
                tracing::warn!(upstream, %error, "what was sent could not be recorded; more counts as sent than was");
            }
        }
    })
    .await;
}
