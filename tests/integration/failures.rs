//! What becomes of a message when its upstream fails at any step: nothing is lost, a refusal comes back to the sender, and
//! only a failure behind the final dot can make it arrive twice.

use std::time::Duration;

use futures::StreamExt;
use postroad_tests::certificates::CertificateAuthority;
use postroad_tests::conservation;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::{Action, Fault, Options, Settings, SmtpServer, Stage, TlsMode, When};

use crate::{LIMIT, alone, client, config};

/// Cases run at once.
const AT_ONCE: usize = 12;

/// What a case must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The message arrives once.
    Once,
    /// The message arrives twice: the upstream had kept it before it failed.
    Twice,
    /// Both of two messages do.
    BothTwice,
    /// A notification arrives instead of the message.
    Returned,
}

/// `action` at the first occurrence of `stage`.
fn first(stage: Stage, action: Action) -> Fault {
    Fault::on(stage, When::First(1), action)
}

fn reply(text: &str) -> Action {
    Action::Reply(text.to_owned())
}

fn goodbye(text: &str) -> Action {
    Action::ReplyThenClose(text.to_owned())
}

/// How long the relay waits for a reply in a case of silence. Longer than anything takes that answers, for what is late behind the
/// content arrives twice.
const PATIENCE_SECONDS: u32 = 4;

/// Octets that are no reply, and the beginning of one behind which nothing follows.
fn gibberish() -> [Action; 2] {
    [Action::Raw(b"what is this\r\n".to_vec()), Action::RawThenClose(b"250 2.".to_vec())]
}

/// The greeting waits until both messages are accepted, so that the second is announced while the first awaits its reply.
fn both_queued() -> Fault {
    first(Stage::Greeting, Action::Hold)
}

/// What goes wrong with two messages on one session; both are to come to an end, one of them by this.
fn cases_with_a_second_message_in_flight() -> Vec<(Vec<Fault>, Expected)> {
    let mut cases = Vec::new();
    let mut add = |stage: Stage, when: When, actions: &[Action], expected| {
        let fault = |action: &Action| Fault::on(stage.clone(), when, action.clone());
        cases.extend(actions.iter().map(|action| (vec![both_queued(), fault(action)], expected)));
    };
    let broken = [Action::Close, Action::Abort, goodbye("421 4.3.2 closing")];
    let [noise, half] = gibberish();
    for (stage, when) in [
        (Stage::ContentStart, When::First(1)),
        (Stage::Content, When::First(1)),
        (Stage::Mail, When::Nth(2)),
        (Stage::Recipient, When::Nth(2)),
        (Stage::Data, When::Nth(2)),
        (Stage::ContentStart, When::Nth(2)),
        (Stage::Content, When::Nth(2)),
    ] {
        add(
            stage.clone(),
            when,
            if stage == Stage::ContentStart { &broken[..2] } else { &broken },
            Expected::Once,
        );
        if stage != Stage::ContentStart {
            add(
                stage.clone(),
                when,
                &[noise.clone(), half.clone(), reply("451 4.3.0 later")],
                Expected::Once,
            );
            add(stage, when, &[reply("550 5.7.1 never")], Expected::Returned);
        }
    }
    let kept = |text: &str| Action::KeepThenReply(text.to_owned());
    let kept = [Action::KeepThenClose, kept("what is this")];
    add(Stage::Content, When::First(1), &kept, Expected::Twice);
    add(Stage::Content, When::Nth(2), &kept, Expected::Twice);
    // Between the two stands RSET.
    let fault = |action: &Action| first(Stage::Reset, action.clone());
    let odd = [noise, half, reply("502 5.5.1 what")];
    cases
        .extend(broken.iter().chain(&odd).map(|action| (vec![both_queued(), fault(action)], Expected::Once)));
    cases
}

/// The steps of a session with one message.
const STEPS: [Stage; 10] = [
    Stage::Greeting,
    Stage::Ehlo,
    Stage::StartTls,
    Stage::Handshake,
    Stage::Authentication,
    Stage::Mail,
    Stage::Recipient,
    Stage::Data,
    Stage::ContentStart,
    Stage::Content,
];

