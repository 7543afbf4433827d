//! What the relay counts, in the names that `docs/reference/metrics.md` explains. Counters start at zero with the process, but
//! for those of the spool's account.

mod counted;
mod label;
mod register;

pub use counted::Metrics;
pub use label::{
    BudgetLabel, Cause, CauseLabel, FateLabel, PriorityLabel, REPLY_CLASSES, RefusalLabel, ReplyLabel,
    RouteLabel, UpstreamLabel, budget, cause, priority, refusal, reply, route, upstream,
};
