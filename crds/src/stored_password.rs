//! The forms a user's password may be stored in, told apart by how they begin. Pure syntax: the operator checks users
//! Secrets with it, a relay reads them with it and verifies.

/// What a users Secret holds for one user. No `Debug`: every form is worth guessing passwords against.
#[derive(Clone, PartialEq, Eq)]
pub enum StoredPassword<'a> {
    /// The password itself.
    Plain(&'a str),
    /// `$2a$`, `$2b$` or `$2y$`, as `htpasswd -B` writes it.
    Bcrypt(&'a str),
    /// `$argon2id$`, in the PHC string format.
    Argon2id(&'a str),
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>` (after RFC 5803 §3), the parts in base64.
    ScramSha256 {
        /// How often the hash is applied.
        iterations: u32,
        /// Base64.
        salt: &'a str,
        /// Base64 of 32 octets.
        stored_key: &'a str,
        /// Base64 of 32 octets.
        server_key: &'a str,
    },
}

/// A value that begins like a hash and is not one a relay can use. The texts hold nothing of the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredPasswordError {
    /// Not the form of a bcrypt hash, or too costly.
    #[error("is not a bcrypt hash of cost 4 to 15, such as `htpasswd -nB` writes")]
    Bcrypt,
    /// Not the form of an argon2id hash, or too costly.
    #[error("is not an argon2id hash of version 19 with m up to 65536, t up to 10 and p up to 4")]
    Argon2id,
    /// Not the form of SCRAM keys.
    #[error(
        "is not SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey> with 4096 to 1000000 iterations, the rest in base64"
    )]
    ScramSha256,
}

impl<'a> StoredPassword<'a> {
    /// Reads a value of a users Secret. What does not begin like a hash is a plain password.
    ///
    /// # Errors
    /// When it begins like a hash and is malformed, or would take a relay more than about a second or 64 MiB to check.
    pub fn parse(value: &'a str) -> Result<Self, StoredPasswordError> {
        if let Some(rest) = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| value.strip_prefix(prefix)) {
            return bcrypt(rest).then_some(Self::Bcrypt(value)).ok_or(StoredPasswordError::Bcrypt);
        }
        if let Some(rest) = value.strip_prefix("$argon2id$") {
            return argon2id(rest).then_some(Self::Argon2id(value)).ok_or(StoredPasswordError::Argon2id);
        }
        match value.strip_prefix("SCRAM-SHA-256$") {
            Some(rest) => scram(rest).ok_or(StoredPasswordError::ScramSha256),
            None => Ok(Self::Plain(value)),
        }
    }
}

/// `<cost>$<22 characters of salt><31 of hash>`
fn bcrypt(rest: &str) -> bool {
    let Some((cost, hash)) = rest.split_once('$') else { return false };
    let alphabet = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'.' | b'/');
    cost.len() == 2 && number(cost, 4, 15).is_some() && hash.len() == 53 && hash.bytes().all(alphabet)
}

/// `v=19$m=<KiB>,t=<passes>,p=<lanes>$<salt>$<hash>`, base64 without padding.
fn argon2id(rest: &str) -> bool {
    let parts: Vec<&str> = rest.split('$').collect();
    let [version, parameters, salt, hash] = parts[..] else { return false };
    let parameters: Vec<&str> = parameters.split(',').collect();
    let [memory, passes, lanes] = parameters[..] else { return false };
    let within = |text: &str, name: &str, least, most| {
        text.strip_prefix(name).is_some_and(|value| number(value, least, most).is_some())
    };
    version == "v=19"
        && within(memory, "m=", 8, 65_536)
        && within(passes, "t=", 1, 10)
        && within(lanes, "p=", 1, 4)
        && [(salt, 11, 64), (hash, 16, 86)]
            .iter()
            .all(|(text, least, most)| (*least..=*most).contains(&text.len()) && text.bytes().all(base64))
}

fn scram(rest: &str) -> Option<StoredPassword<'_>> {
    let (parameters, keys) = rest.split_once('$')?;
    let (iterations, salt) = parameters.split_once(':')?;
    let (stored_key, server_key) = keys.split_once(':')?;
    let iterations = number(iterations, 4096, 1_000_000)?;
    let padded = |text: &str| {
        let digits = text.trim_end_matches('=');
        !digits.is_empty()
            && text.len().is_multiple_of(4)
            && text.len() - digits.len() <= 2
            && digits.bytes().all(base64)
    };
    // 32 octets: 43 digits and one sign of padding.
    let key = |text: &str| padded(text) && text.len() == 44 && text.ends_with('=') && !text.ends_with("==");
    let valid = padded(salt) && salt.len() <= 128 && key(stored_key) && key(server_key);
    valid.then_some(StoredPassword::ScramSha256 { iterations, salt, stored_key, server_key })
}

fn base64(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'+' | b'/')
}

fn number(text: &str, least: u32, most: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit());
    text.parse().ok().filter(|value| digits && (least..=most).contains(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2b$04$zVHmKQtGGQob.b/Nc7l9NO8UlrYcW05FiuCj/SxsFO/ZtiN9.mNzy";
    const ARGON2: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8";
    const SCRAM: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[test]
    fn the_forms_are_told_apart_by_how_they_begin() {
        assert!(StoredPassword::parse(BCRYPT) == Ok(StoredPassword::Bcrypt(BCRYPT)));
        assert!(StoredPassword::parse(ARGON2) == Ok(StoredPassword::Argon2id(ARGON2)));
        assert!(matches!(
            StoredPassword::parse(SCRAM),
            Ok(StoredPassword::ScramSha256 { iterations: 4096, salt: "W22ZaJ0SNY7soEsUEjb6gQ==", .. })
        ));
        for plain in ["hunter2", "", "$2", "$1$salt$hash", "{SSHA}x"] {
            assert!(StoredPassword::parse(plain) == Ok(StoredPassword::Plain(plain)), "{plain}");
        }
    }

    #[test]
    fn damaged_and_too_costly_hashes_are_refused() {
        let check = |value: String, expected| {
            assert!(StoredPassword::parse(&value).err() == Some(expected), "{value}");
        };
        check(BCRYPT[..59].to_owned(), StoredPasswordError::Bcrypt);
        check(BCRYPT.replace("$04$", "$16$"), StoredPasswordError::Bcrypt);
        check(BCRYPT.replace("$04$", "$4$"), StoredPasswordError::Bcrypt);
        check(ARGON2.replace("m=19456", "m=1000000"), StoredPasswordError::Argon2id);
        check(ARGON2.replace("v=19", "v=16"), StoredPasswordError::Argon2id);
        check(ARGON2.replace("$c29tZXNhbHQ", ""), StoredPasswordError::Argon2id);
        check(SCRAM.replace("4096", "1000"), StoredPasswordError::ScramSha256);
        check(SCRAM.replace(":wfPL", ":"), StoredPasswordError::ScramSha256);
        check("SCRAM-SHA-256$".to_owned(), StoredPasswordError::ScramSha256);
    }
}
