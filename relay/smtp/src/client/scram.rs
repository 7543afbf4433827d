//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the client's part: the server never learns the password and has to prove that it
//! knows it. Without channel binding.
//!
//! Pure: the nonce comes from the driver. Called by [`super::authentication`].

use crate::scram_arithmetic::{Hash, hmac, prepared, salted_password, xor};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::fmt;

/// RFC 7677 §4: fewer iterations protect the password too little to be accepted from a server.
const MINIMUM_ITERATIONS: u32 = 4096;
/// More would let a server keep this process busy; no service asks for as many.
const MAXIMUM_ITERATIONS: u32 = 1_000_000;
/// The GS2 header: no channel binding, no authorisation identity (RFC 5802 §7).
const GS2_HEADER: &str = "n,,";

/// An exchange that awaits the server's first message.
pub(super) struct FirstSent {
    client_first_bare: String,
    nonce: String,
}

/// An exchange that awaits the server's signature.
pub(super) struct FinalSent {
    signature: Hash,
}

/// Why the server's message ends the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScramError {
    #[error("the server's SCRAM message is malformed")]
    Malformed,
    #[error("the server's SCRAM nonce does not begin with the one sent to it")]
    Nonce,
    #[error(
        "the server asks for a number of SCRAM iterations outside {MINIMUM_ITERATIONS} to {MAXIMUM_ITERATIONS}"
    )]
    Iterations,
    #[error("the server did not prove that it knows the password; somebody may be answering in its place")]
    Signature,
}

/// Begins: the exchange and the client's first message.
pub(super) fn begin(username: &str, nonce: &str) -> (FirstSent, String) {
    let name = prepared(username).replace('=', "=3D").replace(',', "=2C");
    let client_first_bare = format!("n={name},r={nonce}");
    let message = format!("{GS2_HEADER}{client_first_bare}");
    (FirstSent { client_first_bare, nonce: nonce.to_owned() }, message)
}

impl FirstSent {
    /// Takes the server's first message and gives the client's final one.
    pub(super) fn answer(
        self,
        server_first: &str,
        password: &str,
    ) -> Result<(FinalSent, String), ScramError> {
        let (nonce, salt, iterations) = parse_server_first(server_first)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        let salted = salted_password(password, &salt, iterations);
        let without_proof = format!("c={},r={nonce}", STANDARD.encode(GS2_HEADER));
        let signed = format!("{},{server_first},{without_proof}", self.client_first_bare);
        let client_key = hmac(&salted, b"Client Key");
        let stored_key = Sha256::digest(client_key).into();
        let proof = xor(&client_key, &hmac(&stored_key, signed.as_bytes()));
        let signature = hmac(&hmac(&salted, b"Server Key"), signed.as_bytes());
        Ok((FinalSent { signature }, format!("{without_proof},p={}", STANDARD.encode(proof))))
    }
}

impl FinalSent {
    /// Whether the server's final message proves that it knows the password.
    pub(super) fn verify(&self, server_final: &str) -> Result<(), ScramError> {
        let proof = server_final.split(',').next().and_then(|first| first.strip_prefix("v="));
        let proof = proof.and_then(|proof| STANDARD.decode(proof).ok()).ok_or(ScramError::Signature)?;
        // Not in constant time: a server has one try, and what it would learn is its own signature.
        if proof == self.signature { Ok(()) } else { Err(ScramError::Signature) }
    }
}

/// `r=nonce,s=salt,i=iterations`, extensions behind; a mandatory extension (`m=`) before is not known here.
fn parse_server_first(message: &str) -> Result<(&str, Vec<u8>, u32), ScramError> {
    let mut attributes = message.split(',');
    let mut next = |name: &str| {
        attributes.next().and_then(|attribute| attribute.strip_prefix(name)).ok_or(ScramError::Malformed)
    };
    let nonce = next("r=")?;
    let salt = STANDARD.decode(next("s=")?).map_err(|_| ScramError::Malformed)?;
    let iterations: u32 = next("i=")?.parse().map_err(|_| ScramError::Malformed)?;
    if !(MINIMUM_ITERATIONS..=MAXIMUM_ITERATIONS).contains(&iterations) {
        return Err(ScramError::Iterations);
    }
    Ok((nonce, salt, iterations))
}

/// Nothing of it is for a log.
impl fmt::Debug for FirstSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FirstSent")
    }
}

/// Nothing of it is for a log.
impl fmt::Debug for FinalSent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FinalSent")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    /// RFC 7677 §3.
    #[test]
    fn the_example_of_the_rfc() {
        let (exchange, first) = begin("user", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(first, "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (exchange, last) = exchange.answer(SERVER_FIRST, "pencil").unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(exchange.verify("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
        for wrong in ["v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "v=", "", "e=other-error", "v=!"] {
            assert_eq!(exchange.verify(wrong), Err(ScramError::Signature), "{wrong}");
        }
    }

    #[test]
    fn what_a_server_must_not_say_ends_the_exchange() {
        let check = |message: &str, expected| {
            let (exchange, _) = begin("user", "rOprNGfwEbeRWgbNEkqO");
            assert_eq!(exchange.answer(message, "pencil").err(), Some(expected), "{message}");
        };
        check("", ScramError::Malformed);
        check("m=x,r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=4096", ScramError::Malformed);
        check("r=rOprNGfwEbeRWgbNEkqOx,s=!,i=4096", ScramError::Malformed);
        check("r=rOprNGfwEbeRWgbNEkqO,s=QQ==,i=4096", ScramError::Nonce);
        check("r=another,s=QQ==,i=4096", ScramError::Nonce);
        check("r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=1", ScramError::Iterations);
        check("r=rOprNGfwEbeRWgbNEkqOx,s=QQ==,i=4000000000", ScramError::Iterations);
    }

    #[test]
    fn a_name_is_escaped_and_prepared() {
        assert_eq!(begin("a=b,c", "x").1, "n,,n=a=3Db=2Cc,r=x");
        assert_eq!(begin("I\u{ad}X\u{aa}", "x").1, "n,,n=IXa,r=x");
    }
}
