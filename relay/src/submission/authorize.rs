//! Who may send what: MAIL and RCPT against the policy. Pure; a refusal is a reply that names what decided (P5).

use std::net::IpAddr;
use std::sync::Arc;

use smtp_protocol::{Reply, ReversePath};

use super::refusal::{Reason, Refusal};
use crate::client_certificate::ClientCertificate;
use crate::config::{Authentication, CompiledRoute, Identity, Listener, ListenerTls, Policy};
use crate::credentials;
use crate::routing::{self, Origin};

/// What is known of the client at this moment of its session.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where its connection comes from.
    pub address: IpAddr,
    /// Who it proved to be.
    pub user: Option<AuthenticatedUser>,
    /// The certificate it has shown.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Whether the session is under TLS.
    pub tls: bool,
}

/// A user name that came with the right password.
#[derive(Clone, Debug)]
pub struct AuthenticatedUser {
    /// The identity that knew it.
    pub identity: Arc<str>,
    /// The name.
    pub username: String,
}

/// The identity that lets this client begin a mail transaction with this reverse-path, or the reply that refuses it.
///
/// # Errors
/// 530 where AUTH would help and is offered, 550 otherwise.
pub fn mail(
    policy: &Policy,
    listener: &Listener,
    client: &Client,
    reverse_path: &ReversePath,
) -> Result<Arc<str>, Refusal> {
    let username = client.user.as_ref().map(|user| user.username.as_str());
    let identities = identify(policy, listener, client)?;
    let permitted = identities.iter().find(|identity| identity.senders_of(username).permit(reverse_path));
    match (permitted, identities.first()) {
        (Some(identity), _) => Ok(identity.name.clone()),
        (None, Some(first)) => Err(sender_not_permitted(policy, &first.name, username, reverse_path)),
        (None, None) => Err(unidentified(policy, listener, client)),
    }
}

/// The identities that recognise this client, possibly none.
fn identify<'a>(
    policy: &'a Policy,
    listener: &Listener,
    client: &Client,
) -> Result<Vec<&'a Identity>, Refusal> {
    if let Some(user) = &client.user {
        if !credentials::still_known(policy, &user.identity, &user.username) {
            let text = format!("authenticate again: the users of RelayPool {} changed", policy.pool);
            return Err(Refusal::new(Reason::UsersChanged, 530, (5, 7, 0), text));
        }
        return Ok(policy.identities.iter().filter(|identity| identity.name == user.identity).collect());
    }
    if listener.authentication == Authentication::Required {
        return Err(Refusal::new(Reason::AuthenticationRequired, 530, (5, 7, 0), "authentication required"));
    }
    let certificate = client.certificate.as_deref();
    Ok(policy.identities.iter().filter(|identity| identity.admits(client.address, certificate)).collect())
}

fn sender_not_permitted(
    policy: &Policy,
    identity: &str,
    username: Option<&str>,
    reverse_path: &ReversePath,
) -> Refusal {
    let who = username.map_or_else(|| format!("identity {identity}"), |user| format!("user {user}"));
    let sender = if reverse_path.as_str().is_empty() { "<>" } else { reverse_path.as_str() };
    let text = format!("sender {sender} not permitted for {who} (RelayPool {})", policy.pool);
    Refusal::new(Reason::Sender, 550, (5, 7, 1), text)
}

fn unidentified(policy: &Policy, listener: &Listener, client: &Client) -> Refusal {
    let certificate = client.certificate.as_ref();
    let shown = certificate.map(|shown| format!(" with the certificate of {shown}")).unwrap_or_default();
    let who = format!("client {}{shown} matches no identity of RelayPool {}", client.address, policy.pool);
    let known_by =
        if certificate.is_some() { "its certificate's name or its network" } else { "its network" };
    let add = format!("have {known_by} added to spec.clients.identities");
    let offers_auth = listener.authentication != Authentication::None;
    if offers_auth && !client.tls && listener.tls != ListenerTls::None {
        let text = format!("{who}: issue STARTTLS and authenticate, or {add}");
        return Refusal::new(Reason::Identity, 530, (5, 7, 0), text);
    }
    if offers_auth {
        return Refusal::new(Reason::Identity, 530, (5, 7, 0), format!("{who}: authenticate, or {add}"));
    }
    let text = format!("{who}: {add}, or authenticate on a port that offers it");
    Refusal::new(Reason::Identity, 550, (5, 7, 1), text)
}

/// The route that takes this recipient.
///
/// # Errors
/// 550 5.4.4 naming the pool and the recipient's domain when none does.
pub fn recipient<'a>(
    policy: &'a Policy,
    origin: Origin<'_>,
    recipient: &str,
) -> Result<&'a Arc<CompiledRoute>, Refusal> {
    if let Some(route) = routing::route(policy, origin, recipient) {
        return Ok(route);
    }
    let domain = recipient.rsplit_once('@').map_or("", |(_, domain)| domain);
    let sender = if origin.sender.is_empty() { "<>" } else { origin.sender };
    let identity = origin.identity.map(|name| format!(" of identity {name}")).unwrap_or_default();
    Err(Refusal::new(
        Reason::Route,
        550,
        (5, 4, 4),
        format!(
            "no route of RelayPool {} takes mail from {sender}{identity} to domain {domain}: have one added to spec.routes",
            policy.pool
        ),
    ))
}

/// What RCPT is answered to a recipient that takes another route than those before it, where a message passes through whole.
#[must_use]
pub fn takes_another_route(policy: &Policy, route: &CompiledRoute) -> Refusal {
    let text = format!(
        "this recipient takes route {} and those before another: RelayPool {} passes a message on whole, send it in a \
         transaction of its own",
        route.name, policy.pool
    );
    Refusal::new(Reason::Route, 452, (4, 5, 3), text)
}

/// What RCPT is answered when the recipient is fine.
#[must_use]
pub fn recipient_accepted() -> Reply {
    Reply::new(250, (2, 1, 5), "recipient ok")
}
