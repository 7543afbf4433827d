//! The transcripts of relay/smtp/tests/transcripts/server on the wire: the same files, spoken over TCP to the real relay.
//!
//! In memory the files are compared octet for octet (relay/smtp/tests/protocol). Here the relay answers what there a driver of the
//! test answers, so replies are compared in what decides ([`reply`]). What an options line asks of a listener becomes the
//! configuration of a relay ([`settings`]); `!: tls`, `!: timeout` and `!: shutdown` really happen. What cannot happen here is
//! listed in [`not_spoken`], and nothing else is left out.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint does not see as tests")]

mod connection;
mod relays;
mod reply;
mod settings;
mod transcript;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use relays::Relays;

/// The transcripts that cannot be spoken to a relay, and why.
fn not_spoken() -> BTreeMap<&'static str, &'static str> {
    const WHIM: &str =
        "the test's driver answers so because of an address or a subject, which the relay has no rule for";
    const PROOF: &str =
        "its proof is made for the server's nonce in RFC 7677 §3, and the relay makes up its own";
    const FIXED: &str = "the limit cannot be configured";
    const ALWAYS: &str = "the relay always offers it";
    BTreeMap::from([
        ("dsn_that_is_not_offered_is_unknown.txt", ALWAYS),
        ("errors_are_limited.txt", FIXED),
        ("idle_commands_are_limited.txt", FIXED),
        ("scram_sha_256_does_not_say_who_exists.txt", PROOF),
        ("scram_sha_256_proves_both_sides.txt", PROOF),
        ("scram_sha_256_with_a_wrong_password_is_refused.txt", PROOF),
        ("smtputf8_that_is_not_offered_is_unknown.txt", ALWAYS),
        ("the_driver_may_close_by_421.txt", WHIM),
        ("the_driver_may_refuse_for_now.txt", WHIM),
        ("unasked_answers_are_ignored.txt", "the relay never answers what was not asked"),
    ])
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "how many were spoken is the result")]
async fn every_transcript_holds_on_the_wire() {
    let mut left_out = not_spoken();
    let mut relays = Relays::new();
    let ca_pem = relays.ca_pem();
    let transcripts = transcript::load_all();
    let (mut spoken, mut failed) = (0, Vec::new());
    for transcript in &transcripts {
        if left_out.remove(transcript.file.as_str()).is_some() {
            continue;
        }
        let relay = relays.get(transcript).await;
        let speaking = connection::speak(transcript, relay, &ca_pem);
        if AssertUnwindSafe(speaking).catch_unwind().await.is_err() {
            failed.push(&transcript.file);
        }
        spoken += 1;
    }
    println!("{spoken} of {} transcripts were spoken to {} relays", transcripts.len(), relays.count());
    assert!(failed.is_empty(), "{} failed, each as said above: {failed:?}", failed.len());
    assert!(left_out.is_empty(), "listed as not spoken, but there is no such transcript: {left_out:?}");
}
