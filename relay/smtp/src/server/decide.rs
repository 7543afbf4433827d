//! Command + state → what follows. Pure: the one place that says which command is allowed when (RFC 5321 §4.1.4).

use super::config::{AuthOffer, ServerConfig, TlsOffer};
use super::event::Event;
use super::state::{Helo, OpenTransaction, State};
use crate::address::{AddressError, ForwardPath, ReversePath};
use crate::auth::{Exchange, Mechanism, Step};
use crate::command::{Command, CommandError};
use crate::data::ContentFault;
use crate::parameter::{MailParameters, ParameterError, RecipientParameters};
use crate::reply::Reply;

/// What follows a command.
#[derive(Debug)]
pub(super) enum Decision {
    /// Answer; nothing changes.
    Answer(Reply),
    /// Answer a command that leads nowhere, which counts towards a limit of its own.
    Idle(Reply),
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
    Mail(Event),
    /// Ask the driver about RCPT.
    Recipient(Event),
    /// Ask the driver about DATA.
    Data,
    /// Take a chunk.
    Chunk { octets: u64, last: bool },
    /// Read a chunk and drop it, then refuse (RFC 3030 §2).
    DropChunk { octets: u64, reply: Reply },
    /// Refuse a chunk without reading it and end the session.
    LeaveChunk(Reply),
    /// End the session with 421 and this.
    End(&'static str),
}

pub(super) fn decide(command: Command, state: &State, config: &ServerConfig) -> Decision {
    if needs_tls(&command) && config.tls == TlsOffer::StartTlsRequired && !state.tls {
        let reply = Reply::new(530, (5, 7, 0), "Must issue a STARTTLS command first");
        return match command {
            Command::Chunk { octets, .. } => refuse_chunk(octets, reply, config),
            _ => Decision::Refuse(reply),
        };
    }
    match command {
        Command::Ehlo(name) => Decision::Greet(Helo { name, esmtp: true }),
        Command::Helo(name) => Decision::Greet(Helo { name, esmtp: false }),
        Command::Mail { reverse_path, parameters } => mail(reverse_path, parameters, state, config),
        Command::Recipient { forward_path, parameters } => recipient(forward_path, parameters, state, config),
        Command::Data => data(state),
        Command::Chunk { octets, last } => match chunk(octets, state, config) {
            Ok(()) => Decision::Chunk { octets, last },
            Err(reply) => refuse_chunk(octets, reply, config),
        },
        Command::Reset => Decision::Reset,
        Command::Quit => Decision::Quit,
        Command::StartTls => start_tls(state, config),
        Command::Auth { mechanism, initial_response } => {
            auth(&mechanism, initial_response.as_deref(), state, config)
        }
        Command::Noop => idle(250, (2, 0, 0), "OK"),
        Command::Help => idle(214, (2, 0, 0), &help(state, config)),
        Command::Verify => {
            idle(252, (2, 5, 1), "Cannot VRFY user, but will accept message and attempt delivery")
        }
        Command::Expand => refuse(502, (5, 5, 1), "EXPN is not supported"),
    }
}

/// What the client may read after EHLO: only what is true now (RFC 5321 §4.1.1.1, RFC 3207 §4.2, RFC 4954 §4).
pub(super) fn extensions(state: &State, config: &ServerConfig) -> Vec<String> {
    let mut offered = vec!["PIPELINING".to_owned(), format!("SIZE {}", config.message_bytes)];
    offered.push("8BITMIME".to_owned());
    let mut offer = |offers: bool, line: &str| {
        if offers {
            offered.push(line.to_owned());
        }
    };
    offer(config.smtputf8, "SMTPUTF8");
    offer(config.chunking, "CHUNKING");
    offer(true, "ENHANCEDSTATUSCODES");
    offer(config.dsn, "DSN");
    offer(offers_starttls(config) && !state.tls, "STARTTLS");
    if offers_auth(state, config) {
        let names: Vec<&str> = config.mechanisms.iter().map(|mechanism| mechanism.name()).collect();
        offered.push(format!("AUTH {}", names.join(" ")));
    }
    offered
}

/// The commands there are now (RFC 5321 §4.1.1.8).
fn help(state: &State, config: &ServerConfig) -> String {
    let mut commands = "Commands: EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY HELP".to_owned();
    for (offered, command) in [
        (config.chunking, " BDAT"),
        (offers_starttls(config) && !state.tls, " STARTTLS"),
        (offers_auth(state, config), " AUTH"),
    ] {
        if offered {
            commands.push_str(command);
        }
    }
    commands
}

fn offers_auth(state: &State, config: &ServerConfig) -> bool {
    config.authentication != AuthOffer::None && (state.tls || config.auth_without_tls) && state.user.is_none()
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
    if config.messages > 0 && state.messages >= config.messages {
        return Decision::End("Too many messages in one session, closing connection");
    }
    if let Some(keyword) = not_offered(&parameters, config) {
        return Decision::Refuse(
            CommandError::Parameter(ParameterError::Unknown(keyword.to_owned())).reply(),
        );
    }
    if !reverse_path.is_ascii() && !parameters.smtputf8 {
        return Decision::Refuse(CommandError::ReversePath(AddressError::NonAscii).reply());
    }
    if config.message_bytes > 0 && parameters.size.is_some_and(|size| size > config.message_bytes) {
        return Decision::Refuse(too_large(config));
    }
    let MailParameters { size, body, smtputf8, ret, envelope_id, auth: _ } = parameters;
    Decision::Mail(Event::Mail {
        reverse_path,
        size,
        body: body.unwrap_or_default(),
        smtputf8,
        ret,
        envelope_id,
    })
}

/// A parameter of an extension that is not offered is not recognised (RFC 5321 §4.1.1.11).
fn not_offered(parameters: &MailParameters, config: &ServerConfig) -> Option<&'static str> {
    let given = [
        (parameters.auth && config.authentication == AuthOffer::None, "AUTH"),
        (parameters.smtputf8 && !config.smtputf8, "SMTPUTF8"),
        (parameters.ret.is_some() && !config.dsn, "RET"),
        (parameters.envelope_id.is_some() && !config.dsn, "ENVID"),
    ];
    given.into_iter().find_map(|(unknown, keyword)| unknown.then_some(keyword))
}

