//! Leader election by a Lease (coordination.k8s.io), with the semantics of client-go's `leaderelection`: whoever holds the Lease
//! renews it; the others take it when it has not changed for its duration by *their own* clock, so that clocks need not agree.
//! A holder that cannot renew within the deadline stops leading before others may start.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use crate::client::explain;

/// How long a Lease that is not renewed keeps others out.
pub const DURATION: Duration = Duration::from_secs(15);

/// How long a holder goes on without having renewed.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);

/// The time between two attempts.
pub const RETRY: Duration = Duration::from_secs(2);

/// What to do with the Lease as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is none: make it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// It is free or has run out: take it.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// What to do with a Lease whose present form was first seen at `seen`.
fn step(spec: Option<&LeaseSpec>, seen: Instant, identity: &str, now: Instant) -> Step {
    let Some(spec) = spec else { return Step::Create };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let duration = duration.map_or(DURATION, Duration::from_secs);
    match holder {
        "" => Step::Take,
        holder if holder == identity => Step::Renew,
        _ if now.duration_since(seen) >= duration => Step::Take,
        _ => Step::Wait,
    }
}

/// The Lease after the step, or nothing to write.
fn next(present: Option<Lease>, step: Step, name: &str, identity: &str, time: Timestamp) -> Option<Lease> {
    let now = Some(MicroTime(time));
    let mut lease = present.unwrap_or_else(|| Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: None,
    });
    let spec = lease.spec.get_or_insert_default();
    match step {
        Step::Wait => return None,
        Step::Renew => {}
        Step::Create | Step::Take => {
            spec.lease_transitions = Some(match step {
                Step::Create => 0,
                _ => spec.lease_transitions.unwrap_or_default().saturating_add(1),
            });
            spec.acquire_time = now.clone();
            spec.holder_identity = Some(identity.to_owned());
        }
    }
    spec.renew_time = now;
    spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
    Some(lease)
}

/// One candidate for one Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    last: Option<Lease>,
    seen: Instant,
}

/// The Lease could not be renewed in time, or somebody else has taken it.
#[derive(Debug, thiserror::Error)]
#[error("leadership is lost: {0}")]
pub struct Lost(String);

/// What came of one attempt.
enum Attempt {
    Held,
    /// Somebody else's, whose name this is.
    Other(String),
    Failed(String),
}

