//! Mailboxes and paths: what parses prints as it was, parses again, and cannot break the line it is written into.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_protocol::{ForwardPath, Mailbox, OriginalRecipient, ReversePath, xtext};

fuzz_target!(|text: &str| {
    if let Ok(mailbox) = text.parse::<Mailbox>() {
        assert_eq!(mailbox.as_str(), text);
        assert!(!text.chars().any(char::is_control));
        assert_eq!(format!("{}@{}", mailbox.local_part(), mailbox.domain()), text);
    }
    if let Ok(path) = text.parse::<ReversePath>() {
        assert_eq!(path.to_string().parse(), Ok(path));
    }
    if let Ok(path) = text.parse::<ForwardPath>() {
        assert!(!path.as_str().chars().any(char::is_control));
        assert_eq!(path.to_string().parse(), Ok(path));
    }
    if let Ok(original) = text.parse::<OriginalRecipient>() {
        let printed = original.to_string();
        assert!(printed.bytes().all(|b| b.is_ascii_graphic()), "{printed}");
        // The printed form may be longer than what is accepted: each character above 127 becomes an escape.
        if let Ok(again) = printed.parse() {
            assert_eq!(original, again);
        }
    }
    assert_eq!(xtext::decode(&xtext::encode(text)).as_deref(), Some(text.as_bytes()));
});
