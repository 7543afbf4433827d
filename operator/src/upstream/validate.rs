//! Validation of an Upstream: pure, without a client. Called by the Upstream's controller, by the validation of the pools
//! that name it, and by local mode. Its result is the part of a RelayConfig that describes the upstream.

use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::{
    Connections, Smarthost, Upstream, UpstreamPort, UpstreamTls, UpstreamTlsTrust,
};

use crate::reason::{Findings, Problem, Reason};
use crate::secrets::Secrets;

/// The names of the Secrets an Upstream refers to.
#[must_use]
pub fn secret_names(upstream: &Upstream) -> Vec<&str> {
    let Some(smarthost) = &upstream.spec.smarthost else { return Vec::new() };
    let credentials = smarthost.credentials.as_ref().map(|credentials| &credentials.secret_ref);
    let ca_bundle = smarthost.tls.as_ref().and_then(|tls| tls.ca_bundle_secret_ref.as_ref());
    credentials.into_iter().chain(ca_bundle).map(|reference| reference.name.as_str()).collect()
}

/// The Upstream as relays need it. `name` is its `metadata.name`.
///
/// # Errors
/// What is wrong with the spec or with the Secrets it names: all of it, not only the first.
pub fn validate(name: &str, upstream: &Upstream, secrets: &Secrets) -> Result<relay::Upstream, Findings> {
    let mut findings = Findings::default();
    let connections = findings.spec(connections(name, &upstream.spec.connections));
    let destination = match (&upstream.spec.smarthost, &upstream.spec.sandbox) {
        (Some(host), None) => {
            smarthost(name, host, secrets, &mut findings).map(relay::Destination::Smarthost)
        }
        (None, Some(sandbox)) => findings
            .spec(count(name, "sandbox.keepMessages", sandbox.keep_messages))
            .map(|keep_messages| relay::Destination::Sandbox(relay::Sandbox { keep_messages })),
        _ => findings.spec(Err(invalid(name, "", "set exactly one of smarthost and sandbox"))),
    };
    match (destination, connections) {
        (Some(destination), Some(connections)) if findings.is_empty() => {
            Ok(relay::Upstream { name: name.to_owned(), destination, connections })
        }
        _ => Err(findings),
    }
}

fn smarthost(
    name: &str,
    spec: &Smarthost,
    secrets: &Secrets,
    findings: &mut Findings,
) -> Option<relay::Smarthost> {
    let by = |field: &str| format!("spec.smarthost.{field} of Upstream {name}");
    let ports = findings.spec(ports(name, spec));
    let tls = trust(spec.tls.as_ref(), secrets, &by("tls.caBundleSecretRef"), findings);
    let credentials = spec.credentials.as_ref().map(|credentials| {
        findings.reference(secrets.credentials(
            credentials.type_,
            &credentials.secret_ref.name,
            &by("credentials.secretRef"),
        ))
    });
    let credentials = match credentials {
        Some(read) => Some(read?),
        None => None,
    };
    Some(relay::Smarthost { host: spec.host.clone(), ports: ports?, tls: tls?, credentials })
}

fn trust(
    spec: Option<&UpstreamTlsTrust>,
    secrets: &Secrets,
    by: &str,
    findings: &mut Findings,
) -> Option<relay::UpstreamTlsTrust> {
    let Some(spec) = spec else { return Some(relay::UpstreamTlsTrust::default()) };
    let ca_bundle_pem = match &spec.ca_bundle_secret_ref {
        Some(reference) => Some(findings.reference(secrets.ca_bundle(&reference.name, by))?),
        None => None,
    };
    Some(relay::UpstreamTlsTrust { ca_bundle_pem, server_name: spec.server_name.clone() })
}

fn ports(name: &str, spec: &Smarthost) -> Result<Vec<relay::UpstreamPort>, Problem> {
    if spec.ports.is_empty() {
        return Err(invalid(
            name,
            ".smarthost.ports",
            "name at least one port, for example {port: 587, tls: StartTLS}",
        ));
    }
    if spec.credentials.is_some() && spec.ports.iter().any(|port| port.tls == UpstreamTls::None) {
        return Err(invalid(
            name,
            ".smarthost.ports",
            "credentials are only sent under TLS: no port may have tls: None",
        ));
    }
    spec.ports.iter().map(|port| upstream_port(name, port)).collect()
}

fn upstream_port(name: &str, spec: &UpstreamPort) -> Result<relay::UpstreamPort, Problem> {
    let port = u16::try_from(spec.port)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| invalid(name, ".smarthost.ports", &format!("{} is not a port", spec.port)))?;
    let tls = match spec.tls {
        UpstreamTls::None => relay::UpstreamTls::None,
        UpstreamTls::StartTLS => relay::UpstreamTls::StartTLS,
        UpstreamTls::Implicit => relay::UpstreamTls::Implicit,
    };
    Ok(relay::UpstreamPort { port, tls })
}

