//! One relay as a process of this machine: started, started again when it dies, asked to stop by SIGTERM, killed when it does
//! not. Knows nothing about pools.
//!
//! A relay must not outlive the operator. It is killed when this process ends in an orderly way (`kill_on_drop`); where
//! util-linux' `setpriv` is there, the kernel ends it also when this process is killed. It has a process group of its own,
//! so that Ctrl-C in a terminal reaches only the operator, which then asks its relays one by one.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A relay that ran this long and died is started again at once, without growing the wait.
const STEADY: Duration = Duration::from_secs(60);

/// The longest wait before a relay is started again.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How to start a relay.
#[derive(Clone, Debug)]
pub struct Start {
    /// What people call it: `mail/main-0`.
    pub name: String,
    /// The relay binary.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How long it may take to stop.
    pub grace: Duration,
    /// `setpriv`, where there is one.
    pub guardian: Option<PathBuf>,
}

/// A relay that is kept running.
pub struct Relay {
    stop: CancellationToken,
    restart: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Keeps a relay running. `after`, an earlier one over the same spool, is waited for first. `kill` ends the wait for an
    /// orderly stop.
    #[must_use]
    pub fn keep(start: Start, after: Option<JoinHandle<()>>, kill: CancellationToken) -> Self {
        let (stop, restart) = (CancellationToken::new(), Arc::new(Notify::new()));
        let keeper = Keeper { start, stop: stop.clone(), restart: restart.clone(), kill };
        let task = tokio::spawn(async move {
            if let Some(after) = after {
                let _ = after.await;
            }
            keeper.keep().await;
        });
        Self { stop, restart, task }
    }

    /// Stops the process in an orderly way and starts it again.
    pub fn restart(&self) {
        self.restart.notify_one();
    }

    /// Asks the process to stop; the handle ends when it has.
    #[must_use]
    pub fn stop(self) -> JoinHandle<()> {
        self.stop.cancel();
        self.task
    }
}

/// How one life of the process ended.
enum End {
    /// As asked, for good.
    Stopped,
    /// As asked, to begin again.
    Restarted,
    /// By itself.
    Died(String),
}

struct Keeper {
    start: Start,
    stop: CancellationToken,
    restart: Arc<Notify>,
    kill: CancellationToken,
}

impl Keeper {
    async fn keep(self) {
        let mut wait = Duration::from_secs(1);
        while !self.stop.is_cancelled() {
            let began = Instant::now();
            match self.live().await {
                End::Stopped => return,
                End::Restarted => wait = Duration::from_secs(1),
                End::Died(how) => {
                    if began.elapsed() >= STEADY {
                        wait = Duration::from_secs(1);
                    }
                    tracing::warn!(
                        "relay {} {how}; it is started again in {} s",
                        self.start.name,
                        wait.as_secs()
                    );
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.restart.notified() => {}
                        () = self.stop.cancelled() => return,
                    }
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
            }
        }
    }

    async fn live(&self) -> End {
        let mut child = match self.command().spawn() {
            Ok(child) => child,
            Err(error) => {
                return End::Died(format!(
                    "cannot be started from {}: {error}",
                    self.start.program.display()
                ));
            }
        };
        forward(&self.start.name, child.stdout.take());
        forward(&self.start.name, child.stderr.take());
        tokio::select! {
            ended = child.wait() => End::Died(describe(ended)),
            () = self.stop.cancelled() => {
                self.end(&mut child).await;
                End::Stopped
            }
            () = self.restart.notified() => {
                self.end(&mut child).await;
                End::Restarted
            }
        }
    }

    fn command(&self) -> Command {
        let mut command = match &self.start.guardian {
            None => Command::new(&self.start.program),
            Some(guardian) => {
                let mut command = Command::new(guardian);
                command.args(["--pdeathsig", "TERM", "--"]).arg(&self.start.program);
                command
            }
        };
        command
            .args(&self.start.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// SIGTERM, and SIGKILL after the grace period or at a second request to stop.
    async fn end(&self, child: &mut Child) {
        if let Some(process) = child.id() {
            terminate(process).await;
        }
        tokio::select! {
            _ = child.wait() => return,
            () = tokio::time::sleep(self.start.grace) => {
                tracing::warn!("relay {} did not stop within {} s and is killed", self.start.name, self.start.grace.as_secs());
            }
            () = self.kill.cancelled() => {}
        }
        let _ = child.kill().await;
    }
}

/// Sends SIGTERM through the shell's `kill`: the standard library can only send SIGKILL. The process is not reaped yet, so the
/// number is still its own.
async fn terminate(process: u32) {
    let command = format!("kill -TERM {process}");
    let sent = Command::new("/bin/sh").args(["-c", &command]).stderr(Stdio::null()).status().await;
    if let Err(error) = sent {
        tracing::warn!("process {process} cannot be asked to stop: {error}");
    }
}

fn describe(ended: io::Result<ExitStatus>) -> String {
    match ended {
        Ok(status) => format!("ended by itself ({status})"),
        Err(error) => format!("is lost: {error}"),
    }
}

/// Passes a relay's output on, each line with its name.
fn forward(name: &str, output: Option<impl AsyncRead + Unpin + Send + 'static>) {
    let Some(output) = output else { return };
    let name = name.to_owned();
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            eprintln!("{name} | {line}");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn start(script: &str, grace: Duration) -> Start {
        Start {
            name: "mail/main-0".to_owned(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            grace,
            guardian: None,
        }
    }

    /// Watches the file until it has this many lines.
    async fn lines(file: &Path, count: usize) {
        let watched = async {
            while fs::read_to_string(file).unwrap_or_default().lines().count() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), watched).await.expect("the process was started again");
    }

    #[tokio::test]
    async fn a_relay_is_started_again_when_it_dies_and_when_it_is_asked_to() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("starts");
        // Dies the first time, stays from then on.
        let script = format!("echo x >> {0}; [ $(wc -l < {0}) = 1 ] || exec sleep 600", file.display());
        let relay = Relay::keep(start(&script, Duration::from_secs(20)), None, CancellationToken::new());
        lines(&file, 2).await;
        relay.restart();
        lines(&file, 3).await;
        tokio::time::timeout(Duration::from_secs(20), relay.stop()).await.expect("SIGTERM ends it").unwrap();
    }

    #[tokio::test]
    async fn a_relay_that_ignores_the_request_to_stop_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("starts");
        let script = format!("trap '' TERM; echo x >> {}; while :; do sleep 600; done", file.display());
        let relay = Relay::keep(start(&script, Duration::from_millis(10)), None, CancellationToken::new());
        lines(&file, 1).await;
        tokio::time::timeout(Duration::from_secs(20), relay.stop()).await.expect("SIGKILL ends it").unwrap();
    }

    #[tokio::test]
    async fn a_relay_waits_for_the_earlier_one_over_the_same_spool() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("starts");
        let (release, held) = tokio::sync::oneshot::channel::<()>();
        let earlier = tokio::spawn(async move { held.await.unwrap() });
        let script = format!("echo x >> {}; exec sleep 600", file.display());
        let relay =
            Relay::keep(start(&script, Duration::from_secs(20)), Some(earlier), CancellationToken::new());
        tokio::task::yield_now().await;
        assert!(!file.exists());
        release.send(()).unwrap();
        lines(&file, 1).await;
        relay.stop().await.unwrap();
    }
}
