//! The configuration in force, compiled: certificates parsed, networks and domains ready to match, references resolved.
//!
//! Pure: `RelayConfig` in, [`Policy`] or the reason why not out. Nothing here reads a file or a clock.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use postroad_crds::relay_config::{self as rendered, RelayConfig};
pub use postroad_crds::relay_config::{Authentication, ListenerTls, UpstreamPort, UpstreamTls};
use postroad_crds::reply_rule::ReplyRule;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use smtp_protocol::{
    AccessToken, AuthOffer, BareNewline, Credentials, Mechanism, PlainCredentials,
    ServerConfig as SessionConfig, ServerTimeouts, TlsOffer,
};

use crate::credentials::{Passwords, PoolSecret, Users};
use crate::domain_pattern::DomainPattern;
use crate::queue::schedule::RetryPolicy;
use crate::sender_pattern::Senders;

/// Why a RelayConfig does not compile. The first field says where, in the words of the RelayPool or Upstream.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct PolicyError {
    place: String,
    reason: String,
}

fn invalid(place: impl Into<String>, reason: impl ToString) -> PolicyError {
    PolicyError { place: place.into(), reason: reason.to_string() }
}

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
    /// Who may relay.
    pub identities: Vec<Identity>,
    /// What holds for the passwords of all of them.
    pub passwords: Passwords,
    /// Which upstream takes which message; the first match wins.
    pub routes: Vec<CompiledRoute>,
    /// The upstreams that routes name.
    pub upstreams: BTreeMap<String, Arc<UpstreamPolicy>>,
    /// Waits between attempts.
    pub retry: RetryPolicy,
    /// Time from acceptance to expiry.
    pub expire_after: Duration,
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
}

/// One port that accepts mail.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in the RelayPool.
    pub name: String,
    /// Where it is bound.
    pub address: SocketAddr,
    /// Whether and how TLS is spoken.
    pub tls: ListenerTls,
    /// Whether AUTH is asked for.
    pub authentication: Authentication,
    /// The certificate, unless `tls` is `None`.
    pub certificate: Option<Certificate>,
    /// Networks of load balancers whose connections must begin with a PROXY protocol header.
    pub proxies: Arc<[IpNet]>,
    /// What its sessions are made with.
    pub session: Arc<SessionConfig>,
}

/// A parsed certificate chain with its key, ready for handshakes.
#[derive(Clone, Debug)]
pub struct Certificate(pub Arc<ServerConfig>);

/// Bounds on what clients may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Octets of one message's content.
    pub message_bytes: u64,
    /// Recipients of one message.
    pub recipients: usize,
    /// Connections at once.
    pub connections: usize,
    /// Connections at once from one address.
    pub connections_per_client: usize,
    /// Received fields a message may come with.
    pub hops: usize,
    /// Time for a whole message's content.
    pub content: Duration,
}

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
}

/// How an identity recognises a client.
#[derive(Debug)]
pub enum Recognition {
    /// By the address it connects from.
    Network(Vec<IpNet>),
    /// By user name and password.
    Password(Users),
}

impl Identity {
    /// The users of a password rule.
    #[must_use]
    pub fn users(&self) -> Option<&Users> {
        match &self.recognition {
            Recognition::Password(users) => Some(users),
            Recognition::Network(_) => None,
        }
    }

    /// From which addresses this user of it may send; without a user, its clients.
    #[must_use]
    pub fn senders_of(&self, username: Option<&str>) -> &Senders {
        username.and_then(|user| self.user_senders.get(user)).unwrap_or(&self.senders)
    }

    /// Whether this is a network rule that contains `address`.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        matches!(&self.recognition, Recognition::Network(networks) if networks.iter().any(|net| net.contains(&address)))
    }
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledRoute {
    /// Its name in the RelayPool.
    pub name: String,
    /// What the reverse-path's domain must match; empty: anything, the null reverse-path included.
    pub sender_domains: Vec<DomainPattern>,
    /// What the forward-path's domain must match; empty: anything.
    pub recipient_domains: Vec<DomainPattern>,
    /// The key in [`Policy::upstreams`].
    pub upstream: String,
}

