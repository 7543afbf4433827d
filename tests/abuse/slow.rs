//! Clients that take their time (slowloris): every command, message and handshake has to be whole within its limit, however
//! steadily it drips, and those who wait keep nobody else out.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use postroad_tests::smtp_client::{ClientError, Reply, SmtpClient};

use crate::setting::{LIMIT, OURS, Port, Setting};

/// Seconds for a command, and for a message.
const COMMAND: u32 = 2;
const CONTENT: u32 = 3;

async fn impatient() -> Setting {
    Setting::start_with(OURS, |config| {
        config.limits.command_timeout_seconds = COMMAND;
        config.limits.content_timeout_seconds = COMMAND;
        config.limits.content_seconds = CONTENT;
        (config.limits.connections, config.limits.connections_per_client) = (60, 20);
    })
    .await
}

/// Sends `octet` ten times a second until the relay says something.
async fn drip(client: &mut SmtpClient, octet: u8) -> Reply {
    client.set_patience(Duration::from_millis(100));
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        // What the relay has said before it closed is still there to be read.
        let sent = client.send(&[octet]).await;
        match client.reply().await {
            Ok(reply) => return reply,
            Err(ClientError::TimedOut { .. }) => assert!(sent.is_ok(), "{sent:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the relay took {octet} for {LIMIT:?}");
}

/// Says `commands`, each answered with its code.
async fn says(client: &mut SmtpClient, commands: &[(&str, u16)]) {
    for (command, code) in commands {
        assert_eq!(client.command(command).await.unwrap().code, *code, "{command}");
    }
}

const TRANSACTION: [(&str, u16); 2] =
    [("MAIL FROM:<a@sender.example>", 250), ("RCPT TO:<b@recipient.example>", 250)];

#[tokio::test(flavor = "multi_thread")]
async fn what_drips_is_not_waited_for_longer_than_what_is_silent() {
    let setting = impatient().await;
    let check = async |what: &str, prepared: &[(&str, u16)], begun: &[u8], seconds: u32| {
        let mut client = setting.client(Port::Smtp).await;
        says(&mut client, prepared).await;
        client.send(begun).await.unwrap();
        let begin = Instant::now();
        let reply = drip(&mut client, b'x').await;
        assert_eq!((reply.code, reply.enhanced()), (421, Some("4.4.2")), "{what}: {reply}");
        let waited = begin.elapsed().as_secs_f64();
        let limit = f64::from(seconds);
        assert!((limit - 1.0..limit + 5.0).contains(&waited), "{what}: {waited} s");
    };
    let data = [TRANSACTION.as_slice(), &[("DATA", 354)]].concat();
    tokio::join!(
        check("a command", &[], b"NOOP ", COMMAND),
        check("a command within a transaction", &TRANSACTION, b"RCPT TO:<", COMMAND),
        check("content", &data, b"Subject: x\r\n\r\n", CONTENT),
        check("content that is refused already", &data, b"a\nb", CONTENT),
        check("a chunk", &TRANSACTION, b"BDAT 1000 LAST\r\n", CONTENT),
        check("a chunk that is refused already", &TRANSACTION, b"BDAT 1000001 LAST\r\n", COMMAND),
        check("a chunk that nobody asked for", &[], b"BDAT 1000\r\n", COMMAND),
    );
    setting.only_what_is_in_order_arrives(0).await;
}

/// A client that has begun something that it does not end.
async fn half_open(setting: &Setting, source: Ipv4Addr, number: usize) -> SmtpClient {
    let port = [Port::Smtp, Port::Submission, Port::Submissions][number % 3];
    let mut client = setting.connect_from(source, port).await;
    let begun: &[u8] = if port == Port::Submissions { b"\x16\x03\x01" } else { b"EHLO half" };
    client.send(begun).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn half_open_sessions_keep_nobody_out() {
    let setting = impatient().await;
    // One address may have twenty of the sixty connections; whoever comes from another is served at once.
    let mut held = Vec::new();
    for number in 0..20 {
        held.push(half_open(&setting, Ipv4Addr::new(127, 9, 0, 1), number).await);
    }
    let mut other = setting.client(Port::Smtp).await;
    says(&mut other, &TRANSACTION).await;
    drop(held);
    // Three addresses take them all, in the clear: the next client is told so, and is served when their time is up.
    let mut held = Vec::new();
    for number in 0..60 {
        let source = Ipv4Addr::new(127, 9, 1, 1 + (number / 20) as u8);
        let mut client = setting.connect_from(source, Port::Smtp).await;
        client.send(b"EHLO half").await.unwrap();
        held.push(client);
    }
    let begin = Instant::now();
    loop {
        let mut client = setting.connect(Port::Smtp).await;
        match client.reply().await.unwrap().code {
            220 => break,
            421 => assert!(begin.elapsed() < LIMIT, "half-open sessions held every connection"),
            code => panic!("{code}"),
        }
    }
    let waited = begin.elapsed();
    assert!(waited < Duration::from_secs(u64::from(COMMAND) + 5), "{waited:?}");
    // Their time ends one after another: only when each has been told so is there room for certain.
    for mut client in held {
        if client.reply().await.unwrap().code == 220 {
            let goodbye = client.reply().await.unwrap();
            assert_eq!((goodbye.code, goodbye.enhanced()), (421, Some("4.4.2")), "{goodbye}");
        }
    }
    setting.only_what_is_in_order_arrives(0).await;
}
