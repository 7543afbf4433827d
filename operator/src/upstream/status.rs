//! The status of an Upstream: from what the validator found to conditions. Pure; `report` writes it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use postroad_crds::v1alpha1::{Conditions, Division, UpstreamStatus};

use super::division;
use crate::reason::{Findings, Reason, summary};

/// The condition types of an Upstream.
pub const CONDITIONS: [&str; 4] = ["Accepted", "ResolvedRefs", "Ready", "BudgetTooSmall"];

/// What one reconcile found out about an Upstream.
pub struct Observation<'a> {
    /// `metadata.generation` of what was reconciled.
    pub generation: i64,
    /// What the validator found; empty when nothing.
    pub findings: &'a Findings,
    /// How it is divided from now on; `None` when it cannot be used, and stays as it was.
    pub divided: Option<Divided>,
}

/// How an Upstream's budgets are divided.
#[derive(Clone, Debug, Default)]
pub struct Divided {
    /// The divisions, the wanted one last.
    pub divisions: Vec<Division>,
    /// Which budgets are smaller than the number of relays.
    pub too_small: Option<String>,
}

/// The status, laid over the one the Upstream has.
#[must_use]
pub fn status(observed: &Observation<'_>, now: &Time, present: &UpstreamStatus) -> UpstreamStatus {
    let Observation { generation, findings, divided } = observed;
    let mut conditions = Conditions::of(*generation, now.clone());
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
    if let Some(divided) = divided {
        budget(&mut conditions, divided);
    }
    let divisions = divided.as_ref().map_or(&present.divisions, |divided| &divided.divisions).clone();
    UpstreamStatus { conditions: conditions.over(&present.conditions), divisions }
}

fn budget(conditions: &mut Conditions, Divided { divisions, too_small }: &Divided) {
    let relays = divisions.last().map_or(0, |last| division::relays(&last.pools));
    let (holds, reason, message) = match too_small {
        Some(what) => (
            true,
            Reason::BudgetTooSmall,
            format!(
                "{relays} relays share {what}: those without a share send nothing here, their mail takes the other Upstreams of \
                 its route or waits; allow more, or lower the replicas of the RelayPools that name it"
            ),
        ),
        None => (false, Reason::BudgetSuffices, "every relay has a share".to_owned()),
    };
    conditions.set(CONDITIONS[3], holds, reason.as_str(), message);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Problem;
    use crate::upstream::division::{Relay, Spans};
    use k8s_openapi::jiff::Timestamp;
    use postroad_crds::v1alpha1::{PoolRelays, condition};

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
            let observed = Observation { generation: 1, findings: &findings, divided: None };
            let status = status(&observed, &now, &UpstreamStatus::default());
            let found = [0, 1, 2]
                .map(|index| CONDITIONS[index])
                .map(|type_| condition(&status.conditions, type_).unwrap().status.clone());
            assert_eq!(found, expected, "{findings:?}");
        }
    }

    #[test]
    fn a_budget_smaller_than_the_number_of_relays_is_told_and_divisions_stay_while_the_spec_is_broken() {
        let now = Time(Timestamp::from_second(1).unwrap());
        let pools = vec![PoolRelays { name: "main".to_owned(), replicas: 3 }];
        let divisions = division::next(&[], &pools, &Spans::default(), |_, _| Relay::Silent, &now);
        let divided =
            Divided { divisions, too_small: Some("2 sessions (spec.connections.maximum)".to_owned()) };
        let none = Findings::default();
        let observed = Observation { generation: 1, findings: &none, divided: Some(divided) };
        let told = status(&observed, &now, &UpstreamStatus::default());
        let found = condition(&told.conditions, "BudgetTooSmall").unwrap();
        assert!(
            found.status == "True" && found.message.starts_with("3 relays share 2 sessions"),
            "{found:?}"
        );
        let broken = Findings { spec: vec![Problem::new(Reason::InvalidSpec, "x")], references: vec![] };
        let observed = Observation { generation: 2, findings: &broken, divided: None };
        assert_eq!(status(&observed, &now, &told).divisions, told.divisions);
    }
}
