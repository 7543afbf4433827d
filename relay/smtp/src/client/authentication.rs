//! AUTH on the client's side (RFC 4954): which mechanism, and what is answered to the server's challenges.
//!
//! Pure, and without the session around it. Called by [`super::session`].

use super::scram;
use crate::auth::{PlainCredentials, plain_response, response};
use crate::extension::Extensions;
use crate::reply::Reply;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

/// A longer command line has no room for the first response, which then follows the server's 334 (RFC 4954 §4).
const COMMAND_OCTETS: usize = 510;

/// What a client authenticates with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user name and a password: SCRAM-SHA-256, PLAIN or LOGIN, the first of these that the server offers.
    Password(PlainCredentials),
    /// A user name and an OAuth 2.0 access token: XOAUTH2.
    AccessToken(AccessToken),
}

/// An OAuth 2.0 access token and the mailbox it is for, as XOAUTH2 carries them.
///
/// `Debug` shows the name only.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    username: String,
    token: String,
}

impl AccessToken {
    /// The token for the mailbox `username`.
    pub fn new(username: impl Into<String>, token: impl Into<String>) -> Self {
        Self { username: username.into(), token: token.into() }
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken").field("username", &self.username).finish_non_exhaustive()
    }
}

/// A running AUTH: what the server's next reply will answer.
#[derive(Debug)]
pub(super) enum Exchange {
    /// The first response follows a 334.
    Initial(String, Box<Self>),
    /// Everything is said; the verdict is awaited.
    Complete,
    LoginUsername,
    LoginPassword,
    ScramFirst(Box<scram::FirstSent>),
    ScramFinal(Box<scram::FinalSent>),
    /// The token is out. A 334 is the server's error report, which is answered by an empty line and followed by the refusal.
    XOAuth2,
}

/// What follows the server's reply.
#[derive(Debug)]
pub(super) enum Next {
    /// This line, without its CRLF.
    Send(Exchange, String),
    Authenticated,
    Refused(Reply),
    /// The server does not follow the mechanism.
    Surprise(String),
}

/// The strongest mechanism offered that these credentials can be used with, begun: the AUTH command line without its CRLF.
pub(super) fn begin(
    credentials: &Credentials,
    nonce: &str,
    offered: &Extensions,
) -> Option<(Exchange, String)> {
    let offers = |name: &str| offered.auth.iter().any(|mechanism| mechanism == name);
    match credentials {
        Credentials::Password(held) if offers("SCRAM-SHA-256") => {
            let (exchange, message) = scram::begin(held.username(), nonce);
            Some(command("SCRAM-SHA-256", response(&message), Exchange::ScramFirst(Box::new(exchange))))
        }
        Credentials::Password(held) if offers("PLAIN") => {
            Some(command("PLAIN", plain_response(held), Exchange::Complete))
        }
        Credentials::Password(_) if offers("LOGIN") => {
            Some((Exchange::LoginUsername, "AUTH LOGIN".to_owned()))
        }
        Credentials::AccessToken(held) if offers("XOAUTH2") => {
            let message = format!("user={}\u{1}auth=Bearer {}\u{1}\u{1}", held.username, held.token);
            Some(command("XOAUTH2", response(&message), Exchange::XOAuth2))
        }
        Credentials::Password(_) | Credentials::AccessToken(_) => None,
    }
}

fn command(mechanism: &str, response: String, next: Exchange) -> (Exchange, String) {
    let line = format!("AUTH {mechanism} {response}");
    if line.len() <= COMMAND_OCTETS {
        return (next, line);
    }
    (Exchange::Initial(response, Box::new(next)), format!("AUTH {mechanism}"))
}

impl Exchange {
    /// Takes the server's reply to what was sent last.
    pub(super) fn answer(self, reply: Reply, credentials: &Credentials) -> Next {
        if reply.is_completion() {
            return self.complete(&reply);
        }
        if !reply.is_intermediate() {
            return Next::Refused(reply);
        }
        match (self, credentials) {
            (Self::Initial(response, next), _) => Next::Send(*next, response),
            (Self::LoginUsername, Credentials::Password(held)) => {
                Next::Send(Self::LoginPassword, response(held.username()))
            }
            (Self::LoginPassword, Credentials::Password(held)) => {
                Next::Send(Self::Complete, response(held.password()))
            }
            (Self::ScramFirst(exchange), Credentials::Password(held)) => {
                match challenge(&reply)
                    .ok_or(scram::ScramError::Malformed)
                    .and_then(|message| exchange.answer(&message, held.password()))
                {
                    Ok((exchange, message)) => {
                        Next::Send(Self::ScramFinal(Box::new(exchange)), response(&message))
                    }
                    Err(error) => Next::Surprise(error.to_string()),
                }
            }
            (Self::ScramFinal(exchange), _) => {
                match exchange.verify(&challenge(&reply).unwrap_or_default()) {
                    Ok(()) => Next::Send(Self::Complete, String::new()),
                    Err(error) => Next::Surprise(error.to_string()),
                }
            }
            (Self::XOAuth2, _) => Next::Send(Self::Complete, String::new()),
            (Self::Complete | Self::LoginUsername | Self::LoginPassword | Self::ScramFirst(_), _) => {
                Next::Surprise("the server asked on after the credentials were complete".to_owned())
            }
        }
    }

    /// The server is content. With SCRAM it must have proved itself before, or does so with this reply.
    fn complete(self, reply: &Reply) -> Next {
        match self {
            Self::Complete | Self::XOAuth2 => Next::Authenticated,
            Self::ScramFinal(exchange) => match exchange.verify(&challenge(reply).unwrap_or_default()) {
                Ok(()) => Next::Authenticated,
                Err(error) => Next::Surprise(error.to_string()),
            },
            Self::Initial(..) | Self::LoginUsername | Self::LoginPassword | Self::ScramFirst(_) => {
                Next::Surprise("the server accepted credentials before it had them".to_owned())
            }
        }
    }
}

/// The text of a challenge.
fn challenge(reply: &Reply) -> Option<String> {
    String::from_utf8(STANDARD.decode(reply.text().trim()).ok()?).ok()
}
