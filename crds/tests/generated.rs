//! The committed CustomResourceDefinitions are what the types say. `UPDATE=1 cargo test -p postroad-crds` rewrites them.

use std::path::Path;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use postroad_crds::v1alpha1::{RelayPool, Upstream};

/// Where a definition is committed: beside this crate for people and `kubectl apply`, and in the chart, because Helm reads
/// no file outside of it.
const PLACES: [&str; 2] = [".", "../charts/postroad/files/crds"];

fn definitions() -> Vec<CustomResourceDefinition> {
    vec![RelayPool::crd(), Upstream::crd()]
}

#[test]
fn committed_definitions_are_what_the_types_say() {
    for definition in definitions() {
        let name = definition.metadata.name.clone().unwrap();
        let text = format!(
            "# Generated from crds/src/v1alpha1 by `make generate`. Do not edit.\n{}",
            serde_yaml::to_string(&definition).unwrap()
        );
        for place in PLACES {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(place).join(format!("{name}.yaml"));
            if std::env::var_os("UPDATE").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "{} differs from the types: run `make generate`", path.display());
        }
    }
}
