//! The RelayConfig of a pool, and the Secret that carries it to the pods. Pure. Local mode renders by the same function.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use postroad_crds::admin_token;
use postroad_crds::relay_config::{FILE_NAME, HandOver, Listener, ObjectName, RelayConfig, VERSION};

use crate::reason::{Problem, Reason};
use crate::relay_pool::build::{Kept, metadata};
use crate::relay_pool::credentials::Credentials;
use crate::relay_pool::membership::Membership;
use crate::relay_pool::ports::HAND_OVER_PORT;
use crate::relay_pool::validate::{ValidatedListener, ValidatedPool, ValidatedStorage};

/// What fits into a Secret, with room for its metadata: the API server's bound is 1 MiB of data.
const MAXIMUM_BYTES: usize = 1_000_000;

/// The configuration of the pool's relays. `endpoint` is the name apps use, which is also the relays' own unless the pool
/// gives another; `address` says where a listener binds.
pub fn relay_config(
    pool: &ValidatedPool,
    endpoint: &str,
    address: impl Fn(&ValidatedListener) -> String,
) -> RelayConfig {
    let listener = |listener: &ValidatedListener| Listener {
        name: listener.name.clone(),
        address: address(listener),
        tls: listener.tls,
        authentication: listener.authentication,
        insecure_authentication: listener.insecure_authentication,
        bare_newline: listener.bare_newline,
        client_certificate: listener.client_certificate.clone(),
        proxies: listener.proxies.clone(),
    };
    RelayConfig {
        version: VERSION.to_owned(),
        pool: ObjectName { namespace: pool.namespace.clone(), name: pool.names.pool.clone() },
        replicas: pool.replicas,
        hostname: pool.hostname.clone().unwrap_or_else(|| endpoint.to_owned()),
        listeners: pool.listeners.iter().map(listener).collect(),
        acceptance: pool.acceptance,
        certificate: pool.certificate.clone(),
        identities: pool.identities.clone(),
        routes: pool.routes.clone(),
        upstreams: pool.upstreams.clone(),
        queue: pool.queue.clone(),
        limits: pool.limits.clone(),
        headers: pool.headers.clone(),
        shutdown: pool.shutdown.clone(),
        hand_over: None,
    }
}

/// How the relays pass mail on: each is reached by the name that the headless Service gives its pod.
fn hand_over(
    pool: &ValidatedPool,
    cluster_domain: &str,
    credentials: &Credentials,
    membership: &Membership,
) -> HandOver {
    let (name, headless, namespace) = (&pool.names.pool, &pool.names.headless_service, &pool.namespace);
    let peer =
        |ordinal| format!("{name}-{ordinal}.{headless}.{namespace}.svc.{cluster_domain}:{HAND_OVER_PORT}");
    HandOver {
        address: format!("[::]:{HAND_OVER_PORT}"),
        peers: (0..membership.replicas).map(peer).collect(),
        authority_pem: credentials.authority_pem.clone(),
        certificate: credentials.certificate.clone(),
        leaving: membership.leaving.clone(),
        ephemeral: matches!(pool.storage, ValidatedStorage::Ephemeral(_)),
    }
}

/// The rendered file.
///
/// # Errors
/// `ConfigurationTooLarge` when it does not fit into a Secret.
pub fn render(config: &RelayConfig) -> Result<String, Problem> {
    let pool = &config.pool;
    let text = config.to_yaml().map_err(|_| {
        Problem::new(
            Reason::InvalidSpec,
            format!("the configuration of RelayPool {pool} cannot be written as YAML"),
        )
    })?;
    if text.len() > MAXIMUM_BYTES {
        let message = format!(
            "the configuration of RelayPool {pool} has {} octets and a Secret holds {MAXIMUM_BYTES}: \
             split the pool, or name fewer users, networks or domains",
            text.len()
        );
        return Err(Problem::new(Reason::ConfigurationTooLarge, message));
    }
    Ok(text)
}

/// The Secret with the rendered configuration and the token of the admin API, which the pods mount as a folder.
///
/// # Errors
/// As [`render`].
pub fn secret(
    pool: &ValidatedPool,
    owner: &OwnerReference,
    endpoint: &str,
    cluster_domain: &str,
    kept: &Kept,
    membership: &Membership,
) -> Result<Secret, Problem> {
    let mut config = relay_config(pool, endpoint, |listener| format!("[::]:{}", listener.container_port));
    config.hand_over = Some(hand_over(pool, cluster_domain, &kept.credentials, membership));
    let data = BTreeMap::from([
        (FILE_NAME.to_owned(), ByteString(render(&config)?.into_bytes())),
        (admin_token::FILE_NAME.to_owned(), ByteString(kept.token.reveal().as_bytes().to_vec())),
    ]);
    Ok(Secret {
        metadata: metadata::object(&pool.names.config_secret, &pool.namespace, owner),
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Secret::default()
    })
}
