//! What the figures were taken on.

use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::contender::Contender;

/// The machine and what was compared.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Processors, which source, sink and relay share.
    pub processors: usize,
    /// The processor's model name.
    pub model: String,
    /// Memory in GiB.
    pub memory_gib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The file system of temporary folders, on which both relays keep their queues.
    pub file_system: String,
    /// Each relay with its version.
    pub relays: Vec<String>,
}

/// Describes this machine; what it does not tell is left empty.
pub fn describe(contenders: &[Contender]) -> Machine {
    let memory: u64 = value("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    Machine {
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        model: value("/proc/cpuinfo", "model name"),
        memory_gib: memory.div_ceil(1_048_576),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        file_system: file_system(),
        relays: contenders
            .iter()
            .map(|contender| format!("{} {}", contender.name, contender.version))
            .collect(),
    }
}

/// The first value of `key` in a file of `key: value` lines.
fn value(path: &str, key: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key));
    line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
}

fn file_system() -> String {
    let output =
        Command::new("stat").args(["--file-system", "--format=%T"]).arg(std::env::temp_dir()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
