//! Command + state → what follows. Pure: the one place that says which command is allowed when (RFC 5321 §4.1.4).

use super::config::{AuthOffer, ServerConfig, TlsOffer};
use super::state::{Helo, State};
use crate::address::{ForwardPath, ReversePath};
use crate::auth::{Exchange, Mechanism, Step};
use crate::command::Command;
use crate::parameter::{Body, MailParameters};
use crate::reply::Reply;

/// What follows a command.
#[derive(Debug)]
pub(super) enum Decision {
    /// Answer; nothing changes.
    Answer(Reply),
    /// Answer with a refusal that counts towards the limit of errors.
    Refuse(Reply),
    /// Begin anew under this name (EHLO, HELO).
    Greet(Helo),
    /// Drop the transaction (RSET).
    Reset,
    /// End the session (QUIT).
    Quit,
    /// Ask the client for a TLS handshake.
    StartTls,
    /// Go on with AUTH.
    Authenticate(Step),
    /// Ask the driver about MAIL.
    Mail { reverse_path: ReversePath, size: Option<u64>, body: Body },
    /// Ask the driver about RCPT.
    Recipient { forward_path: ForwardPath },
    /// Ask the driver about DATA.
    Data,
}

pub(super) fn decide(command: Command, state: &State, config: &ServerConfig) -> Decision {
    if needs_tls(&command) && config.tls == TlsOffer::StartTlsRequired && !state.tls {
        return refuse(530, (5, 7, 0), "Must issue a STARTTLS command first");
    }
    match command {
        Command::Ehlo(name) => Decision::Greet(Helo { name, esmtp: true }),
        Command::Helo(name) => Decision::Greet(Helo { name, esmtp: false }),
        Command::Mail { reverse_path, parameters } => mail(reverse_path, parameters, state, config),
        Command::Recipient { forward_path } => recipient(forward_path, state, config),
        Command::Data => data(state),
        Command::Reset => Decision::Reset,
        Command::Quit => Decision::Quit,
        Command::StartTls => start_tls(state, config),
        Command::Auth { mechanism, initial_response } => {
            auth(&mechanism, initial_response.as_deref(), state, config)
        }
        Command::Noop => answer(250, (2, 0, 0), "OK"),
        Command::Help => answer(
            214,
            (2, 0, 0),
            "Commands: EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP STARTTLS AUTH",
        ),
        Command::Verify => {
            answer(252, (2, 5, 1), "Cannot VRFY user, but will accept message and attempt delivery")
        }
        Command::Expand => answer(502, (5, 5, 1), "EXPN is not supported"),
    }
}

/// What the client may read after EHLO: only what is true now (RFC 5321 §4.1.1.1, RFC 3207 §4.2, RFC 4954 §4).
pub(super) fn extensions(state: &State, config: &ServerConfig) -> Vec<String> {
    let mut offered =
        vec!["PIPELINING".to_owned(), format!("SIZE {}", config.message_bytes), "8BITMIME".to_owned()];
    offered.push("ENHANCEDSTATUSCODES".to_owned());
    if offers_starttls(config) && !state.tls {
        offered.push("STARTTLS".to_owned());
    }
    if config.authentication != AuthOffer::None && state.tls && state.user.is_none() {
        let names = Mechanism::ALL.map(Mechanism::name).join(" ");
        offered.push(format!("AUTH {names}"));
    }
    offered
}

/// Everything but what RFC 3207 §4 exempts. AUTH has a refusal of its own.
fn needs_tls(command: &Command) -> bool {
    !matches!(
        command,
        Command::Ehlo(_)
            | Command::Helo(_)
            | Command::Noop
            | Command::Quit
            | Command::StartTls
            | Command::Auth { .. }
    )
}

fn offers_starttls(config: &ServerConfig) -> bool {
    matches!(config.tls, TlsOffer::StartTls | TlsOffer::StartTlsRequired)
}

fn mail(
    reverse_path: ReversePath,
    parameters: MailParameters,
    state: &State,
    config: &ServerConfig,
) -> Decision {
    if state.helo.is_none() {
        return bad_sequence("Send EHLO or HELO first");
    }
    if config.authentication == AuthOffer::Required && state.user.is_none() {
        return refuse(530, (5, 7, 0), "Authentication required");
    }
    if state.transaction.is_some() {
        return bad_sequence("A mail transaction is open already; end it or send RSET");
    }
    if parameters.auth && config.authentication == AuthOffer::None {
        return refuse(555, (5, 5, 4), "parameter AUTH is not recognised or not implemented");
    }
    if config.message_bytes > 0 && parameters.size.is_some_and(|size| size > config.message_bytes) {
        let limit = config.message_bytes;
        return refuse(552, (5, 3, 4), &format!("Message is larger than the limit of {limit} octets"));
    }
    Decision::Mail { reverse_path, size: parameters.size, body: parameters.body.unwrap_or_default() }
}

fn recipient(forward_path: ForwardPath, state: &State, config: &ServerConfig) -> Decision {
    match &state.transaction {
        None => bad_sequence("Send MAIL first"),
        Some(open) if open.recipients >= config.recipients => {
            let text = format!("Too many recipients; the limit is {} a message", config.recipients);
            Decision::Answer(Reply::new(452, (4, 5, 3), text))
        }
        Some(_) => Decision::Recipient { forward_path },
    }
}

fn data(state: &State) -> Decision {
    match &state.transaction {
        None => bad_sequence("Send MAIL and RCPT first"),
        Some(open) if open.recipients > 0 => Decision::Data,
        // A pipelined DATA behind recipients that were all refused (RFC 2920 §3.1): counting it would count them twice.
        Some(open) if open.recipient_tried => answer(554, (5, 5, 1), "No valid recipients"),
        Some(_) => bad_sequence("Send RCPT first"),
    }
}

fn start_tls(state: &State, config: &ServerConfig) -> Decision {
    if state.tls {
        return bad_sequence("TLS is established already");
    }
    if !offers_starttls(config) {
        return refuse(502, (5, 5, 1), "STARTTLS is not offered");
    }
    if state.helo.is_none() {
        return bad_sequence("Send EHLO first");
    }
    Decision::StartTls
}

fn auth(mechanism: &str, initial_response: Option<&str>, state: &State, config: &ServerConfig) -> Decision {
    if config.authentication == AuthOffer::None {
        return refuse(502, (5, 5, 1), "AUTH is not offered");
    }
    if !state.tls {
        return refuse(538, (5, 7, 11), "Encryption required for requested authentication mechanism");
    }
    if state.helo.is_none() {
        return bad_sequence("Send EHLO first");
    }
    if state.user.is_some() {
        return bad_sequence("Already authenticated");
    }
    if state.transaction.is_some() {
        return bad_sequence("AUTH is not permitted during a mail transaction");
    }
    match Mechanism::from_name(mechanism) {
        Some(mechanism) => Decision::Authenticate(Exchange::begin(mechanism, initial_response)),
        None => refuse(504, (5, 5, 4), "Authentication mechanism is not supported"),
    }
}

fn answer(code: u16, enhanced: (u8, u16, u16), text: &str) -> Decision {
    Decision::Answer(Reply::new(code, enhanced, text))
}

fn refuse(code: u16, enhanced: (u8, u16, u16), text: &str) -> Decision {
    Decision::Refuse(Reply::new(code, enhanced, text))
}

fn bad_sequence(text: &str) -> Decision {
    refuse(503, (5, 5, 1), text)
}
