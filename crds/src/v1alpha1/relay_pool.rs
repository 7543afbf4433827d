//! `RelayPool`: relays, how they listen, whom they serve, how they route and how long they try.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ResourceRequirements, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::{SecretReference, UpstreamReference};

/// A group of relays behind one Service name.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "postroad.dev",
    version = "v1alpha1",
    kind = "RelayPool",
    namespaced,
    status = "RelayPoolStatus",
    derive = "PartialEq",
    category = "postroad",
    doc = "Relays that accept mail from apps on one Service name, keep it durably and forward it to Upstreams.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40")
        .message("the name of a RelayPool has at most 40 characters: it becomes part of the names of its Service and pods"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name of a RelayPool becomes a Service name: lower-case letters, digits and '-', starting with a letter"),
    cel
)]
#[x_kube(
    validation = Rule::new("has(self.certificate) || self.listeners.all(l, l.tls == 'None')")
        .message("listeners with tls: Optional, Required or Implicit need spec.certificate"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RelayPoolSpec {
    /// How many relays run. An autoscaler may own this field through the scale subresource. At most the
    /// `connections.maximum` of every Upstream the routes name, because each relay needs one session.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: i32,
    /// The name the relays use in their banner, in `Received` lines and, towards upstreams, in EHLO. Default: the pool's
    /// endpoint, `<name>.<namespace>.svc.<cluster domain>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"))]
    pub hostname: Option<String>,
    /// The ports on which apps hand in mail.
    #[schemars(length(min = 1, max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(
        validation = Rule::new("self.all(l, self.exists_one(o, o.port == l.port))")
            .message("every listener needs a port of its own")
    )]
    pub listeners: Vec<Listener>,
    /// The certificate that listeners with TLS show. A renewed one is used by the next connection; nothing restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Who may send. A client that no identity recognises is refused.
    pub clients: Clients,
    /// Which Upstream takes which message: the first route that matches a recipient takes it. A recipient that matches none
    /// is refused at RCPT.
    #[schemars(length(min = 1, max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub routes: Vec<Route>,
    /// Where accepted mail is kept and how long delivery is tried.
    #[serde(default)]
    #[x_kube(
        validation = Rule::new("has(self.ephemeral) == has(oldSelf.ephemeral)")
            .message("queue storage cannot change between a volume and ephemeral: make a new RelayPool and move the apps to it"),
    )]
    pub queue: Queue,
    /// Bounds on what clients may ask for.
    #[serde(default)]
    pub limits: Limits,
    /// What relays change in the header section of accepted mail, beyond what they always do: a missing `Date` and
    /// `Message-ID` are added, a `Return-Path` is removed, a `Received` field is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// How a relay stops.
    #[serde(default)]
    pub shutdown: Shutdown,
    /// How the relay pods are scheduled and what they may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

fn default_replicas() -> i32 {
    1
}

/// A port on which apps hand in mail.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.authentication == 'None' || self.tls != 'None' || self.insecureAuthentication == 'Accepted'")
        .message("authentication needs TLS: set tls to Optional, Required or Implicit, or authentication to None"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listener {
    /// The name of the Service port: lower-case letters, digits and '-', at most 15 characters.
    #[schemars(length(min = 1, max = 15), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The Service port: 25, 587, 465 and 2525 are customary. In the pod and in local mode a port below 1024 is listened to
    /// 10000 higher, because relays run without privileges.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// `None`: clear text only. `Optional`: STARTTLS is offered. `Required`: nothing is accepted before STARTTLS.
    /// `Implicit`: TLS from the first octet, as on 465.
    #[serde(default)]
    pub tls: ListenerTls,
    /// `None`: AUTH is not offered, clients are known by their network. `Optional`: AUTH is offered, under TLS only.
    /// `Required`: no mail without AUTH.
    #[serde(default)]
    pub authentication: Authentication,
    /// `Refused`: AUTH is neither offered nor accepted before TLS. `Accepted`: it is, so that passwords cross the network
    /// readable by whoever can listen there. Only for clients that cannot speak TLS, on a network you trust.
    #[serde(default)]
    pub insecure_authentication: InsecureAuthentication,
    /// What becomes of a line feed without carriage return in a message. `Reject`: the message is refused with 550 5.6.0.
    /// `Normalise`: it becomes CRLF, for old clients that end lines so; still only CRLF.CRLF ends a message.
    #[serde(default)]
    pub bare_newline: BareNewline,
    /// For listeners behind a load balancer that speaks the PROXY protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// Whether AUTH is spoken in the clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum InsecureAuthentication {
    /// It is not.
    #[default]
    Refused,
    /// It is: passwords can be read on the way.
    Accepted,
}

/// What becomes of a line feed without carriage return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BareNewline {
    /// The message is refused.
    #[default]
    Reject,
    /// It becomes CRLF.
    Normalise,
}

