//! What a message is between its acceptance and its last recipient's fate: identifier, envelope, delivery state.
//!
//! Pure data in a leaf module: the submission writes it, the spool keeps it, the queue orders it, dispatch settles it.
//! The content (header section and body, RFC 5322) is not here: it is bytes in the spool.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use smtp_protocol::{Notify, Return};

use crate::attempt::PastAttempt;

/// A point in time in whole milliseconds since the Unix epoch, as it is kept on disk and compared over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Later than any time.
    pub const NEVER: Self = Self(u64::MAX);

    /// This time, `duration` later; saturates.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// This time, `duration` earlier; not before the epoch, and never stays [`NEVER`](Self::NEVER).
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        if self == Self::NEVER {
            return self;
        }
        Self(self.0.saturating_sub(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after it (clocks step back), without end for [`NEVER`](Self::NEVER).
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        if self == Self::NEVER {
            return Duration::MAX;
        }
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The same instant for the standard library and for date formatting.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC: `2026-01-31T12:00:00.5Z`. A time beyond the year 9999 is written as that year's end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        let time = jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX);
        fmt::Display::fmt(&time, f)
    }
}

impl From<SystemTime> for Timestamp {
    /// Times before the epoch become the epoch.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The number of milliseconds a [`MessageId`] starts with and the random bits that follow it.
const RANDOM_BITS: u32 = 80;
/// Crockford's base 32: no I, L, O, U, so that an identifier survives being read aloud.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const TEXT_LENGTH: usize = 26;

/// Names one message in every pool of every cluster for good: 48 bits of time, 80 random bits, ordered by time.
///
/// Written as 26 characters of Crockford base 32 (the ULID form); the same text is the queue id in `Received` lines,
/// replies, logs and DSNs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u128);

impl MessageId {
    /// A new identifier made at `now` with `random` for its last 80 bits.
    #[must_use]
    pub fn new(now: Timestamp, random: u128) -> Self {
        Self((u128::from(now.0) << RANDOM_BITS) | (random & ((1 << RANDOM_BITS) - 1)))
    }

    /// When it was made, which is when the message was accepted.
    #[must_use]
    pub fn accepted_at(self) -> Timestamp {
        Timestamp(u64::try_from(self.0 >> RANDOM_BITS).unwrap_or(u64::MAX))
    }

