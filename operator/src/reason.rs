//! Reasons: the closed set of words that say why something is as it is, and [`Problem`], a reason with a sentence.
//!
//! The same word is the reason of a condition, the reason of an Event and the label of a metric, so that a person who
//! finds it in one place can search for it in the others. Nothing here holds a value of a Secret.

use std::fmt;

/// Why a condition has the status it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The spec makes sense.
    Accepted,
    /// Everything the object names exists and has what it needs.
    ResolvedRefs,
    /// Configuration and objects are in place.
    Programmed,
    /// It works as this generation wants it.
    Ready,
    /// A field has a value that cannot be used.
    InvalidSpec,
    /// A rate of a route or an identity is smaller than the pool's number of relays.
    RateBudgetTooSmall,
    /// What an Upstream allows is less than one for each relay.
    BudgetTooSmall,
    /// Every relay has a share of what an Upstream allows.
    BudgetSuffices,
    /// A route names an Upstream that does not exist.
    UpstreamNotFound,
    /// A route names an Upstream whose spec cannot be used.
    UpstreamInvalid,
    /// A Secret that is named does not exist.
    SecretNotFound,
    /// A Secret lacks a key.
    SecretKeyMissing,
    /// A Secret has the key, but its value cannot be used.
    SecretInvalid,
    /// The rendered configuration does not fit into a Secret.
    ConfigurationTooLarge,
    /// An object of a name the pool needs exists and belongs to something else.
    NameTaken,
    /// The API server or an admission webhook refused an object of the pool.
    ObjectRefused,
    /// The operator may not do what it has to.
    Forbidden,
    /// The API server did not answer as it should.
    ApiUnavailable,
    /// Not all relays accept mail yet.
    RelaysNotReady,
    /// Relays hand over what they hold before they go.
    RelaysLeaving,
    /// No relay is leaving.
    NoRelayLeaves,
    /// Every relay that has had mail for the Upstream reaches it.
    Reachable,
    /// No relay that has had mail for the Upstream reaches it.
    Unreachable,
    /// Some relays reach the Upstream and some do not.
    PartlyUnreachable,
    /// No relay has had mail for the Upstream.
    NotTried,
    /// No pool names the Upstream.
    NotUsed,
    /// A person has ordered that the Upstream is given no mail.
    Drained,
    /// No relay answers.
    RelaysSilent,
    /// Sessions with the Upstream are on the port that is preferred.
    PreferredPort,
    /// A better port of the Upstream did not work.
    PortPassedOver,
    /// Every route goes to Upstreams of its best priority.
    AsPreferred,
    /// A route goes to Upstreams of a worse priority.
    FailedOver,
    /// No Upstream of a route works.
    NoUpstreamWorks,
    /// The pool is being deleted.
    BeingDeleted,
    /// The pool was deleted with mail in it, as its deletion policy asks.
    MailDiscarded,
    /// The pool was deleted and left volumes that may hold mail.
    VolumesStay,
}

impl Reason {
    /// The word, in CamelCase as conditions want it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::ResolvedRefs => "ResolvedRefs",
            Self::Programmed => "Programmed",
            Self::Ready => "Ready",
            Self::InvalidSpec => "InvalidSpec",
            Self::RateBudgetTooSmall => "RateBudgetTooSmall",
            Self::BudgetTooSmall => "BudgetTooSmall",
            Self::BudgetSuffices => "BudgetSuffices",
            Self::UpstreamNotFound => "UpstreamNotFound",
            Self::UpstreamInvalid => "UpstreamInvalid",
            Self::SecretNotFound => "SecretNotFound",
            Self::SecretKeyMissing => "SecretKeyMissing",
            Self::SecretInvalid => "SecretInvalid",
            Self::ConfigurationTooLarge => "ConfigurationTooLarge",
            Self::NameTaken => "NameTaken",
            Self::ObjectRefused => "ObjectRefused",
            Self::Forbidden => "Forbidden",
            Self::ApiUnavailable => "ApiUnavailable",
            Self::RelaysNotReady => "RelaysNotReady",
            Self::RelaysLeaving => "RelaysLeaving",
            Self::NoRelayLeaves => "NoRelayLeaves",
            Self::Reachable => "Reachable",
            Self::Unreachable => "Unreachable",
            Self::PartlyUnreachable => "PartlyUnreachable",
            Self::NotTried => "NotTried",
            Self::NotUsed => "NotUsed",
            Self::Drained => "Drained",
            Self::RelaysSilent => "RelaysSilent",
            Self::PreferredPort => "PreferredPort",
            Self::PortPassedOver => "PortPassedOver",
            Self::AsPreferred => "AsPreferred",
            Self::FailedOver => "FailedOver",
            Self::NoUpstreamWorks => "NoUpstreamWorks",
            Self::BeingDeleted => "BeingDeleted",
            Self::MailDiscarded => "MailDiscarded",
            Self::VolumesStay => "VolumesStay",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is wrong: a reason for machines and a sentence for people that says what, where and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The word for it.
    pub reason: Reason,
    /// The sentence.
    pub message: String,
}

impl Problem {
    /// A problem of this kind.
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What a validator found wrong, apart by the condition it belongs to. Never empty when a validator returns it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Faults of the spec itself: condition `Accepted`.
    pub spec: Vec<Problem>,
    /// Faults of what the spec names: condition `ResolvedRefs`.
    pub references: Vec<Problem>,
}

impl Findings {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spec.is_empty() && self.references.is_empty()
    }

    /// Keeps the value, or notes a fault of the spec.
    pub fn spec<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.spec.push(problem)).ok()
    }

    /// Keeps the value, or notes a fault of what the spec names.
    pub fn reference<T>(&mut self, result: Result<T, Problem>) -> Option<T> {
        result.map_err(|problem| self.references.push(problem)).ok()
    }

    /// All problems, those of the spec first.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.spec.iter().chain(&self.references)
    }
}

/// Several problems as one: the reason of the first, the sentences of all.
#[must_use]
pub fn summary(problems: &[Problem]) -> Option<Problem> {
    let first = problems.first()?;
    let message = problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ");
    Some(Problem::new(first.reason, message))
}
