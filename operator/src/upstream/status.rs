//! The status of an Upstream: from what the validator found to conditions. Pure; `report` writes it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use postroad_crds::v1alpha1::{Conditions, Division, UpstreamStatus};

use super::division;
use super::reach::Reach;
use crate::reason::{Findings, Reason, summary};

/// The condition types of an Upstream.
pub const CONDITIONS: [&str; 6] =
    ["Accepted", "ResolvedRefs", "Ready", "BudgetTooSmall", "Reachable", PREFERRED_PORT];

const PREFERRED_PORT: &str = "PreferredPort";

/// What one reconcile found out about an Upstream.
pub struct Observation<'a> {
    /// `metadata.generation` of what was reconciled.
    pub generation: i64,
    /// What the validator found; empty when nothing.
    pub findings: &'a Findings,
    /// How it is divided from now on; `None` when it cannot be used, and stays as it was.
    pub divided: Option<Divided>,
    /// What relays say of it.
    pub reach: Reach,
    /// Whether it is a sandbox, which has no ports.
    pub sandbox: bool,
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
    let Observation { generation, findings, divided, reach, sandbox } = observed;
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
    for (type_, verdict) in [(CONDITIONS[4], reach.reachable()), (PREFERRED_PORT, reach.preferred_port())] {
        if let Some(verdict) = verdict {
            verdict.set(&mut conditions, type_);
        }
    }
    let mut conditions = conditions.over(&present.conditions);
    conditions.retain(|condition| !*sandbox || condition.type_ != PREFERRED_PORT);
    let divisions = divided.as_ref().map_or(&present.divisions, |divided| &divided.divisions).clone();
    UpstreamStatus { conditions, divisions }
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
    use crate::standing::board::Said;
    use crate::upstream::division::{Relay, Spans};
    use k8s_openapi::jiff::Timestamp;
    use postroad_crds::relay_config::{Standing, UpstreamStanding};
    use postroad_crds::v1alpha1::{PoolRelays, condition};
    use std::sync::Arc;

    fn observe(generation: i64, findings: &Findings, divided: Option<Divided>) -> Observation<'_> {
        Observation { generation, findings, divided, reach: Reach::default(), sandbox: false }
    }

    #[test]
    fn what_relays_say_stays_until_they_say_otherwise_but_a_sandbox_has_no_port() {
        let now = Time(Timestamp::from_second(1).unwrap());
        let none = Findings::default();
        let standing = UpstreamStanding {
            name: "ses".to_owned(),
            standing: Standing::Works,
            obstacle: None,
            port: Some(587),
            passed_over: Vec::new(),
        };
        let said = Said::Standings([("ses".to_owned(), standing)].into());
        let heard = Reach::of("ses", [("main", Arc::new([(0, said)].into()))]);
        let unheard = || Reach::of("ses", [("main", Arc::default())]);
        let told = status(
            &Observation { reach: heard, ..observe(1, &none, None) },
            &now,
            &UpstreamStatus::default(),
        );
        let later = status(&Observation { reach: unheard(), ..observe(1, &none, None) }, &now, &told);
        for type_ in ["Reachable", "PreferredPort"] {
            assert_eq!(condition(&told.conditions, type_).unwrap().status, "True");
            assert_eq!(condition(&later.conditions, type_), condition(&told.conditions, type_));
        }
        let sandbox = Observation { reach: unheard(), sandbox: true, ..observe(2, &none, None) };
        assert_eq!(condition(&status(&sandbox, &now, &told).conditions, "PreferredPort"), None);
    }

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
            let observed = observe(1, &findings, None);
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
        let observed = observe(1, &none, Some(divided));
        let told = status(&observed, &now, &UpstreamStatus::default());
        let found = condition(&told.conditions, "BudgetTooSmall").unwrap();
        assert!(
            found.status == "True" && found.message.starts_with("3 relays share 2 sessions"),
            "{found:?}"
        );
        let broken = Findings { spec: vec![Problem::new(Reason::InvalidSpec, "x")], references: vec![] };
        let observed = observe(2, &broken, None);
        assert_eq!(status(&observed, &now, &told).divisions, told.divisions);
    }
}
