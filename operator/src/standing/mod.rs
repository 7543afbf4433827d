//! How the Upstreams stand for relays, as these say themselves: [`rounds`] asks all relays again and again, [`board`] holds what they
//! have said, and brings those objects back to their reconciles of which it is something new. What follows for an Upstream's status is
//! decided by `upstream::reach`, for a RelayPool's by `relay_pool::ways`; both come to a [`Verdict`](verdict::Verdict).

pub mod board;
pub mod rounds;
pub mod verdict;
