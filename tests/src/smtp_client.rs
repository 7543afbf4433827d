//! A raw SMTP client for tests: it sends any octets and reads replies, and knows as little SMTP as that takes.
//!
//! Not a model client: it does what a test tells it to, right or wrong. RFC 5321 §4.2 (replies), RFC 3207 (STARTTLS).
//! Called by the suites and by `load`.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::certificates::{CertificateError, IssuedCertificate, client_config};
use crate::stream::BoxedStream;

/// How long a client waits for a reply unless a test says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// More than any reply a test expects; what goes beyond is a fault of the server.
const LONGEST_REPLY: usize = 256 * 1024;

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket or TLS failed.
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    /// The server closed the connection where a reply was due.
    #[error("the server closed the connection where a reply was due{}", pending_text(.pending))]
    Closed {
        /// What had come of the reply.
        pending: String,
    },
    /// No complete reply came in time.
    #[error("no complete reply within {waited:?}{}", pending_text(.pending))]
    TimedOut {
        /// How long the client waited.
        waited: Duration,
        /// What had come of the reply.
        pending: String,
    },
    /// What came is not a reply (RFC 5321 §4.2).
    #[error("not an SMTP reply: {0:?}")]
    Malformed(String),
    /// The server refused a step that the client could not go on without.
    #[error("{step} was answered {reply}")]
    Refused {
        /// The command, without its credentials.
        step: String,
        /// The answer.
        reply: Reply,
    },
    /// The trust anchor is unusable.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

fn pending_text(pending: &str) -> String {
    if pending.is_empty() { String::new() } else { format!(", after {pending:?}") }
}

/// A reply: one code, one or more lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The code, from 200 to 599.
    pub code: u16,
    /// The lines without code, separator and line end.
    pub lines: Vec<String>,
}

impl Reply {
    /// The lines joined by a line feed.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// The enhanced status code (RFC 2034) that begins the first line, as `5.7.1`.
    #[must_use]
    pub fn enhanced(&self) -> Option<&str> {
        let first = self.lines.first()?.split(' ').next()?;
        let parts: Vec<&str> = first.split('.').collect();
        let numbers =
            parts.iter().all(|part| !part.is_empty() && part.bytes().all(|octet| octet.is_ascii_digit()));
        (parts.len() == 3 && numbers).then_some(first)
    }

    /// Whether the code is of the 2xx kind.
    #[must_use]
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// Whether the code is of the 4xx kind.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// Whether an answer to EHLO offers `keyword`, in whatever case.
    #[must_use]
    pub fn offers(&self, keyword: &str) -> bool {
        let offered =
            |line: &String| line.split(' ').next().is_some_and(|first| first.eq_ignore_ascii_case(keyword));
        self.lines.iter().skip(1).any(offered)
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.lines.join(" / "))
    }
}

/// How a test client protects its connection.
#[derive(Clone, Debug, Default)]
pub enum Security {
    /// In the clear.
    #[default]
    None,
    /// STARTTLS, with this name expected in the certificate and this trust anchor (PEM).
    StartTls {
        /// A DNS name or an IP address.
        server_name: String,
        /// The trust anchor.
        ca_pem: String,
    },
    /// TLS from the first octet, otherwise the same.
    Implicit {
        /// A DNS name or an IP address.
        server_name: String,
        /// The trust anchor.
        ca_pem: String,
    },
}

/// A connection to an SMTP server.
pub struct SmtpClient {
    stream: Option<BoxedStream>,
    input: BytesMut,
    patience: Duration,
}

impl SmtpClient {
    /// Connects and reads nothing: the greeting is the first reply.
    ///
    /// # Errors
    /// [`ClientError::Connection`] when the connection is refused.
    pub async fn connect(address: SocketAddr) -> Result<Self, ClientError> {
        Self::over(TcpStream::connect(address).await?)
    }

