//! One session of the fake upstream: the dialogue of RFC 5321 with STARTTLS (RFC 3207), AUTH (RFC 4954), PIPELINING
//! (RFC 2920), CHUNKING (RFC 3030), SIZE (RFC 1870), 8BITMIME (RFC 6152) and ENHANCEDSTATUSCODES (RFC 2034).
//!
//! It follows the script before it answers, writes what it saw into the ledger, and holds what its client does wrong
//! against it as a violation. Written without `smtp-protocol`, whose judge it is. Spawned by the accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::lock::lock;
use crate::smtp_server::authentication::{self, Claim, Exchange};
use crate::smtp_server::content::ReadContent;
use crate::smtp_server::faults::{Action, Occurrence, Script, Stage};
use crate::smtp_server::ledger::{ReceivedMessage, Record};
use crate::smtp_server::path::{PathArgument, path_argument};
use crate::smtp_server::settings::{Pace, Settings, TlsMode};
use crate::smtp_server::wire::{Line, Wire};

/// What all sessions of a server share.
pub(crate) struct Shared {
    pub(crate) settings: Mutex<Settings>,
    pub(crate) script: Script,
    pub(crate) record: Record,
    pub(crate) tls: TlsMode,
    pub(crate) acceptor: TlsAcceptor,
}

impl Shared {
    fn setting<T>(&self, look: impl FnOnce(&Settings) -> T) -> T {
        look(&lock(&self.settings))
    }

    fn pace(&self) -> Option<Pace> {
        self.setting(|settings| settings.pace)
    }
}

/// Serves one connection to its end. Dropping the future cuts the connection, and the ledger says so.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let limit = shared.setting(|settings| settings.session_limit);
    let Some(id) = shared.record.open(peer, limit) else {
        turn_away(stream, &shared).await;
        return;
    };
    let mut open = OpenSession { id, shared: Arc::clone(&shared), end: "cut by the server".to_owned() };
    if let Ok(stream) = Reset::prepare(stream) {
        open.end = match Session::new(id, shared).run(stream).await {
            Ok(end) => end.to_owned(),
            Err(error) => format!("connection failed: {error}"),
        };
    }
}

async fn turn_away(stream: TcpStream, shared: &Shared) {
    let hostname = shared.setting(|settings| settings.hostname.clone());
    let mut wire = Wire::new(Box::new(stream));
    wire.queue(format!("421 {hostname} too many connections, try again later\r\n").as_bytes());
    // The client may be gone already: it was turned away either way.
    let _ = wire.close().await;
}

/// Closes the session in the ledger however its task ends.
struct OpenSession {
    id: u64,
    shared: Arc<Shared>,
    end: String,
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.shared.record.close(self.id, &self.end);
    }
}

/// A second handle on the socket, kept to be able to reset a connection that TLS has wrapped.
struct Reset {
    socket: std::net::TcpStream,
}

impl Reset {
    fn prepare(stream: TcpStream) -> io::Result<(TcpStream, Self)> {
        stream.set_nodelay(true)?;
        let stream = stream.into_std()?;
        let socket = stream.try_clone()?;
        Ok((TcpStream::from_std(stream)?, Self { socket }))
    }

    /// Makes the coming close of the connection an RST.
    fn arm(&self) -> io::Result<()> {
        let socket = TcpStream::from_std(self.socket.try_clone()?)?;
        socket.set_zero_linger()
    }
}

/// What follows after a step of the dialogue.
enum Next {
    Continue,
    StartTls,
    /// The session ends; why.
    End(&'static str),
}

/// What the script leaves of a stage.
enum Verdict {
    /// No fault, or a delay that is over.
    Proceed,
    /// The fault has answered; the command has no effect.
    Answered,
    /// The session ends; why.
    End(&'static str),
}

#[derive(Default)]
struct Transaction {
    reverse_path: String,
    parameters: Vec<String>,
    recipients: Vec<String>,
    eight_bit: bool,
    /// What came by BDAT so far.
    chunks: BytesMut,
}

struct Session {
    id: u64,
    shared: Arc<Shared>,
    esmtp: bool,
    greeted: bool,
    encrypted: bool,
    /// What the client has authenticated with.
    claim: Option<Claim>,
    transaction: Option<Transaction>,
    carried: usize,
}

impl Session {
    fn new(id: u64, shared: Arc<Shared>) -> Self {
        Self {
            id,
            shared,
            esmtp: false,
            greeted: false,
            encrypted: false,
            claim: None,
            transaction: None,
            carried: 0,
        }
    }

