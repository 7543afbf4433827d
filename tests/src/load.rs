//! Load: many raw clients that send test messages at once and keep account of what they were promised.
//!
//! The account separates what was acknowledged (250 after the final dot: must arrive) from what is unknown (the connection
//! died after the final dot had begun to go out: may arrive). A client that loses its connection connects again, so that
//! a relay may be killed under it. Message content is [`conservation::content`] of its token.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::conservation;
use crate::lock::lock;
use crate::smtp_client::{ClientError, Reply, Security, SmtpClient, stuffed};
use crate::waiting::{TimedOut, watched};

/// Rest before a client connects again, so that a server which is down is not hammered by all of them.
const RECONNECT_REST: Duration = Duration::from_millis(20);

/// What to send, by how many, where to.
#[derive(Clone, Debug)]
pub struct Load {
    /// The server.
    pub address: SocketAddr,
    /// How connections are protected.
    pub security: Security,
    /// User and password for AUTH PLAIN.
    pub credentials: Option<(String, String)>,
    /// Clients at work at the same time.
    pub clients: usize,
    /// Messages each of them sends.
    pub messages_per_client: usize,
    /// Messages after which a client connects anew; `None` keeps its connection.
    pub messages_per_connection: Option<usize>,
    /// About the octets of each message.
    pub octets: usize,
    /// The reverse-path.
    pub from: String,
    /// The forward-paths of each message.
    pub to: Vec<String>,
    /// Tokens are this prefix with the numbers of client and message: distinct for each load of a test.
    pub token_prefix: String,
    /// When all clients give up.
    pub deadline: Duration,
    /// How long a client waits for a reply before it takes the connection for lost.
    pub patience: Duration,
}

impl Load {
    /// 20 clients that send 50 messages of 4 KiB each to one recipient, in the clear, within two minutes.
    #[must_use]
    pub fn to_address(address: SocketAddr) -> Self {
        Self {
            address,
            security: Security::None,
            credentials: None,
            clients: 20,
            messages_per_client: 50,
            messages_per_connection: None,
            octets: 4096,
            from: "sender@client.example".to_owned(),
            to: vec!["recipient@example.com".to_owned()],
            token_prefix: "load".to_owned(),
            deadline: Duration::from_secs(120),
            patience: Duration::from_secs(30),
        }
    }

    /// The content that was sent for `token`.
    #[must_use]
    pub fn content(&self, token: &str) -> Vec<u8> {
        conservation::content(token, self.octets)
    }

    /// Starts the clients on the runtime of the caller.
    #[must_use]
    pub fn start(self) -> RunningLoad {
        let load = Arc::new(self);
        let progress = Arc::new(Progress { sent: Mutex::default(), acknowledged: watch::Sender::new(0) });
        let (stop, stopped) = watch::channel(false);
        let deadline = Instant::now() + load.deadline;
        let mut clients = JoinSet::new();
        for number in 0..load.clients {
            let sender = Sender {
                load: Arc::clone(&load),
                progress: Arc::clone(&progress),
                stopped: stopped.clone(),
                deadline,
                connection: None,
                carried: 0,
            };
            clients.spawn(sender.run(number));
        }
        RunningLoad { clients, progress, stop }
    }
}

/// What became of a load, by the words of the server it was sent to.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Answered 250 after the final dot.
    pub acknowledged: BTreeSet<String>,
    /// No answer after the final dot had begun to go out.
    pub unknown: BTreeSet<String>,
    /// Refused for good, and the reply.
    pub refused: BTreeMap<String, Reply>,
    /// Refused for now after the final dot, and sent again: what the server kept all the same may arrive beside it.
    pub repeated: BTreeSet<String>,
    /// Never handed over: the deadline came first or the load was stopped.
    pub unsent: BTreeSet<String>,
    /// How many connections were lost on the way.
    pub lost_connections: usize,
    /// How many transient refusals were met and retried.
    pub transient_refusals: usize,
}

struct Progress {
    sent: Mutex<Sent>,
    acknowledged: watch::Sender<usize>,
}

impl Progress {
    fn acknowledge(&self, token: String) {
        lock(&self.sent).acknowledged.insert(token);
        self.acknowledged.send_modify(|count| *count += 1);
    }

    fn note(&self, note: impl FnOnce(&mut Sent)) {
        note(&mut lock(&self.sent));
    }
}

/// A load under way. Dropping it stops the clients where they are.
pub struct RunningLoad {
    clients: JoinSet<()>,
    progress: Arc<Progress>,
    stop: watch::Sender<bool>,
}

