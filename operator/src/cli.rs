//! The command line. Every flag of `run` may come from the environment, as the chart gives it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::check;
use crate::context::Settings;
use crate::controllers;
use crate::local;
use crate::relay_pool::build::RelayImage;
use crate::telemetry::LogFormat;
use crate::uninstall;

/// Keeps mail relays running as RelayPool and Upstream resources describe them.
#[derive(Debug, Parser)]
#[command(name = "postroad-operator", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How much to log: error, warn, info, debug, trace, or a list of directives.
    #[arg(long, global = true, env = "POSTROAD_LOG", default_value = "info")]
    pub log: String,
    /// How to write log lines.
    #[arg(long, global = true, env = "POSTROAD_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

/// What the operator can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch a Kubernetes API server and keep relay pods.
    Run(RunArguments),
    /// Watch a folder of manifests and keep relay processes on this machine.
    Local(LocalArguments),
    /// See whether an installation works: what `helm test` runs. Changes nothing.
    Check(CheckArguments),
    /// Stop the operators and let pools be deleted without one: what `helm uninstall` runs first. Relays run on.
    Uninstall(UninstallArguments),
}

/// When the kubelet pulls the relay image.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PullPolicy {
    #[value(name = "Always")]
    Always,
    #[value(name = "IfNotPresent")]
    IfNotPresent,
    #[value(name = "Never")]
    Never,
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The image of relay pods.
    #[arg(long, env = "POSTROAD_RELAY_IMAGE")]
    relay_image: String,
    /// When the kubelet pulls it.
    #[arg(long, env = "POSTROAD_RELAY_IMAGE_PULL_POLICY", value_enum, default_value = "IfNotPresent")]
    relay_image_pull_policy: PullPolicy,
    /// The namespace of the leader election's Lease. Default: the operator's own.
    #[arg(long, env = "POSTROAD_LEASE_NAMESPACE")]
    lease_namespace: Option<String>,
    /// The name of that Lease.
    #[arg(long, env = "POSTROAD_LEASE_NAME", default_value = "postroad-operator")]
    lease_name: String,
    /// Who this process is in the election. Default: the host's name and the process id.
    #[arg(long, env = "POSTROAD_IDENTITY")]
    identity: Option<String>,
    /// The namespaces to watch, separated by commas. Default: all.
    #[arg(long, env = "POSTROAD_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "POSTROAD_HEALTH_ADDRESS", default_value = "[::]:8080")]
    health_address: SocketAddr,
    /// The DNS domain of the cluster.
    #[arg(long, env = "POSTROAD_CLUSTER_DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
    /// A kubeconfig file. Default: KUBECONFIG or ~/.kube/config, and in a pod its own account.
    #[arg(long, env = "POSTROAD_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
}

/// Arguments of `local`.
#[derive(Debug, Args)]
pub struct LocalArguments {
    /// The folder with the manifests (*.yaml, *.yml): RelayPool, Upstream and Secret.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Where relays keep their configuration and their mail.
    #[arg(long, env = "POSTROAD_DATA", default_value = "./data", value_name = "DIR")]
    data: PathBuf,
    /// The postroad-relay binary. Default: the one beside this program, else the one in PATH.
    #[arg(long, env = "POSTROAD_RELAY", value_name = "FILE")]
    relay: Option<PathBuf>,
}

/// Which installation a command is about, and how it is reached.
#[derive(Debug, Args)]
struct Installation {
    /// The namespace of the leader election's Lease.
    #[arg(long, env = "POSTROAD_LEASE_NAMESPACE")]
    lease_namespace: String,
    /// The name of that Lease.
    #[arg(long, env = "POSTROAD_LEASE_NAME", default_value = "postroad-operator")]
    lease_name: String,
    /// The namespaces that the operator serves, separated by commas. Default: all.
    #[arg(long, env = "POSTROAD_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// A kubeconfig file. Default: KUBECONFIG or ~/.kube/config, and in a pod its own account.
    #[arg(long, env = "POSTROAD_KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArguments {
    #[command(flatten)]
    installation: Installation,
    /// How long the installation may take to become what it should be, in seconds.
    #[arg(long, default_value_t = 60)]
    wait_seconds: u64,
}

