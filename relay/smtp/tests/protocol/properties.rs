//! What holds for every input. `PROPTEST_CASES=100000` looks harder.

use super::peer::{NONCE, Seen};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use smtp_protocol::data::{ContentDecoder, ContentEncoder, Decoded};
use smtp_protocol::{
    AuthOffer, BareNewline, Body, ClientConfig, ClientEvent, ClientSession, ClientTls, ContentLimits,
    Credentials, Event, ForwardPath, Mailbox, Mechanism, PlainCredentials, Reply, ReplyReader, ReversePath,
    ServerConfig, ServerSession, TlsOffer, Transaction,
};
use std::sync::Arc;

fn server() -> ServerSession {
    server_with(BareNewline::Reject)
}

fn server_with(bare_newline: BareNewline) -> ServerSession {
    ServerSession::new(Arc::new(ServerConfig {
        tls: TlsOffer::Established,
        authentication: AuthOffer::Optional,
        mechanisms: Mechanism::ALL.to_vec(),
        message_bytes: 60,
        header_bytes: 40,
        header_fields: 2,
        recipients: 3,
        messages: 4,
        smtputf8: true,
        dsn: true,
        bare_newline,
        errors: 8,
        idle_commands: 12,
        ..ServerConfig::default()
    }))
}

/// Lines and fragments that lead a session into every corner.
fn client_octets() -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<&'static [u8]> = vec![
        b"EHLO a.example\r\n",
        b"HELO a\r\n",
        b"MAIL FROM:<a@b.example>\r\n",
        b"MAIL FROM:<> SIZE=10 BODY=8BITMIME\r\n",
        b"MAIL FROM:<a@b.example> SIZE=61\r\n",
        b"RCPT TO:<c@d.example>\r\n",
        b"RCPT TO:<refused@d.example>\r\n",
        b"RCPT TO:<later@d.example>\r\n",
        b"DATA\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"..\r\n",
        b".x\r\n",
        b"Subject: x\r\n\r\n",
        b"Subject: full\r\n",
        "MAIL FROM:<j\u{fc}rgen@b.example> SMTPUTF8\r\n".as_bytes(),
        b"MAIL FROM:<a@b.example> RET=HDRS ENVID=a+2Bb\r\n",
        b"RCPT TO:<c@d.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c+2B@d.example\r\n",
        b"BDAT 8\r\nA: b\r\n\r\n",
        b"BDAT 5\r\na\r\n.\r",
        b"BDAT 3 LAST\r\n\na\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 70 LAST\r\n",
        b"BDAT x\r\n",
        b"A: b\nC: d\n\n.\r\n",
        b"AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8=\r\n",
        b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"QUIT\r\n",
        b"HELP\r\n",
        b"VRFY x\r\n",
        b"EXPN x\r\n",
        b"AUTH PLAIN AGFsaWNlAHMzY3JldA==\r\n",
        b"AUTH PLAIN\r\n",
        b"AUTH LOGIN\r\n",
        b"YWxpY2U=\r\n",
        b"czNjcmV0\r\n",
        b"*\r\n",
        b"STARTTLS\r\n",
        b"nonsense\r\n",
        b"\xff\x80\r\n",
        b"\r",
        b"\n",
        b".",
        b"\0",
        b"x",
        b"\r\n",
    ];
    let piece = prop_oneof![8 => select(lines).prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 0..20)];
    vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

/// The same octets in pieces.
fn split<'a>(mut octets: &'a [u8], cuts: &[Index]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for cut in cuts {
        let (piece, rest) = octets.split_at(cut.index(octets.len() + 1));
        pieces.push(piece);
        octets = rest;
    }
    pieces.push(octets);
    pieces
}

fn serve(pieces: &[&[u8]]) -> (Vec<u8>, Seen) {
    serve_with(BareNewline::Reject, pieces)
}

fn serve_with(bare_newline: BareNewline, pieces: &[&[u8]]) -> (Vec<u8>, Seen) {
    let (mut session, mut seen) = (server_with(bare_newline), Seen::default());
    let mut output = session.take_output().to_vec();
    for piece in pieces {
        session.receive(piece);
        seen.drive(&mut session);
        output.extend_from_slice(&session.take_output());
    }
    (output, seen)
}

