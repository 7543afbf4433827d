//! A server that is far away: a proxy that hands on what a server says only after a round-trip time.
//!
//! Octets wait beside each other, not one behind the other, as on a long line; what the client says passes at once, since only
//! the sum of both ways can be noticed. Used where the kernel has no emulation of distance.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

const READ_AT_ONCE: usize = 64 * 1024;

/// A running proxy. Dropped, it cuts its connections.
pub struct Distance {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Distance {
    /// Puts `round_trip` between its clients and the server at `server`.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn to(server: SocketAddr, round_trip: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, server, round_trip));
            }
        });
        Ok(Self { address, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn carry(client: TcpStream, server: SocketAddr, round_trip: Duration) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (late, due) = mpsc::unbounded_channel();
    tokio::join!(
        pass_on(from_client, to_server),
        stamp(from_server, late, round_trip),
        hand_out(due, to_client)
    );
    Ok(())
}

/// An end or an error ends the direction, as it would on the line itself.
async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let _ = tokio::io::copy(&mut from, &mut to).await;
}

async fn stamp(mut from: OwnedReadHalf, late: mpsc::UnboundedSender<(Instant, Bytes)>, round_trip: Duration) {
    let mut octets = bytes::BytesMut::with_capacity(READ_AT_ONCE);
    while matches!(from.read_buf(&mut octets).await, Ok(read) if read > 0) {
        if late.send((Instant::now() + round_trip, octets.split().freeze())).is_err() {
            return;
        }
    }
}

async fn hand_out(mut due: mpsc::UnboundedReceiver<(Instant, Bytes)>, mut to: OwnedWriteHalf) {
    while let Some((at, octets)) = due.recv().await {
        sleep_until(at).await;
        if to.write_all(&octets).await.is_err() {
            return;
        }
    }
}
