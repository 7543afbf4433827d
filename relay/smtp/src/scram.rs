//! SASL SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side: what it stores and its messages. No channel binding
//! (-PLUS).
//!
//! No randomness is made here: the server's nonce comes from the driver. User names are used as given, without
//! SASLprep (RFC 4013), like those of every mail program that sends US-ASCII ones.
//!
//! Not here: base64 around the messages and when they are exchanged ([`crate::auth`]).

use crate::scram_arithmetic::{Hash, hmac, salted_password, xor};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;

/// Octets of a client's nonce; it comes back in the server's challenge.
const NONCE_OCTETS: usize = 128;

/// What a server stores of a password (RFC 5802 §3). `Debug` shows no key.
///
/// For a user who does not exist give keys all the same, with a salt and keys that a secret of the server and the name
/// determine: then nobody learns who exists, not even by asking twice.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// The salt.
    pub salt: Vec<u8>,
    /// The iteration count. At least 4096 (RFC 7677 §4).
    pub iterations: u32,
    /// `H(ClientKey)`.
    pub stored_key: [u8; 32],
    /// `ServerKey`.
    pub server_key: [u8; 32],
}

impl ScramKeys {
    /// Derives the keys of a password. Slow by design, `iterations` times two hashes: not for an event loop.
    pub fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted = salted_password(password, salt, iterations);
        Self {
            salt: salt.to_vec(),
            iterations,
            stored_key: Sha256::digest(hmac(&salted, b"Client Key")).into(),
            server_key: hmac(&salted, b"Server Key"),
        }
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// A SCRAM message is malformed, asks for what is not supported, or proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("SCRAM message is malformed or does not fit the exchange")]
pub struct ScramError;

/// `client-first-message`, as a server reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    /// The user name, decoded.
    pub username: String,
    gs2_header: String,
    bare: String,
    nonce: String,
}

impl ClientFirst {
    /// Reads the message.
    ///
    /// # Errors
    /// When it is malformed, asks for channel binding, which is not offered, or to act as another user.
    pub fn parse(message: &str) -> Result<Self, ScramError> {
        let mut parts = message.splitn(3, ',');
        let (binding, identity, bare) = (next(&mut parts)?, next(&mut parts)?, next(&mut parts)?);
        if !matches!(binding, "n" | "y") {
            return Err(ScramError);
        }
        let mut attributes = bare.split(',');
        // A message with `m=` asks for an extension that must be understood (RFC 5802 §5.1).
        let username = decode_name(attribute(&mut attributes, "n=")?)?;
        let nonce = attribute(&mut attributes, "r=").and_then(check_nonce)?.to_owned();
        if !identity.is_empty() && decode_name(identity.strip_prefix("a=").ok_or(ScramError)?)? != username {
            return Err(ScramError);
        }
        Ok(Self { username, gs2_header: format!("{binding},{identity},"), bare: bare.to_owned(), nonce })
    }

    /// `server-first-message`, and what to check the client's answer by. `nonce` must be fresh: printable US-ASCII
    /// without a comma, at least 18 random octets' worth.
    pub fn challenge(self, keys: ScramKeys, nonce: &str) -> (String, ServerChallenge) {
        let nonce = format!("{}{nonce}", self.nonce);
        let message = format!("r={nonce},s={},i={}", STANDARD.encode(&keys.salt), keys.iterations);
        let transcript = format!("{},{message}", self.bare);
        let binding = STANDARD.encode(&self.gs2_header);
        (message, ServerChallenge { username: self.username, transcript, binding, nonce, keys })
    }
}

/// A server that has sent `server-first-message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerChallenge {
    /// The user name.
    pub username: String,
    transcript: String,
    binding: String,
    nonce: String,
    keys: ScramKeys,
}

