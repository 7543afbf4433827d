//! `RelayConfig`: everything one pool's relays need to know, rendered by the operator and read by every relay of the pool.
//!
//! It is a file, not a resource: the operator puts it as [`FILE_NAME`] into the Secret `<pool>-relay-config`, the kubelet
//! mounts that Secret as a folder, and in local mode the operator writes the same file into the same kind of folder. It
//! contains credentials, so nothing here implements `Debug` on a secret: see [`Sensitive`].
//!
//! Durations are whole seconds and amounts whole octets or counts, as the field names say. Unknown fields are refused:
//! a relay never runs a configuration of which it understands a part.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::reply_rule::ReplyRule;

/// The key in the Secret and the name of the file in the mounted folder.
pub const FILE_NAME: &str = "relay-config.yaml";

/// The only version of this format so far. A relay refuses any other.
pub const VERSION: &str = "relay-config.postroad.dev/v1";

/// A value that must never be shown: `Debug` prints a placeholder. Serialising it does reveal it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sensitive(pub String);

impl fmt::Debug for Sensitive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<sensitive>")
    }
}

/// The configuration of one pool's relays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RelayConfig {
    /// Always [`VERSION`].
    pub version: String,
    /// The pool, for replies, logs and metrics.
    pub pool: ObjectName,
    /// How many relays share the pool's upstream connections; each takes its share by ordinal.
    pub replicas: u32,
    /// The name in the banner, in `Received` lines and, towards upstreams, in EHLO.
    pub hostname: String,
    /// Where to listen.
    pub listeners: Vec<Listener>,
    /// The certificate shown by every listener that speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Who may relay. A client that matches none of these is refused.
    pub identities: Vec<Identity>,
    /// Which upstream takes which message; the first match in this order wins.
    pub routes: Vec<Route>,
    /// The upstreams that routes name.
    pub upstreams: Vec<Upstream>,
    /// How long and how often delivery is tried.
    pub queue: Queue,
    /// Bounds on what clients may ask for.
    pub limits: Limits,
    /// What is changed in header sections.
    #[serde(default)]
    pub headers: Headers,
    /// How a relay stops.
    pub shutdown: Shutdown,
}

/// The namespace and name of a Kubernetes object. Displayed as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectName {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One port that accepts mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// The listener's name in the RelayPool.
    pub name: String,
    /// The address and port to bind, `[::]:10025` for instance. Port 0 binds an ephemeral port.
    pub address: String,
    /// Whether and how TLS is spoken.
    pub tls: ListenerTls,
    /// Whether a user and password are asked for.
    pub authentication: Authentication,
    /// Whether they are also taken without TLS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure_authentication: bool,
    /// What becomes of a bare LF in content.
    #[serde(default)]
    pub bare_newline: BareNewline,
    /// Networks of load balancers whose connections must begin with a PROXY protocol header.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxies: Vec<IpNet>,
}

/// What becomes of a bare LF in content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BareNewline {
    /// The message is refused.
    #[default]
    Reject,
    /// It becomes CRLF.
    Normalise,
}

/// Whether and how a listener speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenerTls {
    /// Never.
    None,
    /// STARTTLS is offered (RFC 3207).
    Optional,
    /// STARTTLS is offered and nothing else is accepted before it.
    Required,
    /// TLS from the first octet (RFC 8314 §3.3).
    Implicit,
}

/// Whether a listener asks for a user and password. AUTH is only offered under TLS unless the listener says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Authentication {
    /// AUTH is not offered.
    None,
    /// AUTH is offered; clients known by their network need none.
    Optional,
    /// No mail without AUTH.
    Required,
}

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Certificate {
    /// PEM: the server's certificate first, then its issuers.
    pub certificate_chain_pem: String,
    /// PEM: PKCS#8, PKCS#1 or SEC1.
    pub private_key_pem: Sensitive,
}

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
}

/// Which messages go to which upstreams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The route's name in the RelayPool.
    pub name: String,
    /// Domains of the reverse-path: `example.com`, or `*.example.com` for everything below it. Empty matches all,
    /// the null reverse-path included.
    #[serde(default)]
    pub sender_domains: Vec<String>,
    /// Domains of the forward-path, written the same way. Empty matches all.
    #[serde(default)]
    pub recipient_domains: Vec<String>,
    /// The name of an entry of [`RelayConfig::upstreams`].
    pub upstream: String,
}

