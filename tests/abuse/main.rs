//! What attackers try against a relay: that it relays for strangers, takes one message for two, lets itself be talked into
//! something before TLS, or spends itself.
//!
//! ```text
//! setting       the relay, the fake upstream behind it, the ways in
//! probe         one attempt: octets and the replies they must get
//! stranger      a client that no rule permits: refused with the right code, and nothing reaches the upstream
//! certificates  a client that shows a certificate of its own, or somebody else's
//! proxy         a client that says where it comes from, with and without the right to
//! permitted     a permitted client: what RFC 5321 grants it arrives, what nobody may do is refused
//! senders       a permitted client that sends as somebody else
//! smuggling     one message for two, by every published line ending, by BDAT
//! exhaustion    floods, endless input, guessing of passwords
//! slow          commands, content and handshakes that come an octet at a time or not at all
//! ```
#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint does not see as tests")]

mod certificates;
mod exhaustion;
mod permitted;
mod probe;
mod proxy;
mod senders;
mod setting;
mod slow;
mod smuggling;
mod stranger;