    /// The same from `source`, for servers that tell clients apart by their addresses: all of 127.0.0.0/8 is this machine.
    ///
    /// # Errors
    /// As [`Self::connect`], and when `source` is not an address of this machine.
    pub async fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Result<Self, ClientError> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        Self::over(socket.connect(address).await?)
    }

    fn over(stream: TcpStream) -> Result<Self, ClientError> {
        stream.set_nodelay(true)?;
        Ok(Self { stream: Some(Box::new(stream)), input: BytesMut::new(), patience: PATIENCE })
    }

    /// Connects and performs the TLS handshake at once (implicit TLS).
    ///
    /// # Errors
    /// [`ClientError::Connection`], also when the certificate is not trusted; [`ClientError::Certificate`].
    pub async fn connect_tls(
        address: SocketAddr,
        server_name: &str,
        ca_pem: &str,
    ) -> Result<Self, ClientError> {
        let mut client = Self::connect(address).await?;
        client.encrypt(server_name, ca_pem).await?;
        Ok(client)
    }

    /// Connects as `security` says, reads the greeting and says EHLO, before and after STARTTLS.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when a step is not answered positively; else as the single steps.
    pub async fn open(address: SocketAddr, security: &Security, name: &str) -> Result<Self, ClientError> {
        let mut client = match security {
            Security::Implicit { server_name, ca_pem } => {
                Self::connect_tls(address, server_name, ca_pem).await?
            }
            Security::None | Security::StartTls { .. } => Self::connect(address).await?,
        };
        expect(client.reply().await?, "the connection")?;
        client.ehlo(name).await?;
        if let Security::StartTls { server_name, ca_pem } = security {
            client.starttls(server_name, ca_pem).await?;
            client.ehlo(name).await?;
        }
        Ok(client)
    }

    /// Waits at most this long for each reply from now on.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Sends exactly these octets.
    ///
    /// # Errors
    /// [`ClientError::Connection`]; [`ClientError::TimedOut`] when the server takes nothing for as long as the patience lasts.
    pub async fn send(&mut self, octets: &[u8]) -> Result<(), ClientError> {
        let waited = self.patience;
        let stream = self.stream()?;
        let writing = async {
            stream.write_all(octets).await?;
            stream.flush().await
        };
        match tokio::time::timeout(waited, writing).await {
            Ok(written) => Ok(written?),
            Err(_) => Err(ClientError::TimedOut { waited, pending: "sending".to_owned() }),
        }
    }

    /// Sends `line` with CRLF and reads the reply to it.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::reply`].
    pub async fn command(&mut self, line: &str) -> Result<Reply, ClientError> {
        self.send(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Reads the next reply, however many lines it has.
    ///
    /// # Errors
    /// [`ClientError::Closed`], [`ClientError::TimedOut`], [`ClientError::Malformed`] or [`ClientError::Connection`].
    pub async fn reply(&mut self) -> Result<Reply, ClientError> {
        let waited = self.patience;
        let outcome = tokio::time::timeout(waited, self.read_reply()).await;
        outcome.unwrap_or_else(|_| Err(ClientError::TimedOut { waited, pending: self.pending() }))
    }

    /// Says EHLO and returns the positive answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when it is not positive; else as [`Self::command`].
    pub async fn ehlo(&mut self, name: &str) -> Result<Reply, ClientError> {
        expect(self.command(&format!("EHLO {name}")).await?, "EHLO")
    }

    /// Asks for STARTTLS and performs the handshake. EHLO has to be said again.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when the server declines; else as [`Self::connect_tls`].
    pub async fn starttls(&mut self, server_name: &str, ca_pem: &str) -> Result<(), ClientError> {
        expect(self.command("STARTTLS").await?, "STARTTLS")?;
        self.encrypt(server_name, ca_pem).await
    }

    /// Performs the TLS handshake now, whatever was said before.
    ///
    /// # Errors
    /// [`ClientError::Connection`], also when the certificate is not trusted; [`ClientError::Certificate`].
    pub async fn encrypt(&mut self, server_name: &str, ca_pem: &str) -> Result<(), ClientError> {
        self.encrypt_as(server_name, ca_pem, None).await
    }

    /// The same, with a certificate to show to a server that asks for one. A server that refuses it may say so only where the
    /// first reply is due (RFC 8446 §4.4.2.4).
    ///
    /// # Errors
    /// As [`Self::encrypt`].
    pub async fn encrypt_as(
        &mut self,
        server_name: &str,
        ca_pem: &str,
        shown: Option<&IssuedCertificate>,
    ) -> Result<(), ClientError> {
        let connector = TlsConnector::from(client_config(ca_pem, shown)?);
        let server_name = ServerName::try_from(server_name.to_owned()).map_err(io::Error::other)?;
        let stream = self.stream.take().ok_or_else(not_connected)?;
        let handshake = tokio::time::timeout(self.patience, connector.connect(server_name, stream)).await;
        let stream = handshake
            .map_err(|_| ClientError::TimedOut { waited: self.patience, pending: "TLS".to_owned() })??;
        self.stream = Some(Box::new(stream));
        Ok(())
    }

    /// Authenticates with PLAIN (RFC 4616) and returns the answer, positive or not.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn auth_plain(&mut self, user: &str, password: &str) -> Result<Reply, ClientError> {
        self.command(&format!("AUTH PLAIN {}", STANDARD.encode(format!("\0{user}\0{password}")))).await
    }

    /// Authenticates with LOGIN and returns the answer that decided, positive or not.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn auth_login(&mut self, user: &str, password: &str) -> Result<Reply, ClientError> {
        let mut reply = self.command("AUTH LOGIN").await?;
        for answer in [user, password] {
            if reply.code != 334 {
                return Ok(reply);
            }
            reply = self.command(&STANDARD.encode(answer)).await?;
        }
        Ok(reply)
    }

    /// Sends one message, a command at a time, and returns the reply that decided: the first that was not positive, else
    /// that to the content. `content` ends in CRLF; transparency is added here.
    ///
    /// # Errors
    /// As [`Self::command`].
    pub async fn message(&mut self, from: &str, to: &[&str], content: &[u8]) -> Result<Reply, ClientError> {
        let mut commands = vec![format!("MAIL FROM:<{from}>")];
        commands.extend(to.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
        for command in commands {
            let reply = self.command(&command).await?;
            if !reply.is_positive() {
                return Ok(reply);
            }
        }
        let reply = self.command("DATA").await?;
        if reply.code != 354 {
            return Ok(reply);
        }
        self.send(&stuffed(content)).await?;
        self.reply().await
    }

    /// Reads to the end of the connection and returns what still came; the proof that the server has closed.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] when the connection stays open. A reset counts as closed.
    pub async fn closed(&mut self) -> Result<Vec<u8>, ClientError> {
        let waited = self.patience;
        let mut rest = std::mem::take(&mut self.input).to_vec();
        let Some(stream) = &mut self.stream else { return Ok(rest) };
        match tokio::time::timeout(waited, stream.read_to_end(&mut rest)).await {
            Ok(_) => Ok(rest),
            Err(_) => {
                Err(ClientError::TimedOut { waited, pending: String::from_utf8_lossy(&rest).into_owned() })
            }
        }
    }

    fn stream(&mut self) -> Result<&mut BoxedStream, ClientError> {
        Ok(self.stream.as_mut().ok_or_else(not_connected)?)
    }

    fn pending(&self) -> String {
        String::from_utf8_lossy(&self.input).into_owned()
    }

    async fn read_reply(&mut self) -> Result<Reply, ClientError> {
        loop {
            if let Some((reply, length)) = parse(&self.input)? {
                let _ = self.input.split_to(length);
                return Ok(reply);
            }
            if self.input.len() > LONGEST_REPLY {
                return Err(ClientError::Malformed(format!(
                    "{LONGEST_REPLY} octets without the end of a reply"
                )));
            }
            let stream = self.stream.as_mut().ok_or_else(not_connected)?;
            if stream.read_buf(&mut self.input).await? == 0 {
                return Err(ClientError::Closed { pending: self.pending() });
            }
        }
    }
}

