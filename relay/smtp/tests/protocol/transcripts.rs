//! Conversations out of `tests/transcripts`, one test a file.
//!
//! Each line of a file begins with who speaks:
//!
//! | line | meaning |
//! |---|---|
//! | `C: text`, `S: text` | a line with CRLF. The peer of the session under test speaks it, the session must say it |
//! | `c: text`, `s: text` | the same without CRLF |
//! | `E: text` | the next event, in its `Debug` form. Files with at least one `E:` list all events |
//! | `!: word …` | something the driver does |
//! | `#` | a comment; the first names the rule |
//!
//! `\r \n \0 \\ \xNN` are octets, `{N}` behind a character repeats it. Consecutive lines of the peer arrive in one piece.

use super::peer::{NONCE, Seen};
use smtp_protocol::{
    AccessToken, AuthOffer, BareNewline, Body, ClientConfig, ClientEvent, ClientSession, ClientTls,
    Credentials, ForwardPath, Mechanism, PlainCredentials, Reply, ServerConfig, ServerSession, TlsOffer,
    Transaction, TransactionRecipient,
};
use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

macro_rules! transcripts {
    ($folder:ident, $run:path: $($name:ident)+) => {
        mod $folder {
            $(#[test] fn $name() { $run(concat!(stringify!($folder), "/", stringify!($name), ".txt")); })+

            #[test]
            fn every_transcript_in_the_folder_is_run() {
                let mut listed = vec![$(concat!(stringify!($name), ".txt")),+];
                listed.sort_unstable();
                assert_eq!(super::files(stringify!($folder)), listed);
            }
        }
    };
}

transcripts! { server, super::run_server:
    a_message_is_accepted_and_the_session_goes_on
    a_pipelined_group_is_answered_in_order
    authentication_required_guards_mail
    bad_syntax_is_named
    bare_line_feed_in_a_command_ends_the_session
    commands_out_of_sequence_are_refused
    ehlo_and_rset_drop_the_transaction
    errors_are_limited
    only_crlf_dot_crlf_ends_content
    over_long_lines_are_swallowed
    recipients_are_limited
    refused_recipients_leave_the_others
    sasl_login_and_its_failures
    sasl_plain
    shut_down_waits_for_the_transaction
    shut_down_when_idle_is_immediate
    size_is_limited
    starttls_forgets_what_was_said
    starttls_with_pipelined_commands_is_injection
    the_driver_may_close_by_421
    timeout_is_announced
    tls_required_guards_everything
    unasked_answers_are_ignored
}

transcripts! { client, super::run_client:
    a_421_ends_the_session
    a_lost_connection_leaves_undecided_recipients_undecided
    a_refusal_counts_though_the_connection_is_lost_behind_it
    all_recipients_refused_but_data_accepted_sends_a_lone_dot
    auth_is_refused
    auth_login_where_plain_is_missing
    auth_scram_accepted_without_the_servers_proof_is_refused
    auth_scram_before_plain_and_the_server_proves_itself
    auth_with_a_long_token_waits_for_the_334
    auth_without_a_common_mechanism
    auth_xoauth2_refused_answers_the_error_report
    auth_xoauth2_with_a_token
    content_refused_early_is_not_ambiguous
    content_refused_resets_the_session
    dsn_parameters_are_left_out_where_not_offered
    dsn_parameters_are_passed_on_where_offered
    ehlo_falls_back_to_helo
    mail_refused_is_every_recipients_reply
    no_pipelining_goes_one_by_one
    pipelining_sends_the_envelope_in_one_piece
    some_recipients_refused_leaves_the_others_delivered
    starttls_and_auth_plain
    starttls_reply_with_more_behind_it_is_injection
    starttls_that_is_not_offered_is_never_skipped
    the_connection_is_lost_after_the_final_dot
    the_connection_is_lost_before_the_final_dot
    the_greeting_refuses
    the_server_does_not_speak_smtp
    unsolicited_421_while_idle
}

/// One line of a transcript.
#[derive(Debug)]
struct Line {
    number: usize,
    speaker: char,
    text: String,
}

impl Line {
    fn octets(&self) -> Vec<u8> {
        let mut octets = unescape(&self.text);
        if self.speaker.is_ascii_uppercase() {
            octets.extend_from_slice(b"\r\n");
        }
        octets
    }
}

fn folder(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(name)
}

fn files(name: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder(name)).unwrap();
    let mut files: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort_unstable();
    files
}

fn load(file: &str) -> Vec<Line> {
    let text = std::fs::read_to_string(folder(file)).unwrap();
    assert!(text.starts_with("# RFC"), "{file}: the first line names the rule");
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(index, line)| parse(file, index + 1, line)).collect()
}

