//! `Upstream`: where mail goes next.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rate::Rate;
use super::reference::SecretReference;
use crate::provider::Provider;
use crate::reply_rule::ReplyRule;

/// Where mail goes next: a smarthost, or a sandbox that captures instead of sending.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "postroad.dev",
    version = "v1alpha1",
    kind = "Upstream",
    namespaced,
    status = "UpstreamStatus",
    derive = "PartialEq",
    category = "postroad",
    doc = "Where mail goes next: an SMTP service that relays it further, or a sandbox that captures it. RelayPools name it in their routes.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Reachable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Reachable')].status"
    ),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.smarthost.host"),
    printcolumn(
        name = "Connections",
        type_ = "integer",
        json_path = ".spec.connections.maximum",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    cel
)]
#[x_kube(
    validation = Rule::new("has(self.smarthost) != has(self.sandbox)").message("set exactly one of smarthost and sandbox"),
    validation = Rule::new("!has(self.provider) || has(self.smarthost)").message("provider describes a smarthost: set smarthost, or remove provider"),
    validation = Rule::new("has(self.smarthost) || !has(self.connections) || !has(self.connections.sourceAddresses)")
        .message("sourceAddresses are for a smarthost: nothing leaves the relay for a sandbox"),
    validation = Rule::new("!has(self.smarthost) || has(self.provider) || has(self.smarthost.ports)")
        .message("name the ports of the smarthost, for example {port: 587, tls: StartTLS}, or its provider"),
    validation = Rule::new("!has(self.smarthost) || has(self.smarthost.host) || (has(self.provider) && self.provider != 'SES')")
        .message("name the host of the smarthost, or a provider that has one for everybody (SES has one a region)"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamSpec {
    /// The mail service behind the smarthost: `SES`, `Microsoft365`, `Gmail`, `GoogleWorkspaceRelay`, `SendGrid`, `Mailgun` or
    /// `Postmark`. Fills host, ports, bounds of connections and rates where this spec does not set them, and knows what the service's
    /// replies mean: docs/reference/providers.md lists all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Provider>,
    /// An SMTP service that takes mail for everywhere. Exactly one of `smarthost` and `sandbox` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smarthost: Option<Smarthost>,
    /// Captures mail inside each relay and sends nothing: for trying things out and for staging. Read what it holds with
    /// `postroad-relay sandbox` in the relay pod. Exactly one of `smarthost` and `sandbox` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
    /// How many sessions are kept and how long each lives.
    #[serde(default)]
    pub connections: Connections,
    /// How much the service takes, for example 14 recipients a second and 50,000 a day. Each bound holds in every span of its
    /// length, wherever that begins, also over restarts. They hold for all relays of all RelayPools that name this
    /// Upstream together; each takes an equal share, so a bound is at least the number of relays, or some send nothing here. Mail
    /// beyond them waits and is not charged with an attempt. Default: those that the provider has for everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub rates: Vec<Rate>,
    /// What negative replies of this service mean where that is not what RFC 5321 says. The first match wins; the rules of
    /// `provider` follow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub replies: Vec<ReplyRule>,
}

/// An SMTP service that takes mail for everywhere.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!has(self.credentials) || !has(self.ports) || self.ports.all(p, p.tls != 'None')")
        .message("credentials are only sent under TLS: every port needs tls: StartTLS or tls: Implicit")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Smarthost {
    /// Host name or IP address, for example `email-smtp.eu-west-1.amazonaws.com`. May be left out with a `provider` that has
    /// one host for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?\.?$")
    )]
    pub host: Option<String>,
    /// The ports to try, in order of preference: the next one is used when one is blocked or refuses, and the one that
    /// worked is remembered. Default: those of `provider`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port"]))]
    pub ports: Vec<UpstreamPort>,
    /// The name that relays give in EHLO: a host name, or an address in brackets as `[192.0.2.1]`. Services that accept by
    /// address want the one that the address resolves to. Default: the RelayPool's `hostname`. A change is used by new
    /// sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 255),
        regex(pattern = r"^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Za-z.:]+\])$")
    )]
    pub ehlo_name: Option<String>,
    /// What is believed of the service's certificate. By default it must carry `host` and chain to a public authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTlsTrust>,
    /// What to authenticate with. Without it no AUTH is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<UpstreamCredentials>,
}

/// One port of a smarthost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamPort {
    /// The TCP port: 587, 2587 and 465 are common.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// How TLS starts: `StartTLS` (always demanded, never downgraded), `Implicit` (from the first octet, as on 465) or
    /// `None` (clear text; only without credentials).
    pub tls: UpstreamTls,
}

/// How TLS starts on a smarthost's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpstreamTls {
    /// Clear text.
    None,
    /// The STARTTLS command (RFC 3207).
    StartTLS,
    /// From the first octet (RFC 8314).
    Implicit,
}

