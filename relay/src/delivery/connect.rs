//! Opening a session: the upstream's ports in their order, TCP, TLS, greeting, EHLO, AUTH.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use smtp_protocol::{ClientConfig, ClientTls, SessionFailure};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::classification::{HoldKind, classify_failure};
use super::connection::{BoxedStream, Connection, Tls};
use super::ports::PortMemory;
use crate::config::{SmarthostPolicy, UpstreamPolicy, UpstreamPort, UpstreamTls};

/// A blocked port often answers nothing at all; the next one is tried after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why no session could be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No port could be reached, or none spoke SMTP under the TLS asked for. One reason per port.
    #[error("no port could be used: {}", .0.join("; "))]
    Unreachable(Vec<String>),
    /// The relay does not have the address that the session was to connect from.
    #[error("this relay does not have the address {0} (spec.connections.sourceAddresses)")]
    NoSourceAddress(IpAddr),
    /// The upstream was reached and declined: too many connections, say, or wrong credentials.
    #[error("{reason}")]
    Declined {
        /// What it answered.
        reason: String,
        /// What that means by the upstream's rules.
        hold: Option<HoldKind>,
    },
}

/// Opens a session with a smarthost, from `source` if one is given, on the ports in the order that `memory` gives.
///
/// # Errors
/// When the relay does not have the source address, when the upstream declines, or after every port has failed.
pub(super) async fn open(
    smarthost: &SmarthostPolicy,
    upstream: &UpstreamPolicy,
    source: Option<IpAddr>,
    memory: &PortMemory,
) -> Result<Connection, OpenError> {
    let mut reasons = Vec::new();
    for port in memory.order(&smarthost.ports, Instant::now()) {
        match open_port(smarthost, port, upstream, source).await {
            Ok(connection) => {
                memory.worked(&smarthost.ports, port.port, reasons, Instant::now());
                return Ok(connection);
            }
            Err(PortError::NoSource(address)) => return Err(OpenError::NoSourceAddress(address)),
            Err(PortError::Declined(failure)) => {
                let hold = classify_failure(&upstream.replies, &failure);
                return Err(OpenError::Declined { reason: format!("port {}: {failure}", port.port), hold });
            }
            Err(PortError::Unusable(reason)) => reasons.push(format!("port {}: {reason}", port.port)),
        }
    }
    Err(OpenError::Unreachable(reasons))
}

enum PortError {
    NoSource(IpAddr),
    Unusable(String),
    Declined(SessionFailure),
}

impl PortError {
    fn unusable(error: impl fmt::Display) -> Self {
        Self::Unusable(error.to_string())
    }
}

async fn open_port(
    smarthost: &SmarthostPolicy,
    port: &UpstreamPort,
    upstream: &UpstreamPolicy,
    source: Option<IpAddr>,
) -> Result<Connection, PortError> {
    let patience = upstream.patience();
    let stream =
        connect(&smarthost.host, port.port, source, patience).await.map_err(|error| match source {
            Some(source) if error.kind() == io::ErrorKind::AddrNotAvailable => PortError::NoSource(source),
            _ => PortError::unusable(error),
        })?;
    let _ = stream.set_nodelay(true);
    let peer = stream.peer_addr().ok();
    let connector = TlsConnector::from(smarthost.tls.clone());
    let tls = Tls { connector, name: smarthost.server_name.clone(), patience };
    let (stream, mode): (BoxedStream, ClientTls) = match port.tls {
        UpstreamTls::None => (Box::new(stream), ClientTls::None),
        UpstreamTls::StartTLS => (Box::new(stream), ClientTls::StartTls),
        UpstreamTls::Implicit => {
            (tls.handshake(Box::new(stream)).await.map_err(PortError::unusable)?, ClientTls::Implicit)
        }
    };
    let config = ClientConfig {
        ehlo_name: upstream.ehlo_name.clone(),
        tls: mode,
        credentials: smarthost.credentials.clone(),
        nonce: nonce(),
    };
    let established = Connection::establish(stream, config, Some(tls), patience).await;
    established.map(|connection| connection.with_peer(peer)).map_err(|failure| match failure {
        SessionFailure::Greeting(_)
        | SessionFailure::Ehlo(_)
        | SessionFailure::Authentication(_)
        | SessionFailure::NoCommonMechanism(_)
        | SessionFailure::Unexpected421(_) => PortError::Declined(failure),
        SessionFailure::TlsNotOffered
        | SessionFailure::StartTls(_)
        | SessionFailure::Protocol(_)
        | SessionFailure::Lost(_) => PortError::unusable(failure),
    })
}

/// A TCP connection, from the source if one is given: then to the first address of the host that is of its kind and answers.
async fn connect(host: &str, port: u16, source: Option<IpAddr>, patience: Duration) -> io::Result<TcpStream> {
    let limit = CONNECT_TIMEOUT.min(patience);
    let Some(source) = source else {
        return within(limit, "connecting", TcpStream::connect((host, port))).await;
    };
    let from_source = async {
        let mut failure = io::Error::other(format!("{host} has no address that {source} can connect to"));
        for address in
            lookup_host((host, port)).await?.filter(|address| address.is_ipv4() == source.is_ipv4())
        {
            let socket = if source.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.bind(SocketAddr::new(source, 0))?;
            match socket.connect(address).await {
                Ok(stream) => return Ok(stream),
                // Whatever its kind: that the address is not there was said by bind.
                Err(error) => failure = io::Error::other(error),
            }
        }
        Err(failure)
    };
    within(limit, "connecting", from_source).await
}

/// 128 random bits for one session's authentication.
fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

async fn within<T>(
    limit: Duration,
    doing: &str,
    operation: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match timeout(limit, operation).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{doing} took more than {limit:?}"))),
    }
}
