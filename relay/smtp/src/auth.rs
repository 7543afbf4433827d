//! SASL PLAIN (RFC 4616) and LOGIN for both sides of AUTH (RFC 4954).
//!
//! Not here: when AUTH is allowed ([`crate::server`]) and whether credentials are right (the driver).

use crate::reply::Reply;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
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
}

impl Mechanism {
    /// Every mechanism, in the order the server offers them.
    pub const ALL: [Self; 2] = [Self::Plain, Self::Login];

    /// The name as it stands in EHLO and AUTH.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
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
}

/// What follows a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask on: a 334 reply with this text (base64).
    Challenge(Exchange, &'static str),
    /// The client has named its user and password; whether they are right is the driver's to say.
    Complete(PlainCredentials),
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
            Self::Plain => "",
            Self::LoginUsername => "VXNlcm5hbWU6",
            Self::LoginPassword { .. } => "UGFzc3dvcmQ6",
        };
        Step::Challenge(self, text)
    }

    fn answer(self, response: Vec<u8>) -> Step {
        let Ok(response) = String::from_utf8(response) else { return Step::Failed(ExchangeError::Malformed) };
        match self {
            Self::Plain => parse_plain(&response),
            Self::LoginUsername => Self::LoginPassword { username: response }.challenge(),
            Self::LoginPassword { username } => complete(&username, &response),
        }
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
        let Step::Challenge(next, "UGFzc3dvcmQ6") = Exchange::begin(Mechanism::Login, Some("=")) else {
            panic!()
        };
        assert_eq!(next.respond(b"cHc="), Step::Failed(ExchangeError::Refused));
    }

    #[test]
    fn login_asks_for_the_name_and_then_the_password() {
        let Step::Challenge(next, "VXNlcm5hbWU6") = Exchange::begin(Mechanism::Login, None) else { panic!() };
        let Step::Challenge(next, "UGFzc3dvcmQ6") = next.respond(b"YWxpY2U=") else { panic!() };
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
