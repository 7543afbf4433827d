//! Validation of a RelayPool together with everything it names: pure, without a client. Called by the pool's controller and
//! by local mode; its result, [`ValidatedPool`], is all that the build reads. Each part of the spec is a file.
//!
//! What the CRD's schema and CEL rules already refuse is checked again only where a value is converted, so that an object
//! stored under an older schema is refused with a sentence rather than rendered into something else.

mod clients;
mod limits;
mod listeners;
mod pattern;
mod place;
mod queue;
mod rates;
mod references;
mod routes;
mod upstreams;
mod valid;

pub use references::{References, secret_names, upstream_names};
pub use valid::{ValidatedListener, ValidatedPool, ValidatedStorage};

use postroad_crds::v1alpha1::RelayPool;

use self::clients::identities;
use self::limits::{headers, limits};
use self::listeners::{certificate, listeners};
use self::place::At;
use self::queue::{acceptance, message_fits, queue, shutdown, storage};
use self::routes::routes;
use self::upstreams::upstreams;
use crate::reason::Findings;
use crate::relay_pool::names::Names;

/// The pool and what it names, ready to be built.
///
/// # Errors
/// What is wrong with the spec, and what is missing or unusable of what it names: all of it, not only the first.
pub fn validate(pool: &RelayPool, references: &References) -> Result<ValidatedPool, Findings> {
    let mut findings = Findings::default();
    let name = pool.metadata.name.clone().unwrap_or_default();
    let at = At { pool: &name };
    let spec = &pool.spec;
    let names = findings.spec(Names::of(&name));
    let replicas = findings.spec(at.count("replicas", spec.replicas));
    let has_certificate = spec.certificate.is_some();
    let listeners = listeners(&at, &spec.listeners, has_certificate, &references.secrets, &mut findings);
    let certificate = certificate(&at, spec.certificate.as_ref(), &references.secrets, &mut findings);
    let identities =
        identities(&at, &spec.clients.identities, spec.replicas, &references.secrets, &mut findings);
    let routes = routes(&at, &spec.routes, &spec.clients.identities, spec.replicas, &mut findings);
    let upstreams = upstreams(&at, pool, references, &mut findings);
    let storage = findings.spec(storage(&at, &spec.queue));
    let limits = findings.spec(limits(&at, &spec.limits));
    let queue = storage.as_ref().and_then(|(_, bytes)| findings.spec(queue(&at, &spec.queue, *bytes)));
    let shutdown = findings.spec(shutdown(&at, &spec.shutdown));
    let headers = findings.spec(headers(&at, spec.headers.as_ref()));
    if let (Some(queue), Some(limits)) = (&queue, &limits) {
        findings.spec(message_fits(&at, queue, limits));
    }
    if !findings.is_empty() {
        return Err(findings);
    }
    let valid = (|| {
        Some(ValidatedPool {
            namespace: pool.metadata.namespace.clone().unwrap_or_default(),
            names: names?,
            replicas: replicas?,
            hostname: spec.hostname.clone(),
            acceptance: acceptance(spec.acceptance),
            listeners,
            certificate,
            identities,
            routes,
            upstreams,
            storage: storage?.0,
            queue: queue?,
            limits: limits?,
            headers: headers?,
            shutdown: shutdown?,
            workload: spec.workload.clone().unwrap_or_default(),
        })
    })();
    valid.ok_or(findings)
}
