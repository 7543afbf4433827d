//! Sends mail as apps do: over many sessions at the same time, each command answered before the next is sent.
//!
//! One thread with a runtime of its own, for the reason the sink has one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::message::{self, Stamp};

/// How long a relay may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Messages in all.
    pub messages: usize,
    /// Octets of a body.
    pub octets: usize,
    /// Sessions at the same time.
    pub sessions: usize,
    /// Whether a session is kept for many messages; otherwise each message has one of its own.
    pub kept: bool,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// When the first connection was begun.
    pub begin: Instant,
    /// When the last message had been acknowledged.
    pub end: Instant,
    /// How long each message took from MAIL to its 250, in no order.
    pub latencies: Vec<Duration>,
}

/// Sends the load, each message acknowledged.
///
/// # Errors
/// The first reply that is not what is expected.
pub async fn send(load: Load, to: SocketAddr, trial: u32) -> anyhow::Result<Sent> {
    let (done, result) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("source".to_owned()).spawn(move || {
        let _ = done.send(runtime.block_on(send_all(load, to, trial)));
    })?;
    result.await.context("the source ended without a word")?
}

async fn send_all(load: Load, to: SocketAddr, trial: u32) -> anyhow::Result<Sent> {
    let begin = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let body: Arc<[u8]> = message::body(load.octets).into();
    let mut clients = JoinSet::new();
    for _ in 0..load.sessions {
        clients.spawn(client(load, to, trial, next.clone(), body.clone()));
    }
    let mut latencies = Vec::with_capacity(load.messages);
    while let Some(client) = clients.join_next().await {
        latencies.extend(client??);
    }
    Ok(Sent { begin, end: Instant::now(), latencies })
}

async fn client(
    load: Load,
    to: SocketAddr,
    trial: u32,
    next: Arc<AtomicUsize>,
    body: Arc<[u8]>,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::new();
    let mut session = None;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.messages {
            break;
        }
        let begin = Instant::now();
        let mut open = match session.take() {
            Some(open) => open,
            None => Session::open(to).await?,
        };
        open.message(Stamp { trial, number }, &body).await?;
        latencies.push(begin.elapsed());
        if load.kept {
            session = Some(open);
        } else {
            open.exchange(b"QUIT\r\n", b'2').await?;
        }
    }
    if let Some(mut open) = session {
        open.exchange(b"QUIT\r\n", b'2').await?;
    }
    Ok(latencies)
}

struct Session {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Session {
    async fn open(to: SocketAddr) -> anyhow::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(to)).await.context("no connection")??;
        stream.set_nodelay(true)?;
        let mut session = Self { stream, input: Vec::with_capacity(1_024) };
        session.reply(b'2').await?;
        session.exchange(b"EHLO bench.example\r\n", b'2').await?;
        Ok(session)
    }

    async fn message(&mut self, stamp: Stamp, body: &[u8]) -> anyhow::Result<()> {
        self.exchange(b"MAIL FROM:<sender@example.com>\r\n", b'2').await?;
        self.exchange(format!("RCPT TO:<recipient{}@example.net>\r\n", stamp.number).as_bytes(), b'2')
            .await?;
        self.exchange(b"DATA\r\n", b'3').await?;
        let content = [message::header_section(stamp).as_bytes(), body].concat();
        self.exchange(&content, b'2').await
    }

    async fn exchange(&mut self, octets: &[u8], expected: u8) -> anyhow::Result<()> {
        self.stream.write_all(octets).await?;
        self.reply(expected).await
    }

    async fn reply(&mut self, expected: u8) -> anyhow::Result<()> {
        self.input.clear();
        while !is_whole(&self.input) {
            let read =
                timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await.context("no answer")??;
            anyhow::ensure!(read > 0, "the relay closed the connection");
        }
        let text = String::from_utf8_lossy(&self.input);
        anyhow::ensure!(self.input[0] == expected, "the relay answered {}", text.trim());
        Ok(())
    }
}

/// Whether a reply's last line is there: the one without a hyphen behind the code (RFC 5321 §4.2.1).
fn is_whole(input: &[u8]) -> bool {
    input.ends_with(b"\r\n")
        && input
            .split_inclusive(|octet| *octet == b'\n')
            .next_back()
            .is_some_and(|last| last.get(3) != Some(&b'-'))
}
