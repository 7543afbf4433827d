//! Mail data: transparency (RFC 5321 §4.5.2), strict CRLF (§2.3.8), chunks (RFC 3030) and limits (RFC 1870 §6.3),
//! streamed.
//!
//! | file | subject |
//! |---|---|
//! | `decode` | content behind DATA: dots unstuffed, only CRLF.CRLF ends it |
//! | `chunk` | content behind BDAT: counted octets, the same rules for what is in them |
//! | `encode` | content onto the wire, dots stuffed |
//! | `meter` | how large content may be, its header section and the number of its fields |
//! | `header` | where the header section ends |
//! | `fault` | why content is refused |
//!
//! Nothing holds content or looks at what it means. Lines may be of any length: the 998 octets of RFC 5322 §2.1.1 bind
//! the writer of a message; Postfix and Exim take longer ones, and refusing them would lose the mail of many an app.

mod chunk;
mod decode;
mod encode;
mod fault;
mod header;
mod meter;

pub use chunk::ChunkDecoder;
pub use decode::{BareNewline, ContentDecoder, Decoded};
pub use encode::ContentEncoder;
pub use fault::ContentFault;
pub use meter::ContentLimits;
