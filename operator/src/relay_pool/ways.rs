//! Which routes of a pool go another way than the preferred one, by what its relays say of their upstreams. Pure.

use std::collections::BTreeMap;

use postroad_crds::relay_config::Standing;
use postroad_crds::v1alpha1::Route;

use crate::reason::Reason;
use crate::standing::board::{Relays, Said, Standings};
use crate::standing::verdict::Verdict;
use crate::wording::{clipped, several};

/// How many routes, and ways of one, are told of.
const TOLD: usize = 8;
/// Octets of an Upstream's own words; its own status has more.
const QUOTED: usize = 160;

/// Where a relay sends what takes a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// To these, because none of a better priority works.
    To(Vec<String>),
    /// Nowhere: none works.
    Nowhere,
}

/// The condition `PreferredUpstreams`; `None` when no relay has been heard yet, so that it stays as it is.
#[must_use]
pub fn preferred_upstreams(routes: &[Route], relays: &Relays) -> Option<Verdict> {
    let silent: Vec<u32> =
        relays.iter().filter(|(_, said)| **said == Said::Nothing).map(|(ordinal, _)| *ordinal).collect();
    let told: Vec<(u32, &Standings)> = relays
        .iter()
        .filter_map(|(ordinal, said)| match said {
            Said::Standings(standings) => Some((*ordinal, standings)),
            Said::Nothing => None,
        })
        .collect();
    if told.is_empty() {
        let message = format!("no relay says where routes go: relays {}", several(&silent));
        return (!silent.is_empty()).then(|| Verdict::new(None, Reason::RelaysSilent, message));
    }
    let (mut sentences, mut waits) = (Vec::new(), false);
    for route in routes {
        let ways = other_ways(route, &told);
        waits |= ways.contains_key(&Way::Nowhere);
        sentences.extend(ways.iter().map(|(way, relays)| sentence(route, way, relays)));
    }
    let mut verdict = match (sentences.as_slice(), waits) {
        ([], _) => Verdict::new(
            true,
            Reason::AsPreferred,
            "every route has an Upstream of its best priority that works",
        ),
        (some, waits) => {
            let reason = if waits { Reason::NoUpstreamWorks } else { Reason::FailedOver };
            let mut message = some.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ");
            if some.len() > TOLD {
                message.push_str("; and others");
            }
            Verdict::new(false, reason, message)
        }
    };
    if !silent.is_empty() {
        verdict.message.push_str(&format!("; no answer from relays {}", several(&silent)));
    }
    Some(verdict)
}

/// The relays whose mail goes another way, by that way, with what the first of them says of the Upstreams that it prefers.
fn other_ways(route: &Route, told: &[(u32, &Standings)]) -> BTreeMap<Way, (Vec<u32>, String)> {
    let mut ways: BTreeMap<Way, (Vec<u32>, String)> = BTreeMap::new();
    for (ordinal, standings) in told {
        if let Some(way) = way(route, standings) {
            let (relays, _) = ways.entry(way).or_insert_with(|| (Vec::new(), obstacles(route, standings)));
            relays.push(*ordinal);
        }
    }
    ways
}

/// `None` when the best priority takes it.
fn way(route: &Route, standings: &Standings) -> Option<Way> {
    let mut priorities: BTreeMap<i32, Vec<&str>> = BTreeMap::new();
    for upstream in &route.upstreams {
        priorities.entry(upstream.priority).or_default().push(&upstream.name);
    }
    let working = |names: &Vec<&str>| -> Vec<String> {
        names.iter().filter(|name| works(standings, name)).map(ToString::to_string).collect()
    };
    let first = priorities.values().map(working).enumerate().find(|(_, working)| !working.is_empty());
    match first {
        Some((0, _)) => None,
        Some((_, working)) => Some(Way::To(working)),
        None => Some(Way::Nowhere),
    }
}

/// What a relay does not say fails counts as working. That it has no share is told by the Upstream (`BudgetTooSmall`), and comes to pass
/// for moments whenever relays come.
fn works(standings: &Standings, name: &str) -> bool {
    let standing = standings.get(name).map(|it| it.standing);
    !matches!(standing, Some(Standing::Fails | Standing::Drained))
}