fn parse(file: &str, number: usize, line: &str) -> Line {
    let (speaker, text) = line.split_once(':').unwrap_or_else(|| panic!("{file}:{number}: {line}"));
    let text = text.strip_prefix(' ').unwrap_or(text).to_owned();
    Line { number, speaker: speaker.parse().unwrap(), text }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut length = first.len_utf8();
        match rest.as_bytes() {
            [b'\\', b'x', ..] => {
                octets.push(u8::from_str_radix(&rest[2..4], 16).unwrap());
                length = 4;
            }
            [b'\\', letter, ..] => {
                octets.push(match letter {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b'0' => 0,
                    other => *other,
                });
                length = 2;
            }
            [b'{', digit, ..] if digit.is_ascii_digit() => {
                let (count, _) = rest[1..].split_once('}').unwrap();
                let last = *octets.last().unwrap();
                octets.extend(std::iter::repeat_n(last, count.parse::<usize>().unwrap() - 1));
                length = count.len() + 2;
            }
            _ => octets.extend_from_slice(&rest.as_bytes()[..length]),
        }
        rest = &rest[length..];
    }
    octets
}

fn options(text: &str) -> HashMap<&str, &str> {
    text.split(' ').filter_map(|word| word.split_once('=')).collect()
}

/// Checks what the session says and tells against the transcript.
struct Script {
    file: String,
    output: Vec<u8>,
    events: VecDeque<String>,
    check_events: bool,
}

impl Script {
    fn new(file: &str, lines: &[Line]) -> Self {
        let check_events = lines.iter().any(|line| line.speaker == 'E');
        Self { file: file.to_owned(), output: Vec::new(), events: VecDeque::new(), check_events }
    }

    fn expect_output(&mut self, line: &Line) {
        let expected = line.octets();
        let found = self.output.len().min(expected.len());
        let (file, number) = (&self.file, line.number);
        assert_eq!(
            show(&self.output[..found]),
            show(&expected),
            "{file}:{number}; rest {}",
            show(&self.output)
        );
        self.output.drain(..found);
    }

    fn expect_event(&mut self, line: &Line) {
        assert_eq!(self.events.pop_front().as_ref(), Some(&line.text), "{}:{}", self.file, line.number);
    }

    fn expect_silence(&self, number: usize) {
        assert!(self.output.is_empty(), "{}:{number}: also said {}", self.file, show(&self.output));
    }

    fn expect_end(&self) {
        self.expect_silence(usize::MAX);
        assert!(!self.check_events || self.events.is_empty(), "{}: events {:?}", self.file, self.events);
    }
}

fn show(octets: &[u8]) -> String {
    octets.escape_ascii().to_string()
}

fn server_config(text: &str) -> ServerConfig {
    let options = options(text);
    let number = |name, default: u64| options.get(name).map_or(default, |value| value.parse().unwrap());
    ServerConfig {
        hostname: "mail.example.com".into(),
        banner_text: "ESMTP".into(),
        message_bytes: number("size", 1000),
        recipients: usize::try_from(number("recipients", 100)).unwrap(),
        tls: match options.get("tls") {
            None => TlsOffer::None,
            Some(&"starttls") => TlsOffer::StartTls,
            Some(&"required") => TlsOffer::StartTlsRequired,
            Some(&"established") => TlsOffer::Established,
            Some(other) => panic!("tls={other}"),
        },
        authentication: match options.get("auth") {
            None => AuthOffer::None,
            Some(&"optional") => AuthOffer::Optional,
            Some(&"required") => AuthOffer::Required,
            Some(other) => panic!("auth={other}"),
        },
        errors: u32::try_from(number("errors", 20)).unwrap(),
        idle_commands: u32::try_from(number("idle", 100)).unwrap(),
        messages: u32::try_from(number("messages", 0)).unwrap(),
        header_bytes: number("headers", 100_000),
        header_fields: u32::try_from(number("fields", 100)).unwrap(),
        auth_without_tls: options.contains_key("clear"),
        mechanisms: if options.contains_key("scram") {
            Mechanism::ALL.to_vec()
        } else {
            vec![Mechanism::Plain, Mechanism::Login]
        },
        smtputf8: options.contains_key("smtputf8"),
        dsn: options.contains_key("dsn"),
        bare_newline: match options.get("newline") {
            None => BareNewline::Reject,
            Some(&"normalise") => BareNewline::Normalise,
            Some(other) => panic!("newline={other}"),
        },
        ..ServerConfig::default()
    }
}