/// Where mail goes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upstream {
    /// The Upstream's name in the pool's namespace.
    pub name: String,
    /// What stands there.
    #[serde(with = "serde_yaml::with::singleton_map")]
    pub destination: Destination,
    /// How many sessions, and how long each lives.
    pub connections: Connections,
    /// Bounds on what it is given by the whole pool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<Rate>,
    /// What its negative replies mean, the first match wins; what none matches is taken as RFC 5321 says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replies: Vec<ReplyRule>,
}

/// What an upstream is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Destination {
    /// An SMTP server that takes mail for everywhere.
    Smarthost(Smarthost),
    /// A server inside the relay that keeps the newest messages on the relay's volume and sends nothing.
    Sandbox(Sandbox),
}

/// An SMTP server that takes mail for everywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Smarthost {
    /// Host name or IP address.
    pub host: String,
    /// In order of preference; the next is tried when one cannot be reached.
    pub ports: Vec<UpstreamPort>,
    /// What is believed of the server's certificate.
    pub tls: UpstreamTlsTrust,
    /// What to authenticate with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
}

/// One port of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamPort {
    /// 1 to 65535.
    pub port: u16,
    /// How TLS starts there.
    pub tls: UpstreamTls,
}

/// How TLS starts on an upstream's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpstreamTls {
    /// No TLS.
    None,
    /// STARTTLS, always: a server that does not offer it is not used.
    StartTLS,
    /// TLS from the first octet.
    Implicit,
}

/// What a relay believes of an upstream's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamTlsTrust {
    /// PEM of the certificate authorities to trust instead of the public ones (Mozilla's list).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_pem: Option<String>,
    /// The name the certificate must carry instead of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// A user name and what proves it: exactly one of password and access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credentials {
    /// The user name.
    pub username: Sensitive,
    /// The password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Sensitive>,
    /// An OAuth 2.0 access token, for XOAUTH2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<Sensitive>,
}

/// A server inside the relay that captures mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sandbox {
    /// How many of the newest messages each relay keeps.
    pub keep_messages: u32,
}

/// How many sessions an upstream gets, and how long each lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connections {
    /// Sessions of the whole pool together.
    pub maximum: u32,
    /// Messages after which a session is ended.
    pub messages_per_connection: u32,
    /// Seconds without a message after which a session is ended.
    pub idle_timeout_seconds: u32,
    /// Seconds after which a session is ended.
    pub maximum_age_seconds: u32,
}

impl Connections {
    /// The sessions that the relay with this ordinal may have open at once: see [`share`].
    #[must_use]
    pub fn share(&self, ordinal: u32, replicas: u32) -> u32 {
        share(self.maximum, ordinal, replicas)
    }
}

/// A bound on what an upstream is given in every span of `per_seconds`, however it is laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rate {
    /// At most so many by the whole pool; each relay takes its [`share`].
    pub limit: u32,
    /// What is counted.
    pub unit: RateUnit,
    /// The length of the span.
    pub per_seconds: u32,
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RateUnit {
    /// Mail transactions.
    Messages,
    /// Their recipients.
    Recipients,
}

/// What the relay with this ordinal may use out of `maximum` over `replicas` relays. The shares of all ordinals below
/// `replicas` add up to `maximum`; an ordinal beyond them has none.
#[must_use]
pub fn share(maximum: u32, ordinal: u32, replicas: u32) -> u32 {
    if ordinal >= replicas {
        return 0;
    }
    maximum / replicas + u32::from(ordinal < maximum % replicas)
}

/// How long and how often delivery is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Queue {
    /// Seconds after acceptance at which a message is returned to its sender.
    pub expire_after_seconds: u32,
    /// Seconds to the second attempt; each further wait is twice as long.
    pub minimum_backoff_seconds: u32,
    /// The longest wait between two attempts, in seconds.
    pub maximum_backoff_seconds: u32,
    /// Octets of disk the spool may use; above it new mail is answered 452.
    pub maximum_bytes: u64,
}

/// Bounds on what clients may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Octets of one message's content.
    pub message_bytes: u64,
    /// RCPT commands accepted per message.
    pub recipients_per_message: u32,
    /// Connections open at once on all listeners of one relay.
    pub connections: u32,
    /// Connections open at once from one address.
    pub connections_per_client: u32,
    /// Received fields a message may come with.
    #[serde(default = "default_hops")]
    pub hops: u32,
    /// Messages accepted on one connection.
    #[serde(default = "default_messages_per_connection")]
    pub messages_per_connection: u32,
    /// Octets of one message's header section.
    #[serde(default = "default_header_bytes")]
    pub header_bytes: u64,
    /// Fields of one message's header section.
    #[serde(default = "default_header_fields")]
    pub header_fields: u32,
    /// Seconds for a whole command.
    #[serde(default = "default_timeout_seconds")]
    pub command_timeout_seconds: u32,
    /// Seconds of silence within a message.
    #[serde(default = "default_timeout_seconds")]
    pub content_timeout_seconds: u32,
    /// Seconds for a whole message.
    #[serde(default = "default_content_seconds")]
    pub content_seconds: u32,
}

