//! Who may relay.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use postroad_crds::relay_config::{self as rendered, Priority, RelayConfig};

use super::fault::{PolicyError, invalid};
use crate::client_certificate::{CertificateRule, ClientCertificate};
use crate::credentials::{PoolSecret, Users};
use crate::sender_pattern::Senders;

/// One rule that lets clients in.
#[derive(Debug)]
pub struct Identity {
    /// Its name in the RelayPool.
    pub name: Arc<str>,
    /// How it recognises a client.
    pub recognition: Recognition,
    /// From which addresses its clients may send.
    pub senders: Senders,
    /// For users whose addresses differ: theirs.
    pub user_senders: BTreeMap<String, Senders>,
    /// How urgent its clients' messages are.
    pub priority: Priority,
}

/// How an identity recognises a client.
#[derive(Debug)]
pub enum Recognition {
    /// By the address it connects from.
    Network(Vec<IpNet>),
    /// By user name and password.
    Password(Users),
    /// By a name in its certificate.
    Certificate(CertificateRule),
}

impl Identity {
    /// The users of a password rule.
    #[must_use]
    pub fn users(&self) -> Option<&Users> {
        match &self.recognition {
            Recognition::Password(users) => Some(users),
            Recognition::Network(_) | Recognition::Certificate(_) => None,
        }
    }

    /// From which addresses this user of it may send; without a user, its clients.
    #[must_use]
    pub fn senders_of(&self, username: Option<&str>) -> &Senders {
        username.and_then(|user| self.user_senders.get(user)).unwrap_or(&self.senders)
    }

    /// Whether this rule knows a client by the address it connects from or by the certificate it has shown.
    #[must_use]
    pub fn admits(&self, address: IpAddr, certificate: Option<&ClientCertificate>) -> bool {
        match &self.recognition {
            Recognition::Network(networks) => networks.iter().any(|network| network.contains(&address)),
            Recognition::Certificate(rule) => certificate.is_some_and(|shown| rule.admits(shown)),
            Recognition::Password(_) => false,
        }
    }
}

pub(super) fn compile_identity(identity: &rendered::Identity) -> Result<Identity, PolicyError> {
    let place = || format!("identity {:?}", identity.name);
    let senders = |texts: &[String]| Senders::parse(texts).map_err(|error| invalid(place(), error));
    let (recognition, user_senders) = match &identity.kind {
        rendered::IdentityKind::Network { cidrs } => (Recognition::Network(cidrs.clone()), BTreeMap::new()),
        rendered::IdentityKind::Password { users, user_senders } => {
            let users = Users::read(users).map_err(|(user, error)| {
                invalid(place(), format!("the password of user {user:?} {error}"))
            })?;
            let theirs = user_senders.iter().map(|(user, texts)| Ok((user.clone(), senders(texts)?)));
            (Recognition::Password(users), theirs.collect::<Result<_, PolicyError>>()?)
        }
        rendered::IdentityKind::ClientCertificate { dns_names, uris, common_names } => {
            let rule = CertificateRule::parse(dns_names, uris, common_names)
                .map_err(|error| invalid(place(), error))?;
            (Recognition::Certificate(rule), BTreeMap::new())
        }
    };
    let senders = senders(&identity.allowed_senders)?;
    let (name, priority) = (identity.name.as_str().into(), identity.priority);
    Ok(Identity { name, recognition, senders, user_senders, priority })
}

/// Made of the configuration's own secrets, which all relays of the pool have and nobody else.
pub(super) fn pool_secret(config: &RelayConfig) -> PoolSecret {
    let key = config.certificate.iter().map(|certificate| certificate.private_key_pem.0.as_str());
    let passwords = config.identities.iter().flat_map(|identity| match &identity.kind {
        rendered::IdentityKind::Password { users, .. } => {
            users.values().map(|value| value.0.as_str()).collect()
        }
        rendered::IdentityKind::Network { .. } | rendered::IdentityKind::ClientCertificate { .. } => {
            Vec::new()
        }
    });
    PoolSecret::of(key.chain(passwords))
}
