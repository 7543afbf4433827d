//! Child processes of a test: started so that they die with it, their output kept, their end watched.
//!
//! A child gets the kernel's parent-death signal (`prctl(PR_SET_PDEATHSIG)`, by util-linux's `setpriv`), so neither a test
//! that panics nor one that is killed leaves a relay or an API server behind. That signal follows the *thread* which made
//! the child, not the process, and a test's thread ends with the test; so all children are made by one thread that never
//! ends. It also reaps them, so that a signal never goes to a process id that was given to someone else.
//!
//! Called by `relay_process`. The variable `KUBECONFIG` is withheld from every child.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use crate::lock::lock;
use crate::waiting::{TimedOut, watched};

/// Lines of output kept for each process; older ones are dropped.
const LINES_KEPT: usize = 50_000;
/// How long the end of the output is awaited once a process has ended: a grandchild may hold it open.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a dropped process is awaited after SIGKILL.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program is not where it should be.
    #[error("{name} cannot be started: {} is not there", .path.display())]
    Missing {
        /// The process, as the test calls it.
        name: String,
        /// Its program.
        path: PathBuf,
    },
    /// The operating system refused; most likely `setpriv` is missing.
    #[error("{name} cannot be started: {source} (`setpriv` of util-linux has to be installed)")]
    Start {
        /// The process, as the test calls it.
        name: String,
        /// The refusal.
        source: io::Error,
    },
    /// The thread that makes children could not be started.
    #[error("no thread for child processes: {0}")]
    Keeper(String),
}

/// A program with its arguments and environment.
#[derive(Clone, Debug)]
pub struct Program {
    /// What the test calls it: the prefix of its output in a failed test.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables beside the inherited ones.
    pub environment: Vec<(String, String)>,
}

/// A signal a test may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL: no code of the process runs any more.
    Kill,
    /// SIGTERM: please end.
    Terminate,
    /// SIGSTOP: stands still, as if the machine had stalled.
    Stop,
    /// SIGCONT: goes on.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Terminate => "TERM",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// A running or ended child process.
///
/// Dropping it kills the process and waits for its end; in a panicking test the tail of its output is printed first.
pub struct Process {
    name: String,
    id: u32,
    signals: mpsc::UnboundedSender<Signal>,
    exit: watch::Receiver<Option<ExitStatus>>,
    /// Behind a lock only because a shared control plane has to be `Sync`.
    gone: Mutex<std::sync::mpsc::Receiver<()>>,
    log: Log,
}

impl Process {
    /// Starts `program`.
    ///
    /// # Errors
    /// [`ProcessError`] when it cannot be started. A program that starts and ends at once is no error here.
    pub async fn start(program: Program) -> Result<Self, ProcessError> {
        if !program.path.is_file() {
            return Err(ProcessError::Missing { name: program.name, path: program.path });
        }
        let (answer, started) = oneshot::channel();
        let keeper = keeper()?;
        let lost = || ProcessError::Keeper("it has ended".to_owned());
        keeper.send(Request { program, answer }).map_err(|_| lost())?;
        started.await.map_err(|_| lost())?
    }

    /// What the test calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its standard output and error.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Sends a signal; nothing happens when the process has ended. Delivery is not awaited.
    pub fn signal(&self, signal: Signal) {
        // The receiver goes away when the process has ended.
        let _ = self.signals.send(signal);
    }

    /// How the process ended, if it has.
    #[must_use]
    pub fn exited(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits for the end of the process; all of its output has been read then.
    ///
    /// # Errors
    /// [`TimedOut`] after `limit`, with the tail of its output.
    pub async fn wait(&self, limit: Duration) -> Result<ExitStatus, TimedOut> {
        let what = format!("the end of {}", self.name);
        watched(self.exit.clone(), &what, limit, || self.exited(), || self.log.tail(20)).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- the last of {} ({}) ----\n{}", self.name, self.id, self.log.tail(60));
        }
        self.signal(Signal::Kill);
        // Returns when the sender is dropped with the attending task: then the process is reaped.
        let _ = lock(&self.gone).recv_timeout(LAST_BREATH);
    }
}

/// The output of a process, line by line.
#[derive(Clone)]
pub struct Log {
    lines: Arc<Mutex<VecDeque<String>>>,
    changes: watch::Sender<u64>,
}

impl Log {
    fn new() -> Self {
        Self { lines: Arc::default(), changes: watch::Sender::new(0) }
    }

    /// All lines that were kept.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        lock(&self.lines).iter().cloned().collect()
    }

    /// The last `count` lines.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        let lines = lock(&self.lines);
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect::<Vec<_>>().join("\n")
    }

    /// Whether a line holds `text`: the test of what must never be logged.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        lock(&self.lines).iter().any(|line| line.contains(text))
    }

    /// Waits for a line that satisfies `predicate`, those that came before included.
    ///
    /// # Errors
    /// [`TimedOut`] after `limit`, with the tail of the output.
    pub async fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        predicate: impl Fn(&str) -> bool,
    ) -> Result<String, TimedOut> {
        let check = || lock(&self.lines).iter().find(|line| predicate(line)).cloned();
        watched(self.changes.subscribe(), what, limit, check, || self.tail(20)).await
    }

    async fn read(self, output: impl AsyncRead + Unpin) {
        let mut lines = BufReader::new(output).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            let mut kept = lock(&self.lines);
            if kept.len() == LINES_KEPT {
                kept.pop_front();
            }
            kept.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            drop(kept);
            self.changes.send_modify(|version| *version += 1);
        }
    }
}

