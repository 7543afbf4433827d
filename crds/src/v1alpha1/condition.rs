//! Conditions (Kubernetes API conventions, "Typical status properties"): the one place that builds and compares them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Observations a controller made of one generation of an object, ready to be laid over the conditions it had.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    generation: i64,
    now: Time,
    observed: Vec<Condition>,
}

impl Conditions {
    /// Observations of the generation given, made at `now`.
    #[must_use]
    pub fn of(generation: i64, now: Time) -> Self {
        Self { generation, now, observed: Vec::new() }
    }

    /// Adds an observation. `reason` is a CamelCase word, `message` a sentence for people.
    pub fn set(&mut self, type_: &str, holds: bool, reason: &str, message: impl Into<String>) {
        self.set_status(type_, if holds { "True" } else { "False" }, reason, message);
    }

    /// Adds an observation that could not be made: status `Unknown`.
    pub fn set_unknown(&mut self, type_: &str, reason: &str, message: impl Into<String>) {
        self.set_status(type_, "Unknown", reason, message);
    }

    fn set_status(&mut self, type_: &str, status: &str, reason: &str, message: impl Into<String>) {
        self.observed.push(Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            observed_generation: Some(self.generation),
            last_transition_time: self.now.clone(),
        });
    }

    /// The observations laid over `present`: the transition time moves only where the status flips, and conditions
    /// of other controllers stay as they are.
    #[must_use]
    pub fn over(self, present: &[Condition]) -> Vec<Condition> {
        let foreign =
            present.iter().filter(|held| self.observed.iter().all(|new| new.type_ != held.type_)).cloned();
        let observed = self.observed.iter().cloned().map(|mut new| {
            if let Some(held) = condition(present, &new.type_).filter(|held| held.status == new.status) {
                new.last_transition_time = held.last_transition_time.clone();
            }
            new
        });
        observed.chain(foreign).collect()
    }
}

/// The condition of this type, if there is one.
#[must_use]
pub fn condition<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_flips() {
        let mut first = Conditions::of(1, at(10));
        first.set("Ready", false, "PodsNotReady", "0 of 1");
        let held = first.over(&[]);

        let mut same = Conditions::of(2, at(20));
        same.set("Ready", false, "Other", "still not");
        let kept = same.over(&held);
        assert_eq!(kept[0].last_transition_time, at(10));
        assert_eq!((kept[0].observed_generation, kept[0].reason.as_str()), (Some(2), "Other"));

        let mut flipped = Conditions::of(2, at(30));
        flipped.set("Ready", true, "Ready", "1 of 1");
        assert_eq!(flipped.over(&kept)[0].last_transition_time, at(30));
    }

    #[test]
    fn conditions_of_other_controllers_stay() {
        let mut foreign = Conditions::of(1, at(1));
        foreign.set("example.com/Audited", true, "Done", "");
        let mut own = Conditions::of(1, at(2));
        own.set("Ready", true, "Ready", "");
        let merged = own.over(&foreign.over(&[]));
        assert_eq!(merged.len(), 2);
        assert_eq!(condition(&merged, "example.com/Audited").unwrap().last_transition_time, at(1));
    }
}
