//! Credentials that change or expire while sessions stand: the next session uses those of then, and no message pays for it.

use postroad_crds::relay_config::{Credentials, Destination, RelayConfig, Sensitive};
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_client::{Security, SmtpClient};
use postroad_tests::smtp_server::{
    Action, Fault, Ledger, Options, SessionRecord, Settings, SmtpServer, Stage, TlsMode, When,
};

use crate::{LIMIT, config};

/// A relay that authenticates by XOAUTH2 with an upstream that takes nothing else.
struct Setting {
    upstream: SmtpServer,
    relay: RelayProcess,
    config: RelayConfig,
    port: u16,
}

fn set_token(config: &mut RelayConfig, token: &str) {
    let Destination::Smarthost(smarthost) = &mut config.upstreams[0].destination else { unreachable!() };
    let sensitive = |text: &str| Sensitive(text.to_owned());
    smarthost.credentials = Some(Credentials {
        username: sensitive("relay"),
        password: None,
        access_token: Some(sensitive(token)),
    });
}

/// `expired`: what the upstream says to MAIL once the session's token is no longer the user's.
async fn setting(expired: Option<&str>) -> Setting {
    let settings = Settings {
        require_tls: true,
        require_authentication: true,
        expired_credentials: expired.map(str::to_owned),
        ..Settings::default()
    };
    let upstream =
        SmtpServer::start(Options { tls: TlsMode::StartTls, settings, ..Options::default() }).await.unwrap();
    upstream.set_access_token("relay", "first");
    let port = free_port().unwrap();
    let mut config = config(port, &upstream, "unused");
    config.upstreams[0].connections.maximum = 1;
    set_token(&mut config, "first");
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    Setting { upstream, relay, config, port }
}

impl Setting {
    async fn accepts(&self, number: usize) {
        let address = ([127, 0, 0, 1], self.port).into();
        let mut client = SmtpClient::open(address, &Security::None, "client.example").await.unwrap();
        let content = format!("Subject: {number}\r\n\r\n");
        let reply = client.message("a@example.com", &["b@example.net"], content.as_bytes()).await.unwrap();
        assert_eq!(reply.code, 250, "{reply}");
    }

    /// All messages arrived once, deferred so often together, and no session was left without QUIT.
    async fn arrived(&self, messages: usize, deferred: f64) -> Vec<SessionRecord> {
        self.upstream.wait_for(messages, LIMIT).await.unwrap();
        let account = self.relay.wait_until_all_ended(LIMIT).await.unwrap();
        assert_eq!(account.ended_as("delivered"), messages as u64, "{account:?}");
        assert_eq!(self.upstream.messages().len(), messages, "each arrives once, and no notification");
        let metrics = self.relay.scrape().await.unwrap();
        assert_eq!(metrics.sum("postroad_relay_recipients_deferred_total").unwrap_or(0.0), deferred);
        let others_ended = |ledger: &Ledger| ledger.open_sessions <= 1;
        self.upstream.wait_until("the sessions before the last to end", LIMIT, others_ended).await.unwrap();
        let sessions = self.upstream.sessions();
        for session in sessions.iter().filter(|session| session.closed.is_some()) {
            assert_eq!(session.commands.last().map(String::as_str), Some("QUIT"), "{session:?}");
        }
        sessions
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_replaced_amid_a_message_cuts_nothing_and_the_next_session_uses_the_new_one() {
    let mut setting = setting(None).await;
    let held = setting.upstream.inject(Fault::on(Stage::Content, When::Nth(1), Action::Hold));
    setting.accepts(0).await;
    let begun = |ledger: &Ledger| ledger.sessions.iter().any(|session| session.count("DATA") == 1);
    setting.upstream.wait_until("the message to be under way", LIMIT, begun).await.unwrap();

    setting.upstream.set_access_token("relay", "second");
    set_token(&mut setting.config, "second");
    setting.relay.rewrite_config(&setting.config).unwrap();
    let taken = |line: &str| line.contains("configuration changed");
    setting.relay.log().wait_for("the new token to be known", LIMIT, taken).await.unwrap();
    setting.upstream.withdraw(held);
    setting.accepts(1).await;

    let sessions = setting.arrived(2, 0.0).await;
    let carried: Vec<usize> = sessions.iter().map(|session| session.messages).collect();
    assert_eq!(carried, [1, 1], "each token has its session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_under_which_the_token_expires_waits_for_the_next_one_and_is_not_charged() {
    let check = async |expired: &str| {
        let mut setting = setting(Some(expired)).await;
        setting.accepts(0).await;
        setting.upstream.wait_for(1, LIMIT).await.unwrap();
        // Nobody has told the relay yet: the session that stands is refused, and the next one cannot be opened.
        setting.upstream.set_access_token("relay", "second");
        setting.accepts(1).await;
        let refused =
            |ledger: &Ledger| ledger.sessions.iter().any(|session| session.failed_authentications > 0);
        setting.upstream.wait_until("the old token to be refused", LIMIT, refused).await.unwrap();
        assert_eq!(setting.upstream.messages().len(), 1);

        set_token(&mut setting.config, "second");
        setting.relay.rewrite_config(&setting.config).unwrap();
        let sessions = setting.arrived(2, 0.0).await;
        assert_eq!((sessions[0].messages, sessions[0].count("MAIL")), (1, 2), "{expired}: left at once");
    };
    tokio::join!(
        check("530 5.7.0 Authentication required"),
        check("535 5.7.3 Authentication unsuccessful, the token has expired"),
        check("454 4.7.0 Temporary authentication failure"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_no_longer_believed_is_replaced_at_once_where_the_token_still_opens_another() {
    let setting = setting(None).await;
    let expires = Action::Reply("530 5.7.0 Authentication required".to_owned());
    setting.upstream.inject(Fault::on(Stage::Mail, When::SessionCarried(2), expires));
    for number in 0..6 {
        setting.accepts(number).await;
    }
    let sessions = setting.arrived(6, 0.0).await;
    let carried: Vec<usize> = sessions.iter().map(|session| session.messages).collect();
    assert_eq!(carried, [2, 2, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_never_believed_is_left_too_and_returns_nothing() {
    let setting = setting(None).await;
    let refused = Action::Reply("535 5.7.3 Authentication unsuccessful".to_owned());
    setting.upstream.inject(Fault::on(Stage::Mail, When::First(2), refused));
    setting.accepts(0).await;
    let sessions = setting.arrived(1, 2.0).await;
    let carried: Vec<usize> = sessions.iter().map(|session| session.messages).collect();
    assert_eq!(carried, [0, 0, 1]);
}
