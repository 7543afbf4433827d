//! The server's side of AUTH (RFC 4954 §4): PLAIN, LOGIN and XOAUTH2. It reads what the client claims; whether that is true
//! [`Settings`] say, when it is claimed and later.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::smtp_server::settings::{Pace, Settings};
use crate::smtp_server::wire::Wire;

/// What the answer to a token that is not believed begins with: an error report, behind which the client says an empty line.
const ERROR_REPORT: &str = r#"{"status":"401","schemes":"bearer"}"#;

/// Who a client says it is, and by what.
#[derive(Clone)]
pub(crate) struct Claim {
    pub(crate) user: String,
    secret: Secret,
}

#[derive(Clone)]
enum Secret {
    Password(String),
    AccessToken(String),
}

impl Claim {
    /// Whether it is true now.
    pub(crate) fn holds(&self, settings: &Settings) -> bool {
        let (known, secret) = match &self.secret {
            Secret::Password(password) => (&settings.users, password),
            Secret::AccessToken(token) => (&settings.access_tokens, token),
        };
        known.get(&self.user) == Some(secret)
    }
}

/// The line of the EHLO reply, as `AUTH PLAIN LOGIN`.
pub(crate) fn offer(settings: &Settings) -> String {
    let mut line = "AUTH".to_owned();
    let mut add = |offered: bool, mechanism: &str| line.push_str(if offered { mechanism } else { "" });
    add(!settings.users.is_empty() && settings.offer_plain, " PLAIN");
    add(!settings.users.is_empty(), " LOGIN");
    add(!settings.access_tokens.is_empty(), " XOAUTH2");
    line
}

/// What came of an exchange.
pub(crate) enum Exchange {
    Claimed(Claim),
    /// Cancelled, or not base64, or not of the mechanism's form.
    Malformed,
    UnknownMechanism,
}

/// Reads to its end the exchange that `argument` of AUTH begins.
pub(crate) async fn exchange(
    wire: &mut Wire,
    argument: &str,
    pace: impl Fn() -> Option<Pace>,
) -> io::Result<Exchange> {
    let (mechanism, initial) = argument.split_once(' ').unwrap_or((argument, ""));
    let claim = match mechanism.to_ascii_uppercase().as_str() {
        "PLAIN" => response(wire, initial, "", &pace).await?.and_then(|message| plain(&message)),
        "LOGIN" => login(wire, initial, &pace).await?,
        "XOAUTH2" => response(wire, initial, "", &pace).await?.and_then(|message| access_token(&message)),
        _ => return Ok(Exchange::UnknownMechanism),
    };
    Ok(claim.map_or(Exchange::Malformed, Exchange::Claimed))
}

/// Lets a client whose claim is not true know why, where its mechanism does so before the refusal.
pub(crate) async fn report(
    wire: &mut Wire,
    claim: &Claim,
    pace: impl Fn() -> Option<Pace>,
) -> io::Result<()> {
    if let Secret::AccessToken(_) = claim.secret {
        ask(wire, ERROR_REPORT, &pace).await?;
    }
    Ok(())
}

/// RFC 4616: authorization identity, NUL, authentication identity, NUL, password.
fn plain(message: &str) -> Option<Claim> {
    let parts: Vec<&str> = message.split('\0').collect();
    let [_, user, password] = parts[..] else { return None };
    Some(Claim { user: user.to_owned(), secret: Secret::Password(password.to_owned()) })
}

async fn login(
    wire: &mut Wire,
    initial: &str,
    pace: &impl Fn() -> Option<Pace>,
) -> io::Result<Option<Claim>> {
    let Some(user) = response(wire, initial, "Username:", pace).await? else { return Ok(None) };
    let password = response(wire, "", "Password:", pace).await?;
    Ok(password.map(|password| Claim { user, secret: Secret::Password(password) }))
}

/// `user=NAME ^A auth=Bearer TOKEN ^A ^A`, without the spaces, as Google and Microsoft document it.
fn access_token(message: &str) -> Option<Claim> {
    let fields: Vec<&str> = message.split('\u{1}').collect();
    let [user, bearer, "", ""] = fields[..] else { return None };
    let (user, token) = (user.strip_prefix("user=")?, bearer.strip_prefix("auth=Bearer ")?);
    Some(Claim { user: user.to_owned(), secret: Secret::AccessToken(token.to_owned()) })
}

/// The initial response, or the answer to `prompt` where there is none.
async fn response(
    wire: &mut Wire,
    initial: &str,
    prompt: &str,
    pace: &impl Fn() -> Option<Pace>,
) -> io::Result<Option<String>> {
    let encoded = if initial.is_empty() { ask(wire, prompt, pace).await? } else { Some(initial.to_owned()) };
    Ok(encoded.and_then(|encoded| decoded(&encoded)))
}

async fn ask(wire: &mut Wire, prompt: &str, pace: &impl Fn() -> Option<Pace>) -> io::Result<Option<String>> {
    wire.queue(format!("334 {}\r\n", STANDARD.encode(prompt)).as_bytes());
    Ok(wire.line(pace).await?.map(|line| line.text).filter(|text| text != "*"))
}

fn decoded(text: &str) -> Option<String> {
    // RFC 4954 §4: "=" stands for an empty initial response.
    if text == "=" {
        return Some(String::new());
    }
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}
