//! Why the control plane, or a command against it, failed.

use std::io;
use std::process::ExitStatus;

use crate::certificates::CertificateError;
use crate::processes::ProcessError;
use crate::waiting::TimedOut;

/// Why the control plane could not be started or asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// The control plane's binaries are not there and could not be built.
    #[error(
        "no control plane: {0}; `make control-plane` builds it, KUBEBUILDER_ASSETS names one that is there"
    )]
    NotBuilt(String),
    /// One of its processes could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// One of its processes ended where it should have served.
    #[error("{name} ended ({status}); its last words:\n{log}")]
    Ended {
        /// The process.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The tail of its output.
        log: String,
    },
    /// A file or a port failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The failure.
        source: io::Error,
    },
    /// Its certificates could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The kubeconfig is unusable.
    #[error("the kubeconfig is unusable: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// A request failed.
    #[error("the API server: {0}")]
    Api(#[from] kube::Error),
    /// kubectl or helm failed. `stderr` holds the API server's words.
    #[error("`{command}` ended with {status}\n{stderr}{stdout}")]
    Command {
        /// The command as it was run.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// Its standard output.
        stdout: String,
        /// Its standard error.
        stderr: String,
    },
    /// What was awaited did not come.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// The cluster of `POSTROAD_TEST_KUBECONFIG` is not the harness's to do this with.
    #[error("{0} needs the harness's own control plane, and POSTROAD_TEST_KUBECONFIG names another cluster")]
    NotOurs(&'static str),
}

/// Turns an I/O error into one that says what was tried.
pub(crate) fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> ControlPlaneError {
    let what = what.into();
    move |source| ControlPlaneError::Io { what, source }
}
