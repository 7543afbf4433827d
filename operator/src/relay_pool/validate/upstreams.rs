//! The Upstreams that routes name, and whether their budgets suffice for the pool.

use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::RelayPool;

use super::place::At;
use super::references::{References, upstream_names};
use crate::reason::{Findings, Problem, Reason};
use crate::upstream::validate as upstream;

pub(super) fn upstreams(
    at: &At<'_>,
    pool: &RelayPool,
    references: &References,
    findings: &mut Findings,
) -> Vec<relay::Upstream> {
    let mut valid = Vec::new();
    for name in upstream_names(pool) {
        let found = match references.upstreams.get(name) {
            Some(Ok(found)) => found,
            Some(Err(reason)) => {
                let message =
                    format!("Upstream {name}, named by {}, cannot be read: {reason}", at.by("routes"));
                findings.references.push(Problem::new(Reason::UpstreamInvalid, message));
                continue;
            }
            None => {
                let message =
                    format!("Upstream {name}, named by {}, does not exist: create it", at.by("routes"));
                findings.references.push(Problem::new(Reason::UpstreamNotFound, message));
                continue;
            }
        };
        match upstream::validate(name, found, &references.secrets) {
            Ok(upstream) => {
                findings.spec(connection_budget(at, name, upstream.connections.maximum, pool.spec.replicas));
                for rate in &upstream.rates {
                    findings.spec(rate_budget(at, name, rate, pool.spec.replicas));
                }
                valid.push(upstream);
            }
            Err(found) => {
                let spec =
                    found.spec.into_iter().map(|fault| Problem::new(Reason::UpstreamInvalid, fault.message));
                findings.references.extend(spec.chain(found.references));
            }
        }
    }
    valid
}

/// Every relay needs a session of its own.
fn connection_budget(at: &At<'_>, upstream: &str, maximum: u32, replicas: i32) -> Result<(), Problem> {
    if i64::from(maximum) >= i64::from(replicas) {
        return Ok(());
    }
    let message = format!(
        "RelayPool {}: spec.replicas is {replicas}, but Upstream {upstream} allows {maximum} (spec.connections.maximum) \
         sessions over all relays and each relay needs one: lower the replicas or raise the maximum",
        at.pool
    );
    Err(Problem::new(Reason::ConnectionBudgetTooSmall, message))
}

/// A relay without a share of a rate could never send.
fn rate_budget(at: &At<'_>, upstream: &str, rate: &relay::Rate, replicas: i32) -> Result<(), Problem> {
    if i64::from(rate.limit) >= i64::from(replicas) {
        return Ok(());
    }
    let message = format!(
        "RelayPool {}: spec.replicas is {replicas}, but Upstream {upstream} allows {} in {} s (spec.rates) over all relays \
         and each relay needs a share: lower the replicas, or write the rate over a longer time",
        at.pool, rate.limit, rate.per_seconds
    );
    Err(Problem::new(Reason::RateBudgetTooSmall, message))
}
