//! Attempts to spend the relay: floods, endless input, guessing. Each ends at a limit, and the relay goes on serving others.

use std::net::Ipv4Addr;

use postroad_tests::smtp_client::SmtpClient;

use crate::setting::{OURS, Port, Setting};

/// Sends `line` until a reply has another code than `usual`; that code, and how many were sent.
async fn until_another(client: &mut SmtpClient, line: &str, usual: u16) -> (u16, usize) {
    for sent in 1..5000 {
        let reply = client.command(line).await.unwrap();
        if reply.code != usual {
            return (reply.code, sent);
        }
    }
    panic!("{line} was answered {usual} 5000 times");
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_at_a_limit_and_others_are_served() {
    let setting = Setting::start(OURS).await;

    let mut client = setting.client(Port::Smtp).await;
    assert_eq!(until_another(&mut client, "NOOP", 250).await.0, 421, "NOOP without end");
    let mut client = setting.client(Port::Smtp).await;
    assert_eq!(until_another(&mut client, "RSET", 250).await.0, 421, "RSET without end");
    let mut client = setting.client(Port::Smtp).await;
    assert_eq!(until_another(&mut client, "VRFY x", 252).await.0, 421, "VRFY without end");
    let mut client = setting.client(Port::Smtp).await;
    assert_eq!(until_another(&mut client, "FROB", 500).await.0, 421, "unknown commands without end");
    let mut client = setting.client(Port::Smtp).await;
    client.command("MAIL FROM:<a@sender.example>").await.unwrap();
    let harvest = until_another(&mut client, "RCPT TO:<x@elsewhere.example>", 550).await;
    assert_eq!(harvest.0, 421, "guessing recipients");
    let mut client = setting.client(Port::Smtp).await;
    client.command("MAIL FROM:<a@sender.example>").await.unwrap();
    let flood = until_another(&mut client, "RCPT TO:<b@recipient.example>", 250).await;
    assert_eq!(flood, (452, 11), "one recipient more than the ten that are allowed");
    let mut client = setting.client(Port::Submissions).await;
    let (code, guesses) = until_another(&mut client, "AUTH PLAIN AGFwcAB3cm9uZw==", 535).await;
    assert!(
        [421, 454].contains(&code) && guesses <= 21,
        "{guesses} guesses of a password in one session, then {code}"
    );

    setting.only_what_is_in_order_arrives(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_input_takes_no_memory_and_is_refused() {
    let setting = Setting::start(OURS).await;
    let before = setting.relay.resident_octets().unwrap();
    let block = vec![b'x'; 64 * 1024];

    // A command line without end.
    let mut client = setting.client(Port::Smtp).await;
    for _ in 0..160 {
        client.send(&block).await.unwrap();
    }
    assert_eq!(client.command("").await.unwrap().code, 500);
    // An AUTH response without end.
    let mut client = setting.client(Port::Submissions).await;
    assert_eq!(client.command("AUTH PLAIN").await.unwrap().code, 334);
    for _ in 0..160 {
        client.send(&block).await.unwrap();
    }
    assert_eq!(client.command("").await.unwrap().code, 500);
    // A header section without end: long fields, and many.
    for field in [format!("X: {}\r\n", "x".repeat(900)), "X: y\r\n".to_owned()] {
        let mut client = content(&setting).await;
        for _ in 0..100 {
            client.send(field.repeat(8000 / field.len()).as_bytes()).await.unwrap();
        }
        let reply = client.command("\r\n.").await.unwrap();
        assert!([550, 552, 554].contains(&reply.code), "{reply}");
    }
    // Content without end: a single line, and lines.
    for unit in ["x".repeat(8000), "x\r\n".repeat(2000)] {
        let mut client = content(&setting).await;
        client.send(b"Subject: x\r\n\r\n").await.unwrap();
        for _ in 0..2000 {
            client.send(unit.as_bytes()).await.unwrap();
        }
        let reply = client.command("\r\n.").await.unwrap();
        assert!([500, 550, 552, 554].contains(&reply.code), "{reply}");
    }
    let grown = setting.relay.resident_octets().unwrap().saturating_sub(before);
    assert!(grown < 16 << 20, "memory grew by {grown} octets");
    setting.only_what_is_in_order_arrives(0).await;
}

async fn content(setting: &Setting) -> SmtpClient {
    let mut client = setting.client(Port::Smtp).await;
    for command in ["MAIL FROM:<a@sender.example>", "RCPT TO:<b@recipient.example>", "DATA"] {
        client.command(command).await.unwrap();
    }
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_gets_no_more_connections_than_it_may_have() {
    let setting = Setting::start(OURS).await;
    let source = Ipv4Addr::LOCALHOST;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = setting.connect_from(source, Port::Smtp).await;
        assert_eq!(client.reply().await.unwrap().code, 220);
        clients.push(client);
    }
    let mut refused = setting.connect_from(source, Port::Smtp).await;
    assert_eq!(refused.reply().await.unwrap().code, 421);
    assert!(refused.closed().await.unwrap().is_empty());
    // The sessions that were there first go on, and one that ends makes room.
    assert_eq!(clients[7].command("EHLO a.example").await.unwrap().code, 250);
    assert_eq!(clients[0].command("QUIT").await.unwrap().code, 221);
    clients[0].closed().await.unwrap();
    setting.only_what_is_in_order_arrives(0).await;
}
