//! Validation of an Upstream: pure, without a client. Called by the Upstream's controller, by the validation of the pools
//! that name it, and by local mode. Its result is the part of a RelayConfig that describes the upstream.

use std::net::IpAddr;

use postroad_crds::provider::{Preset, Provider};
use postroad_crds::relay_config as relay;
use postroad_crds::reply_rule::{ReplyOutcome, ReplyRule};
use postroad_crds::v1alpha1::{
    Connections, Smarthost, Upstream, UpstreamPort, UpstreamTls, UpstreamTlsTrust,
};

use crate::rates::rates;
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
    let preset = upstream.spec.provider.map(Provider::preset);
    let preset = preset.as_ref();
    let connections = findings.spec(connections(name, &upstream.spec.connections, preset));
    let rates = match (upstream.spec.rates.as_slice(), preset) {
        ([], Some(preset)) => Some(preset.rates.clone()),
        (own, _) => findings.spec(rates(own).map_err(|what| invalid(name, ".rates", &what))),
    };
    let replies = findings.spec(replies(name, &upstream.spec.replies, preset));
    let destination = match (&upstream.spec.smarthost, &upstream.spec.sandbox) {
        (Some(host), None) => {
            smarthost(name, host, preset, secrets, &mut findings).map(relay::Destination::Smarthost)
        }
        (None, Some(sandbox)) => findings
            .spec(count(name, "sandbox.keepMessages", sandbox.keep_messages))
            .map(|keep_messages| relay::Destination::Sandbox(relay::Sandbox { keep_messages })),
        _ => findings.spec(Err(invalid(name, "", "set exactly one of smarthost and sandbox"))),
    };
    match (destination, connections, rates, replies) {
        (Some(destination), Some(connections), Some(rates), Some(replies)) if findings.is_empty() => {
            Ok(relay::Upstream {
                name: name.to_owned(),
                destination,
                connections,
                divisions: Vec::new(),
                rates,
                replies,
            })
        }
        _ => Err(findings),
    }
}