impl RunningLoad {
    /// How many messages were acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        *self.progress.acknowledged.borrow()
    }

    /// Waits until `count` messages were acknowledged: the moment to kill something.
    ///
    /// # Errors
    /// [`TimedOut`] after `limit`.
    pub async fn wait_for_acknowledged(&self, count: usize, limit: Duration) -> Result<(), TimedOut> {
        let what = format!("{count} acknowledged messages");
        let check = || (self.acknowledged() >= count).then_some(());
        let changes = self.progress.acknowledged.subscribe();
        watched(changes, &what, limit, check, || format!("{} were acknowledged", self.acknowledged())).await
    }

    /// Lets each client end with the message it is at; for loads without a natural end.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until every client has ended, at the load's deadline at the latest.
    pub async fn finish(mut self) -> Sent {
        while let Some(ended) = self.clients.join_next().await {
            if let Err(error) = ended {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        let sent = lock(&self.progress.sent);
        sent.clone()
    }
}

/// How an attempt to hand over one message ended.
enum Attempt {
    Acknowledged,
    Unknown,
    Refused(Reply),
    /// A transient refusal of the content.
    Repeat,
    /// Another transient refusal or a connection that died before the final dot: the same token may be sent again.
    Again,
}

struct Sender {
    load: Arc<Load>,
    progress: Arc<Progress>,
    stopped: watch::Receiver<bool>,
    deadline: Instant,
    connection: Option<SmtpClient>,
    carried: usize,
}

impl Sender {
    async fn run(mut self, client: usize) {
        for number in 0..self.load.messages_per_client {
            let token = format!("{}-{client}-{number}", self.load.token_prefix);
            self.settle(token).await;
        }
        if let Some(mut connection) = self.connection.take() {
            // Whatever the server says to QUIT, or does not, everything is settled.
            let _ = connection.command("QUIT").await;
        }
    }

    /// Sends the message until its fate is known or can no longer be learned.
    async fn settle(&mut self, token: String) {
        let mut wire = None;
        loop {
            if *self.stopped.borrow() || Instant::now() >= self.deadline {
                return self.progress.note(|sent| _ = sent.unsent.insert(token));
            }
            let wire = wire.get_or_insert_with(|| stuffed(&self.load.content(&token)));
            match self.attempt(wire).await {
                Attempt::Acknowledged => return self.progress.acknowledge(token),
                Attempt::Unknown => return self.progress.note(|sent| _ = sent.unknown.insert(token)),
                Attempt::Refused(reply) => {
                    return self.progress.note(|sent| drop(sent.refused.insert(token, reply)));
                }
                Attempt::Repeat => {
                    self.progress.note(|sent| _ = sent.repeated.insert(token.clone()));
                    tokio::time::sleep(RECONNECT_REST).await;
                }
                Attempt::Again => tokio::time::sleep(RECONNECT_REST).await,
            }
        }
    }

    async fn attempt(&mut self, wire: &[u8]) -> Attempt {
        if self.load.messages_per_connection.is_some_and(|limit| self.carried >= limit) {
            self.connection = None;
        }
        // Taken out, so that a connection on which anything goes wrong is not used again.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match self.connect().await {
                Ok(connection) => connection,
                Err(_) => return self.lost(),
            },
        };
        match self.envelope(&mut connection).await {
            Ok(reply) if reply.code == 354 => {}
            Ok(reply) => return self.refused(reply),
            Err(_) => return self.lost(),
        }
        // From here on the final dot may be out, whatever `send` says.
        let answer = match connection.send(wire).await {
            Ok(()) => connection.reply().await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(reply) if reply.is_positive() => {
                self.connection = Some(connection);
                self.carried += 1;
                Attempt::Acknowledged
            }
            Ok(reply) => match self.refused(reply) {
                Attempt::Again => Attempt::Repeat,
                refused => refused,
            },
            Err(_) => {
                self.lost();
                Attempt::Unknown
            }
        }
    }

    async fn connect(&mut self) -> Result<SmtpClient, ClientError> {
        let connecting = SmtpClient::open(self.load.address, &self.load.security, "client.example");
        let limit = self.load.patience;
        let timed_out = |_| ClientError::TimedOut { waited: limit, pending: "connecting".to_owned() };
        let mut connection = tokio::time::timeout(limit, connecting).await.map_err(timed_out)??;
        connection.set_patience(limit);
        if let Some((user, password)) = &self.load.credentials {
            let reply = connection.auth_plain(user, password).await?;
            if !reply.is_positive() {
                return Err(ClientError::Refused { step: "AUTH".to_owned(), reply });
            }
        }
        self.carried = 0;
        Ok(connection)
    }

    /// Everything before the content; the reply to DATA, or the first refusal.
    async fn envelope(&self, connection: &mut SmtpClient) -> Result<Reply, ClientError> {
        let mut reply = connection.command(&format!("MAIL FROM:<{}>", self.load.from)).await?;
        for recipient in &self.load.to {
            if reply.is_positive() {
                reply = connection.command(&format!("RCPT TO:<{recipient}>")).await?;
            }
        }
        if reply.is_positive() { connection.command("DATA").await } else { Ok(reply) }
    }

    fn refused(&self, reply: Reply) -> Attempt {
        if !reply.is_transient() {
            return Attempt::Refused(reply);
        }
        self.progress.note(|sent| sent.transient_refusals += 1);
        Attempt::Again
    }

    fn lost(&self) -> Attempt {
        self.progress.note(|sent| sent.lost_connections += 1);
        Attempt::Again
    }
}
