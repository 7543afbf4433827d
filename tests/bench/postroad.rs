//! Postroad's relay, from a release build, with the configuration that the operator would render.

use std::net::{Ipv4Addr, SocketAddr};

use postroad_crds::relay_config::RelayConfig;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};

use crate::contender::Contender;

/// Its name in the report.
pub const NAME: &str = "Postroad";

/// Starts it with its spool on the file system of temporary folders, where Postfix has its queue.
pub async fn start(sink: u16) -> anyhow::Result<Contender> {
    let port = free_port()?;
    let config = RelayConfig::from_yaml(&config(port, sink))?;
    let relay = RelayProcess::start(&config, RelayOptions::default()).await?;
    Ok(Contender {
        name: NAME,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        process: relay.id(),
        _running: Box::new(relay),
    })
}

fn config(port: u16, sink: u16) -> String {
    format!(
        "version: relay-config.postroad.dev/v1
pool: {{namespace: mail, name: bench}}
replicas: 1
hostname: relay.example
listeners: [{{name: smtp, address: '127.0.0.1:{port}', tls: None, authentication: None}}]
identities: [{{name: local, match: {{network: {{cidrs: [127.0.0.0/8]}}}}}}]
routes: [{{name: all, upstreams: [{{name: sink}}]}}]
upstreams:
- name: sink
  destination:
    smarthost:
      host: 127.0.0.1
      ports: [{{port: {sink}, tls: None}}]
      tls: {{}}
  connections: {{maximum: 20, messagesPerConnection: 10000, idleTimeoutSeconds: 30, maximumAgeSeconds: 900}}
queue: {{expireAfterSeconds: 600, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 4000000000}}
limits: {{messageBytes: 100000000, recipientsPerMessage: 100, connections: 1000, connectionsPerClient: 1000}}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 10}}
"
    )
}
