//! Validation of a RelayPool together with everything it names: pure, without a client. Called by the pool's controller and
//! by local mode; its result, [`ValidatedPool`], is all that the build reads.
//!
//! What the CRD's schema and CEL rules already refuse is checked again only where a value is converted, so that an object
//! stored under an older schema is refused with a sentence rather than rendered into something else.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::{
    Authentication, BareNewline, Certificate, Headers, Identity, IdentityType, InsecureAuthentication,
    Limits, Listener, ListenerTls, PasswordIdentity, Queue, RelayPool, Route, Shutdown, Storage, Upstream,
    Workload, octets,
};

use crate::reason::{Findings, Problem, Reason};
use crate::relay_pool::names::Names;
use crate::relay_pool::ports::{ADMIN_PORT, ADMIN_PORT_NAME, container_port};
use crate::secrets::Secrets;
use crate::upstream::validate as upstream;

/// Everything a pool names, as far as it exists.
#[derive(Clone, Default)]
pub struct References {
    /// Upstreams by name. An `Err` is one that exists but cannot be read, with the reason.
    pub upstreams: BTreeMap<String, Result<Upstream, String>>,
    /// The Secrets that the pool and its upstreams name.
    pub secrets: Secrets,
}

/// A pool that can be built.
#[derive(Clone, Debug)]
pub struct ValidatedPool {
    /// `metadata.namespace`.
    pub namespace: String,
    /// The names of its objects.
    pub names: Names,
    /// How many relays run.
    pub replicas: u32,
    /// The name for banners, when the pool gives one.
    pub hostname: Option<String>,
    /// Where it listens.
    pub listeners: Vec<ValidatedListener>,
    /// What its listeners with TLS show.
    pub certificate: Option<relay::Certificate>,
    /// Whom it serves.
    pub identities: Vec<relay::Identity>,
    /// What goes where.
    pub routes: Vec<relay::Route>,
    /// The upstreams that routes name, each once.
    pub upstreams: Vec<relay::Upstream>,
    /// Where mail is kept.
    pub storage: ValidatedStorage,
    /// How long delivery is tried, and how much is kept.
    pub queue: relay::Queue,
    /// What clients may ask for.
    pub limits: relay::Limits,
    /// What is changed in header sections.
    pub headers: relay::Headers,
    /// How relays stop.
    pub shutdown: relay::Shutdown,
    /// How pods are scheduled.
    pub workload: Workload,
}

/// A listener with its two ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedListener {
    /// Its name.
    pub name: String,
    /// The port of the Service.
    pub port: u16,
    /// The port that the relay binds.
    pub container_port: u16,
    /// Whether and how it speaks TLS.
    pub tls: relay::ListenerTls,
    /// Whether it asks for a user and password.
    pub authentication: relay::Authentication,
    /// Whether AUTH is spoken without TLS too.
    pub insecure_authentication: bool,
    /// What becomes of a bare LF in content.
    pub bare_newline: relay::BareNewline,
    /// Networks of load balancers that speak the PROXY protocol.
    pub proxies: Vec<IpNet>,
}

/// Where mail is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum ValidatedStorage {
    /// On a volume per relay.
    Volume(Storage),
    /// On the node's disk, up to this much.
    Ephemeral(Quantity),
}

/// The names of the Secrets a pool itself refers to.
#[must_use]
pub fn secret_names(pool: &RelayPool) -> Vec<&str> {
    let certificate = pool.spec.certificate.as_ref().map(|certificate| certificate.secret_ref.name.as_str());
    let users = pool.spec.clients.identities.iter().filter_map(|identity| identity.password.as_ref());
    certificate.into_iter().chain(users.map(|password| password.users_secret_ref.name.as_str())).collect()
}

