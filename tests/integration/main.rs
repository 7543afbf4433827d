//! The relay as a process between real sockets: the harness' clients in front of it, the fake upstream behind it.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint does not see as tests")]

mod chart;
mod conservation;
mod local;
mod operator;
mod relay;

use postroad_crds::relay_config::RelayConfig;
use postroad_tests::smtp_server::SmtpServer;

/// A relay that listens on `listen` and forwards to `upstream` with STARTTLS and AUTH over at most four sessions.
fn config(listen: u16, upstream: &SmtpServer, password: &str) -> RelayConfig {
    let authority = upstream.ca_pem().replace('\n', "\n        ");
    let text = format!(
        "version: relay-config.postroad.dev/v1
pool: {{namespace: mail, name: main}}
replicas: 1
hostname: relay.example
listeners: [{{name: smtp, address: '127.0.0.1:{listen}', tls: None, authentication: None}}]
identities: [{{name: local, match: {{network: {{cidrs: [127.0.0.0/8]}}}}}}]
routes: [{{name: all, upstream: service}}]
upstreams:
- name: service
  destination:
    smarthost:
      host: localhost
      ports: [{{port: {port}, tls: StartTLS}}]
      tls:
        caBundlePem: |
          {authority}
      credentials: {{username: relay, password: {password}}}
  connections: {{maximum: 4, messagesPerConnection: 500, idleTimeoutSeconds: 30, maximumAgeSeconds: 900}}
queue: {{expireAfterSeconds: 600, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 1000000000}}
limits: {{messageBytes: 10000000, recipientsPerMessage: 100, connections: 100, connectionsPerClient: 100}}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 10}}
",
        port = upstream.port(),
        authority = authority.replace("\n        ", "\n          "),
    );
    RelayConfig::from_yaml(&text).unwrap()
}