    /// A number in `0.0..1.0` made of its random bits: chance that is the same whenever it is asked for.
    #[must_use]
    pub fn fraction(self) -> f64 {
        let bits = u32::try_from(self.0 & u128::from(u32::MAX)).unwrap_or(0);
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..TEXT_LENGTH).rev().try_for_each(|place| {
            let digit = (self.0 >> (place * 5)) & 31;
            fmt::Write::write_char(f, char::from(ALPHABET[digit as usize]))
        })
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a [`MessageId`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a message id has {TEXT_LENGTH} characters of Crockford base 32")]
pub struct InvalidMessageId;

impl FromStr for MessageId {
    type Err = InvalidMessageId;

    fn from_str(text: &str) -> Result<Self, InvalidMessageId> {
        if text.len() != TEXT_LENGTH || text.as_bytes()[0] > b'7' {
            return Err(InvalidMessageId);
        }
        text.bytes().try_fold(Self(0), |id, byte| {
            let digit = ALPHABET.iter().position(|&letter| letter == byte).ok_or(InvalidMessageId)?;
            Ok(Self((id.0 << 5) | digit as u128))
        })
    }
}

impl Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The envelope (RFC 5321 §2.3.1) and what the relay knew when it took responsibility. Never changes afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// The message's name.
    pub id: MessageId,
    /// The mailbox that failures are reported to; empty for the null reverse-path, to which nothing is reported.
    pub reverse_path: String,
    /// The mailboxes to deliver to, in the order of their RCPT commands. Indexed by [`DeliveryState::recipients`].
    pub recipients: Vec<Recipient>,
    /// Whether the client declared `BODY=8BITMIME` or sent octets above 127 (RFC 6152).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub eight_bit: bool,
    /// Whether the client declared `SMTPUTF8` (RFC 6531 §3.4): addresses or header section may hold UTF-8.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub smtp_utf8: bool,
    /// How much of the message a DSN for a failure shall return (`RET`, RFC 3461 §4.3); `None` when the client left it open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ret: Option<Return>,
    /// The client's own name for the message (`ENVID`, RFC 3461 §4.4): xtext as it came, to be passed on unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envelope_id: Option<String>,
    /// Octets of content as stored, trace header included.
    pub size: u64,
    /// When the relay accepted it; expiry counts from here.
    pub accepted_at: Timestamp,
    /// The identity rule of the pool that let the client in; `None` for what the relay composed itself (DSNs).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The user the client authenticated as; `None` when it was known by other means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Envelope {
    /// Whether a relay has composed the message to tell a sender what became of another.
    #[must_use]
    pub fn is_notification(&self) -> bool {
        self.reverse_path.is_empty() && self.identity.is_none()
    }
}

#[cfg(test)]
impl Envelope {
    /// From `a@example.com` to `r0@example.net` and so many in all, accepted at the beginning of time.
    pub(crate) fn example(recipients: usize) -> Self {
        Self {
            id: MessageId(1),
            reverse_path: "a@example.com".into(),
            recipients: (0..recipients).map(|index| format!("r{index}@example.net").into()).collect(),
            eight_bit: false,
            smtp_utf8: false,
            ret: None,
            envelope_id: None,
            size: 1,
            accepted_at: Timestamp(0),
            identity: None,
            user: None,
        }
    }
}

/// One forward-path and what the client asked to be told about it (RFC 3461 §4.1, §4.2).
///
/// Serialises as its bare address when there is nothing else to say, which is nearly always.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "RecipientForm", from = "RecipientForm")]
pub struct Recipient {
    /// The mailbox to deliver to.
    pub address: String,
    /// When to notify the sender; `None` when the client left it open: on failure.
    pub notify: Option<Notify>,
    /// The original recipient (`ORCPT`): address type, `;` and xtext as it came, to be passed on unchanged.
    pub original: Option<String>,
}

impl Recipient {
    /// A recipient without any wish about notifications.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), notify: None, original: None }
    }

    /// Whether the sender wants to hear that delivery failed (RFC 3461 §4.1: also when it left that open).
    #[must_use]
    pub fn notify_of_failure(&self) -> bool {
        self.notify.is_none_or(|notify| notify.failure)
    }
}

impl From<String> for Recipient {
    fn from(address: String) -> Self {
        Self::new(address)
    }
}

impl From<&str> for Recipient {
    fn from(address: &str) -> Self {
        Self::new(address)
    }
}

/// How a [`Recipient`] is kept on disk.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum RecipientForm {
    Address(String),
    Full {
        address: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        notify: Option<Notify>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        original: Option<String>,
    },
}

impl From<Recipient> for RecipientForm {
    fn from(Recipient { address, notify, original }: Recipient) -> Self {
        if notify.is_none() && original.is_none() {
            return Self::Address(address);
        }
        Self::Full { address, notify, original }
    }
}

impl From<RecipientForm> for Recipient {
    fn from(form: RecipientForm) -> Self {
        match form {
            RecipientForm::Address(address) => Self::new(address),
            RecipientForm::Full { address, notify, original } => Self { address, notify, original },
        }
    }
}

/// How delivery of one message stands: the part of it that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryState {
    /// Attempts made so far.
    pub attempts: u32,
    /// When the next attempt is due.
    pub due_at: Timestamp,
    /// Whether the sender has been told that the message is late.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delay_reported: bool,
    /// Whether a person wants it left alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// One entry per recipient of the envelope, in its order; none in a tombstone ([`Self::tombstone`]).
    pub recipients: Vec<RecipientState>,
    /// The relay of the pool that is being given the message, by ordinal. Whether it has it is known only when it has said so:
    /// until then nobody else may be given it, and it is not delivered here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handing_over_to: Option<u32>,
    /// The relay of the pool that gave the message to this one, by ordinal. It may offer it again until it has confirmed that
    /// its own is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over_by: Option<u32>,
    /// The latest attempts, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PastAttempt>,
}

