//! The judge: which messages were lost, which came twice, and whether content arrived as it was sent (promises P1 to P3).
//!
//! Every test message carries a token in a header field of its own. Tokens are compared, never counts: a loss and a
//! duplicate must not cancel each other out. Pure; called by the suites with what `load` sent and `smtp_server` received.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

/// The header field that carries the token of a test message.
pub const TOKEN_FIELD: &str = "X-Postroad-Test";

/// What became of a set of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Sent and never received.
    pub lost: BTreeSet<String>,
    /// Received more than once, and how often.
    pub duplicated: BTreeMap<String, usize>,
    /// Received though not in the set that was sent: for a set of acknowledged messages, those whose fate the client never learned.
    pub unexpected: BTreeSet<String>,
}

impl Account {
    /// Whether each message arrived exactly once and nothing else did.
    #[must_use]
    pub fn balanced(&self) -> bool {
        self.lost.is_empty() && self.duplicated.is_empty() && self.unexpected.is_empty()
    }
}

/// Compares the tokens `sent` with the tokens `received`, one per received copy.
///
/// The same comparison serves recipients: give it "token recipient" pairs as one string.
pub fn account<T: AsRef<str>>(sent: &BTreeSet<String>, received: impl IntoIterator<Item = T>) -> Account {
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    for token in received {
        *copies.entry(token.as_ref().to_owned()).or_default() += 1;
    }
    Account {
        lost: sent.iter().filter(|token| !copies.contains_key(*token)).cloned().collect(),
        unexpected: copies.keys().filter(|token| !sent.contains(*token)).cloned().collect(),
        duplicated: copies.into_iter().filter(|(_, count)| *count > 1).collect(),
    }
}

/// The token in the header section of `content`, if there is one.
#[must_use]
pub fn token(content: &[u8]) -> Option<String> {
    for line in content.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return None;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        if line[..colon].eq_ignore_ascii_case(TOKEN_FIELD.as_bytes()) {
            return Some(String::from_utf8_lossy(&line[colon + 1..]).trim().to_owned());
        }
    }
    None
}

/// A test message of about `octets` octets that carries `token`: the same token and size always give the same bytes.
///
/// Lines end in CRLF and are at most 76 octets long; some are a lone dot or begin with dots (RFC 5321 §4.5.2).
#[must_use]
pub fn content(token: &str, octets: usize) -> Vec<u8> {
    let mut content = format!(
        "From: Test <test@client.example>\r\nTo: Recipient <recipient@example.com>\r\nSubject: {token}\r\n\
         Date: Thu, 1 Jan 2026 00:00:00 +0000\r\nMessage-ID: <{token}@client.example>\r\n{TOKEN_FIELD}: {token}\r\n\r\n"
    )
    .into_bytes();
    let mut block = Sha256::digest(token.as_bytes());
    loop {
        content.extend_from_slice(&body_line(&block));
        if content.len() >= octets {
            return content;
        }
        block = Sha256::digest(block);
    }
}

/// One line of a body, drawn from 32 random octets: the first chooses its form, the others its text.
fn body_line(random: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz. -=!?";
    let text =
        |octets: &[u8]| octets.iter().map(|octet| ALPHABET[usize::from(octet % 32)]).collect::<Vec<u8>>();
    let mut line = match random[0] % 8 {
        0 => b".".to_vec(),
        1 => b"..".to_vec(),
        2 => [b".".as_slice(), &text(&random[1..])].concat(),
        3 => Vec::new(),
        _ => [text(&random[1..]), text(&random[8..])].concat(),
    };
    line.extend_from_slice(b"\r\n");
    line
}

/// Checks that `received` is `sent` with nothing changed but header fields put in front of it (trace information,
/// RFC 5321 §4.4), all of them named in `added`.
///
/// # Errors
/// A sentence that says what differs, without quoting the content.
pub fn intact(sent: &[u8], received: &[u8], added: &[&str]) -> Result<(), String> {
    let Some(front) = received.strip_suffix(sent) else {
        return Err(format!(
            "{} octets were sent; the {} received do not end with them (the ends agree in {} octets)",
            sent.len(),
            received.len(),
            common_suffix(sent, received)
        ));
    };
    let front = String::from_utf8_lossy(front);
    if !front.is_empty() && !front.ends_with("\r\n") {
        return Err("what was put in front of the message does not end in CRLF".to_owned());
    }
    for line in front.split_terminator("\r\n") {
        let folded = line.starts_with([' ', '\t']);
        let name = line.split(':').next().unwrap_or_default();
        if !folded && !added.iter().any(|expected| expected.eq_ignore_ascii_case(name)) {
            return Err(format!("a header field {name:?} was put in front of the message"));
        }
    }
    Ok(())
}

fn common_suffix(left: &[u8], right: &[u8]) -> usize {
    left.iter().rev().zip(right.iter().rev()).take_while(|(left, right)| left == right).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(tokens: &[&str]) -> BTreeSet<String> {
        tokens.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_lost_a_duplicated_and_an_unexpected_token_are_found() {
        let account = account(&set(&["a", "b", "c"]), ["a", "c", "c", "d"]);
        assert_eq!(account.lost, set(&["b"]));
        assert_eq!(account.duplicated, BTreeMap::from([("c".to_owned(), 2)]));
        assert_eq!(account.unexpected, set(&["d"]));
        assert!(!account.balanced());
    }

    #[test]
    fn each_token_once_is_balanced() {
        assert!(account(&set(&["a", "b"]), ["b", "a"]).balanced());
    }

    #[test]
    fn the_token_is_read_from_the_header_section_only() {
        assert_eq!(token(b"Subject: x\r\nx-postroad-test:  t-1 \r\n\r\n").as_deref(), Some("t-1"));
        assert_eq!(token(b"Subject: x\r\n\r\nX-Postroad-Test: t-1\r\n"), None);
    }

    #[test]
    fn content_is_a_function_of_token_and_size_and_holds_lines_that_begin_with_dots() {
        let first = content("t-1", 4096);
        assert_eq!(first, content("t-1", 4096));
        assert_ne!(first, content("t-2", 4096));
        assert!((4096..4200).contains(&first.len()), "{}", first.len());
        assert!(first.windows(5).any(|window| window == b"\r\n.\r\n"));
        assert!(first.windows(3).any(|window| window == b"\n.."));
    }

    #[test]
    fn added_trace_fields_leave_a_message_intact() {
        let sent = content("t-1", 512);
        let received = [b"Received: from a by b;\r\n\tTue\r\n".as_slice(), &sent].concat();
        assert_eq!(intact(&sent, &received, &["Received"]), Ok(()));
        assert!(intact(&sent, &received, &["Return-Path"]).is_err());
    }

    #[test]
    fn one_changed_octet_is_found() {
        let sent = content("t-1", 512);
        let mut received = sent.clone();
        let last = received.len() - 3;
        received[last] ^= 1;
        assert!(intact(&sent, &received, &["Received"]).unwrap_err().contains("2 octets)"));
    }
}
