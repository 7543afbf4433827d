//! A relay with a listener of each kind, the fake upstream behind it, and an authority that the clients trust.

use postroad_crds::relay_config::RelayConfig;
use postroad_tests::certificates::{CertificateAuthority, IssuedCertificate};
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::scratch::ScratchFolder;
use postroad_tests::smtp_server::SmtpServer;

/// The user that the relay knows, and the password: hard to quote, yet ASCII, because Python's smtplib sends no other.
pub const USER: &str = "app+1@client.example";
pub const PASSWORD: &str = "p a:s$s/'";

/// A way into the relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In the clear, known by the network.
    Clear,
    /// STARTTLS, then AUTH.
    StartTls,
    /// TLS from the first octet, then AUTH.
    Implicit,
}

impl Way {
    /// All ways.
    pub const ALL: [Self; 3] = [Self::Clear, Self::StartTls, Self::Implicit];
}

/// What the relay allows.
#[derive(Clone, Copy)]
pub struct Rules {
    /// Networks that need no password.
    pub networks: &'static str,
    /// The most octets of a message.
    pub message_bytes: u64,
}

/// Everything that is wanted of a relay for apps.
pub const GENEROUS: Rules = Rules { networks: "127.0.0.0/8", message_bytes: 40_000_000 };
/// Nobody without a password, nothing large.
pub const STRICT: Rules = Rules { networks: "192.0.2.0/24", message_bytes: 100_000 };

/// The parts of one test.
pub struct Setting {
    pub upstream: SmtpServer,
    pub authority: CertificateAuthority,
    pub folder: ScratchFolder,
    relay: RelayProcess,
    ports: [u16; 3],
}

impl Setting {
    /// Starts upstream and relay.
    pub async fn start(rules: Rules) -> Self {
        let upstream = SmtpServer::plain().await.unwrap();
        upstream.change(|settings| settings.further_extensions = vec!["SMTPUTF8".to_owned()]);
        let authority = CertificateAuthority::new("Postroad test clients").unwrap();
        let issued = authority.issue(&["localhost"]).unwrap();
        let ports = Way::ALL.map(|_| free_port().unwrap());
        let config = config(rules, ports, &upstream, &issued);
        let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
        let folder = ScratchFolder::new("postroad-clients-").unwrap();
        Self { upstream, authority, folder, relay, ports }
    }

    /// The relay's port for clients that come by `way`.
    pub fn port(&self, way: Way) -> u16 {
        self.ports[way as usize]
    }

    /// The end of the relay's log, for a failed test.
    pub fn log(&self) -> String {
        self.relay.log().tail(10)
    }
}

fn config(rules: Rules, ports: [u16; 3], upstream: &SmtpServer, issued: &IssuedCertificate) -> RelayConfig {
    let indented = |pem: &str| pem.trim_end().replace('\n', "\n    ");
    let text = format!(
        "version: relay-config.postroad.dev/v1
pool: {{namespace: mail, name: main}}
replicas: 1
hostname: localhost
listeners:
- {{name: smtp, address: '127.0.0.1:{clear}', tls: None, authentication: None}}
- {{name: submission, address: '127.0.0.1:{starttls}', tls: Required, authentication: Required}}
- {{name: submissions, address: '127.0.0.1:{implicit}', tls: Implicit, authentication: Required}}
certificate:
  certificateChainPem: |
    {chain}
  privateKeyPem: |
    {key}
identities:
- {{name: network, match: {{network: {{cidrs: [{networks}]}}}}}}
- {{name: users, match: {{password: {{users: {{'{USER}': \"{PASSWORD}\"}}}}}}}}
routes: [{{name: all, recipientDomains: [recipient.example], upstreams: [{{name: service}}]}}]
upstreams:
- name: service
  destination: {{smarthost: {{host: 127.0.0.1, ports: [{{port: {port}, tls: None}}], tls: {{}}}}}}
  connections: {{maximum: 4, messagesPerConnection: 500, idleTimeoutSeconds: 30, maximumAgeSeconds: 900}}
queue: {{expireAfterSeconds: 600, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 1000000000}}
limits: {{messageBytes: {octets}, recipientsPerMessage: 1000, connections: 100, connectionsPerClient: 100}}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 10}}
",
        clear = ports[0],
        starttls = ports[1],
        implicit = ports[2],
        chain = indented(&issued.certificate_pem),
        key = indented(&issued.key_pem),
        networks = rules.networks,
        port = upstream.port(),
        octets = rules.message_bytes,
    );
    RelayConfig::from_yaml(&text).unwrap()
}
