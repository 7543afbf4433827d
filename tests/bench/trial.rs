//! One trial: a load through a relay, with its cost.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::contender::Contender;
use crate::process_tree::{self, Cost};
use crate::sink::Sink;
use crate::source::{self, Load};

/// Rest between two looks at the memory of the relay's processes.
const SAMPLE: Duration = Duration::from_millis(200);
/// A relay is at rest when this long costs it less than one unit of the kernel's accounting.
const REST: Duration = Duration::from_millis(500);

/// What a trial has shown. Times in seconds and milliseconds, memory in MiB, as the names say.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// The relay.
    pub relay: &'static str,
    /// Whether clients kept their sessions for many messages.
    pub kept_connections: bool,
    /// Messages sent, acknowledged and received, each once.
    pub messages: usize,
    /// Octets of a body.
    pub octets: usize,
    /// Sessions at the same time.
    pub sessions: usize,
    /// Messages a second from the first connection of a client to the arrival of the last message.
    pub end_to_end_per_second: f64,
    /// Messages a second from the first connection to the last acknowledgement.
    pub accepted_per_second: f64,
    /// Processor time of the relay's processes for each message.
    pub cpu_milliseconds_per_message: f64,
    /// The most anonymous memory its processes had together.
    pub memory_mib: f64,
    /// The most processes it had.
    pub processes: usize,
    /// Half of the messages were acknowledged within this.
    pub acknowledged_p50_milliseconds: f64,
    /// 99 of 100 were.
    pub acknowledged_p99_milliseconds: f64,
    /// Connections it made to the sink.
    pub upstream_connections: usize,
    /// Messages that came twice.
    pub duplicates: usize,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.kept_connections { "kept" } else { "one message a connection" };
        write!(
            f,
            "{:9} {way}: {:.0} messages/s end to end, {:.0}/s accepted, {:.3} ms CPU a message, {:.0} MiB, {} processes",
            self.relay,
            self.end_to_end_per_second,
            self.accepted_per_second,
            self.cpu_milliseconds_per_message,
            self.memory_mib,
            self.processes
        )
    }
}

/// Sends the load through the contender and waits until all of it has arrived and the relay is at rest.
///
/// # Errors
/// A message that is refused or does not arrive.
pub async fn run(contender: &Contender, sink: &Sink, load: &Load) -> anyhow::Result<Trial> {
    let number = sink.begin(load.messages);
    let before = at_rest(contender.process).await;
    let peak = Peak::watch(contender.process);
    let (sent, arrivals) = tokio::try_join!(source::send(*load, contender.address, number), sink.complete())?;
    let peak = peak.end().await?;
    let after = at_rest(contender.process).await;
    let mut latencies = sent.latencies;
    latencies.sort_unstable();
    let messages = load.messages as f64;
    let end_to_end = arrivals.last.max(sent.begin) - sent.begin;
    Ok(Trial {
        relay: contender.name,
        kept_connections: load.kept,
        messages: load.messages,
        octets: load.octets,
        sessions: load.sessions,
        end_to_end_per_second: messages / end_to_end.as_secs_f64(),
        accepted_per_second: messages / (sent.end - sent.begin).as_secs_f64(),
        cpu_milliseconds_per_message: (after.processor - before.processor).as_secs_f64() * 1_000.0 / messages,
        memory_mib: peak.memory as f64 / 1_048_576.0,
        processes: peak.processes,
        acknowledged_p50_milliseconds: quantile(&latencies, 0.5),
        acknowledged_p99_milliseconds: quantile(&latencies, 0.99),
        upstream_connections: arrivals.connections,
        duplicates: arrivals.duplicates,
    })
}

fn quantile(sorted: &[Duration], share: f64) -> f64 {
    let index = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1_000.0)
}

/// Waits until the relay has ended its bookkeeping; what it does afterwards is not this trial's.
async fn at_rest(process: u32) -> Cost {
    let mut before = process_tree::cost(process);
    loop {
        tokio::time::sleep(REST).await;
        let now = process_tree::cost(process);
        if now.processor <= before.processor + Duration::from_millis(10) {
            return now;
        }
        before = now;
    }
}

/// The most memory and processes seen.
struct Peak {
    over: Arc<AtomicBool>,
    watcher: tokio::task::JoinHandle<Cost>,
}

impl Peak {
    fn watch(process: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let watcher = tokio::spawn(async move {
            let mut peak = Cost::default();
            while !told.load(Ordering::Relaxed) {
                let now = process_tree::cost(process);
                peak.memory = peak.memory.max(now.memory);
                peak.processes = peak.processes.max(now.processes);
                tokio::time::sleep(SAMPLE).await;
            }
            peak
        });
        Self { over, watcher }
    }

    async fn end(self) -> anyhow::Result<Cost> {
        self.over.store(true, Ordering::Relaxed);
        Ok(self.watcher.await?)
    }
}
