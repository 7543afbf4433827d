//! What series of one name differ by.

use prometheus_client::encoding::EncodeLabelSet;

use crate::budget::Scope;
use crate::queue::fair::Priority;
use crate::submission::refusal::Reason;

/// The label of everything that happens with one upstream.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct UpstreamLabel {
    /// The Upstream's name.
    pub upstream: String,
}

/// The labels of replies.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReplyLabel {
    /// The Upstream's name.
    pub upstream: String,
    /// `2yz`, `4yz` or `5yz`.
    pub class: &'static str,
}

/// The label of what has an urgency.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PriorityLabel {
    /// As it is written in the RelayPool.
    pub priority: &'static str,
}

/// The label of what becomes of one route.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RouteLabel {
    /// The route's name in the RelayPool.
    pub route: String,
}

/// What decided a refusal.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RefusalLabel {
    /// A name of [`Reason`].
    pub reason: &'static str,
}

/// What became of a recipient.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FateLabel {
    /// A name of [`Fate`].
    pub fate: &'static str,
}

/// Why it is unknown whether a recipient has its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The session broke behind the content.
    SessionLost,
    /// The relay died while the content was being sent.
    RelayDied,
}

/// The label of what is unknown.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CauseLabel {
    /// A name of [`Cause`].
    pub cause: &'static str,
}

/// The label set of a cause.
#[must_use]
pub fn cause(cause: Cause) -> CauseLabel {
    let cause = match cause {
        Cause::SessionLost => "session_lost",
        Cause::RelayDied => "relay_died",
    };
    CauseLabel { cause }
}

/// The label set of a refusal.
#[must_use]
pub fn refusal(reason: Reason) -> RefusalLabel {
    RefusalLabel { reason: reason.name() }
}

/// The label set of an upstream.
#[must_use]
pub fn upstream(name: &str) -> UpstreamLabel {
    UpstreamLabel { upstream: name.to_owned() }
}

/// The classes of replies that decide (RFC 5321 §4.2.1).
pub const REPLY_CLASSES: [&str; 3] = ["2yz", "4yz", "5yz"];

/// The label set of replies of this class.
#[must_use]
pub fn reply(upstream: &str, class: &'static str) -> ReplyLabel {
    ReplyLabel { upstream: upstream.to_owned(), class }
}

/// The label set of an urgency.
#[must_use]
pub fn priority(priority: Priority) -> PriorityLabel {
    let priority = match priority {
        Priority::High => "High",
        Priority::Normal => "Normal",
    };
    PriorityLabel { priority }
}

/// The label set of what has a budget: one label, `upstream`, `route` or `identity`.
pub type BudgetLabel = Vec<(&'static str, String)>;

/// The label set of this budget.
#[must_use]
pub fn budget(scope: &Scope) -> BudgetLabel {
    vec![(scope.kind(), scope.name().to_owned())]
}

/// The label set of a route.
#[must_use]
pub fn route(name: &str) -> RouteLabel {
    RouteLabel { route: name.to_owned() }
}
