//! What should run: from objects to one configuration per relay, by the same validator and the same rendering as in a cluster.
//! Pure. A pool that cannot be used keeps its place in the last plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use postroad_crds::relay_config::{Destination, ObjectName, RelayConfig};
use postroad_crds::v1alpha1::{Division, RelayPool, Upstream};

use crate::local::folder::Reading;
use crate::local::manifests::{Complaint, Document, Key, Kind, Manifest};
use crate::relay_pool::build::config::{relay_config, render};
use crate::relay_pool::validate::{References, ValidatedListener, ValidatedPool, upstream_names, validate};
use crate::secrets::Secrets;
use crate::upstream::{division, validate as upstream};

/// How far apart the ports of two relays of one pool are.
const PORTS_APART: u32 = 1000;

/// The domain of names that mean nothing outside a cluster.
const DOMAIN: &str = "cluster.local";

/// One relay that should run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayPlan {
    /// Which of its pool's relays it is.
    pub ordinal: u32,
    /// Its configuration.
    pub config: RelayConfig,
    /// The same as text.
    pub rendered: Rendered,
    /// Where its listeners are, by name.
    pub listeners: Vec<(String, SocketAddr)>,
}

/// A rendered configuration. It holds secrets, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendered(pub String);

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<sensitive>")
    }
}

/// The relays that should run, by pool.
pub type Plan = BTreeMap<ObjectName, Vec<RelayPlan>>;

/// Plans what the objects ask for. `last` is the plan in force, from which pools that cannot be used are taken over.
#[must_use]
pub fn plan(reading: &Reading, last: &Plan) -> (Plan, Vec<Complaint>) {
    let mut complaints = unused_upstreams(reading);
    let mut plan = Plan::new();
    let mut pools: Vec<(ObjectName, &Document, &RelayPool)> = pools(reading).collect();
    // Pools that run have the first claim on their ports.
    pools.sort_by_key(|(name, ..)| (!last.contains_key(name), name.clone()));
    for (name, document, pool) in pools {
        match relays(pool, reading).and_then(|relays| apart(relays, &plan)) {
            Ok(relays) => {
                plan.insert(name, relays);
            }
            Err(faults) => {
                complaints.extend(
                    faults.into_iter().map(|fault| Complaint(format!("{}: {fault}", document.place))),
                );
                if let Some(kept) = last.get(&name).cloned() {
                    plan.insert(name, kept);
                }
            }
        }
    }
    (plan, complaints)
}

fn pools(reading: &Reading) -> impl Iterator<Item = (ObjectName, &Document, &RelayPool)> {
    reading.objects.values().filter_map(|document| match &document.manifest {
        Manifest::Pool(pool) => {
            let Key { namespace, name, .. } = document.key.clone();
            Some((ObjectName { namespace, name }, document, pool.as_ref()))
        }
        _ => None,
    })
}

/// The faults of upstreams that no pool names; those of the others are told with the pool.
fn unused_upstreams(reading: &Reading) -> Vec<Complaint> {
    let names = |(pool, _, spec): (ObjectName, &Document, &RelayPool)| {
        upstream_names(spec)
            .into_iter()
            .map(|name| (pool.namespace.clone(), name.to_owned()))
            .collect::<Vec<_>>()
    };
    let used: BTreeSet<(String, String)> = pools(reading).flat_map(names).collect();
    let mut complaints = Vec::new();
    for document in reading.objects.values() {
        let Manifest::Upstream(found) = &document.manifest else { continue };
        let Key { namespace, name, .. } = &document.key;
        if used.contains(&(namespace.clone(), name.clone())) {
            continue;
        }
        if let Err(findings) = upstream::validate(name, found, &secrets(reading, namespace)) {
            complaints
                .extend(findings.iter().map(|problem| Complaint(format!("{}: {problem}", document.place))));
        }
    }
    complaints
}

fn secrets(reading: &Reading, namespace: &str) -> Secrets {
    let mut secrets = Secrets::of(namespace);
    for (name, manifest) in of_kind(reading, Kind::Secret, namespace) {
        if let Manifest::Secret(secret) = manifest {
            secrets.insert(name, secret.as_ref().clone());
        }
    }
    secrets
}

fn upstreams(reading: &Reading, namespace: &str) -> BTreeMap<String, Result<Upstream, String>> {
    let upstream = |(name, manifest): (&str, &Manifest)| match manifest {
        Manifest::Upstream(upstream) => {
            let mut upstream = upstream.as_ref().clone();
            // All relays are here, and read what is written within a moment.
            let pools =
                pools(reading).filter(|(pool, ..)| pool.namespace == namespace).map(|(.., pool)| pool);
            let division = Division {
                number: 1,
                pools: division::wanted(pools, name),
                ended: None,
                longer_than_seconds: None,
            };
            upstream.status.get_or_insert_default().divisions = vec![division];
            Some((name.to_owned(), Ok(upstream)))
        }
        _ => None,
    };
    of_kind(reading, Kind::Upstream, namespace).filter_map(upstream).collect()
}

