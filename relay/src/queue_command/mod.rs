//! `postroad-relay queue …`: the admin API for people, run where the relay runs (`kubectl exec POD -- postroad-relay queue list`).

mod text;

use std::io::Write;

use clap::{Args, Subcommand};

use crate::admin::{API, Done, Message, MessageState, Page, Search};
use crate::admin_client::{Client, ClientArguments, print_json};
use crate::message::MessageId;
use crate::order::Act;

/// The relay to ask, and what.
#[derive(Debug, Args)]
pub struct QueueArguments {
    #[command(flatten)]
    client: ClientArguments,
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Lists queued messages, oldest first.
    List(ListArguments),
    /// Shows one message.
    Show {
        /// The queue id.
        id: MessageId,
    },
    /// Tries messages again now.
    Retry(Messages),
    /// Leaves messages alone until they are released.
    Hold(Messages),
    /// Lets held messages go on, now.
    Release(Messages),
    /// Gives messages up; nobody is told but the log.
    Drop(Messages),
}

#[derive(Debug, Args)]
struct Messages {
    /// The queue ids.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<MessageId>,
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Only mail of this identity.
    #[arg(long, value_name = "IDENTITY")]
    tenant: Option<String>,
    /// Only mail from this mailbox or domain; <> for notifications.
    #[arg(long, value_name = "MAILBOX")]
    sender: Option<String>,
    /// Only mail with a queued recipient in this domain.
    #[arg(long, value_name = "DOMAIN")]
    recipient_domain: Option<String>,
    /// Only mail that goes to this Upstream.
    #[arg(long, value_name = "NAME")]
    upstream: Option<String>,
    /// Only mail accepted at least so many seconds ago.
    #[arg(long, value_name = "SECONDS")]
    minimum_age_seconds: Option<u64>,
    /// Only mail in this state.
    #[arg(long, value_name = "STATE")]
    state: Option<MessageState>,
    /// At most so many messages.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    /// Only mail accepted after this message.
    #[arg(long, value_name = "ID")]
    after: Option<MessageId>,
}

/// Carries out what was asked and prints what came of it.
///
/// # Errors
/// When the token cannot be read, the relay does not answer or refuses; the text says what to do. When `out` cannot be written.
pub async fn run(arguments: QueueArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let client = Client::new(&arguments.client)?;
    match arguments.order {
        Order::List(list) => {
            let page = search(&client, list).await?;
            if arguments.client.json {
                return print_json(out, &page);
            }
            text::page(out, &page)?;
        }
        Order::Show { id } => {
            let message: Message = client.get(&format!("{API}/queue/{id}")).await?;
            if arguments.client.json {
                return print_json(out, &message);
            }
            text::message(out, &message)?;
        }
        Order::Retry(messages) => give(&client, Act::Retry, messages, out).await?,
        Order::Hold(messages) => give(&client, Act::Hold, messages, out).await?,
        Order::Release(messages) => give(&client, Act::Release, messages, out).await?,
        Order::Drop(messages) => give(&client, Act::Drop, messages, out).await?,
    }
    Ok(())
}

/// Gives the order for one message after the other, and ends at the first that is refused.
async fn give(client: &Client, act: Act, messages: Messages, out: &mut impl Write) -> anyhow::Result<()> {
    let verb = act.name();
    for id in messages.ids {
        let Done { id, .. } = client.post(&format!("{API}/queue/{id}/{verb}")).await?;
        writeln!(out, "{id} {verb}: done")?;
    }
    Ok(())
}

/// Goes on until there are as many messages as asked for, or no more.
async fn search(client: &Client, list: ListArguments) -> anyhow::Result<Page> {
    let ListArguments {
        tenant,
        sender,
        recipient_domain,
        upstream,
        minimum_age_seconds,
        state,
        limit,
        after,
    } = list;
    let mut found = Page { messages: Vec::new(), next: after };
    loop {
        let rest = limit.saturating_sub(found.messages.len());
        let search = Search {
            tenant: tenant.clone(),
            sender: sender.clone(),
            recipient_domain: recipient_domain.clone(),
            upstream: upstream.clone(),
            minimum_age_seconds,
            state,
            limit: Some(rest),
            after: found.next,
        };
        let query = serde_urlencoded::to_string(&search)?;
        let page: Page = client.get(&format!("{API}/queue?{query}")).await?;
        found.messages.extend(page.messages);
        found.next = page.next;
        if found.next.is_none() || found.messages.len() >= limit {
            return Ok(found);
        }
    }
}
