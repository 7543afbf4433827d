//! `postroad-operator`: reads the command line, starts logging, runs, and says in one sentence why it ended.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Parser;
use postroad_operator::cli::{CheckArguments, Cli, Command, UninstallArguments};
use postroad_operator::client::Objects;
use postroad_operator::{check, controllers, local, telemetry, uninstall};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("postroad-operator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<()> {
    telemetry::start(&cli.log, cli.log_format).map_err(|error| anyhow!(error))?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow!("another TLS provider is in use"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(async {
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        stop_on_signals(stop.clone(), kill.clone())?;
        match cli.command {
            Command::Run(arguments) => {
                controllers::run(arguments.options(&host(), std::process::id()), stop).await?;
            }
            Command::Local(arguments) => local::run(arguments.options(), stop, kill).await?,
            Command::Check(arguments) => check(arguments).await?,
            Command::Uninstall(arguments) => uninstall(arguments).await?,
        }
        Ok(())
    })
}

async fn check(arguments: CheckArguments) -> anyhow::Result<()> {
    let (kubeconfig, options) = arguments.options();
    let client = kube::Client::try_from(controllers::client_config(kubeconfig.as_deref()).await?)?;
    for line in check::check(&client, &options).await.map_err(|problem| anyhow!(problem))? {
        tracing::info!("{line}");
    }
    Ok(())
}

async fn uninstall(arguments: UninstallArguments) -> anyhow::Result<()> {
    let (kubeconfig, options) = arguments.options(&host(), std::process::id());
    let client = kube::Client::try_from(controllers::client_config(kubeconfig.as_deref()).await?)?;
    let objects = Objects::new(client.clone(), Arc::default());
    for line in uninstall::uninstall(&client, &objects, &options).await.map_err(|problem| anyhow!(problem))? {
        tracing::info!("{line}");
    }
    Ok(())
}

/// The first SIGTERM or SIGINT asks to stop, a second one to stop at once.
fn stop_on_signals(stop: CancellationToken, kill: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        for token in [stop, kill] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            token.cancel();
        }
    });
    Ok(())
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "postroad-operator".to_owned(),
        name => name.to_owned(),
    }
}
