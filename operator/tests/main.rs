//! The operator's suite without a cluster.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint does not see as tests")]

mod golden;
