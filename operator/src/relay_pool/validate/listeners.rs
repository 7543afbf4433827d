//! `spec.listeners` and `spec.certificate`.

use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::{
    Authentication, BareNewline, Certificate, InsecureAuthentication, Listener, ListenerTls,
};

use super::pattern::cidrs;
use super::place::At;
use super::valid::ValidatedListener;
use crate::reason::{Findings, Problem};
use crate::relay_pool::ports::{ADMIN_PORT, ADMIN_PORT_NAME, container_port};
use crate::secrets::Secrets;

pub(super) fn listeners(
    at: &At<'_>,
    specs: &[Listener],
    certificate: bool,
    findings: &mut Findings,
) -> Vec<ValidatedListener> {
    let mut listeners: Vec<ValidatedListener> = Vec::new();
    if specs.is_empty() {
        findings.spec.push(at.invalid("listeners", "name at least one, for example {name: smtp, port: 25}"));
    }
    for spec in specs {
        let Some(listener) = findings.spec(listener(at, spec, certificate)) else { continue };
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
    if port == ADMIN_PORT || spec.name == ADMIN_PORT_NAME {
        return Err(at.invalid(
            &field,
            format!("port {ADMIN_PORT}, {ADMIN_PORT_NAME}, is the relay's own: take another"),
        ));
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
        proxies: match &spec.proxy_protocol {
            Some(proxy) => cidrs(at, &format!("{field}.proxyProtocol.trustedCidrs"), &proxy.trusted_cidrs)?,
            None => Vec::new(),
        },
    })
}

pub(super) fn certificate(
    at: &At<'_>,
    spec: Option<&Certificate>,
    secrets: &Secrets,
    findings: &mut Findings,
) -> Option<relay::Certificate> {
    findings.reference(secrets.certificate(&spec?.secret_ref.name, &at.by("certificate.secretRef")))
}
