//! The real `postroad-relay`, run as a pod would run it: its configuration mounted, its data on a folder, an admin port.
//!
//! Not a relay in the test's own process: SIGKILL has to mean what it means in production. Called by the mail-flow suites.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use postroad_crds::admin_token;
use postroad_crds::relay_config::{FILE_NAME, RelayConfig};
use tempfile::TempDir;

use crate::binaries::{BinaryMissing, locate};
use crate::http::{self, Response};
use crate::mounted_folder::MountedFolder;
use crate::ports::free_port;
use crate::processes::{Log, Process, ProcessError, Program, Signal};
use crate::prometheus::Metrics;
use crate::recipients::Recipients;
use crate::waiting::TimedOut;

/// The token of every relay's admin API.
pub const ADMIN_TOKEN: &str = "token-of-the-test-0123456789abcdef";
/// How long a relay may take until it is ready, unless a test says otherwise.
pub const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long a relay may take to end.
const END_LIMIT: Duration = Duration::from_secs(60);
/// Rest between two looks at `/readyz`, which cannot be watched.
const POLL_REST: Duration = Duration::from_millis(10);

/// Why a relay could not be run or asked.
#[derive(Debug, thiserror::Error)]
pub enum RelayProcessError {
    /// It was not built.
    #[error(transparent)]
    Binary(#[from] BinaryMissing),
    /// It could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// Its folder, its configuration or its admin port failed.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The failure.
        source: io::Error,
    },
    /// The configuration cannot be written as YAML.
    #[error("the relay's configuration cannot be rendered: {0}")]
    Render(#[from] serde_yaml::Error),
    /// It ended where it should have become ready.
    #[error("the relay ended ({status}) before it was ready; its last words:\n{log}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The tail of its output.
        log: String,
    },
    /// It did not get where it was expected.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> RelayProcessError {
    let what = what.into();
    move |source| RelayProcessError::Io { what, source }
}

/// How to run a relay.
#[derive(Clone, Debug)]
pub struct RelayOptions {
    /// Its ordinal in the pool.
    pub ordinal: u32,
    /// Where it keeps its spool; `None` keeps it in the relay's own temporary folder.
    pub data: Option<PathBuf>,
    /// The log filter (`POSTROAD_LOG`).
    pub log: String,
    /// Further environment variables.
    pub environment: Vec<(String, String)>,
    /// How long it may take until it is ready.
    pub ready_limit: Duration,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self {
            ordinal: 0,
            data: None,
            log: "info".to_owned(),
            environment: Vec::new(),
            ready_limit: READY_LIMIT,
        }
    }
}

/// A relay process with its folders.
///
/// Dropping it kills the process, prints the tail of its log if the test is panicking, and removes its temporary folder.
pub struct RelayProcess {
    // Before `folder`: fields are dropped in order, and the process has to be gone before its folder is.
    process: Process,
    config: MountedFolder,
    program: Program,
    admin: SocketAddr,
    data: PathBuf,
    ready_limit: Duration,
    /// The account of recipients when it was last looked at.
    account: Mutex<Option<Recipients>>,
    _folder: TempDir,
}

impl RelayProcess {
    /// Starts a relay with this configuration and waits until it is ready.
    ///
    /// # Errors
    /// [`RelayProcessError`]: not built, not started, ended, or not ready in time.
    pub async fn start(config: &RelayConfig, options: RelayOptions) -> Result<Self, RelayProcessError> {
        let relay = Self::launch(&config.to_yaml()?, options).await?;
        relay.wait_ready().await?;
        Ok(relay)
    }