/// The names of the Upstreams a pool refers to, each once.
#[must_use]
pub fn upstream_names(pool: &RelayPool) -> Vec<&str> {
    let mut names: Vec<&str> =
        pool.spec.routes.iter().map(|route| route.upstream_ref.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The pool and what it names, ready to be built.
///
/// # Errors
/// What is wrong with the spec, and what is missing or unusable of what it names: all of it, not only the first.
pub fn validate(pool: &RelayPool, references: &References) -> Result<ValidatedPool, Findings> {
    let mut findings = Findings::default();
    let name = pool.metadata.name.clone().unwrap_or_default();
    let at = At { pool: &name };
    let spec = &pool.spec;
    let names = findings.spec(Names::of(&name));
    let replicas = findings.spec(at.count("replicas", spec.replicas));
    let listeners = listeners(&at, &spec.listeners, spec.certificate.is_some(), &mut findings);
    let certificate = certificate(&at, spec.certificate.as_ref(), &references.secrets, &mut findings);
    let identities = identities(&at, &spec.clients.identities, &references.secrets, &mut findings);
    let routes = routes(&at, &spec.routes, &mut findings);
    let upstreams = upstreams(&at, pool, references, &mut findings);
    let storage = findings.spec(storage(&at, &spec.queue));
    let limits = findings.spec(limits(&at, &spec.limits));
    let queue = storage.as_ref().and_then(|(_, bytes)| findings.spec(queue(&at, &spec.queue, *bytes)));
    let shutdown = findings.spec(shutdown(&at, &spec.shutdown));
    let headers = findings.spec(headers(&at, spec.headers.as_ref()));
    if let (Some(queue), Some(limits)) = (&queue, &limits) {
        findings.spec(message_fits(&at, queue, limits));
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    let valid = (|| {
        Some(ValidatedPool {
            namespace: pool.metadata.namespace.clone().unwrap_or_default(),
            names: names?,
            replicas: replicas?,
            hostname: spec.hostname.clone(),
            listeners,
            certificate,
            identities,
            routes,
            upstreams,
            storage: storage?.0,
            queue: queue?,
            limits: limits?,
            headers: headers?,
            shutdown: shutdown?,
            workload: spec.workload.clone().unwrap_or_default(),
        })
    })();
    valid.ok_or(findings)
}

/// Says where a fault is.
struct At<'a> {
    pool: &'a str,
}

impl At<'_> {
    fn invalid(&self, field: &str, what: impl AsRef<str>) -> Problem {
        Problem::new(Reason::InvalidSpec, format!("RelayPool {}: spec.{field}: {}", self.pool, what.as_ref()))
    }

    fn by(&self, field: &str) -> String {
        format!("spec.{field} of RelayPool {}", self.pool)
    }

    fn count(&self, field: &str, value: i32) -> Result<u32, Problem> {
        let count = u32::try_from(value).ok().filter(|value| *value > 0);
        count.ok_or_else(|| self.invalid(field, format!("must be at least 1, not {value}")))
    }

    fn octets(&self, field: &str, quantity: &Quantity) -> Result<u64, Problem> {
        match octets(quantity) {
            Ok(0) => Err(self.invalid(field, "must not be 0")),
            other => other.map_err(|error| self.invalid(field, error.to_string())),
        }
    }
}

fn listeners(
    at: &At<'_>,
    specs: &[Listener],
    certificate: bool,
    findings: &mut Findings,
) -> Vec<ValidatedListener> {
    let mut listeners: Vec<ValidatedListener> = Vec::new();
    if specs.is_empty() {
        findings.spec.push(at.invalid("listeners", "name at least one, for example {name: smtp, port: 25}"));
    }
    for spec in specs {
        let Some(listener) = findings.spec(listener(at, spec, certificate)) else { continue };
        let other = listeners.iter().find(|other| other.container_port == listener.container_port);
        if let Some(other) = other {
            findings.spec.push(at.invalid(
                &format!("listeners[{}].port", listener.name),
                format!(
                    "{} and {} of listener {} are the same port {} in the pod, where ports below 1024 are 10000 higher",
                    listener.port, other.port, other.name, listener.container_port
                ),
            ));
        }
        listeners.push(listener);
    }
    listeners
}

fn listener(at: &At<'_>, spec: &Listener, certificate: bool) -> Result<ValidatedListener, Problem> {
    let field = format!("listeners[{}]", spec.name);
    let port = u16::try_from(spec.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| at.invalid(&field, format!("{} is not a port", spec.port)))?;
    if port == ADMIN_PORT || spec.name == ADMIN_PORT_NAME {
        return Err(at.invalid(
            &field,
            format!("port {ADMIN_PORT}, {ADMIN_PORT_NAME}, is the relay's own: take another"),
        ));
    }
    if spec.tls != ListenerTls::None && !certificate {
        return Err(at.invalid(&field, "TLS needs spec.certificate"));
    }
    let insecure = spec.insecure_authentication == InsecureAuthentication::Accepted;
    if spec.authentication != Authentication::None && spec.tls == ListenerTls::None && !insecure {
        return Err(at.invalid(&field, "authentication needs TLS: set tls to Optional, Required or Implicit"));
    }
    Ok(ValidatedListener {
        name: spec.name.clone(),
        port,
        container_port: container_port(port),
        tls: match spec.tls {
            ListenerTls::None => relay::ListenerTls::None,
            ListenerTls::Optional => relay::ListenerTls::Optional,
            ListenerTls::Required => relay::ListenerTls::Required,
            ListenerTls::Implicit => relay::ListenerTls::Implicit,
        },
        authentication: match spec.authentication {
            Authentication::None => relay::Authentication::None,
            Authentication::Optional => relay::Authentication::Optional,
            Authentication::Required => relay::Authentication::Required,
        },
        insecure_authentication: insecure,
        bare_newline: match spec.bare_newline {
            BareNewline::Reject => relay::BareNewline::Reject,
            BareNewline::Normalise => relay::BareNewline::Normalise,
        },
        proxies: match &spec.proxy_protocol {
            Some(proxy) => cidrs(at, &format!("{field}.proxyProtocol.trustedCidrs"), &proxy.trusted_cidrs)?,
            None => Vec::new(),
        },
    })
}

fn certificate(
    at: &At<'_>,
    spec: Option<&Certificate>,
    secrets: &Secrets,
    findings: &mut Findings,
) -> Option<relay::Certificate> {
    findings.reference(secrets.certificate(&spec?.secret_ref.name, &at.by("certificate.secretRef")))
}

fn identities(
    at: &At<'_>,
    specs: &[Identity],
    secrets: &Secrets,
    findings: &mut Findings,
) -> Vec<relay::Identity> {
    let mut identities = Vec::new();
    for spec in specs {
        let field = format!("clients.identities[{}]", spec.name);
        let kind = match (spec.type_, &spec.network, &spec.password) {
            (IdentityType::Network, Some(network), None) => findings
                .spec(cidrs(at, &format!("{field}.network.cidrs"), &network.cidrs))
                .map(|cidrs| relay::IdentityKind::Network { cidrs }),
            (IdentityType::Password, None, Some(password)) => findings
                .reference(
                    secrets.users(&password.users_secret_ref.name, &at.by(&format!("{field}.password"))),
                )
                .and_then(|users| {
                    let user_senders = user_senders(at, &field, password, &users, findings)?;
                    Some(relay::IdentityKind::Password { users, user_senders })
                }),
            _ => findings.spec(Err(
                at.invalid(&field, "set the part that type names, network or password, and only it")
            )),
        };
        let allowed_senders =
            findings.spec(senders(at, &format!("{field}.allowedSenders"), &spec.allowed_senders));
        if let (Some(kind), Some(allowed_senders)) = (kind, allowed_senders) {
            identities.push(relay::Identity { name: spec.name.clone(), kind, allowed_senders });
        }
    }
    identities
}

/// The sender addresses of single users, each of whom the Secret must hold.
fn user_senders(
    at: &At<'_>,
    field: &str,
    spec: &PasswordIdentity,
    users: &BTreeMap<String, relay::Sensitive>,
    findings: &mut Findings,
) -> Option<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::new();
    for user in &spec.users {
        let place = format!("{field}.password.users[{}]", user.name);
        if !users.contains_key(&user.name) {
            let message = format!(
                "Secret {} has no user {:?}, named by {}",
                spec.users_secret_ref.name,
                user.name,
                at.by(&place)
            );
            findings.references.push(Problem::new(Reason::SecretKeyMissing, message));
        }
        let allowed = senders(at, &format!("{place}.allowedSenders"), &user.allowed_senders);
        found.insert(user.name.clone(), findings.spec(allowed)?);
    }
    Some(found)
}

