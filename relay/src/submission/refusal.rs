//! Refusals of the policy: what decided, and the reply that says so.

use smtp_protocol::Reply;

/// What decided that a client is refused: a closed set, the `reason` label of `postroad_relay_refusals_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The listener wants AUTH.
    AuthenticationRequired,
    /// No identity of the pool recognises the client.
    Identity,
    /// The client has shown no certificate where one is required, or one that is not valid.
    ClientCertificate,
    /// The user that authenticated is not in the policy any more.
    UsersChanged,
    /// The client's address failed AUTH too often.
    Throttled,
    /// The identity or user may not send from this address.
    Sender,
    /// No route takes the recipient.
    Route,
    /// The message has been through too many servers.
    Loop,
    /// The spool takes no mail now.
    Spool,
    /// The relay has no memory for more mail now.
    Memory,
    /// An upstream has not taken a message that passes through, or none could be asked.
    Upstream,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::AuthenticationRequired,
        Self::Identity,
        Self::ClientCertificate,
        Self::UsersChanged,
        Self::Throttled,
        Self::Sender,
        Self::Route,
        Self::Loop,
        Self::Spool,
        Self::Memory,
        Self::Upstream,
    ];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AuthenticationRequired => "authentication-required",
            Self::Identity => "identity",
            Self::ClientCertificate => "client-certificate",
            Self::UsersChanged => "users-changed",
            Self::Throttled => "throttled",
            Self::Sender => "sender",
            Self::Route => "route",
            Self::Loop => "loop",
            Self::Spool => "spool",
            Self::Memory => "memory",
            Self::Upstream => "upstream",
        }
    }
}

/// A reply that refuses, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What decided.
    pub reason: Reason,
    /// What the client is told.
    pub reply: Reply,
}

impl Refusal {
    /// A refusal by `reason` with this code, enhanced code and text.
    pub fn new(reason: Reason, code: u16, enhanced: (u8, u16, u16), text: impl Into<String>) -> Self {
        Self { reason, reply: Reply::new(code, enhanced, text) }
    }
}
