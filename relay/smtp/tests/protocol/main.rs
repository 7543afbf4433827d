//! The sessions as their peers see them. No IO: everything runs in memory.
//!
//! | module | what it shows |
//! |---|---|
//! | `transcripts` | one conversation a rule of the RFCs, in files that read as the RFC's own examples |
//! | `properties` | what holds for every input: splits, bounds, no panic |
//! | `pair` | both sessions against each other |

// allow-unwrap-in-tests covers functions marked #[test], not what they call.
#![allow(clippy::unwrap_used)]

mod pair;
mod peer;
mod properties;
mod transcripts;
