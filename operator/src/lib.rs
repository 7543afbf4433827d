//! The operator: from `RelayPool` and `Upstream` to relays that run.
//!
//! `run` watches an API server and makes Kubernetes objects; `local` watches a folder of the same manifests and starts relays
//! as processes. Both use the same validators and the same rendering: [`relay_pool::validate`] and
//! [`relay_pool::build::config`]. One reconcile is dereference → validate → build → apply → status, a file each; validate and
//! build take no client.

pub mod backoff;
pub mod check;
pub mod cli;
pub mod client;
pub mod context;
pub mod controllers;
pub mod drift;
pub mod error;
pub mod health;
pub mod lease;
pub mod local;
pub mod metrics;
pub mod queue;
pub mod rates;
pub mod reason;
pub mod relay_pool;
pub mod report;
pub mod secrets;
pub mod standing;
pub mod telemetry;
pub mod uninstall;
pub mod upstream;
pub mod watches;
pub mod wording;
