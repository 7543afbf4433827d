//! Command lines (RFC 5321 §4.1.1, RFC 3207 §4, RFC 4954 §4, RFC 3030 §2): one line without its CRLF becomes a
//! [`Command`].
//!
//! A control character or an octet above 127 stands in no command, but for UTF-8 in the paths of MAIL and RCPT, in ORCPT
//! and in what VRFY and EXPN look for (RFC 6531 §3.4); whether SMTPUTF8 permits it is the session's to say. Strict but for what the RFC itself tolerates and two habits of old clients that endanger nothing: white space
//! before the CRLF, and spaces behind `FROM:` and `TO:`. Not here: whether the command is allowed now
//! ([`crate::server`]). Called by the server session; fuzzed directly.

use crate::address::{AddressError, ForwardPath, ReversePath};
use crate::parameter::{MailParameters, ParameterError, RecipientParameters};
use crate::reply::Reply;
use std::fmt;

/// Octets of a command line, CRLF included, that has no longer limit of its own (RFC 5321 §4.5.3.1.4).
pub const COMMAND_LINE_OCTETS: usize = 512;
/// The same for MAIL: SIZE adds 26, 8BITMIME 17, AUTH 500, SMTPUTF8 10 (RFC 1870 §3, RFC 6152 §2, RFC 4954 §3, RFC 6531
/// §3.1), RET and ENVID as long as they can be 116 (RFC 3461 §4).
pub const MAIL_LINE_OCTETS: usize = COMMAND_LINE_OCTETS + 26 + 17 + 500 + 10 + 116;
/// The same for RCPT: NOTIFY and ORCPT as long as they can be (RFC 3461 §4).
pub const RECIPIENT_LINE_OCTETS: usize = COMMAND_LINE_OCTETS + 29 + 507;
/// The same for AUTH and its responses (RFC 4954 §4).
pub const AUTH_LINE_OCTETS: usize = 12288;

/// Octets of an EHLO argument: those of a domain.
const EHLO_NAME_OCTETS: usize = 255;

/// A command and its arguments. `Debug` hides a SASL initial response.
#[derive(Clone, PartialEq, Eq)]
pub enum Command {
    /// EHLO with the name the client gives itself.
    Ehlo(String),
    /// HELO, the same without extensions.
    Helo(String),
    /// MAIL.
    Mail {
        /// The reverse-path.
        reverse_path: ReversePath,
        /// Its parameters.
        parameters: MailParameters,
    },
    /// RCPT.
    Recipient {
        /// The forward-path.
        forward_path: ForwardPath,
        /// Its parameters.
        parameters: RecipientParameters,
    },
    /// DATA.
    Data,
    /// BDAT: as many octets of content follow its line.
    Chunk {
        /// How many, line ends included.
        octets: u64,
        /// Whether they are the last.
        last: bool,
    },
    /// RSET.
    Reset,
    /// NOOP; its argument is ignored.
    Noop,
    /// QUIT.
    Quit,
    /// HELP; its argument is ignored.
    Help,
    /// VRFY; its argument is not looked at.
    Verify,
    /// EXPN; its argument is not looked at.
    Expand,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth {
        /// The mechanism in upper case, which need not be one known here.
        mechanism: String,
        /// The initial response as sent: base64 or `=`.
        initial_response: Option<String>,
    },
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ehlo(name) => write!(f, "Ehlo({name})"),
            Self::Helo(name) => write!(f, "Helo({name})"),
            Self::Mail { reverse_path, parameters } => write!(f, "Mail({reverse_path} {parameters:?})"),
            Self::Recipient { forward_path, parameters } => {
                write!(f, "Recipient({forward_path} {parameters:?})")
            }
            Self::Data => f.write_str("Data"),
            Self::Chunk { octets, last } => write!(f, "Chunk({octets} last={last})"),
            Self::Reset => f.write_str("Reset"),
            Self::Noop => f.write_str("Noop"),
            Self::Quit => f.write_str("Quit"),
            Self::Help => f.write_str("Help"),
            Self::Verify => f.write_str("Verify"),
            Self::Expand => f.write_str("Expand"),
            Self::StartTls => f.write_str("StartTls"),
            Self::Auth { mechanism, .. } => write!(f, "Auth({mechanism})"),
        }
    }
}

