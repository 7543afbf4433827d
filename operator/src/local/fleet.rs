//! The relays of this machine, kept as the plan has them: configurations are written before processes start or read them
//! again, and what the plan no longer has is stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use postroad_crds::relay_config::{Listener, ObjectName};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::local::admin_ports::{AdminPorts, bindable};
use crate::local::files::Places;
use crate::local::plan::{Plan, RelayPlan};
use crate::local::relay::{Relay, Start};
use crate::local::table::table;
use crate::relay_pool::admin_token::AdminToken;

/// Seconds a relay gets beyond its own grace period before it is killed.
const MARGIN: Duration = Duration::from_secs(5);

/// The relays that run.
pub struct Fleet {
    data: PathBuf,
    program: PathBuf,
    guardian: Option<PathBuf>,
    kill: CancellationToken,
    ports: AdminPorts,
    running: BTreeMap<Name, Running>,
    leaving: BTreeMap<Name, JoinHandle<()>>,
}

/// One relay's pool and ordinal.
type Name = (ObjectName, u32);

struct Running {
    relay: Relay,
    places: Places,
    plan: RelayPlan,
    admin: u16,
}

impl Fleet {
    /// No relay yet.
    #[must_use]
    pub fn new(data: PathBuf, program: PathBuf, guardian: Option<PathBuf>, kill: CancellationToken) -> Self {
        let (ports, running, leaving) = (AdminPorts::default(), BTreeMap::new(), BTreeMap::new());
        Self { data, program, guardian, kill, ports, running, leaving }
    }

    /// Makes the plan come true. Returns at once: relays start and stop in the background.
    ///
    /// # Errors
    /// When a configuration cannot be written or no port is left. Relays dealt with before stay dealt with.
    pub fn follow(&mut self, plan: &Plan) -> io::Result<()> {
        let wanted: BTreeMap<Name, &RelayPlan> = plan
            .iter()
            .flat_map(|(pool, relays)| relays.iter().map(|relay| ((pool.clone(), relay.ordinal), relay)))
            .collect();
        let gone: Vec<Name> =
            self.running.keys().filter(|name| !wanted.contains_key(name)).cloned().collect();
        for name in gone {
            self.dismiss(&name);
        }
        let reserved: BTreeSet<u16> = wanted
            .values()
            .flat_map(|relay| relay.listeners.iter().map(|(_, address)| address.port()))
            .collect();
        for (name, relay) in wanted {
            if self.running.contains_key(&name) {
                self.update(&name, relay)?;
            } else {
                self.start(name, relay, &reserved)?;
            }
        }
        Ok(())
    }

    /// What runs where, for people.
    #[must_use]
    pub fn table(&self) -> String {
        table(self.running.iter().map(|(name, running)| (label(name), &running.plan, running.admin)))
    }

    /// Stops all relays and waits until they have ended.
    pub async fn stop(mut self) {
        let names: Vec<Name> = self.running.keys().cloned().collect();
        for name in names {
            if let Some(running) = self.running.remove(&name) {
                self.leaving.insert(name, running.relay.stop());
            }
        }
        for (_, left) in std::mem::take(&mut self.leaving) {
            let _ = left.await;
        }
    }

    fn start(&mut self, name: Name, plan: &RelayPlan, reserved: &BTreeSet<u16>) -> io::Result<()> {
        let label = label(&name);
        let admin = self.ports.of(&label, reserved, bindable).ok_or_else(|| {
            io::Error::other(format!("no port is left for the metrics of relay {label}: stop something else"))
        })?;
        let places = Places::of(&self.data, &name.0, name.1);
        places.write_config(&plan.rendered.0)?;
        places.write_admin_token(&AdminToken::random())?;
        let start = Start {
            name: label,
            program: self.program.clone(),
            arguments: arguments(&places, name.1, admin),
            grace: Duration::from_secs(plan.config.shutdown.grace_period_seconds.into()) + MARGIN,
            guardian: self.guardian.clone(),
        };
        let relay = Relay::keep(start, self.leaving.remove(&name), self.kill.clone());
        self.running.insert(name, Running { relay, places, plan: plan.clone(), admin });
        Ok(())
    }

    /// A running relay reads a changed configuration by itself; a listener it has bound it keeps until it is started again,
    /// as a pod is when its ports change.
    fn update(&mut self, name: &Name, plan: &RelayPlan) -> io::Result<()> {
        let Some(running) = self.running.get_mut(name).filter(|running| running.plan != *plan) else {
            return Ok(());
        };
        running.places.write_config(&plan.rendered.0)?;
        let sockets = |plan: &RelayPlan| plan.config.listeners.iter().map(socket).collect::<Vec<_>>();
        if sockets(&running.plan) != sockets(plan) {
            tracing::info!("the listeners of relay {} change: it is started again", label(name));
            running.relay.restart();
        }
        running.plan = plan.clone();
        Ok(())
    }

    fn dismiss(&mut self, name: &Name) {
        let Some(Running { relay, places, .. }) = self.running.remove(name) else { return };
        tracing::info!("relay {} is stopped; mail it holds stays in {}", label(name), places.data.display());
        self.ports.release(&label(name));
        let stopped = relay.stop();
        let left = tokio::spawn(async move {
            let _ = stopped.await;
            places.remove_config();
        });
        self.leaving.insert(name.clone(), left);
    }
}

fn label((pool, ordinal): &Name) -> String {
    format!("{pool}-{ordinal}")
}

fn socket(listener: &Listener) -> (String, String) {
    (listener.name.clone(), listener.address.clone())
}

fn arguments(places: &Places, ordinal: u32, admin: u16) -> Vec<String> {
    vec![
        "run".to_owned(),
        "--config".to_owned(),
        places.config_file().display().to_string(),
        "--data".to_owned(),
        places.data.display().to_string(),
        "--ordinal".to_owned(),
        ordinal.to_string(),
        "--admin".to_owned(),
        format!("127.0.0.1:{admin}"),
    ]
}