fn smarthost(
    name: &str,
    spec: &Smarthost,
    preset: Option<&Preset>,
    secrets: &Secrets,
    findings: &mut Findings,
) -> Option<relay::Smarthost> {
    let by = |field: &str| format!("spec.smarthost.{field} of Upstream {name}");
    let host = findings.spec(host(name, spec, preset));
    let ports = findings.spec(ports(name, spec, preset));
    let ehlo_name = findings.spec(ehlo_name(name, spec.ehlo_name.as_deref()));
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
    Some(relay::Smarthost { host: host?, ports: ports?, tls: tls?, ehlo_name: ehlo_name?, credentials })
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

fn host(name: &str, spec: &Smarthost, preset: Option<&Preset>) -> Result<String, Problem> {
    let known = spec.host.as_deref().or_else(|| preset.and_then(Preset::default_host));
    known.map(str::to_owned).ok_or_else(|| {
        let hosts = preset.map(|preset| format!(", {}", preset.hosts.join(" or "))).unwrap_or_default();
        invalid(name, ".smarthost.host", &format!("name the service's host{hosts}"))
    })
}

/// A Domain or an address-literal (RFC 5321 §4.1.1.1), as far as a server could take it for something else.
fn ehlo_name(name: &str, spec: Option<&str>) -> Result<Option<String>, Problem> {
    let is_domain = |text: &str| {
        let allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-.".contains(&octet);
        text.len() <= 255 && !text.is_empty() && text.bytes().all(allowed)
    };
    let is_literal = |text: &str| {
        let address = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let plain = address.map(|address| address.strip_prefix("IPv6:").unwrap_or(address));
        plain.is_some_and(|address| address.parse::<IpAddr>().is_ok())
    };
    match spec {
        Some(text) if !is_domain(text) && !is_literal(text) => Err(invalid(
            name,
            ".smarthost.ehloName",
            &format!("{text:?} is neither a host name nor an address in brackets"),
        )),
        _ => Ok(spec.map(str::to_owned)),
    }
}

fn ports(name: &str, spec: &Smarthost, preset: Option<&Preset>) -> Result<Vec<relay::UpstreamPort>, Problem> {
    if let (true, Some(preset)) = (spec.ports.is_empty(), preset) {
        return Ok(preset.ports.clone());
    }
    if spec.ports.is_empty() {
        return Err(invalid(
            name,
            ".smarthost.ports",
            "name at least one port, for example {port: 587, tls: StartTLS}, or set spec.provider",
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

fn connections(
    name: &str,
    spec: &Connections,
    preset: Option<&Preset>,
) -> Result<relay::Connections, Problem> {
    let preset = preset.map(|preset| preset.connections.clone()).unwrap_or_default();
    let bound = |field: &str, explicit: Option<i32>, preset: Option<u32>, otherwise: u32| match explicit {
        Some(value) => count(name, &format!("connections.{field}"), value),
        None => Ok(preset.unwrap_or(otherwise)),
    };
    Ok(relay::Connections {
        maximum: bound("maximum", spec.maximum, preset.maximum, 10)?,
        messages_per_connection: bound(
            "messagesPerConnection",
            spec.messages_per_connection,
            preset.messages_per_connection,
            500,
        )?,
        idle_timeout_seconds: bound(
            "idleTimeoutSeconds",
            spec.idle_timeout_seconds,
            preset.idle_timeout_seconds,
            30,
        )?,
        maximum_age_seconds: bound(
            "maximumAgeSeconds",
            spec.maximum_age_seconds,
            preset.maximum_age_seconds,
            900,
        )?,
        reply_timeout_seconds: spec
            .reply_timeout_seconds
            .map(|seconds| count(name, "connections.replyTimeoutSeconds", seconds))
            .transpose()?,
        minimum_idle: u32::try_from(spec.minimum_idle.unwrap_or(0))
            .map_err(|_| invalid(name, ".connections.minimumIdle", "must be at least 0"))?,
        source_addresses: source_addresses(name, &spec.source_addresses)?,
        rates_per_source_address: rates(&spec.rates_per_source_address)
            .map_err(|what| invalid(name, ".connections.ratesPerSourceAddress", &what))?,
    })
}

fn source_addresses(name: &str, spec: &[String]) -> Result<Vec<IpAddr>, Problem> {
    let field = ".connections.sourceAddresses";
    let mut addresses = Vec::new();
    for text in spec {
        let address: IpAddr =
            text.parse().map_err(|_| invalid(name, field, &format!("{text:?} is not an IP address")))?;
        if addresses.contains(&address) {
            return Err(invalid(name, field, &format!("{address} is there twice")));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// The Upstream's own rules before those of its provider.
fn replies(name: &str, own: &[ReplyRule], preset: Option<&Preset>) -> Result<Vec<ReplyRule>, Problem> {
    for (index, rule) in own.iter().enumerate() {
        let wrong = |what: &str| Err(invalid(name, &format!(".replies[{index}]"), what));
        if rule.code.is_none() && rule.enhanced_code.is_none() && rule.text.is_none() {
            return wrong("needs at least one of code, enhancedCode and text");
        }
        if (rule.outcome == ReplyOutcome::Park) != rule.after_seconds.is_some_and(|seconds| seconds > 0) {
            return wrong("outcome Park needs afterSeconds of at least 1, and only that outcome may have it");
        }
    }
    let known = preset.map(|preset| preset.replies.as_slice()).unwrap_or_default();
    Ok(own.iter().chain(known).cloned().collect())
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
        for (connections, words) in [
            ("{sourceAddresses: [192.0.2.300]}", "192.0.2.300"),
            ("{sourceAddresses: ['::1', '0:0::1']}", "twice"),
            ("{ratesPerSourceAddress: [{perSeconds: 11}]}", "spec.connections.ratesPerSourceAddress"),
            ("{minimumIdle: -1}", "at least 0"),
        ] {
            let spec = format!("{{sandbox: {{}}, connections: {connections}}}");
            check(&spec, &none, Err((invalid, words)));
        }
        let named = "{smarthost: {host: h, ports: [{port: 25, tls: None}], ehloName: 'a b'}}";
        check(named, &none, Err((invalid, "spec.smarthost.ehloName")));
        let clear =
            "{smarthost: {host: h, ports: [{port: 25, tls: None}], credentials: {secretRef: {name: ses}}}}";
        check(clear, &with_credentials(), Err((invalid, "only sent under TLS")));
    }

    #[test]
    fn a_provider_fills_what_the_spec_does_not_set() {
        let valid = |spec: &str| validate("out", &upstream(spec), &Secrets::of("mail")).unwrap();
        let filled = valid("{provider: Microsoft365, smarthost: {}}");
        let relay::Destination::Smarthost(smarthost) = &filled.destination else { panic!("{filled:?}") };
        assert_eq!(smarthost.host, "smtp.office365.com");
        assert_eq!((filled.connections.maximum, filled.connections.messages_per_connection), (3, 500));
        let daily = relay::Rate { limit: 10_000, unit: relay::RateUnit::Recipients, per_seconds: 86_400 };
        assert_eq!(filled.rates.last(), Some(&daily));
        let own = valid(
            "{provider: Microsoft365, connections: {maximum: 2}, rates: [{messages: 5, perSeconds: 1}], replies: [{code: 432, outcome: Retry}], \
             smarthost: {host: h, ports: [{port: 2587, tls: StartTLS}]}}",
        );
        let relay::Destination::Smarthost(smarthost) = &own.destination else { panic!("{own:?}") };
        assert_eq!((smarthost.host.as_str(), smarthost.ports.len(), own.connections.maximum), ("h", 1, 2));
        assert_eq!(
            (own.rates.len(), own.rates[0].limit),
            (1, 5),
            "its own rates replace those of the provider"
        );
        assert_eq!(own.replies[0].outcome, ReplyOutcome::Retry, "its own rules come first");
        assert_eq!(own.replies.len(), filled.replies.len() + 1);
        let ses = "{provider: SES, smarthost: {}}";
        check(ses, &Secrets::of("mail"), Err((Reason::InvalidSpec, "email-smtp.<region>.amazonaws.com")));
        let rates = valid("{sandbox: {}, rates: [{recipients: 14, perSeconds: 1}]}").rates;
        assert_eq!(rates, [relay::Rate { limit: 14, unit: relay::RateUnit::Recipients, per_seconds: 1 }]);
        check(
            "{sandbox: {}, rates: [{perSeconds: 1}]}",
            &Secrets::of("mail"),
            Err((Reason::InvalidSpec, "exactly one")),
        );
        let own = valid(
            "{smarthost: {host: h, ports: [{port: 25, tls: None}], ehloName: '[192.0.2.1]'}, connections: {minimumIdle: 2, \
             sourceAddresses: [192.0.2.1, '2001:db8::1'], ratesPerSourceAddress: [{messages: 100, perSeconds: 1}]}}",
        );
        let connections = own.connections;
        assert_eq!((connections.minimum_idle, connections.source_addresses.len()), (2, 2));
        assert_eq!(connections.rates_per_source_address[0].limit, 100);
        let useless = "{sandbox: {}, replies: [{code: 450, outcome: Park}]}";
        check(useless, &Secrets::of("mail"), Err((Reason::InvalidSpec, "needs afterSeconds")));
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
