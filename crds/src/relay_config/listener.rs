//! The ports that accept mail, and the certificate they show.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::sensitive::Sensitive;

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
    /// How clients are asked for a certificate; without it they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<ClientCertificateRequest>,
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

/// How clients are asked for a certificate. One that is shown must be valid in any case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCertificateRequest {
    /// Whether there is no TLS session without one.
    pub required: bool,
    /// PEM of the authorities that issue them.
    pub ca_bundle_pem: String,
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
