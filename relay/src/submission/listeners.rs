//! The ports that are listened on, and who is let in.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::connection;
use super::context::Context;
use super::proxy_protocol::{self, Source};
use crate::config::{Listener, Policy};
use crate::listen;
use crate::shutdown::Phase;

/// How long accepting pauses when the system has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a load balancer may take for its header.
const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("listener {name:?} cannot bind {address}: {source}")]
pub struct BindError {
    name: String,
    address: SocketAddr,
    source: io::Error,
}

/// The ports that are listened on.
#[derive(Debug)]
pub struct Listeners {
    context: Context,
    running: HashMap<SocketAddr, Running>,
}

#[derive(Debug)]
struct Running {
    settings: watch::Sender<Listener>,
    accepting: JoinHandle<()>,
}

/// The sockets of a policy's new ports, bound but not yet served.
#[derive(Debug)]
pub struct Bound(Vec<(Listener, TcpListener)>);

impl Listeners {
    /// No ports yet.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self { context, running: HashMap::new() }
    }

    /// Binds the ports of `policy` that are not listened on yet. Nothing changes for clients until [`apply`](Self::apply).
    ///
    /// # Errors
    /// When one of them cannot be bound; none is then.
    pub async fn bind(&self, policy: &Policy) -> Result<Bound, BindError> {
        let mut bound = Vec::new();
        for listener in
            policy.listeners.iter().filter(|listener| !self.running.contains_key(&listener.address))
        {
            let socket = listen::bind(listener.address).await.map_err(|source| BindError {
                name: listener.name.clone(),
                address: listener.address,
                source,
            })?;
            bound.push((listener.clone(), socket));
        }
        Ok(Bound(bound))
    }

    /// Serves the new ports, gives the others their new settings and closes those that `policy` no longer has. Sessions on
    /// closed ports go on.
    pub fn apply(&mut self, policy: &Policy, bound: Bound) {
        self.running.retain(|address, running| {
            match policy.listeners.iter().find(|listener| listener.address == *address) {
                Some(listener) => {
                    running.settings.send_replace(listener.clone());
                    true
                }
                None => {
                    tracing::info!(%address, "listener closed");
                    running.accepting.abort();
                    false
                }
            }
        });
        for (listener, socket) in bound.0 {
            let local =
                socket.local_addr().map_or_else(|_| listener.address.to_string(), |local| local.to_string());
            tracing::info!(listener = listener.name, address = local, tls = ?listener.tls, "listening");
            let address = listener.address;
            let (settings, current) = watch::channel(listener);
            let accepting = tokio::spawn(accept(socket, current, self.context.clone()));
            self.running.insert(address, Running { settings, accepting });
        }
    }
}

/// Accepts until the relay stops.
async fn accept(socket: TcpListener, settings: watch::Receiver<Listener>, context: Context) {
    let mut shutdown = context.shutdown.clone();
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = shutdown.reached(Phase::Draining) => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let listener = settings.borrow().clone();
                let peer = peer.ip().to_canonical();
                if listener.proxies.iter().any(|network| network.contains(&peer)) {
                    context.sessions.spawn(admit_proxied(stream, peer, listener, context.clone()));
                } else {
                    admit(stream, peer, listener, &context);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection by a load balancer: first it has to say whose it is.
async fn admit_proxied(mut stream: TcpStream, proxy: IpAddr, listener: Listener, context: Context) {
    let total = context.policy.borrow().limits.connections;
    // Counted while it is read, so that headers that never come are bounded like everything else.
    let Ok(counted) = context.limits.admit(proxy, total, usize::MAX) else { return };
    let source = match timeout(PROXY_HEADER_TIMEOUT, proxy_protocol::read(&mut stream)).await {
        Ok(Ok(source)) => source,
        Ok(Err(error)) => {
            return tracing::warn!(%proxy, listener = listener.name, %error, "connection closed");
        }
        Err(_) => return tracing::warn!(%proxy, listener = listener.name, "no PROXY protocol header in time"),
    };
    drop(counted);
    let client = match source {
        Source::Client(client) => client.to_canonical(),
        Source::Unknown => proxy,
    };
    admit(stream, client, listener, &context);
}

fn admit(stream: TcpStream, client: IpAddr, listener: Listener, context: &Context) {
    let policy = context.policy.borrow().clone();
    context.metrics.connections.inc();
    match context.limits.admit(client, policy.limits.connections, policy.limits.connections_per_client) {
        Ok(permit) => {
            let served = connection::serve(stream, client, listener, context.clone());
            context.sessions.spawn(async move {
                let _permit = permit;
                served.await;
            });
        }
        Err(exceeded) => {
            context.metrics.connections_refused.inc();
            context.sessions.spawn(connection::refuse(stream, client, listener, policy, exceeded));
        }
    }
}
