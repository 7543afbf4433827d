//! `spec.limits` and `spec.headers`.

use postroad_crds::relay_config as relay;
use postroad_crds::v1alpha1::{Headers, Limits};

use super::place::At;
use crate::reason::Problem;

pub(super) fn limits(at: &At<'_>, spec: &Limits) -> Result<relay::Limits, Problem> {
    Ok(relay::Limits {
        message_bytes: at.octets("limits.messageSize", &spec.message_size)?,
        recipients_per_message: at.count("limits.recipientsPerMessage", spec.recipients_per_message)?,
        connections: at.count("limits.connections", spec.connections)?,
        connections_per_client: at.count("limits.connectionsPerClient", spec.connections_per_client)?,
        hops: at.count("limits.hops", spec.hops)?,
        messages_per_connection: at.count("limits.messagesPerConnection", spec.messages_per_connection)?,
        header_bytes: at.octets("limits.headerSize", &spec.header_size)?,
        header_fields: at.count("limits.headerFields", spec.header_fields)?,
        command_timeout_seconds: at.count("limits.commandTimeoutSeconds", spec.command_timeout_seconds)?,
        content_timeout_seconds: at.count("limits.contentTimeoutSeconds", spec.content_timeout_seconds)?,
        content_seconds: at.count("limits.contentSeconds", spec.content_seconds)?,
    })
}

/// Fields without which mail is not valid or loops are not found (RFC 5322 §3.6, RFC 5321 §6.3).
const UNREMOVABLE: [&str; 4] = ["received", "from", "date", "message-id"];

/// Field names compare without regard to case (RFC 5322 §1.2.2), so they are rendered in lower case.
pub(super) fn headers(at: &At<'_>, spec: Option<&Headers>) -> Result<relay::Headers, Problem> {
    let name = |text: &String| {
        let name = text.to_ascii_lowercase();
        if UNREMOVABLE.contains(&name.as_str()) {
            return Err(
                at.invalid("headers.remove", format!("{text} cannot be removed: take it off the list"))
            );
        }
        if name.is_empty() || !name.bytes().all(|octet| octet.is_ascii_graphic() && octet != b':') {
            return Err(at.invalid("headers.remove", format!("{text:?} is not the name of a header field")));
        }
        Ok(name)
    };
    let remove = spec.iter().flat_map(|headers| &headers.remove).map(name).collect::<Result<_, _>>()?;
    Ok(relay::Headers { remove })
}