/// One upstream and everything a session with it needs.
#[derive(Debug)]
pub struct UpstreamPolicy {
    /// Its name.
    pub name: String,
    /// The name given in EHLO.
    pub ehlo_name: String,
    /// What stands there.
    pub destination: Destination,
    /// Sessions and their lives.
    pub connections: rendered::Connections,
    /// Bounds on what the whole pool gives it.
    pub rates: Vec<rendered::Rate>,
    /// What its negative replies mean; the first match wins.
    pub replies: Vec<ReplyRule>,
    /// What it was compiled from: equal sources make equal sessions.
    source: rendered::Upstream,
}

impl UpstreamPolicy {
    /// Whether a session made for `other` would be the same as one made for this.
    #[must_use]
    pub fn same_sessions(&self, other: &Self) -> bool {
        self.ehlo_name == other.ehlo_name && self.source.destination == other.source.destination
    }
}

/// What an upstream is.
#[derive(Debug)]
pub enum Destination {
    /// An SMTP server.
    Smarthost(SmarthostPolicy),
    /// A server inside the relay that captures mail.
    Sandbox {
        /// How many of the newest messages it keeps.
        keep_messages: usize,
    },
}

/// A smarthost, ready to connect to.
pub struct SmarthostPolicy {
    /// Host name or address.
    pub host: String,
    /// In order of preference.
    pub ports: Vec<UpstreamPort>,
    /// The name its certificate must carry.
    pub server_name: ServerName<'static>,
    /// What is believed of its certificate.
    pub tls: Arc<ClientConfig>,
    /// What to authenticate with.
    pub credentials: Option<Credentials>,
}

impl std::fmt::Debug for SmarthostPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmarthostPolicy")
            .field("host", &self.host)
            .field("ports", &self.ports)
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// Compiles a rendered configuration.
    ///
    /// # Errors
    /// Names the first part that does not parse or that refers to something missing; never quotes a secret.
    pub fn compile(config: &RelayConfig) -> Result<Self, PolicyError> {
        if config.replicas == 0 || config.listeners.is_empty() {
            return Err(invalid("replicas, listeners", "a pool has at least one of each"));
        }
        let certificate = config.certificate.as_ref().map(server_tls).transpose()?;
        let upstreams = config
            .upstreams
            .iter()
            .map(|upstream| {
                Ok((upstream.name.clone(), Arc::new(compile_upstream(upstream, &config.hostname)?)))
            })
            .collect::<Result<BTreeMap<_, _>, PolicyError>>()?;
        let identities =
            config.identities.iter().map(compile_identity).collect::<Result<Vec<_>, PolicyError>>()?;
        let passwords = Passwords::of(identities.iter().filter_map(Identity::users), pool_secret(config));
        Ok(Self {
            pool: config.pool.to_string(),
            replicas: config.replicas,
            hostname: config.hostname.clone(),
            listeners: listeners(config, certificate.as_ref(), passwords.scram)?,
            passwords,
            identities,
            routes: routes(config, &upstreams)?,
            upstreams,
            retry: RetryPolicy {
                minimum: seconds(config.queue.minimum_backoff_seconds),
                maximum: seconds(config.queue.maximum_backoff_seconds),
            },
            expire_after: seconds(config.queue.expire_after_seconds),
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
        })
    }
}

/// A Return-Path is the last server's to write (RFC 5321 §4.4), so one from a client always goes.
fn removed_fields(headers: &rendered::Headers) -> Arc<[String]> {
    headers.remove.iter().map(|name| name.to_ascii_lowercase()).chain(["return-path".to_owned()]).collect()
}

fn seconds(count: u32) -> Duration {
    Duration::from_secs(u64::from(count))
}

