//! What the CEL rules refuse, and that each refusal says what to do.

use postroad_crds::v1alpha1::{RelayPool, Upstream};

const POOL: &str = r"
apiVersion: postroad.dev/v1alpha1
kind: RelayPool
metadata: {name: main, namespace: mail}
spec:
  listeners:
  - {name: smtp, port: 25}
  - {name: submission, port: 587, tls: Required, authentication: Required}
  certificate: {secretRef: {name: tls}}
  clients:
    identities:
    - {name: pods, type: Network, network: {cidrs: [10.0.0.0/8]}}
    - {name: apps, type: Password, password: {usersSecretRef: {name: users}}}
  routes:
  - {name: default, upstreams: [{name: ses}]}
";

const UPSTREAM: &str = r"
apiVersion: postroad.dev/v1alpha1
kind: Upstream
metadata: {name: ses, namespace: mail}
spec:
  smarthost:
    host: smtp.example.com
    ports: [{port: 587, tls: StartTLS}, {port: 465, tls: Implicit}]
    credentials: {secretRef: {name: ses}}
";

fn check_pool(from: &str, to: &str, expected: &str) {
    assert!(POOL.contains(from), "{from} is not in the example");
    check_pool_text(&POOL.replace(from, to), expected);
}

fn check_pool_text(text: &str, expected: &str) {
    let pool: RelayPool = serde_yaml::from_str(text).unwrap();
    check(pool.validate_cel().map_err(|errors| format!("{errors:?}")), expected);
}

fn check_upstream(from: &str, to: &str, expected: &str) {
    assert!(UPSTREAM.contains(from), "{from} is not in the example");
    let upstream: Upstream = serde_yaml::from_str(&UPSTREAM.replace(from, to)).unwrap();
    check(upstream.validate_cel().map_err(|errors| format!("{errors:?}")), expected);
}

fn check(result: Result<(), String>, expected: &str) {
    match result {
        Ok(()) => assert_eq!(expected, "", "nothing was refused"),
        Err(errors) => {
            assert!(!expected.is_empty() && errors.contains(expected), "{expected:?} not in {errors}")
        }
    }
}

#[test]
fn the_examples_are_accepted() {
    check_pool("name: main", "name: main", "");
    check_upstream("name: ses", "name: ses", "");
}

#[test]
fn tls_without_a_certificate_is_refused() {
    check_pool("certificate: {secretRef: {name: tls}}", "", "need spec.certificate");
}

#[test]
fn authentication_in_the_clear_is_refused() {
    check_pool(
        "tls: Required, authentication: Required",
        "authentication: Required",
        "authentication needs TLS",
    );
}

#[test]
fn authentication_in_the_clear_is_accepted_where_it_is_asked_for_by_name() {
    let clear = |insecure: &str| format!("authentication: Required, insecureAuthentication: {insecure}");
    let listener = "tls: Required, authentication: Required";
    check_pool(listener, &clear("Accepted"), "");
    check_pool(listener, &clear("Refused"), "authentication needs TLS");
}

#[test]
fn a_load_balancer_is_named_by_its_networks() {
    let proxied =
        |cidrs: &str| format!("{{name: smtp, port: 25, proxyProtocol: {{trustedCidrs: [{cidrs}]}}}}");
    let listener = "{name: smtp, port: 25}";
    check_pool(listener, &proxied("192.0.2.0/24, 'fd00::/8', 192.0.2.1/32"), "");
    for wrong in ["192.0.2.1", "192.0.2.0/33", "balancer.example.com", "192.0.2.0/24, any"] {
        check_pool(listener, &proxied(wrong), "each entry is a network");
    }
}

#[test]
fn client_certificates_need_tls() {
    let with = |tls: &str, mode: &str| {
        let request = format!("{{mode: {mode}, caBundleSecretRef: {{name: authority}}}}");
        format!("{{name: smtp, port: 25, tls: {tls}, clientCertificate: {request}}}")
    };
    let listener = "{name: smtp, port: 25}";
    for (tls, mode, expected) in [
        ("Implicit", "Required", ""),
        ("Required", "Required", ""),
        ("Required", "Optional", ""),
        ("Optional", "Optional", ""),
        ("Optional", "Required", "cannot be required where TLS is not"),
        ("None", "Optional", "clientCertificate needs TLS"),
        ("None", "Required", "clientCertificate needs TLS"),
    ] {
        check_pool(listener, &with(tls, mode), expected);
    }
    let default = "tls: Optional, clientCertificate: {caBundleSecretRef: {name: authority}}, port: 25";
    check_pool("port: 25", default, "cannot be required where TLS is not");
}