/// Sender patterns: `<>`, mailboxes, and domains as in routes. Compared without regard to case, so rendered in lower case.
fn senders(at: &At<'_>, field: &str, texts: &[String]) -> Result<Vec<String>, Problem> {
    let pattern = |text: &String| {
        if text == "<>" {
            return Ok(text.clone());
        }
        let Some((local_part, domain)) = text.rsplit_once('@') else {
            return Ok(domains(at, field, std::slice::from_ref(text))?.remove(0));
        };
        if local_part.is_empty()
            || domain.starts_with('*')
            || domains(at, field, &[domain.to_owned()]).is_err()
        {
            let what = format!("{text:?} is none of app@example.com, example.com, *.example.com and <>");
            return Err(at.invalid(field, what));
        }
        Ok(text.to_lowercase())
    };
    texts.iter().map(pattern).collect()
}

fn cidrs(at: &At<'_>, field: &str, texts: &[String]) -> Result<Vec<IpNet>, Problem> {
    let network = |text: &String| {
        text.parse().map_err(|_| at.invalid(field, format!("{text:?} is not a network such as 10.0.0.0/8")))
    };
    texts.iter().map(network).collect()
}

fn routes(at: &At<'_>, specs: &[Route], findings: &mut Findings) -> Vec<relay::Route> {
    if specs.is_empty() {
        findings.spec.push(
            at.invalid("routes", "name at least one, for example {name: default, upstreamRef: {name: ses}}"),
        );
    }
    let mut route = |spec: &Route| {
        let field = |list: &str| format!("routes[{}].match.{list}", spec.name);
        let matched = spec.match_.clone().unwrap_or_default();
        Some(relay::Route {
            name: spec.name.clone(),
            sender_domains: findings.spec(domains(at, &field("senderDomains"), &matched.sender_domains))?,
            recipient_domains: findings.spec(domains(
                at,
                &field("recipientDomains"),
                &matched.recipient_domains,
            ))?,
            upstream: spec.upstream_ref.name.clone(),
        })
    };
    specs.iter().filter_map(&mut route).collect()
}