fn listeners(
    config: &RelayConfig,
    certificate: Option<&Certificate>,
    scram: bool,
) -> Result<Vec<Listener>, PolicyError> {
    let compile = |listener: &rendered::Listener| {
        let place = format!("listener {:?}", listener.name);
        if listener.tls != ListenerTls::None && certificate.is_none() {
            return Err(invalid(place, "TLS needs a certificate"));
        }
        Ok(Listener {
            name: listener.name.clone(),
            address: listener.address.parse().map_err(|_| invalid(place, "address is not IP:PORT"))?,
            tls: listener.tls,
            authentication: listener.authentication,
            certificate: certificate.filter(|_| listener.tls != ListenerTls::None).cloned(),
            proxies: listener.proxies.clone().into(),
            session: Arc::new(session_config(config, listener, scram)),
        })
    };
    config.listeners.iter().map(compile).collect()
}

/// What the protocol needs to know of a listener.
fn session_config(config: &RelayConfig, listener: &rendered::Listener, scram: bool) -> SessionConfig {
    let limits = &config.limits;
    SessionConfig {
        hostname: config.hostname.clone(),
        banner_text: "ESMTP Postroad".to_owned(),
        message_bytes: limits.message_bytes,
        header_bytes: limits.header_bytes,
        header_fields: limits.header_fields,
        recipients: limits.recipients_per_message as usize,
        messages: limits.messages_per_connection,
        tls: match listener.tls {
            ListenerTls::None => TlsOffer::None,
            ListenerTls::Optional => TlsOffer::StartTls,
            ListenerTls::Required => TlsOffer::StartTlsRequired,
            ListenerTls::Implicit => TlsOffer::Established,
        },
        authentication: match listener.authentication {
            Authentication::None => AuthOffer::None,
            Authentication::Optional => AuthOffer::Optional,
            Authentication::Required => AuthOffer::Required,
        },
        mechanisms: if scram { Mechanism::ALL.to_vec() } else { vec![Mechanism::Plain, Mechanism::Login] },
        auth_without_tls: listener.insecure_authentication,
        smtputf8: true,
        dsn: true,
        bare_newline: match listener.bare_newline {
            rendered::BareNewline::Reject => BareNewline::Reject,
            rendered::BareNewline::Normalise => BareNewline::Normalise,
        },
        timeouts: ServerTimeouts {
            command: seconds(limits.command_timeout_seconds),
            content: seconds(limits.content_timeout_seconds),
        },
        ..SessionConfig::default()
    }
}

fn compile_identity(identity: &rendered::Identity) -> Result<Identity, PolicyError> {
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
    };
    let senders = senders(&identity.allowed_senders)?;
    Ok(Identity { name: identity.name.as_str().into(), recognition, senders, user_senders })
}

/// Made of the configuration's own secrets, which all relays of the pool have and nobody else.
fn pool_secret(config: &RelayConfig) -> PoolSecret {
    let key = config.certificate.iter().map(|certificate| certificate.private_key_pem.0.as_str());
    let passwords = config.identities.iter().flat_map(|identity| match &identity.kind {
        rendered::IdentityKind::Password { users, .. } => {
            users.values().map(|value| value.0.as_str()).collect()
        }
        rendered::IdentityKind::Network { .. } => Vec::new(),
    });
    PoolSecret::of(key.chain(passwords))
}

fn routes(
    config: &RelayConfig,
    upstreams: &BTreeMap<String, Arc<UpstreamPolicy>>,
) -> Result<Vec<CompiledRoute>, PolicyError> {
    let compile = |route: &rendered::Route| {
        let place = format!("route {:?}", route.name);
        if !upstreams.contains_key(&route.upstream) {
            return Err(invalid(place, format!("there is no upstream {:?}", route.upstream)));
        }
        let patterns = |domains: &[String]| -> Result<Vec<DomainPattern>, PolicyError> {
            domains
                .iter()
                .map(|domain| domain.parse().map_err(|error| invalid(place.as_str(), error)))
                .collect()
        };
        Ok(CompiledRoute {
            name: route.name.clone(),
            sender_domains: patterns(&route.sender_domains)?,
            recipient_domains: patterns(&route.recipient_domains)?,
            upstream: route.upstream.clone(),
        })
    };
    config.routes.iter().map(compile).collect()
}