fn cases() -> Vec<(Vec<Fault>, Expected)> {
    let mut cases = Vec::new();
    let mut add = |stage: &Stage, actions: &[Action], expected| {
        cases.extend(actions.iter().map(|action| (vec![first(stage.clone(), action.clone())], expected)));
    };
    for stage in &STEPS {
        add(stage, &[Action::Close, Action::Abort], Expected::Once);
        if !matches!(stage, Stage::Handshake | Stage::ContentStart) {
            add(stage, &gibberish(), Expected::Once);
            add(stage, &[goodbye("421 4.3.2 closing")], Expected::Once);
        }
    }
    add(&Stage::Greeting, &[goodbye("554 5.3.2 not you")], Expected::Once);
    add(&Stage::Ehlo, &[reply("451 4.3.0 later"), reply("502 5.5.1 what")], Expected::Once);
    let injected = Action::Raw(b"220 go\r\n250 injected\r\n".to_vec());
    add(&Stage::StartTls, &[reply("454 4.7.0 no TLS now"), injected], Expected::Once);
    add(&Stage::Handshake, &[Action::Raw(b"no handshake\r\n".to_vec())], Expected::Once);
    let refused = [reply("535 5.7.8 no"), reply("454 4.7.0 later"), reply("334 !")];
    add(&Stage::Authentication, &refused, Expected::Once);
    for stage in [Stage::Mail, Stage::Recipient, Stage::Data, Stage::Content] {
        add(&stage, &[reply("451 4.3.0 later")], Expected::Once);
        add(&stage, &[reply("550 5.7.1 never"), goodbye("554 5.7.1 never")], Expected::Returned);
    }
    add(&Stage::Mail, &[reply("354 what")], Expected::Once);
    add(&Stage::Data, &[reply("250 2.0.0 what")], Expected::Once);
    add(&Stage::Content, &[reply("354 what")], Expected::Once);
    add(&Stage::ContentStart, &[goodbye("451 4.3.0 later")], Expected::Once);
    add(&Stage::ContentStart, &[goodbye("552 5.3.4 too large")], Expected::Returned);
    let kept = |text: &str| Action::KeepThenReply(text.to_owned());
    add(&Stage::Content, &[Action::KeepThenClose, kept("what is this"), kept("354 what")], Expected::Twice);
    for action in [Action::Close, reply("502 5.5.1 what"), gibberish()[0].clone()] {
        let refused = first(Stage::Mail, reply("451 4.3.0 later"));
        cases.push((vec![refused, first(Stage::Reset, action)], Expected::Once));
    }
    cases
}

/// An upstream that goes silent at each step, or amid a reply: it is left, and what it may have kept is sent again.
fn cases_of_silence() -> Vec<(Vec<Fault>, Expected)> {
    let mut cases: Vec<_> =
        STEPS.map(|stage| (vec![first(stage, Action::Stall)], Expected::Once)).into_iter().collect();
    // What follows a half reply in one piece would complete it; behind these nothing follows.
    for stage in [Stage::Greeting, Stage::Ehlo, Stage::StartTls, Stage::Authentication, Stage::Content] {
        cases.push((vec![first(stage, Action::Raw(b"250-half".to_vec()))], Expected::Once));
    }
    cases.push((vec![first(Stage::Content, Action::KeepThenStall)], Expected::Twice));
    cases
}

/// The same with a second message in flight.
fn cases_of_silence_with_a_second_message_in_flight() -> Vec<(Vec<Fault>, Expected)> {
    let silence =
        |stage, when, action, expected| (vec![both_queued(), Fault::on(stage, when, action)], expected);
    let once = |stage, when| silence(stage, when, Action::Stall, Expected::Once);
    let twice = |when| silence(Stage::Content, when, Action::KeepThenStall, Expected::Twice);
    vec![
        once(Stage::ContentStart, When::First(1)),
        once(Stage::Content, When::First(1)),
        once(Stage::Reset, When::First(1)),
        once(Stage::Mail, When::Nth(2)),
        once(Stage::Recipient, When::Nth(2)),
        once(Stage::Data, When::Nth(2)),
        once(Stage::ContentStart, When::Nth(2)),
        once(Stage::Content, When::Nth(2)),
        twice(When::First(1)),
        twice(When::Nth(2)),
    ]
}

/// What the cases of a run have in common.
#[derive(Clone, Copy, Default)]
struct Run {
    /// With several, all but one are to arrive once.
    messages: usize,
    /// How long the relay waits for a reply.
    patience_seconds: Option<u32>,
    /// Contents go by BDAT: the upstream offers CHUNKING.
    chunking: bool,
}

