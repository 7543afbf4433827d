//! Upstreams, and everything a session with one needs.

use std::sync::Arc;
use std::time::Duration;

use postroad_crds::relay_config::{self as rendered, Division, UpstreamPort, UpstreamTls};
use postroad_crds::reply_rule::ReplyRule;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use smtp_protocol::{AccessToken, Credentials, PlainCredentials};

use super::fault::{PolicyError, invalid};
use super::tls::client_tls;

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
    /// How what it allows is divided over relays, oldest first; never empty.
    pub divisions: Vec<Division>,
    /// What its negative replies mean; the first match wins.
    pub replies: Vec<ReplyRule>,
    /// What it was compiled from: equal sources make equal sessions.
    source: rendered::Upstream,
}

impl UpstreamPolicy {
    /// The longest that anything is awaited from it; what RFC 5321 §4.5.3.2 says bounds each wait too.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let seconds = self.connections.reply_timeout_seconds;
        seconds.map_or(Duration::MAX, |seconds| Duration::from_secs(u64::from(seconds)))
    }

    /// Whether a session made for `other` would be the same as one made for this.
    #[must_use]
    pub fn same_sessions(&self, other: &Self) -> bool {
        self.ehlo_name == other.ehlo_name
            && self.source.destination == other.source.destination
            && self.connections.source_addresses == other.connections.source_addresses
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

pub(super) fn compile_upstream(
    upstream: &rendered::Upstream,
    ehlo_name: &str,
    replicas: u32,
) -> Result<UpstreamPolicy, PolicyError> {
    let own_name = match &upstream.destination {
        rendered::Destination::Smarthost(smarthost) => smarthost.ehlo_name.as_deref(),
        rendered::Destination::Sandbox(_) => None,
    };
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
        ehlo_name: own_name.unwrap_or(ehlo_name).to_owned(),
        destination,
        connections: upstream.connections.clone(),
        divisions: match upstream.divisions.as_slice() {
            [] => vec![Division::alone(replicas)],
            divisions => divisions.to_vec(),
        },
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
