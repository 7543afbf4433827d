//! The ports that accept mail.

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use postroad_crds::relay_config::{self as rendered, Acceptance, Authentication, ListenerTls, RelayConfig};
use rustls::ServerConfig;
use smtp_protocol::{
    AuthOffer, BareNewline, Mechanism, ServerConfig as SessionConfig, ServerTimeouts, TlsOffer,
};

use super::fault::{PolicyError, invalid};
use super::limits::seconds;
use super::tls::server_tls;

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

/// A parsed certificate chain with its key, and what is asked of clients, ready for handshakes.
#[derive(Clone, Debug)]
pub struct Certificate(pub Arc<ServerConfig>);

pub(super) fn listeners(config: &RelayConfig, scram: bool) -> Result<Vec<Listener>, PolicyError> {
    let compile = |listener: &rendered::Listener| {
        let place = format!("listener {:?}", listener.name);
        let certificate = match (listener.tls, &config.certificate, &listener.client_certificate) {
            (ListenerTls::None, _, None) => None,
            (ListenerTls::None, _, Some(_)) => {
                return Err(invalid(place, "client certificates need TLS"));
            }
            (_, None, _) => return Err(invalid(place, "TLS needs a certificate")),
            (_, Some(certificate), request) => Some(server_tls(&place, certificate, request.as_ref())?),
        };
        Ok(Listener {
            name: listener.name.clone(),
            address: listener.address.parse().map_err(|_| invalid(place, "address is not IP:PORT"))?,
            tls: listener.tls,
            authentication: listener.authentication,
            certificate,
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
        // A message that passes through is answered for by its reply alone.
        dsn: config.acceptance == Acceptance::Queued,
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
