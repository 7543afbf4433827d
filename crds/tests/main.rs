//! The suite of the API: the committed YAML, and the CEL rules evaluated without a server.

mod generated;
mod validation;