/// Domains compare without regard to case (RFC 5321 §2.3.5), so they are rendered in lower case.
fn domains(at: &At<'_>, field: &str, texts: &[String]) -> Result<Vec<String>, Problem> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    };
    let domain = |text: &String| {
        let below = text.strip_prefix("*.").unwrap_or(text);
        if below.len() <= 253 && below.split('.').all(label) {
            return Ok(text.to_lowercase());
        }
        Err(at.invalid(field, format!("{text:?} is neither a domain such as example.com nor *.example.com")))
    };
    texts.iter().map(domain).collect()
}

fn upstreams(
    at: &At<'_>,
    pool: &RelayPool,
    references: &References,
    findings: &mut Findings,
) -> Vec<relay::Upstream> {
    let mut valid = Vec::new();
    for name in upstream_names(pool) {
        let found = match references.upstreams.get(name) {
            Some(Ok(found)) => found,
            Some(Err(reason)) => {
                let message =
                    format!("Upstream {name}, named by {}, cannot be read: {reason}", at.by("routes"));
                findings.references.push(Problem::new(Reason::UpstreamInvalid, message));
                continue;
            }
            None => {
                let message =
                    format!("Upstream {name}, named by {}, does not exist: create it", at.by("routes"));
                findings.references.push(Problem::new(Reason::UpstreamNotFound, message));
                continue;
            }
        };
        match upstream::validate(name, found, &references.secrets) {
            Ok(upstream) => {
                findings.spec(connection_budget(at, name, upstream.connections.maximum, pool.spec.replicas));
                for rate in &upstream.rates {
                    findings.spec(rate_budget(at, name, rate, pool.spec.replicas));
                }
                valid.push(upstream);
            }
            Err(found) => {
                let spec =
                    found.spec.into_iter().map(|fault| Problem::new(Reason::UpstreamInvalid, fault.message));
                findings.references.extend(spec.chain(found.references));
            }
        }
    }
    valid
}

/// Every relay needs a session of its own.
fn connection_budget(at: &At<'_>, upstream: &str, maximum: u32, replicas: i32) -> Result<(), Problem> {
    if i64::from(maximum) >= i64::from(replicas) {
        return Ok(());
    }
    let message = format!(
        "RelayPool {}: spec.replicas is {replicas}, but Upstream {upstream} allows {maximum} (spec.connections.maximum) \
         sessions over all relays and each relay needs one: lower the replicas or raise the maximum",
        at.pool
    );
    Err(Problem::new(Reason::ConnectionBudgetTooSmall, message))
}

/// A relay without a share of a rate could never send.
fn rate_budget(at: &At<'_>, upstream: &str, rate: &relay::Rate, replicas: i32) -> Result<(), Problem> {
    if i64::from(rate.limit) >= i64::from(replicas) {
        return Ok(());
    }
    let message = format!(
        "RelayPool {}: spec.replicas is {replicas}, but Upstream {upstream} allows {} in {} s (spec.rates) over all relays \
         and each relay needs a share: lower the replicas, or write the rate over a longer time",
        at.pool, rate.limit, rate.per_seconds
    );
    Err(Problem::new(Reason::RateBudgetTooSmall, message))
}

