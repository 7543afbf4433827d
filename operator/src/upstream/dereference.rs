//! Dereference: fetches the Secrets that an Upstream names, by name.

use k8s_openapi::api::core::v1::Secret;
use postroad_crds::v1alpha1::Upstream;

use crate::client::{ApiError, Objects};
use crate::secrets::Secrets;
use crate::upstream::validate::secret_names;

/// The Secrets that the Upstream names, as far as they exist.
///
/// # Errors
/// When the API server does not answer or refuses to show a Secret.
pub async fn dereference(
    objects: &Objects,
    namespace: &str,
    upstream: &Upstream,
) -> Result<Secrets, ApiError> {
    let mut secrets = Secrets::of(namespace);
    for name in secret_names(upstream) {
        if let Some(secret) = objects.find::<Secret>(namespace, name).await? {
            secrets.insert(name, secret);
        }
    }
    Ok(secrets)
}