/// Whom a listener believes about where a connection comes from.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProxyProtocol {
    /// Networks of the load balancers. A connection from them must begin with a PROXY protocol header of version 1 or 2 within
    /// five seconds, or is closed; the address in it counts as the client's. From anywhere else such a header is a syntax
    /// error.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 64)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c))").message("each entry is a network such as 10.0.0.0/8 or fd00::/8"))]
    pub trusted_cidrs: Vec<String>,
}

/// Whether and how a listener speaks TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ListenerTls {
    /// Clear text only.
    #[default]
    None,
    /// STARTTLS is offered.
    Optional,
    /// Nothing is accepted before STARTTLS.
    Required,
    /// TLS from the first octet.
    Implicit,
}

/// Whether a listener asks for a user and password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Authentication {
    /// AUTH is not offered.
    #[default]
    None,
    /// AUTH is offered under TLS.
    Optional,
    /// No mail without AUTH.
    Required,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Certificate {
    /// A Secret of type `kubernetes.io/tls` with the keys `tls.crt` and `tls.key`, for example one that cert-manager keeps.
    pub secret_ref: SecretReference,
}

/// Whom the relays serve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Clients {
    /// The rules that let clients in. Their names appear in logs and metrics. An empty list refuses everybody.
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub identities: Vec<Identity>,
}

/// One rule that lets clients in.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("(self.type == 'Network') == has(self.network)")
        .message("an identity of type Network needs network, and only that type may have it"),
    validation = Rule::new("(self.type == 'Password') == has(self.password)")
        .message("an identity of type Password needs password, and only that type may have it"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// The rule's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// `Network`: clients are known by the address they connect from. `Password`: by a user name and password.
    #[serde(rename = "type")]
    pub type_: IdentityType,
    /// For type `Network`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkIdentity>,
    /// For type `Password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordIdentity>,
    /// Sender addresses (MAIL FROM) that these clients may use: a mailbox `app@example.com`, a domain `example.com`,
    /// everything below one `*.example.com`, or `<>` for the null reverse-path of automatic replies. Upper and lower case are
    /// the same. Others are refused with 550 5.7.1. Without it every address may be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 320)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub allowed_senders: Vec<String>,
}

/// How an identity recognises clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IdentityType {
    /// By the address they connect from.
    Network,
    /// By a user name and password.
    Password,
}

/// Clients known by the address they connect from.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetworkIdentity {
    /// IPv4 and IPv6 networks such as `10.0.0.0/8`. Every pod of these networks may send; a `/0` admits everyone who can
    /// reach the Service.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 64)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c))").message("each entry is a network such as 10.0.0.0/8 or fd00::/8"))]
    pub cidrs: Vec<String>,
}

/// Clients known by a user name and password.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PasswordIdentity {
    /// A Secret of users: of type `kubernetes.io/basic-auth` with the keys `username` and `password`, or of any other type
    /// with one key per user, the user's name, and the password as its value: plain, or a bcrypt or argon2id hash, or
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. A change counts from the next AUTH; a session of a user who
    /// is gone is refused its next message.
    pub users_secret_ref: SecretReference,
    /// Users whose sender addresses differ from the identity's `allowedSenders`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub users: Vec<User>,
}

/// What one user may do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct User {
    /// A user of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Sender addresses this user may use, written as the identity's, which they replace.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 320)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub allowed_senders: Vec<String>,
}

/// Which Upstream takes which message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The route's name, as it appears in logs.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What a message must match. Without it everything matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "match")]
    pub match_: Option<RouteMatch>,
    /// Where it goes.
    pub upstream_ref: UpstreamReference,
}

