//! Postroad's API: the custom resources of `postroad.dev` and the configuration that the operator renders from them.
//!
//! This crate has no client and no runtime. The operator reads [`v1alpha1`] and writes [`relay_config`]; a relay reads
//! only [`relay_config`] and builds without the `resources` feature, hence without any Kubernetes type.

pub mod admin_token;
pub mod provider;
pub mod relay_config;
pub mod reply_rule;
pub mod stored_password;
#[cfg(feature = "resources")]
pub mod v1alpha1;