/// Sends messages through a relay whose upstream follows the script, and says what came of them.
async fn outcome(
    Run { messages, patience_seconds, chunking }: Run,
    faults: Vec<Fault>,
    expected: Expected,
) -> Result<(), String> {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    upstream.change(|settings| settings.chunking = chunking);
    let inject = |fault: &Fault| (upstream.inject(fault.clone()), fault.action == Action::Hold);
    let scripted: Vec<_> = faults.iter().map(inject).collect();
    let port = free_port().unwrap();
    let mut config = config(port, &upstream, "secret");
    config.upstreams[0].connections.reply_timeout_seconds = patience_seconds;
    if messages > 1 {
        config.upstreams[0].connections.maximum = 1;
    }
    let relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    futures::future::join_all((0..messages).map(|_| send(port))).await;
    scripted.iter().filter(|(_, holds)| *holds).for_each(|(fault, _)| upstream.withdraw(*fault));
    let notification =
        |message: &&postroad_tests::smtp_server::ReceivedMessage| message.reverse_path.is_empty();
    let wanted = match expected {
        Expected::Once => (messages, 0),
        Expected::Twice => (messages + 1, 0),
        Expected::BothTwice => (messages + 2, 0),
        Expected::Returned => (messages - 1, 1),
    };
    // What was not begun is not charged. By BDAT the content of the second is on its way before the first has its reply.
    let charged = if chunking { messages } else { 1 } as f64;
    let settled = relay.wait_for_metrics("an empty spool", LIMIT, |metrics| {
        metrics.value("postroad_relay_queue_messages") == Some(0.0)
            && metrics.value("postroad_relay_messages_accepted_total") == Some(messages as f64)
            && metrics.sum("postroad_relay_recipients_deferred_total").unwrap_or(0.0) <= charged
    });
    let settled = settled.await.map_err(|error| error.to_string());
    let received = upstream.messages();
    let notified = received.iter().filter(notification).count();
    let found = (received.len() - notified, notified);
    // A greeting that nobody asked for before both were queued was not to be held.
    let unfired = scripted.iter().filter(|(fault, holds)| !holds && upstream.fired(*fault) == 0).count();
    match (settled, unfired) {
        (Ok(()), 0) if found == wanted => Ok(()),
        (Ok(()), 0) => Err(format!(
            "{faults:?}: (copies, notifications) were {found:?}, not {wanted:?}\n{}",
            relay.log().tail(20)
        )),
        (Ok(()), _) => Err(format!("{faults:?}: did not all fire")),
        (Err(error), _) => Err(format!("{faults:?}: {error}\n{}", relay.log().tail(20))),
    }
}