    async fn run(mut self, (stream, reset): (TcpStream, Reset)) -> io::Result<&'static str> {
        let mut wire = Wire::new(Box::new(stream));
        if self.shared.tls == TlsMode::Implicit {
            wire = match self.encrypt(wire, &reset).await? {
                Ok(wire) => wire,
                Err(end) => return Ok(end),
            };
        }
        let mut next = self.greet(&mut wire, &reset).await?;
        loop {
            match next {
                Next::End(end) => {
                    // The client may have closed first.
                    let _ = wire.close().await;
                    return Ok(end);
                }
                Next::StartTls => {
                    wire.flush().await?;
                    wire = match self.encrypt(wire, &reset).await? {
                        Ok(wire) => wire,
                        Err(end) => return Ok(end),
                    };
                    self.forget();
                }
                Next::Continue => {}
            }
            let shared = Arc::clone(&self.shared);
            let Some(line) = wire.line(|| shared.pace()).await? else { return Ok("closed by the client") };
            next = self.command(&mut wire, &reset, line).await?;
        }
    }

    /// TLS, or the reason for which the script ended the session instead.
    async fn encrypt(&mut self, mut wire: Wire, reset: &Reset) -> io::Result<Result<Wire, &'static str>> {
        if let Verdict::End(end) = self.follow_script(&mut wire, reset, &Stage::Handshake, None).await? {
            return Ok(Err(end));
        }
        let (wire, facts) = wire.encrypt(&self.shared.acceptor).await?;
        self.encrypted = true;
        self.shared.record.change_session(self.id, |session| {
            session.tls = Some(facts.version);
            session.server_name = facts.server_name;
        });
        Ok(Ok(wire))
    }

    /// After the handshake nothing said before it counts (RFC 3207 §4.2).
    fn forget(&mut self) {
        (self.esmtp, self.greeted, self.claim, self.transaction) = (false, false, None, None);
    }

    async fn greet(&mut self, wire: &mut Wire, reset: &Reset) -> io::Result<Next> {
        match self.follow_script(wire, reset, &Stage::Greeting, None).await? {
            Verdict::Proceed => {
                let hostname = self.shared.setting(|settings| settings.hostname.clone());
                wire.queue(format!("220 {hostname} ESMTP ready\r\n").as_bytes());
                Ok(Next::Continue)
            }
            Verdict::Answered => Ok(Next::Continue),
            Verdict::End(end) => Ok(Next::End(end)),
        }
    }

    async fn command(&mut self, wire: &mut Wire, reset: &Reset, line: Line) -> io::Result<Next> {
        let (verb, argument) = line.text.split_once(' ').unwrap_or((&line.text, ""));
        let verb = verb.to_ascii_uppercase();
        self.judge_line(&line, &verb, wire.pending_input());
        let shown = if verb == "AUTH" { shown_auth(argument) } else { line.text.clone() };
        self.shared.record.change_session(self.id, |session| session.commands.push(shown));
        let (stage, recipient) = stage_of(&verb, argument);
        if let Some(stage) = stage {
            match self.follow_script(wire, reset, &stage, recipient.as_deref()).await? {
                Verdict::Proceed => {}
                Verdict::Answered => return Ok(Next::Continue),
                Verdict::End(end) => return Ok(Next::End(end)),
            }
        }
        self.obey(wire, reset, &verb, argument).await
    }