/// Why the Upstreams of the best priority get nothing.
fn obstacles(route: &Route, standings: &Standings) -> String {
    let best = route.upstreams.iter().map(|upstream| upstream.priority).min();
    let preferred = route.upstreams.iter().filter(|upstream| Some(upstream.priority) == best);
    let obstacle = |name: &str| {
        let why = standings.get(name).and_then(|it| it.obstacle.as_deref()).unwrap_or("fails");
        format!("{name}: {}", clipped(why, QUOTED))
    };
    several(&preferred.map(|upstream| obstacle(&upstream.name)).collect::<Vec<_>>())
}

fn sentence(route: &Route, way: &Way, (relays, obstacles): &(Vec<u32>, String)) -> String {
    let (route, relays) = (&route.name, several(relays));
    match way {
        Way::To(upstreams) => {
            format!("route {route} goes to {} at relays {relays} ({obstacles})", several(upstreams))
        }
        Way::Nowhere => {
            format!("route {route} goes nowhere at relays {relays}, its mail waits ({obstacles})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postroad_crds::relay_config::UpstreamStanding;

    fn routes() -> Vec<Route> {
        serde_yaml::from_str(
            "- {name: bulk, upstreams: [{name: ses}]}
- {name: rest, upstreams: [{name: backup, priority: 5}, {name: ses}, {name: mailgun}]}",
        )
        .unwrap()
    }

    fn failing(names: &[&str]) -> Said {
        let standing = |name: &&str| UpstreamStanding {
            name: (*name).to_owned(),
            standing: if *name == "mailgun" { Standing::Drained } else { Standing::Fails },
            obstacle: Some("port 587: refused".to_owned()),
            port: None,
            passed_over: Vec::new(),
        };
        let mut standings: Standings =
            names.iter().map(|name| ((*name).to_owned(), standing(name))).collect();
        let other = UpstreamStanding { standing: Standing::NoShare, obstacle: None, ..standing(&"other") };
        standings.insert("other".to_owned(), other);
        Said::Standings(standings)
    }

    fn check(relays: &[Said], expected: (Option<bool>, Reason, &str)) {
        let relays = (0..).zip(relays.iter().cloned()).collect();
        let verdict = preferred_upstreams(&routes(), &relays).unwrap();
        assert_eq!((verdict.holds, verdict.reason), (expected.0, expected.1), "{verdict:?}");
        assert!(verdict.message.contains(expected.2), "{:?} is not in {verdict:?}", expected.2);
    }

    #[test]
    fn a_route_that_goes_another_way_is_told_with_its_relays_and_the_reason() {
        check(&[failing(&[]), failing(&["mailgun"])], (Some(true), Reason::AsPreferred, "works"));
        let both = failing(&["ses", "mailgun"]);
        let words = "route rest goes to backup at relays 0, 2 (ses: port 587: refused, mailgun: port 587";
        check(&[both.clone(), failing(&[]), both.clone()], (Some(false), Reason::NoUpstreamWorks, words));
        let words = "route bulk goes nowhere at relays 0, its mail waits (ses: port 587: refused)";
        check(&[both], (Some(false), Reason::NoUpstreamWorks, words));
        check(&[failing(&[]), Said::Nothing], (Some(true), Reason::AsPreferred, "no answer from relays 1"));
    }

    #[test]
    fn a_route_with_one_that_works_behind_it_has_failed_over() {
        let routes = &routes()[1..];
        let relays = [(0, failing(&["ses", "mailgun"]))].into();
        assert_eq!(preferred_upstreams(routes, &relays).unwrap().reason, Reason::FailedOver);
        let relays = [(0, failing(&["ses"]))].into();
        assert_eq!(preferred_upstreams(routes, &relays).unwrap().holds, Some(true), "mailgun is as good");
    }

    #[test]
    fn what_no_relay_says_is_unknown_and_before_any_was_asked_nothing_is_said() {
        check(&[Said::Nothing], (None, Reason::RelaysSilent, "relays 0"));
        assert_eq!(preferred_upstreams(&routes(), &Relays::new()), None);
    }
}
