//! One attempt: octets that are sent, and the replies they must get: those and no more.

use postroad_tests::smtp_client::{ClientError, SmtpClient};

use crate::setting::{Port, Setting};

/// How far the session is when the attempt begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The connection stands; the client has read nothing.
    Connected,
    /// Greeted, in the clear on any port but 465's.
    Greeted,
    /// EHLO has been said, under TLS where the listener has it.
    Ready,
    /// The user has authenticated as well.
    Authenticated,
    /// Further, MAIL and one RCPT were accepted.
    Transaction,
    /// Further, DATA was answered 354.
    Content,
}

/// An attempt.
pub struct Probe {
    /// What is tried.
    pub name: String,
    port: Port,
    start: Start,
    /// What is sent, and the codes of the replies, in order: `550|553` where either is right; `closed` when nothing more comes
    /// and the connection is closed, `alert` when TLS may have had a last word.
    exchange: Vec<(Vec<u8>, &'static str)>,
}

/// An attempt, written as it stands in the tables.
pub fn probe<const N: usize>(
    name: &str,
    port: Port,
    start: Start,
    exchange: [(&[u8], &'static str); N],
) -> Probe {
    let exchange = exchange.into_iter().map(|(octets, codes)| (octets.to_vec(), codes)).collect();
    Probe { name: name.to_owned(), port, start, exchange }
}

/// The same for octets that are put together.
pub fn composed(name: String, start: Start, octets: Vec<u8>, codes: &'static str) -> Probe {
    Probe { name, port: Port::Smtp, start, exchange: vec![(octets, codes)] }
}

impl Probe {
    /// Makes the attempt.
    ///
    /// # Errors
    /// A sentence that says what came instead of what must.
    pub async fn run(&self, setting: &Setting) -> Result<(), String> {
        let mut client = self.begin(setting).await;
        for (octets, codes) in &self.exchange {
            let shown = octets.escape_ascii().to_string();
            let shown = &shown[..shown.len().min(120)];
            if let Err(error) = client.send(octets).await {
                return Err(format!("{}: {shown}: {error}", self.name));
            }
            for code in codes.split_whitespace() {
                meets(&mut client, code).await.map_err(|found| format!("{}: {shown}: {found}", self.name))?;
                if matches!(code, "closed" | "alert") {
                    return Ok(());
                }
            }
        }
        // No reply is left over: the next one is that to VRFY.
        client.send(b"VRFY x\r\n").await.map_err(|error| error.to_string())?;
        meets(&mut client, "252|530").await.map_err(|found| format!("{}: afterwards: {found}", self.name))
    }

    async fn begin(&self, setting: &Setting) -> SmtpClient {
        if self.start == Start::Connected {
            return setting.connect(self.port).await;
        }
        if self.start == Start::Greeted {
            let mut client = setting.connect(self.port).await;
            client.reply().await.unwrap();
            return client;
        }
        let mut client = setting.client(self.port).await;
        if self.start == Start::Authenticated {
            let reply = client.auth_plain(crate::setting::USER, crate::setting::PASSWORD).await.unwrap();
            assert_eq!(reply.code, 235, "{}: {reply}", self.name);
        }
        let mut commands = Vec::new();
        if matches!(self.start, Start::Transaction | Start::Content) {
            commands = vec![("MAIL FROM:<a@sender.example>", 250), ("RCPT TO:<b@recipient.example>", 250)];
        }
        if self.start == Start::Content {
            commands.push(("DATA", 354));
        }
        for (command, code) in commands {
            let reply = client.command(command).await.unwrap();
            assert_eq!(reply.code, code, "{}: {command}: {reply}", self.name);
        }
        client
    }
}

async fn meets(client: &mut SmtpClient, expected: &str) -> Result<(), String> {
    if matches!(expected, "closed" | "alert") {
        let mut rest = client.closed().await.map_err(|error| format!("expected the end: {error}"))?;
        // TLS says in its own words why it ends: an alert record (RFC 8446 §5.1).
        if expected == "alert" && rest.first() == Some(&21) {
            rest.clear();
        }
        return if rest.is_empty() {
            Ok(())
        } else {
            Err(format!("expected the end, got {}", rest.escape_ascii()))
        };
    }
    match client.reply().await {
        Ok(reply) if expected.split('|').any(|code| code == reply.code.to_string()) => Ok(()),
        Ok(reply) => Err(format!("expected {expected}, got {reply}")),
        Err(ClientError::Connection(error)) => {
            Err(format!("expected {expected}, the connection broke: {error}"))
        }
        Err(error) => Err(format!("expected {expected}: {error}")),
    }
}

/// Makes all attempts, and tells of all that failed.
pub async fn run_all(probes: &[Probe], setting: &Setting) {
    let mut failures = Vec::new();
    for probe in probes {
        failures.extend(probe.run(setting).await.err());
    }
    assert!(failures.is_empty(), "{} of {} probes:\n{}", failures.len(), probes.len(), failures.join("\n"));
}
