//! The custom resources, group `postroad.dev`, version `v1alpha1`, all namespaced.
//!
//! [`Upstream`] says where mail goes next, [`RelayPool`] which relays accept it and for whom. Field documentation is
//! user documentation: it becomes `kubectl explain` and the committed YAML beside this crate.

#![allow(
    clippy::duplicated_attributes,
    reason = "the derives repeat the fields' attributes in what they generate"
)]

mod condition;
mod quantity;
mod rate;
mod reference;
mod relay_pool;
mod upstream;

pub use condition::{Conditions, condition};
pub use quantity::{InvalidQuantity, octets};
pub use rate::Rate;
pub use reference::SecretReference;
pub use relay_pool::*;
pub use upstream::*;

/// The API group of every resource here.
pub const GROUP: &str = "postroad.dev";
