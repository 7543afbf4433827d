//! A transcript spoken over one connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use postroad_tests::certificates::client_config;
use postroad_tests::relay_process::RelayProcess;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use crate::relays::{HOSTNAME, Relay};
use crate::reply::assert_same;
use crate::transcript::{Line, Transcript};

/// How long the relay may take for anything.
const LIMIT: Duration = Duration::from_secs(20);
/// Rest between two looks at a port that is to close.
const POLL_REST: Duration = Duration::from_millis(5);

trait Octets: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Octets for T {}

struct Connection {
    file: String,
    stream: BufReader<Box<dyn Octets>>,
}

/// Speaks the transcript to the relay, and panics at the first line that is not as it says.
pub(crate) async fn speak(transcript: &Transcript, relay: Rc<Relay>, ca_pem: &str) {
    let stream =
        timeout(LIMIT, TcpStream::connect((Ipv4Addr::LOCALHOST, relay.port))).await.unwrap().unwrap();
    stream.set_nodelay(true).unwrap();
    let mut connection =
        Connection { file: transcript.file.clone(), stream: BufReader::new(Box::new(stream)) };
    if transcript.options().get("tls") == Some(&"established") {
        connection = connection.encrypt(ca_pem).await;
    }
    let mut lines = transcript.lines.iter().peekable();
    let mut group = Vec::new();
    while let Some(line) = lines.next() {
        match (line.speaker, line.text.as_str()) {
            ('C' | 'c', _) => group.extend(line.octets()),
            ('S', _) => {
                connection.send(&mut group).await;
                let mut expected = vec![line];
                while expected.last().is_some_and(|line| line.text.as_bytes().get(3) == Some(&b'-')) {
                    expected.push(lines.next().unwrap());
                }
                connection.expect(&expected).await;
                if ends_the_session(line, lines.peek().copied()) {
                    return connection.expect_end().await;
                }
            }
            ('!', "tls") => connection = connection.encrypt(ca_pem).await,
            ('!', "timeout") => connection.send(&mut group).await,
            ('!', "shutdown") => {
                connection.send(&mut group).await;
                stop(&relay.process, relay.port).await;
            }
            _ => {}
        }
    }
    connection.send(&mut group).await;
    connection.finish().await;
}

/// After 421 and 221, and after any other reply when the session says so itself.
fn ends_the_session(reply: &Line, next: Option<&Line>) -> bool {
    let closed = next.is_some_and(|next| next.speaker == 'E' && next.text == "Closed");
    reply.text.starts_with("421") || reply.text.starts_with("221") || closed
}

/// Asks the relay to stop, and waits until it has told its sessions: that is when it accepts no connection any more.
async fn stop(process: &RelayProcess, port: u16) {
    process.sigterm();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let closed = async {
        while TcpStream::connect(address).await.is_ok() {
            sleep(POLL_REST).await;
        }
    };
    timeout(LIMIT, closed).await.unwrap();
}

impl Connection {
    async fn encrypt(self, ca_pem: &str) -> Self {
        assert!(self.stream.buffer().is_empty(), "{}: said something before TLS", self.file);
        let connector = TlsConnector::from(client_config(ca_pem, None).unwrap());
        let name = ServerName::try_from(HOSTNAME).unwrap();
        let handshake = connector.connect(name, self.stream.into_inner());
        let stream = timeout(LIMIT, handshake).await.unwrap().unwrap();
        Self { file: self.file, stream: BufReader::new(Box::new(stream)) }
    }

    async fn send(&mut self, group: &mut Vec<u8>) {
        let octets = std::mem::take(group);
        let writing = async {
            self.stream.write_all(&octets).await?;
            self.stream.flush().await
        };
        // A relay that has ended the session may have closed the connection by now; what it said before is to be read still.
        let _ = timeout(LIMIT, writing).await.unwrap();
    }

    async fn read_line(&mut self, number: usize) -> String {
        let mut line = Vec::new();
        timeout(LIMIT, self.stream.read_until(b'\n', &mut line))
            .await
            .unwrap_or_else(|_| panic!("{}:{number}: no reply", self.file))
            .unwrap_or_else(|error| panic!("{}:{number}: {error}", self.file));
        String::from_utf8(line).unwrap()
    }

    async fn read_reply(&mut self, number: usize) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let line = self.read_line(number).await;
            let line =
                line.strip_suffix("\r\n").unwrap_or_else(|| panic!("{}:{number}: {line:?}", self.file));
            lines.push(line.to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return lines;
            }
        }
    }

    async fn expect(&mut self, expected: &[&Line]) {
        let number = expected[0].number;
        let said = self.read_reply(number).await;
        let expected: Vec<&str> = expected.iter().map(|line| line.text.as_str()).collect();
        assert_same(&format!("{}:{number}", self.file), &said, &expected);
    }

    /// Nothing was said but what was expected: the reply to QUIT is what comes next.
    async fn finish(mut self) {
        self.send(&mut b"QUIT\r\n".to_vec()).await;
        let said = self.read_line(0).await;
        assert!(said.starts_with("221 2.0.0 mail.example.com"), "{}: also said {said}", self.file);
        self.expect_end().await;
    }

    async fn expect_end(mut self) {
        let said = self.read_line(0).await;
        assert_eq!(said, "", "{}: the connection ends", self.file);
    }
}
