//! The suite of the API: the committed YAML, and the CEL rules evaluated without a server.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint does not see as tests")]

mod generated;
mod providers;
mod validation;