fn not_connected() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "a failed TLS handshake used the connection up")
}

fn expect(reply: Reply, step: &str) -> Result<Reply, ClientError> {
    if reply.is_positive() { Ok(reply) } else { Err(ClientError::Refused { step: step.to_owned(), reply }) }
}

/// The first reply in `input` and its length; `None` while it is not complete.
fn parse(input: &[u8]) -> Result<Option<(Reply, usize)>, ClientError> {
    let (mut lines, mut at) = (Vec::new(), 0);
    while let Some(length) = input[at..].windows(2).position(|pair| pair == b"\r\n") {
        let line = String::from_utf8_lossy(&input[at..at + length]);
        let malformed = || ClientError::Malformed(line.to_string());
        let (code, rest) = line.split_at_checked(3).ok_or_else(malformed)?;
        let code = code.parse().ok().filter(|code| (200..600).contains(code)).ok_or_else(malformed)?;
        let (last, text) = match rest.as_bytes().first() {
            None => (true, ""),
            Some(b' ') => (true, &rest[1..]),
            Some(b'-') => (false, &rest[1..]),
            Some(_) => return Err(malformed()),
        };
        lines.push((code, text.to_owned()));
        at += length + 2;
        if lines.iter().any(|(other, _)| *other != code) {
            return Err(malformed());
        }
        if last {
            let lines = lines.into_iter().map(|(_, text)| text).collect();
            return Ok(Some((Reply { code, lines }, at)));
        }
    }
    Ok(None)
}

