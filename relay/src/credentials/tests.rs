use std::collections::BTreeMap;

use postroad_crds::relay_config::{RelayConfig, Sensitive};

use super::*;

// The password of each is "hunter2".
const BCRYPT: &str = "$2b$06$GwfbzFUhRSIUqVKDVcmpfOfJK0pN6OXnJLuT0BP29IfvbjeyfRsWy";
const ARGON2: &str =
    "$argon2id$v=19$m=256,t=1,p=1$Q33ph7upMNXVUq3tx3O3yw$JpVWHvSmy24G3SfQQUz58URcXzey/2QYFBo7Jyo7CB4";

fn scram() -> String {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let keys = ScramKeys::derive("hunter2", b"some salt", 4096);
    let [salt, stored, server] =
        [&keys.salt[..], &keys.stored_key, &keys.server_key].map(|part| STANDARD.encode(part));
    format!("SCRAM-SHA-256$4096:{salt}${stored}:{server}")
}

fn policy(users: &[(&str, &str)]) -> Policy {
    let users: BTreeMap<String, Sensitive> =
        users.iter().map(|(name, value)| ((*name).to_owned(), Sensitive((*value).to_owned()))).collect();
    let mut config = RelayConfig::from_yaml(
        "version: relay-config.postroad.dev/v1
pool: {namespace: mail, name: main}
replicas: 1
hostname: relay.example
listeners: [{name: smtp, address: '127.0.0.1:0', tls: None, authentication: None}]
identities: [{name: apps, match: {password: {users: {}}}}]
routes: []
upstreams: []
queue: {expireAfterSeconds: 60, minimumBackoffSeconds: 1, maximumBackoffSeconds: 2, maximumBytes: 10000000}
limits: {messageBytes: 1000, recipientsPerMessage: 1, connections: 2, connectionsPerClient: 1}
shutdown: {acceptSeconds: 0, gracePeriodSeconds: 1}
",
    )
    .unwrap();
    config.identities[0].kind =
        postroad_crds::relay_config::IdentityKind::Password { users, user_senders: BTreeMap::new() };
    Policy::compile(&config).unwrap()
}

async fn verified(verifier: &Verifier, policy: &Policy, user: &str, password: &str) -> bool {
    verifier.verify(policy, &PlainCredentials::new(user, password)).await.is_some()
}

#[tokio::test]
async fn every_form_knows_its_password_and_no_other() {
    let keys = scram();
    let policy = policy(&[("plain", "hunter2"), ("bcrypt", BCRYPT), ("argon2", ARGON2), ("scram", &keys)]);
    let verifier = Verifier::new();
    for user in ["plain", "bcrypt", "argon2", "scram"] {
        for _ in 0..2 {
            assert!(verified(&verifier, &policy, user, "hunter2").await, "{user}");
            assert!(!verified(&verifier, &policy, user, "hunter3").await, "{user}");
            assert!(!verified(&verifier, &policy, user, "").await, "{user}");
        }
    }
    assert!(!verified(&verifier, &policy, "nobody", "hunter2").await);
    assert!(!policy.passwords.scram, "bcrypt cannot be proven by SCRAM");
    assert_eq!(format!("{policy:?}").matches("hunter2").count(), 0);
}

#[tokio::test]
async fn a_hash_is_computed_once_until_the_user_changes() {
    let (before, after) = (policy(&[("app", BCRYPT)]), policy(&[("app", ARGON2)]));
    let verifier = Verifier::new();
    assert!(verified(&verifier, &before, "app", "hunter2").await);
    // With all permits taken a further hash would wait for ever.
    let permits =
        verifier.slow.clone().acquire_many_owned(u32::try_from(verifier.slow.available_permits()).unwrap());
    let permits = permits.await.unwrap();
    assert!(verified(&verifier, &before, "app", "hunter2").await, "remembered");
    let patience = Duration::from_millis(50);
    let computing = verified(&verifier, &after, "app", "hunter2");
    assert!(tokio::time::timeout(patience, computing).await.is_err(), "the user's hash is another");
    drop(permits);
    assert!(verified(&verifier, &after, "app", "hunter2").await);
}

#[tokio::test]
async fn a_failure_costs_a_slow_hash_for_every_user_known_or_not() {
    let policy = policy(&[("hashed", BCRYPT), ("plain", "hunter2")]);
    let verifier = Verifier::new();
    let all = u32::try_from(verifier.slow.available_permits()).unwrap();
    let _permits = verifier.slow.clone().acquire_many_owned(all).await.unwrap();
    for user in ["hashed", "plain", "nobody"] {
        // With all permits taken, whoever computes a hash waits for ever.
        let computing = verified(&verifier, &policy, user, "wrong");
        assert!(tokio::time::timeout(Duration::from_millis(50), computing).await.is_err(), "{user}");
    }
}

#[tokio::test]
async fn scram_keys_prove_the_password_and_are_steady_for_those_who_do_not_exist() {
    let keys = scram();
    let (verifier, other) = (Verifier::new(), Verifier::new());
    let policy = policy(&[("plain", "hunter2"), ("scram", &keys)]);
    assert!(policy.passwords.scram);
    let plain = verifier.scram_keys(&policy, "plain").await;
    assert!(plain == ScramKeys::derive("hunter2", &plain.salt, 4096));
    assert!(verifier.scram_keys(&policy, "scram").await == ScramKeys::derive("hunter2", b"some salt", 4096));
    let nobody = verifier.scram_keys(&policy, "nobody").await;
    assert!(nobody == other.scram_keys(&policy, "nobody").await && nobody.salt != plain.salt);
    assert_eq!(identity_of(&policy, "nobody"), None);
}

#[tokio::test]
async fn scram_keys_take_as_long_for_every_user_known_or_not() {
    let keys = scram();
    let verifier = Verifier::new();
    let all = u32::try_from(verifier.slow.available_permits()).unwrap();
    let _permits = verifier.slow.clone().acquire_many_owned(all).await.unwrap();
    // With all permits taken, whoever derives keys waits for ever.
    let waits = async |policy: &Policy, user: &str| {
        tokio::time::timeout(Duration::from_millis(50), verifier.scram_keys(policy, user)).await.is_err()
    };
    let (mixed, stored) = (policy(&[("plain", "hunter2"), ("scram", &keys)]), policy(&[("scram", &keys)]));
    for user in ["plain", "scram", "nobody"] {
        assert!(waits(&mixed, user).await, "{user}");
        assert!(user == "plain" || !waits(&stored, user).await, "{user}");
    }
}
