//! `postroad-relay`: the command line around the library.

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use postroad_relay::queue_command::{self, QueueArguments};
use postroad_relay::relay::{self, Arguments};
use postroad_relay::sandbox;
use postroad_relay::telemetry::{self, LogFormat};
use postroad_relay::upstream_command::{self, UpstreamArguments};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Accepts mail over SMTP, keeps it durably and forwards it over persistent sessions.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a relay of a pool.
    Run {
        /// The configuration that the operator renders.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The folder for the spool.
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// This relay's number in its pool, from 0.
        #[arg(long, env = "POSTROAD_ORDINAL", default_value_t = 0)]
        ordinal: u32,
        /// Where /healthz, /readyz, /metrics and the admin API are served.
        #[arg(long, env = "POSTROAD_ADMIN_ADDRESS", default_value = "127.0.0.1:9090")]
        admin: SocketAddr,
        /// Octets of memory it may use: beyond 85 % of them clients are asked to come back later.
        #[arg(long, env = "POSTROAD_MEMORY_LIMIT", value_name = "OCTETS")]
        memory_limit: Option<u64>,
        /// What is logged: a level, or levels per module.
        #[arg(long, env = "POSTROAD_LOG", default_value = "info")]
        log: String,
        /// How log lines look.
        #[arg(long, env = "POSTROAD_LOG_FORMAT", default_value = "text")]
        log_format: LogFormat,
    },
    /// Looks at the queue of the relay that runs here, and gives orders for what is in it.
    Queue(QueueArguments),
    /// Shows where the upstreams of the relay stand that runs here, drains one or resumes it.
    Upstream(UpstreamArguments),
    /// Shows what sandbox upstreams have captured.
    Sandbox {
        #[command(subcommand)]
        command: SandboxCommand,
    },
}

#[derive(Subcommand)]
enum SandboxCommand {
    /// Lists captured messages, oldest first.
    List {
        /// The relay's data folder.
        #[arg(long, env = "POSTROAD_DATA", value_name = "DIR")]
        data: PathBuf,
    },
    /// Prints one captured message.
    Show {
        /// The relay's data folder.
        #[arg(long, env = "POSTROAD_DATA", value_name = "DIR")]
        data: PathBuf,
        /// Its name in the list.
        id: String,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run { config, data, ordinal, admin, memory_limit, log, log_format } => {
            run(Arguments { config, data, ordinal, admin, memory_limit }, &log, log_format)
        }
        Command::Queue(arguments) => queue(arguments),
        Command::Upstream(arguments) => upstream(arguments),
        Command::Sandbox { command } => show(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(error)
            if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "postroad-relay: {}", telemetry::sentence(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments, log: &str, format: LogFormat) -> anyhow::Result<()> {
    telemetry::start(log, format)?;
    raise_open_files();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        relay::run(arguments, stop).await
    })
}

/// Each session is a file descriptor, and the customary soft limit of 1024 is made for programs that use `select`. What the
/// hard limit allows is taken.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(maximum = ?limit.maximum, "open files"),
        Err(error) => {
            tracing::warn!(%error, current = ?limit.current, "the limit of open files cannot be raised")
        }
    }
}

fn queue(arguments: QueueArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(queue_command::run(arguments, &mut std::io::stdout().lock()))
}

fn upstream(arguments: UpstreamArguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(upstream_command::run(arguments, &mut std::io::stdout().lock()))
}

fn show(command: &SandboxCommand) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match command {
        SandboxCommand::List { data } => {
            for captured in sandbox::list(data)? {
                let to = captured.to.join(", ");
                writeln!(
                    out,
                    "{}  {}  session {}  {} -> {to}  {}",
                    captured.id, captured.upstream, captured.session, captured.from, captured.subject
                )?;
            }
        }
        SandboxCommand::Show { data, id } => match sandbox::show(data, id)? {
            Some(content) => out.write_all(&content)?,
            None => {
                anyhow::bail!("no captured message is named {id}; `postroad-relay sandbox list` names them")
            }
        },
    }
    Ok(())
}
