//! The status of an Upstream: from what the validator found to conditions. Pure; `report` writes it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use postroad_crds::v1alpha1::{Conditions, UpstreamStatus};

use crate::reason::{Findings, Reason, summary};

/// The condition types of an Upstream.
pub const CONDITIONS: [&str; 3] = ["Accepted", "ResolvedRefs", "Ready"];

/// The status, laid over the conditions the Upstream has.
#[must_use]
pub fn status(generation: i64, findings: &Findings, now: &Time, present: &[Condition]) -> UpstreamStatus {
    let mut conditions = Conditions::of(generation, now.clone());
    let spec = summary(&findings.spec);
    let references = summary(&findings.references);
    let both = spec.clone().or_else(|| references.clone());
    for (type_, problem, good, message) in [
        (CONDITIONS[0], spec, Reason::Accepted, "the spec can be used"),
        (CONDITIONS[1], references, Reason::ResolvedRefs, "every Secret it names exists and can be used"),
        (CONDITIONS[2], both, Reason::Ready, "RelayPools can use it"),
    ] {
        match problem {
            Some(problem) => conditions.set(type_, false, problem.reason.as_str(), problem.message),
            None => conditions.set(type_, true, good.as_str(), message),
        }
    }
    UpstreamStatus { conditions: conditions.over(present) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Problem;
    use k8s_openapi::jiff::Timestamp;
    use postroad_crds::v1alpha1::condition;

    #[test]
    fn ready_is_both_others() {
        let now = Time(Timestamp::from_second(1).unwrap());
        let problem = |reason| vec![Problem::new(reason, "a sentence")];
        let cases = [
            (Findings::default(), ["True", "True", "True"]),
            (Findings { spec: problem(Reason::InvalidSpec), references: vec![] }, ["False", "True", "False"]),
            (
                Findings { spec: vec![], references: problem(Reason::SecretNotFound) },
                ["True", "False", "False"],
            ),
        ];
        for (findings, expected) in cases {
            let status = status(1, &findings, &now, &[]);
            let found = CONDITIONS.map(|type_| condition(&status.conditions, type_).unwrap().status.clone());
            assert_eq!(found, expected, "{findings:?}");
        }
    }
}
