//! The status of a RelayPool: from what one reconcile found to conditions. Pure; `report` writes it.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use postroad_crds::v1alpha1::{Conditions, RelayPoolStatus};

use crate::reason::{Findings, Problem, Reason, summary};
use crate::relay_pool::build::metadata::{query, selector};
use crate::relay_pool::departure::Remains;
use crate::standing::verdict::Verdict;

/// The condition types of a RelayPool.
pub const CONDITIONS: [&str; 6] =
    ["Accepted", "ResolvedRefs", "Programmed", "Ready", "Draining", PREFERRED_UPSTREAMS];

const PREFERRED_UPSTREAMS: &str = "PreferredUpstreams";

/// What one reconcile found out about a pool.
pub struct Observation<'a> {
    /// The pool's name.
    pub pool: &'a str,
    /// `metadata.generation` of what was reconciled.
    pub generation: i64,
    /// How many relays that generation wants.
    pub replicas: i32,
    /// The name apps use.
    pub endpoint: &'a str,
    /// What the validator found; empty when nothing.
    pub findings: &'a Findings,
    /// Why the objects are not as this generation wants them, beyond `findings`.
    pub unprogrammed: Option<&'a Problem>,
    /// The StatefulSet, when there is one.
    pub stateful_set: Option<&'a StatefulSet>,
    /// What leaving relays still hold; `None` when nobody has looked, so that the condition stays as it is.
    pub remains: Option<&'a Remains>,
    /// Whether its routes go where they prefer; `None` when nobody knows, so that the condition stays as it is.
    pub ways: Option<&'a Verdict>,
}

/// What a look at a pool that is being deleted found out.
pub struct Ending<'a> {
    /// The pool's name.
    pub pool: &'a str,
    /// `metadata.generation` of the pool.
    pub generation: i64,
    /// The name apps used.
    pub endpoint: &'a str,
    /// The StatefulSet.
    pub stateful_set: Option<&'a StatefulSet>,
    /// What its relays still hold.
    pub remains: &'a Remains,
}

/// The status of a pool that waits for its end, laid over the conditions it has.
#[must_use]
pub fn ending(observed: &Ending<'_>, now: &Time, present: &[Condition]) -> RelayPoolStatus {
    let relays = Relays::of(observed.stateful_set);
    let mut conditions = Conditions::of(observed.generation, now.clone());
    let accepting = "the pool is being deleted and accepts no mail";
    conditions.set("Ready", false, Reason::BeingDeleted.as_str(), accepting);
    let message = leaving(observed.remains, "deliver what they hold, then the pool goes");
    conditions.set("Draining", true, Reason::BeingDeleted.as_str(), message);
    RelayPoolStatus {
        endpoint: Some(observed.endpoint.to_owned()),
        replicas: relays.present,
        ready_replicas: relays.ready,
        draining_messages: Some(messages(observed.remains)),
        selector: Some(query(&selector(observed.pool))),
        conditions: conditions.over(present),
    }
}

/// The status, laid over the conditions the pool has.
#[must_use]
pub fn status(observed: &Observation<'_>, now: &Time, present: &[Condition]) -> RelayPoolStatus {
    let relays = Relays::of(observed.stateful_set);
    let mut conditions = Conditions::of(observed.generation, now.clone());
    let broken_spec = summary(&observed.findings.spec);
    let broken_references = summary(&observed.findings.references);
    set(&mut conditions, "Accepted", broken_spec.as_ref(), Reason::Accepted, "the spec can be used");
    set(
        &mut conditions,
        "ResolvedRefs",
        broken_references.as_ref(),
        Reason::ResolvedRefs,
        "everything the pool names exists and can be used",
    );
    let cause = broken_spec.or(broken_references).or_else(|| observed.unprogrammed.cloned());
    let unprogrammed = cause.as_ref().map(|cause| {
        let consequence = match observed.stateful_set {
            Some(_) => "the relays keep what they had before",
            None => "no relay was started",
        };
        Problem::new(cause.reason, format!("{consequence}: {cause}"))
    });
    set(
        &mut conditions,
        "Programmed",
        unprogrammed.as_ref(),
        Reason::Programmed,
        "configuration and objects are in place",
    );
    let unready = unready(observed, &relays, cause.as_ref());
    let accepting = format!("{}: {}", observed.endpoint, relays.count(observed.replicas));
    set(&mut conditions, "Ready", unready.as_ref(), Reason::Ready, &accepting);
    match observed.remains {
        Some(remains) if remains.messages.is_empty() => {
            conditions.set("Draining", false, Reason::NoRelayLeaves.as_str(), "no relay is leaving");
        }
        Some(remains) => {
            let message = leaving(remains, "hand over what they hold, then they go");
            conditions.set("Draining", true, Reason::RelaysLeaving.as_str(), message);
        }
        None => {}
    }
    if let Some(ways) = observed.ways {
        ways.set(&mut conditions, PREFERRED_UPSTREAMS);
    }
    let remains = observed.remains.filter(|remains| !remains.messages.is_empty());
    RelayPoolStatus {
        endpoint: Some(observed.endpoint.to_owned()),
        replicas: relays.present,
        ready_replicas: relays.ready,
        draining_messages: remains.map(messages),
        selector: Some(query(&selector(observed.pool))),
        conditions: conditions.over(present),
    }
}

