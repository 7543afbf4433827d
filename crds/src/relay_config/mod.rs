//! `RelayConfig`: everything one pool's relays need to know, rendered by the operator and read by every relay of the pool.
//!
//! It is a file, not a resource: the operator puts it as [`FILE_NAME`] into the Secret `<pool>-relay-config`, the kubelet
//! mounts that Secret as a folder, and in local mode the operator writes the same file into the same kind of folder. It
//! contains credentials, so nothing here implements `Debug` on a secret: see [`Sensitive`].
//!
//! Durations are whole seconds and amounts whole octets or counts, as the field names say. Unknown fields are refused:
//! a relay never runs a configuration of which it understands a part. Each part is a file.

mod budget;
mod client;
mod document;
mod hand_over;
mod limits;
mod listener;
mod queue;
mod route;
mod sensitive;
mod standing;
mod upstream;

pub use budget::{Connections, Division, Rate, RateUnit, least_share};
pub use client::{Identity, IdentityKind, Priority};
pub use document::{FILE_NAME, ObjectName, RelayConfig, RelayConfigError, VERSION};
pub use hand_over::{HAND_OVER_NAME, HAND_OVER_PROTOCOL, HandOver, REMAINING_PROTOCOL, Remaining};
pub use limits::{Headers, Limits};
pub use listener::{
    Authentication, BareNewline, Certificate, ClientCertificateRequest, Listener, ListenerTls,
};
pub use queue::{Acceptance, AmbiguousDelivery, Queue, Shutdown};
pub use route::{Route, RouteUpstream};
pub use sensitive::Sensitive;
pub use standing::{Standing, UpstreamStanding};
pub use upstream::{
    Credentials, Destination, Sandbox, Smarthost, Upstream, UpstreamPort, UpstreamTls, UpstreamTlsTrust,
};
