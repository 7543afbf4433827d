//! The StatefulSet of a pool: one relay a pod, each with a name and a spool of its own. Pure.
//!
//! Nothing in the pod template depends on the configuration's content: a change of a credential, a route or a limit reaches
//! running relays through the mounted Secret and restarts nothing. Only ports, resources and scheduling are in the template.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction,
    ObjectFieldSelector, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceFieldSelector, ResourceRequirements, SeccompProfile, SecretVolumeSource,
    SecurityContext, TopologySpreadConstraint, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use postroad_crds::relay_config::FILE_NAME;
use postroad_crds::v1alpha1::Storage;

use crate::relay_pool::build::metadata;
use crate::relay_pool::build::quantity::{canonical, canonical_resources};
use crate::relay_pool::ports::{ADMIN_PORT, ADMIN_PORT_NAME, HAND_OVER_PORT, HAND_OVER_PORT_NAME};
use crate::relay_pool::validate::{ValidatedPool, ValidatedStorage};

const CONFIG_FOLDER: &str = "/etc/postroad";
const SPOOL_FOLDER: &str = "/var/lib/postroad";
const CONFIG_VOLUME: &str = "relay-config";
/// The name of the volume with the spool, and the first part of the names of its claims.
pub const SPOOL_VOLUME: &str = "spool";

/// The user and group of the relay image. Not one that nodes or other images are likely to use.
const USER: i64 = 65532;

/// Seconds a relay gets beyond its own grace period before the kubelet kills it.
const TERMINATION_MARGIN_SECONDS: i64 = 10;

/// The image that relay pods run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayImage {
    /// The reference, with tag or digest.
    pub name: String,
    /// `Always`, `IfNotPresent` or `Never`.
    pub pull_policy: String,
}

/// The StatefulSet of the pool's name, with so many `replicas`: those that the pool asks for and those that are still leaving.
#[must_use]
pub fn stateful_set(
    pool: &ValidatedPool,
    owner: &OwnerReference,
    image: &RelayImage,
    replicas: u32,
) -> StatefulSet {
    let retain = Some("Retain".to_owned());
    let claim = match &pool.storage {
        ValidatedStorage::Volume(storage) => Some(vec![claim(pool, storage)]),
        ValidatedStorage::Ephemeral(_) => None,
    };
    StatefulSet {
        metadata: metadata::object(&pool.names.pool, &pool.namespace, owner),
        spec: Some(StatefulSetSpec {
            // At most 100 by the CRD, so the conversion cannot saturate.
            replicas: Some(i32::try_from(replicas).unwrap_or(i32::MAX)),
            service_name: Some(pool.names.headless_service.clone()),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: None,
            }),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: retain.clone(),
                when_scaled: retain,
            }),
            selector: metadata::label_selector(&pool.names.pool),
            template: template(pool, image),
            volume_claim_templates: claim,
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

fn template(pool: &ValidatedPool, image: &RelayImage) -> PodTemplateSpec {
    let mut labels = pool.workload.labels.clone();
    labels.extend(metadata::labels(&pool.names.pool));
    let annotations = Some(pool.workload.annotations.clone()).filter(|annotations| !annotations.is_empty());
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), annotations, ..ObjectMeta::default() }),
        spec: Some(pod(pool, image)),
    }
}

