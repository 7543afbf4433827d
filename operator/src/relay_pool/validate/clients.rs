//! `spec.clients`.

use std::collections::BTreeMap;

use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::{
    ClientCertificateIdentity, Identity, IdentityType, PasswordIdentity, Priority,
};

use super::pattern::{cidrs, domains, senders};
use super::place::At;
use super::rates::rates;
use crate::reason::{Findings, Problem, Reason};
use crate::secrets::Secrets;

pub(super) fn identities(
    at: &At<'_>,
    specs: &[Identity],
    replicas: i32,
    secrets: &Secrets,
    findings: &mut Findings,
) -> Vec<relay::Identity> {
    let mut identities = Vec::new();
    for spec in specs {
        let field = format!("clients.identities[{}]", spec.name);
        let kind = match (spec.type_, &spec.network, &spec.password, &spec.client_certificate) {
            (IdentityType::Network, Some(network), None, None) => findings
                .spec(cidrs(at, &format!("{field}.network.cidrs"), &network.cidrs))
                .map(|cidrs| relay::IdentityKind::Network { cidrs }),
            (IdentityType::Password, None, Some(password), None) => findings
                .reference(
                    secrets.users(&password.users_secret_ref.name, &at.by(&format!("{field}.password"))),
                )
                .and_then(|users| {
                    let user_senders = user_senders(at, &field, password, &users, findings)?;
                    Some(relay::IdentityKind::Password { users, user_senders })
                }),
            (IdentityType::ClientCertificate, None, None, Some(names)) => {
                findings.spec(client_certificate(at, &format!("{field}.clientCertificate"), names))
            }
            _ => findings.spec(Err(at.invalid(
                &field,
                "set the part that type names, network, password or clientCertificate, and only it",
            ))),
        };
        let allowed_senders =
            findings.spec(senders(at, &format!("{field}.allowedSenders"), &spec.allowed_senders));
        if let (Some(kind), Some(allowed_senders)) = (kind, allowed_senders) {
            let priority = match spec.priority {
                Priority::High => relay::Priority::High,
                Priority::Normal => relay::Priority::Normal,
            };
            let rates = findings
                .spec(rates(at, &format!("{field}.rates"), &spec.rates, replicas))
                .unwrap_or_default();
            let name = spec.name.clone();
            identities.push(relay::Identity { name, kind, allowed_senders, priority, rates });
        }
    }
    identities
}

fn client_certificate(
    at: &At<'_>,
    field: &str,
    spec: &ClientCertificateIdentity,
) -> Result<relay::IdentityKind, Problem> {
    if spec.dns_names.is_empty() && spec.uris.is_empty() && spec.common_names.is_empty() {
        return Err(at.invalid(field, "name at least one of dnsNames, uris and commonNames"));
    }
    let is_uri = |uri: &&String| uri.contains(':') && !uri.strip_suffix("/*").unwrap_or(uri).contains('*');
    if let Some(other) = spec.uris.iter().find(|uri| !is_uri(uri)) {
        let what = format!(
            "{other:?} is neither a URI such as spiffe://cluster.local/ns/a nor one with /* at its end"
        );
        return Err(at.invalid(&format!("{field}.uris"), what));
    }
    Ok(relay::IdentityKind::ClientCertificate {
        dns_names: domains(at, &format!("{field}.dnsNames"), &spec.dns_names)?,
        uris: spec.uris.clone(),
        common_names: spec.common_names.clone(),
    })
}

/// The sender addresses of single users, each of whom the Secret must hold.
fn user_senders(
    at: &At<'_>,
    field: &str,
    spec: &PasswordIdentity,
    users: &BTreeMap<String, relay::Sensitive>,
    findings: &mut Findings,
) -> Option<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::new();
    for user in &spec.users {
        let place = format!("{field}.password.users[{}]", user.name);
        if !users.contains_key(&user.name) {
            let message = format!(
                "Secret {} has no user {:?}, named by {}",
                spec.users_secret_ref.name,
                user.name,
                at.by(&place)
            );
            findings.references.push(Problem::new(Reason::SecretKeyMissing, message));
        }
        let allowed = senders(at, &format!("{place}.allowedSenders"), &user.allowed_senders);
        found.insert(user.name.clone(), findings.spec(allowed)?);
    }
    Some(found)
}
