//! Mail data: transparency (RFC 5321 §4.5.2), strict CRLF (§2.3.8) and the size limit (RFC 1870 §6.3), streamed.
//!
//! [`ContentDecoder`] is the receiving side, [`ContentEncoder`] the sending one. Neither holds content, neither looks at
//! what it means. Lines may be of any length: the 998 octets of RFC 5322 bind the writer of a message, not its relay.

mod decode;
mod encode;

pub use decode::{ContentDecoder, ContentFault, Decoded};
pub use encode::ContentEncoder;
