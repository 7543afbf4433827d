//! The relay: accepts mail over SMTP, keeps it durably, forwards it over persistent sessions.
//!
//! A message passes [`submission`] (accept, permit, store) → [`spool`] (durable) → [`dispatch`] (when and whereto, by
//! [`queue`] and [`routing`]) → [`delivery`] (an upstream session, the verdict) → settled in the spool, with a [`dsn`] where
//! its sender must be told. [`config`] says by which rules; [`admin`] tells the outside how it goes.
//!
//! The binary is a thin shell around this library; nothing here is a global, everything is passed in.

pub mod admin;
pub mod admin_client;
pub mod ambiguity;
pub mod attempt;
pub mod budget;
pub mod client_certificate;
pub mod config;
pub mod credentials;
pub mod delivery;
pub mod dispatch;
pub mod domain_pattern;
pub mod dsn;
pub mod excerpt;
pub mod handover;
pub mod limits;
pub mod listen;
pub mod memory;
pub mod message;
pub mod messages;
pub mod metrics;
pub mod order;
pub mod queue;
pub mod queue_command;
pub mod relay;
pub mod routing;
pub mod sandbox;
pub mod sender_pattern;
pub mod shutdown;
pub mod spool;
pub mod submission;
pub mod telemetry;
pub mod transit;
pub mod upstream_command;