fn connections(name: &str, spec: &Connections) -> Result<relay::Connections, Problem> {
    Ok(relay::Connections {
        maximum: count(name, "connections.maximum", spec.maximum)?,
        messages_per_connection: count(
            name,
            "connections.messagesPerConnection",
            spec.messages_per_connection,
        )?,
        idle_timeout_seconds: count(name, "connections.idleTimeoutSeconds", spec.idle_timeout_seconds)?,
        maximum_age_seconds: count(name, "connections.maximumAgeSeconds", spec.maximum_age_seconds)?,
    })
}

fn count(name: &str, field: &str, value: i32) -> Result<u32, Problem> {
    u32::try_from(value)
        .ok()
        .filter(|value| *value > 0)
        .ok_or_else(|| invalid(name, &format!(".{field}"), &format!("must be at least 1, not {value}")))
}

fn invalid(name: &str, field: &str, what: &str) -> Problem {
    Problem::new(Reason::InvalidSpec, format!("Upstream {name}: spec{field}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::Secret;

    fn upstream(spec: &str) -> Upstream {
        let text = format!(
            "apiVersion: postroad.dev/v1alpha1\nkind: Upstream\nmetadata: {{name: ses}}\nspec: {spec}"
        );
        serde_yaml::from_str(&text).unwrap()
    }

    fn check(spec: &str, secrets: &Secrets, expected: Result<(), (Reason, &str)>) {
        let found = validate("ses", &upstream(spec), secrets);
        match (found, expected) {
            (Ok(_), Ok(())) => {}
            (Err(findings), Err((reason, words))) => {
                let problem = findings.iter().find(|problem| problem.reason == reason);
                let problem = problem.unwrap_or_else(|| panic!("{spec}: {findings:?}"));
                assert!(problem.message.contains(words), "{words:?} not in {problem}");
            }
            (found, expected) => panic!("{spec}: {found:?}, expected {expected:?}"),
        }
    }

    fn with_credentials() -> Secrets {
        let mut secrets = Secrets::of("mail");
        let data = ["username", "password"].map(|key| (key.to_owned(), ByteString(b"hunter2".to_vec())));
        secrets.insert("ses", Secret { data: Some(data.into()), ..Secret::default() });
        secrets
    }

    #[test]
    fn what_relays_cannot_use_is_refused_with_the_field() {
        let none = Secrets::of("mail");
        let invalid = Reason::InvalidSpec;
        check("{sandbox: {}}", &none, Ok(()));
        check("{}", &none, Err((invalid, "exactly one")));
        check("{sandbox: {keepMessages: 0}}", &none, Err((invalid, "spec.sandbox.keepMessages")));
        check("{sandbox: {}, connections: {maximum: 0}}", &none, Err((invalid, "spec.connections.maximum")));
        check("{smarthost: {host: h, ports: []}}", &none, Err((invalid, "at least one port")));
        check("{smarthost: {host: h, ports: [{port: 70000, tls: None}]}}", &none, Err((invalid, "70000")));
        let clear =
            "{smarthost: {host: h, ports: [{port: 25, tls: None}], credentials: {secretRef: {name: ses}}}}";
        check(clear, &with_credentials(), Err((invalid, "only sent under TLS")));
    }

    #[test]
    fn what_it_names_is_resolved_or_missed_by_name() {
        let spec = "{smarthost: {host: h, ports: [{port: 587, tls: StartTLS}], credentials: {secretRef: {name: ses}}}}";
        check(spec, &with_credentials(), Ok(()));
        check(
            spec,
            &Secrets::of("mail"),
            Err((Reason::SecretNotFound, "Secret mail/ses, named by spec.smarthost.cred")),
        );
        let both = spec.replace("credentials", "tls: {caBundleSecretRef: {name: ca}}, credentials");
        let findings = validate("ses", &upstream(&both), &Secrets::of("mail")).unwrap_err();
        assert_eq!(findings.references.len(), 2, "both Secrets are told: {findings:?}");
        assert_eq!(secret_names(&upstream(&both)), ["ses", "ca"]);
    }

    #[test]
    fn debug_of_the_result_shows_no_secret() {
        let spec = "{smarthost: {host: h, ports: [{port: 587, tls: StartTLS}], credentials: {secretRef: {name: ses}}}}";
        let valid = validate("ses", &upstream(spec), &with_credentials()).unwrap();
        assert!(!format!("{valid:?}").contains("hunter2"));
    }
}