fn compile_upstream(upstream: &rendered::Upstream, ehlo_name: &str) -> Result<UpstreamPolicy, PolicyError> {
    let destination = match &upstream.destination {
        rendered::Destination::Sandbox(sandbox) => {
            Destination::Sandbox { keep_messages: sandbox.keep_messages as usize }
        }
        rendered::Destination::Smarthost(smarthost) => {
            Destination::Smarthost(compile_smarthost(&upstream.name, smarthost)?)
        }
    };
    Ok(UpstreamPolicy {
        name: upstream.name.clone(),
        ehlo_name: ehlo_name.to_owned(),
        destination,
        connections: upstream.connections.clone(),
        rates: upstream.rates.clone(),
        replies: upstream.replies.clone(),
        source: upstream.clone(),
    })
}

fn compile_smarthost(name: &str, smarthost: &rendered::Smarthost) -> Result<SmarthostPolicy, PolicyError> {
    let place = format!("upstream {name:?}");
    if smarthost.ports.is_empty() {
        return Err(invalid(place, "there is no port"));
    }
    if smarthost.credentials.is_some() && smarthost.ports.iter().any(|port| port.tls == UpstreamTls::None) {
        return Err(invalid(place, "credentials are only sent under TLS, and a port has none"));
    }
    let certified = smarthost.tls.server_name.as_ref().unwrap_or(&smarthost.host);
    let server_name = ServerName::try_from(certified.trim_end_matches('.').to_owned())
        .map_err(|_| invalid(place.as_str(), format!("{certified:?} is not a host name or IP address")))?;
    Ok(SmarthostPolicy {
        host: smarthost.host.clone(),
        ports: smarthost.ports.clone(),
        server_name,
        tls: client_tls(&place, smarthost.tls.ca_bundle_pem.as_deref())?,
        credentials: smarthost.credentials.as_ref().map(|held| credentials(&place, held)).transpose()?,
    })
}

fn credentials(place: &str, held: &rendered::Credentials) -> Result<Credentials, PolicyError> {
    let username = held.username.0.as_str();
    match (&held.password, &held.access_token) {
        (Some(password), None) => {
            Ok(Credentials::Password(PlainCredentials::new(username, password.0.as_str())))
        }
        (None, Some(token)) => Ok(Credentials::AccessToken(AccessToken::new(username, token.0.as_str()))),
        _ => Err(invalid(place, "credentials are a password or an access token, exactly one of them")),
    }
}

/// The one crypto provider of the whole tree, named where it is used instead of installed as a global.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

fn server_tls(certificate: &rendered::Certificate) -> Result<Certificate, PolicyError> {
    let chain = CertificateDer::pem_slice_iter(certificate.certificate_chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| invalid("certificate", "the chain is not PEM"))?;
    // The PEM parser's error may quote what it read, which here is a private key.
    let key = PrivateKeyDer::from_pem_slice(certificate.private_key_pem.0.as_bytes())
        .map_err(|_| invalid("certificate", "the private key is not PEM"))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid("certificate", error))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| invalid("certificate", error))?;
    Ok(Certificate(Arc::new(config)))
}

fn client_tls(place: &str, ca_bundle: Option<&str>) -> Result<Arc<ClientConfig>, PolicyError> {
    let mut roots = RootCertStore::empty();
    match ca_bundle {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(bundle) => {
            for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
                let certificate = certificate.map_err(|_| invalid(place, "the CA bundle is not PEM"))?;
                roots.add(certificate).map_err(|error| invalid(place, format!("the CA bundle: {error}")))?;
            }
            if roots.is_empty() {
                return Err(invalid(place, "the CA bundle holds no certificate"));
            }
        }
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(place, error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
