//! `postroad-operator local DIR`: the same manifests without a cluster. Watches a folder instead of an API server and keeps
//! relays as processes instead of pods; validators and rendering are those of the cluster.
//!
//! [`folder`] reads, [`manifests`] and [`schema`] check each object, [`plan`] validates and renders, [`fleet`] keeps one
//! [`relay`] process per pool and ordinal. An edit that cannot be used is told in a sentence and leaves running what runs.

pub mod admin_ports;
pub mod files;
pub mod fleet;
pub mod folder;
pub mod manifests;
pub mod plan;
pub mod program;
pub mod relay;
pub mod schema;
pub mod table;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use fleet::Fleet;
use folder::{Folder, FolderError, Reading};
use manifests::Complaint;
use plan::Plan;

/// Changes within this time are read once: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(100);

/// What `local` needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder with the manifests.
    pub directory: PathBuf,
    /// Where relays keep their configuration and their mail.
    pub data: PathBuf,
    /// The relay binary, when it is named.
    pub relay: Option<PathBuf>,
}

/// Why `local` ended early. Each is one sentence.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The folder cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// There is no such folder.
    #[error("{} is no folder: name the one that holds the manifests", .0.display())]
    NoFolder(PathBuf),
    /// The folder holds no manifest.
    #[error("{} holds no manifest: put a RelayPool and an Upstream there, in files ending in .yaml or .yml", .0.display())]
    NoManifests(PathBuf),
    /// No pool can be run.
    #[error("nothing in {} can be run: {}", .directory.display(), reasons(.complaints))]
    NothingToRun {
        /// The folder.
        directory: PathBuf,
        /// Why not.
        complaints: Vec<Complaint>,
    },
    /// The folder cannot be watched.
    #[error("the folder {} cannot be watched: {why}", .directory.display())]
    Watch {
        /// The folder.
        directory: PathBuf,
        /// Why not.
        why: notify::Error,
    },
    /// The relay binary is missing.
    #[error(transparent)]
    Program(#[from] program::ProgramError),
    /// A folder or file of relays cannot be written.
    #[error(transparent)]
    Data(#[from] io::Error),
}

fn reasons(complaints: &[Complaint]) -> String {
    match complaints {
        [] => "there is no RelayPool in it".to_owned(),
        several => several.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}

/// Keeps relays as the folder's manifests have them until `stop` is cancelled; then stops them in an orderly way, at once when
/// `kill` is cancelled.
///
/// # Errors
/// When nothing can be run at the start, or a folder cannot be used. Later faults are told and leave running what runs.
pub async fn run(
    options: Options,
    stop: CancellationToken,
    kill: CancellationToken,
) -> Result<(), LocalError> {
    if !options.directory.is_dir() {
        return Err(LocalError::NoFolder(options.directory));
    }
    let path = std::env::var_os("PATH");
    let own = std::env::current_exe().ok();
    let mut folder = Folder::new(options.directory.clone());
    // Watched before it is read, so that no change falls between.
    let (_watcher, mut changes) = watch(&options)?;
    let reading = folder.read()?.unwrap_or_default();
    if reading.files == 0 {
        return Err(LocalError::NoManifests(options.directory));
    }
    let (plan, complaints) = plan::plan(&reading, &Plan::new());
    let mut complaints: Vec<Complaint> = reading.complaints.iter().cloned().chain(complaints).collect();
    if plan.is_empty() {
        return Err(LocalError::NothingToRun { directory: options.directory, complaints });
    }
    let program = program::relay(options.relay, own.as_deref(), path.as_deref())?;
    files::private_folder(&options.data)?;
    let guardian = program::in_path("setpriv", path.as_deref());
    let mut session = Session {
        fleet: Fleet::new(options.data, program, guardian, kill),
        plan: Plan::new(),
        shown: String::new(),
        told: Vec::new(),
    };
    session.tell(&mut complaints, &reading);
    let followed = session.follow(plan);
    let ended = match followed {
        Ok(()) => session.keep(&mut folder, &mut changes, &stop).await,
        Err(error) => Err(error.into()),
    };
    tracing::info!("stopping all relays");
    session.fleet.stop().await;
    ended
}

/// A run that has begun.
struct Session {
    fleet: Fleet,
    plan: Plan,
    /// The table as last printed.
    shown: String,
    told: Vec<Complaint>,
}

impl Session {
    async fn keep(
        &mut self,
        folder: &mut Folder,
        changes: &mut mpsc::UnboundedReceiver<()>,
        stop: &CancellationToken,
    ) -> Result<(), LocalError> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                change = changes.recv() => if change.is_none() { return Ok(()) },
            }
            tokio::time::sleep(SETTLE).await;
            while changes.try_recv().is_ok() {}
            let mut complaints = match folder.read() {
                Ok(None) => continue,
                Ok(Some(reading)) => self.change(&reading),
                Err(error) => vec![Complaint(format!("{error}; everything runs on as it was"))],
            };
            self.tell(&mut complaints, &Reading::default());
        }
    }

    /// Brings what runs in line with what was read; returns what is wrong.
    fn change(&mut self, reading: &Reading) -> Vec<Complaint> {
        let (plan, complaints) = plan::plan(reading, &self.plan);
        let mut complaints: Vec<Complaint> =
            reading.complaints.iter().chain(&reading.warnings).cloned().chain(complaints).collect();
        if let Err(error) = self.follow(plan) {
            complaints.push(Complaint(error.to_string()));
        }
        complaints
    }

    fn follow(&mut self, plan: Plan) -> io::Result<()> {
        let followed = self.fleet.follow(&plan);
        self.plan = plan;
        let table = self.fleet.table();
        if self.shown != table {
            let mut out = io::stdout().lock();
            // A closed standard output is no reason to stop relaying.
            let _ = writeln!(out, "\n{table}").and_then(|()| out.flush());
            self.shown = table;
        }
        followed
    }

    /// Tells what is wrong, once.
    fn tell(&mut self, complaints: &mut Vec<Complaint>, reading: &Reading) {
        complaints.extend(reading.warnings.iter().cloned());
        for complaint in complaints.iter().filter(|complaint| !self.told.contains(complaint)) {
            tracing::warn!("{complaint}");
        }
        if complaints.is_empty() && !self.told.is_empty() {
            tracing::info!("everything in the folder is in force");
        }
        self.told = std::mem::take(complaints);
    }
}

/// Watches the folder; each message means that something in it may have changed.
fn watch(options: &Options) -> Result<(RecommendedWatcher, mpsc::UnboundedReceiver<()>), LocalError> {
    let (sender, changes) = mpsc::unbounded_channel();
    let failed = |why| LocalError::Watch { directory: options.directory.clone(), why };
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !is_reading(event.kind)) {
            // Nobody listens any more when the process ends.
            let _ = sender.send(());
        }
    })
    .map_err(failed)?;
    watcher.watch(&options.directory, RecursiveMode::NonRecursive).map_err(failed)?;
    Ok((watcher, changes))
}

/// Reading the files again would otherwise be a change to read.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}