#[test]
fn an_identity_by_certificate_names_somebody_whom_a_listener_asks() {
    let request = "tls: Implicit, clientCertificate: {caBundleSecretRef: {name: authority}}";
    let asked = POOL.replace("tls: Required, authentication: Required", request);
    let check = |pool: &str, part: &str, expected: &str| {
        let network = "type: Network, network: {cidrs: [10.0.0.0/8]}";
        let text = pool.replace(network, &format!("type: ClientCertificate{part}"));
        check_pool_text(&text, expected);
    };
    check(&asked, ", clientCertificate: {dnsNames: [a.example]}", "");
    check(&asked, ", clientCertificate: {commonNames: [a]}", "");
    check(&asked, ", clientCertificate: {uris: ['spiffe://a/ns/b/sa/c', 'spiffe://a/ns/b/*']}", "");
    for uri in ["no-scheme", "spiffe://a/*/sa/c", "spiffe://a/ns/b*", "spiffe://a/*/*"] {
        check(&asked, &format!(", clientCertificate: {{uris: ['{uri}']}}"), "each entry is a URI");
    }
    check(&asked, ", clientCertificate: {}", "at least one of dnsNames, uris and commonNames");
    check(&asked, "", "of type ClientCertificate needs clientCertificate");
    check(&asked, ", network: {cidrs: [10.0.0.0/8]}", "of type Network needs network");
    check(POOL, ", clientCertificate: {dnsNames: [a.example]}", "need a listener with clientCertificate");
}

#[test]
fn two_listeners_on_one_port_are_refused() {
    check_pool("port: 587", "port: 25", "a port of its own");
}

#[test]
fn an_identity_without_the_part_its_type_names_is_refused() {
    check_pool("network: {cidrs: [10.0.0.0/8]}", "", "of type Network needs network");
    check_pool("type: Password", "type: Network", "of type Network needs network");
}

#[test]
fn two_kinds_of_storage_are_refused() {
    check_pool(
        "routes:",
        "queue: {storage: {size: 1Gi}, ephemeral: {}}\n  routes:",
        "at most one of storage and ephemeral",
    );
}

#[test]
fn a_minimum_above_the_maximum_is_refused() {
    check_pool(
        "routes:",
        "queue: {minimumBackoffSeconds: 10, maximumBackoffSeconds: 5}\n  routes:",
        "must not exceed maximumBackoffSeconds",
    );
    check_pool(
        "routes:",
        "shutdown: {acceptSeconds: 60, gracePeriodSeconds: 60}\n  routes:",
        "less than gracePeriodSeconds",
    );
}

#[test]
fn a_name_that_cannot_be_a_service_is_refused() {
    check_pool("name: main", "name: 1main", "becomes a Service name");
    check_pool("name: main", &format!("name: {}", "a".repeat(41)), "at most 40 characters");
}

#[test]
fn an_upstream_is_a_smarthost_or_a_sandbox() {
    check_upstream("smarthost:", "sandbox: {}\n  smarthost:", "exactly one of smarthost and sandbox");
    let neither: Upstream = serde_yaml::from_str(
        "apiVersion: postroad.dev/v1alpha1\nkind: Upstream\nmetadata: {name: a}\nspec: {}",
    )
    .unwrap();
    check(
        neither.validate_cel().map_err(|errors| format!("{errors:?}")),
        "exactly one of smarthost and sandbox",
    );
}

#[test]
fn credentials_in_the_clear_are_refused() {
    check_upstream("tls: StartTLS", "tls: None", "only sent under TLS");
}

#[test]
fn a_smarthost_has_host_and_ports_or_a_provider_that_knows_them() {
    let ports = "    ports: [{port: 587, tls: StartTLS}, {port: 465, tls: Implicit}]\n";
    check_upstream(ports, "", "name the ports of the smarthost");
    check_upstream("    host: smtp.example.com\n", "", "name the host of the smarthost");
    check_upstream("smarthost:\n    host: smtp.example.com\n", "provider: Gmail\n  smarthost:\n", "");
    check_upstream("smarthost:\n    host: smtp.example.com\n", "provider: SES\n  smarthost:\n", "a region");
}

#[test]
fn a_reply_rule_says_what_it_matches_and_how_long_to_park() {
    let with = |rule: &str| format!("replies: [{rule}]\n  smarthost:");
    check_upstream("smarthost:", &with("{code: 450, outcome: Park, afterSeconds: 60}"), "");
    check_upstream("smarthost:", &with("{outcome: Retry}"), "at least one of code");
    check_upstream("smarthost:", &with("{code: 450, outcome: Park}"), "needs afterSeconds");
    check_upstream("smarthost:", &with("{command: EHLO, code: 554, outcome: Refuse}"), "before MAIL");
}

#[test]
fn a_rate_counts_one_thing() {
    let with = |rate: &str| format!("rates: [{rate}]\n  smarthost:");
    check_upstream("smarthost:", &with("{recipients: 14, perSeconds: 1}"), "");
    check_upstream("smarthost:", &with("{perSeconds: 1}"), "exactly one of them");
    check_upstream("smarthost:", &with("{recipients: 1, messages: 1, perSeconds: 1}"), "exactly one of them");
}

#[test]
fn source_addresses_are_for_a_smarthost() {
    let upstream = "spec: {sandbox: {}, connections: {sourceAddresses: [192.0.2.1]}}";
    let upstream: Upstream = serde_yaml::from_str(&format!(
        "apiVersion: postroad.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: box}}\n{upstream}"
    ))
    .unwrap();
    check(
        upstream.validate_cel().map_err(|errors| format!("{errors:?}")),
        "nothing leaves the relay for a sandbox",
    );
}
