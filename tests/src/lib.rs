//! The harness: real counterparts for the suites to test Postroad against.
//!
//! What stands around Postroad in production is stood up here for real, and driven from a test:
//!
//! ```text
//! apps            smtp_client (raw), load (many raw clients), lettre_client (an independent library)
//! the relay       relay_process (the built binary, its configuration mounted as the kubelet mounts it)
//!                 relay_pool (several of them, as the operator would configure them)
//! the upstream    smtp_server (an independent SMTP server with scripted faults and a ledger of what it received)
//! the cluster     control_plane (etcd, kube-apiserver, kube-controller-manager; kubectl and helm), cluster (nodes and pods too)
//! the judge       conservation (what was lost, what came twice, whether content is intact), recipients (the relay's own account)
//! ```
//!
//! Not here: test suites (`tests/integration` and its neighbours), and any hook into product code. Faults belong to
//! the fake peer. Nothing here parses SMTP with `smtp-protocol`: the peer that judges it has to be independent.

pub mod binaries;
pub mod certificates;
pub mod cluster;
pub mod conservation;
pub mod control_plane;
pub mod distance;
pub mod http;
pub mod lettre_client;
pub mod load;
pub mod mounted_folder;
pub mod ports;
pub mod postfix;
pub mod processes;
pub mod prometheus;
pub mod recipients;
pub mod relay_pool;
pub mod relay_process;
pub mod scratch;
pub mod smtp_client;
pub mod smtp_server;
pub mod waiting;

mod lock;
mod stream;
