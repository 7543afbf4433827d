//! The relay's configuration: read the rendered file, check it, put it in force, and do so again when it changes.
//!
//! The file is `RelayConfig` (crate `postroad-crds`); what the rest of the relay sees is the compiled [`Policy`]. A file
//! that cannot be used is refused with a reason and the policy in force stays (P6).

mod policy;
mod watch;

pub use policy::{
    Acceptance, AmbiguousDelivery, Authentication, Certificate, CompiledRoute, Destination, HandOverPolicy,
    Identity, Limits, Listener, ListenerTls, Policy, PolicyError, Preference, Recognition, Role,
    SmarthostPolicy, UpstreamPolicy, UpstreamPort, UpstreamTls,
};
pub use watch::watch;

use std::path::{Path, PathBuf};

use postroad_crds::relay_config::{RelayConfig, RelayConfigError};

/// Why a configuration file cannot be put in force. Names the file and the field, never a value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not a RelayConfig.
    #[error("the configuration {} is not usable: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: RelayConfigError,
    },
    /// It is a RelayConfig that contradicts itself or names what does not parse.
    #[error("the configuration {} is not usable: {source}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// Which part and why.
        source: PolicyError,
    },
}

/// Reads and compiles the file. Blocking: a few kilobytes from a mounted folder.
///
/// # Errors
/// When it cannot be read, is not a RelayConfig or does not compile to a policy.
pub fn load(path: &Path) -> Result<Policy, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let config = RelayConfig::from_yaml(&text)
        .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })?;
    Policy::compile(&config).map_err(|source| ConfigError::Policy { path: path.to_owned(), source })
}
