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
    a_bare_cr_is_never_normalised
    a_bare_lf_is_normalised_where_the_listener_says_so
    a_body_is_no_header_section
    a_carriage_return_in_an_address_is_refused
    a_crlf_dot_normalised_lf_ends_nothing
    a_declared_size_above_the_limit_is_refused
    a_delete_in_an_address_is_refused
    a_domain_does_not_end_with_a_dot
    a_domain_has_no_empty_label
    a_domain_may_hold_underscores
    a_dot_string_has_no_empty_atom
    a_dot_within_a_line_stays
    a_dsn_parameter_twice_is_refused
    a_folded_line_is_no_field_of_its_own
    a_header_section_is_limited
    a_label_does_not_begin_with_a_hyphen
    a_label_of_64_octets_is_refused
    a_line_above_998_octets_is_content
    a_local_part_has_no_unquoted_space
    a_local_part_of_64_octets_is_accepted
    a_local_part_of_65_octets_is_refused
    a_malformed_source_route_is_refused
    a_mechanism_that_is_not_offered_is_refused
    a_message_is_accepted_and_the_session_goes_on
    a_normalised_lf_dot_crlf_ends_nothing
    a_normalised_lf_dot_lf_ends_nothing
    a_nul_in_an_address_is_refused
    a_nul_is_never_normalised
    a_path_needs_its_brackets
    a_percent_hack_is_one_local_part
    a_pipelined_group_is_answered_in_order
    a_quoted_local_part_is_kept_exactly
    a_refused_chunk_fails_the_transaction
    a_second_at_sign_is_refused
    a_single_dot_before_text_is_removed
    a_size_of_21_digits_is_malformed
    a_source_route_is_dropped
    a_stuffed_dot_is_removed
    a_tab_in_an_address_is_refused
    a_uucp_bang_is_one_local_part
    an_empty_line_is_no_command
    an_empty_message_is_accepted
    an_http_request_ends_the_session
    an_ideographic_full_stop_is_no_dot
    an_internationalised_recipient_needs_smtputf8
    an_internationalised_sender_needs_smtputf8
    an_ipv4_literal_is_a_domain
    an_ipv6_literal_is_a_domain
    an_ipv6_literal_needs_its_tag
    auth_in_clear_where_the_listener_says_so
    auth_that_is_not_offered_is_refused
    authentication_required_guards_mail
    bad_syntax_is_named
    bare_line_feed_in_a_command_ends_the_session
    bdat_0_last_alone_is_an_empty_message
    bdat_0_last_ends_a_message
    bdat_beyond_the_limit_in_sum_is_dropped_unread
    bdat_beyond_the_limit_never_reaches_the_driver
    bdat_chunks_are_limited_in_sum
    bdat_completes_the_last_line
    bdat_content_has_no_transparency
    bdat_is_pipelined
    bdat_may_cut_a_crlf
    bdat_of_absurd_size_ends_the_session
    bdat_of_absurd_size_out_of_sequence_ends_the_session
    bdat_of_unreadable_size_ends_the_session
    bdat_refuses_a_bare_cr
    bdat_refuses_a_bare_lf
    bdat_refuses_a_cr_at_the_very_end
    bdat_refuses_a_nul
    bdat_sends_a_message_in_chunks
    bdat_without_a_transaction_is_read_and_refused
    bdat_without_a_valid_recipient_is_read_and_refused
    binarymime_is_not_offered
    body_7bit_is_accepted
    chunks_behind_a_refused_one_are_refused
    commands_come_in_any_case
    commands_out_of_sequence_are_refused
    cr_crlf_dot_crlf_is_refused
    cr_dot_cr_ends_nothing
    cr_dot_crlf_ends_nothing
    crlf_dot_cr_ends_nothing
    crlf_dot_lf_ends_nothing
    crlf_dot_nul_crlf_ends_nothing
    crlf_nul_dot_crlf_ends_nothing
    data_behind_bdat_is_refused
    data_takes_no_argument
    dsn_parameters_reach_the_driver
    dsn_that_is_not_offered_is_unknown
    ehlo_and_rset_drop_the_transaction
    ehlo_may_be_an_address_literal
    ehlo_names_inject_nothing
    ehlo_needs_a_name
    envid_has_at_most_100_octets
    envid_injects_no_header
    errors_are_limited
    expn_is_not_supported
    header_fields_are_limited
    helo_offers_no_extension
    help_names_what_there_is
    idle_commands_are_limited
    internationalised_mailboxes_are_kept_exactly
    lf_dot_crlf_ends_nothing
    lf_dot_lf_ends_nothing
    messages_of_a_session_are_limited
    no_other_mailbox_lacks_its_domain
    noop_between_chunks_is_allowed
    noop_may_have_an_argument
    noop_takes_no_octets_above_127
    notify_never_stands_alone
    octets_above_127_are_content
    octets_that_are_no_utf_8_are_refused
    only_crlf_dot_crlf_ends_content
    orcpt_has_a_type
    orcpt_injects_no_header
    over_long_lines_are_swallowed
    postmaster_needs_no_domain
    quit_takes_no_argument
    rcpt_behind_bdat_is_refused
    recipients_are_limited
    refused_recipients_leave_the_others
    ret_is_full_or_hdrs
    rset_between_chunks_drops_the_message
    rset_takes_no_argument
    sasl_login_and_its_failures
    sasl_plain
    scram_sha_256_answers_its_own_nonce
    scram_sha_256_does_not_say_who_exists
    scram_sha_256_may_be_cancelled
    scram_sha_256_proves_both_sides
    scram_sha_256_with_a_wrong_password_is_refused
    scram_sha_256_without_channel_binding
    shut_down_waits_for_the_transaction
    shut_down_when_idle_is_immediate
    size_is_limited
    smtputf8_has_no_value
    smtputf8_that_is_not_offered_is_unknown
    spaces_behind_the_colon_are_tolerated
    starttls_forgets_what_was_said
    starttls_that_is_not_offered_is_refused
    starttls_with_pipelined_commands_is_injection
    text_behind_a_path_needs_a_space
    the_driver_may_close_by_421
    the_driver_may_refuse_for_now
    the_null_path_is_no_recipient
    the_null_reverse_path_is_accepted
    timeout_is_announced
    tls_required_guards_bdat_too
    tls_required_guards_everything
    unasked_answers_are_ignored
    vrfy_confirms_nothing
    vrfy_needs_an_argument
    white_space_before_the_crlf_is_tolerated
}

