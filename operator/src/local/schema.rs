//! The structural part of a CRD's schema, as the API server enforces it: bounds, patterns, required fields, unique list keys.
//! Local mode has no API server, so it checks the same schema itself. The CEL rules are checked by the types' own
//! `validate_cel`. Pure. Not a general JSON schema validator: it knows the keywords that appear in these CRDs.

use kube::CustomResourceExt;
use kube::core::cel;
use postroad_crds::v1alpha1::{RelayPool, Upstream};
use serde_json::{Value, json};

/// The schemas of the kinds that local mode reads.
pub struct Schemas {
    pool: Value,
    upstream: Value,
}

impl Default for Schemas {
    fn default() -> Self {
        Self { pool: schema_of::<RelayPool>(), upstream: schema_of::<Upstream>() }
    }
}

impl Schemas {
    /// What the API server's schema check would refuse in a pool's spec.
    #[must_use]
    pub fn pool(&self, pool: &RelayPool) -> Vec<String> {
        violations(&self.pool, &serde_json::to_value(&pool.spec).unwrap_or_default())
    }

    /// What the API server's schema check would refuse in an upstream's spec.
    #[must_use]
    pub fn upstream(&self, upstream: &Upstream) -> Vec<String> {
        violations(&self.upstream, &serde_json::to_value(&upstream.spec).unwrap_or_default())
    }
}

/// The schema of `spec`.
fn schema_of<K: CustomResourceExt>() -> Value {
    let definition = serde_json::to_value(K::crd()).unwrap_or_default();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

fn violations(schema: &Value, spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, spec, "spec", &mut found);
    found
}

fn check(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for required in texts(&schema["required"]).filter(|name| !members.contains_key(*name)) {
                found.push(format!("{path}.{required}: is required"));
            }
            for (name, member) in members {
                check(&schema["properties"][name], member, &format!("{path}.{name}"), found);
            }
        }
        Value::Array(entries) => {
            check_size(schema, entries.len(), "Items", "entries", path, found);
            check_keys(schema, entries, path, found);
            for (index, entry) in entries.iter().enumerate() {
                check(&schema["items"], entry, &format!("{path}[{index}]"), found);
            }
        }
        Value::String(text) => check_text(schema, text, path, found),
        Value::Number(number) => check_number(schema, number.as_f64().unwrap_or_default(), path, found),
        Value::Null | Value::Bool(_) => {}
    }
}

fn check_text(schema: &Value, text: &str, path: &str, found: &mut Vec<String>) {
    check_size(schema, text.chars().count(), "Length", "characters", path, found);
    let Some(pattern) = schema["pattern"].as_str() else { return };
    // CEL knows regular expressions, and a JSON text is a CEL literal.
    let rule = format!("self.matches({})", json!(pattern));
    let schema =
        json!({"type": "string", "x-kubernetes-validations": [{"rule": rule, "message": "no match"}]});
    if cel::Validator::new().validate(&schema, &json!(text), None).is_err() {
        found.push(format!("{path}: {text:?} does not match {pattern}"));
    }
}

fn check_number(schema: &Value, number: f64, path: &str, found: &mut Vec<String>) {
    if let Some(minimum) = schema["minimum"].as_f64().filter(|minimum| number < *minimum) {
        found.push(format!("{path}: must be at least {minimum}, not {number}"));
    }
    if let Some(maximum) = schema["maximum"].as_f64().filter(|maximum| number > *maximum) {
        found.push(format!("{path}: must be at most {maximum}, not {number}"));
    }
}

fn check_size(schema: &Value, size: usize, keyword: &str, unit: &str, path: &str, found: &mut Vec<String>) {
    let bound = |which: &str| {
        schema[format!("{which}{keyword}")].as_u64().and_then(|bound| usize::try_from(bound).ok())
    };
    if let Some(minimum) = bound("min").filter(|minimum| size < *minimum) {
        found.push(format!("{path}: must have at least {minimum} {unit}, not {size}"));
    }
    if let Some(maximum) = bound("max").filter(|maximum| size > *maximum) {
        found.push(format!("{path}: must have at most {maximum} {unit}, not {size}"));
    }
}

/// Lists of type `map` and `set` hold each key once.
fn check_keys(schema: &Value, entries: &[Value], path: &str, found: &mut Vec<String>) {
    if !matches!(schema["x-kubernetes-list-type"].as_str(), Some("map" | "set")) {
        return;
    }
    let keys: Vec<&str> = texts(&schema["x-kubernetes-list-map-keys"]).collect();
    let identity = |entry: &Value| match keys.as_slice() {
        [] => entry.to_string(),
        keys => keys.iter().map(|key| format!("{key}: {}", entry[*key])).collect::<Vec<_>>().join(", "),
    };
    for (index, entry) in entries.iter().enumerate() {
        let entry = identity(entry);
        if entries[..index].iter().any(|earlier| identity(earlier) == entry) {
            found.push(format!("{path}[{index}]: {entry} is there twice"));
        }
    }
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "
apiVersion: postroad.dev/v1alpha1
kind: RelayPool
metadata: {name: main}
spec:
  listeners: [{name: smtp, port: 2525}]
  clients: {identities: [{name: pods, type: Network, network: {cidrs: [10.0.0.0/8]}}]}
  routes: [{name: default, upstreams: [{name: ses}]}]
";

    fn refused(from: &str, to: &str) -> String {
        assert!(POOL.contains(from), "{from}");
        let pool: RelayPool = serde_yaml::from_str(&POOL.replace(from, to)).unwrap();
        Schemas::default().pool(&pool).join("\n")
    }

    #[test]
    fn bounds_patterns_and_unique_keys_are_those_of_the_crd() {
        assert_eq!(refused("name: smtp", "name: smtp"), "");
        for (from, to, expected) in [
            ("listeners:", "replicas: 101\n  listeners:", "spec.replicas: must be at most 100, not 101"),
            ("port: 2525", "port: 0", "spec.listeners[0].port: must be at least 1, not 0"),
            ("[{name: smtp, port: 2525}]", "[]", "spec.listeners: must have at least 1 entries, not 0"),
            ("name: smtp", "name: Smtp", "spec.listeners[0].name: \"Smtp\" does not match"),
            ("name: smtp", "name: abcdefghijklmnop", "at most 15 characters, not 16"),
            ("[10.0.0.0/8]", "[10.0.0.0/8, 10.0.0.0/8]", "cidrs[1]: \"10.0.0.0/8\" is there twice"),
            (
                "2525}]",
                "2525}, {name: smtp, port: 2526}]",
                "spec.listeners[1]: name: \"smtp\" is there twice",
            ),
        ] {
            let found = refused(from, to);
            assert!(found.contains(expected), "{expected} not in {found:?}");
        }
    }
}
