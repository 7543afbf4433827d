//! Rates, from the API's form to the rendered one: those of Upstreams, routes and identities alike. Pure.

use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::Rate;

/// The rates as relays need them.
///
/// # Errors
/// What is wrong with the first that cannot be used, for an author to whom the field is told beside it.
pub fn rates(specs: &[Rate]) -> Result<Vec<relay::Rate>, String> {
    let rate = |spec: &Rate| {
        let (limit, unit) = match (spec.messages, spec.recipients) {
            (Some(messages), None) => (messages, relay::RateUnit::Messages),
            (None, Some(recipients)) => (recipients, relay::RateUnit::Recipients),
            _ => return Err("a rate counts messages or recipients: set exactly one of them".to_owned()),
        };
        Ok(relay::Rate { limit: at_least_one(limit)?, unit, per_seconds: at_least_one(spec.per_seconds)? })
    };
    specs.iter().map(rate).collect()
}

fn at_least_one(value: i32) -> Result<u32, String> {
    let count = u32::try_from(value).ok().filter(|value| *value > 0);
    count.ok_or_else(|| format!("a rate's numbers must be at least 1, not {value}"))
}
