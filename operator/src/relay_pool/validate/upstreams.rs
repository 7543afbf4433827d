//! The Upstreams that routes name, with this pool's place among the relays that share them.

use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::RelayPool;

use super::place::At;
use super::references::{References, upstream_names};
use crate::reason::{Findings, Problem, Reason};
use crate::upstream::{division, validate as upstream};

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
                let status = found.status.as_ref();
                let divisions =
                    status.map(|status| division::render(&status.divisions, at.pool)).unwrap_or_default();
                valid.push(relay::Upstream { divisions, ..upstream });
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
