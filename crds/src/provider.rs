//! What is known of mail services: one file a provider below `providers/`, read here and nowhere else.
//!
//! The operator fills an Upstream from its provider's preset where the Upstream says nothing itself. Figures of services
//! change, so every file names its sources and the day its figures were written down; `docs/reference/providers.md` is made from
//! the same files.

use serde::{Deserialize, Serialize};

use crate::relay_config::{Rate, UpstreamPort};
use crate::reply_rule::ReplyRule;

/// A mail service with a preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "resources", derive(schemars::JsonSchema))]
pub enum Provider {
    /// Amazon Simple Email Service.
    SES,
    /// Microsoft 365, client submission.
    Microsoft365,
    /// Gmail and Google Workspace mailboxes.
    Gmail,
    /// The SMTP relay service of Google Workspace.
    GoogleWorkspaceRelay,
    /// Twilio SendGrid.
    SendGrid,
    /// Mailgun.
    Mailgun,
    /// Postmark.
    Postmark,
}

/// What is known of one service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Preset {
    /// The service's name.
    pub title: String,
    /// Its hosts. The first is the default, unless `<` in it says that a part depends on the account.
    pub hosts: Vec<String>,
    /// Its ports, in the order they are tried.
    pub ports: Vec<UpstreamPort>,
    /// Its bounds on connections.
    #[serde(default)]
    pub connections: PresetConnections,
    /// What it takes from everybody. Not set where that depends on the account.
    #[serde(default)]
    pub rates: Vec<Rate>,
    /// What its replies mean where that is not what RFC 5321 says.
    #[serde(default)]
    pub replies: Vec<ReplyRule>,
    /// What a user has to know besides.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Titles of the documents that say so.
    pub sources: Vec<String>,
    /// The day the figures were written down.
    pub recorded: String,
}

/// A service's bounds on connections. What is not set is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PresetConnections {
    /// As [`Connections::maximum`](crate::relay_config::Connections::maximum), for all relays together.
    pub maximum: Option<u32>,
    /// Messages after which a session is to end.
    pub messages_per_connection: Option<u32>,
    /// Seconds without a message.
    pub idle_timeout_seconds: Option<u32>,
    /// Seconds of age.
    pub maximum_age_seconds: Option<u32>,
}

impl Preset {
    /// The host to use when the Upstream names none.
    #[must_use]
    pub fn default_host(&self) -> Option<&str> {
        self.hosts.first().map(String::as_str).filter(|host| !host.contains('<'))
    }
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SES,
        Self::Microsoft365,
        Self::Gmail,
        Self::GoogleWorkspaceRelay,
        Self::SendGrid,
        Self::Mailgun,
        Self::Postmark,
    ];

    const fn data(self) -> &'static str {
        match self {
            Self::SES => include_str!("providers/ses.yaml"),
            Self::Microsoft365 => include_str!("providers/microsoft365.yaml"),
            Self::Gmail => include_str!("providers/gmail.yaml"),
            Self::GoogleWorkspaceRelay => include_str!("providers/google-workspace-relay.yaml"),
            Self::SendGrid => include_str!("providers/sendgrid.yaml"),
            Self::Mailgun => include_str!("providers/mailgun.yaml"),
            Self::Postmark => include_str!("providers/postmark.yaml"),
        }
    }

    /// What is known of it.
    ///
    /// # Panics
    /// Never: a test reads every file.
    #[must_use]
    pub fn preset(self) -> Preset {
        serde_yaml::from_str(self.data()).expect("a test reads every preset")
    }
}
