//! The messages: like any app's, and each with a stamp by which the sink knows it.

use std::time::Instant;

/// The header field with the stamp.
const FIELD: &str = "X-Bench: ";

/// Which message of which trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The trial, so that a straggler of the one before is not counted.
    pub trial: u32,
    /// The message in the trial, from 0.
    pub number: usize,
}

/// The header section of a message, with the blank line that ends it.
pub fn header_section(stamp: Stamp) -> String {
    let Stamp { trial, number } = stamp;
    format!(
        "From: <sender@example.com>\r\nTo: <recipient{number}@example.net>\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n\
         Message-ID: <{trial}.{number}@bench.example>\r\nSubject: bench\r\n{FIELD}{trial} {number}\r\n\r\n"
    )
}

/// A body of about `octets` octets in lines of 76, as base64 has them, and the line that ends it.
pub fn body(octets: usize) -> Vec<u8> {
    let line: String =
        ('A'..='Z').chain('a'..='z').chain('0'..='9').chain("ABCDEFGHIJKLMN".chars()).collect();
    let mut body = Vec::with_capacity(octets + 100);
    while body.len() < octets {
        let rest = (octets - body.len()).min(line.len());
        body.extend_from_slice(&line.as_bytes()[..rest]);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b".\r\n");
    body
}

/// The stamp in the front of a message, if all of it is there.
pub fn stamp(front: &[u8]) -> Option<Stamp> {
    let begin = memchr::memmem::find(front, FIELD.as_bytes())? + FIELD.len();
    let end = begin + memchr::memchr(b'\r', &front[begin..])?;
    let (trial, number) = std::str::from_utf8(&front[begin..end]).ok()?.split_once(' ')?;
    Some(Stamp { trial: trial.parse().ok()?, number: number.parse().ok()? })
}

/// What the sink knows of a trial.
#[derive(Clone, Debug)]
pub struct Arrivals {
    /// When the last message arrived.
    pub last: Instant,
    /// Messages that arrived more than once.
    pub duplicates: usize,
    /// Connections over which they came.
    pub connections: usize,
}
