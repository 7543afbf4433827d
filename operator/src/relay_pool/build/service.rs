//! The Service that apps use, and the headless one that gives each relay a DNS name. Pure.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::relay_pool::build::metadata;
use crate::relay_pool::ports::{ADMIN_PORT, ADMIN_PORT_NAME, HAND_OVER_PORT, HAND_OVER_PORT_NAME};
use crate::relay_pool::validate::ValidatedPool;

/// The Service of the pool's name: the listeners' ports on every relay that is ready.
#[must_use]
pub fn service(pool: &ValidatedPool, owner: &OwnerReference) -> Service {
    let ports = pool.listeners.iter().map(|listener| port(&listener.name, listener.port)).collect();
    build(
        pool,
        owner,
        &pool.names.pool,
        ServiceSpec { type_: Some("ClusterIP".to_owned()), ports: Some(ports), ..ServiceSpec::default() },
    )
}

/// The headless Service: a name for each relay, ready or not, because its spool is there either way.
#[must_use]
pub fn headless_service(pool: &ValidatedPool, owner: &OwnerReference) -> Service {
    build(
        pool,
        owner,
        &pool.names.headless_service,
        ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![port(ADMIN_PORT_NAME, ADMIN_PORT), port(HAND_OVER_PORT_NAME, HAND_OVER_PORT)]),
            ..ServiceSpec::default()
        },
    )
}

fn build(pool: &ValidatedPool, owner: &OwnerReference, name: &str, spec: ServiceSpec) -> Service {
    Service {
        metadata: metadata::object(name, &pool.namespace, owner),
        spec: Some(ServiceSpec { selector: Some(metadata::selector(&pool.names.pool)), ..spec }),
        status: None,
    }
}

fn port(name: &str, port: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: port.into(),
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}