impl DeliveryState {
    /// The state of a message just accepted: nothing tried, due at once.
    #[must_use]
    pub fn new(recipients: usize, now: Timestamp) -> Self {
        Self {
            attempts: 0,
            due_at: now,
            delay_reported: false,
            held: false,
            recipients: vec![RecipientState::Queued; recipients],
            handing_over_to: None,
            handed_over_by: None,
            history: Vec::new(),
        }
    }

    /// What remains of a message that is done with and that the relay `by` may offer again: it is known, and nothing of it is
    /// to be delivered.
    #[must_use]
    pub fn tombstone(by: u32) -> Self {
        Self { handed_over_by: Some(by), ..Self::new(0, Timestamp(0)) }
    }

    /// Whether this is a [`tombstone`](Self::tombstone).
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.recipients.is_empty()
    }

    /// When the message is to be given out; never while it is held.
    #[must_use]
    pub fn next_due(&self) -> Timestamp {
        if self.held { Timestamp::NEVER } else { self.due_at }
    }

    /// The indices of the recipients still to be delivered.
    pub fn queued(&self) -> impl Iterator<Item = usize> + '_ {
        self.recipients
            .iter()
            .enumerate()
            .filter(|(_, state)| **state == RecipientState::Queued)
            .map(|(index, _)| index)
    }
}

/// Where one recipient of a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecipientState {
    /// Still to be delivered.
    Queued,
    /// An upstream took responsibility for it.
    Delivered,
    /// Refused for good; whoever had to be told has been told by a DSN that is in the spool.
    Failed,
    /// Tried until the pool's expiry and given up.
    Expired,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_survives_its_text_form() {
        for id in [
            MessageId(0),
            MessageId(u128::MAX),
            MessageId::new(Timestamp(1_795_000_000_000), 0x1234_5678_9abc),
        ] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        assert_eq!("not an id".parse::<MessageId>(), Err(InvalidMessageId));
        assert_eq!("8ZZZZZZZZZZZZZZZZZZZZZZZZZ".parse::<MessageId>(), Err(InvalidMessageId), "over 128 bits");
    }

    #[test]
    fn a_recipient_is_kept_as_its_address_alone_unless_there_is_more_to_say() {
        let check = |recipient: Recipient, kept: &str| {
            assert_eq!(serde_json::to_string(&recipient).unwrap(), kept);
            assert_eq!(serde_json::from_str::<Recipient>(kept).unwrap(), recipient);
        };
        check("a@example.org".into(), r#""a@example.org""#);
        let never = Recipient { notify: Some(Notify::NEVER), ..Recipient::new("a@example.org") };
        check(never.clone(), r#"{"address":"a@example.org","notify":{}}"#);
        let full = Recipient {
            notify: Some(Notify { failure: true, ..Notify::NEVER }),
            original: Some("rfc822;b+2B@example.org".into()),
            ..never.clone()
        };
        check(
            full.clone(),
            r#"{"address":"a@example.org","notify":{"failure":true},"original":"rfc822;b+2B@example.org"}"#,
        );
        assert_eq!(serde_json::to_string(&[Return::Full, Return::Headers]).unwrap(), r#"["FULL","HDRS"]"#);
        assert!(full.notify_of_failure() && !never.notify_of_failure());
        assert!(Recipient::new("a@example.org").notify_of_failure());
    }

    #[test]
    fn an_id_knows_when_it_was_made() {
        assert_eq!(
            MessageId::new(Timestamp(1_795_000_000_000), u128::MAX).accepted_at(),
            Timestamp(1_795_000_000_000)
        );
    }

    #[test]
    fn ids_made_later_sort_later() {
        assert!(MessageId::new(Timestamp(2), 0) > MessageId::new(Timestamp(1), u128::MAX));
        assert!(
            MessageId::new(Timestamp(2), 0).to_string() > MessageId::new(Timestamp(1), u128::MAX).to_string()
        );
    }
}
