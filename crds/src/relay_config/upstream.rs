//! Where mail goes next.

use serde::{Deserialize, Serialize};

use super::budget::{Connections, Division, Rate};
use super::sensitive::Sensitive;
use crate::reply_rule::ReplyRule;

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
    /// How connections and rates are divided over relays, oldest first: while there are several, a relay uses the least of its shares.
    /// Without one, this pool's relays share it with nobody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub divisions: Vec<Division>,
    /// Bounds on what it is given over all relays.
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
    /// The name given in EHLO instead of the relay's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ehlo_name: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let secret = || Some(Sensitive("hunter2".into()));
        let credentials =
            Credentials { username: Sensitive("u".into()), password: secret(), access_token: secret() };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
