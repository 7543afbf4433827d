//! A real Postfix takes the relay's mail over sessions that are opened once.

use postroad_crds::relay_config::{Destination, UpstreamPort, UpstreamTls};
use postroad_tests::load::Load;
use postroad_tests::ports::free_port;
use postroad_tests::postfix::Postfix;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::SmtpServer;
use std::time::Duration;

use crate::{LIMIT, alone, config};

const MESSAGES: usize = 10_000;
const SESSIONS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn postfix_takes_ten_thousand_messages_over_four_sessions() {
    let _alone = alone().await;
    let postfix = Postfix::start("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let mut config = config(port, &SmtpServer::plain().await.unwrap(), "secret");
    let upstream = &mut config.upstreams[0];
    upstream.connections.messages_per_connection = 1_000_000;
    if let Destination::Smarthost(smarthost) = &mut upstream.destination {
        smarthost.ports = vec![UpstreamPort { port: postfix.port(), tls: UpstreamTls::StartTLS }];
        smarthost.tls.ca_bundle_pem = Some(postfix.ca_pem().to_owned());
        if let Some(credentials) = &mut smarthost.credentials {
            credentials.username.0 = "relay@upstream.test".to_owned();
        }
    }
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    let load = Load {
        messages_per_client: MESSAGES / 20,
        octets: 10 * 1024,
        deadline: 4 * LIMIT,
        ..Load::to_address(([127, 0, 0, 1], port).into())
    };
    let sent = load.start().finish().await;
    assert_eq!(sent.acknowledged.len(), MESSAGES, "{:?}", sent.refused);
    let delivered = |metrics: &postroad_tests::prometheus::Metrics| {
        metrics.sum("postroad_relay_recipients_delivered_total") == Some(MESSAGES as f64)
    };
    relay.wait_for_metrics("every message delivered", 4 * LIMIT, delivered).await.unwrap();
    postfix.wait_for_messages(MESSAGES, Duration::from_secs(120)).await.unwrap();

    let metrics = relay.scrape().await.unwrap();
    assert_eq!(metrics.sum("postroad_relay_sessions_opened_total"), Some(SESSIONS as f64));
    assert_eq!(metrics.sum("postroad_relay_recipients_deferred_total").unwrap_or(0.0), 0.0);
    let logins = postfix.logged("sasl_method=SCRAM-SHA-256");
    assert_eq!(logins.len(), MESSAGES, "each message names how its session had authenticated");
    assert_eq!(postfix.logged("TLS connection established").len(), SESSIONS);
}
