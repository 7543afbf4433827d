//! Telling people: an object's status, written only when it changes, and Events, only on transitions of its conditions.
//! What the status says is decided elsewhere (`relay_pool::status`, `upstream::status`).

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use kube::discovery::ApiResource;
use kube::runtime::events::{Event, EventType, Recorder};
use postroad_crds::v1alpha1::{RelayPoolStatus, UpstreamStatus, condition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{ApiError, Objects, explain, is_namespace_ending};
use crate::reason::Problem;
use crate::wording::clipped;

/// The longest note of an Event is 1 KiB.
const NOTE_MAXIMUM: usize = 1000;

/// A status with conditions.
pub trait Status: Clone + Default + PartialEq + Serialize + DeserializeOwned {
    /// Its conditions.
    fn conditions(&self) -> &Vec<Condition>;
    /// Its conditions, to change them.
    fn conditions_mut(&mut self) -> &mut Vec<Condition>;
}

impl Status for RelayPoolStatus {
    fn conditions(&self) -> &Vec<Condition> {
        &self.conditions
    }
    fn conditions_mut(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }
}

impl Status for UpstreamStatus {
    fn conditions(&self) -> &Vec<Condition> {
        &self.conditions
    }
    fn conditions_mut(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }
}

/// The object whose status is written.
pub struct Subject {
    kind: ApiResource,
    reference: ObjectReference,
    /// The condition types the operator owns for this kind; all others are foreign.
    owned: &'static [&'static str],
}

