//! Whom the relays serve: typed identities, so that each kind can carry what it needs.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha1::rate::Rate;
use crate::v1alpha1::reference::SecretReference;

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
    validation = Rule::new("(self.type == 'ClientCertificate') == has(self.clientCertificate)")
        .message("an identity of type ClientCertificate needs clientCertificate, and only that type may have it"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    /// The rule's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// `Network`: clients are known by the address they connect from. `Password`: by a user name and password.
    /// `ClientCertificate`: by a name in the certificate that they show to a listener with `clientCertificate`.
    #[serde(rename = "type")]
    pub type_: IdentityType,
    /// For type `Network`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkIdentity>,
    /// For type `Password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordIdentity>,
    /// For type `ClientCertificate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificateIdentity>,
    /// Sender addresses (MAIL FROM) that these clients may use: a mailbox `app@example.com`, a domain `example.com`,
    /// everything below one `*.example.com`, or `<>` for the null reverse-path of automatic replies. Upper and lower case are
    /// the same. Others are refused with 550 5.7.1. Without it every address may be used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 320)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub allowed_senders: Vec<String>,
    /// `High`: its messages go before those of `Normal` identities, which keep a tenth of what an upstream takes while both
    /// wait. For what somebody waits for, such as password resets. A change counts for messages accepted from then on.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
    /// How much these clients may send, all of them together. Counted as `spec.rates` of an Upstream: over all relays of this pool,
    /// in every span, also over restarts, when the mail goes on. More is accepted, and waits while mail of others goes on. In spans in
    /// which `replicas` changes it may be exceeded by the shares of the relays that come or go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub rates: Vec<Rate>,
}

/// How urgent the messages of an identity are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Priority {
    /// Before the others.
    High,
    /// As everything else.
    #[default]
    Normal,
}

impl Priority {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How an identity recognises clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IdentityType {
    /// By the address they connect from.
    Network,
    /// By a user name and password.
    Password,
    /// By a name in the certificate they show.
    ClientCertificate,
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

/// Clients known by a name in the certificate they show: one name of one list is enough. The names are those of the certificate
/// itself; a name with a wildcard in a certificate counts for nothing.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("has(self.dnsNames) || has(self.uris) || has(self.commonNames)")
        .message("name at least one of dnsNames, uris and commonNames"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCertificateIdentity {
    /// DNS names among the certificate's subject alternative names: `billing.example.com`, or everything below one,
    /// `*.example.com`. Upper and lower case are the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub dns_names: Vec<String>,
    /// URIs among the certificate's subject alternative names, compared character by character:
    /// `spiffe://cluster.local/ns/billing/sa/app`, or everything below one, `spiffe://cluster.local/ns/billing/*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 512)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(
        validation = Rule::new("self.all(u, u.contains(':') && !u.contains('*') || u.endsWith('/*') && u.indexOf('*') == size(u) - 1 && u.contains(':'))")
            .message("each entry is a URI such as spiffe://cluster.local/ns/billing/sa/app, with no * but in /* at its end")
    )]
    pub uris: Vec<String>,
    /// The common name of the certificate's subject, compared character by character, where the subject has exactly one. For
    /// certificates without subject alternative names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub common_names: Vec<String>,
}