fn client() -> ClientSession {
    let credentials = Some(Credentials::Password(PlainCredentials::new("alice", "s3cret")));
    ClientSession::new(ClientConfig {
        ehlo_name: "a.example".into(),
        tls: ClientTls::Implicit,
        credentials,
        nonce: NONCE.into(),
    })
}

fn server_octets() -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<&'static [u8]> = vec![
        b"220 a.example\r\n",
        b"250-a\r\n250-PIPELINING\r\n250-SIZE\r\n250-AUTH PLAIN\r\n250 8BITMIME\r\n",
        b"220 a\r\n250-a\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 AUTH PLAIN\r\n235 2.7.0 OK\r\n",
        b"250 OK\r\n250 OK\r\n550 5.1.1 no\r\n250 OK\r\n",
        b"503 5.5.1 what\r\n",
        b"220 a\r\n250-a\r\n250-PIPELINING\r\n250 AUTH PLAIN\r\n235 2.7.0 OK\r\n",
        b"220 a\r\n250-a\r\n250 AUTH LOGIN\r\n334 VXNlcm5hbWU6\r\n334 UGFzc3dvcmQ6\r\n235 2.7.0 OK\r\n",
        b"250 2.0.0 OK\r\n",
        b"250 OK\r\n250 OK\r\n250 OK\r\n354 go\r\n",
        b"354 go\r\n",
        b"334 \r\n",
        b"235 2.7.0 OK\r\n",
        b"421 4.3.2 bye\r\n",
        b"451 4.7.1 later\r\n",
        b"550-5.1.1 no\r\n550 5.1.1 such user\r\n",
        b"502 5.5.1 what\r\n",
        b"250-",
        b"\r\n",
        b"x",
    ];
    let piece = prop_oneof![10 => select(lines).prop_map(<[u8]>::to_vec), 1 => vec(any::<u8>(), 0..20)];
    vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

fn transaction() -> Transaction {
    let recipient = |text: &str| ForwardPath::from(text.parse::<Mailbox>().unwrap()).into();
    Transaction {
        reverse_path: ReversePath::Null,
        recipients: vec![recipient("c@d.example"), recipient("e@f.example")],
        whole: false,
        size: 3,
        body: Body::EightBitMime,
        smtputf8: false,
        ret: None,
        envelope_id: None,
    }
}

/// Drives a client through as many transactions as the server lets it, each begun as soon as it may be. Also how many were
/// started.
fn consume(pieces: &[&[u8]]) -> (Vec<u8>, Vec<ClientEvent>, usize) {
    let (mut session, mut events, mut output, mut started) = (client(), Vec::new(), Vec::new(), 0);
    for piece in pieces {
        session.receive(piece);
        while let Some(event) = session.poll() {
            if event == ClientEvent::SendContent {
                session.content(b".x\r\n");
                session.end_of_content();
            }
            events.push(event);
            if session.may_start() {
                session.start(transaction());
                started += 1;
            }
        }
        output.extend_from_slice(&session.take_output());
    }
    (output, events, started)
}

/// No bare CR, no bare LF, no NUL, and a CRLF at the end.
fn lines_end_with_crlf(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    let bare = text.replace("\r\n", "");
    !bare.contains(['\r', '\n', '\0']) && (content.is_empty() || content.ends_with(b"\r\n"))
}