fn run_server(file: &str) {
    let mut lines: VecDeque<Line> = load(file).into();
    let mut script = Script::new(file, lines.make_contiguous());
    let config = lines.pop_front_if(|line| line.text.starts_with("server")).map(|line| line.text);
    let mut session = ServerSession::new(Arc::new(server_config(config.as_deref().unwrap_or_default())));
    let mut seen = Seen::default();
    script.output.extend_from_slice(&session.take_output());
    while let Some(line) = lines.pop_front() {
        match line.speaker {
            'C' | 'c' => {
                script.expect_silence(line.number);
                let mut group = line.octets();
                while let Some(next) = lines.pop_front_if(|next| matches!(next.speaker, 'C' | 'c')) {
                    group.extend(next.octets());
                }
                session.receive(&group);
            }
            '!' => match line.text.as_str() {
                "tls" => session.tls_established(),
                "timeout" => session.timed_out(),
                "shutdown" => session.shut_down(),
                "answer" => session.respond(Reply::new(250, (2, 0, 0), "Nobody asked")),
                other => panic!("{file}:{}: {other}", line.number),
            },
            'S' | 's' => script.expect_output(&line),
            'E' => script.expect_event(&line),
            other => panic!("{file}:{}: {other}", line.number),
        }
        seen.drive(&mut session);
        script.output.extend_from_slice(&session.take_output());
        script.events.extend(seen.events.drain(..));
    }
    script.expect_end();
}

fn client_config(text: &str) -> ClientConfig {
    let options = options(text);
    ClientConfig {
        ehlo_name: "client.example.com".into(),
        tls: match options.get("tls") {
            None => ClientTls::None,
            Some(&"starttls") => ClientTls::StartTls,
            Some(&"implicit") => ClientTls::Implicit,
            Some(other) => panic!("tls={other}"),
        },
        credentials: options.get("user").map(|user| match options.get("token") {
            Some(token) => Credentials::AccessToken(AccessToken::new(*user, *token)),
            None => Credentials::Password(PlainCredentials::new(*user, options["password"])),
        }),
        nonce: NONCE.into(),
    }
}

fn transaction(text: &str) -> Transaction {
    let options = options(text);
    let recipient = |name: &str| {
        let path: ForwardPath = format!("<{name}>").parse().unwrap();
        TransactionRecipient {
            path,
            notify: options.get("notify").map(|value| value.parse().unwrap()),
            original: options.get("orcpt").map(|value| value.parse().unwrap()),
        }
    };
    Transaction {
        reverse_path: format!("<{}>", options["from"]).parse().unwrap(),
        recipients: options["to"].split(',').map(recipient).collect(),
        size: 42,
        smtputf8: options.contains_key("smtputf8"),
        ret: options.get("ret").map(|value| value.parse().unwrap()),
        envelope_id: options.get("envid").map(|value| value.parse().unwrap()),
        body: if options.contains_key("body") { Body::EightBitMime } else { Body::SevenBit },
    }
}

/// One line: recipients as `Command code …`.
fn show_client_event(event: &ClientEvent) -> String {
    let ClientEvent::Done(done) = event else { return format!("{event:?}") };
    let recipients =
        done.recipients.iter().map(|recipient| format!(" [{:?} {}]", recipient.command, recipient.reply));
    format!(
        "Done{} reusable={}{}",
        recipients.collect::<String>(),
        done.reusable,
        if done.notifies { " notifies" } else { "" }
    )
}

fn run_client(file: &str) {
    let mut lines: VecDeque<Line> = load(file).into();
    let mut script = Script::new(file, lines.make_contiguous());
    let config = lines.pop_front_if(|line| line.text.starts_with("client")).map(|line| line.text);
    let mut session = ClientSession::new(client_config(config.as_deref().unwrap_or_default()));
    while let Some(line) = lines.pop_front() {
        match line.speaker {
            'S' | 's' => {
                script.expect_silence(line.number);
                let mut group = line.octets();
                while let Some(next) = lines.pop_front_if(|next| matches!(next.speaker, 'S' | 's')) {
                    group.extend(next.octets());
                }
                session.receive(&group);
            }
            '!' => match line.text.split_once(' ').unwrap_or((&line.text, "")) {
                ("tls", _) => session.tls_established(),
                ("start", options) => session.start(transaction(options)),
                ("content", text) => session.content(&unescape(text)),
                ("end", _) => session.end_of_content(),
                ("quit", _) => session.quit(),
                ("lost", why) => session.connection_lost(why),
                other => panic!("{file}:{}: {other:?}", line.number),
            },
            'C' | 'c' => script.expect_output(&line),
            'E' => script.expect_event(&line),
            other => panic!("{file}:{}: {other}", line.number),
        }
        while let Some(event) = session.poll() {
            script.events.push_back(show_client_event(&event));
        }
        script.output.extend_from_slice(&session.take_output());
    }
    script.expect_end();
}