fn default_hops() -> u32 {
    100
}
fn default_messages_per_connection() -> u32 {
    1000
}
fn default_header_bytes() -> u64 {
    256 * 1024
}
fn default_header_fields() -> u32 {
    1000
}
fn default_timeout_seconds() -> u32 {
    300
}
fn default_content_seconds() -> u32 {
    1800
}

/// What is changed in header sections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Headers {
    /// Names of fields to remove, in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// How a relay stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shutdown {
    /// Seconds after SIGTERM in which new connections and transactions are still accepted, because endpoints lag.
    pub accept_seconds: u32,
    /// Seconds after SIGTERM at which the process ends whatever still runs.
    pub grace_period_seconds: u32,
}

/// Why a text is not a configuration a relay can run.
#[derive(Debug, thiserror::Error)]
pub enum RelayConfigError {
    /// It is not YAML of this shape. The text says which field, never its value.
    #[error("{0}")]
    Syntax(String),
    /// It was rendered by another release of the operator.
    #[error("version is {found:?}, this relay reads {VERSION:?}: run relay and operator of the same release")]
    Version {
        /// What the file says.
        found: String,
    },
}

/// The version alone, so that a file of another release is named as such rather than by its first unknown field.
#[derive(Deserialize)]
struct Versioned {
    version: String,
}

impl RelayConfig {
    /// Reads the rendered form.
    ///
    /// # Errors
    /// When the text is not YAML of this shape or of another version. Neither text quotes a value.
    pub fn from_yaml(text: &str) -> Result<Self, RelayConfigError> {
        let found: Versioned = serde_yaml::from_str(text).map_err(|error| syntax(&error))?;
        if found.version != VERSION {
            return Err(RelayConfigError::Version { found: found.version });
        }
        serde_yaml::from_str(text).map_err(|error| syntax(&error))
    }

    /// The rendered form. Reveals every secret: for the Secret or a file of mode 0600 only.
    ///
    /// # Errors
    /// Never for values of this type; the signature is serde_yaml's.
    pub fn to_yaml(&self) -> Result<String, serde_yaml::Error> {
        serde_yaml::to_string(self)
    }
}

/// What serde_yaml says quotes scalars ("invalid type: string \"hunter2\", expected …"), so only the place is kept.
fn syntax(error: &serde_yaml::Error) -> RelayConfigError {
    let text = error.to_string();
    let fault = ["unknown field", "missing field", "unknown variant"]
        .iter()
        .find_map(|kind| {
            text.find(kind).map(|at| text[at..].split(", expected").next().unwrap_or(kind).to_owned())
        })
        .unwrap_or_else(|| "not a relay configuration".to_owned());
    match error.location() {
        Some(location) => RelayConfigError::Syntax(format!(
            "line {} column {}: {fault}",
            location.line(),
            location.column()
        )),
        None => RelayConfigError::Syntax(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(maximum: u32) -> Connections {
        Connections { maximum, messages_per_connection: 1, idle_timeout_seconds: 1, maximum_age_seconds: 1 }
    }

    #[test]
    fn shares_add_up_to_the_maximum() {
        for maximum in 1..40 {
            for replicas in 1..20 {
                let total: u32 =
                    (0..replicas).map(|ordinal| connections(maximum).share(ordinal, replicas)).sum();
                assert_eq!(total, maximum, "{maximum} over {replicas}");
                assert_eq!(connections(maximum).share(replicas, replicas), 0, "a leaving relay has no share");
            }
        }
    }

    #[test]
    fn another_release_is_named_before_any_unknown_field() {
        let error = RelayConfig::from_yaml("version: relay-config.postroad.dev/v9\nfuture: 1\n").unwrap_err();
        assert!(matches!(&error, RelayConfigError::Version { found } if found.ends_with("v9")), "{error}");
    }

    #[test]
    fn an_error_never_quotes_a_value() {
        let text = format!("version: {VERSION}\npool: hunter2\n");
        let error = RelayConfig::from_yaml(&text).unwrap_err().to_string();
        assert!(!error.contains("hunter2") && error.contains("line 2"), "{error}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = || Some(Sensitive("hunter2".into()));
        let credentials =
            Credentials { username: Sensitive("u".into()), password: secret(), access_token: secret() };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
