//! AUTH (RFC 4954): whether the client is who it says, and that guessing is slow.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use smtp_protocol::{PlainCredentials, ScramKeys};
use tokio::time::Instant;

use super::authorize::AuthenticatedUser;
use super::context::Context;
use super::refusal::{Reason, Refusal};
use crate::credentials;

/// Why the client is not authenticated.
#[derive(Debug)]
pub(super) enum NotAuthenticated {
    /// Its address has failed so often that no password of its is looked at now.
    Throttled(Refusal),
    /// The name or the password is wrong; the client is not told which.
    Failed,
}

/// Verifies a name and a password.
pub(super) async fn by_password(
    context: &Context,
    client: IpAddr,
    offered: &PlainCredentials,
) -> Result<AuthenticatedUser, NotAuthenticated> {
    throttle(context, client)?;
    let policy = context.policy.borrow().clone();
    let identity = context.verifier.verify(&policy, offered).await;
    authenticated(context, client, offered.username(), identity)
}

/// What SCRAM (RFC 5802) needs for a user's proof to be checked: keys, made up for an unknown user, and the server's nonce.
pub(super) async fn scram_challenge(
    context: &Context,
    client: IpAddr,
    username: &str,
) -> Result<(ScramKeys, String), NotAuthenticated> {
    throttle(context, client)?;
    let policy = context.policy.borrow().clone();
    let keys = context.verifier.scram_keys(&policy, username).await;
    Ok((keys, STANDARD.encode(rand::random::<[u8; 24]>())))
}

/// The outcome of SCRAM.
pub(super) fn by_proof(
    context: &Context,
    client: IpAddr,
    username: &str,
    proven: bool,
) -> Result<AuthenticatedUser, NotAuthenticated> {
    let policy = context.policy.borrow().clone();
    let identity = credentials::identity_of(&policy, username).filter(|_| proven);
    authenticated(context, client, username, identity)
}

fn throttle(context: &Context, client: IpAddr) -> Result<(), NotAuthenticated> {
    let Some(wait) = context.verifier.wait(client, Instant::now()) else { return Ok(()) };
    let text =
        format!("too many failed authentications from {client}, try again in {} seconds", wait.as_secs() + 1);
    Err(NotAuthenticated::Throttled(Refusal::new(Reason::Throttled, 454, (4, 7, 0), text)))
}

fn authenticated(
    context: &Context,
    client: IpAddr,
    username: &str,
    identity: Option<Arc<str>>,
) -> Result<AuthenticatedUser, NotAuthenticated> {
    if let Some(identity) = identity {
        return Ok(AuthenticatedUser { identity, username: username.to_owned() });
    }
    context.verifier.failed(client, Instant::now());
    context.metrics.authentication_failures.inc();
    Err(NotAuthenticated::Failed)
}
