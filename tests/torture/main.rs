//! Torture: the relay as a process, under load, killed, without power, without space, on a volume that fails; and what it
//! says when it cannot keep its promise. Promises P1 and P3, for docs/reference/durability.md.
//!
//! Tests that mount file systems, drop packets or trace the relay are ignored here and run by `make torture` (`run.sh`), as root.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint does not see as tests")]
#![allow(clippy::print_stderr, reason = "the verdicts are what a run is for")]

mod black_hole;
mod clock;
mod damage;
mod disk;
mod hand_over;
mod judge;
mod kills;
mod medium;
mod power;
mod space;
mod start;
mod strace;
mod syncs;
mod volume;

use std::path::Path;
use std::time::Duration;

use postroad_crds::relay_config::RelayConfig;
use postroad_tests::load::Load;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::SmtpServer;

/// How long anything that is awaited may take.
const LIMIT: Duration = Duration::from_secs(120);

/// How many crashes a scenario has: few by default, what `variable` says in a long run.
fn rounds(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().map_or(default, |value| value.parse().unwrap())
}

/// A relay in front of a fake upstream, with a load that goes on until it is stopped.
struct Scene {
    upstream: SmtpServer,
    relay: RelayProcess,
    load: Load,
}

impl Scene {
    /// The spool is in `data`, or in a temporary folder, and may hold `octets`.
    async fn new(data: Option<&Path>, octets: u64) -> Self {
        let options = RelayOptions { data: data.map(Into::into), ..RelayOptions::default() };
        Self::with(octets, options, |_| {}).await
    }

    /// The relay is run with `options` and its configuration as `adapt` leaves it.
    async fn with(octets: u64, options: RelayOptions, adapt: impl FnOnce(&mut RelayConfig)) -> Self {
        let (upstream, port) = (SmtpServer::plain().await.unwrap(), free_port().unwrap());
        let mut config = config(port, &upstream, octets);
        adapt(&mut config);
        let relay = RelayProcess::start(&config, options).await.unwrap();
        let mut load = Load::to_address(([127, 0, 0, 1], port).into());
        // Ends by being stopped.
        load.messages_per_client = 10_000;
        load.deadline = Duration::from_secs(3600);
        Self { upstream, relay, load }
    }
}

fn config(listen: u16, upstream: &SmtpServer, octets: u64) -> RelayConfig {
    let text = format!(
        "version: relay-config.postroad.dev/v1
pool: {{namespace: mail, name: main}}
replicas: 1
hostname: relay.example
listeners: [{{name: smtp, address: '127.0.0.1:{listen}', tls: None, authentication: None}}]
identities: [{{name: local, match: {{network: {{cidrs: [127.0.0.0/8]}}}}}}]
routes: [{{name: all, upstreams: [{{name: service}}]}}]
upstreams:
- name: service
  destination: {{smarthost: {{host: localhost, ports: [{{port: {port}, tls: None}}], tls: {{}}}}}}
  connections: {{maximum: 4, messagesPerConnection: 500, idleTimeoutSeconds: 30, maximumAgeSeconds: 900}}
queue: {{expireAfterSeconds: 7200, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: {octets}}}
limits: {{messageBytes: 10000000, recipientsPerMessage: 100, connections: 300, connectionsPerClient: 300}}
shutdown: {{acceptSeconds: 0, gracePeriodSeconds: 10}}
",
        port = upstream.port(),
    );
    RelayConfig::from_yaml(&text).unwrap()
}
