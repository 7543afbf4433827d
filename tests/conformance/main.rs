//! The transcripts of relay/smtp/tests/transcripts/server on the wire: the same files, spoken over TCP to the real relay.
//!
//! In memory the files are compared octet for octet (relay/smtp/tests/protocol). Here the relay answers what there a driver of the
//! test answers, so of a 2yz reply to a command its code is compared, of a refusal its code and its enhanced status code, and of
//! the EHLO reply every line. A file that cannot run here has a reason, and the reasons are few: see [`obstacle`].
#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint does not see as tests")]

mod transcript;

use std::time::Duration;

use postroad_crds::relay_config::RelayConfig;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use transcript::{Line, Transcript};

/// How long the relay may take to answer.
const LIMIT: Duration = Duration::from_secs(20);

/// A relay that takes everything from this machine, with the limits that transcripts have unless they say otherwise.
fn config(port: u16) -> RelayConfig {
    let text = format!(
        "version: relay-config.postroad.dev/v1
pool: {{namespace: mail, name: main}}
replicas: 1
hostname: mail.example.com
listeners: [{{name: smtp, address: '127.0.0.1:{port}', tls: None, authentication: None}}]
identities: [{{name: local, match: {{network: {{cidrs: [127.0.0.0/8]}}}}}}]
routes: [{{name: all, upstream: sandbox}}]
upstreams:
- name: sandbox
  destination: {{sandbox: {{keepMessages: 10}}}}
  connections: {{maximum: 4, messagesPerConnection: 500, idleTimeoutSeconds: 30, maximumAgeSeconds: 900}}
queue: {{expireAfterSeconds: 600, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 1000000000}}
limits: {{messageBytes: 1000, recipientsPerMessage: 100, connections: 100, connectionsPerClient: 100}}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 10}}
"
    );
    RelayConfig::from_yaml(&text).unwrap()
}

/// Why a transcript cannot be spoken to this relay.
fn obstacle(transcript: &Transcript) -> Option<&'static str> {
    let mut lines = transcript.lines.iter();
    if lines.clone().any(|line| line.speaker == '!' && line.text.starts_with("server")) {
        return Some("it needs a listener that is set otherwise");
    }
    if lines.any(|line| line.speaker == '!') {
        return Some("it has its driver do something at a moment that only a driver in memory can choose");
    }
    let refused = ["refused@", "later@", "busy@", "Subject: full"];
    let said = |line: &Line| refused.iter().any(|word| line.text.contains(word));
    transcript.lines.iter().any(said).then_some("its driver refuses by what an address or a message says")
}

struct Connection {
    file: String,
    stream: BufReader<TcpStream>,
}

impl Connection {
    async fn read_line(&mut self, at: usize) -> String {
        let mut line = Vec::new();
        timeout(LIMIT, self.stream.read_until(b'\n', &mut line))
            .await
            .unwrap_or_else(|_| panic!("{}:{at}: no reply", self.file))
            .unwrap();
        String::from_utf8(line).unwrap()
    }

    async fn expect(&mut self, line: &Line) {
        let said = self.read_line(line.number).await;
        let (said, expected) = (said.trim_end_matches("\r\n"), line.text.as_str());
        assert_eq!(decisive(said), decisive(expected), "{}:{}: {said}", self.file, line.number);
    }

    /// Nothing was said but what was expected: the reply to QUIT, or the end of the connection, is what comes next.
    async fn finish(mut self, closed: bool) {
        if !closed {
            self.stream.get_mut().write_all(b"QUIT\r\n").await.unwrap();
            let said = self.read_line(0).await;
            assert!(said.starts_with("221 2.0.0 mail.example.com"), "{}: also said {said}", self.file);
        }
        assert_eq!(self.read_line(0).await, "", "{}: the connection ends", self.file);
    }
}

/// What of a reply line must be as expected.
fn decisive(line: &str) -> &str {
    let (code, text) = line.split_at_checked(4).unwrap_or((line, ""));
    let enhanced = text
        .split(' ')
        .next()
        .filter(|word| word.split('.').count() == 3 && !word.contains(char::is_alphabetic));
    match (code, enhanced) {
        ("220 " | "354 ", _) => code,
        (code, Some(_)) if code.starts_with('2') => code,
        (_, Some(enhanced)) => &line[..code.len() + enhanced.len()],
        (_, None) => line,
    }
}

async fn speak(transcript: &Transcript, port: u16) {
    let stream = timeout(LIMIT, TcpStream::connect(("127.0.0.1", port))).await.unwrap().unwrap();
    let mut connection = Connection { file: transcript.file.clone(), stream: BufReader::new(stream) };
    let mut closed = false;
    let mut group = Vec::new();
    for line in &transcript.lines {
        match line.speaker {
            'C' | 'c' => group.extend(line.octets()),
            'S' => {
                if !group.is_empty() {
                    // A relay that has ended the session may have closed the connection by now.
                    let _ = connection.stream.get_mut().write_all(&std::mem::take(&mut group)).await;
                }
                connection.expect(line).await;
                closed = line.text.starts_with("421") || line.text.starts_with("221");
            }
            _ => {}
        }
    }
    connection.finish(closed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transcript_holds_on_the_wire() {
    let port = free_port().unwrap();
    let relay = RelayProcess::start(&config(port), RelayOptions::default()).await.unwrap();
    let transcripts = transcript::load_all();
    let (left, spoken): (Vec<_>, Vec<_>) =
        transcripts.iter().partition(|transcript| obstacle(transcript).is_some());
    for transcript in &spoken {
        speak(transcript, port).await;
    }
    assert!(spoken.len() >= 85, "only {} transcripts were spoken, {} were not", spoken.len(), left.len());
    drop(relay);
}