    async fn obey(&mut self, wire: &mut Wire, reset: &Reset, verb: &str, argument: &str) -> io::Result<Next> {
        match verb {
            "EHLO" | "HELO" => self.ehlo(wire, verb, argument),
            "STARTTLS" => return Ok(self.start_tls(wire)),
            "AUTH" => return self.authenticate(wire, argument).await,
            "MAIL" => self.mail(wire, argument),
            "RCPT" => self.recipient(wire, argument),
            "DATA" => return self.data(wire, reset).await,
            "BDAT" => return self.chunk(wire, reset, argument).await,
            "RSET" => {
                self.transaction = None;
                self.reply(wire, 250, "2.0.0", "reset");
            }
            "NOOP" => self.reply(wire, 250, "2.0.0", "ok"),
            "VRFY" => self.reply(wire, 252, "2.0.0", "send some mail"),
            "QUIT" => {
                self.reply(wire, 221, "2.0.0", "bye");
                return Ok(Next::End("quit"));
            }
            _ => self.refuse(wire, 500, "5.5.2", "unknown command", verb),
        }
        Ok(Next::Continue)
    }

    /// Looks at the form of a command line and at what was pipelined behind it.
    fn judge_line(&self, line: &Line, verb: &str, pending: usize) {
        if line.bare_line_feed {
            self.violation("a command line ended in a bare LF (RFC 5321 §2.3.8)");
        }
        if line.octets > 512 && !matches!(verb, "AUTH" | "MAIL" | "RCPT") {
            self.violation("a command line is longer than 512 octets (RFC 5321 §4.5.3.1.4)");
        }
        // Behind BDAT comes its chunk, which is looked at when it has been read.
        if pending == 0 || verb == "BDAT" {
            return;
        }
        if !self.shared.setting(|settings| settings.pipelining) || !self.esmtp {
            self.violation(format!(
                "more was sent before the reply to {verb} though PIPELINING was not offered"
            ));
        } else if !matches!(verb, "MAIL" | "RCPT" | "RSET") {
            self.violation(format!("{verb} was not the last of its group (RFC 2920 §3.1)"));
        }
    }

    fn ehlo(&mut self, wire: &mut Wire, verb: &str, name: &str) {
        self.transaction = None;
        self.greeted = true;
        self.esmtp = verb == "EHLO";
        self.shared.record.change_session(self.id, |session| session.client_name = Some(name.to_owned()));
        let settings = self.shared.setting(Settings::clone);
        if !self.esmtp {
            return wire.queue(format!("250 {}\r\n", settings.hostname).as_bytes());
        }
        if settings.helo_only {
            (self.greeted, self.esmtp) = (false, false);
            return self.reply(wire, 502, "5.5.1", "EHLO is not implemented");
        }
        let mut lines = vec![format!("{} greets {name}", settings.hostname)];
        lines.extend(self.extensions(&settings));
        let last = lines.len() - 1;
        for (at, line) in lines.iter().enumerate() {
            let separator = if at == last { ' ' } else { '-' };
            wire.queue(format!("250{separator}{line}\r\n").as_bytes());
        }
    }

    fn extensions(&self, settings: &Settings) -> Vec<String> {
        let mut lines = Vec::new();
        if settings.pipelining {
            lines.push("PIPELINING".to_owned());
        }
        if let Some(size) = settings.size {
            lines.push(format!("SIZE {size}"));
        }
        if settings.eight_bit_mime {
            lines.push("8BITMIME".to_owned());
        }
        if settings.enhanced_status_codes {
            lines.push("ENHANCEDSTATUSCODES".to_owned());
        }
        if self.shared.tls == TlsMode::StartTls && !self.encrypted {
            lines.push("STARTTLS".to_owned());
        }
        if settings.chunking {
            lines.push("CHUNKING".to_owned());
        }
        if self.offers_authentication(settings) {
            lines.push(authentication::offer(settings));
        }
        lines.extend(settings.further_extensions.iter().cloned());
        lines
    }

    fn offers_authentication(&self, settings: &Settings) -> bool {
        let anybody = !settings.users.is_empty() || !settings.access_tokens.is_empty();
        anybody && (self.encrypted || settings.authentication_in_the_clear)
    }