/// What is believed of a smarthost's certificate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamTlsTrust {
    /// A Secret whose key `ca.crt` holds the PEM certificates to trust instead of the public authorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle_secret_ref: Option<SecretReference>,
    /// The name the certificate must carry, when it is not `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub server_name: Option<String>,
}

/// How a relay authenticates to a smarthost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpstreamCredentials {
    /// What the Secret holds. `Password`: the keys `username` and `password` (type `kubernetes.io/basic-auth`), for AUTH
    /// SCRAM-SHA-256, PLAIN or LOGIN, the first of these that the service offers. `AccessToken`: the keys `username` and
    /// `accessToken`, an OAuth 2.0 access token for AUTH XOAUTH2; something outside Postroad keeps it fresh.
    #[serde(default, rename = "type")]
    pub type_: CredentialsType,
    /// The Secret. A change is used by the next session, and sessions opened before it end when they are idle; nothing
    /// restarts.
    pub secret_ref: SecretReference,
}

/// What an upstream's credentials are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CredentialsType {
    /// A user name and a password.
    #[default]
    Password,
    /// A user name and an OAuth 2.0 access token.
    AccessToken,
}

/// Captures mail inside each relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sandbox {
    /// How many of the newest messages each relay keeps; older ones are removed.
    #[serde(default = "default_keep_messages")]
    #[schemars(range(min = 1, max = 100_000))]
    pub keep_messages: i32,
}

fn default_keep_messages() -> i32 {
    1000
}

/// How many sessions an upstream gets and how long each lives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connections {
    /// Sessions that may be open at once, those of all relays of all RelayPools that name this Upstream together; each relay takes
    /// an equal share. One for each relay at least, or some send nothing here. Default: the provider's bound, else 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub maximum: Option<i32>,
    /// Messages after which a session is ended and a new one opened. Default: the provider's bound, else 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub messages_per_connection: Option<i32>,
    /// Seconds without a message after which a session is ended. Keep it below the service's own timeout. Default: the
    /// provider's, else 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub idle_timeout_seconds: Option<i32>,
    /// Seconds after which a session is ended, however busy. Keep it below the service's own bound. Default: the provider's,
    /// else 900.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub maximum_age_seconds: Option<i32>,
    /// The longest wait in seconds for any reply of the service, and for it to take what is sent. A service that is silent for longer is
    /// left. Default: 300, and 120 for DATA, 180 for a part of the content and 600 for the reply to it (RFC 5321 section 4.5.3.2). A
    /// shorter one delivers twice what the service takes longer to accept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 600))]
    pub reply_timeout_seconds: Option<i32>,
    /// Sessions that each relay keeps open while it has nothing to send, so that the next message need not wait for TCP, TLS and
    /// AUTH. Each is replaced when `idleTimeoutSeconds` or `maximumAgeSeconds` is over. Never more than the relay's share of
    /// `maximum`. Default: 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub minimum_idle: Option<i32>,
    /// IP addresses of the relays that sessions connect from, in turn; a relay uses those of them that it has. For pods that are
    /// given several by their network. Default: the system chooses, by the way to the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 2, max = 45), regex(pattern = r"^[0-9A-Fa-f.:]+$")))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub source_addresses: Vec<String>,
    /// How much may leave from each source address, for example 100 messages a second, beside `spec.rates`. Without
    /// `sourceAddresses` a relay counts as one address. Not divided over the relays, so an address belongs to one relay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    pub rates_per_source_address: Vec<Rate>,
}

/// What the operator observed of an Upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamStatus {
    /// `Accepted`: the spec makes sense. `ResolvedRefs`: every Secret it names exists and has the keys it needs. `Ready`:
    /// both; RelayPools can use it. `BudgetTooSmall`: True when `connections.maximum` or a rate is smaller than the number of
    /// relays that share it; those without a share send nothing here. `Reachable`: True when every relay that has had mail for it can
    /// give it mail; False when it fails for some (`PartlyUnreachable`) or all of them (`Unreachable`), with the reason of each;
    /// Unknown when no relay has had mail for it, none answers, no RelayPool names it, or it is drained. `PreferredPort`: False when
    /// relays use another port than the first of `smarthost.ports` that they should, with the reason; absent before the first session.
    /// What relays find is asked of them every 15 seconds.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// How connections and rates are divided over relays, oldest first; the last is as the RelayPools want it. While there are
    /// several, each relay uses the least of its shares, so that together they never have more than there is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub divisions: Vec<Division>,
}

/// One division of an Upstream's connections and rates over all relays that use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Division {
    /// Higher than that of any before.
    pub number: i64,
    /// The RelayPools that name the Upstream, in the order in which their relays are counted.
    #[schemars(length(max = 1024))]
    pub pools: Vec<PoolRelays>,
    /// Since when no relay uses it, although relays have gone that did: what they have sent still counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Time>,
    /// Once it has ended, it binds only rates over more seconds than these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longer_than_seconds: Option<i32>,
}

/// How many relays of one RelayPool use an Upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolRelays {
    /// The RelayPool.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its `spec.replicas`.
    pub replicas: i32,
}
