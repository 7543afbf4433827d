//! What a relay's processes have cost so far: processor time and memory, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// The unit of the times in `/proc/PID/stat`: 1/100 s on every Linux (proc(5), `USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// The cost of a process and all that descend from it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Processor time in user and kernel mode, that of ended and reaped processes included.
    pub processor: Duration,
    /// Private memory in octets: anonymous pages, shared libraries not counted.
    pub memory: u64,
    /// Processes.
    pub processes: usize,
}

/// Looks at `root` and its descendants.
pub fn cost(root: u32) -> Cost {
    let mut children: HashMap<u32, Vec<(u32, Duration)>> = HashMap::new();
    let mut total = Cost::default();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that ends in this instant is counted with its parent next time.
        let Some((parent, processor)) = stat(process) else { continue };
        if process == root {
            total = Cost { processor, memory: anonymous(root), processes: 1 };
        }
        children.entry(parent).or_default().push((process, processor));
    }
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for &(process, processor) in children.get(&parent).into_iter().flatten() {
            total.processor += processor;
            total.memory += anonymous(process);
            total.processes += 1;
            open.push(process);
        }
    }
    total
}

/// The parent of a process, and its processor time with that of the children it has reaped.
fn stat(process: u32) -> Option<(u32, Duration)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is a name in brackets that may hold anything.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u32>()).sum::<Result<u32, _>>().ok()?;
    Some((fields.get(1)?.parse().ok()?, TICK * ticks))
}

fn anonymous(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1_024
}