async fn send(port: u16) {
    let mut client = client(port).await;
    // More than one read of content, so that a failure amid it is one.
    let content = conservation::content("the-message", 100_000);
    let reply = client.message("a@example.com", &["b@example.net"], &content).await.unwrap();
    assert_eq!(reply.code, 250, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_at_every_step_has_the_right_outcome() {
    all_have_their_outcome(Run { messages: 1, ..Run::default() }, cases()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_with_a_second_message_in_flight_has_the_right_outcome() {
    let run = Run { messages: 2, ..Run::default() };
    all_have_their_outcome(run, cases_with_a_second_message_in_flight()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_silence_at_every_step_has_the_right_outcome() {
    let run = Run { messages: 1, patience_seconds: Some(PATIENCE_SECONDS), ..Run::default() };
    all_have_their_outcome(run, cases_of_silence()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_silence_with_a_second_message_in_flight_has_the_right_outcome() {
    let run = Run { messages: 2, patience_seconds: Some(PATIENCE_SECONDS), ..Run::default() };
    all_have_their_outcome(run, cases_of_silence_with_a_second_message_in_flight()).await;
}

/// The cases at the steps that there are by BDAT: all but DATA.
fn by_bdat(cases: Vec<(Vec<Fault>, Expected)>) -> Vec<(Vec<Fault>, Expected)> {
    let without_data = |(faults, _): &(Vec<Fault>, _)| faults.iter().all(|fault| fault.stage != Stage::Data);
    cases.into_iter().filter(without_data).collect()
}

/// The same with a second message in flight, whose content is on its way before the first has its reply: an upstream that makes no
/// sense at the first and goes on keeps the second, which comes again.
fn by_bdat_with_a_second_message_in_flight(
    cases: Vec<(Vec<Fault>, Expected)>,
) -> Vec<(Vec<Fault>, Expected)> {
    let goes_on = |fault: &Fault| match fault.stage {
        Stage::Content if fault.when == When::First(1) => {
            matches!(fault.action, Action::Raw(_) | Action::KeepThenReply(_))
        }
        Stage::Reset => matches!(fault.action, Action::Raw(_) | Action::Reply(_)),
        _ => false,
    };
    let mut cases = by_bdat(cases);
    for (_, expected) in cases.iter_mut().filter(|(faults, _)| faults.iter().any(goes_on)) {
        *expected = if *expected == Expected::Twice { Expected::BothTwice } else { Expected::Twice };
    }
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_at_every_step_has_the_same_outcome_by_bdat() {
    let run = Run { messages: 1, chunking: true, ..Run::default() };
    all_have_their_outcome(run, by_bdat(cases())).await;
    let run = Run { messages: 2, ..run };
    all_have_their_outcome(
        run,
        by_bdat_with_a_second_message_in_flight(cases_with_a_second_message_in_flight()),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_silence_at_every_step_has_the_same_outcome_by_bdat() {
    let run = Run { messages: 1, patience_seconds: Some(PATIENCE_SECONDS), chunking: true };
    all_have_their_outcome(run, by_bdat(cases_of_silence())).await;
    let run = Run { messages: 2, ..run };
    all_have_their_outcome(run, by_bdat(cases_of_silence_with_a_second_message_in_flight())).await;
}

async fn all_have_their_outcome(run: Run, cases: Vec<(Vec<Fault>, Expected)>) {
    let _alone = alone().await;
    let results: Vec<_> = futures::stream::iter(cases)
        .map(|(faults, expected)| outcome(run, faults, expected))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(
        failed.is_empty(),
        "{} of {} cases:\n{}",
        failed.len(),
        results.len(),
        failed.iter().map(|f| f.as_str()).collect::<Vec<_>>().join("\n")
    );
}

/// Mail waits, nothing is told to the upstream, and the log says `reason`, until `mend` has been done.
async fn waits(upstream: SmtpServer, authority: Option<&str>, reason: &str, mend: impl FnOnce(&SmtpServer)) {
    let port = free_port().unwrap();
    let mended = config(port, &upstream, "secret");
    let mut begun = mended.clone();
    if let (Some(pem), postroad_crds::relay_config::Destination::Smarthost(smarthost)) =
        (authority, &mut begun.upstreams[0].destination)
    {
        smarthost.tls.ca_bundle_pem = Some(pem.to_owned());
    }
    let relay = RelayProcess::start(&begun, RelayOptions::default()).await.unwrap();
    send(port).await;
    relay
        .wait_for_metrics("two failed attempts", LIMIT, |metrics| {
            metrics.sum("postroad_relay_sessions_failed_total") >= Some(2.0)
        })
        .await
        .unwrap();
    relay.log().wait_for(reason, LIMIT, |line| line.contains(reason)).await.unwrap();
    assert!(upstream.messages().is_empty());
    let told = |command: &String| command.starts_with("MAIL") || command.starts_with("AUTH");
    assert!(!upstream.sessions().iter().any(|session| session.commands.iter().any(told)));
    mend(&upstream);
    relay.rewrite_config(&mended).unwrap();
    upstream.wait_for(1, LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_told_nothing() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let other = CertificateAuthority::new("Another authority").unwrap();
    waits(upstream, Some(&other.pem()), "invalid peer certificate", |_| {}).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_common_mechanism_is_told_no_password() {
    let settings = Settings { require_tls: true, require_authentication: true, ..Settings::default() };
    let settings = Settings { further_extensions: vec!["AUTH GSSAPI".to_owned()], ..settings };
    let options = Options { tls: TlsMode::StartTls, settings, ..Options::default() };
    let upstream = SmtpServer::start(options).await.unwrap();
    let mend = |upstream: &SmtpServer| {
        upstream.set_password("relay", "secret");
    };
    waits(upstream, None, "it offers: GSSAPI", mend).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_offers_no_starttls_is_told_nothing_and_the_next_port_is_used() {
    let bare = SmtpServer::start(Options {
        settings: Settings::default().with_user("relay", "secret"),
        ..Options::default()
    })
    .await
    .unwrap();
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    let (refusing, port) = (free_port().unwrap(), free_port().unwrap());
    let mut config = config(port, &upstream, "secret");
    if let postroad_crds::relay_config::Destination::Smarthost(smarthost) =
        &mut config.upstreams[0].destination
    {
        let working = smarthost.ports[0].clone();
        let at = |port| postroad_crds::relay_config::UpstreamPort { port, ..working.clone() };
        smarthost.ports = vec![at(refusing), at(bare.port()), working];
    }
    let _relay = RelayProcess::start(&config, RelayOptions::default()).await.unwrap();
    send(port).await;
    upstream.wait_for(1, Duration::from_secs(5)).await.unwrap();
    let commands: Vec<_> = bare.sessions().into_iter().flat_map(|session| session.commands).collect();
    assert_eq!(commands, ["EHLO relay.example", "QUIT"]);
}