impl ServerChallenge {
    /// Checks `client-final-message`, in constant time: `server-final-message` for a client that knows the password,
    /// `None` for one that does not.
    ///
    /// # Errors
    /// When it is malformed or belongs to another exchange.
    pub fn verify(&self, message: &str) -> Result<Option<String>, ScramError> {
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(ScramError)?;
        let mut attributes = without_proof.split(',');
        let binding = attribute(&mut attributes, "c=")?;
        let nonce = attribute(&mut attributes, "r=")?;
        let proof: Hash =
            STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or(ScramError)?;
        if binding != self.binding || nonce != self.nonce {
            return Err(ScramError);
        }
        let signed = format!("{},{without_proof}", self.transcript);
        let client_key = xor(&proof, &hmac(&self.keys.stored_key, signed.as_bytes()));
        let proven: bool = Sha256::digest(client_key).as_slice().ct_eq(&self.keys.stored_key).into();
        let signature = hmac(&self.keys.server_key, signed.as_bytes());
        Ok(proven.then(|| format!("v={}", STANDARD.encode(signature))))
    }
}

fn next<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Result<&'a str, ScramError> {
    parts.next().ok_or(ScramError)
}

fn attribute<'a>(parts: &mut impl Iterator<Item = &'a str>, name: &str) -> Result<&'a str, ScramError> {
    next(parts)?.strip_prefix(name).ok_or(ScramError)
}

fn check_nonce(nonce: &str) -> Result<&str, ScramError> {
    let printable =
        (1..=NONCE_OCTETS).contains(&nonce.len()) && nonce.bytes().all(|b| matches!(b, b'!'..=b'~'));
    if printable { Ok(nonce) } else { Err(ScramError) }
}

/// `saslname`: `=2C` is a comma, `=3D` an equals sign, and no other `=` is allowed.
fn decode_name(name: &str) -> Result<String, ScramError> {
    let stray = name.match_indices('=').any(|(at, _)| !matches!(name.get(at..at + 3), Some("=2C" | "=3D")));
    if name.is_empty() || stray || name.contains('\0') {
        return Err(ScramError);
    }
    Ok(name.replace("=2C", ",").replace("=3D", "="))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn challenge(password: &str) -> (String, ServerChallenge) {
        let keys = ScramKeys::derive(password, &STANDARD.decode(SALT).unwrap(), 4096);
        let first = ClientFirst::parse("n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        assert_eq!(first.username, "user");
        first.challenge(keys, SERVER_NONCE)
    }

    #[test]
    fn the_example_of_rfc_7677_section_3_holds() {
        let (message, challenge) = challenge("pencil");
        assert_eq!(message, format!("r=rOprNGfwEbeRWgbNEkqO{SERVER_NONCE},s={SALT},i=4096"));
        assert_eq!(challenge.verify(CLIENT_FINAL), Ok(Some(SERVER_FINAL.to_owned())));
    }

    #[test]
    fn a_wrong_password_or_another_exchange_proves_nothing() {
        let (_, other) = challenge("pencil ");
        assert_eq!(other.verify(CLIENT_FINAL), Ok(None));
        let (_, challenge) = challenge("pencil");
        for message in [
            "",
            &CLIENT_FINAL.replace("c=biws", "c=eSws"),
            &CLIENT_FINAL.replace("r=rO", "r=rP"),
            &CLIENT_FINAL.replace("p=dH", "p=d!"),
            &CLIENT_FINAL.replace(",p=", ",x="),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=AAAA",
        ] {
            assert_eq!(challenge.verify(message), Err(ScramError), "{message}");
        }
    }

    #[test]
    fn first_messages_are_read_strictly() {
        let name = |message: &str| ClientFirst::parse(message).map(|first| first.username);
        assert_eq!(name("y,,n=a=2Cb=3Dc,r=x"), Ok("a,b=c".to_owned()));
        assert_eq!(name("n,a=user,n=user,r=x,ext=1"), Ok("user".to_owned()));
        for message in [
            "",
            "n,,",
            "n,,n=user",
            "n,,n=,r=x",
            "n,,n=user,r=",
            "n,,n=us=er,r=x",
            "n,,m=1,n=user,r=x",
            "n,,r=x,n=user",
            "p=tls-unique,,n=user,r=x",
            "n,a=root,n=user,r=x",
            "n,b,n=user,r=x",
            "n,,n=user,r=x\0",
        ] {
            assert_eq!(name(message), Err(ScramError), "{message}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?}", ScramKeys::derive("pencil", b"salt", 1));
        assert_eq!(shown, "ScramKeys { iterations: 1, .. }");
    }
}