fn messages(remains: &Remains) -> i64 {
    i64::try_from(remains.total()).unwrap_or(i64::MAX)
}

/// Who leaves and what they do. Without the number of messages, so that the condition changes only when the relays do.
fn leaving(remains: &Remains, what: &str) -> String {
    let list = |ordinals: Vec<u32>| ordinals.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let all = list(remains.messages.keys().copied().collect());
    let silent = list(remains.silent().collect());
    let text = format!("relays {all} {what}");
    if silent.is_empty() {
        text
    } else {
        format!("{text}; relays {silent} do not answer, which is waited for")
    }
}

fn set(conditions: &mut Conditions, type_: &str, problem: Option<&Problem>, good: Reason, message: &str) {
    match problem {
        Some(problem) => conditions.set(type_, false, problem.reason.as_str(), problem.message.clone()),
        None => conditions.set(type_, true, good.as_str(), message),
    }
}

/// Why the pool does not work as this generation wants it.
fn unready(observed: &Observation<'_>, relays: &Relays, cause: Option<&Problem>) -> Option<Problem> {
    let count = relays.count(observed.replicas);
    if let Some(cause) = cause {
        let message = match observed.stateful_set {
            Some(_) => format!("{cause} ({count}, as configured before)"),
            None => cause.message.clone(),
        };
        return Some(Problem::new(cause.reason, message));
    }
    let all = relays.observed && relays.ready >= observed.replicas && relays.updated >= observed.replicas;
    (!all).then(|| {
        let message = if relays.observed && relays.updated < relays.present {
            format!("{count}, {} of {} run the newest pod template", relays.updated, relays.present)
        } else {
            count
        };
        Problem::new(Reason::RelaysNotReady, message)
    })
}

/// The pods, as the StatefulSet's controller counts them.
struct Relays {
    /// Whether that controller has seen the newest StatefulSet.
    observed: bool,
    present: i32,
    ready: i32,
    updated: i32,
}

impl Relays {
    fn of(stateful_set: Option<&StatefulSet>) -> Self {
        let status = stateful_set.and_then(|set| set.status.clone()).unwrap_or_default();
        let generation = stateful_set.and_then(|set| set.metadata.generation).unwrap_or_default();
        Self {
            observed: stateful_set.is_some() && status.observed_generation.unwrap_or_default() >= generation,
            present: status.replicas,
            ready: status.ready_replicas.unwrap_or_default(),
            updated: status.updated_replicas.unwrap_or_default(),
        }
    }

