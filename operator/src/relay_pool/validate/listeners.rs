//! `spec.listeners` and `spec.certificate`.

use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::{
    Authentication, BareNewline, Certificate, ClientCertificateMode, InsecureAuthentication, Listener,
    ListenerTls,
};

use super::pattern::cidrs;
use super::place::At;
use super::valid::ValidatedListener;
use crate::reason::{Findings, Problem};
use crate::relay_pool::ports::{
    ADMIN_PORT, ADMIN_PORT_NAME, HAND_OVER_PORT, HAND_OVER_PORT_NAME, container_port,
};
use crate::secrets::Secrets;

pub(super) fn listeners(
    at: &At<'_>,
    specs: &[Listener],
    certificate: bool,
    secrets: &Secrets,
    findings: &mut Findings,
) -> Vec<ValidatedListener> {
    let mut listeners: Vec<ValidatedListener> = Vec::new();
    if specs.is_empty() {
        findings.spec.push(at.invalid("listeners", "name at least one, for example {name: smtp, port: 25}"));
    }
    for spec in specs {
        let Some(mut listener) = findings.spec(listener(at, spec, certificate)) else { continue };
        listener.client_certificate = client_certificate(at, spec, secrets, findings);
        let other = listeners.iter().find(|other| other.container_port == listener.container_port);
        if let Some(other) = other {
            findings.spec.push(at.invalid(
                &format!("listeners[{}].port", listener.name),
                format!(
                    "{} and {} of listener {} are the same port {} in the pod, where ports below 1024 are 10000 higher",
                    listener.port, other.port, other.name, listener.container_port
                ),
            ));
        }
        listeners.push(listener);
    }
    listeners
}

fn listener(at: &At<'_>, spec: &Listener, certificate: bool) -> Result<ValidatedListener, Problem> {
    let field = format!("listeners[{}]", spec.name);
    let port = u16::try_from(spec.port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| at.invalid(&field, format!("{} is not a port", spec.port)))?;
    for (own, name) in [(ADMIN_PORT, ADMIN_PORT_NAME), (HAND_OVER_PORT, HAND_OVER_PORT_NAME)] {
        if port == own || spec.name == name {
            return Err(at.invalid(&field, format!("port {own}, {name}, is the relay's own: take another")));
        }
    }
    if spec.tls != ListenerTls::None && !certificate {
        return Err(at.invalid(&field, "TLS needs spec.certificate"));
    }
    let insecure = spec.insecure_authentication == InsecureAuthentication::Accepted;
    if spec.authentication != Authentication::None && spec.tls == ListenerTls::None && !insecure {
        return Err(at.invalid(&field, "authentication needs TLS: set tls to Optional, Required or Implicit"));
    }
    Ok(ValidatedListener {
        name: spec.name.clone(),
        port,
        container_port: container_port(port),
        tls: match spec.tls {
            ListenerTls::None => relay::ListenerTls::None,
            ListenerTls::Optional => relay::ListenerTls::Optional,
            ListenerTls::Required => relay::ListenerTls::Required,
            ListenerTls::Implicit => relay::ListenerTls::Implicit,
        },
        authentication: match spec.authentication {
            Authentication::None => relay::Authentication::None,
            Authentication::Optional => relay::Authentication::Optional,
            Authentication::Required => relay::Authentication::Required,
        },
        insecure_authentication: insecure,
        bare_newline: match spec.bare_newline {
            BareNewline::Reject => relay::BareNewline::Reject,
            BareNewline::Normalise => relay::BareNewline::Normalise,
        },
        client_certificate: None,
        proxies: match &spec.proxy_protocol {
            Some(proxy) => cidrs(at, &format!("{field}.proxyProtocol.trustedCidrs"), &proxy.trusted_cidrs)?,
            None => Vec::new(),
        },
    })
}

fn client_certificate(
    at: &At<'_>,
    spec: &Listener,
    secrets: &Secrets,
    findings: &mut Findings,
) -> Option<relay::ClientCertificateRequest> {
    let request = spec.client_certificate.as_ref()?;
    let field = format!("listeners[{}].clientCertificate", spec.name);
    let required = request.mode == ClientCertificateMode::Required;
    if spec.tls == ListenerTls::None || required && spec.tls == ListenerTls::Optional {
        findings.spec.push(at.invalid(&field, "needs TLS: set tls of the listener to Required or Implicit"));
    }
    let by = at.by(&format!("{field}.caBundleSecretRef"));
    let ca_bundle_pem = findings.reference(secrets.ca_bundle(&request.ca_bundle_secret_ref.name, &by))?;
    Some(relay::ClientCertificateRequest { required, ca_bundle_pem })
}

pub(super) fn certificate(
    at: &At<'_>,
    spec: Option<&Certificate>,
    secrets: &Secrets,
    findings: &mut Findings,
) -> Option<relay::Certificate> {
    findings.reference(secrets.certificate(&spec?.secret_ref.name, &at.by("certificate.secretRef")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::Secret;

    /// What is found wrong with one listener, when `authority` exists and `users` lacks a certificate.
    fn check(listener: &str, reason: Reason, words: &str) {
        let specs: Vec<Listener> = serde_yaml::from_str(&format!("[{listener}]")).unwrap();
        let pair = rcgen::generate_simple_self_signed(vec!["ca.example".to_owned()]).unwrap();
        let mut secrets = Secrets::of("mail");
        for (name, key) in [("authority", "ca.crt"), ("users", "app")] {
            let data = [(key.to_owned(), ByteString(pair.cert.pem().into_bytes()))].into();
            secrets.insert(name, Secret { data: Some(data), ..Secret::default() });
        }
        let mut findings = Findings::default();
        listeners(&At { pool: "main" }, &specs, true, &secrets, &mut findings);
        let found: Vec<_> = findings.spec.iter().chain(&findings.references).collect();
        let told = found.iter().any(|problem| problem.reason == reason && problem.message.contains(words));
        assert!(told, "{words:?} not in {found:?}");
    }

    #[test]
    fn what_is_wrong_with_client_certificates_is_told_by_field_and_secret() {
        let with = |tls: &str, name: &str| {
            format!(
                "{{name: a, port: 25, tls: {tls}, clientCertificate: {{caBundleSecretRef: {{name: {name}}}}}}}"
            )
        };
        let field = "spec.listeners[a].clientCertificate";
        check(&with("Optional", "authority"), Reason::InvalidSpec, &format!("{field}: needs TLS"));
        check(&with("None", "authority"), Reason::InvalidSpec, &format!("{field}: needs TLS"));
        let by = format!("named by {field}.caBundleSecretRef of RelayPool main");
        check(&with("Implicit", "missing"), Reason::SecretNotFound, &by);
        check(&with("Implicit", "users"), Reason::SecretKeyMissing, "lacks the key \"ca.crt\"");
    }
}