fn of_kind<'a>(
    reading: &'a Reading,
    kind: Kind,
    namespace: &str,
) -> impl Iterator<Item = (&'a str, &'a Manifest)> {
    let objects =
        reading.objects.iter().filter(move |(key, _)| key.kind == kind && key.namespace == namespace);
    objects.map(|(key, document)| (key.name.as_str(), &document.manifest))
}

/// The pool's relays, or every reason why it cannot be used.
fn relays(pool: &RelayPool, reading: &Reading) -> Result<Vec<RelayPlan>, Vec<String>> {
    let namespace = pool.metadata.namespace.clone().unwrap_or_default();
    let references =
        References { upstreams: upstreams(reading, &namespace), secrets: secrets(reading, &namespace) };
    let valid = validate(pool, &references)
        .map_err(|findings| findings.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let small = valid.upstreams.iter().find_map(|upstream| {
        let relays = upstream.divisions.last().map_or(valid.replicas, |division| division.of);
        let what = division::too_small(upstream, relays)?;
        Some(format!(
            "Upstream {}: {relays} relays share {what}: allow more, or lower the replicas",
            upstream.name
        ))
    });
    if let Some(small) = small {
        return Err(vec![small]);
    }
    (0..valid.replicas).map(|ordinal| relay(&valid, ordinal).map_err(|fault| vec![fault])).collect()
}

fn relay(pool: &ValidatedPool, ordinal: u32) -> Result<RelayPlan, String> {
    let place = |listener: &ValidatedListener| Ok((listener.name.clone(), address(pool, listener, ordinal)?));
    let listeners: Vec<(String, SocketAddr)> =
        pool.listeners.iter().map(place).collect::<Result<_, String>>()?;
    let endpoint = pool.names.endpoint(&pool.namespace, DOMAIN);
    let mut config = relay_config(pool, &endpoint, |wanted| {
        let found = listeners.iter().find(|(name, _)| *name == wanted.name);
        found.map(|(_, address)| address.to_string()).unwrap_or_default()
    });
    // There is no Service, so no client learns late that a relay is leaving.
    config.shutdown.accept_seconds = 0;
    let rendered = Rendered(render(&config).map_err(|problem| problem.to_string())?);
    Ok(RelayPlan { ordinal, config, rendered, listeners })
}

fn address(pool: &ValidatedPool, listener: &ValidatedListener, ordinal: u32) -> Result<SocketAddr, String> {
    let port = u32::from(listener.container_port) + PORTS_APART * ordinal;
    let port = u16::try_from(port).map_err(|_| {
        format!(
            "RelayPool {}: relay {ordinal} would listen on port {port}, {PORTS_APART} above the one before, and ports end \
             at 65535: lower the port of listener {} or the replicas",
            pool.names.pool, listener.name
        )
    })?;
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// The relays, if no port of theirs is another's.
fn apart(relays: Vec<RelayPlan>, plan: &Plan) -> Result<Vec<RelayPlan>, Vec<String>> {
    let mut taken: BTreeMap<SocketAddr, String> = plan.values().flatten().flat_map(addresses).collect();
    let mut faults = Vec::new();
    for relay in &relays {
        for (address, user) in addresses(relay) {
            if let Some(other) = taken.insert(address, user.clone()) {
                faults.push(format!("{user} and {other} would both use {address}: change a port"));
            }
        }
    }
    if faults.is_empty() { Ok(relays) } else { Err(faults) }
}

fn addresses(relay: &RelayPlan) -> impl Iterator<Item = (SocketAddr, String)> {
    let RelayPlan { ordinal, config, listeners, .. } = relay;
    let user = move |name: &str| format!("listener {name} of RelayPool {}, relay {ordinal},", config.pool);
    listeners.iter().map(move |(name, address)| (*address, user(name)))
}

/// Where a relay's routes lead, for people: `default → ses (smtp.example.com:587)`, the best upstream first.
#[must_use]
pub fn destinations(config: &RelayConfig) -> String {
    let describe = |name: &str| {
        let found = config.upstreams.iter().find(|upstream| upstream.name == name);
        match found.map(|upstream| &upstream.destination) {
            Some(Destination::Smarthost(smarthost)) => {
                let port = smarthost.ports.first().map(|port| port.port).unwrap_or_default();
                format!("{name} ({}:{port})", smarthost.host)
            }
            Some(Destination::Sandbox(_)) => format!("{name} (sandbox: kept here, not sent)"),
            None => name.to_owned(),
        }
    };
    let routes = config.routes.iter().map(|route| {
        let mut upstreams: Vec<_> = route.upstreams.iter().collect();
        upstreams.sort_by_key(|upstream| upstream.priority);
        let upstreams = upstreams.into_iter().map(|upstream| describe(&upstream.name));
        format!("{} → {}", route.name, upstreams.collect::<Vec<_>>().join(", "))
    });
    routes.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::manifests::parse;
    use crate::local::schema::Schemas;

    const SANDBOX: &str =
        "apiVersion: postroad.dev/v1alpha1\nkind: Upstream\nmetadata: {name: box}\nspec: {sandbox: {}}\n";

    fn pool(name: &str, listeners: &str, replicas: u32) -> String {
        format!(
            "---\napiVersion: postroad.dev/v1alpha1\nkind: RelayPool\nmetadata: {{name: {name}}}\nspec:\n  \
             replicas: {replicas}\n  listeners: {listeners}\n  clients: {{identities: []}}\n  \
             routes: [{{name: all, upstreams: [{{name: box}}]}}]\n"
        )
    }

    fn reading(text: &str) -> Reading {
        let parsed = parse("a.yaml", text, &Schemas::default());
        assert!(parsed.complaints.is_empty(), "{:?}", parsed.complaints);
        let objects = parsed.documents.into_iter().map(|document| (document.key.clone(), document)).collect();
        Reading { objects, ..Reading::default() }
    }

    fn planned(text: &str, last: &Plan, complaint: &str) -> Plan {
        let (plan, complaints) = plan(&reading(text), last);
        let told = complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(
            told.contains(complaint) && told.is_empty() == complaint.is_empty(),
            "{complaint:?} in {told:?}"
        );
        plan
    }

    #[test]
    fn each_relay_has_its_ports() {
        let pool = pool("main", "[{name: smtp, port: 25}, {name: alt, port: 2525}]", 2);
        let plan = planned(&format!("{SANDBOX}{pool}"), &Plan::new(), "");
        let relays = plan.values().next().unwrap();
        let ports = |relay: &RelayPlan| relay.listeners.iter().map(|(_, at)| at.port()).collect::<Vec<_>>();
        assert_eq!(relays.iter().map(ports).collect::<Vec<_>>(), [[10025, 2525], [11025, 3525]]);
        assert!(relays[1].rendered.0.contains("address: 127.0.0.1:11025"));
        assert_eq!(destinations(&relays[1].config), "all → box (sandbox: kept here, not sent)");
    }

    #[test]
    fn a_port_taken_by_a_running_pool_is_told_and_the_running_pool_stays() {
        let main = pool("main", "[{name: smtp, port: 25}]", 1);
        let first = planned(&format!("{SANDBOX}{main}"), &Plan::new(), "");
        let other = pool("a", "[{name: x, port: 10025}]", 1);
        let second = planned(&format!("{SANDBOX}{main}{other}"), &first, "would both use 127.0.0.1:10025");
        let ports = |plan: &Plan| {
            plan.iter().map(|(name, relays)| (name.clone(), relays[0].listeners.clone())).collect::<Vec<_>>()
        };
        assert_eq!(ports(&second), ports(&first));
        let self_made = pool("main", "[{name: smtp, port: 2525}, {name: alt, port: 3525}]", 2);
        planned(&format!("{SANDBOX}{self_made}"), &Plan::new(), "would both use 127.0.0.1:3525");
        planned(
            &format!("{SANDBOX}{}", pool("main", "[{name: x, port: 65000}]", 2)),
            &Plan::new(),
            "ports end at 65535",
        );
    }

    #[test]
    fn a_pool_whose_upstream_vanishes_keeps_running_as_it_was() {
        let main = pool("main", "[{name: smtp, port: 25}]", 1);
        let first = planned(&format!("{SANDBOX}{main}"), &Plan::new(), "");
        let second =
            planned(&main, &first, "Upstream box, named by spec.routes of RelayPool main, does not exist");
        assert_eq!(second, first);
        assert!(planned(SANDBOX, &second, "").is_empty(), "a pool that is removed goes");
    }

    #[test]
    fn an_upstream_that_nobody_names_is_checked_too() {
        let text = "apiVersion: postroad.dev/v1alpha1\nkind: Upstream\nmetadata: {name: ses}\nspec:\n  smarthost:\n    \
                    host: h\n    ports: [{port: 587, tls: StartTLS}]\n    credentials: {secretRef: {name: ses}}\n";
        planned(text, &Plan::new(), "a.yaml:1: Secret default/ses, named by");
    }
}
