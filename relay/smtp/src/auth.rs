//! SASL PLAIN (RFC 4616), LOGIN and SCRAM-SHA-256 (RFC 7677) for both sides of AUTH (RFC 4954).
//!
//! Not here: when AUTH is allowed ([`crate::server`]), whether credentials are right and which keys a user has (the
//! driver), the messages of SCRAM ([`crate::scram`]).

use crate::reply::Reply;
use crate::scram::{ClientFirst, ScramKeys, ServerChallenge};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};
use std::borrow::Cow;
use std::fmt;

/// A user name and its password, as AUTH PLAIN or LOGIN carries them.
///
/// `Debug` shows the name only. Equality is not constant in time: compare secrets with a crate made for it.
#[derive(Clone, PartialEq, Eq)]
pub struct PlainCredentials {
    username: String,
    password: String,
}

impl PlainCredentials {
    /// Credentials of the user `username`.
    pub fn new(username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { username: username.into(), password: password.into() }
    }

    /// The authentication identity.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// The secret. Never log it.
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for PlainCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A SASL mechanism this crate speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The old two-question mechanism; never standardised, spoken by many apps.
    Login,
    /// RFC 7677: the password never travels, and the server proves that it knows it too.
    ScramSha256,
}

impl Mechanism {
    /// Every mechanism.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Login, Self::ScramSha256];

    /// The name as it stands in EHLO and AUTH.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
        }
    }

    /// The mechanism of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

/// `535 5.7.8`: the one reply to any failed AUTH, whatever the cause (RFC 4954 §6).
pub fn authentication_failed() -> Reply {
    Reply::new(535, (5, 7, 8), "Authentication credentials invalid")
}

/// The response that carries credentials in AUTH PLAIN, in base64.
pub(crate) fn plain_response(credentials: &PlainCredentials) -> String {
    STANDARD.encode(format!("\0{}\0{}", credentials.username, credentials.password))
}

/// A text as a SASL response, in base64.
pub(crate) fn response(text: &str) -> String {
    STANDARD.encode(text)
}

/// A server's side of a running AUTH: what the next response of the client will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exchange {
    /// PLAIN: everything.
    Plain,
    /// LOGIN: the user name.
    LoginUsername,
    /// LOGIN: the password.
    LoginPassword {
        /// The user name given before.
        username: String,
    },
    /// SCRAM: `client-first-message`.
    ScramFirst,
    /// SCRAM: `client-final-message`.
    ScramFinal(Box<ServerChallenge>),
    /// SCRAM: the empty response to `server-final-message`.
    ScramProven {
        /// Who has proven to know the password.
        username: String,
    },
}

/// What follows a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask on: a 334 reply with this text (base64).
    Challenge(Exchange, Cow<'static, str>),
    /// The client has named its user and password; whether they are right is the driver's to say.
    Complete(PlainCredentials),
    /// SCRAM: the keys of this user are needed to go on; see [`scram_challenge`].
    Keys(Box<ClientFirst>),
    /// SCRAM: whether this user has proven to know the password.
    Proof {
        /// The user.
        username: String,
        /// Whether it did.
        proven: bool,
    },
    /// The exchange is over.
    Failed(ExchangeError),
}

/// Why an exchange ended without credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ExchangeError {
    /// The client sent `*`.
    #[error("Authentication cancelled")]
    Cancelled,
    /// A response that is no base64.
    #[error("Response is not valid base64")]
    Base64,
    /// Base64 of something the mechanism does not define.
    #[error("Response is malformed")]
    Malformed,
    /// An empty user name or password, or an authorisation identity that is not the user itself.
    #[error("Authentication credentials invalid")]
    Refused,
}

impl ExchangeError {
    /// The reply that ends the exchange.
    pub fn reply(&self) -> Reply {
        match self {
            Self::Cancelled => Reply::new(501, (5, 7, 0), self.to_string()),
            Self::Base64 | Self::Malformed => Reply::new(501, (5, 5, 2), self.to_string()),
            Self::Refused => authentication_failed(),
        }
    }
}

impl Exchange {
    /// Begins with `AUTH mechanism [initial-response]`; `=` is the empty initial response (RFC 4954 §4).
    pub fn begin(mechanism: Mechanism, initial_response: Option<&str>) -> Step {
        let exchange = match mechanism {
            Mechanism::Plain => Self::Plain,
            Mechanism::Login => Self::LoginUsername,
            Mechanism::ScramSha256 => Self::ScramFirst,
        };
        match initial_response {
            Some("=") => exchange.answer(Vec::new()),
            Some(response) => exchange.respond(response.as_bytes()),
            None => exchange.challenge(),
        }
    }

    /// Takes the client's next line, without its CRLF.
    pub fn respond(self, line: &[u8]) -> Step {
        if line == b"*" {
            return Step::Failed(ExchangeError::Cancelled);
        }
        match STANDARD.decode(line) {
            Ok(response) => self.answer(response),
            Err(_) => Step::Failed(ExchangeError::Base64),
        }
    }

    fn challenge(self) -> Step {
        let text = match self {
            Self::LoginUsername => "VXNlcm5hbWU6",
            Self::LoginPassword { .. } => "UGFzc3dvcmQ6",
            _ => "",
        };
        Step::Challenge(self, Cow::Borrowed(text))
    }