    fn count(&self, wanted: i32) -> String {
        format!("{} of {wanted} {} accept mail", self.ready, if wanted == 1 { "relay" } else { "relays" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::StatefulSetStatus;
    use k8s_openapi::jiff::Timestamp;
    use postroad_crds::v1alpha1::condition;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn set(ready: i32) -> StatefulSet {
        let mut set = StatefulSet::default();
        set.metadata.generation = Some(1);
        set.status = Some(StatefulSetStatus {
            observed_generation: Some(1),
            replicas: 2,
            ready_replicas: Some(ready),
            updated_replicas: Some(2),
            ..StatefulSetStatus::default()
        });
        set
    }

    fn observe(
        findings: &Findings,
        set: Option<&StatefulSet>,
        second: i64,
        present: &[Condition],
    ) -> RelayPoolStatus {
        let observed = Observation {
            pool: "main",
            generation: 3,
            replicas: 2,
            endpoint: "main.mail.svc.cluster.local",
            findings,
            unprogrammed: None,
            stateful_set: set,
            remains: None,
            ways: None,
        };
        status(&observed, &at(second), present)
    }

    fn check(status: &RelayPoolStatus, type_: &str, expected: (&str, &str, &str)) {
        let found = condition(&status.conditions, type_).unwrap();
        assert_eq!(
            (found.status.as_str(), found.reason.as_str()),
            (expected.0, expected.1),
            "{type_}: {found:?}"
        );
        assert!(found.message.contains(expected.2), "{type_}: {:?} not in {:?}", expected.2, found.message);
        assert_eq!(found.observed_generation, Some(3));
    }

    #[test]
    fn a_pool_goes_from_starting_to_ready_and_back() {
        let good = Findings::default();
        let starting = observe(&good, Some(&set(1)), 10, &[]);
        check(&starting, "Programmed", ("True", "Programmed", "in place"));
        check(&starting, "Ready", ("False", "RelaysNotReady", "1 of 2 relays accept mail"));
        assert_eq!((starting.replicas, starting.ready_replicas), (2, 1));
        let ready = observe(&good, Some(&set(2)), 20, &starting.conditions);
        check(&ready, "Ready", ("True", "Ready", "main.mail.svc.cluster.local: 2 of 2"));
        assert_eq!(condition(&ready.conditions, "Accepted").unwrap().last_transition_time, at(10));
        assert_eq!(condition(&ready.conditions, "Ready").unwrap().last_transition_time, at(20));
    }

    #[test]
    fn a_missing_secret_says_whether_relays_still_run() {
        let mut findings = Findings::default();
        findings.references.push(Problem::new(Reason::SecretNotFound, "Secret mail/ses does not exist"));
        let new = observe(&findings, None, 10, &[]);
        check(&new, "Accepted", ("True", "Accepted", ""));
        check(&new, "ResolvedRefs", ("False", "SecretNotFound", "Secret mail/ses"));
        check(&new, "Programmed", ("False", "SecretNotFound", "no relay was started"));
        check(&new, "Ready", ("False", "SecretNotFound", "Secret mail/ses"));
        let running = observe(&findings, Some(&set(2)), 10, &[]);
        check(&running, "Programmed", ("False", "SecretNotFound", "keep what they had before"));
        check(
            &running,
            "Ready",
            ("False", "SecretNotFound", "2 of 2 relays accept mail, as configured before"),
        );
    }

    #[test]
    fn a_departure_is_told_with_who_is_silent_and_stays_as_it_was_when_nobody_could_look() {
        let (findings, set) = (Findings::default(), set(2));
        let look = |remains: Option<&Remains>, second, present: &[Condition]| {
            let observed = Observation {
                pool: "main",
                generation: 3,
                replicas: 2,
                endpoint: "main.mail.svc.cluster.local",
                findings: &findings,
                unprogrammed: None,
                stateful_set: Some(&set),
                remains,
                ways: None,
            };
            status(&observed, &at(second), present)
        };
        let some = Remains { messages: [(2, Some(7)), (3, None), (4, Some(1))].into() };
        let begun = look(Some(&some), 10, &[]);
        check(&begun, "Draining", ("True", "RelaysLeaving", "relays 2, 3, 4 hand over"));
        check(&begun, "Draining", ("True", "RelaysLeaving", "relays 3 do not answer"));
        assert_eq!(begun.draining_messages, Some(8));
        let unseen = look(None, 20, &begun.conditions);
        check(&unseen, "Draining", ("True", "RelaysLeaving", "relays 2, 3, 4"));
        let over = look(Some(&Remains::default()), 30, &unseen.conditions);
        check(&over, "Draining", ("False", "NoRelayLeaves", ""));
        assert_eq!(over.draining_messages, None);
    }

    #[test]
    fn a_pool_that_ends_says_what_is_left_and_keeps_what_was_said_of_its_spec() {
        let before = observe(&Findings::default(), Some(&set(2)), 10, &[]);
        let remains = Remains { messages: [(0, Some(7)), (1, Some(0))].into() };
        let (set, endpoint) = (set(0), "main.mail.svc.cluster.local");
        let observed =
            Ending { pool: "main", generation: 3, endpoint, stateful_set: Some(&set), remains: &remains };
        let status = ending(&observed, &at(20), &before.conditions);
        check(&status, "Draining", ("True", "BeingDeleted", "relays 0, 1 deliver what they hold"));
        check(&status, "Ready", ("False", "BeingDeleted", "accepts no mail"));
        check(&status, "Accepted", ("True", "Accepted", ""));
        assert_eq!((status.draining_messages, status.replicas), (Some(7), 2));
    }

    #[test]
    fn a_rollout_is_not_ready_before_its_last_pod() {
        let mut rolling = set(2);
        rolling.status.as_mut().unwrap().updated_replicas = Some(1);
        check(
            &observe(&Findings::default(), Some(&rolling), 1, &[]),
            "Ready",
            ("False", "RelaysNotReady", "1 of 2 run"),
        );
        let mut unseen = set(2);
        unseen.metadata.generation = Some(2);
        check(
            &observe(&Findings::default(), Some(&unseen), 1, &[]),
            "Ready",
            ("False", "RelaysNotReady", ""),
        );
    }
}