transcripts! { client, super::run_client:
    a_421_ends_the_session
    a_421_to_the_content_leaves_the_next_message_not_begun
    a_connection_lost_amid_the_next_envelope_breaks_that_message
    a_connection_lost_behind_the_content_leaves_the_next_message_not_begun
    a_lost_connection_leaves_undecided_recipients_undecided
    a_refusal_counts_though_the_connection_is_lost_behind_it
    a_refused_content_leaves_the_next_message_under_way
    a_reset_refused_before_the_next_message_breaks_that_message
    all_recipients_of_the_next_message_refused_sends_a_lone_dot
    all_recipients_refused_but_data_accepted_sends_a_lone_dot
    auth_is_refused
    auth_login_where_plain_is_missing
    auth_scram_accepted_without_the_servers_proof_is_refused
    auth_scram_before_plain_and_the_server_proves_itself
    auth_with_a_long_token_waits_for_the_334
    auth_without_a_common_mechanism
    auth_xoauth2_refused_answers_the_error_report
    auth_xoauth2_with_a_token
    bdat_answered_by_354_is_a_surprise
    bdat_for_a_refused_sender_decides_nothing
    bdat_for_refused_recipients_decides_nothing
    bdat_is_not_used_for_a_large_content
    bdat_lost_for_refused_recipients_is_their_refusal
    bdat_lost_leaves_every_message_behind_it_ambiguous
    bdat_refused_is_the_messages_refusal
    bdat_sends_messages_in_a_stream
    bdat_without_pipelining_waits_for_the_recipients
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
    the_next_message_starts_behind_the_content
    the_server_does_not_speak_smtp
    unsolicited_421_while_idle
    whole_message_is_no_chunk_before_every_recipient
    whole_message_leaves_all_when_one_is_refused
    whole_message_waits_for_every_recipient
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
        whole: options.contains_key("whole"),
        size: options.get("size").map_or(42, |value| value.parse().unwrap()),
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