/// What a message must match: every list that is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteMatch {
    /// Domains of the sender address (MAIL FROM): `example.com`, or `*.example.com` for everything below it. When set, the
    /// null reverse-path of delivery reports does not match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub sender_domains: Vec<String>,
    /// Domains of the recipient address (RCPT TO), written the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 253)))]
    pub recipient_domains: Vec<String>,
}

/// Where accepted mail is kept and how long delivery is tried.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("!(has(self.storage) && has(self.ephemeral))")
        .message("set at most one of storage and ephemeral"),
    validation = Rule::new("self.minimumBackoffSeconds <= self.maximumBackoffSeconds")
        .message("minimumBackoffSeconds must not exceed maximumBackoffSeconds"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Queue {
    /// A volume per relay, made from a claim. The default, of 10Gi and the cluster's default storage class. Cannot be changed
    /// later: make a new RelayPool and move the apps to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("queue.storage cannot be changed: make a new RelayPool and move the apps to it")
    )]
    pub storage: Option<Storage>,
    /// Keeps mail on the node's disk for the life of the pod: it outlives the relay process and a restart of the container,
    /// but not the pod. Instead of `storage`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<Ephemeral>,
    /// Seconds after acceptance at which an undelivered message is returned to its sender. Default: four days.
    #[serde(default = "default_expire_after_seconds")]
    #[schemars(range(min = 60, max = 1_209_600))]
    pub expire_after_seconds: i32,
    /// Seconds from the first failed attempt to the second; each further wait is twice as long.
    #[serde(default = "default_minimum_backoff_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub minimum_backoff_seconds: i32,
    /// The longest wait between two attempts, in seconds.
    #[serde(default = "default_maximum_backoff_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub maximum_backoff_seconds: i32,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            storage: None,
            ephemeral: None,
            expire_after_seconds: default_expire_after_seconds(),
            minimum_backoff_seconds: default_minimum_backoff_seconds(),
            maximum_backoff_seconds: default_maximum_backoff_seconds(),
        }
    }
}

fn default_expire_after_seconds() -> i32 {
    345_600
}
fn default_minimum_backoff_seconds() -> i32 {
    60
}
fn default_maximum_backoff_seconds() -> i32 {
    3600
}

/// A volume per relay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// The size of each relay's volume. Nine tenths of it hold mail; beyond that new mail is answered 452.
    #[serde(default = "default_storage_size")]
    pub size: Quantity,
    /// The storage class. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

impl Default for Storage {
    fn default() -> Self {
        Self { size: default_storage_size(), storage_class_name: None }
    }
}

fn default_storage_size() -> Quantity {
    Quantity("10Gi".into())
}

/// The node's disk, for the life of the pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ephemeral {
    /// How much of the node's disk each relay may use. Nine tenths of it hold mail; beyond that new mail is answered 452.
    #[serde(default = "default_ephemeral_size")]
    pub size_limit: Quantity,
}

fn default_ephemeral_size() -> Quantity {
    Quantity("1Gi".into())
}