/// Why a line is no command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The verb is not known.
    #[error("Command not recognised")]
    Unknown,
    /// A line of an HTTP request: someone makes a web client speak SMTP in what it sends.
    #[error("This is not an HTTP server, closing connection")]
    Http,
    /// Longer than RFC 5321 §4.5.3.1.4 and the extensions allow.
    #[error("Line too long")]
    TooLong,
    /// A control character.
    #[error("Control character in a command line")]
    Control,
    /// A BDAT whose size cannot be read: where the next command begins is unknown.
    #[error("Syntax: BDAT size [LAST]")]
    Chunk,
    /// An argument is missing, too much or malformed; how it should look.
    #[error("Syntax: {0}")]
    Syntax(&'static str),
    /// The address in MAIL.
    #[error("Bad sender address: {0}")]
    ReversePath(AddressError),
    /// The address in RCPT.
    #[error("Bad recipient address: {0}")]
    ForwardPath(AddressError),
    /// A parameter of MAIL or RCPT.
    #[error("{0}")]
    Parameter(#[from] ParameterError),
}

impl CommandError {
    /// The reply to such a line.
    pub fn reply(&self) -> Reply {
        let (code, enhanced) = match self {
            Self::Unknown | Self::Http | Self::TooLong | Self::Control => (500, (5, 5, 2)),
            Self::Syntax(_) | Self::Chunk => (501, (5, 5, 4)),
            Self::ReversePath(AddressError::NonAscii) | Self::ForwardPath(AddressError::NonAscii) => {
                (553, (5, 6, 7))
            }
            Self::ReversePath(_) => (501, (5, 1, 7)),
            Self::ForwardPath(_) => (501, (5, 1, 3)),
            Self::Parameter(ParameterError::Unknown(_)) => (555, (5, 5, 4)),
            Self::Parameter(_) => (501, (5, 5, 4)),
        };
        Reply::new(code, enhanced, self.to_string())
    }
}

impl Command {
    /// Parses a line without its CRLF.
    ///
    /// # Errors
    /// When the line is not a command; [`CommandError::reply`] answers it.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        let verb_end = line.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(line.len());
        let (verb, argument) = line.split_at(verb_end);
        let verb = verb.to_ascii_uppercase();
        if is_http(line, &verb) {
            return Err(CommandError::Http);
        }
        if line.len() + 2 > line_octets(&verb) {
            return Err(CommandError::TooLong);
        }
        let argument = argument.trim_ascii();
        if verb == b"BDAT" {
            return chunk(argument).ok_or(CommandError::Chunk);
        }
        if argument.iter().any(u8::is_ascii_control) {
            return Err(CommandError::Control);
        }
        match verb.as_slice() {
            b"EHLO" => Ok(Self::Ehlo(client_name(argument, "EHLO hostname")?)),
            b"HELO" => Ok(Self::Helo(client_name(argument, "HELO hostname")?)),
            b"MAIL" => mail(argument),
            b"RCPT" => recipient(argument),
            b"DATA" => alone(argument, Self::Data, "DATA"),
            b"RSET" => alone(argument, Self::Reset, "RSET"),
            b"QUIT" => alone(argument, Self::Quit, "QUIT"),
            b"STARTTLS" => alone(argument, Self::StartTls, "STARTTLS"),
            b"AUTH" => auth(argument),
            b"NOOP" => ascii(argument).map(|_| Self::Noop).ok_or(CommandError::Syntax("NOOP [string]")),
            b"HELP" => ascii(argument).map(|_| Self::Help).ok_or(CommandError::Syntax("HELP [string]")),
            b"VRFY" => with_argument(argument, Self::Verify, "VRFY address"),
            b"EXPN" => with_argument(argument, Self::Expand, "EXPN list"),
            _ => Err(CommandError::Unknown),
        }
    }
}

/// A request line (RFC 9112 §3), or the field that every request has, for request lines that are too long to be seen here.
fn is_http(line: &[u8], verb: &[u8]) -> bool {
    let version = line.rsplit(|octet| *octet == b' ').next().unwrap_or_default();
    verb == b"HOST:" || (version.starts_with(b"HTTP/") && line.len() > version.len())
}