    fn start_tls(&self, wire: &mut Wire) -> Next {
        if self.shared.tls != TlsMode::StartTls || self.encrypted {
            self.refuse(wire, 503, "5.5.1", "STARTTLS is not offered", "STARTTLS");
            return Next::Continue;
        }
        self.reply(wire, 220, "2.0.0", "go ahead");
        Next::StartTls
    }

    async fn authenticate(&mut self, wire: &mut Wire, argument: &str) -> io::Result<Next> {
        let offered = self.shared.setting(|settings| self.offers_authentication(settings));
        if !offered || self.claim.is_some() || self.transaction.is_some() {
            self.refuse(wire, 503, "5.5.1", "AUTH is not possible now", "AUTH");
            return Ok(Next::Continue);
        }
        let shared = Arc::clone(&self.shared);
        match authentication::exchange(wire, argument, || shared.pace()).await? {
            Exchange::Claimed(claim) => self.judge_claim(wire, claim).await?,
            Exchange::Malformed => {
                self.refuse(wire, 501, "5.5.2", "credentials were cancelled or not base64", "AUTH");
            }
            Exchange::UnknownMechanism => {
                let command = "AUTH with an unknown mechanism";
                self.refuse(wire, 504, "5.5.4", "this mechanism is not offered", command);
            }
        }
        Ok(Next::Continue)
    }

    async fn judge_claim(&mut self, wire: &mut Wire, claim: Claim) -> io::Result<()> {
        if self.shared.setting(|settings| claim.holds(settings)) {
            self.shared.record.change_session(self.id, |session| session.user = Some(claim.user.clone()));
            self.claim = Some(claim);
            self.reply(wire, 235, "2.7.0", "authenticated");
        } else {
            self.shared.record.change_session(self.id, |session| session.failed_authentications += 1);
            authentication::report(wire, &claim, || self.shared.pace()).await?;
            self.reply(wire, 535, "5.7.8", "authentication failed");
        }
        Ok(())
    }

    fn mail(&mut self, wire: &mut Wire, argument: &str) {
        let settings = self.shared.setting(Settings::clone);
        if settings.require_tls && !self.encrypted {
            return self.reply(wire, 530, "5.7.0", "must issue a STARTTLS command first");
        }
        match &self.claim {
            None if settings.require_authentication => {
                return self.reply(wire, 530, "5.7.0", "authentication required");
            }
            Some(claim) if !claim.holds(&settings) && settings.expired_credentials.is_some() => {
                let reply = settings.expired_credentials.unwrap_or_default();
                return wire.queue(format!("{reply}\r\n").as_bytes());
            }
            _ => {}
        }
        if !self.greeted || self.transaction.is_some() {
            return self.refuse(wire, 503, "5.5.1", "bad sequence of commands", "MAIL");
        }
        let Some(PathArgument { path, parameters }) = path_argument(argument, "FROM:") else {
            return self.refuse(wire, 501, "5.5.4", "malformed MAIL", "MAIL");
        };
        if let Some(unknown) =
            parameters.iter().find(|parameter| !self.offers_parameter(&settings, parameter))
        {
            let command = format!("MAIL with {unknown}, which was not offered,");
            return self.refuse(wire, 555, "5.5.4", "unknown parameter", &command);
        }
        if settings.size.is_some_and(|limit| declared_size(&parameters) > limit) {
            return self.reply(wire, 552, "5.3.4", "message too big");
        }
        let eight_bit = parameters.iter().any(|parameter| parameter.eq_ignore_ascii_case("BODY=8BITMIME"));
        self.transaction =
            Some(Transaction { reverse_path: path, parameters, eight_bit, ..Transaction::default() });
        self.reply(wire, 250, "2.1.0", "sender ok");
    }