fn recipient(
    forward_path: ForwardPath,
    parameters: RecipientParameters,
    state: &State,
    config: &ServerConfig,
) -> Decision {
    let Some(open) = &state.transaction else { return bad_sequence("Send MAIL first") };
    let RecipientParameters { notify, original_recipient } = parameters;
    if open.chunks.is_some() {
        return bad_sequence(CHUNKS_OPEN);
    }
    if !config.dsn && (notify.is_some() || original_recipient.is_some()) {
        let keyword = if notify.is_some() { "NOTIFY" } else { "ORCPT" };
        return Decision::Refuse(
            CommandError::Parameter(ParameterError::Unknown(keyword.to_owned())).reply(),
        );
    }
    let ascii =
        forward_path.is_ascii() && original_recipient.as_ref().is_none_or(|original| original.is_ascii());
    if !ascii && !open.smtputf8 {
        return Decision::Refuse(CommandError::ForwardPath(AddressError::NonAscii).reply());
    }
    if open.recipients >= config.recipients {
        let text = format!("Too many recipients; the limit is {} a message", config.recipients);
        return Decision::Answer(Reply::new(452, (4, 5, 3), text));
    }
    Decision::Recipient(Event::Recipient { forward_path, notify, original_recipient })
}

/// What RCPT, MAIL and DATA hear between two chunks (RFC 3030 §2).
const CHUNKS_OPEN: &str = "The message is being sent by BDAT; end it with BDAT LAST or send RSET";

fn data(state: &State) -> Decision {
    match &state.transaction {
        Some(open) if open.chunks.is_some() => bad_sequence(CHUNKS_OPEN),
        open => content(open.as_ref()).map_or_else(
            |(reply, counts)| if counts { Decision::Refuse(reply) } else { Decision::Answer(reply) },
            |()| Decision::Data,
        ),
    }
}

fn chunk(octets: u64, state: &State, config: &ServerConfig) -> Result<(), Reply> {
    if !config.chunking {
        return Err(Reply::new(502, (5, 5, 1), "BDAT is not offered"));
    }
    content(state.transaction.as_ref()).map_err(|(reply, _)| reply)?;
    let open = state.transaction.as_ref().and_then(|open| open.chunks.as_ref());
    let together = open.map_or(0, |chunks| chunks.octets()).saturating_add(octets);
    if config.message_bytes > 0 && together > config.message_bytes {
        return Err(too_large(config));
    }
    Ok(())
}

fn refuse_chunk(octets: u64, reply: Reply, config: &ServerConfig) -> Decision {
    if octets > config.refused_chunk_bytes() {
        Decision::LeaveChunk(reply)
    } else {
        Decision::DropChunk { octets, reply }
    }
}

fn too_large(config: &ServerConfig) -> Reply {
    ContentFault::TooLarge { limit: config.message_bytes }.reply()
}

/// Whether content may be sent now; else why not, and whether that counts as an error.
fn content(transaction: Option<&OpenTransaction>) -> Result<(), (Reply, bool)> {
    let sequence = |text: &str| (Reply::new(503, (5, 5, 1), text), true);
    match transaction {
        None => Err(sequence("Send MAIL and RCPT first")),
        Some(open) if open.recipients > 0 => Ok(()),
        // A pipelined DATA behind recipients that were all refused (RFC 2920 §3.1): counting it would count them twice.
        Some(open) if open.recipient_tried => Err((Reply::new(554, (5, 5, 1), "No valid recipients"), false)),
        Some(_) => Err(sequence("Send RCPT first")),
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
    if !state.tls && !config.auth_without_tls {
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
    match Mechanism::from_name(mechanism).filter(|known| config.mechanisms.contains(known)) {
        Some(mechanism) => Decision::Authenticate(Exchange::begin(mechanism, initial_response)),
        None => refuse(504, (5, 5, 4), "Authentication mechanism is not supported"),
    }
}

fn idle(code: u16, enhanced: (u8, u16, u16), text: &str) -> Decision {
    Decision::Idle(Reply::new(code, enhanced, text))
}

fn refuse(code: u16, enhanced: (u8, u16, u16), text: &str) -> Decision {
    Decision::Refuse(Reply::new(code, enhanced, text))
}

fn bad_sequence(text: &str) -> Decision {
    refuse(503, (5, 5, 1), text)
}
