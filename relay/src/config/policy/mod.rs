//! The configuration in force, compiled: certificates parsed, networks and domains ready to match, references resolved.
//! Each part is a file that holds the compiled form and the way there.
//!
//! Pure: `RelayConfig` in, [`Policy`] or the reason why not out. Nothing here reads a file or a clock.

mod client;
mod fault;
mod hand_over;
mod limits;
mod listener;
mod rates;
mod route;
mod tls;
mod upstream;

pub use client::{Identity, Recognition};
pub use fault::PolicyError;
pub use hand_over::{HandOverPolicy, Role};
pub use limits::Limits;
pub use listener::{Certificate, Listener};
pub use postroad_crds::relay_config::{
    Acceptance, AmbiguousDelivery, Authentication, ListenerTls, UpstreamPort, UpstreamTls,
};
pub use rates::Rates;
pub use route::{CompiledRoute, Preference};
pub use upstream::{Destination, SmarthostPolicy, UpstreamPolicy};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use postroad_crds::relay_config::{Priority, RelayConfig};

use self::client::{compile_identity, pool_secret};
use self::fault::invalid;
use self::limits::{removed_fields, seconds};
use self::listener::listeners;
use self::route::routes;
use self::upstream::compile_upstream;
use crate::credentials::Passwords;
use crate::queue::schedule::RetryPolicy;

/// Everything a relay decides by.
#[derive(Debug)]
pub struct Policy {
    /// `namespace/name` of the pool, for replies and logs.
    pub pool: String,
    /// How many relays share the upstreams' connections.
    pub replicas: u32,
    /// The name in banner, trace lines and EHLO.
    pub hostname: String,
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// When a message is accepted.
    pub acceptance: Acceptance,
    /// Who may relay.
    pub identities: Vec<Identity>,
    /// What holds for the passwords of all of them.
    pub passwords: Passwords,
    /// Which upstreams take which message; the first match wins.
    pub routes: Vec<Arc<CompiledRoute>>,
    /// The upstreams that routes name.
    pub upstreams: BTreeMap<String, Arc<UpstreamPolicy>>,
    /// How much may go over the whole pool.
    pub rates: Rates,
    /// Waits between attempts.
    pub retry: RetryPolicy,
    /// Time from acceptance to expiry.
    pub expire_after: Duration,
    /// What becomes of recipients that may have their message already.
    pub ambiguous_delivery: AmbiguousDelivery,
    /// Octets the spool may use.
    pub spool_bytes: u64,
    /// Bounds on clients.
    pub limits: Limits,
    /// Names of header fields that are removed, in lower case.
    pub removed_fields: Arc<[String]>,
    /// From the request to stop: how long mail is still accepted.
    pub accept_after_stop: Duration,
    /// From the request to stop: when the process ends in any case.
    pub grace_period: Duration,
    /// How mail is passed on between relays; `None` where each keeps what it has.
    pub hand_over: Option<Arc<HandOverPolicy>>,
}

impl Policy {
    /// What the relay of this ordinal is to do.
    #[must_use]
    pub fn role(&self, ordinal: u32) -> Role {
        self.hand_over.as_ref().map_or(Role::Serving, |hand_over| hand_over.role(ordinal))
    }

    /// How urgent the messages of this identity are; what the relay composes itself, and those of an identity that is gone, are
    /// as urgent as any.
    #[must_use]
    pub fn priority(&self, identity: &str) -> Priority {
        let found = self.identities.iter().find(|held| &*held.name == identity);
        found.map_or(Priority::Normal, |identity| identity.priority)
    }

    /// Compiles a rendered configuration.
    ///
    /// # Errors
    /// Names the first part that does not parse or that refers to something missing; never quotes a secret.
    pub fn compile(config: &RelayConfig) -> Result<Self, PolicyError> {
        if config.replicas == 0 || config.listeners.is_empty() {
            return Err(invalid("replicas, listeners", "a pool has at least one of each"));
        }
        let upstreams = config
            .upstreams
            .iter()
            .map(|upstream| {
                Ok((
                    upstream.name.clone(),
                    Arc::new(compile_upstream(upstream, &config.hostname, config.replicas)?),
                ))
            })
            .collect::<Result<BTreeMap<_, _>, PolicyError>>()?;
        let identities =
            config.identities.iter().map(compile_identity).collect::<Result<Vec<_>, PolicyError>>()?;
        let passwords = Passwords::of(identities.iter().filter_map(Identity::users), pool_secret(config));
        Ok(Self {
            pool: config.pool.to_string(),
            replicas: config.replicas,
            hostname: config.hostname.clone(),
            listeners: listeners(config, passwords.scram)?,
            acceptance: config.acceptance,
            passwords,
            identities,
            routes: routes(config, &upstreams)?,
            upstreams,
            rates: Rates::of(config),
            retry: RetryPolicy {
                minimum: seconds(config.queue.minimum_backoff_seconds),
                maximum: seconds(config.queue.maximum_backoff_seconds),
            },
            expire_after: seconds(config.queue.expire_after_seconds),
            ambiguous_delivery: config.queue.ambiguous_delivery,
            spool_bytes: config.queue.maximum_bytes,
            limits: Limits {
                message_bytes: config.limits.message_bytes,
                recipients: config.limits.recipients_per_message as usize,
                connections: config.limits.connections as usize,
                connections_per_client: config.limits.connections_per_client as usize,
                hops: config.limits.hops as usize,
                content: seconds(config.limits.content_seconds),
            },
            removed_fields: removed_fields(&config.headers),
            accept_after_stop: seconds(config.shutdown.accept_seconds),
            grace_period: seconds(config.shutdown.grace_period_seconds),
            hand_over: config.hand_over.as_ref().map(hand_over::hand_over).transpose()?.map(Arc::new),
        })
    }
}