/// Every accepted MAIL has at most one end, and only the last may lack it.
fn transactions_are_paired(events: &[String]) -> bool {
    let mut open = false;
    for (index, event) in events.iter().enumerate() {
        let next = events.get(index + 1).map(String::as_str);
        match event.as_str() {
            "Data" | "Abort" | "EndOfContent" if !open => return false,
            "Abort" => open = false,
            "EndOfContent" => open = next == Some("Abort"),
            mail if mail.starts_with("Mail(") => {
                if open {
                    return false;
                }
                open = true;
            }
            _ => {}
        }
    }
    !(open && events.last().is_some_and(|event| event == "Closed"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_a_clients_octets_gives_the_same_session(octets in client_octets(), cuts in vec(any::<Index>(), 0..12)) {
        let whole = serve(&[&octets]);
        prop_assert_eq!(&serve(&split(&octets, &cuts)), &whole);
        let single: Vec<&[u8]> = octets.chunks(1).collect();
        prop_assert_eq!(&serve(&single), &whole);
    }

    #[test]
    fn any_split_is_normalised_alike(octets in client_octets(), cuts in vec(any::<Index>(), 0..12)) {
        let whole = serve_with(BareNewline::Normalise, &[&octets]);
        prop_assert_eq!(&serve_with(BareNewline::Normalise, &split(&octets, &cuts)), &whole);
        for message in &whole.1.messages {
            prop_assert!(lines_end_with_crlf(message), "{}", message.escape_ascii());
        }
    }

    #[test]
    fn accepted_content_is_text_of_crlf_lines(octets in client_octets()) {
        for message in &serve(&[&octets]).1.messages {
            prop_assert!(lines_end_with_crlf(message), "{}", message.escape_ascii());
        }
    }

    #[test]
    fn every_accepted_mail_ends_once(octets in client_octets()) {
        let (_, seen) = serve(&[&octets]);
        prop_assert!(transactions_are_paired(&seen.events), "{:?}", seen.events);
    }

    #[test]
    fn every_octet_said_is_a_reply_of_at_most_512_octets_a_line(octets in client_octets()) {
        let (output, _) = serve(&[&octets]);
        prop_assert!(output.ends_with(b"\r\n"));
        prop_assert!(output.split(|b| *b == b'\n').all(|line| line.len() < 512));
        let mut reader = ReplyReader::new();
        reader.push(&output);
        while reader.next().expect("a reply").is_some() {}
        prop_assert_eq!(reader.buffered(), 0);
    }

    #[test]
    fn any_split_of_a_servers_octets_gives_the_same_session(octets in server_octets(), cuts in vec(any::<Index>(), 0..12)) {
        let whole = consume(&[&octets]);
        prop_assert_eq!(&consume(&split(&octets, &cuts)), &whole);
        let single: Vec<&[u8]> = octets.chunks(1).collect();
        prop_assert_eq!(&consume(&single), &whole);
    }

    #[test]
    fn every_transaction_started_has_one_outcome(octets in server_octets()) {
        let (_, events, started) = consume(&[&octets]);
        let count = |wanted: fn(&ClientEvent) -> bool| events.iter().filter(|event| wanted(event)).count();
        let ended = count(|event| matches!(event, ClientEvent::Done(_) | ClientEvent::Undecided(_)));
        let failed = count(|event| matches!(event, ClientEvent::Failed(_)));
        let over = events.last() == Some(&ClientEvent::Closed);
        prop_assert!(ended <= started && started <= ended + 4, "{started} started: {events:?}");
        prop_assert!(!over || started == ended, "{started} started: {events:?}");
        prop_assert!(failed <= 1 && (failed == 0 || events.last() == Some(&ClientEvent::Closed)), "{events:?}");
        for event in &events {
            if let ClientEvent::Done(done) = event {
                prop_assert_eq!(done.recipients.len(), 2);
            }
        }
    }

    #[test]
    fn unstuffing_undoes_stuffing(
        lines in vec("[.a]{0,4}|\\PC{0,10}", 0..10), cuts in vec(any::<Index>(), 0..6), behind in "[.A-Z\r\n]{0,6}"
    ) {
        let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let (mut encoder, mut wire) = (ContentEncoder::new(), bytes::BytesMut::new());
        split(content.as_bytes(), &cuts).iter().for_each(|piece| encoder.encode(piece, &mut wire));
        encoder.finish(&mut wire);
        wire.extend_from_slice(behind.as_bytes());
        let (mut decoder, mut decoded) = (ContentDecoder::new(ContentLimits::default(), BareNewline::Reject), Vec::new());
        loop {
            match decoder.decode(&mut wire) {
                Some(Decoded::Slice(slice)) => decoded.extend_from_slice(&slice),
                Some(Decoded::Fault(fault)) => prop_assert!(false, "{fault}"),
                Some(Decoded::End) => break,
                None => prop_assert!(false, "the end was not found"),
            }
        }
        prop_assert_eq!(decoded, content.as_bytes());
        prop_assert_eq!(&wire[..], behind.as_bytes());
    }

    #[test]
    fn whatever_is_encoded_arrives_as_clean_content(chunks in vec(vec(select(b".a\r\n".to_vec()), 0..6), 0..6)) {
        let (mut encoder, mut wire) = (ContentEncoder::new(), bytes::BytesMut::new());
        chunks.iter().for_each(|chunk| encoder.encode(chunk, &mut wire));
        encoder.finish(&mut wire);
        let mut decoder = ContentDecoder::new(ContentLimits::default(), BareNewline::Reject);
        let last = loop {
            match decoder.decode(&mut wire) {
                Some(Decoded::Slice(_)) => {}
                other => break other,
            }
        };
        prop_assert!(matches!(last, Some(Decoded::End)));
        prop_assert!(wire.is_empty());
    }

    #[test]
    fn a_reply_is_read_as_it_was_meant(code in 200u16..600, text in "\\PC{0,1200}", subject in 0u16..1000, enhanced: bool) {
        let class = u8::try_from(code / 100).unwrap();
        let enhanced = enhanced && class != 3;
        let reply = if enhanced { Reply::new(code, (class, subject, 1), text) } else { Reply::bare(code, format!("-{text}")) };
        let mut wire = bytes::BytesMut::new();
        reply.encode(&mut wire);
        let mut reader = ReplyReader::new();
        reader.push(&wire);
        let read = reader.next().unwrap().unwrap();
        prop_assert_eq!((read.code, read.enhanced), (reply.code, reply.enhanced));
        let letters = |reply: &Reply| reply.text().chars().filter(|c| *c != ' ').count();
        prop_assert_eq!(letters(&read), letters(&reply));
    }
}

#[test]
fn endless_lines_leave_memory_bounded() {
    let starts: [&[u8]; 4] = [
        b"",
        b"EHLO a\r\nAUTH LOGIN\r\n",
        b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n",
        b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nbare\n",
    ];
    for start in starts {
        let (mut session, mut seen) = (server(), Seen::default());
        session.receive(start);
        for _ in 0..1000 {
            seen.drive(&mut session);
            session.take_output();
            assert!(
                session.wants_input() && session.buffered() <= 12288,
                "{} octets held",
                session.buffered()
            );
            session.receive(&[b'x'; 8192]);
        }
        assert!(seen.content.len() <= 60);
    }
}

#[test]
fn an_idle_session_is_small_and_holds_no_buffer() {
    let (mut session, mut seen) = (server(), Seen::default());
    session.receive(b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\n");
    seen.drive(&mut session);
    assert!(session.take_output().ends_with(b"Kept 3 octets\r\n"));
    assert_eq!(session.capacity(), 0, "octets of buffers held");
    assert!(size_of::<ServerSession>() <= 512, "{} octets", size_of::<ServerSession>());
}

#[test]
fn a_buffer_is_taken_over_without_a_copy() {
    let (mut session, mut seen) = (server_with(BareNewline::Reject), Seen::default());
    session.receive(b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n");
    seen.drive(&mut session);
    let buffer = bytes::BytesMut::from(&b"content\r\n"[..]);
    let place = buffer.as_ptr();
    session.receive_buffer(buffer);
    let Some(Event::Content(slice)) = session.poll() else { panic!("content") };
    assert_eq!(slice.as_ptr(), place);
}

#[test]
fn an_endless_reply_leaves_memory_bounded_and_ends_the_session() {
    let mut session = client();
    session.receive(b"220 ");
    let mut events = Vec::new();
    for _ in 0..100 {
        session.receive(&[b'x'; 1024]);
        events.extend(std::iter::from_fn(|| session.poll()));
        assert!(session.buffered() <= 8192, "{} octets held", session.buffered());
    }
    assert!(matches!(events[..], [ClientEvent::Failed(_), ClientEvent::Closed]), "{events:?}");
}

#[test]
fn no_input_is_wanted_while_an_answer_is_awaited_or_too_much_is_unread() {
    let mut session =
        ServerSession::new(Arc::new(ServerConfig { idle_commands: u32::MAX, ..ServerConfig::default() }));
    session.receive(b"EHLO a\r\nMAIL FROM:<a@b.example>\r\n");
    assert!(session.wants_input());
    assert!(session.poll().is_some());
    assert!(!session.wants_input(), "MAIL awaits its answer");
    session.respond(Reply::new(250, (2, 1, 0), "OK"));
    assert!(session.wants_input());
    session.receive(&b"NOOP\r\n".repeat(20_000));
    assert!(!session.wants_input(), "120,000 octets are unread");
    assert!(session.poll().is_none());
    assert!(session.wants_input());
}