fn pod(pool: &ValidatedPool, image: &RelayImage) -> PodSpec {
    let workload = &pool.workload;
    PodSpec {
        service_account_name: Some(pool.names.pool.clone()),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(pod_security()),
        termination_grace_period_seconds: Some(
            i64::from(pool.shutdown.grace_period_seconds) + TERMINATION_MARGIN_SECONDS,
        ),
        containers: vec![container(pool, image)],
        volumes: Some(volumes(pool)),
        node_selector: Some(workload.node_selector.clone()).filter(|labels| !labels.is_empty()),
        tolerations: Some(workload.tolerations.clone()).filter(|tolerations| !tolerations.is_empty()),
        topology_spread_constraints: Some(spread(pool)),
        priority_class_name: workload.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

fn container(pool: &ValidatedPool, image: &RelayImage) -> Container {
    let config = format!("{CONFIG_FOLDER}/{FILE_NAME}");
    let admin = format!("[::]:{ADMIN_PORT}");
    let arguments = ["run", "--config", &config, "--data", SPOOL_FOLDER, "--admin", &admin];
    Container {
        name: "relay".to_owned(),
        image: Some(image.name.clone()),
        image_pull_policy: Some(image.pull_policy.clone()),
        args: Some(arguments.map(str::to_owned).to_vec()),
        env: Some(vec![ordinal(), memory_limit()]),
        ports: Some(container_ports(pool)),
        volume_mounts: Some(vec![
            mount(CONFIG_VOLUME, CONFIG_FOLDER, true),
            mount(SPOOL_VOLUME, SPOOL_FOLDER, false),
        ]),
        resources: Some(pool.workload.resources.clone().map_or_else(default_resources, canonical_resources)),
        security_context: Some(container_security()),
        // Replaying a full spool takes a while on a slow disk: a quarter of an hour before the kubelet gives up.
        startup_probe: Some(probe("/healthz", 2, 450)),
        liveness_probe: Some(probe("/healthz", 10, 6)),
        readiness_probe: Some(probe("/readyz", 2, 1)),
        ..Container::default()
    }
}

fn ordinal() -> EnvVar {
    let field = ObjectFieldSelector {
        field_path: "metadata.labels['apps.kubernetes.io/pod-index']".to_owned(),
        ..ObjectFieldSelector::default()
    };
    EnvVar {
        name: "POSTROAD_ORDINAL".to_owned(),
        value_from: Some(EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

/// The container's limit, or the node's memory where it has none.
fn memory_limit() -> EnvVar {
    let field =
        ResourceFieldSelector { resource: "limits.memory".to_owned(), ..ResourceFieldSelector::default() };
    EnvVar {
        name: "POSTROAD_MEMORY_LIMIT".to_owned(),
        value_from: Some(EnvVarSource { resource_field_ref: Some(field), ..EnvVarSource::default() }),
        ..EnvVar::default()
    }
}

fn container_ports(pool: &ValidatedPool) -> Vec<ContainerPort> {
    let listeners = pool.listeners.iter().map(|listener| (listener.name.as_str(), listener.container_port));
    let port = |(name, port): (&str, u16)| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let own = [(ADMIN_PORT_NAME, ADMIN_PORT), (HAND_OVER_PORT_NAME, HAND_OVER_PORT)];
    listeners.chain(own).map(port).collect()
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(ADMIN_PORT_NAME.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(2),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

/// A folder, never a `subPath`: the kubelet does not refresh those.
fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn volumes(pool: &ValidatedPool) -> Vec<Volume> {
    let config = Volume {
        name: CONFIG_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(pool.names.config_secret.clone()),
            // Readable for the relay through fsGroup, for nobody else.
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    let spool = match &pool.storage {
        ValidatedStorage::Volume(_) => None,
        ValidatedStorage::Ephemeral(size) => Some(Volume {
            name: SPOOL_VOLUME.to_owned(),
            empty_dir: Some(EmptyDirVolumeSource { medium: None, size_limit: Some(canonical(size)) }),
            ..Volume::default()
        }),
    };
    [config].into_iter().chain(spool).collect()
}

fn claim(pool: &ValidatedPool, storage: &Storage) -> PersistentVolumeClaim {
    let requests = BTreeMap::from([("storage".to_owned(), canonical(&storage.size))]);
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(SPOOL_VOLUME.to_owned()),
            labels: Some(metadata::selector(&pool.names.pool)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements { requests: Some(requests), limits: None }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn spread(pool: &ValidatedPool) -> Vec<TopologySpreadConstraint> {
    if !pool.workload.topology_spread_constraints.is_empty() {
        return pool.workload.topology_spread_constraints.clone();
    }
    vec![TopologySpreadConstraint {
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(metadata::label_selector(&pool.names.pool)),
        ..TopologySpreadConstraint::default()
    }]
}

/// Restricted Pod Security. The group owns the volume; changing it file by file would take long on a full spool.
fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        fs_group_change_policy: Some("OnRootMismatch".to_owned()),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..PodSecurityContext::default()
    }
}

fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        ..SecurityContext::default()
    }
}

/// Enough for a small pool, with a bound on memory and none on CPU (throttling delays mail and helps nobody).
fn default_resources() -> ResourceRequirements {
    let amounts = |amounts: &[(&str, &str)]| {
        Some(
            amounts
                .iter()
                .map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned())))
                .collect(),
        )
    };
    ResourceRequirements {
        requests: amounts(&[("cpu", "100m"), ("memory", "128Mi")]),
        limits: amounts(&[("memory", "512Mi")]),
        claims: None,
    }
}