    /// Starts a relay with this text as its configuration file and does not wait: for configurations it must refuse.
    ///
    /// # Errors
    /// [`RelayProcessError`]: not built or not started.
    pub async fn launch(config: &str, options: RelayOptions) -> Result<Self, RelayProcessError> {
        let folder = TempDir::with_prefix("postroad-relay-").map_err(failed("a folder for the relay"))?;
        let data = options.data.unwrap_or_else(|| folder.path().join("data"));
        std::fs::create_dir_all(&data).map_err(failed("the relay's data folder"))?;
        let mounted =
            MountedFolder::new(folder.path().join("config")).map_err(failed("the relay's mount"))?;
        write_config(&mounted, config)?;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().map_err(failed("an admin port"))?));
        let arguments = vec![
            "run".to_owned(),
            "--config".to_owned(),
            mounted.path().join(FILE_NAME).display().to_string(),
            "--data".to_owned(),
            data.display().to_string(),
            "--ordinal".to_owned(),
            options.ordinal.to_string(),
            "--admin".to_owned(),
            admin.to_string(),
        ];
        let mut environment = options.environment;
        environment.push(("POSTROAD_LOG".to_owned(), options.log));
        let name = format!("postroad-relay {}", options.ordinal);
        let program = Program { name, path: locate("postroad-relay")?, arguments, environment };
        let process = Process::start(program.clone()).await?;
        let ready_limit = options.ready_limit;
        Ok(Self {
            process,
            config: mounted,
            program,
            admin,
            data,
            ready_limit,
            account: Mutex::default(),
            _folder: folder,
        })
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// [`RelayProcessError::Ended`] at once when the process ends; [`RelayProcessError::TimedOut`] with the last answer.
    pub async fn wait_ready(&self) -> Result<(), RelayProcessError> {
        self.wait_for_readiness(true, self.ready_limit).await
    }

    /// Waits until `/readyz` answers 200 (`ready`) or anything else (`!ready`), for at most `limit`.
    ///
    /// # Errors
    /// As [`Self::wait_ready`].
    pub async fn wait_for_readiness(&self, ready: bool, limit: Duration) -> Result<(), RelayProcessError> {
        let begin = Instant::now();
        loop {
            let answer = http::get(self.admin, "/readyz").await;
            if matches!(&answer, Ok(response) if (response.status == 200) == ready) {
                return Ok(());
            }
            if let Some(status) = self.process.exited() {
                return Err(RelayProcessError::Ended { status, log: self.process.log().tail(40) });
            }
            if begin.elapsed() >= limit {
                let what = format!("{} at {} to be {}", self.program.name, self.admin, readiness(ready));
                let found = format!("/readyz: {answer:?}; its last words:\n{}", self.process.log().tail(20));
                return Err(TimedOut { what, waited: limit, found }.into());
            }
            tokio::time::sleep(POLL_REST).await;
        }
    }

    /// Replaces the configuration as the kubelet does; the relay notices by itself.
    ///
    /// # Errors
    /// [`RelayProcessError::Render`] or [`RelayProcessError::Io`].
    pub fn rewrite_config(&self, config: &RelayConfig) -> Result<(), RelayProcessError> {
        self.rewrite_config_text(&config.to_yaml()?)
    }

    /// The same with any text, for configurations the relay must refuse.
    ///
    /// # Errors
    /// [`RelayProcessError::Io`].
    pub fn rewrite_config_text(&self, config: &str) -> Result<(), RelayProcessError> {
        write_config(&self.config, config)
    }

    /// Kills the process (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// [`RelayProcessError::TimedOut`].
    ///
    /// # Panics
    /// As [`Self::scrape`].
    pub async fn sigkill(&self) -> Result<ExitStatus, RelayProcessError> {
        // What it accounts for last is what its successor must know; it may be dead already.
        let _ = self.scrape().await;
        self.signal(Signal::Kill);
        self.wait(END_LIMIT).await
    }

    /// Asks the process to end (SIGTERM) and does not wait.
    pub fn sigterm(&self) {
        self.signal(Signal::Terminate);
    }

    /// Sends any signal and does not wait.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// [`RelayProcessError::TimedOut`] after `limit`, with the tail of its log.
    pub async fn wait(&self, limit: Duration) -> Result<ExitStatus, RelayProcessError> {
        Ok(self.process.wait(limit).await?)
    }

    /// Starts the process again, killed first if it runs, with the same arguments, ports and folders; waits until it is ready.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn restart(&mut self) -> Result<(), RelayProcessError> {
        self.relaunch().await?;
        self.wait_ready().await?;
        self.scrape().await.map(drop)
    }

    /// The same without waiting: for relays that never are ready, because they are to leave.
    ///
    /// # Errors
    /// [`RelayProcessError::TimedOut`] or [`RelayProcessError::Process`].
    pub async fn relaunch(&mut self) -> Result<(), RelayProcessError> {
        self.sigkill().await?;
        self.process = Process::start(self.program.clone()).await?;
        Ok(())
    }

    /// Asks the admin port.
    ///
    /// # Errors
    /// [`RelayProcessError::Io`].
    pub async fn get(&self, path: &str) -> Result<Response, RelayProcessError> {
        let what = format!("GET {path} from {} at {}", self.program.name, self.admin);
        http::get(self.admin, path).await.map_err(failed(what))
    }

    /// Asks the admin API, with the token.
    ///
    /// # Errors
    /// [`RelayProcessError::Io`].
    pub async fn admin_api(&self, method: &str, path: &str) -> Result<Response, RelayProcessError> {
        let what = format!("{method} {path} from {} at {}", self.program.name, self.admin);
        http::request(self.admin, method, path, Some(ADMIN_TOKEN)).await.map_err(failed(what))
    }

    /// The file with the token of its admin API.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.config.path().join(admin_token::FILE_NAME)
    }

    /// The relay's metrics, by series.
    ///
    /// # Errors
    /// [`RelayProcessError::Io`].
    pub async fn metrics(&self) -> Result<BTreeMap<String, f64>, RelayProcessError> {
        Ok(self.scrape().await?.series().clone())
    }

    /// The relay's metrics, to be asked by name.
    ///
    /// # Errors
    /// [`RelayProcessError::Io`].
    ///
    /// # Panics
    /// When the account of recipients in them does not balance, or has forgotten what an earlier look has seen.
    pub async fn scrape(&self) -> Result<Metrics, RelayProcessError> {
        let metrics = Metrics::parse(&self.get("/metrics").await?.body);
        if let Some(account) = Recipients::read(&metrics) {
            let mut before = self.account.lock().expect("a look that panicked has ended the test");
            account.check(before.as_ref()).unwrap_or_else(|fault| panic!("{}: {fault}", self.program.name));
            *before = Some(account);
        }
        Ok(metrics)
    }

    /// Somebody has changed what is on disk: the account may lack what it had before. It must balance all the same.
    pub fn forgive_lost_account(&self) {
        *self.account.lock().expect("a look that panicked has ended the test") = None;
    }

    /// Waits until no recipient is queued; the account of recipients then.
    ///
    /// # Errors
    /// As [`Self::wait_for_metrics`].
    ///
    /// # Panics
    /// As [`Self::scrape`].
    pub async fn wait_until_all_ended(&self, limit: Duration) -> Result<Recipients, RelayProcessError> {
        let ended = |metrics: &Metrics| Recipients::read(metrics).is_some_and(|account| account.queued == 0);
        self.wait_for_metrics("no recipient to be queued", limit, ended).await?;
        let account = self.account.lock().expect("a look that panicked has ended the test").clone();
        Ok(account.unwrap_or_default())
    }

    /// Waits until the metrics satisfy `predicate`; they cannot be watched, so this polls.
    ///
    /// # Errors
    /// [`RelayProcessError::TimedOut`] after `limit` with all series; [`RelayProcessError::Ended`] when the process ends.
    pub async fn wait_for_metrics(
        &self,
        what: &str,
        limit: Duration,
        predicate: impl Fn(&Metrics) -> bool,
    ) -> Result<(), RelayProcessError> {
        let begin = Instant::now();
        loop {
            let metrics = self.scrape().await;
            if metrics.as_ref().is_ok_and(&predicate) {
                return Ok(());
            }
            if let Some(status) = self.process.exited() {
                return Err(RelayProcessError::Ended { status, log: self.process.log().tail(40) });
            }
            if begin.elapsed() >= limit {
                let found = format!("the metrics were {metrics:?}");
                return Err(TimedOut { what: what.to_owned(), waited: limit, found }.into());
            }
            tokio::time::sleep(POLL_REST).await;
        }
    }

    /// What the process has written; begins anew with each restart.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    /// Its process id, for looks into `/proc`.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its resident memory in octets, `None` once it has ended.
    #[must_use]
    pub fn resident_octets(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(kibibytes.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    }

    /// Its admin address.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Where it keeps its spool.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }
}

fn readiness(ready: bool) -> &'static str {
    if ready { "ready" } else { "not ready" }
}

fn write_config(folder: &MountedFolder, config: &str) -> Result<(), RelayProcessError> {
    let files = [(FILE_NAME, config.as_bytes()), (admin_token::FILE_NAME, ADMIN_TOKEN.as_bytes())];
    folder.write(&files).map_err(failed("the relay's configuration file"))
}
