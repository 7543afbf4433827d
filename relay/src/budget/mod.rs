//! How much may go: rates and quotas of upstreams, routes and identities that hold in every window of their length.
//!
//! [`window`] counts, [`Budget`] decides over all windows of one scope, [`Budgets`] over all scopes that a message counts for,
//! [`ledger`] keeps what was spent over restarts. All but the last are pure, with `now` passed in; dispatch asks before it gives
//! a message to a session.
//!
//! What is spent is counted from the moment a message is given to a session until a whole window after its outcome, so that
//! the bound holds at the upstream too, however long a message is on its way: of two messages that arrive less than a window
//! apart, the one given later was asked about while the other still counted.

mod allowance;
mod budgets;
mod clock;
pub mod ledger;
mod scope;
mod window;

pub use allowance::{Budget, Rate, Refusal, Saved, Unit};
pub use budgets::{Budgets, Refused, Until};
pub use clock::Clock;
pub use scope::Scope;
