//! The sandbox: a mail server inside the relay that keeps the newest messages as files and sends nothing.
//!
//! Delivery reaches it over the same kind of session as any smarthost, only through a pipe instead of a socket; so what is
//! tried with it is the real path of a message. Files are `<data>/sandbox/<upstream>/<arrival>.eml`: a few `X-Sandbox-*` lines
//! with envelope and session, then the content as it was sent. They are not synced: a power cut may take the newest.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::BytesMut;
use smtp_protocol::{Event, Reply, ServerConfig, ServerSession};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use crate::message::{MessageId, Timestamp};

const PIPE_OCTETS: usize = 64 * 1024;

/// Opens a session with the sandbox of the upstream `name`; its server ends with the connection.
#[must_use]
pub fn connect(data: &Path, name: &str, keep_messages: usize, session: u64) -> DuplexStream {
    let (client, server) = duplex(PIPE_OCTETS);
    let sandbox = Sandbox { folder: folder(data, name), keep_messages, session, messages: 0, capture: None };
    tokio::spawn(sandbox.serve(server));
    client
}

fn folder(data: &Path, upstream: &str) -> PathBuf {
    data.join("sandbox").join(upstream)
}

struct Sandbox {
    folder: PathBuf,
    keep_messages: usize,
    session: u64,
    messages: u64,
    capture: Option<Capture>,
}

/// A message on its way into a file.
struct Capture {
    head: String,
    file: Option<(PathBuf, std::fs::File)>,
}

impl Sandbox {
    async fn serve(mut self, mut stream: DuplexStream) {
        let config = ServerConfig {
            hostname: "sandbox.invalid".to_owned(),
            banner_text: "ESMTP Postroad sandbox: nothing is sent".to_owned(),
            message_bytes: 0,
            recipients: usize::MAX,
            ..ServerConfig::default()
        };
        let mut session = ServerSession::new(Arc::new(config));
        let mut buffer = BytesMut::with_capacity(PIPE_OCTETS);
        loop {
            let open = self.handle_events(&mut session);
            if stream.write_all(&session.take_output()).await.is_err() || !open {
                return;
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {
                    session.receive(&buffer);
                    buffer.clear();
                }
            }
        }
    }

    /// False when the session is over.
    fn handle_events(&mut self, session: &mut ServerSession) -> bool {
        while let Some(event) = session.poll() {
            match event {
                Event::Mail { reverse_path, .. } => {
                    let number = self.messages + 1;
                    let head = format!(
                        "X-Sandbox-Session: {} message {number}\r\nX-Sandbox-From: <{}>\r\n",
                        self.session,
                        reverse_path.as_str()
                    );
                    self.capture = Some(Capture { head, file: None });
                    session.respond(Reply::new(250, (2, 1, 0), "ok"));
                }
                Event::Recipient { forward_path, .. } => {
                    if let Some(capture) = &mut self.capture {
                        capture.head.push_str(&format!("X-Sandbox-To: <{}>\r\n", forward_path.as_str()));
                    }
                    session.respond(Reply::new(250, (2, 1, 5), "ok"));
                }
                Event::Data => {
                    let begun = self.capture.as_mut().map(|capture| capture.begin(&self.folder));
                    session.respond(match begun {
                        Some(Ok(())) => Reply::bare(354, "go ahead"),
                        Some(Err(error)) => unable(&error),
                        None => Reply::new(503, (5, 5, 1), "bad sequence of commands"),
                    });
                }
                Event::Content(slice) => {
                    if let Some(Capture { file: Some((_, file)), .. }) = &mut self.capture
                        && file.write_all(&slice).is_err()
                    {
                        self.discard();
                    }
                }
                Event::EndOfContent => {
                    let reply = self.finish().unwrap_or_else(|error| unable(&error));
                    session.respond(reply);
                }
                Event::Abort => self.discard(),
                Event::Closed | Event::StartTls => return false,
                Event::Authenticate(_) | Event::LookUpKeys { .. } | Event::Proof { .. } => {
                    session.respond(smtp_protocol::auth::authentication_failed())
                }
            }
        }
        true
    }

    fn finish(&mut self) -> io::Result<Reply> {
        let Some(Capture { file: Some((path, file)), .. }) = self.capture.take() else {
            return Err(io::Error::other("the message could not be written"));
        };
        drop(file);
        std::fs::rename(&path, path.with_extension("eml"))?;
        self.messages += 1;
        self.remove_oldest()?;
        Ok(Reply::new(250, (2, 0, 0), format!("captured as {}", stem(&path))))
    }

    fn remove_oldest(&self) -> io::Result<()> {
        let captured = files(&self.folder)?;
        let surplus = captured.len().saturating_sub(self.keep_messages);
        for path in &captured[..surplus] {
            // Another session of this relay may have been quicker.
            let _ = std::fs::remove_file(path);
        }
        Ok(())
    }

    fn discard(&mut self) {
        if let Some(Capture { file: Some((path, _)), .. }) = self.capture.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Capture {
    fn begin(&mut self, folder: &Path) -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let id = MessageId::new(Timestamp::from(SystemTime::now()), rand::random());
        let path = folder.join(format!("{id}.part"));
        let mut file = std::fs::File::create(&path)?;
        file.write_all(self.head.as_bytes())?;
        self.file = Some((path, file));
        Ok(())
    }
}

fn unable(error: &io::Error) -> Reply {
    Reply::new(452, (4, 3, 1), format!("the sandbox cannot write: {error}"))
}

/// The captured messages of one sandbox, oldest first.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "eml") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// One captured message, as `sandbox list` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The upstream it was meant for.
    pub upstream: String,
    /// Its name; `sandbox show` takes it.
    pub id: String,
    /// The session that brought it, and its number in that session.
    pub session: String,
    /// The reverse-path.
    pub from: String,
    /// The recipients.
    pub to: Vec<String>,
    /// Its Subject, as it stands.
    pub subject: String,
}

/// All captured messages below a relay's data folder, oldest first within an upstream.
///
/// # Errors
/// When a folder or file cannot be read.
pub fn list(data: &Path) -> io::Result<Vec<Captured>> {
    let root = data.join("sandbox");
    let mut captured = Vec::new();
    if !root.exists() {
        return Ok(captured);
    }
    for entry in std::fs::read_dir(root)? {
        let folder = entry?.path();
        for path in files(&folder)? {
            captured.push(describe(&folder, &path)?);
        }
    }
    Ok(captured)
}

fn describe(folder: &Path, path: &Path) -> io::Result<Captured> {
    let content = std::fs::read(path)?;
    let text = String::from_utf8_lossy(&content);
    let header = text.split("\r\n\r\n").next().unwrap_or_default();
    let values = |name: &str| -> Vec<String> {
        let with_name = |line: &str| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        header.split("\r\n").filter_map(with_name).collect()
    };
    let first = |name: &str| values(name).into_iter().next().unwrap_or_default();
    Ok(Captured {
        upstream: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        id: stem(path),
        session: first("X-Sandbox-Session"),
        from: first("X-Sandbox-From"),
        to: values("X-Sandbox-To"),
        subject: first("Subject"),
    })
}

/// The file of one captured message; `None` when there is none of this name.
///
/// # Errors
/// When a folder or file cannot be read.
pub fn show(data: &Path, id: &str) -> io::Result<Option<Vec<u8>>> {
    // Only names that `list` shows are looked up, so that no path can be smuggled in.
    match list(data)?.into_iter().find(|captured| captured.id == id) {
        Some(captured) => std::fs::read(folder(data, &captured.upstream).join(format!("{id}.eml"))).map(Some),
        None => Ok(None),
    }
}