    fn answer(self, response: Vec<u8>) -> Step {
        let Ok(response) = String::from_utf8(response) else { return Step::Failed(ExchangeError::Malformed) };
        match self {
            Self::Plain => parse_plain(&response),
            Self::LoginUsername => Self::LoginPassword { username: response }.challenge(),
            Self::LoginPassword { username } => complete(&username, &response),
            Self::ScramFirst => match ClientFirst::parse(&response) {
                Ok(first) => Step::Keys(Box::new(first)),
                Err(_) => Step::Failed(ExchangeError::Malformed),
            },
            Self::ScramFinal(challenge) => verify(*challenge, &response),
            Self::ScramProven { username } if response.is_empty() => Step::Proof { username, proven: true },
            Self::ScramProven { .. } => Step::Failed(ExchangeError::Malformed),
        }
    }
}

/// A 334 reply with a challenge, which is one line of whatever length (RFC 4954 §4).
pub(crate) fn encode_challenge(challenge: &str, out: &mut BytesMut) {
    out.put_slice(format!("334 {challenge}\r\n").as_bytes());
}

/// `server-first-message`, now that the driver has given the user's keys and a fresh nonce.
pub(crate) fn scram_challenge(first: ClientFirst, keys: ScramKeys, nonce: &str) -> Step {
    let (message, challenge) = first.challenge(keys, nonce);
    Step::Challenge(Exchange::ScramFinal(Box::new(challenge)), Cow::Owned(STANDARD.encode(message)))
}

/// A proof is answered by the server's own in a challenge, to which an empty response is due (RFC 4954 §4).
fn verify(challenge: ServerChallenge, message: &str) -> Step {
    match challenge.verify(message) {
        Ok(Some(message)) => {
            let exchange = Exchange::ScramProven { username: challenge.username };
            Step::Challenge(exchange, Cow::Owned(STANDARD.encode(message)))
        }
        Ok(None) => Step::Proof { username: challenge.username, proven: false },
        Err(_) => Step::Failed(ExchangeError::Malformed),
    }
}

/// `[authzid] NUL authcid NUL passwd` (RFC 4616 §2).
fn parse_plain(message: &str) -> Step {
    let mut parts = message.split('\0');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(identity), Some(username), Some(password), None)
            if identity.is_empty() || identity == username =>
        {
            complete(username, password)
        }
        (Some(_), Some(_), Some(_), None) => Step::Failed(ExchangeError::Refused),
        _ => Step::Failed(ExchangeError::Malformed),
    }
}

fn complete(username: &str, password: &str) -> Step {
    if username.is_empty() || password.is_empty() {
        return Step::Failed(ExchangeError::Refused);
    }
    Step::Complete(PlainCredentials::new(username, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(message: &str) -> Step {
        Exchange::begin(Mechanism::Plain, Some(&STANDARD.encode(message)))
    }

    fn challenged(step: Step, expected: &str) -> Exchange {
        match step {
            Step::Challenge(next, text) if text == expected => next,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn plain_carries_user_and_password() {
        let expected = Step::Complete(PlainCredentials::new("alice", "s3cret"));
        assert_eq!(plain("\0alice\0s3cret"), expected);
        assert_eq!(plain("alice\0alice\0s3cret"), expected);
        assert_eq!(
            Exchange::Plain.respond(plain_response(&PlainCredentials::new("alice", "s3cret")).as_bytes()),
            expected
        );
    }

    #[test]
    fn plain_refuses_another_authorisation_identity_and_empty_fields() {
        for message in ["bob\0alice\0s3cret", "\0\0s3cret", "\0alice\0"] {
            assert_eq!(plain(message), Step::Failed(ExchangeError::Refused), "{message:?}");
        }
        for message in ["", "alice", "\0alice", "\0alice\0s3cret\0more"] {
            assert_eq!(plain(message), Step::Failed(ExchangeError::Malformed), "{message:?}");
        }
    }

    #[test]
    fn an_equals_sign_is_the_empty_initial_response() {
        assert_eq!(Exchange::begin(Mechanism::Plain, Some("=")), Step::Failed(ExchangeError::Malformed));
        let next = challenged(Exchange::begin(Mechanism::Login, Some("=")), "UGFzc3dvcmQ6");
        assert_eq!(next.respond(b"cHc="), Step::Failed(ExchangeError::Refused));
    }

    #[test]
    fn login_asks_for_the_name_and_then_the_password() {
        let next = challenged(Exchange::begin(Mechanism::Login, None), "VXNlcm5hbWU6");
        let next = challenged(next.respond(b"YWxpY2U="), "UGFzc3dvcmQ6");
        assert_eq!(next.respond(b"czNjcmV0"), Step::Complete(PlainCredentials::new("alice", "s3cret")));
    }

    #[test]
    fn garbage_is_answered_not_taken() {
        for line in [&b"!!"[..], b"YWxpY2U", b" YWxpY2U=", b"\xff\xfe"] {
            assert_eq!(
                Exchange::LoginUsername.respond(line),
                Step::Failed(ExchangeError::Base64),
                "{line:?}"
            );
        }
        assert_eq!(Exchange::LoginUsername.respond(b"/w=="), Step::Failed(ExchangeError::Malformed));
        assert_eq!(Exchange::Plain.respond(b"*"), Step::Failed(ExchangeError::Cancelled));
    }

    #[test]
    fn debug_shows_no_password() {
        let shown = format!("{:?}", plain("\0alice\0s3cret"));
        assert!(shown.contains("alice") && !shown.contains("s3cret"), "{shown}");
    }
}
