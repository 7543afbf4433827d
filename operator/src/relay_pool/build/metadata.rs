//! Labels, selectors and owner references of a pool's objects. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};

/// The value of `app.kubernetes.io/managed-by` and the name under which the operator writes (server-side apply).
pub const FIELD_MANAGER: &str = "postroad-operator";

const NAME: &str = "postroad-relay";

/// Labels of every object of the pool.
#[must_use]
pub fn labels(pool: &str) -> BTreeMap<String, String> {
    let mut labels = selector(pool);
    labels.extend(
        [("component", "relay"), ("managed-by", FIELD_MANAGER), ("part-of", "postroad")]
            .map(|(key, value)| (format!("app.kubernetes.io/{key}"), value.to_owned())),
    );
    labels
}

/// The labels by which the pool's pods are selected: the subset that never changes, because selectors are immutable.
#[must_use]
pub fn selector(pool: &str) -> BTreeMap<String, String> {
    [("name", NAME), ("instance", pool)]
        .map(|(key, value)| (format!("app.kubernetes.io/{key}"), value.to_owned()))
        .into()
}

/// [`selector`] as a field of an object.
#[must_use]
pub fn label_selector(pool: &str) -> LabelSelector {
    LabelSelector { match_labels: Some(selector(pool)), match_expressions: None }
}

/// Labels in the form of a query.
#[must_use]
pub fn query(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The metadata of an object that belongs to the pool and goes when the pool goes.
#[must_use]
pub fn object(name: &str, namespace: &str, owner: &OwnerReference) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels(&owner.name)),
        owner_references: Some(vec![owner.clone()]),
        ..ObjectMeta::default()
    }
}
