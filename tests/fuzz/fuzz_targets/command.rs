//! Command lines: whatever is parsed or refused has a reply of lines of at most 512 octets.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use smtp_protocol::command::Command;

fuzz_target!(|line: &[u8]| {
    match Command::parse(line) {
        Ok(command) => assert!(!format!("{command:?}").is_empty()),
        Err(error) => {
            let mut wire = BytesMut::new();
            error.reply().encode(&mut wire);
            assert!(wire.ends_with(b"\r\n"));
            assert!(wire[..].split(|b| *b == b'\n').all(|line| line.len() < 512));
        }
    }
});
