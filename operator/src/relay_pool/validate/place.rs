//! Where in a RelayPool a fault is, in words, and the conversions that can only fail with it.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use postroad_crds::v1alpha1::octets;

use crate::reason::{Problem, Reason};

/// Says where a fault is.
pub(super) struct At<'a> {
    pub(super) pool: &'a str,
}

impl At<'_> {
    pub(super) fn invalid(&self, field: &str, what: impl AsRef<str>) -> Problem {
        Problem::new(Reason::InvalidSpec, format!("RelayPool {}: spec.{field}: {}", self.pool, what.as_ref()))
    }

    pub(super) fn by(&self, field: &str) -> String {
        format!("spec.{field} of RelayPool {}", self.pool)
    }

    pub(super) fn count(&self, field: &str, value: i32) -> Result<u32, Problem> {
        let count = u32::try_from(value).ok().filter(|value| *value > 0);
        count.ok_or_else(|| self.invalid(field, format!("must be at least 1, not {value}")))
    }

    pub(super) fn octets(&self, field: &str, quantity: &Quantity) -> Result<u64, Problem> {
        match octets(quantity) {
            Ok(0) => Err(self.invalid(field, "must not be 0")),
            other => other.map_err(|error| self.invalid(field, error.to_string())),
        }
    }
}
