//! `postroad-relay upstream …`: where the upstreams of the relay stand that runs here, and orders to drain one or to resume it.

use std::io::Write;

use clap::{Args, Subcommand};
use postroad_crds::relay_config::Standing;

use crate::admin::{API, Upstreams};
use crate::admin_client::{Client, ClientArguments, print_json};
use crate::order::{UpstreamAct, UpstreamState};

/// The relay to ask, and what.
#[derive(Debug, Args)]
pub struct UpstreamArguments {
    #[command(flatten)]
    client: ClientArguments,
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Lists the upstreams.
    List,
    /// Gives an upstream no more mail, until it is resumed or the relay restarts.
    Drain {
        /// The Upstream.
        name: String,
    },
    /// Gives a drained upstream mail again.
    Resume {
        /// The Upstream.
        name: String,
    },
}

/// Carries out what was asked and prints what came of it.
///
/// # Errors
/// When the token cannot be read, the relay does not answer or refuses; the text says what to do. When `out` cannot be written.
pub async fn run(arguments: UpstreamArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let client = Client::new(&arguments.client)?;
    let upstreams = match arguments.order {
        Order::List => client.get(&format!("{API}/upstreams")).await?,
        Order::Drain { name } => give(&client, &name, UpstreamAct::Drain).await?,
        Order::Resume { name } => give(&client, &name, UpstreamAct::Resume).await?,
    };
    if arguments.client.json {
        return print_json(out, &upstreams);
    }
    upstreams.upstreams.iter().try_for_each(|state| line(out, state))?;
    Ok(())
}

async fn give(client: &Client, name: &str, act: UpstreamAct) -> anyhow::Result<Upstreams> {
    let state = client.post(&format!("{API}/upstreams/{name}/{}", act.name())).await?;
    Ok(Upstreams { upstreams: vec![state] })
}

fn line(out: &mut impl Write, state: &UpstreamState) -> std::io::Result<()> {
    let UpstreamState { name, drained, waiting, sessions, allowed_sessions, obstacle, standing, .. } = state;
    let stands = match standing {
        Standing::Works => "works",
        Standing::Untried => "untried",
        Standing::Fails => "fails",
        Standing::Drained => "drained",
        Standing::NoShare => "no share",
        Standing::Unknown => "unknown",
    };
    write!(out, "{name}  {stands}  {waiting} waiting  {sessions} of {allowed_sessions} sessions")?;
    if let Some(port) = state.port {
        write!(out, "  port {port}")?;
    }
    if !state.passed_over.is_empty() {
        write!(out, " instead of {}", state.passed_over.join("; "))?;
    }
    if let Some(why) = obstacle.as_ref().filter(|_| !drained) {
        write!(out, "  {why}")?;
    }
    writeln!(out)
}
