//! A job made ready for an upstream: its envelope and content read, and held against what the upstream offers.

use smtp_protocol::{Body, Extensions, ForwardPath, ReversePath, Transaction, TransactionRecipient, Unmet};

use super::Job;
use super::content::Content;
use super::non_ascii::NonAscii;
use crate::messages::Messages;
use crate::spool::SpoolError;

/// What a job comes to.
pub(super) enum Prepared {
    /// It can be sent.
    Ready(Transaction, Content),
    /// The upstream does not offer what the message needs.
    Unsupported(Unmet),
}

/// Reads the job's message.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn prepare(
    messages: &Messages,
    job: &Job,
    offered: &Extensions,
) -> Result<Prepared, SpoolError> {
    let mut transaction = transaction(messages, job).await?;
    if let Some(unmet) = unmet(messages, job, &mut transaction, offered).await? {
        return Ok(Prepared::Unsupported(unmet));
    }
    let content = Content::open(messages.content(job.id)?).await?;
    Ok(Prepared::Ready(transaction, content))
}

async fn transaction(messages: &Messages, job: &Job) -> Result<Transaction, SpoolError> {
    let envelope = messages.load(job.id).await?.envelope;
    let damaged = |reason: String| SpoolError::Damaged { id: job.id, reason };
    let recipients = job
        .recipients
        .iter()
        .map(|&index| {
            let recipient =
                envelope.recipients.get(index).ok_or_else(|| damaged("a recipient is missing".into()))?;
            let mailbox = recipient
                .address
                .parse()
                .map_err(|error| damaged(format!("a recipient is invalid: {error}")))?;
            Ok(TransactionRecipient {
                path: ForwardPath::Mailbox(mailbox),
                notify: recipient.notify,
                original: recipient.original.as_deref().and_then(|value| value.parse().ok()),
            })
        })
        .collect::<Result<Vec<_>, SpoolError>>()?;
    let reverse_path = if envelope.reverse_path.is_empty() {
        ReversePath::Null
    } else {
        let mailbox = envelope.reverse_path.parse();
        ReversePath::Mailbox(
            mailbox.map_err(|error| damaged(format!("the reverse-path is invalid: {error}")))?,
        )
    };
    Ok(Transaction {
        reverse_path,
        recipients,
        whole: job.in_transit,
        size: envelope.size,
        body: if envelope.eight_bit { Body::EightBitMime } else { Body::SevenBit },
        smtputf8: envelope.smtp_utf8,
        ret: envelope.ret,
        envelope_id: envelope.envelope_id.as_deref().and_then(|value| value.parse().ok()),
    })
}

/// What the message needs and the upstream does not offer. Where that depends on the content it is looked at, and the
/// transaction then declares what is so.
async fn unmet(
    messages: &Messages,
    job: &Job,
    transaction: &mut Transaction,
    offered: &Extensions,
) -> Result<Option<Unmet>, SpoolError> {
    if transaction.unmet(offered).is_none() {
        return Ok(None);
    }
    let mut content = messages.content(job.id)?;
    let mut seen = NonAscii::default();
    while let Some(chunk) = content.next().await? {
        seen.look(&chunk);
    }
    let addresses_are_ascii = transaction.reverse_path.is_ascii()
        && transaction.recipients.iter().all(|recipient| recipient.path.is_ascii());
    transaction.body = if seen.anywhere { Body::EightBitMime } else { Body::SevenBit };
    transaction.smtputf8 &= seen.in_header_section || !addresses_are_ascii;
    Ok(transaction.unmet(offered))
}