    fn offers_parameter(&self, settings: &Settings, parameter: &str) -> bool {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        self.esmtp
            && match name.to_ascii_uppercase().as_str() {
                "SIZE" => settings.size.is_some() && value.parse::<u64>().is_ok(),
                // RFC 6531 §3.4: the parameter has no value.
                "SMTPUTF8" => {
                    value.is_empty()
                        && settings.further_extensions.iter().any(|offered| offered == "SMTPUTF8")
                }
                "BODY" => {
                    settings.eight_bit_mime
                        && matches!(value.to_ascii_uppercase().as_str(), "7BIT" | "8BITMIME")
                }
                "AUTH" => self.offers_authentication(settings),
                _ => false,
            }
    }

    fn recipient(&mut self, wire: &mut Wire, argument: &str) {
        let Some(transaction) = &mut self.transaction else {
            return self.sequence_refused(wire, "RCPT");
        };
        match path_argument(argument, "TO:") {
            Some(PathArgument { path, parameters }) if !path.is_empty() && parameters.is_empty() => {
                transaction.recipients.push(path);
                self.reply(wire, 250, "2.1.5", "recipient ok");
            }
            Some(PathArgument { path, .. }) if !path.is_empty() => {
                self.refuse(
                    wire,
                    555,
                    "5.5.4",
                    "unknown parameter",
                    "RCPT with a parameter that was not offered",
                );
            }
            _ => self.refuse(wire, 501, "5.5.4", "malformed RCPT", "RCPT"),
        }
    }

    /// A command out of sequence. In a pipelined group whose MAIL was refused this is no fault of the client's.
    fn sequence_refused(&self, wire: &mut Wire, command: &str) {
        if self.esmtp && self.shared.setting(|settings| settings.pipelining) {
            self.reply(wire, 503, "5.5.1", "bad sequence of commands");
        } else {
            self.refuse(wire, 503, "5.5.1", "bad sequence of commands", command);
        }
    }

    /// Whether there is somebody to take a content for; answers the command if not.
    fn has_recipients(&self, wire: &mut Wire, command: &str) -> bool {
        match &self.transaction {
            None => self.sequence_refused(wire, command),
            Some(transaction) if transaction.recipients.is_empty() => {
                self.reply(wire, 554, "5.5.1", "no valid recipients");
            }
            Some(_) => return true,
        }
        false
    }

