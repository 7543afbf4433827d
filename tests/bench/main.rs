//! `make bench`: Postroad and Postfix carry the same mail in turn, on this machine, in one run.
//!
//! source → relay → sink, all on loopback; both relays keep each message on stable storage before they acknowledge it.
//! A figure of one relay alone says more about the machine than about the relay: only the comparison is a claim.
//! Called by make; writes docs/reference/performance.{md,json} with `--update`.

#![allow(clippy::print_stdout, reason = "it is a command whose output is its result")]

mod contender;
mod machine;
mod message;
mod postfix;
mod postroad;
mod process_tree;
mod report;
mod sink;
mod source;
mod trial;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

use contender::Contender;
use report::Report;
use sink::Sink;
use source::Load;
use trial::Trial;

/// Compares the throughput of Postroad and Postfix, end to end.
#[derive(Parser)]
struct Cli {
    /// Messages in a trial.
    #[arg(long, default_value_t = 10_000)]
    messages: usize,
    /// Octets of a message's body.
    #[arg(long, default_value_t = 10_240)]
    octets: usize,
    /// Clients that send at the same time.
    #[arg(long, default_value_t = 50)]
    sessions: usize,
    /// Trials of each relay in each way of sending; the report gives medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only this relay, for looking into it: no report is written.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Write the report into this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "only")]
    update: Option<PathBuf>,
}

/// Sent before anything is measured, so that neither relay is measured while it starts processes or opens files.
const WARM_UP: usize = 1_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let sink = Sink::start().context("the sink could not be started")?;
    let mut contenders = Vec::new();
    for start in contender::all() {
        if cli.only.as_deref().is_none_or(|only| only == start.name) {
            contenders.push((start.run)(sink.port()).await.with_context(|| start.name)?);
        }
    }
    anyhow::ensure!(!contenders.is_empty(), "--only names neither Postroad nor Postfix");
    let mut trials = Vec::new();
    for contender in &contenders {
        run(contender, &sink, &Load { messages: WARM_UP.min(cli.messages), ..load(&cli, true) }).await?;
    }
    for round in 1..=cli.rounds {
        for kept in [true, false] {
            for contender in &contenders {
                let trial = run(contender, &sink, &load(&cli, kept)).await?;
                println!("round {round}: {trial}");
                trials.push(trial);
            }
        }
    }
    let report = Report::new(machine::describe(&contenders), &trials);
    println!("\n{}", report.table());
    match &cli.update {
        Some(folder) => report.write(folder),
        None => Ok(()),
    }
}

fn load(cli: &Cli, kept: bool) -> Load {
    Load { messages: cli.messages, octets: cli.octets, sessions: cli.sessions, kept }
}

async fn run(contender: &Contender, sink: &Sink, load: &Load) -> anyhow::Result<Trial> {
    trial::run(contender, sink, load)
        .await
        .with_context(|| format!("{} did not carry the mail", contender.name))
}