impl CheckArguments {
    /// The kubeconfig to use, and the options. An empty variable counts as unset.
    #[must_use]
    pub fn options(self) -> (Option<PathBuf>, check::Options) {
        let installation = self.installation;
        let options = check::Options {
            namespaces: named(installation.watch_namespaces),
            lease_namespace: installation.lease_namespace,
            lease_name: installation.lease_name,
            limit: Duration::from_secs(self.wait_seconds),
        };
        (given_path(installation.kubeconfig), options)
    }
}

/// Arguments of `uninstall`.
#[derive(Debug, Args)]
pub struct UninstallArguments {
    /// The operators' Deployment, in the Lease's namespace. Default: they have been stopped.
    #[arg(long, env = "POSTROAD_DEPLOYMENT")]
    deployment: Option<String>,
    #[command(flatten)]
    installation: Installation,
    /// How long the operators may take to stop, in seconds.
    #[arg(long, default_value_t = 60)]
    wait_seconds: u64,
}

impl UninstallArguments {
    /// The kubeconfig to use, and the options. An empty variable counts as unset. `host` is the machine's name and `process` the
    /// process id.
    #[must_use]
    pub fn options(self, host: &str, process: u32) -> (Option<PathBuf>, uninstall::Options) {
        let installation = self.installation;
        let options = uninstall::Options {
            namespaces: named(installation.watch_namespaces),
            deployment: self.deployment.filter(|name| !name.is_empty()),
            lease_namespace: installation.lease_namespace,
            lease_name: installation.lease_name,
            identity: format!("uninstall_{host}_{process}"),
            limit: Duration::from_secs(self.wait_seconds),
        };
        (given_path(installation.kubeconfig), options)
    }
}

/// An empty variable counts as unset.
fn given_path(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

fn named(names: Vec<String>) -> Vec<String> {
    names.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

impl LocalArguments {
    /// The options they stand for.
    #[must_use]
    pub fn options(self) -> local::Options {
        local::Options { directory: self.directory, data: self.data, relay: self.relay }
    }
}

impl RunArguments {
    /// The options they stand for. An empty variable counts as unset, because charts pass those. `host` is the machine's
    /// name and `process` the process id.
    #[must_use]
    pub fn options(self, host: &str, process: u32) -> controllers::Options {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        controllers::Options {
            kubeconfig: given_path(self.kubeconfig),
            namespaces: named(self.watch_namespaces),
            health_address: self.health_address,
            lease_namespace: given(self.lease_namespace),
            lease_name: self.lease_name,
            identity: given(self.identity).unwrap_or_else(|| format!("{host}_{process}")),
            settings: Settings {
                relay_image: RelayImage {
                    name: self.relay_image,
                    pull_policy: match self.relay_image_pull_policy {
                        PullPolicy::Always => "Always",
                        PullPolicy::IfNotPresent => "IfNotPresent",
                        PullPolicy::Never => "Never",
                    }
                    .to_owned(),
                },
                cluster_domain: self.cluster_domain.trim_end_matches('.').to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn empty_values_count_as_unset() {
        let cli = Cli::parse_from([
            "postroad-operator",
            "run",
            "--relay-image=r",
            "--watch-namespaces=",
            "--identity=",
            "--lease-namespace=",
        ]);
        let Command::Run(arguments) = cli.command else { panic!("not run") };
        let options = arguments.options("host", 7);
        assert_eq!((options.namespaces, options.identity.as_str()), (vec![], "host_7"));
        assert_eq!(options.lease_namespace, None);
    }

    #[test]
    fn namespaces_are_separated_by_commas() {
        let cli =
            Cli::parse_from(["postroad-operator", "run", "--relay-image=r", "--watch-namespaces=a, b,"]);
        let Command::Run(arguments) = cli.command else { panic!("not run") };
        assert_eq!(arguments.options("host", 7).namespaces, ["a", "b"]);
    }
}
