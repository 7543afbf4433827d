//! What a budget bounds.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// What a budget bounds, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// What an upstream is given.
    Upstream(Arc<str>),
    /// What an upstream is given from one of the relay's addresses: `ses@192.0.2.1`, or `ses` where the system chooses it.
    Source(Arc<str>),
    /// What takes a route.
    Route(Arc<str>),
    /// What the clients of an identity have sent.
    Identity(Arc<str>),
}

impl Scope {
    /// What this upstream is given from this address of the relay.
    #[must_use]
    pub fn source(upstream: &str, address: Option<IpAddr>) -> Self {
        Self::Source(
            address.map_or_else(|| upstream.into(), |address| format!("{upstream}@{address}").into()),
        )
    }

    /// The kind, as labels, folders and sentences name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Upstream(_) => "upstream",
            Self::Source(_) => "source",
            Self::Route(_) => "route",
            Self::Identity(_) => "identity",
        }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Upstream(name) | Self::Source(name) | Self::Route(name) | Self::Identity(name) => name,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}
