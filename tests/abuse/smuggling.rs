//! One message for two. What looks like an end of content to some servers is none to the relay: the message is refused as a
//! whole, or what follows is its content and leaves as such (RFC 5321 §4.1.1.4, §4.5.2).

use crate::probe::{Probe, Start, composed, probe, run_all};
use crate::setting::{LIMIT, OURS, Port, Setting};

/// Nothing for the relay to add.
const HEADER: &[u8] =
    b"Subject: one\r\nDate: Wed, 25 Nov 2026 12:00:00 +0000\r\nMessage-ID: <one@sender.example>\r\n\r\n";
/// What is to be smuggled, up to the only true end.
const CARGO: &[u8] = b"MAIL FROM:<smuggled@sender.example>\r\nRCPT TO:<victim@recipient.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nsmuggled\r\n.\r\n";

/// Ends of content to one server or another, all with an octet that nobody may send: bare LF, bare CR or NUL.
const FALSE_ENDS: [&[u8]; 22] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\n.\r",
    b"\r.\r\n",
    b"\r.\r",
    b"\r.\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\n\n.\r\n",
    b"\r\r.\r\n",
    b"\n\r.\r\n",
    b"\r\n\n.\r\n",
    b"\r\n.\n\r\n",
    b"\r\n.\r\r\n",
    b"\r\r\n.\r\r\n",
    b"\n.\n\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\0\n",
    b"\r\0\n.\r\n",
    b"\0\r\n.\0\r\n",
    b"\n\0.\r\n",
];

/// Lines that are no end and nothing forbidden either, and the lines they are.
const ODD_LINES: [(&[u8], &[u8]); 8] = [
    (b"\r\n..\r\n", b"\r\n.\r\n"),
    (b"\r\n...\r\n", b"\r\n..\r\n"),
    (b"\r\n. \r\n", b"\r\n \r\n"),
    (b"\r\n.\t\r\n", b"\r\n\t\r\n"),
    (b"\r\n.x\r\n", b"\r\nx\r\n"),
    (b"\r\n .\r\n", b"\r\n .\r\n"),
    (b"\r\n.=0D=0A\r\n", b"\r\n=0D=0A\r\n"),
    (b"\r\n\r\n..\r\n\r\n", b"\r\n\r\n.\r\n\r\n"),
];

fn with_cargo(middle: &[u8]) -> Vec<u8> {
    [HEADER, b"one", middle, CARGO].concat()
}