/// `content` with transparency and the final dot (RFC 5321 §4.5.2). `content` has to be empty or end in CRLF.
#[must_use]
pub fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(content.len() + content.len() / 32 + 8);
    let mut line_start = true;
    for octet in content {
        if line_start && *octet == b'.' {
            wire.push(b'.');
        }
        line_start = wire.last() == Some(&b'\r') && *octet == b'\n';
        wire.push(*octet);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expected: Option<(u16, &[&str], usize)>) {
        let found = parse(input.as_bytes()).unwrap();
        let expected = expected.map(|(code, lines, length)| {
            (Reply { code, lines: lines.iter().map(ToString::to_string).collect() }, length)
        });
        assert_eq!(found, expected, "{input:?}");
    }

    #[test]
    fn replies_of_one_and_of_many_lines_are_read() {
        check("250 ok\r\n220", Some((250, &["ok"], 8)));
        check("250-a\r\n250-b\r\n250 c\r\n", Some((250, &["a", "b", "c"], 21)));
        check("354\r\n", Some((354, &[""], 5)));
        check("250-a\r\n250", None);
    }

    #[test]
    fn what_is_not_a_reply_is_an_error() {
        for input in ["hello\r\n", "25\r\n", "250_x\r\n", "250-a\r\n251 b\r\n", "999 x\r\n"] {
            assert!(matches!(parse(input.as_bytes()), Err(ClientError::Malformed(_))), "{input:?}");
        }
    }

    #[test]
    fn an_enhanced_status_code_is_told_from_text() {
        let reply = |line: &str| Reply { code: 550, lines: vec![line.to_owned()] };
        assert_eq!(reply("5.7.1 denied").enhanced(), Some("5.7.1"));
        assert_eq!(reply("10.0.0.1 denied").enhanced(), None);
        assert_eq!(reply("no").enhanced(), None);
    }

    #[test]
    fn lines_that_begin_with_a_dot_get_another() {
        assert_eq!(stuffed(b".a\r\nb.\r\n.\r\n"), b"..a\r\nb.\r\n..\r\n.\r\n");
        assert_eq!(stuffed(b""), b".\r\n");
    }
}