impl Subject {
    /// The object of this kind and metadata.
    #[must_use]
    pub fn new(kind: ApiResource, metadata: &ObjectMeta, owned: &'static [&'static str]) -> Self {
        let reference = ObjectReference {
            api_version: Some(kind.api_version.clone()),
            kind: Some(kind.kind.clone()),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            ..ObjectReference::default()
        };
        Self { kind, reference, owned }
    }

    /// Writes the status when it differs from what is stored, and publishes an Event for each transition.
    ///
    /// `cached` is what a watch has shown, to settle without a read; `compute` lays this reconcile's observations over the
    /// status given. A watch may lag behind our own last write, so a difference is decided over a fresh read.
    ///
    /// # Errors
    /// When the API server does not answer or refuses. An object that is gone is no error; nor is an Event that could not
    /// be published, which is only logged.
    pub async fn report<S: Status>(
        &self,
        objects: &Objects,
        recorder: &Recorder,
        cached: Option<&S>,
        compute: impl Fn(&S) -> S,
    ) -> Result<(), ApiError> {
        if cached.is_some_and(|cached| same(cached, &compute(cached))) {
            return Ok(());
        }
        let namespace = self.reference.namespace.as_deref().unwrap_or_default();
        let name = self.reference.name.as_deref().unwrap_or_default();
        let Some(stored) = objects.status(&self.kind, namespace, name).await? else { return Ok(()) };
        if stored.uid != self.reference.uid {
            return Ok(());
        }
        let present: S = serde_json::from_value(stored.status).unwrap_or_default();
        let desired = compute(&present);
        if same(&present, &desired) {
            return Ok(());
        }
        let mut own = desired.clone();
        own.conditions_mut().retain(|condition| self.owned.contains(&condition.type_.as_str()));
        let patch = serde_json::to_value(&own).unwrap_or_default();
        objects.apply_status(&self.kind, namespace, name, patch).await?;
        for transition in transitions(present.conditions(), own.conditions()) {
            self.publish(recorder, transition).await;
        }
        Ok(())
    }

    /// Tells of a problem that no condition holds: the object is about to go.
    pub async fn tell(&self, recorder: &Recorder, problem: &Problem) {
        let (reason, message) = (problem.reason.as_str().to_owned(), problem.message.clone());
        self.publish(recorder, Transition { good: false, reason, message }).await;
    }

    /// The one place that logs what became of an object, and the one that publishes it.
    async fn publish(&self, recorder: &Recorder, transition: Transition) {
        let Transition { good, reason, message } = &transition;
        let kind = &self.kind.kind;
        let namespace = self.reference.namespace.as_deref().unwrap_or_default();
        let name = self.reference.name.as_deref().unwrap_or_default();
        if *good {
            tracing::info!(reason, "{kind} {namespace}/{name}: {message}");
        } else {
            tracing::warn!(reason, "{kind} {namespace}/{name}: {message}");
        }
        let event = Event {
            type_: if transition.good { EventType::Normal } else { EventType::Warning },
            reason: transition.reason,
            note: Some(clipped(&transition.message, NOTE_MAXIMUM)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let published = recorder.publish(&event, &self.reference).await;
        if let Some(error) = published.err().filter(|error| !is_namespace_ending(error)) {
            let reason = explain(&error);
            tracing::warn!(event = event.reason, "an Event could not be published: {reason}");
        }
    }
}

/// The time for conditions, in whole seconds as `metav1.Time` has it.
#[must_use]
pub fn now() -> Time {
    let seconds = Timestamp::now().as_second();
    Time(Timestamp::from_second(seconds).unwrap_or_default())
}

/// Equal but for the order of conditions, which server-side apply decides.
fn same<S: Status>(left: &S, right: &S) -> bool {
    let sorted = |status: &S| {
        let mut status = status.clone();
        status.conditions_mut().sort_by(|a, b| a.type_.cmp(&b.type_));
        status
    };
    sorted(left) == sorted(right)
}

/// A condition that changed.
#[derive(Debug, PartialEq, Eq)]
struct Transition {
    good: bool,
    reason: String,
    message: String,
}

/// Condition types that are bad when they hold.
const FAULTS: [&str; 1] = ["BudgetTooSmall"];

/// Conditions that tell of a course of events, of which neither turn is a fault.
const COURSES: [&str; 1] = ["Draining"];

/// What is worth an Event: a condition that flips or, but for `Ready`, which only repeats the others, is false for another
/// reason than before. A new object announces neither what was to be expected (`Accepted`, `ResolvedRefs` true) nor that
/// its pods are still starting. What is no longer known is no turn; what is known again is one. Of several conditions with one cause only the first speaks.
fn transitions(before: &[Condition], after: &[Condition]) -> Vec<Transition> {
    let mut found: Vec<Transition> = Vec::new();
    for new in after {
        let holds = new.status == "True";
        let good = holds != FAULTS.contains(&new.type_.as_str()) || COURSES.contains(&new.type_.as_str());
        let speaks = match condition(before, &new.type_) {
            _ if new.status == "Unknown" => false,
            Some(old) if old.status != new.status => true,
            Some(old) => !good && old.reason != new.reason && new.type_ != "Ready",
            None if good => matches!(new.type_.as_str(), "Programmed" | "Ready"),
            None => new.type_ != "Ready",
        };
        if speaks && found.iter().all(|other| other.reason != new.reason) {
            found.push(Transition { good, reason: new.reason.clone(), message: new.message.clone() });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(texts: &[(&str, &str, &str)]) -> Vec<Condition> {
        let condition = |(type_, status, reason): &(&str, &str, &str)| Condition {
            type_: (*type_).to_owned(),
            status: (*status).to_owned(),
            reason: (*reason).to_owned(),
            message: format!("{type_} {reason}"),
            observed_generation: Some(1),
            last_transition_time: now(),
        };
        texts.iter().map(condition).collect()
    }

    fn check(before: &[(&str, &str, &str)], after: &[(&str, &str, &str)], expected: &[&str]) {
        let found = transitions(&conditions(before), &conditions(after));
        let reasons: Vec<&str> = found.iter().map(|transition| transition.reason.as_str()).collect();
        assert_eq!(reasons, expected, "{before:?} → {after:?}");
    }

    #[test]
    fn events_come_on_transitions_only() {
        let starting = [
            ("Accepted", "True", "Accepted"),
            ("Programmed", "True", "Programmed"),
            ("Ready", "False", "Wait"),
        ];
        check(&[], &starting, &["Programmed"]);
        check(&starting, &starting, &[]);
        check(&starting, &[("Ready", "True", "Ready")], &["Ready"]);
        check(&[("Ready", "True", "Ready")], &[("Ready", "False", "Wait")], &["Wait"]);
        check(&[("Ready", "False", "Wait")], &[("Ready", "False", "Other")], &[]);
        let missing = |reason| [("ResolvedRefs", "False", reason)];
        check(&missing("SecretNotFound"), &missing("SecretInvalid"), &["SecretInvalid"]);
    }

    #[test]
    fn that_nothing_is_known_is_no_event_and_that_it_is_known_again_is_one() {
        let reach = |status, reason| [("Reachable", status, reason)];
        check(&[], &reach("Unknown", "NotTried"), &[]);
        check(&reach("False", "Unreachable"), &reach("Unknown", "NotTried"), &[]);
        check(&reach("Unknown", "NotTried"), &reach("Unknown", "RelaysSilent"), &[]);
        check(&reach("Unknown", "NotTried"), &reach("True", "Reachable"), &["Reachable"]);
    }

    #[test]
    fn a_course_of_events_is_told_when_it_begins_and_ends_and_is_no_fault() {
        let (begun, ended) = ([("Draining", "True", "Leaving")], [("Draining", "False", "Left")]);
        check(&[], &ended, &[]);
        check(&ended, &begun, &["Leaving"]);
        check(&begun, &ended, &["Left"]);
        assert!(transitions(&conditions(&begun), &conditions(&ended))[0].good);
    }

    #[test]
    fn one_cause_speaks_once() {
        let broken = [("ResolvedRefs", "False", "SecretNotFound"), ("Programmed", "False", "SecretNotFound")];
        check(&[], &broken, &["SecretNotFound"]);
    }
}