    /// Waits for the first octets of a content and does what the script says then; the reason if the session ends by that.
    async fn begin_content(&self, wire: &mut Wire, reset: &Reset) -> io::Result<Option<&'static str>> {
        if !wire.some_input(self.shared.pace()).await? {
            return Ok(Some("closed by the client before the content"));
        }
        Ok(match self.follow_script(wire, reset, &Stage::ContentStart, None).await? {
            Verdict::Proceed => None,
            // The client goes on with its content, which would be read as commands: nothing but the end is left.
            Verdict::Answered => Some("answered amid the content by script"),
            Verdict::End(end) => Some(end),
        })
    }

    async fn data(&mut self, wire: &mut Wire, reset: &Reset) -> io::Result<Next> {
        if !self.has_recipients(wire, "DATA") {
            return Ok(Next::Continue);
        }
        if self.transaction.as_ref().is_some_and(|transaction| !transaction.chunks.is_empty()) {
            self.refuse(wire, 503, "5.5.1", "DATA behind BDAT", "DATA");
            return Ok(Next::Continue);
        }
        wire.queue(b"354 end with <CRLF>.<CRLF>\r\n");
        wire.flush().await?;
        if let Some(end) = self.begin_content(wire, reset).await? {
            return Ok(Next::End(end));
        }
        let shared = Arc::clone(&self.shared);
        match wire.content(|| shared.pace()).await? {
            Some(content) => self.end_of_content(wire, reset, content).await,
            None => Ok(Next::End("closed by the client amid the content")),
        }
    }

    /// BDAT (RFC 3030 §2). The chunk is read whatever becomes of it; one whose length is unknown would be read as commands.
    async fn chunk(&mut self, wire: &mut Wire, reset: &Reset, argument: &str) -> io::Result<Next> {
        let (octets, last) = argument
            .split_once(' ')
            .map_or((argument, false), |(octets, last)| (octets, last.eq_ignore_ascii_case("LAST")));
        let Ok(octets) = octets.parse::<usize>() else {
            self.refuse(wire, 501, "5.5.4", "malformed BDAT", "BDAT");
            return Ok(Next::End("closed behind BDAT without a length"));
        };
        if !self.shared.setting(|settings| settings.chunking) {
            self.violation("BDAT was not offered (RFC 3030 §2)");
        }
        let wanted = self.has_recipients(wire, "BDAT");
        if wanted
            && octets > 0
            && let Some(end) = self.begin_content(wire, reset).await?
        {
            return Ok(Next::End(end));
        }
        let shared = Arc::clone(&self.shared);
        let Some(chunk) = wire.octets(octets, || shared.pace()).await? else {
            return Ok(Next::End("closed by the client amid a chunk"));
        };
        let Some(transaction) = self.transaction.as_mut().filter(|_| wanted) else {
            return Ok(Next::Continue);
        };
        transaction.chunks.extend_from_slice(&chunk);
        if last {
            let content = std::mem::take(&mut transaction.chunks).freeze();
            return self.end_of_content(wire, reset, ReadContent::without_transparency(content)).await;
        }
        self.reply(wire, 250, "2.0.0", "taken");
        Ok(Next::Continue)
    }

    async fn end_of_content(
        &mut self,
        wire: &mut Wire,
        reset: &Reset,
        read: ReadContent,
    ) -> io::Result<Next> {
        let transaction = self.transaction.take().unwrap_or_default();
        self.judge_content(&read, &transaction, wire.pending_input());
        if self
            .shared
            .setting(|settings| settings.size)
            .is_some_and(|limit| read.content.len() as u64 > limit)
        {
            self.reply(wire, 552, "5.3.4", "message too big");
            return Ok(Next::Continue);
        }
        let occurrence = Occurrence::new(&Stage::Content, self.carried);
        let Some(action) = self.shared.script.decide(occurrence) else {
            self.keep(transaction, read, true);
            self.reply(wire, 250, "2.0.0", "kept");
            return Ok(Next::Continue);
        };
        let action = match action {
            Action::Delay(_) | Action::Hold => {
                self.carry_out(wire, reset, action).await?;
                self.keep(transaction, read, true);
                self.reply(wire, 250, "2.0.0", "kept");
                return Ok(Next::Continue);
            }
            Action::KeepThenClose | Action::KeepThenStall | Action::KeepThenReply(_) => {
                self.keep(transaction, read, false);
                action
            }
            other => other,
        };
        Ok(match self.carry_out(wire, reset, action).await? {
            Verdict::Proceed | Verdict::Answered => Next::Continue,
            Verdict::End(end) => Next::End(end),
        })
    }

    fn judge_content(&self, read: &ReadContent, transaction: &Transaction, pending: usize) {
        if read.bare_line_end {
            self.violation("content with a bare CR or LF (RFC 5321 §2.3.8)");
        }
        if !transaction.eight_bit && !read.content.is_ascii() {
            self.violation("8-bit content without BODY=8BITMIME (RFC 6152 §3)");
        }
        if pending > 0 && !(self.esmtp && self.shared.setting(|settings| settings.pipelining)) {
            self.violation("more was sent before the reply to the content though PIPELINING was not offered");
        }
    }

    fn keep(&mut self, transaction: Transaction, read: ReadContent, acknowledged: bool) {
        let message = ReceivedMessage {
            session: self.id,
            index: self.carried,
            reverse_path: transaction.reverse_path,
            mail_parameters: transaction.parameters,
            recipients: transaction.recipients,
            content: read.content,
            tls: self.encrypted,
            user: self.claim.as_ref().map(|claim| claim.user.clone()),
            acknowledged,
            received: Instant::now(),
        };
        self.carried += 1;
        self.shared.record.change_session(self.id, |session| session.messages += 1);
        self.shared.record.change(|ledger| ledger.messages.push(message));
    }

    async fn follow_script(
        &self,
        wire: &mut Wire,
        reset: &Reset,
        stage: &Stage,
        recipient: Option<&str>,
    ) -> io::Result<Verdict> {
        let occurrence = Occurrence { stage, recipient, carried: self.carried };
        match self.shared.script.decide(occurrence) {
            Some(action) => self.carry_out(wire, reset, action).await,
            None => Ok(Verdict::Proceed),
        }
    }

    async fn carry_out(&self, wire: &mut Wire, reset: &Reset, action: Action) -> io::Result<Verdict> {
        match action {
            Action::Reply(reply) | Action::KeepThenReply(reply) => {
                wire.queue(format!("{}\r\n", reply.trim_end()).as_bytes());
                Ok(Verdict::Answered)
            }
            Action::ReplyThenClose(reply) => {
                wire.queue(format!("{}\r\n", reply.trim_end()).as_bytes());
                Ok(Verdict::End("closed after a reply by script"))
            }
            Action::Raw(octets) => {
                wire.queue(&octets);
                wire.flush().await?;
                Ok(Verdict::Answered)
            }
            Action::RawThenClose(octets) => {
                wire.queue(&octets);
                Ok(Verdict::End("closed after raw octets by script"))
            }
            Action::Delay(delay) => {
                wire.flush().await?;
                tokio::time::sleep(delay).await;
                Ok(Verdict::Proceed)
            }
            Action::Hold => {
                wire.flush().await?;
                self.shared.script.released().await;
                Ok(Verdict::Proceed)
            }
            Action::Close | Action::KeepThenClose => {
                wire.flush().await?;
                Ok(Verdict::End("closed by script"))
            }
            Action::Abort => {
                wire.flush().await?;
                reset.arm()?;
                // As an error it skips the orderly close, which would send FIN before RST.
                Err(io::Error::new(io::ErrorKind::ConnectionAborted, "reset by script"))
            }
            Action::Stall | Action::KeepThenStall => {
                wire.flush().await?;
                wire.drain().await?;
                Ok(Verdict::End("closed by the client after a stall by script"))
            }
        }
    }

    fn reply(&self, wire: &mut Wire, code: u16, enhanced: &str, text: &str) {
        let enhanced_too = self.esmtp && self.shared.setting(|settings| settings.enhanced_status_codes);
        let enhanced = if enhanced_too { format!("{enhanced} ") } else { String::new() };
        wire.queue(format!("{code} {enhanced}{text}\r\n").as_bytes());
    }

    /// Refuses what a client that follows the protocol would not have sent, and holds it against this one.
    fn refuse(&self, wire: &mut Wire, code: u16, enhanced: &str, text: &str, command: &str) {
        self.violation(format!("{command} was refused: {text}"));
        self.reply(wire, code, enhanced, text);
    }

    fn violation(&self, what: impl Into<String>) {
        self.shared.record.violation(self.id, what);
    }
}

/// The stage a command stands for, and the recipient at RCPT.
fn stage_of(verb: &str, argument: &str) -> (Option<Stage>, Option<String>) {
    let stage = match verb {
        "EHLO" | "HELO" => Stage::Ehlo,
        "STARTTLS" => Stage::StartTls,
        "AUTH" => Stage::Authentication,
        "MAIL" => Stage::Mail,
        "RCPT" => {
            let recipient = path_argument(argument, "TO:").map(|argument| argument.path);
            return (Some(Stage::Recipient), recipient);
        }
        "DATA" => Stage::Data,
        "RSET" => Stage::Reset,
        "NOOP" => Stage::Noop,
        "QUIT" => Stage::Quit,
        _ => return (None, None),
    };
    (Some(stage), None)
}

fn shown_auth(argument: &str) -> String {
    format!("AUTH {}", argument.split(' ').next().unwrap_or_default())
}

fn declared_size(parameters: &[String]) -> u64 {
    let size = |parameter: &String| {
        parameter.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("SIZE"))?.1.parse().ok()
    };
    parameters.iter().find_map(size).unwrap_or(0)
}