fn line_octets(verb: &[u8]) -> usize {
    match verb {
        b"MAIL" => MAIL_LINE_OCTETS,
        b"RCPT" => RECIPIENT_LINE_OCTETS,
        b"AUTH" => AUTH_LINE_OCTETS,
        _ => COMMAND_LINE_OCTETS,
    }
}

fn alone(argument: &[u8], command: Command, usage: &'static str) -> Result<Command, CommandError> {
    if argument.is_empty() { Ok(command) } else { Err(CommandError::Syntax(usage)) }
}

fn with_argument(argument: &[u8], command: Command, usage: &'static str) -> Result<Command, CommandError> {
    if argument.is_empty() || utf8(argument).is_none() {
        Err(CommandError::Syntax(usage))
    } else {
        Ok(command)
    }
}

/// `chunk-size [SP "LAST"]` (RFC 3030 §2); a size beyond 64 bits cannot be meant.
fn chunk(argument: &[u8]) -> Option<Command> {
    let mut words = ascii(argument)?.split(' ').filter(|word| !word.is_empty());
    let digits = words.next().filter(|word| word.len() <= 20 && word.bytes().all(|b| b.is_ascii_digit()))?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return None,
    };
    if words.next().is_some() { None } else { Some(Command::Chunk { octets: digits.parse().ok()?, last }) }
}

/// A name fit for trace information. What it says is the client's claim and never checked (RFC 5321 §4.1.4); host
/// names with an underscore are common in containers.
fn client_name(argument: &[u8], usage: &'static str) -> Result<String, CommandError> {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(b);
    let valid = !argument.is_empty() && argument.len() <= EHLO_NAME_OCTETS && argument.iter().all(allowed);
    let name = valid.then(|| String::from_utf8(argument.to_vec()).ok()).flatten();
    name.ok_or(CommandError::Syntax(usage))
}

fn mail(argument: &[u8]) -> Result<Command, CommandError> {
    const USAGE: CommandError = CommandError::Syntax("MAIL FROM:<address> [parameters]");
    let argument = after_keyword(argument, b"FROM:").ok_or(USAGE)?;
    let argument = utf8(argument).ok_or(CommandError::ReversePath(AddressError::NonAscii))?;
    let (path, rest) = split_path(argument).map_err(CommandError::ReversePath)?;
    let reverse_path = path.parse().map_err(CommandError::ReversePath)?;
    Ok(Command::Mail { reverse_path, parameters: MailParameters::parse(rest)? })
}

fn recipient(argument: &[u8]) -> Result<Command, CommandError> {
    const USAGE: CommandError = CommandError::Syntax("RCPT TO:<address>");
    let argument = after_keyword(argument, b"TO:").ok_or(USAGE)?;
    let argument = utf8(argument).ok_or(CommandError::ForwardPath(AddressError::NonAscii))?;
    let (path, rest) = split_path(argument).map_err(CommandError::ForwardPath)?;
    let forward_path = path.parse().map_err(CommandError::ForwardPath)?;
    Ok(Command::Recipient { forward_path, parameters: RecipientParameters::parse(rest)? })
}

fn after_keyword<'a>(argument: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (found, rest) = argument.split_at_checked(keyword.len())?;
    found.eq_ignore_ascii_case(keyword).then(|| rest.trim_ascii_start())
}

fn utf8(argument: &[u8]) -> Option<&str> {
    std::str::from_utf8(argument).ok()
}

fn ascii(argument: &[u8]) -> Option<&str> {
    utf8(argument).filter(|text| text.is_ascii())
}

/// Cuts behind the `>` that closes the path; one within a quoted local part does not.
fn split_path(argument: &str) -> Result<(&str, &str), AddressError> {
    if !argument.starts_with('<') {
        return Err(AddressError::Brackets);
    }
    let mut quoted = false;
    let mut octets = argument.bytes().enumerate();
    while let Some((index, octet)) = octets.next() {
        match octet {
            b'"' => quoted = !quoted,
            b'\\' if quoted => drop(octets.next()),
            b'>' if !quoted => return separated(argument, index + 1),
            _ => {}
        }
    }
    Err(AddressError::Brackets)
}