struct Request {
    program: Program,
    answer: oneshot::Sender<Result<Process, ProcessError>>,
}

/// The thread that makes and reaps all children of this test process.
fn keeper() -> Result<&'static mpsc::UnboundedSender<Request>, ProcessError> {
    static KEEPER: OnceLock<Result<mpsc::UnboundedSender<Request>, String>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let (sender, mut requests) = mpsc::unbounded_channel::<Request>();
        let serve = async move {
            while let Some(request) = requests.recv().await {
                // A test that no longer waits drops the process, which kills it.
                let _ = request.answer.send(spawn(request.program));
            }
        };
        let thread = std::thread::Builder::new().name("test-children".to_owned());
        thread.spawn(move || runtime.block_on(serve)).map_err(|error| error.to_string())?;
        Ok(sender)
    });
    keeper.as_ref().map_err(|error| ProcessError::Keeper(error.clone()))
}

/// Runs on the keeper's thread.
fn spawn(program: Program) -> Result<Process, ProcessError> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(&program.path).args(&program.arguments);
    command.env_remove("KUBECONFIG").envs(program.environment);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Its own group: an interrupt at the terminal ends the test, and the test's end the children, in that order.
    command.process_group(0).kill_on_drop(true);
    let mut child =
        command.spawn().map_err(|source| ProcessError::Start { name: program.name.clone(), source })?;
    let log = Log::new();
    let mut readers = tokio::task::JoinSet::new();
    if let Some(output) = child.stdout.take() {
        readers.spawn(log.clone().read(output));
    }
    if let Some(output) = child.stderr.take() {
        readers.spawn(log.clone().read(output));
    }
    let (signals, orders) = mpsc::unbounded_channel();
    let (ended, exit) = watch::channel(None);
    let (alive, gone) = std::sync::mpsc::channel();
    let process = Process {
        name: program.name,
        id: child.id().unwrap_or_default(),
        signals,
        exit,
        gone: Mutex::new(gone),
        log,
    };
    tokio::spawn(attend(child, orders, readers, ended, alive));
    Ok(process)
}

/// Passes signals on until the process ends, then announces its end.
async fn attend(
    mut child: Child,
    mut orders: mpsc::UnboundedReceiver<Signal>,
    mut readers: tokio::task::JoinSet<()>,
    ended: watch::Sender<Option<ExitStatus>>,
    alive: std::sync::mpsc::Sender<()>,
) {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            Some(signal) = orders.recv() => deliver(&mut child, signal).await,
        }
    };
    let all_read = async { while readers.join_next().await.is_some() {} };
    // Past the limit the end is announced with the output as far as it was read.
    let _ = tokio::time::timeout(LAST_WORDS, all_read).await;
    if let Ok(status) = status {
        ended.send_replace(Some(status));
    }
    drop(alive);
}

/// The child is not reaped while this runs, so its id is still its own.
async fn deliver(child: &mut Child, signal: Signal) {
    if signal == Signal::Kill {
        // Fails only when the process has ended.
        let _ = child.start_kill();
    } else if let Some(id) = child.id() {
        let order = format!("kill -{} {id}", signal.name());
        // As above.
        let _ = Command::new("sh").args(["-c", &order]).stderr(Stdio::null()).status().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    async fn shell(script: &str) -> Process {
        let program = Program {
            name: "shell".to_owned(),
            path: PathBuf::from("/bin/sh"),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: vec![("GREETING".to_owned(), "hello".to_owned())],
        };
        Process::start(program).await.unwrap()
    }

    #[tokio::test]
    async fn output_and_exit_code_are_kept() {
        let process = shell("echo $GREETING; echo ${KUBECONFIG-none} >&2; exit 3").await;
        assert_eq!(process.wait(SOON).await.unwrap().code(), Some(3));
        assert!(process.log().contains("hello") && process.log().contains("none"));
    }

    #[tokio::test]
    async fn a_terminated_process_may_clean_up_and_a_killed_one_may_not() {
        for (signal, cleaned_up) in [(Signal::Terminate, true), (Signal::Kill, false)] {
            let process = shell("trap 'echo cleaned up; exit' TERM; echo ready; while :; do read x </dev/tty; done 2>/dev/null").await;
            process.log().wait_for("ready", SOON, |line| line == "ready").await.unwrap();
            process.signal(signal);
            process.wait(SOON).await.unwrap();
            assert_eq!(process.log().contains("cleaned up"), cleaned_up, "{signal:?}");
        }
    }

    #[tokio::test]
    async fn a_dropped_process_is_gone() {
        let process = shell("echo ready; exec tail -f /dev/null").await;
        process.log().wait_for("ready", SOON, |line| line == "ready").await.unwrap();
        let entry = PathBuf::from(format!("/proc/{}", process.id()));
        assert!(entry.exists());
        drop(process);
        assert!(!entry.exists());
    }

    #[test]
    fn a_process_outlives_the_thread_that_asked_for_it() {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let process =
            std::thread::spawn(move || runtime().block_on(shell("exec tail -f /dev/null"))).join().unwrap();
        // The kernel would have killed it by now: a second child was made, and reaped, after that thread's end.
        runtime().block_on(async { shell("exit 0").await.wait(SOON).await.unwrap() });
        assert!(process.exited().is_none());
        assert!(PathBuf::from(format!("/proc/{}", process.id())).exists());
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let path = PathBuf::from("/nowhere/relay");
        let program =
            Program { name: "relay".to_owned(), path, arguments: Vec::new(), environment: Vec::new() };
        let error = Process::start(program).await.err().unwrap().to_string();
        assert!(error.contains("/nowhere/relay"), "{error}");
    }
}
