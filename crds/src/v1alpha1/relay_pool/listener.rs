//! The ports on which apps hand in mail, and the certificate they show.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::v1alpha1::reference::SecretReference;

/// A port on which apps hand in mail.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.authentication == 'None' || self.tls != 'None' || self.insecureAuthentication == 'Accepted'")
        .message("authentication needs TLS: set tls to Optional, Required or Implicit, or authentication to None"),
    validation = Rule::new("!has(self.clientCertificate) || self.tls != 'None'")
        .message("clientCertificate needs TLS: set tls to Required or Implicit, or to Optional with mode Optional"),
    validation = Rule::new("!has(self.clientCertificate) || self.clientCertificate.mode != 'Required' || self.tls != 'Optional'")
        .message("a client certificate cannot be required where TLS is not: set tls to Required or Implicit, or mode to Optional"),
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
    /// For listeners that ask clients for a certificate of their own, so that identities of type `ClientCertificate` can know
    /// them by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificateRequest>,
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

/// How a listener asks for client certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCertificateRequest {
    /// `Required`: a client without a certificate gets no TLS session. `Optional`: it gets one, and is known by other
    /// identities or not at all. A certificate that is shown must be valid in either mode: issued by one of `caBundleSecretRef`,
    /// within its time, and usable by clients (extended key usage, where it has any); else the TLS handshake fails.
    #[serde(default)]
    pub mode: ClientCertificateMode,
    /// A Secret whose key `ca.crt` holds the PEM certificates of the authorities that issue the clients' certificates. Nothing
    /// else is trusted. A change counts from the next connection; running sessions go on.
    pub ca_bundle_secret_ref: SecretReference,
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientCertificateMode {
    /// They must.
    #[default]
    Required,
    /// They may.
    Optional,
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