fn separated(argument: &str, end: usize) -> Result<(&str, &str), AddressError> {
    let (path, rest) = argument.split_at(end);
    if rest.is_empty() || rest.starts_with(' ') { Ok((path, rest)) } else { Err(AddressError::Brackets) }
}

fn auth(argument: &[u8]) -> Result<Command, CommandError> {
    const USAGE: CommandError = CommandError::Syntax("AUTH mechanism [initial-response]");
    let mut words = ascii(argument).ok_or(USAGE)?.split(' ').filter(|word| !word.is_empty());
    let mechanism = words.next().ok_or(USAGE)?.to_ascii_uppercase();
    let initial_response = words.next().map(str::to_owned);
    let valid = mechanism.len() <= 20
        && mechanism.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b"-_".contains(&b));
    if valid && words.next().is_none() {
        Ok(Command::Auth { mechanism, initial_response })
    } else {
        Err(USAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, CommandError> {
        Command::parse(line.as_bytes())
    }

    #[test]
    fn commands_are_recognised_in_any_case() {
        let check = |line, expected| assert_eq!(parse(line), Ok(expected), "{line}");
        check("EHLO client.example.com", Command::Ehlo("client.example.com".into()));
        check("ehlo [192.0.2.1]", Command::Ehlo("[192.0.2.1]".into()));
        check("HELO my_host", Command::Helo("my_host".into()));
        check("data", Command::Data);
        check("DATA ", Command::Data);
        check("RSET\t", Command::Reset);
        check("NOOP", Command::Noop);
        check("NOOP anything", Command::Noop);
        check("QuiT", Command::Quit);
        check("HELP me", Command::Help);
        check("VRFY alice", Command::Verify);
        check("EXPN list", Command::Expand);
        check("STARTTLS", Command::StartTls);
        check("bdat 0 last", Command::Chunk { octets: 0, last: true });
        check("BDAT 18446744073709551615", Command::Chunk { octets: u64::MAX, last: false });
        check("auth plain", Command::Auth { mechanism: "PLAIN".into(), initial_response: None });
        check(
            "AUTH PLAIN =",
            Command::Auth { mechanism: "PLAIN".into(), initial_response: Some("=".into()) },
        );
    }

    #[test]
    fn an_http_request_is_told_from_an_unknown_command() {
        for line in ["GET / HTTP/1.1", "POST /x?y HTTP/1.0", "Host: relay.example", "host: [::1]:25"] {
            assert_eq!(parse(line), Err(CommandError::Http), "{line}");
        }
        assert_eq!(parse(&format!("GET /{} HTTP/1.1", "x".repeat(600))), Err(CommandError::Http));
        for line in ["GET /", "HTTP/1.1", "Subject: x", "HOST x"] {
            assert_eq!(parse(line), Err(CommandError::Unknown), "{line}");
        }
    }

    #[test]
    fn paths_are_cut_from_their_parameters() {
        let check = |line, path: &str, size| match parse(line) {
            Ok(Command::Mail { reverse_path, parameters }) => {
                assert_eq!((reverse_path.to_string().as_str(), parameters.size), (path, size), "{line}");
            }
            other => panic!("{line}: {other:?}"),
        };
        check("MAIL FROM:<>", "<>", None);
        check("mail from:<a@b.example> size=5", "<a@b.example>", Some(5));
        check("MAIL FROM: <a@b.example>", "<a@b.example>", None);
        check(r#"MAIL FROM:<"x> SIZE=9 y"@b.example> SIZE=5"#, r#"<"x> SIZE=9 y"@b.example>"#, Some(5));
        check(r#"MAIL FROM:<"x\"> y"@b.example>"#, r#"<"x\"> y"@b.example>"#, None);
    }

    #[test]
    fn lines_that_are_no_command_get_their_reply() {
        let check = |line: &[u8], expected: &str| {
            let reply = Command::parse(line).expect_err("no command").reply().to_string();
            assert!(reply.starts_with(expected), "{}: {reply}", String::from_utf8_lossy(line));
        };
        check(b"", "500 5.5.2");
        check(b" NOOP", "500 5.5.2");
        check(b"BDAT", "501 5.5.4");
        check(b"BDAT x", "501 5.5.4");
        check(b"BDAT -1", "501 5.5.4");
        check(b"BDAT +1", "501 5.5.4");
        check(b"BDAT 5 FIRST", "501 5.5.4");
        check(b"BDAT 5 LAST LAST", "501 5.5.4");
        check(b"BDAT 18446744073709551616", "501 5.5.4");
        check(b"BDAT 5\0", "501 5.5.4");
        check(b"NOOP a\x1bb", "500 5.5.2");
        check(b"NOOP \xc3\xa4", "501 5.5.4");
        check(b"VRFY \xff", "501 5.5.4");
        check(b"MAIL FROM:<a\0@b.example>", "500 5.5.2");
        check(b"MAIL FROM:<a@b.example>\tSIZE=5", "500 5.5.2");
        check(b"RCPT TO:<a\x7f@b.example>", "500 5.5.2");
        check(b"\xff\xfe\x00", "500 5.5.2");
        check(b"EHLO", "501 5.5.4");
        check(b"EHLO a b", "501 5.5.4");
        check(b"EHLO a\0b", "500 5.5.2");
        check(b"EHLO \xc3\xa4", "501 5.5.4");
        check(b"DATA now", "501 5.5.4");
        check(b"QUIT now", "501 5.5.4");
        check(b"VRFY", "501 5.5.4");
        check(b"AUTH", "501 5.5.4");
        check(b"AUTH PLAIN a b", "501 5.5.4");
        check(b"AUTH PL\xffIN", "501 5.5.4");
        check(b"MAIL", "501 5.5.4");
        check(b"MAIL TO:<a@b.example>", "501 5.5.4");
        check(b"MAIL FROM:a@b.example", "501 5.1.7");
        check(b"MAIL FROM:<a@b.example", "501 5.1.7");
        check(b"MAIL FROM:<a@b.example>SIZE=5", "501 5.1.7");
        check(b"MAIL FROM:<a@b.example> SIZE=x", "501 5.5.4");
        check(b"MAIL FROM:<a@b.example> FOO=x", "555 5.5.4");
        check(b"MAIL FROM:<\xe4@b.example>", "553 5.6.7");
        check(b"RCPT TO:<>", "501 5.1.3");
        check(b"RCPT TO:<a>", "501 5.1.3");
        check(b"RCPT TO:<a@b.example> NOTIFY=ALWAYS", "501 5.5.4");
        check(b"RCPT TO:<a@b.example> SIZE=1", "555 5.5.4");
        check(b"RCPT TO:<a@\xff>", "553 5.6.7");
    }

    #[test]
    fn each_command_has_its_own_longest_line() {
        let check = |start: &str, octets: usize, long: bool| {
            let line = format!("{start}{}", "x".repeat(octets - 2 - start.len()));
            assert_eq!(parse(&line) == Err(CommandError::TooLong), long, "{start} {octets}");
        };
        check("NOOP ", COMMAND_LINE_OCTETS, false);
        check("NOOP ", COMMAND_LINE_OCTETS + 1, true);
        check("MAIL FROM:<a@b.example> AUTH=", MAIL_LINE_OCTETS, false);
        check("MAIL FROM:<a@b.example> AUTH=", MAIL_LINE_OCTETS + 1, true);
        check("RCPT TO:<a@b.example> ORCPT=", RECIPIENT_LINE_OCTETS, false);
        check("RCPT TO:<a@b.example> ORCPT=", RECIPIENT_LINE_OCTETS + 1, true);
        check("AUTH PLAIN ", AUTH_LINE_OCTETS, false);
        check("AUTH PLAIN ", AUTH_LINE_OCTETS + 1, true);
    }

    #[test]
    fn debug_hides_the_initial_response() {
        let shown = format!("{:?}", parse("AUTH PLAIN AGFsaWNlAHMzY3JldA=="));
        assert_eq!(shown, "Ok(Auth(PLAIN))");
    }
}
