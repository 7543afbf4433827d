//! Rates hold at the upstream, in every span, also over a crash.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use postroad_crds::relay_config::{Rate, RateUnit};
use postroad_tests::load::Load;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::SmtpServer;

use crate::{LIMIT, config};

#[tokio::test(flavor = "multi_thread")]
async fn no_span_holds_more_than_its_rate_though_the_relay_dies_in_between() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let mut config = config(port, &upstream, "secret");
    let rates = [(40, RateUnit::Messages, 1), (150, RateUnit::Recipients, 12)];
    config.upstreams[0].rates =
        rates.map(|(limit, unit, per_seconds)| Rate { limit, unit, per_seconds }).to_vec();
    let mut relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    let load =
        Load { clients: 10, messages_per_client: 20, ..Load::to_address(([127, 0, 0, 1], port).into()) };
    let sent = load.start().finish().await;
    assert_eq!(sent.acknowledged.len(), 200, "{:?}", sent.refused);

    upstream.wait_for(60, LIMIT).await.unwrap();
    relay.sigkill().await.unwrap();
    relay.restart().await.unwrap();
    upstream.wait_for(200, LIMIT).await.unwrap();

    let tokens: BTreeSet<_> = upstream.messages().iter().filter_map(|message| message.token()).collect();
    assert!(tokens.len() >= 190, "only {} different messages of 200", tokens.len());
    let mut times: Vec<Instant> = upstream.messages().iter().map(|message| message.received).collect();
    times.sort_unstable();
    for (limit, _, seconds) in rates {
        let span = Duration::from_secs(u64::from(seconds));
        let limit = usize::try_from(limit).unwrap();
        for (first, beyond) in times.iter().zip(&times[limit..]) {
            assert!(*beyond - *first >= span, "{} messages within {:?}", limit + 1, *beyond - *first);
        }
    }
}