fn chunks() -> Vec<Probe> {
    let open = |name, octets, codes| probe(name, Port::Smtp, Start::Transaction, [(octets, codes)]);
    vec![
        open("BDAT without a size", b"BDAT\r\n", "501 421 closed"),
        open("BDAT with a word for a size", b"BDAT ten\r\n", "501 421 closed"),
        open("BDAT of less than nothing", b"BDAT -1\r\n", "501 421 closed"),
        open("BDAT of more than there are numbers", b"BDAT 99999999999999999999999\r\n", "501 421 closed"),
        open("BDAT of more than anybody will read", b"BDAT 4000001 LAST\r\nRSET\r\n", "552 421 closed"),
        probe(
            "the same without a transaction",
            Port::Smtp,
            Start::Ready,
            [(b"BDAT 18446744073709551615\r\nRSET\r\n", "503 421 closed")],
        ),
        open("BDAT with another word than LAST", b"BDAT 5 FIRST\r\nhello", "501 421 closed"),
        open("a bare LF in a chunk", b"BDAT 7 LAST\r\na\n.\nb\r\n", "550"),
        open("a bare CR in a chunk", b"BDAT 7 LAST\r\na\r.\rb\r\n", "550"),
        open("a NUL in a chunk", b"BDAT 5 LAST\r\na\0b\r\n", "550"),
        open("DATA behind a chunk", b"BDAT 4\r\nabcdDATA\r\nRSET\r\n", "250 503 250"),
        open("MAIL behind a chunk", b"BDAT 4\r\nabcdMAIL FROM:<x@sender.example>\r\nRSET\r\n", "250 503 250"),
        open("RCPT behind a chunk", b"BDAT 4\r\nabcdRCPT TO:<x@recipient.example>\r\nRSET\r\n", "250 503 250"),
        open("a size that is one too small", b"BDAT 4\r\nabcdeRSET\r\n", "250 500|503"),
        probe(
            "a chunk without a transaction, with commands in it",
            Port::Smtp,
            Start::Ready,
            [(b"BDAT 32 LAST\r\nMAIL FROM:<smuggled@s.example>\r\n", "503")],
        ),
        probe(
            "a chunk behind a refused recipient, with commands in it",
            Port::Smtp,
            Start::Ready,
            [(
                b"MAIL FROM:<a@sender.example>\r\nRCPT TO:<b@elsewhere.example>\r\nBDAT 32 LAST\r\nMAIL FROM:<smuggled@s.example>\r\n",
                "250 550 554|503",
            )],
        ),
        open("a chunk while DATA is read", b"DATA\r\n\nBDAT 2 LAST\r\n\r\n.\r\n", "354 550"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_false_end_of_content_is_taken_for_one_even_from_a_permitted_client() {
    let setting = Setting::start(OURS).await;
    let name = |end: &[u8]| format!("the false end {}", end.escape_ascii());
    let mut probes: Vec<Probe> = FALSE_ENDS
        .iter()
        .map(|end| composed(name(end), Start::Content, with_cargo(end), "550|554"))
        .collect();
    // The same at the very beginning, where a line begins without a CRLF of the content's own.
    for start in [b".\n".as_slice(), b".\r", b"\n.\r\n", b"\0.\r\n"] {
        let octets = [start, CARGO].concat();
        probes.push(composed(format!("{} at the start", name(start)), Start::Content, octets, "550|554"));
    }
    probes.extend(chunks());
    assert!(probes.len() >= 40, "{} probes", probes.len());
    run_all(&probes, &setting).await;
    setting.only_what_is_in_order_arrives(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_like_an_end_leaves_as_the_content_of_one_message() {
    let setting = Setting::start(OURS).await;
    for (number, (odd, line)) in ODD_LINES.into_iter().enumerate() {
        let sent = with_cargo(odd);
        let expected = [HEADER, b"one", line, &CARGO[..CARGO.len() - 3]].concat();
        arrives_as_one(&setting, number, &sent, &expected).await;
    }
    setting.only_what_is_in_order_arrives(ODD_LINES.len()).await;
}

async fn arrives_as_one(setting: &Setting, before: usize, wire: &[u8], expected: &[u8]) {
    let mut client = setting.client(Port::Smtp).await;
    for command in ["MAIL FROM:<a@sender.example>", "RCPT TO:<b@recipient.example>", "DATA"] {
        client.command(command).await.unwrap();
    }
    client.send(wire).await.unwrap();
    assert_eq!(client.reply().await.unwrap().code, 250);
    let arrived = setting.upstream.wait_for(before + 1, LIMIT).await.unwrap();
    assert_eq!(arrived.len(), before + 1);
    let content = &arrived[before].content;
    assert!(content.ends_with(expected), "{} became {}", wire.escape_ascii(), content.escape_ascii());
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_with_an_end_of_content_in_them_leave_as_one_message() {
    let setting = Setting::start(OURS).await;
    // Split in the middle of CRLF.CRLF too; and without a line end at the end, which the relay has to add.
    let content = [HEADER, b"one\r\n.\r\n", CARGO, b"the end"].concat();
    let dot = HEADER.len() + 5;
    for (number, at) in [20, dot - 2, dot - 1, dot, dot + 1, dot + 2, dot + 3].into_iter().enumerate() {
        let mut client = setting.client(Port::Smtp).await;
        for command in ["MAIL FROM:<a@sender.example>", "RCPT TO:<b@recipient.example>"] {
            client.command(command).await.unwrap();
        }
        let (first, second) = content.split_at(at);
        let wire = [
            format!("BDAT {}\r\n", first.len()).as_bytes(),
            first,
            format!("BDAT {}\r\n", second.len()).as_bytes(),
            second,
            b"BDAT 0 LAST\r\nBDAT 0 LAST\r\n",
        ]
        .concat();
        client.send(&wire).await.unwrap();
        for code in [250, 250, 250, 503] {
            let reply = client.reply().await.unwrap();
            assert_eq!(reply.code, code, "split at {at}: {reply}");
        }
        let arrived = setting.upstream.wait_for(number + 1, LIMIT).await.unwrap();
        assert_eq!(arrived.len(), number + 1);
        let expected = [content.as_slice(), b"\r\n"].concat();
        assert!(arrived[number].content.ends_with(&expected), "{}", arrived[number].content.escape_ascii());
    }
    setting.only_what_is_in_order_arrives(7).await;
}

/// Whether a listener that turns a bare LF into CRLF still finds something to refuse: a bare CR or a NUL.
fn is_refused_when_normalised(octets: &[u8]) -> bool {
    let bare_cr = |at: usize| octets[at] == b'\r' && octets.get(at + 1) != Some(&b'\n');
    octets.contains(&0) || (0..octets.len()).any(bare_cr)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_bare_lf_becomes_crlf_still_only_crlf_dot_crlf_ends_a_message() {
    let setting = Setting::start(OURS).await;
    let mut accepted = 0;
    for end in FALSE_ENDS {
        let name = end.escape_ascii();
        let mut client = setting.client(Port::Normalising).await;
        for command in ["MAIL FROM:<a@sender.example>", "RCPT TO:<b@recipient.example>", "DATA"] {
            client.command(command).await.unwrap();
        }
        client.send(&with_cargo(end)).await.unwrap();
        let refused = is_refused_when_normalised(end);
        let reply = client.reply().await.unwrap();
        assert_eq!(reply.code, if refused { 550 } else { 250 }, "{name}: {reply}");
        // One reply, and the session waits for a command: nothing of the cargo was taken for one.
        assert_eq!(client.command("NOOP").await.unwrap().code, 250, "{name}");
        accepted += usize::from(!refused);
        let arrived = setting.upstream.wait_for(accepted, LIMIT).await.unwrap();
        assert_eq!(arrived.len(), accepted, "{name}");
        assert!(arrived.iter().all(|message| message.reverse_path == "a@sender.example"), "{name}");
        if !refused {
            let content = &arrived[accepted - 1].content;
            let cargo = &CARGO[..CARGO.len() - 3];
            assert!(content.ends_with(cargo), "{name} became {}", content.escape_ascii());
        }
    }
    assert!(accepted >= 5, "{accepted} of them are bare line feeds");
    setting.only_what_is_in_order_arrives(accepted).await;
}
