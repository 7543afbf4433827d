//! The Upstream's controller: [`dereference`] → [`validate`] → [`status`]. It makes no objects: pools that name the Upstream
//! render it into their configuration, by the same validator.

pub mod dereference;
pub mod status;
pub mod validate;

use std::sync::Arc;

use kube::core::DeserializeGuard;
use kube::discovery::ApiResource;
use kube::runtime::controller::Action;
use kube::{Resource, ResourceExt};
use postroad_crds::v1alpha1::Upstream;

use crate::context::Context;
use crate::error::Error;
use crate::metrics::Outcome;
use crate::reason::{Findings, Problem, Reason};
use crate::report::{self, Subject};

/// The kind, as metrics and logs name it.
pub const KIND: &str = "Upstream";

/// Says in the Upstream's status whether pools can use it.
///
/// # Errors
/// When the API server does not answer or refuses; the caller tries again later.
pub async fn reconcile(
    guarded: Arc<DeserializeGuard<Upstream>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let metadata = guarded.meta();
    if metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let findings = match &guarded.0 {
        Ok(upstream) => {
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            let secrets = dereference::dereference(&context.objects, namespace, upstream).await?;
            validate::validate(&upstream.name_any(), upstream, &secrets).err().unwrap_or_default()
        }
        Err(invalid) => {
            let message = format!("Upstream {}: it cannot be read: {}", guarded.name_any(), invalid.error);
            Findings { spec: vec![Problem::new(Reason::InvalidSpec, message)], references: Vec::new() }
        }
    };
    for problem in findings.iter() {
        context.metrics.error(KIND, problem.reason);
    }
    let cached = guarded.0.as_ref().ok().and_then(|upstream| upstream.status.as_ref());
    let now = report::now();
    let generation = metadata.generation.unwrap_or_default();
    Subject::new(ApiResource::erase::<Upstream>(&()), metadata, &status::CONDITIONS)
        .report(&context.objects, &context.recorder, cached, |present| {
            status::status(generation, &findings, &now, present)
        })
        .await?;
    context.metrics.reconcile(KIND, if findings.is_empty() { Outcome::Settled } else { Outcome::Refused });
    Ok(Action::await_change())
}
