//! Who may relay.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::budget::Rate;
use super::sensitive::Sensitive;

/// One rule that lets clients in, under the name that refusals, logs and metrics show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// The rule's name in the RelayPool.
    pub name: String,
    /// How a client is recognised.
    #[serde(rename = "match", with = "serde_yaml::with::singleton_map")]
    pub kind: IdentityKind,
    /// Reverse-paths it may use: a mailbox, a domain, `*.` with a domain, or `<>` for the null reverse-path. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_senders: Vec<String>,
    /// How urgent its messages are.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
    /// Bounds on what its clients send over the whole pool, as it goes on to upstreams.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<Rate>,
}

/// How urgent messages are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Priority {
    /// Before the others: somebody waits for them.
    High,
    /// As everything that has not been given another.
    #[default]
    Normal,
}

impl Priority {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a client is recognised.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IdentityKind {
    /// By the network its connection comes from.
    Network {
        /// IPv4 and IPv6 networks.
        cidrs: Vec<IpNet>,
    },
    /// By a user name and password (AUTH).
    Password {
        /// Passwords by user name, plain or hashed ([`crate::stored_password`]).
        users: BTreeMap<String, Sensitive>,
        /// For users that may send from less or more than the identity's senders, what they may use.
        #[serde(default, rename = "userSenders", skip_serializing_if = "BTreeMap::is_empty")]
        user_senders: BTreeMap<String, Vec<String>>,
    },
    /// By a name in its certificate: one of any list is enough.
    ClientCertificate {
        /// DNS names, or `*.` with a domain for everything below it.
        #[serde(default, rename = "dnsNames", skip_serializing_if = "Vec::is_empty")]
        dns_names: Vec<String>,
        /// URIs, or one that ends in `/*` for everything below it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        uris: Vec<String>,
        /// Common names of the subject.
        #[serde(default, rename = "commonNames", skip_serializing_if = "Vec::is_empty")]
        common_names: Vec<String>,
    },
}
