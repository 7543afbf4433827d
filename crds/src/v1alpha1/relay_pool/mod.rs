//! `RelayPool`: relays, how they listen, whom they serve, how they route and how long they try. The kind and its spec; each
//! part of the spec is a file.

mod acceptance;
mod client;
mod deletion;
mod header;
mod limits;
mod listener;
mod queue;
mod route;
mod shutdown;
mod status;
mod workload;

pub use acceptance::*;
pub use client::*;
pub use deletion::*;
pub use header::*;
pub use limits::*;
pub use listener::*;
pub use queue::*;
pub use route::*;
pub use shutdown::*;
pub use status::*;
pub use workload::*;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A group of relays behind one Service name.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "postroad.dev",
    version = "v1alpha1",
    kind = "RelayPool",
    namespaced,
    status = "RelayPoolStatus",
    derive = "PartialEq",
    category = "postroad",
    doc = "Relays that accept mail from apps on one Service name, keep it durably and forward it to Upstreams.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 40")
        .message("the name of a RelayPool has at most 40 characters: it becomes part of the names of its Service and pods"),
    validation = Rule::new("self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name of a RelayPool becomes a Service name: lower-case letters, digits and '-', starting with a letter"),
    cel
)]
#[x_kube(
    validation = Rule::new(
        "self.routes.all(r, !has(r.match) || !has(r.match.identities) || r.match.identities.all(name, self.clients.identities.exists(i, i.name == name)))",
    )
        .message("routes[].match.identities names entries of clients.identities"),
    validation = Rule::new("has(self.certificate) || self.listeners.all(l, l.tls == 'None')")
        .message("listeners with tls: Optional, Required or Implicit need spec.certificate"),
    validation = Rule::new("self.listeners.exists(l, has(l.clientCertificate)) || self.clients.identities.all(i, i.type != 'ClientCertificate')")
        .message("identities of type ClientCertificate need a listener with clientCertificate"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RelayPoolSpec {
    /// How many relays run. An autoscaler may own this field through the scale subresource. At most the
    /// `connections.maximum` of every Upstream the routes name, because each relay needs one session.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 1, max = 100))]
    pub replicas: i32,
    /// The name the relays use in their banner, in `Received` lines and, towards upstreams, in EHLO. Default: the pool's
    /// endpoint, `<name>.<namespace>.svc.<cluster domain>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"))]
    pub hostname: Option<String>,
    /// The ports on which apps hand in mail.
    #[schemars(length(min = 1, max = 8))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(
        validation = Rule::new("self.all(l, self.exists_one(o, o.port == l.port))")
            .message("every listener needs a port of its own")
    )]
    pub listeners: Vec<Listener>,
    /// The certificate that listeners with TLS show. A renewed one is used by the next connection; nothing restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// When a client is told that its message is accepted. `Queued`: when it is on disk; the relay then tries until it expires, and
    /// returns to the sender what cannot be delivered. `PassThrough`: the client waits until the Upstream has answered, for a minute at
    /// most until the Upstream begins, and gets the Upstream's own reply, or 451 when none can be asked; nothing is stored, tried again
    /// or returned. All recipients of a message then get it or none does, and take the same route. Mail that was queued before a change
    /// to `PassThrough` is delivered as before.
    #[serde(default)]
    pub acceptance: Acceptance,
    /// Who may send. A client that no identity recognises is refused.
    pub clients: Clients,
    /// Which Upstreams take which message: the first route that matches a recipient takes it. A recipient that matches none
    /// is refused at RCPT.
    #[schemars(length(min = 1, max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub routes: Vec<Route>,
    /// Where accepted mail is kept and how long delivery is tried.
    #[serde(default)]
    #[x_kube(
        validation = Rule::new("has(self.ephemeral) == has(oldSelf.ephemeral)")
            .message("queue storage cannot change between a volume and ephemeral: make a new RelayPool and move the apps to it"),
    )]
    pub queue: Queue,
    /// Bounds on what clients may ask for.
    #[serde(default)]
    pub limits: Limits,
    /// What relays change in the header section of accepted mail, beyond what they always do: a missing `Date` and
    /// `Message-ID` are added, a `Return-Path` is removed, a `Received` field is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Headers>,
    /// How a relay stops.
    #[serde(default)]
    pub shutdown: Shutdown,
    /// What becomes of queued mail when the pool is deleted. `Drain`: the relays accept nothing more and deliver what they hold, or
    /// return it to its senders when it expires; the pool goes when nothing is left, and its volumes with it. `Discard`: pool and
    /// volumes go at once; an Event and the operator's log tell how many messages were lost. May be changed while the pool waits.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// How the relay pods are scheduled and what they may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

fn default_replicas() -> i32 {
    1
}
