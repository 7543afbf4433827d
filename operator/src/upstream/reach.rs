//! Whether an Upstream can be reached, and on which port, by what all relays say that use it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use postroad_crds::relay_config::{Standing, UpstreamStanding};

use crate::reason::Reason;
use crate::standing::board::{Relays, Said};
use crate::standing::verdict::Verdict;
use crate::wording::several;

/// How many different obstacles are quoted.
const QUOTED: usize = 4;

/// How an Upstream stands for the relays of all pools that name it. Relays have the names of their pods.
#[derive(Debug, Default)]
pub struct Reach {
    /// Whether any pool names it.
    named: bool,
    /// Relays that have had a session with it.
    works: Vec<String>,
    /// Relays for which it fails, by what is in the way.
    fails: BTreeMap<String, Vec<String>>,
    /// Relays at which it is drained.
    drained: Vec<String>,
    /// Relays that do not answer.
    silent: Vec<String>,
    /// Whether a relay has said anything of it.
    heard: bool,
    /// Relays by the port that they use.
    ports: BTreeMap<u16, Vec<String>>,
    /// Relays by the port that they use and why they passed over those that are preferred.
    passed_over: BTreeMap<(u16, String), Vec<String>>,
}

impl Reach {
    /// What the relays of these pools say of the Upstream. The pools are those that name it.
    pub fn of<'a>(upstream: &str, pools: impl IntoIterator<Item = (&'a str, Arc<Relays>)>) -> Self {
        let mut reach = Self::default();
        for (pool, relays) in pools {
            reach.named = true;
            for (ordinal, said) in relays.iter() {
                let relay = format!("{pool}-{ordinal}");
                match said {
                    Said::Nothing => reach.silent.push(relay),
                    Said::Standings(standings) => {
                        if let Some(standing) = standings.get(upstream) {
                            reach.note(relay, standing);
                        }
                    }
                }
            }
        }
        reach
    }

    fn note(&mut self, relay: String, said: &UpstreamStanding) {
        self.heard = true;
        match said.standing {
            Standing::Works => {
                if let Some(port) = said.port {
                    self.ports.entry(port).or_default().push(relay.clone());
                    if !said.passed_over.is_empty() {
                        let why = said.passed_over.join("; ");
                        self.passed_over.entry((port, why)).or_default().push(relay.clone());
                    }
                }
                self.works.push(relay);
            }
            Standing::Fails => {
                let why = said.obstacle.clone().unwrap_or_else(|| "it does not say why".to_owned());
                self.fails.entry(why).or_default().push(relay);
            }
            Standing::Drained => self.drained.push(relay),
            Standing::Untried | Standing::NoShare | Standing::Unknown => {}
        }
    }

    /// The condition `Reachable`; `None` when nothing was heard yet, so that it stays as it is.
    #[must_use]
    pub fn reachable(&self) -> Option<Verdict> {
        if !self.named {
            return Some(Verdict::new(None, Reason::NotUsed, "no RelayPool names it in a route"));
        }
        let verdict = if !self.fails.is_empty() {
            self.unreachable()
        } else if !self.works.is_empty() {
            let message = "every relay that has had mail for it reaches it";
            Verdict::new(true, Reason::Reachable, message)
        } else if !self.drained.is_empty() {
            Verdict::new(None, Reason::Drained, "it is given no mail")
        } else if self.heard {
            let message = "no relay has had mail for it since the relays started or it was changed";
            Verdict::new(None, Reason::NotTried, message)
        } else if !self.silent.is_empty() {
            Verdict::new(None, Reason::RelaysSilent, "no relay says whether it reaches it")
        } else {
            return None;
        };
        Some(self.with_others(verdict))
    }

    fn unreachable(&self) -> Verdict {
        let failing: usize = self.fails.values().map(Vec::len).sum();
        let reason = if self.works.is_empty() { Reason::Unreachable } else { Reason::PartlyUnreachable };
        let of =
            if self.works.is_empty() { String::new() } else { format!(" of {}", failing + self.works.len()) };
        let (relays, them) = if failing == 1 && of.is_empty() { ("relay", "it") } else { ("relays", "them") };
        let reasons = self.fails.iter().map(|(why, relays)| format!("{}: {why}", several(relays)));
        let mut message = format!(
            "{failing}{of} {relays} cannot give it mail, which takes another way where a route has one, else waits; the reason for \
             {them} is, at {}",
            reasons.take(QUOTED).collect::<Vec<_>>().join("; at ")
        );
        if self.fails.len() > QUOTED {
            message.push_str("; and others");
        }
        Verdict::new(false, reason, message)
    }

    fn with_others(&self, mut verdict: Verdict) -> Verdict {
        if !self.drained.is_empty() {
            verdict.message.push_str(&format!("; drained by a person's order at {}", several(&self.drained)));
        }
        if !self.silent.is_empty() {
            verdict.message.push_str(&format!("; no answer from {}", several(&self.silent)));
        }
        verdict
    }

    /// The condition `PreferredPort`; `None` when no relay says which port it uses, so that it stays as it is.
    #[must_use]
    pub fn preferred_port(&self) -> Option<Verdict> {
        if self.ports.is_empty() {
            return None;
        }
        if self.passed_over.is_empty() {
            let ports: Vec<_> = self.ports.keys().collect();
            let message = format!("sessions are on port {}", several(&ports));
            return Some(Verdict::new(true, Reason::PreferredPort, message));
        }
        let used = self.passed_over.iter().map(|((port, why), relays)| {
            format!("{} on port {port}, because a better one did not work: {why}", several(relays))
        });
        let message = format!("sessions are, at {}", used.take(QUOTED).collect::<Vec<_>>().join("; at "));
        Some(Verdict::new(false, Reason::PortPassedOver, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(standing: Standing, why: &str, port: Option<u16>, passed_over: &[&str]) -> Said {
        let said = UpstreamStanding {
            name: "ses".to_owned(),
            standing,
            obstacle: (!why.is_empty()).then(|| why.to_owned()),
            port,
            passed_over: passed_over.iter().map(ToString::to_string).collect(),
        };
        Said::Standings([("ses".to_owned(), said)].into())
    }

    fn reach(relays: impl IntoIterator<Item = Said>) -> Reach {
        Reach::of("ses", [("main", Arc::new((0..).zip(relays).collect::<Relays>()))])
    }

    fn check(relays: impl IntoIterator<Item = Said>, expected: (Option<bool>, Reason, &[&str])) {
        let verdict = reach(relays).reachable().unwrap();
        assert_eq!((verdict.holds, verdict.reason), (expected.0, expected.1), "{verdict:?}");
        for words in expected.2 {
            assert!(verdict.message.contains(words), "{words:?} is not in {verdict:?}");
        }
    }

    #[test]
    fn one_relay_that_cannot_reach_it_is_told_with_its_reason() {
        let works = || said(Standing::Works, "", Some(587), &[]);
        let fails = |why: &str| said(Standing::Fails, why, None, &[]);
        check([works(), works()], (Some(true), Reason::Reachable, &["reaches it"]));
        let some: &[&str] = &["1 of 2 relays", "at main-1: port 587: refused"];
        check([works(), fails("port 587: refused")], (Some(false), Reason::PartlyUnreachable, some));
        let all: &[&str] = &["3 relays", "at main-0, main-2: no", "at main-1: 535 wrong"];
        check([fails("no"), fails("535 wrong"), fails("no")], (Some(false), Reason::Unreachable, all));
        let many = (0..40).map(|number| fails(&format!("{number}")));
        assert!(reach(many).reachable().unwrap().message.ends_with("; and others"));
    }

    #[test]
    fn what_nobody_knows_is_unknown_with_the_reason_why() {
        let untried = || said(Standing::Untried, "", None, &[]);
        check([untried()], (None, Reason::NotTried, &["had mail"]));
        check([untried(), said(Standing::NoShare, "", None, &[])], (None, Reason::NotTried, &[]));
        check([Said::Nothing, Said::Nothing], (None, Reason::RelaysSilent, &["main-0, main-1"]));
        let drained = || said(Standing::Drained, "drained by order", None, &[]);
        check([drained(), untried()], (None, Reason::Drained, &["order at main-0"]));
        let works = said(Standing::Works, "", None, &[]);
        let others: &[&str] = &["drained by a person's order at main-1; no answer from main-2"];
        check([works, drained(), Said::Nothing], (Some(true), Reason::Reachable, others));
        assert_eq!(reach([]).reachable(), None, "no relay was asked yet");
        let unnamed = Reach::of("ses", []).reachable().unwrap();
        assert_eq!((unnamed.holds, unnamed.reason), (None, Reason::NotUsed));
    }

    #[test]
    fn the_port_in_use_is_told_and_why_another_was_passed_over() {
        let on = |port, passed_over: &[&str]| said(Standing::Works, "", Some(port), passed_over);
        let check = |relays: Vec<Said>, holds: bool, words: &str| {
            let verdict = reach(relays).preferred_port().unwrap();
            assert!(verdict.holds == Some(holds) && verdict.message.contains(words), "{verdict:?}");
        };
        check(vec![on(587, &[]), on(587, &[])], true, "on port 587");
        let blocked = || on(2587, &["port 587: connecting took more than 10s"]);
        check(
            vec![blocked(), on(587, &[]), blocked()],
            false,
            "at main-0, main-2 on port 2587, because a better one did not work: port 587: connecting",
        );
        assert_eq!(reach([said(Standing::Untried, "", None, &[])]).preferred_port(), None);
        let failing = said(Standing::Fails, "x", Some(2587), &["port 587: refused"]);
        assert_eq!(reach([failing]).preferred_port(), None, "it is on no port now");
    }
}