impl Candidate {
    /// A candidate by this identity for the Lease of this name.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, now: Instant) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            last: None,
            seen: now,
        }
    }

    /// Waits until this candidate holds the Lease. `answered` is called whenever the API server has answered.
    ///
    /// *Cancellation*: nothing is left, or a held Lease that runs out.
    pub async fn acquire(&mut self, answered: impl Fn()) {
        let mut told = String::new();
        loop {
            let news = match self.attempt(RENEW_DEADLINE, &answered).await {
                Attempt::Held => return,
                Attempt::Other(holder) => format!("waiting: {holder} holds the Lease {}", self.name),
                Attempt::Failed(why) => {
                    format!("the Lease {} cannot be acquired, trying on: {why}", self.name)
                }
            };
            if news != told {
                tracing::info!("{news}");
                told = news;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews the Lease for as long as that works.
    pub async fn hold(&mut self, answered: impl Fn()) -> Lost {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RETRY).await;
            let left = RENEW_DEADLINE.saturating_sub(renewed.elapsed());
            match self.attempt(left.max(Duration::from_millis(1)), &answered).await {
                Attempt::Held => renewed = Instant::now(),
                Attempt::Other(holder) => return Lost(format!("{holder} holds the Lease {}", self.name)),
                Attempt::Failed(why) if renewed.elapsed() >= RENEW_DEADLINE => {
                    let seconds = RENEW_DEADLINE.as_secs();
                    return Lost(format!(
                        "the Lease {} was not renewed for {seconds} seconds: {why}",
                        self.name
                    ));
                }
                Attempt::Failed(why) => {
                    tracing::warn!("the Lease {} was not renewed, trying on: {why}", self.name)
                }
            }
        }
    }

    /// Gives the Lease up, so that another candidate need not wait for it to run out. Failure is only logged: the Lease then
    /// runs out by itself.
    pub async fn release(mut self) {
        let Some(mut lease) = self.last.take() else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return;
        }
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let parameters = PostParams::default();
        let replace = self.api.replace(&self.name, &parameters, &lease);
        match tokio::time::timeout(RETRY, replace).await {
            Ok(Ok(_)) => tracing::info!("the Lease {} is released", self.name),
            Ok(Err(error)) => tracing::warn!("the Lease {} was not released: {}", self.name, explain(&error)),
            Err(_) => tracing::warn!("the Lease {} was not released: no answer", self.name),
        }
    }

    async fn attempt(&mut self, limit: Duration, answered: &impl Fn()) -> Attempt {
        let result = tokio::time::timeout(limit, self.exchange()).await;
        match result {
            Err(_) => Attempt::Failed(format!("no answer within {} seconds", limit.as_secs())),
            Ok(Err(kube::Error::Api(status))) => {
                answered();
                // Whatever was remembered is outdated.
                self.forget_version();
                Attempt::Failed(match status.code {
                    409 => "another candidate was faster".to_owned(),
                    _ => status.message.clone(),
                })
            }
            Ok(Err(error)) => Attempt::Failed(explain(&error)),
            Ok(Ok(attempt)) => {
                answered();
                attempt
            }
        }
    }

    /// Renewing writes over the version last seen; only when that fails, or without it, the Lease is read.
    async fn exchange(&mut self) -> Result<Attempt, kube::Error> {
        let ours = self.last.as_ref().filter(|lease| {
            let spec = lease.spec.as_ref();
            lease.metadata.resource_version.is_some()
                && spec.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.identity))
        });
        let present = match ours {
            Some(lease) => Some(lease.clone()),
            None => self.api.get_opt(&self.name).await?,
        };
        self.note(present.clone());
        let spec = present.as_ref().and_then(|lease| lease.spec.as_ref());
        let holder = spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        let step = step(spec, self.seen, &self.identity, Instant::now());
        let parameters = PostParams::default();
        let written = match next(present, step, &self.name, &self.identity, Timestamp::now()) {
            None => return Ok(Attempt::Other(holder)),
            Some(lease) if step == Step::Create => self.api.create(&parameters, &lease).await?,
            Some(lease) => self.api.replace(&self.name, &parameters, &lease).await?,
        };
        self.note(Some(written));
        Ok(Attempt::Held)
    }

    fn note(&mut self, lease: Option<Lease>) {
        let record = |lease: &Option<Lease>| lease.as_ref().and_then(|lease| lease.spec.clone());
        if record(&self.last) != record(&lease) {
            self.seen = Instant::now();
        }
        self.last = lease;
    }

    fn forget_version(&mut self) {
        if let Some(lease) = &mut self.last {
            lease.metadata.resource_version = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(holder: &str, seconds: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(seconds),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_free_or_run_out_by_our_clock() {
        let seen = Instant::now();
        let after = |seconds| seen + Duration::from_secs(seconds);
        assert_eq!(step(None, seen, "a", seen), Step::Create);
        assert_eq!(step(Some(&spec("", 1)), seen, "a", seen), Step::Take);
        assert_eq!(step(Some(&spec("a", 15)), seen, "a", after(60)), Step::Renew);
        assert_eq!(step(Some(&spec("b", 15)), seen, "a", after(14)), Step::Wait);
        assert_eq!(step(Some(&spec("b", 15)), seen, "a", after(15)), Step::Take);
        assert_eq!(
            step(Some(&spec("b", 60)), seen, "a", after(59)),
            Step::Wait,
            "the holder's own duration counts"
        );
    }

    #[test]
    fn a_holder_stops_before_another_may_start() {
        assert!(RENEW_DEADLINE < DURATION && RETRY < RENEW_DEADLINE);
    }

    #[test]
    fn transitions_are_counted_and_renewals_are_not() {
        let (first, later) = (Timestamp::from_second(10).unwrap(), Timestamp::from_second(20).unwrap());
        let made = next(None, Step::Create, "l", "a", first).unwrap();
        let renewed = next(Some(made), Step::Renew, "l", "a", later).unwrap().spec.unwrap();
        assert_eq!(
            (renewed.lease_transitions, renewed.acquire_time.clone()),
            (Some(0), Some(MicroTime(first)))
        );
        assert_eq!(renewed.renew_time, Some(MicroTime(later)));
        let lease = Lease { spec: Some(renewed), ..Lease::default() };
        let taken = next(Some(lease.clone()), Step::Take, "l", "b", later).unwrap().spec.unwrap();
        assert_eq!((taken.lease_transitions, taken.holder_identity.as_deref()), (Some(1), Some("b")));
        assert_eq!(next(Some(lease), Step::Wait, "l", "b", later), None);
    }
}
