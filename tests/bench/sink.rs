//! Takes mail and drops it, as cheaply as it can be done: it shares the processors with the relay under test.
//!
//! One thread with a runtime of its own. What it takes is checked by stamp, so that a lost message cannot be made up for by one
//! that came twice.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::message::{self, Arrivals, Stamp};

/// How long a trial may stand still before it has failed.
const STANDSTILL: Duration = Duration::from_secs(30);
/// How much of a message's front is searched for its stamp.
const FRONT: usize = 4_096;

/// The running sink; it ends with the process.
pub struct Sink {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    trial: Mutex<TrialState>,
    complete: Notify,
}

#[derive(Default)]
struct TrialState {
    number: u32,
    seen: Vec<bool>,
    missing: usize,
    duplicates: usize,
    connections: usize,
    last: Option<Instant>,
}

impl State {
    fn trial(&self) -> MutexGuard<'_, TrialState> {
        self.trial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrived(&self, stamp: Option<Stamp>) {
        let mut trial = self.trial();
        let Some(stamp) = stamp.filter(|stamp| stamp.trial == trial.number) else { return };
        let Some(seen) = trial.seen.get_mut(stamp.number) else { return };
        if std::mem::replace(seen, true) {
            trial.duplicates += 1;
            return;
        }
        trial.missing -= 1;
        trial.last = Some(Instant::now());
        if trial.missing == 0 {
            self.complete.notify_one();
        }
    }
}

impl Sink {
    /// Listens on a free port of 127.0.0.1, from a thread of its own.
    pub fn start() -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State::default());
        let shared = state.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        std::thread::Builder::new()
            .name("sink".to_owned())
            .spawn(move || runtime.block_on(accept(listener, shared)))?;
        Ok(Self { port, state })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Begins a trial of `messages` messages and gives its number, which their stamps must carry.
    pub fn begin(&self, messages: usize) -> u32 {
        let mut trial = self.state.trial();
        let number = trial.number + 1;
        *trial =
            TrialState { number, seen: vec![false; messages], missing: messages, ..TrialState::default() };
        number
    }

    /// Waits until each message of the trial has arrived.
    ///
    /// # Errors
    /// How many are missing, when none has arrived for a while.
    pub async fn complete(&self) -> anyhow::Result<Arrivals> {
        let mut before = usize::MAX;
        while tokio::time::timeout(STANDSTILL, self.state.complete.notified()).await.is_err() {
            let missing = self.state.trial().missing;
            anyhow::ensure!(missing < before, "{missing} messages did not arrive");
            before = missing;
        }
        let trial = self.state.trial();
        let last = trial.last.ok_or_else(|| anyhow::anyhow!("a trial without messages"))?;
        Ok(Arrivals { last, duplicates: trial.duplicates, connections: trial.connections })
    }
}

async fn accept(listener: std::net::TcpListener, state: Arc<State>) {
    let listener = TcpListener::from_std(listener).expect("a socket that does not block");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        state.trial().connections += 1;
        // A relay that breaks a session shows in the messages that do not arrive.
        tokio::spawn(serve(stream, state.clone()));
    }
}

async fn serve(mut stream: TcpStream, state: Arc<State>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 sink ESMTP\r\n").await?;
    let mut input = Vec::with_capacity(65_536);
    let mut session = Session::default();
    while stream.read_buf(&mut input).await? > 0 {
        let consumed = session.take(&input, &state);
        input.drain(..consumed);
        if !session.replies.is_empty() {
            stream.write_all(&session.replies).await?;
            session.replies.clear();
        }
        if session.over {
            break;
        }
    }
    Ok(())
}

/// The server's side of a session with a client that keeps to the protocol.
#[derive(Default)]
struct Session {
    replies: Vec<u8>,
    /// The front of the message that is being received.
    content: Option<Vec<u8>>,
    over: bool,
}

impl Session {
    /// Takes commands and content; returns how many octets of `input` need not be seen again.
    fn take(&mut self, input: &[u8], state: &State) -> usize {
        let mut position = 0;
        loop {
            let rest = &input[position..];
            let taken = match &mut self.content {
                None => match memchr::memchr(b'\n', rest) {
                    Some(end) => self.command(&rest[..end], end + 1),
                    None => return position,
                },
                Some(front) => {
                    let end = memchr::memmem::find(rest, b"\r\n.\r\n");
                    // What may be the beginning of the end has to be seen again.
                    let taken = end.map_or(rest.len().saturating_sub(4), |end| end + 5);
                    front.extend_from_slice(&rest[..taken.min(FRONT.saturating_sub(front.len()))]);
                    if end.is_none() {
                        return position + taken;
                    }
                    state.arrived(message::stamp(front));
                    self.content = None;
                    self.replies.extend_from_slice(b"250 2.0.0 taken\r\n");
                    taken
                }
            };
            position += taken;
        }
    }

    fn command(&mut self, line: &[u8], taken: usize) -> usize {
        let reply: &[u8] = match line.get(..4).unwrap_or(line).to_ascii_uppercase().as_slice() {
            b"EHLO" => {
                b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 104857600\r\n"
            }
            b"DATA" => {
                self.content = Some(Vec::with_capacity(FRONT));
                b"354 go on\r\n"
            }
            b"QUIT" => {
                self.over = true;
                b"221 2.0.0 bye\r\n"
            }
            b"MAIL" | b"RCPT" | b"RSET" | b"NOOP" | b"HELO" => b"250 2.0.0 ok\r\n",
            _ => b"500 5.5.1 unknown\r\n",
        };
        self.replies.extend_from_slice(reply);
        taken
    }
}