fn storage(at: &At<'_>, spec: &Queue) -> Result<(ValidatedStorage, u64), Problem> {
    match (&spec.storage, &spec.ephemeral) {
        (Some(_), Some(_)) => Err(at.invalid("queue", "set at most one of storage and ephemeral")),
        (None, Some(ephemeral)) => {
            let bytes = at.octets("queue.ephemeral.sizeLimit", &ephemeral.size_limit)?;
            Ok((ValidatedStorage::Ephemeral(ephemeral.size_limit.clone()), bytes))
        }
        (storage, None) => {
            let storage = storage.clone().unwrap_or_default();
            let bytes = at.octets("queue.storage.size", &storage.size)?;
            Ok((ValidatedStorage::Volume(storage), bytes))
        }
    }
}

fn queue(at: &At<'_>, spec: &Queue, volume_bytes: u64) -> Result<relay::Queue, Problem> {
    if spec.minimum_backoff_seconds > spec.maximum_backoff_seconds {
        return Err(at.invalid("queue.minimumBackoffSeconds", "must not exceed maximumBackoffSeconds"));
    }
    Ok(relay::Queue {
        expire_after_seconds: at.count("queue.expireAfterSeconds", spec.expire_after_seconds)?,
        minimum_backoff_seconds: at.count("queue.minimumBackoffSeconds", spec.minimum_backoff_seconds)?,
        maximum_backoff_seconds: at.count("queue.maximumBackoffSeconds", spec.maximum_backoff_seconds)?,
        maximum_bytes: volume_bytes / 10 * 9,
    })
}

fn limits(at: &At<'_>, spec: &Limits) -> Result<relay::Limits, Problem> {
    Ok(relay::Limits {
        message_bytes: at.octets("limits.messageSize", &spec.message_size)?,
        recipients_per_message: at.count("limits.recipientsPerMessage", spec.recipients_per_message)?,
        connections: at.count("limits.connections", spec.connections)?,
        connections_per_client: at.count("limits.connectionsPerClient", spec.connections_per_client)?,
        hops: at.count("limits.hops", spec.hops)?,
        messages_per_connection: at.count("limits.messagesPerConnection", spec.messages_per_connection)?,
        header_bytes: at.octets("limits.headerSize", &spec.header_size)?,
        header_fields: at.count("limits.headerFields", spec.header_fields)?,
        command_timeout_seconds: at.count("limits.commandTimeoutSeconds", spec.command_timeout_seconds)?,
        content_timeout_seconds: at.count("limits.contentTimeoutSeconds", spec.content_timeout_seconds)?,
        content_seconds: at.count("limits.contentSeconds", spec.content_seconds)?,
    })
}

/// Fields without which mail is not valid or loops are not found (RFC 5322 §3.6, RFC 5321 §6.3).
const UNREMOVABLE: [&str; 4] = ["received", "from", "date", "message-id"];

/// Field names compare without regard to case (RFC 5322 §1.2.2), so they are rendered in lower case.
fn headers(at: &At<'_>, spec: Option<&Headers>) -> Result<relay::Headers, Problem> {
    let name = |text: &String| {
        let name = text.to_ascii_lowercase();
        if UNREMOVABLE.contains(&name.as_str()) {
            return Err(
                at.invalid("headers.remove", format!("{text} cannot be removed: take it off the list"))
            );
        }
        if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':') {
            return Err(at.invalid("headers.remove", format!("{text:?} is not the name of a header field")));
        }
        Ok(name)
    };
    let remove = spec.iter().flat_map(|headers| &headers.remove).map(name).collect::<Result<_, _>>()?;
    Ok(relay::Headers { remove })
}

fn shutdown(at: &At<'_>, spec: &Shutdown) -> Result<relay::Shutdown, Problem> {
    let accept_seconds = u32::try_from(spec.accept_seconds)
        .map_err(|_| at.invalid("shutdown.acceptSeconds", "must not be negative"))?;
    let grace_period_seconds = at.count("shutdown.gracePeriodSeconds", spec.grace_period_seconds)?;
    if accept_seconds >= grace_period_seconds {
        return Err(at.invalid("shutdown.acceptSeconds", "must be less than gracePeriodSeconds"));
    }
    Ok(relay::Shutdown { accept_seconds, grace_period_seconds })
}

fn message_fits(at: &At<'_>, queue: &relay::Queue, limits: &relay::Limits) -> Result<(), Problem> {
    if limits.message_bytes <= queue.maximum_bytes {
        return Ok(());
    }
    Err(at.invalid(
        "limits.messageSize",
        format!(
            "{} octets do not fit into a queue of {} octets (nine tenths of its volume): lower it or enlarge the queue",
            limits.message_bytes, queue.maximum_bytes
        ),
    ))
}
