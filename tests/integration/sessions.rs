//! When a session is opened before mail comes, and when it is replaced.

use postroad_crds::relay_config::{Destination, RelayConfig, Smarthost};
use postroad_tests::certificates::CertificateAuthority;
use postroad_tests::load::Load;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::{Ledger, SessionRecord, SmtpServer};

use crate::{LIMIT, config};

/// How many sessions stand.
fn open(ledger: &Ledger) -> usize {
    let is_open = |session: &&SessionRecord| session.closed.is_none() && session.user.is_some();
    ledger.sessions.iter().filter(is_open).count()
}

/// What it is, and how a configuration is changed in it.
type Change<'a> = (&'a str, &'a dyn Fn(&mut RelayConfig));

fn smarthost(config: &mut RelayConfig) -> &mut Smarthost {
    match &mut config.upstreams[0].destination {
        Destination::Smarthost(smarthost) => smarthost,
        Destination::Sandbox(_) => panic!("the upstream of these tests is a smarthost"),
    }
}

/// No session ended otherwise than by QUIT.
fn ended_calmly(upstream: &SmtpServer) {
    for session in upstream.sessions().iter().filter(|session| session.closed.is_some()) {
        assert_eq!(session.commands.last().map(String::as_str), Some("QUIT"), "{session:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_stand_before_mail_comes_and_the_first_message_uses_one() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let mut config = config(port, &upstream, "secret");
    config.upstreams[0].connections.minimum_idle = 2;
    let _relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    upstream.wait_until("two sessions without mail", LIMIT, |ledger| open(ledger) == 2).await.unwrap();
    let load = Load { clients: 1, messages_per_client: 3, ..Load::to_address(([127, 0, 0, 1], port).into()) };
    load.start().finish().await;
    upstream.wait_for(3, LIMIT).await.unwrap();
    assert_eq!(upstream.sessions().len(), 2, "a session stood already");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_are_kept_open_end_when_they_have_been_idle_and_are_replaced() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let mut config = config(free_port().unwrap(), &upstream, "secret");
    config.upstreams[0].connections.minimum_idle = 2;
    config.upstreams[0].connections.idle_timeout_seconds = 1;
    let _relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    let replaced = |ledger: &Ledger| ledger.sessions.len() >= 4 && open(ledger) == 2;
    upstream.wait_until("both replaced", LIMIT, replaced).await.unwrap();
    ended_calmly(&upstream);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_made_with_what_has_changed_is_replaced_without_a_cut() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let port = free_port().unwrap();
    let mut config = config(port, &upstream, "secret");
    config.upstreams[0].connections.minimum_idle = 1;
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    upstream.wait_until("a session", LIMIT, |ledger| open(ledger) == 1).await.unwrap();

    let other = CertificateAuthority::new("Another authority").unwrap().pem();
    let changes: [Change<'_>; 4] = [
        ("the certificate authorities", &|config| {
            let trusted = &mut smarthost(config).tls.ca_bundle_pem;
            *trusted = trusted.take().map(|pem| format!("{pem}\n{other}"));
        }),
        ("the EHLO name", &|config| smarthost(config).ehlo_name = Some("out.example".to_owned())),
        ("the source addresses", &|config| {
            config.upstreams[0].connections.source_addresses = vec!["127.0.0.2".parse().unwrap()];
        }),
        ("the password", &|config| {
            upstream.set_password("relay", "changed");
            if let Some(credentials) = &mut smarthost(config).credentials {
                credentials.password.as_mut().unwrap().0 = "changed".to_owned();
            }
        }),
    ];
    for (number, (what, change)) in changes.into_iter().enumerate() {
        change(&mut config);
        relay.rewrite_config(&config).unwrap();
        // A connection is not yet a session that says who it is.
        let stands = |ledger: &Ledger| ledger.sessions.last().is_some_and(|newest| newest.user.is_some());
        let replaced =
            |ledger: &Ledger| ledger.sessions.len() == number + 2 && open(ledger) == 1 && stands(ledger);
        upstream.wait_until(what, LIMIT, replaced).await.unwrap();
    }
    ended_calmly(&upstream);
    let newest = upstream.sessions().pop().unwrap();
    assert_eq!(newest.client_name.as_deref(), Some("out.example"));
    assert_eq!(newest.peer.ip().to_string(), "127.0.0.2");
}
