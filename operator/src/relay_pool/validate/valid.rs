//! What validation results in: all that the build reads.

use ipnet::IpNet;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::{Storage, Workload};

use crate::relay_pool::names::Names;

/// A pool that can be built.
#[derive(Clone, Debug)]
pub struct ValidatedPool {
    /// `metadata.namespace`.
    pub namespace: String,
    /// The names of its objects.
    pub names: Names,
    /// How many relays run.
    pub replicas: u32,
    /// The name for banners, when the pool gives one.
    pub hostname: Option<String>,
    /// When a message is accepted.
    pub acceptance: relay::Acceptance,
    /// Where it listens.
    pub listeners: Vec<ValidatedListener>,
    /// What its listeners with TLS show.
    pub certificate: Option<relay::Certificate>,
    /// Whom it serves.
    pub identities: Vec<relay::Identity>,
    /// What goes where.
    pub routes: Vec<relay::Route>,
    /// The upstreams that routes name, each once.
    pub upstreams: Vec<relay::Upstream>,
    /// Where mail is kept.
    pub storage: ValidatedStorage,
    /// How long delivery is tried, and how much is kept.
    pub queue: relay::Queue,
    /// What clients may ask for.
    pub limits: relay::Limits,
    /// What is changed in header sections.
    pub headers: relay::Headers,
    /// How relays stop.
    pub shutdown: relay::Shutdown,
    /// How pods are scheduled.
    pub workload: Workload,
}

/// A listener with its two ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedListener {
    /// Its name.
    pub name: String,
    /// The port of the Service.
    pub port: u16,
    /// The port that the relay binds.
    pub container_port: u16,
    /// Whether and how it speaks TLS.
    pub tls: relay::ListenerTls,
    /// Whether it asks for a user and password.
    pub authentication: relay::Authentication,
    /// Whether AUTH is spoken without TLS too.
    pub insecure_authentication: bool,
    /// What becomes of a bare LF in content.
    pub bare_newline: relay::BareNewline,
    /// How it asks for client certificates.
    pub client_certificate: Option<relay::ClientCertificateRequest>,
    /// Networks of load balancers that speak the PROXY protocol.
    pub proxies: Vec<IpNet>,
}

/// Where mail is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum ValidatedStorage {
    /// On a volume per relay.
    Volume(Storage),
    /// On the node's disk, up to this much.
    Ephemeral(Quantity),
}
