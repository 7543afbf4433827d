//! Contents that go by BDAT (RFC 3030), where the upstream offers CHUNKING.

use postroad_crds::relay_config::RelayConfig;
use postroad_tests::ports::free_port;
use postroad_tests::relay_process::{RelayOptions, RelayProcess};
use postroad_tests::smtp_server::{Action, Fault, Ledger, SmtpServer, Stage, When};

use crate::{LIMIT, client, config};

/// Each with the reverse-path's local part that finds it again, and whether it goes as a chunk.
fn contents() -> Vec<(&'static str, Vec<u8>, bool)> {
    let field = b"Subject: x\r\nMessage-ID: <a@b.example>\r\nDate: Thu, 26 Nov 2026 00:00:00 +0000\r\n\r\n";
    let with = |body: &[u8]| [field.as_slice(), body].concat();
    let line = b"0123456789012345678901234567890123456789012345678901234567890123\r\n";
    vec![
        ("dots", with(b".\r\n..\r\n.a\r\nb.\r\n.\r\n\r\n.\r\n"), true),
        ("empty-lines", with(b"\r\n\r\n\r\n"), true),
        ("nothing", with(b""), true),
        ("eight-bit", with("Grüße, \u{1f4ee}\r\n".as_bytes()), true),
        ("a-command", with(b"x\r\nQUIT\r\nBDAT 5 LAST\r\nRSET\r\n"), true),
        ("large", with(&line.repeat(3_900)), true),
        ("too-large-for-a-chunk", with(&line.repeat(16_000)), false),
        ("last", with(b"the last\r\n"), true),
    ]
}

fn over_one_session(upstream: &SmtpServer, port: u16) -> RelayConfig {
    let mut config = config(port, upstream, "secret");
    config.upstreams[0].connections.maximum = 1;
    config
}

async fn send(port: u16, name: &str, content: &[u8]) {
    let mut client = client(port).await;
    let sender = format!("{name}@example.com");
    assert_eq!(client.command(&format!("MAIL FROM:<{sender}> BODY=8BITMIME")).await.unwrap().code, 250);
    assert_eq!(client.command("RCPT TO:<b@example.net>").await.unwrap().code, 250);
    client.send(format!("BDAT {} LAST\r\n", content.len()).as_bytes()).await.unwrap();
    client.send(content).await.unwrap();
    let reply = client.reply().await.unwrap();
    assert_eq!(reply.code, 250, "{name}: {reply}");
}

/// `pipelining`: several are on their way at once. The greeting waits until all are queued.
async fn arrive_as_they_are(pipelining: bool) {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    upstream.change(|settings| (settings.chunking, settings.pipelining) = (true, pipelining));
    let held = upstream.inject(Fault::on(Stage::Greeting, When::Nth(1), Action::Hold));
    let port = free_port().unwrap();
    let relay =
        RelayProcess::start(&over_one_session(&upstream, port), RelayOptions::default()).await.unwrap();
    let contents = contents();
    futures::future::join_all(contents.iter().map(|(name, content, _)| send(port, name, content))).await;
    upstream.withdraw(held);
    let received = upstream.wait_for(contents.len(), LIMIT).await.unwrap();
    for (name, content, _) in &contents {
        let sender = format!("{name}@example.com");
        let same = |message: &&postroad_tests::smtp_server::ReceivedMessage| message.reverse_path == sender;
        let [message] = received.iter().filter(same).collect::<Vec<_>>()[..] else {
            panic!("{name}: not once")
        };
        // In front stands the trace information, which the relay adds.
        assert!(message.content.ends_with(content), "{name} arrived otherwise");
        let before = &message.content[..message.content.len() - content.len()];
        assert!(before.starts_with(b"Received: ") && before.ends_with(b"\r\n"), "{name}: {before:?}");
    }
    let sessions = upstream.sessions();
    assert_eq!(sessions.len(), 1, "one session carries all");
    let by_bdat = contents.iter().filter(|(_, _, chunk)| *chunk).count();
    assert_eq!((sessions[0].count("BDAT"), sessions[0].count("DATA")), (by_bdat, contents.len() - by_bdat));
    assert_eq!(sessions[0].count("RSET") > 0, pipelining, "a message behind another begins with RSET");
    assert_eq!(upstream.violations(), []);
    relay.wait_until_all_ended(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn contents_go_by_bdat_and_arrive_octet_for_octet_several_in_flight_or_one_by_one() {
    tokio::join!(arrive_as_they_are(true), arrive_as_they_are(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_session_breaks_under_several_chunks_each_arrives_and_at_most_twice() {
    let upstream = SmtpServer::service("relay", "secret").await.unwrap();
    upstream.change(|settings| settings.chunking = true);
    let held = upstream.inject(Fault::on(Stage::Greeting, When::Nth(1), Action::Hold));
    let cut = upstream.inject(Fault::on(Stage::Content, When::Nth(2), Action::KeepThenClose));
    let port = free_port().unwrap();
    let relay =
        RelayProcess::start(&over_one_session(&upstream, port), RelayOptions::default()).await.unwrap();
    let names: Vec<String> = (0..6).map(|number| format!("m{number}")).collect();
    futures::future::join_all(names.iter().map(|name| send(port, name, b"Subject: x\r\n\r\nx\r\n"))).await;
    upstream.withdraw(held);
    let copies = |ledger: &Ledger, name: &str| {
        let sender = format!("{name}@example.com");
        ledger.messages.iter().filter(|message| message.reverse_path == sender).count()
    };
    let all = |ledger: &Ledger| names.iter().all(|name| copies(ledger, name) > 0);
    upstream.wait_until("all messages", LIMIT, all).await.unwrap();
    relay.wait_until_all_ended(LIMIT).await.unwrap();
    assert_eq!(upstream.fired(cut), 1);
    assert_eq!(upstream.messages().len(), 7, "only the one that was kept before the cut comes twice");
    let metrics = relay.scrape().await.unwrap();
    let noted = metrics.sum("postroad_relay_recipients_ambiguous_total").unwrap_or(0.0);
    assert!((1.0..=4.0).contains(&noted), "{noted} noted: those whose content was under way, four at most");
}
