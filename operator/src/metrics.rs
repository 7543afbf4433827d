//! The operator's metrics, in Prometheus' text format. Labels have closed sets of values; names of objects are not among them.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::reason::Reason;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Server-side apply of an object.
    Apply,
    /// Server-side apply of a status.
    ApplyStatus,
    /// A merge patch.
    Patch,
    /// A deletion.
    Delete,
}

impl Verb {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "apply",
            Self::ApplyStatus => "apply_status",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The object is as it should be.
    Settled,
    /// The object or what it names cannot be used; its status says why.
    Refused,
    /// Something failed; it is tried again.
    Failed,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    kind: &'static str,
    reason: ReasonLabel,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    verb: &'static str,
    kind: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ReasonLabel(Reason);

impl EncodeLabelValue for ReasonLabel {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.0.as_str(), encoder)
    }
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Counter>,
    errors: Family<ReasonLabels, Counter>,
    writes: Family<WriteLabels, Counter>,
    leader: Gauge<i64, AtomicI64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("postroad_operator");
        let (reconciles, errors, writes) = (Family::default(), Family::default(), Family::default());
        let leader = Gauge::default();
        registry.register("reconciles", "Reconciles by kind and result", reconciles.clone());
        registry.register(
            "errors",
            "Objects found unusable and calls that failed, by kind and reason",
            errors.clone(),
        );
        registry.register(
            "writes",
            "Writes to the API server by verb and kind; the Lease is not counted",
            writes.clone(),
        );
        registry.register("leader", "1 while this process holds the Lease", leader.clone());
        Self { registry, reconciles, errors, writes, leader }
    }
}

impl Metrics {
    /// Counts a reconcile of an object of this kind.
    pub fn reconcile(&self, kind: &'static str, outcome: Outcome) {
        self.reconciles.get_or_create(&ReconcileLabels { kind, result: outcome.as_str() }).inc();
    }

    /// Counts a problem with an object of this kind.
    pub fn error(&self, kind: &'static str, reason: Reason) {
        self.errors.get_or_create(&ReasonLabels { kind, reason: ReasonLabel(reason) }).inc();
    }

    /// Counts a write.
    pub fn write(&self, verb: Verb, kind: &str) {
        self.writes.get_or_create(&WriteLabels { verb: verb.as_str(), kind: kind.to_owned() }).inc();
    }

    /// Says whether this process leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Everything in Prometheus' text format (OpenMetrics).
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_things_appear_with_their_labels() {
        let metrics = Metrics::default();
        metrics.reconcile("RelayPool", Outcome::Refused);
        metrics.error("RelayPool", Reason::SecretNotFound);
        metrics.write(Verb::Apply, "Service");
        metrics.leads(true);
        let text = metrics.render();
        for line in [
            "postroad_operator_reconciles_total{kind=\"RelayPool\",result=\"refused\"} 1",
            "postroad_operator_errors_total{kind=\"RelayPool\",reason=\"SecretNotFound\"} 1",
            "postroad_operator_writes_total{verb=\"apply\",kind=\"Service\"} 1",
            "postroad_operator_leader 1",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
    }
}
