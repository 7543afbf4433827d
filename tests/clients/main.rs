//! Real mail clients send through the real relay and are refused by it: the libraries and programs that apps use, each over
//! every kind of connection it knows, with content that is hard to carry.
//!
//! ```text
//! clients     the table: who they are and what each can do
//! messages    what is sent
//! setting     the relay, the fake upstream behind it, the ways in
//! send        one message by one client: the environment a client's program reads
//! accepted    what must arrive, and how          refused     what must not, and what the client is told
//! reference   docs/reference/clients.md is what this suite tries
//! ```
//!
//! The programs are in the folders beside this file, one for each client.
#![allow(clippy::unwrap_used, reason = "helpers of tests, which the lint does not see as tests")]

mod accepted;
mod clients;
mod lettre;
mod messages;
mod reference;
mod refused;
mod send;
mod setting;
