//! A relay with a listener of each kind, and the fake upstream behind it. It serves one network, one user, and two domains.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use postroad_crds::relay_config::{ClientCertificateRequest, RelayConfig};
use postroad_tests::certificates::{CertificateAuthority, IssuedCertificate};
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_client::SmtpClient;
use postroad_tests::smtp_server::SmtpServer;

/// How long anything that is awaited may take.
pub const LIMIT: Duration = Duration::from_secs(30);
/// The user whom the relay knows; base64 in the probes.
pub const USER: &str = "app";
/// The user's password.
pub const PASSWORD: &str = "correct horse";

/// A network that holds the probing client, and one that does not.
pub const OURS: &str = "127.0.0.0/8";
pub const ELSEWHERE: &str = "192.0.2.0/24";

/// A listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// In the clear, no AUTH.
    Smtp,
    /// STARTTLS and AUTH required.
    Submission,
    /// TLS from the first octet, AUTH required.
    Submissions,
    /// In the clear, no AUTH, and a bare LF becomes CRLF.
    Normalising,
    /// In the clear, no AUTH, and load balancers from [`BALANCERS`] are believed.
    Proxied,
    /// TLS from the first octet, a certificate of [`Setting::clients`] required, no AUTH.
    Certified,
}

/// The network whose PROXY protocol headers [`Port::Proxied`] believes.
pub const BALANCERS: &str = "127.2.0.0/16";
/// The name whose certificates are admitted.
pub const CERTIFIED: &str = "certified.example";

/// The parts of one test.
pub struct Setting {
    pub upstream: SmtpServer,
    pub authority: CertificateAuthority,
    /// Issues the clients' certificates.
    pub clients: CertificateAuthority,
    pub relay: RelayProcess,
    ports: [u16; 6],
    connected: AtomicU16,
}

impl Setting {
    /// Starts upstream and relay; clients from `network` need no password.
    pub async fn start(network: &str) -> Self {
        Self::start_with(network, |_| {}).await
    }

    /// The same with something set otherwise.
    pub async fn start_with(network: &str, adjust: impl FnOnce(&mut RelayConfig)) -> Self {
        let upstream = SmtpServer::plain().await.unwrap();
        upstream.change(|settings| settings.further_extensions = vec!["SMTPUTF8".to_owned()]);
        let authority = CertificateAuthority::new("Postroad abuse").unwrap();
        let issued = authority.issue(&["localhost"]).unwrap();
        let clients = CertificateAuthority::new("Postroad abuse clients").unwrap();
        let ports = [(); 6].map(|()| free_port().unwrap());
        let mut config = config(network, ports, &upstream, &issued);
        config.listeners[Port::Certified as usize].client_certificate =
            Some(ClientCertificateRequest { required: true, ca_bundle_pem: clients.pem() });
        adjust(&mut config);
        let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
        Self { upstream, authority, clients, relay, ports, connected: AtomicU16::new(0) }
    }

    /// A connection to a listener; nothing has been read. Each comes from an address of its own, because the relay remembers
    /// what an address has done.
    pub async fn connect(&self, port: Port) -> SmtpClient {
        let [high, low] = self.connected.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        self.connect_from(Ipv4Addr::new(127, 1, high, low), port).await
    }

    /// The same from a given address.
    pub async fn connect_from(&self, source: Ipv4Addr, port: Port) -> SmtpClient {
        let address = ([127, 0, 0, 1], self.ports[port as usize]).into();
        let mut client = SmtpClient::connect_from(source, address).await.unwrap();
        client.set_patience(LIMIT);
        client
    }

    /// A client of a listener that has been greeted and has said EHLO, under TLS where the listener has it.
    pub async fn client(&self, port: Port) -> SmtpClient {
        let mut client = self.connect(port).await;
        if port == Port::Submissions {
            client.encrypt("localhost", &self.authority.pem()).await.unwrap();
        }
        client.reply().await.unwrap();
        client.ehlo("client.example").await.unwrap();
        if port == Port::Submission {
            client.starttls("localhost", &self.authority.pem()).await.unwrap();
            client.ehlo("client.example").await.unwrap();
        }
        client
    }

    /// Ends with a message that is in order: whatever was accepted before it would be there too.
    pub async fn only_what_is_in_order_arrives(&self, messages: usize) {
        let mut client = self.client(Port::Submissions).await;
        client.auth_plain(USER, PASSWORD).await.unwrap();
        let content = b"Subject: the last\r\n\r\nthe last\r\n";
        let reply =
            client.message("last@sender.example", &["last@recipient.example"], content).await.unwrap();
        assert_eq!(reply.code, 250, "{reply}");
        let last = |ledger: &postroad_tests::smtp_server::Ledger| {
            ledger.messages.iter().any(|message| message.reverse_path == "last@sender.example")
                && ledger.messages.len() > messages
        };
        self.upstream.wait_until("the last message", LIMIT, last).await.unwrap();
        let arrived = self.upstream.messages();
        let senders: Vec<&str> = arrived.iter().map(|message| message.reverse_path.as_str()).collect();
        assert_eq!(arrived.len(), messages + 1, "the upstream got {senders:?}");
        assert!(self.upstream.violations().is_empty(), "{:?}", self.upstream.violations());
    }
}

fn config(network: &str, ports: [u16; 6], upstream: &SmtpServer, issued: &IssuedCertificate) -> RelayConfig {
    let indented = |pem: &str| pem.trim_end().replace('\n', "\n    ");
    let text = format!(
        "version: relay-config.postroad.dev/v1
pool: {{namespace: mail, name: main}}
replicas: 1
hostname: relay.example
listeners:
- {{name: smtp, address: '127.0.0.1:{smtp}', tls: None, authentication: None}}
- {{name: submission, address: '127.0.0.1:{submission}', tls: Required, authentication: Required}}
- {{name: submissions, address: '127.0.0.1:{submissions}', tls: Implicit, authentication: Required}}
- {{name: normalising, address: '127.0.0.1:{normalising}', tls: None, authentication: None, bareNewline: Normalise}}
- {{name: proxied, address: '127.0.0.1:{proxied}', tls: None, authentication: None, proxies: [{BALANCERS}]}}
- {{name: certified, address: '127.0.0.1:{certified}', tls: Implicit, authentication: None}}
certificate:
  certificateChainPem: |
    {chain}
  privateKeyPem: |
    {key}
identities:
- {{name: network, match: {{network: {{cidrs: [{network}]}}}}}}
- {{name: certified, match: {{clientCertificate: {{dnsNames: [{CERTIFIED}]}}}}}}
- {{name: users, match: {{password: {{users: {{'{USER}': '{PASSWORD}'}}}}}}}}
routes: [{{name: all, recipientDomains: [recipient.example, relay.example], upstreams: [{{name: service}}]}}]
upstreams:
- name: service
  destination: {{smarthost: {{host: 127.0.0.1, ports: [{{port: {port}, tls: None}}], tls: {{}}}}}}
  connections: {{maximum: 4, messagesPerConnection: 500, idleTimeoutSeconds: 30, maximumAgeSeconds: 900}}
queue: {{expireAfterSeconds: 600, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 1000000000}}
limits: {{messageBytes: 1000000, recipientsPerMessage: 10, connections: 100, connectionsPerClient: 20}}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 10}}
",
        smtp = ports[0],
        submission = ports[1],
        submissions = ports[2],
        normalising = ports[3],
        proxied = ports[4],
        certified = ports[5],
        chain = indented(&issued.certificate_pem),
        key = indented(&issued.key_pem),
        port = upstream.port(),
    );
    RelayConfig::from_yaml(&text).unwrap()
}
