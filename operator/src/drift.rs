//! Whether an object in the cluster still is what the operator wants, so that a settled pool costs no write. Pure.
//!
//! Two questions, because each alone misses something. The hash of the last applied form, kept in an annotation, notices
//! that *we* changed our mind, also by dropping a field or a list entry. The comparison "everything desired is there" notices
//! that *somebody else* changed a field of ours. What others add beside it (a sidecar's annotation, values the API server
//! defaults) is theirs and stays.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The annotation with the hash. On the configuration's Secret nobody can read it who cannot read the Secret.
pub const APPLIED_HASH: &str = "postroad.dev/applied-hash";

/// Lists that the API server merges by a key, so that others may add entries. All other lists are compared whole.
const MERGED_LISTS: [&str; 7] =
    ["containers", "env", "ownerReferences", "ports", "topologySpreadConstraints", "volumeMounts", "volumes"];

/// Adds the hash of the object to its annotations.
///
/// # Errors
/// When the object cannot be written as JSON, which no Kubernetes type does.
pub fn stamp<K: Resource + Serialize>(object: &mut K) -> Result<(), serde_json::Error> {
    let digest = Sha256::digest(serde_json::to_vec(object)?);
    let hash: String = digest.iter().take(16).map(|octet| format!("{octet:02x}")).collect();
    object.meta_mut().annotations.get_or_insert_default().insert(APPLIED_HASH.to_owned(), hash);
    Ok(())
}

/// Whether the live object is what the stamped desired one asks for.
///
/// # Errors
/// When one of them cannot be written as JSON, which no Kubernetes type does.
pub fn settled<K: Resource + Serialize>(desired: &K, live: &K) -> Result<bool, serde_json::Error> {
    if hash(desired.meta()) != hash(live.meta()) {
        return Ok(false);
    }
    Ok(holds(&serde_json::to_value(live)?, &serde_json::to_value(desired)?))
}

fn hash(metadata: &ObjectMeta) -> Option<&String> {
    metadata.annotations.as_ref()?.get(APPLIED_HASH)
}

/// Whether `live` holds everything of `desired`.
fn holds(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            desired.iter().all(|(key, desired)| member_holds(key, live.get(key), desired))
        }
        (Value::Array(live), Value::Array(desired)) => {
            live.len() == desired.len()
                && live.iter().zip(desired).all(|(live, desired)| holds(live, desired))
        }
        (live, desired) => live == desired,
    }
}

fn member_holds(key: &str, live: Option<&Value>, desired: &Value) -> bool {
    match (live, desired) {
        (None, desired) => is_empty(desired),
        (Some(Value::Array(live)), Value::Array(desired)) if MERGED_LISTS.contains(&key) => {
            desired.iter().all(|desired| live.iter().any(|live| holds(live, desired)))
        }
        (Some(live), desired) => holds(live, desired),
    }
}

/// The API server does not store these.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.is_empty(),
        Value::Array(entries) => entries.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use serde_json::json;

    fn service(spec: Value) -> Service {
        let mut object: Service =
            serde_json::from_value(json!({"metadata": {"name": "main"}, "spec": spec})).unwrap();
        stamp(&mut object).unwrap();
        object
    }

    fn check(change: impl FnOnce(&mut Value), expected: bool, what: &str) {
        let desired = service(json!({
            "selector": {"app": "a"}, "ports": [{"name": "smtp", "port": 25}], "externalIPs": ["192.0.2.1"]
        }));
        let mut live = serde_json::to_value(&desired).unwrap();
        live["spec"]["clusterIP"] = json!("10.0.0.1");
        live["spec"]["ports"][0]["protocol"] = json!("TCP");
        live["metadata"]["resourceVersion"] = json!("7");
        change(&mut live);
        let live: Service = serde_json::from_value(live).unwrap();
        assert_eq!(settled(&desired, &live).unwrap(), expected, "{what}");
    }

    #[test]
    fn what_others_add_is_left_and_what_they_change_is_noticed() {
        check(|_| {}, true, "defaults of the API server");
        check(
            |live| live["metadata"]["annotations"]["example.com/x"] = json!("y"),
            true,
            "a foreign annotation",
        );
        check(|live| live["spec"]["selector"]["also"] = json!("b"), true, "a foreign selector entry");
        let added = json!([{"name": "smtp", "port": 25}, {"name": "x", "port": 26}]);
        check(|live| live["spec"]["ports"] = added, true, "a foreign port: the list is merged by key");
        check(|live| live["spec"]["ports"][0]["port"] = json!(26), false, "our port changed");
        check(|live| live["spec"]["selector"] = json!({}), false, "our selector removed");
        let ips = json!(["192.0.2.1", "192.0.2.2"]);
        check(|live| live["spec"]["externalIPs"] = ips, false, "an entry in a list that is compared whole");
    }

    #[test]
    fn a_field_that_is_no_longer_wanted_is_noticed_by_the_hash() {
        let before = service(json!({"selector": {"app": "a"}, "sessionAffinity": "ClientIP"}));
        let after = service(json!({"selector": {"app": "a"}}));
        assert!(settled(&before, &before).unwrap());
        assert!(!settled(&after, &before).unwrap());
    }
}
