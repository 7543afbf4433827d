//! What an upstream's reply means, as data: one rule a line, in the provider presets, in an Upstream's `spec.replies` and in the
//! RelayConfig. The relay matches them in order and falls back on the classes of RFC 5321 §4.2.1.

use serde::{Deserialize, Serialize};

/// What replies of one kind mean. Every part that is set must match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "resources", derive(kube::KubeSchema))]
#[cfg_attr(
    feature = "resources",
    x_kube(
        validation = Rule::new("has(self.code) || has(self.enhancedCode) || has(self.text)")
            .message("a reply rule needs at least one of code, enhancedCode and text"),
        validation = Rule::new("(self.outcome == 'Park') == has(self.afterSeconds)")
            .message("outcome Park needs afterSeconds, and only that outcome may have it"),
        validation = Rule::new("self.outcome != 'Refuse' || !has(self.command) || !(self.command in ['Greeting', 'EHLO', 'STARTTLS', 'AUTH'])")
            .message("before MAIL there is no message to refuse: use Park, TripBreaker or CredentialsRejected"),
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplyRule {
    /// The command that was answered: `Greeting`, `EHLO`, `STARTTLS`, `AUTH`, `MAIL`, `RCPT`, `DATA` or `Content` (the reply
    /// after the final dot). Without it any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<ReplyCommand>,
    /// The reply code, for example 454.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "resources", schemars(range(min = 400, max = 599)))]
    pub code: Option<i32>,
    /// The enhanced status code (RFC 3463), for example `4.7.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(
        feature = "resources",
        schemars(length(max = 11), regex(pattern = r"^[45]\.[0-9]{1,3}\.[0-9]{1,3}$"))
    )]
    pub enhanced_code: Option<String>,
    /// What the reply's text contains, in any case of letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "resources", schemars(length(min = 1, max = 256)))]
    pub text: Option<String>,
    /// `Retry`: the recipient is tried again after the queue's backoff. `Park`: the upstream gets no mail for `afterSeconds`, and
    /// waiting is not counted as an attempt. `Refuse`: the recipient is returned to the sender. `TripBreaker`: the upstream is
    /// unwell: it gets one message at a time, at growing intervals, until one is delivered. `CredentialsRejected`: the same, and
    /// the log asks for the credentials to be looked at.
    pub outcome: ReplyOutcome,
    /// For `Park`: for how long, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "resources", schemars(range(min = 1, max = 86_400)))]
    pub after_seconds: Option<i32>,
}

/// The command that a reply answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "resources", derive(schemars::JsonSchema))]
pub enum ReplyCommand {
    /// The greeting.
    Greeting,
    /// EHLO, or HELO.
    #[serde(rename = "EHLO")]
    Ehlo,
    /// STARTTLS.
    #[serde(rename = "STARTTLS")]
    StartTls,
    /// AUTH.
    #[serde(rename = "AUTH")]
    Auth,
    /// MAIL.
    #[serde(rename = "MAIL")]
    Mail,
    /// RCPT.
    #[serde(rename = "RCPT")]
    Rcpt,
    /// DATA, before the content.
    #[serde(rename = "DATA")]
    Data,
    /// The content, after its final dot.
    Content,
}

/// What a negative reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "resources", derive(schemars::JsonSchema))]
pub enum ReplyOutcome {
    /// Again after the queue's backoff.
    Retry,
    /// Nothing for this upstream for a while.
    Park,
    /// Back to the sender.
    Refuse,
    /// The upstream is unwell.
    TripBreaker,
    /// The upstream does not believe the credentials.
    CredentialsRejected,
}
