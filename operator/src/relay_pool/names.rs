//! The names of everything that belongs to a RelayPool, from the pool's name. Leaf: pure, called by build, apply and status.
//!
//! A Service name is a DNS label (RFC 1035, 63 octets). The StatefulSet's own name is bounded by the label
//! `controller-revision-hash` of its pods, `<name>-<10 characters>`, which the API server refuses beyond 63.

use crate::reason::{Problem, Reason};

/// The longest name a pool may have. The CRD demands the same by a CEL rule.
pub const POOL_NAME_MAXIMUM: usize = 40;

/// Names of one pool's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The pool, its StatefulSet, its ServiceAccount, its PodDisruptionBudget and the Service that apps use.
    pub pool: String,
    /// The headless Service that gives pods their DNS names.
    pub headless_service: String,
    /// The Secret that holds the rendered RelayConfig.
    pub config_secret: String,
}

impl Names {
    /// The names of the pool's objects.
    ///
    /// # Errors
    /// `InvalidSpec` when the pool's name cannot be the name of a Service or is too long to be extended.
    pub fn of(pool: &str) -> Result<Self, Problem> {
        let label = pool.starts_with(|c: char| c.is_ascii_lowercase())
            && pool.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && pool.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !label || pool.len() > POOL_NAME_MAXIMUM {
            return Err(Problem::new(
                Reason::InvalidSpec,
                format!(
                    "RelayPool {pool}: metadata.name: use at most {POOL_NAME_MAXIMUM} lower-case letters, digits and '-', \
                     starting with a letter: it becomes the name of a Service"
                ),
            ));
        }
        Ok(Self {
            pool: pool.to_owned(),
            headless_service: format!("{pool}-headless"),
            config_secret: format!("{pool}-relay-config"),
        })
    }

    /// The name under which apps of the cluster reach the pool.
    #[must_use]
    pub fn endpoint(&self, namespace: &str, cluster_domain: &str) -> String {
        format!("{}.{namespace}.svc.{cluster_domain}", self.pool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a StatefulSet's controller appends to its name in the label `controller-revision-hash`.
    const REVISION_HASH: usize = "-5c7d8f9b4d".len();
    const LABEL_MAXIMUM: usize = 63;

    #[test]
    fn the_longest_name_still_fits_everywhere() {
        let names = Names::of(&"a".repeat(POOL_NAME_MAXIMUM)).unwrap();
        let Names { pool, headless_service, config_secret } = &names;
        assert!(headless_service.len() <= LABEL_MAXIMUM, "{headless_service}");
        assert!(config_secret.len() <= LABEL_MAXIMUM, "{config_secret}");
        assert!(pool.len() + REVISION_HASH <= LABEL_MAXIMUM, "{pool}");
        assert!(format!("{pool}-99").len() <= LABEL_MAXIMUM, "a pod's name is its host name");
        assert!(names.endpoint(&"n".repeat(LABEL_MAXIMUM), "cluster.local").len() <= 253);
    }

    #[test]
    fn names_that_cannot_be_a_service_are_refused() {
        for name in ["", "1a", "-a", "a-", "A", "a.b", "a_b", &"a".repeat(POOL_NAME_MAXIMUM + 1)] {
            assert_eq!(Names::of(name).unwrap_err().reason, Reason::InvalidSpec, "{name}");
        }
        for name in ["a", "a1", "main-2"] {
            assert!(Names::of(name).is_ok(), "{name}");
        }
    }
}
