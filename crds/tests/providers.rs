//! The presets: every file is read, its rules are ones an Upstream could have, and the reference lists them.

use std::fmt::Write as _;
use std::path::Path;

use postroad_crds::provider::{Preset, Provider};
use postroad_crds::relay_config::{Rate, RateUnit};
use postroad_crds::reply_rule::{ReplyOutcome, ReplyRule};
use postroad_crds::v1alpha1::Upstream;

const INTRODUCTION: &str = "# Providers

<!-- Generated from crds/src/providers by `make generate`. Do not edit. -->

What `spec.provider` of an Upstream stands for. What the Upstream sets itself wins, and its own `spec.replies` are matched before
the rules here. What no rule matches is taken as RFC 5321 says: 4yz is tried again, 5yz is returned to the sender; except that
552 to RCPT is tried again (§4.5.3.1.10), 421 closes the session and is no judgement of the message, and 530, 534, 535 and 538 are
about the credentials and return nothing.
";

#[test]
fn every_preset_has_what_a_smarthost_needs_and_its_sources() {
    for provider in Provider::ALL {
        let preset = provider.preset();
        assert!(!preset.hosts.is_empty() && !preset.ports.is_empty(), "{provider:?}");
        assert!(!preset.sources.is_empty() && preset.recorded.len() == "2026-01-01".len(), "{provider:?}");
    }
}

#[test]
fn the_rules_of_presets_are_ones_an_upstream_could_have() {
    for provider in Provider::ALL {
        let mut upstream: Upstream = serde_yaml::from_str(
            "{apiVersion: postroad.dev/v1alpha1, kind: Upstream, metadata: {name: a}, spec: {sandbox: {}}}",
        )
        .unwrap();
        upstream.spec.replies = provider.preset().replies;
        upstream.validate_cel().unwrap_or_else(|errors| panic!("{provider:?}: {errors:?}"));
    }
}

/// `UPDATE=1 cargo test -p postroad-crds` rewrites it.
#[test]
fn the_reference_lists_every_provider() {
    let text = Provider::ALL.iter().fold(INTRODUCTION.to_owned(), |mut text, provider| {
        section(&mut text, *provider, &provider.preset());
        text
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/providers.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "docs/reference/providers.md is not current: run `make generate`");
}

fn section(text: &mut String, provider: Provider, preset: &Preset) {
    let ports: Vec<_> = preset.ports.iter().map(|port| format!("{} {:?}", port.port, port.tls)).collect();
    writeln!(text, "\n## `{provider:?}`: {}\n", preset.title).unwrap();
    writeln!(text, "- Host: `{}`. Ports: {}.", preset.hosts.join("` or `"), ports.join(", ")).unwrap();
    let bounds = &preset.connections;
    for (field, bound) in [
        ("maximum", bounds.maximum),
        ("messagesPerConnection", bounds.messages_per_connection),
        ("idleTimeoutSeconds", bounds.idle_timeout_seconds),
        ("maximumAgeSeconds", bounds.maximum_age_seconds),
    ] {
        if let Some(bound) = bound {
            writeln!(text, "- `connections.{field}`: {bound}.").unwrap();
        }
    }
    if !preset.rates.is_empty() {
        let rate = |rate: &Rate| {
            let unit = if rate.unit == RateUnit::Messages { "messages" } else { "recipients" };
            format!("{} {unit} in {} s", rate.limit, rate.per_seconds)
        };
        writeln!(text, "- `rates`: {}.", preset.rates.iter().map(rate).collect::<Vec<_>>().join("; "))
            .unwrap();
    }
    for note in &preset.notes {
        writeln!(text, "- {note}").unwrap();
    }
    if !preset.replies.is_empty() {
        text.push_str(
            "\n| command | code | enhanced code | text contains | outcome |\n|---|---|---|---|---|\n",
        );
        preset.replies.iter().for_each(|rule| row(text, rule));
    }
    let recorded = &preset.recorded;
    writeln!(text, "\nWritten down on {recorded} from: {}.", preset.sources.join("; ")).unwrap();
}

fn row(text: &mut String, rule: &ReplyRule) {
    let command = rule.command.map(|command| serde_yaml::to_string(&command).unwrap().trim().to_owned());
    let outcome = match (rule.outcome, rule.after_seconds) {
        (ReplyOutcome::Park, Some(seconds)) => format!("Park for {seconds} s"),
        (outcome, _) => format!("{outcome:?}"),
    };
    writeln!(
        text,
        "| {} | {} | {} | {} | {outcome} |",
        command.unwrap_or_default(),
        rule.code.map(|code| code.to_string()).unwrap_or_default(),
        rule.enhanced_code.as_deref().unwrap_or_default(),
        rule.text.as_deref().unwrap_or_default()
    )
    .unwrap();
}
