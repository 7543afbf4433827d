//! The operator: from `RelayPool` and `Upstream` to relays that run.
//!
//! `run` watches an API server and makes Kubernetes objects. One reconcile is dereference → validate → build → apply →
//! status, a file each; validate and build take no client.

pub mod cli;
pub mod client;
pub mod context;
pub mod controllers;
pub mod drift;
pub mod error;
pub mod health;
pub mod lease;
pub mod metrics;
pub mod queue;
pub mod reason;
pub mod relay_pool;
pub mod report;
pub mod secrets;
pub mod telemetry;
pub mod upstream;
pub mod watches;
