//! Manifests in, manifests out: `tests/golden/<case>/input.yaml` → `expected.yaml`. `UPDATE=1 cargo test -p postroad-operator
//! --test operator` rewrites what is expected; review the difference.
//!
//! The rendered configuration is shown as `stringData`, so that it can be read. Certificates are made for the test, because no
//! private key belongs in a repository; they are shown by placeholders.

use std::fs;
use std::path::Path;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use postroad_crds::admin_token;
use postroad_crds::relay_config::{FILE_NAME, RelayConfig, Sensitive};
use postroad_crds::v1alpha1::RelayPool;
use postroad_operator::local::manifests::{Manifest, parse};
use postroad_operator::local::schema::Schemas;
use postroad_operator::relay_pool::admin_token::AdminToken;
use postroad_operator::relay_pool::build::{Kept, RelayImage, build};
use postroad_operator::relay_pool::credentials::of_pool;
use postroad_operator::relay_pool::membership::Membership;
use postroad_operator::relay_pool::owner;
use postroad_operator::relay_pool::resources::Resources;
use postroad_operator::relay_pool::validate::{References, validate};
use postroad_operator::secrets::Secrets;
use serde::Serialize;

const CERTIFICATE: &str = "<certificate>";
const KEY: &str = "<private key>";
const TOKEN: &str = "<admin token>";

/// A pool and what it names.
fn read(text: &str) -> (RelayPool, References) {
    let parsed = parse("input.yaml", text, &Schemas::default());
    assert!(parsed.complaints.is_empty() && parsed.warnings.is_empty(), "{:?}", parsed.complaints);
    let made = rcgen::generate_simple_self_signed(vec!["mail.example.com".to_owned()]).unwrap();
    let (mut pool, mut references) = (None, References::default());
    references.secrets = Secrets::of("mail");
    for document in parsed.documents {
        match document.manifest {
            Manifest::Pool(found) => pool = Some(*found),
            Manifest::Upstream(found) => {
                references.upstreams.insert(document.key.name, Ok(*found));
            }
            Manifest::Secret(mut secret) => {
                for value in secret.data.iter_mut().flat_map(|data| data.values_mut()) {
                    match value.0.as_slice() {
                        held if held == CERTIFICATE.as_bytes() => {
                            *value = ByteString(made.cert.pem().into_bytes())
                        }
                        held if held == KEY.as_bytes() => {
                            *value = ByteString(made.signing_key.serialize_pem().into_bytes());
                        }
                        _ => {}
                    }
                }
                references.secrets.insert(&document.key.name, *secret);
            }
        }
    }
    (pool.unwrap(), references)
}

fn manifests(pool: &RelayPool, references: &References) -> String {
    let valid = validate(pool, references).unwrap_or_else(|findings| panic!("{findings:?}"));
    assert!(!format!("{valid:?}").contains("hunter2"), "Debug of a validated pool shows a secret");
    let mut owning = pool.clone();
    owning.metadata.uid = Some("00000000-0000-0000-0000-000000000000".to_owned());
    let owner = owner(&owning);
    let image = RelayImage {
        name: "example.com/postroad-relay:1".to_owned(),
        pull_policy: "IfNotPresent".to_owned(),
    };
    let built =
        build(&valid, &owner, &image, "cluster.local", &kept(), &Membership::of(valid.replicas)).unwrap();
    let Resources {
        service_account,
        config_secret,
        service,
        headless_service,
        pod_disruption_budget,
        stateful_set,
        state: _,
    } = built;
    [
        document(&service_account),
        document(&readable(config_secret)),
        document(&service),
        document(&headless_service),
        document(&pod_disruption_budget),
        document(&stateful_set),
    ]
    .join("---\n")
}

fn kept() -> Kept {
    Kept { token: AdminToken::random(), credentials: of_pool("main", None).unwrap() }
}

fn document(object: &impl Serialize) -> String {
    serde_yaml::to_string(object).unwrap()
}

/// The Secret with its configuration as text, certificates and token replaced.
fn readable(mut secret: Secret) -> Secret {
    let data = secret.data.take().unwrap();
    let text = std::str::from_utf8(&data[FILE_NAME].0).unwrap();
    let mut config = RelayConfig::from_yaml(text).expect("what the operator renders a relay can read");
    if let Some(certificate) = &mut config.certificate {
        certificate.certificate_chain_pem = CERTIFICATE.to_owned();
        certificate.private_key_pem = Sensitive(KEY.to_owned());
    }
    for request in config.listeners.iter_mut().filter_map(|listener| listener.client_certificate.as_mut()) {
        request.ca_bundle_pem = CERTIFICATE.to_owned();
    }
    if let Some(hand_over) = &mut config.hand_over {
        hand_over.authority_pem = CERTIFICATE.to_owned();
        hand_over.certificate.certificate_chain_pem = CERTIFICATE.to_owned();
        hand_over.certificate.private_key_pem = Sensitive(KEY.to_owned());
    }
    for upstream in &mut config.upstreams {
        if let postroad_crds::relay_config::Destination::Smarthost(smarthost) = &mut upstream.destination {
            smarthost.tls.ca_bundle_pem = smarthost.tls.ca_bundle_pem.take().map(|_| CERTIFICATE.to_owned());
        }
    }
    let shown = data.keys().map(|name| match name.as_str() {
        FILE_NAME => (name.clone(), config.to_yaml().unwrap()),
        admin_token::FILE_NAME => (name.clone(), TOKEN.to_owned()),
        other => panic!("{other} is to be reviewed"),
    });
    secret.string_data = Some(shown.collect());
    secret
}

#[test]
fn manifests_are_as_reviewed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases = 0;
    for entry in fs::read_dir(&root).unwrap() {
        let case = entry.unwrap().path();
        let (pool, references) = read(&fs::read_to_string(case.join("input.yaml")).unwrap());
        let built = manifests(&pool, &references);
        let expected = case.join("expected.yaml");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &built).unwrap();
        }
        let reviewed = fs::read_to_string(&expected).unwrap_or_default();
        let differs = built.lines().zip(reviewed.lines()).find(|(built, reviewed)| built != reviewed);
        let place = expected.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(&expected).display();
        assert!(built == reviewed, "{place} differs, first at {differs:?}: review it with UPDATE=1");
        cases += 1;
    }
    assert_eq!(cases, 3);
}

#[test]
fn the_same_input_gives_the_same_manifests() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/everything/input.yaml");
    let (pool, references) = read(&fs::read_to_string(case).unwrap());
    assert_eq!(manifests(&pool, &references), manifests(&pool, &references));
}
