//! `rates` of routes and identities, of which every relay has to have a share.

use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::Rate;

use super::place::At;
use crate::reason::{Problem, Reason};

pub(super) fn rates(
    at: &At<'_>,
    field: &str,
    specs: &[Rate],
    replicas: i32,
) -> Result<Vec<relay::Rate>, Problem> {
    let rates = crate::rates::rates(specs).map_err(|what| at.invalid(field, what))?;
    // A relay without a share could never send.
    match rates.iter().find(|rate| i64::from(rate.limit) < i64::from(replicas)) {
        None => Ok(rates),
        Some(rate) => {
            let message = format!(
                "RelayPool {}: spec.replicas is {replicas}, but spec.{field} allows {} in {} s over all relays and each relay \
                 needs a share: lower the replicas, or write the rate over a longer time",
                at.pool, rate.limit, rate.per_seconds
            );
            Err(Problem::new(Reason::RateBudgetTooSmall, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_which_some_relay_has_no_share_is_refused_with_its_field() {
        let check = |limit: i32, expected: Result<usize, (Reason, &str)>| {
            let rate = Rate { messages: Some(limit), recipients: None, per_seconds: 60 };
            let found = rates(&At { pool: "main" }, "routes[bulk].rates", &[rate], 3);
            match (found, expected) {
                (Ok(rates), Ok(count)) => assert_eq!(rates.len(), count),
                (Err(problem), Err((reason, words))) => {
                    assert!(problem.reason == reason && problem.message.contains(words), "{problem}");
                }
                (found, expected) => panic!("{found:?}, expected {expected:?}"),
            }
        };
        check(3, Ok(1));
        check(2, Err((Reason::RateBudgetTooSmall, "spec.routes[bulk].rates allows 2 in 60 s")));
        check(0, Err((Reason::InvalidSpec, "spec.routes[bulk].rates: a rate's numbers")));
    }
}