/// Bounds on what clients may ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// The largest message accepted, announced by SIZE.
    #[serde(default = "default_message_size")]
    pub message_size: Quantity,
    /// Recipients accepted per message; RFC 5321 asks for at least 100.
    #[serde(default = "default_recipients_per_message")]
    #[schemars(range(min = 1, max = 10_000))]
    pub recipients_per_message: i32,
    /// Connections open at once on one relay. Further ones are answered 421.
    #[serde(default = "default_connections")]
    #[schemars(range(min = 1, max = 100_000))]
    pub connections: i32,
    /// Connections open at once from one address on one relay. Further ones are answered 421.
    #[serde(default = "default_connections_per_client")]
    #[schemars(range(min = 1, max = 100_000))]
    pub connections_per_client: i32,
    /// `Received` fields that a message may come with. One with more is taken to go in circles and refused with 554 5.4.6.
    /// RFC 5321 §6.3 asks for at least 100 unless the site is known to be smaller.
    #[serde(default = "default_hops")]
    #[schemars(range(min = 1, max = 1000))]
    pub hops: i32,
    /// Messages accepted on one connection. Further ones are answered 421; the client opens another.
    #[serde(default = "default_messages_per_connection")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub messages_per_connection: i32,
    /// The largest header section of a message. A larger one is refused with 552 5.3.4.
    #[serde(default = "default_header_size")]
    pub header_size: Quantity,
    /// Header fields of a message. More are refused with 554 5.6.0.
    #[serde(default = "default_header_fields")]
    #[schemars(range(min = 1, max = 100_000))]
    pub header_fields: i32,
    /// Seconds a client may take for a whole command; RFC 5321 §4.5.3.2.7 asks for 300.
    #[serde(default = "default_timeout_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub command_timeout_seconds: i32,
    /// Seconds a client may be silent within a message.
    #[serde(default = "default_timeout_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub content_timeout_seconds: i32,
    /// Seconds a client may take for a whole message, however steadily it sends.
    #[serde(default = "default_content_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub content_seconds: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_size: default_message_size(),
            recipients_per_message: default_recipients_per_message(),
            connections: default_connections(),
            connections_per_client: default_connections_per_client(),
            hops: default_hops(),
            messages_per_connection: default_messages_per_connection(),
            header_size: default_header_size(),
            header_fields: default_header_fields(),
            command_timeout_seconds: default_timeout_seconds(),
            content_timeout_seconds: default_timeout_seconds(),
            content_seconds: default_content_seconds(),
        }
    }
}

fn default_message_size() -> Quantity {
    Quantity("25Mi".into())
}
fn default_recipients_per_message() -> i32 {
    100
}
fn default_connections() -> i32 {
    1000
}
fn default_connections_per_client() -> i32 {
    100
}
fn default_hops() -> i32 {
    100
}
fn default_messages_per_connection() -> i32 {
    1000
}
fn default_header_size() -> Quantity {
    Quantity("256Ki".into())
}
fn default_header_fields() -> i32 {
    1000
}
fn default_timeout_seconds() -> i32 {
    300
}
fn default_content_seconds() -> i32 {
    1800
}

/// What relays change in the header section of accepted mail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Headers {
    /// Names of header fields to remove, in any case, for example `X-Originating-IP`. `Received`, `From`, `Date` and
    /// `Message-ID` cannot be removed. Counts from the next message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 76), regex(pattern = "^[!-9;-~]+$")))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub remove: Vec<String>,
}

/// How a relay stops.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.acceptSeconds < self.gracePeriodSeconds")
        .message("acceptSeconds must be less than gracePeriodSeconds"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Shutdown {
    /// Seconds after the request to stop in which a relay still accepts mail, because clients learn late that its endpoint is
    /// gone. It reports itself not ready at once.
    #[serde(default = "default_accept_seconds")]
    #[schemars(range(min = 0, max = 300))]
    pub accept_seconds: i32,
    /// Seconds after the request to stop at which a relay ends whatever still runs. What it has not delivered stays on its
    /// volume.
    #[serde(default = "default_grace_period_seconds")]
    #[schemars(range(min = 1, max = 3600))]
    pub grace_period_seconds: i32,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            accept_seconds: default_accept_seconds(),
            grace_period_seconds: default_grace_period_seconds(),
        }
    }
}

fn default_accept_seconds() -> i32 {
    5
}
fn default_grace_period_seconds() -> i32 {
    60
}

/// How the relay pods are scheduled and what they may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workload {
    /// CPU and memory requests and limits of the relay container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub tolerations: Vec<Toleration>,
    /// How the pods spread over nodes and zones. Default: over nodes, as far as possible.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// The PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Further labels for the pods. The operator's own labels win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Further annotations for the pods. The operator's own annotations win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What the operator observed of a RelayPool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RelayPoolStatus {
    /// The name under which apps reach the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Relay pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Relay pods that accept mail.
    #[serde(default)]
    pub ready_replicas: i32,
    /// The label selector of the relay pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// `Accepted`: the spec makes sense. `ResolvedRefs`: every Upstream and Secret it names, directly or through an Upstream,
    /// exists and has what it needs. `Programmed`: the relays' configuration and objects are in place as this generation
    /// wants them. `Ready`: they are, and all relays accept mail.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
