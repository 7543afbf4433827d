//! What relays have lately said of their upstreams. Pure but for its lock; time is counted in rounds of questions.
//!
//! It is made so that a status in which nothing has happened is not written again: a relay that misses one question is as it was, and a
//! relay for which an upstream fails all the time keeps the words that it gave first for some minutes, because services put a number of
//! their own into each reply.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postroad_crds::relay_config::UpstreamStanding;

/// Questions in a row without an answer that make a relay silent.
const SILENT_AFTER: u32 = 3;
/// Rounds for which words are kept though other words for the same have come.
const WORDS_LAST: u32 = 20;

/// How upstreams stand for one relay, by their names.
pub type Standings = BTreeMap<String, UpstreamStanding>;

/// What one relay has said lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// How its upstreams stand.
    Standings(Standings),
    /// Nothing, several times.
    Nothing,
}

/// What the relays of a pool have said lately, by ordinal. One that runs and was not heard yet is not among them.
pub type Relays = BTreeMap<u32, Said>;

/// What came of asking one relay.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The UID of its pod: a new pod has said nothing yet.
    pub pod: String,
    /// How upstreams stand for it; `None` when it did not answer.
    pub standings: Option<Vec<UpstreamStanding>>,
}

/// The relays of all pools, by namespace and pool.
#[derive(Default)]
pub struct Board(Mutex<HashMap<(String, String), Pool>>);

#[derive(Default)]
struct Pool {
    records: BTreeMap<u32, Record>,
    shown: Arc<Relays>,
}

struct Record {
    pod: String,
    unanswered: u32,
    standings: Standings,
    /// Rounds since these words were taken.
    rounds: u32,
}

impl Board {
    /// What the pool's relays have said lately; nothing before they were asked.
    #[must_use]
    pub fn relays(&self, namespace: &str, pool: &str) -> Arc<Relays> {
        let key = (namespace.to_owned(), pool.to_owned());
        self.pools().get(&key).map(|pool| pool.shown.clone()).unwrap_or_default()
    }

    /// Notes what came of asking all relays of the pool that run. Returns whether anything is new.
    pub fn note(&self, namespace: &str, pool: &str, answers: BTreeMap<u32, Answer>) -> bool {
        let mut pools = self.pools();
        let pool = pools.entry((namespace.to_owned(), pool.to_owned())).or_default();
        pool.records.retain(|ordinal, _| answers.contains_key(ordinal));
        for (ordinal, answer) in answers {
            pool.records.entry(ordinal).or_insert_with(|| Record::of(&answer.pod)).note(answer);
        }
        let said = pool.records.iter().filter_map(|(ordinal, record)| Some((*ordinal, record.said()?)));
        let shown: Relays = said.collect();
        let new = *pool.shown != shown;
        if new {
            pool.shown = Arc::new(shown);
        }
        new
    }

    /// Forgets all pools but those of which `stays` says, by namespace and name, that they are there.
    pub fn retain(&self, stays: impl Fn(&str, &str) -> bool) {
        self.pools().retain(|(namespace, pool), _| stays(namespace, pool));
    }

    fn pools(&self) -> MutexGuard<'_, HashMap<(String, String), Pool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn of(pod: &str) -> Self {
        Self { pod: pod.to_owned(), unanswered: 0, standings: Standings::new(), rounds: 0 }
    }

    fn note(&mut self, Answer { pod, standings }: Answer) {
        if self.pod != pod {
            *self = Self::of(&pod);
        }
        let Some(standings) = standings else {
            self.unanswered += 1;
            return;
        };
        self.unanswered = 0;
        self.rounds += 1;
        // One that delivers nothing at the moment, or is of an earlier release, says nothing of upstreams.
        if standings.is_empty() {
            return;
        }
        let new: Standings = standings.into_iter().map(|it| (it.name.clone(), it)).collect();
        if self.rounds > WORDS_LAST || !same_but_for_words(&self.standings, &new) {
            (self.standings, self.rounds) = (new, 0);
        }
    }

    fn said(&self) -> Option<Said> {
        if self.unanswered >= SILENT_AFTER {
            Some(Said::Nothing)
        } else if self.standings.is_empty() {
            None
        } else {
            Some(Said::Standings(self.standings.clone()))
        }
    }
}

fn same_but_for_words(one: &Standings, other: &Standings) -> bool {
    let without = |it: &UpstreamStanding| (it.standing, it.port, it.passed_over.len());
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| one.0 == other.0 && without(one.1) == without(other.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postroad_crds::relay_config::Standing;

    fn answer(pod: &str, standings: Option<&[(&str, Standing, &str)]>) -> BTreeMap<u32, Answer> {
        let standing = |(name, standing, why): &(&str, Standing, &str)| UpstreamStanding {
            name: (*name).to_owned(),
            standing: *standing,
            obstacle: Some((*why).to_owned()),
            port: None,
            passed_over: Vec::new(),
        };
        let standings = standings.map(|all| all.iter().map(standing).collect());
        [(0, Answer { pod: pod.to_owned(), standings })].into()
    }

    fn obstacle(board: &Board) -> String {
        match board.relays("mail", "main").get(&0) {
            Some(Said::Standings(standings)) => standings["ses"].obstacle.clone().unwrap(),
            Some(Said::Nothing) => "silent".to_owned(),
            None => "unheard".to_owned(),
        }
    }

    #[test]
    fn only_what_is_new_is_told() {
        let board = Board::default();
        let note = |standings| board.note("mail", "main", answer("a", Some(standings)));
        let both = [("ses", Standing::Works, ""), ("backup", Standing::Works, "")];
        assert_eq!([note(&both), note(&both), note(&both[..1])], [true, false, true]);
        assert!(!note(&[]), "it delivers nothing at the moment");
        board.retain(|_, _| false);
        assert!(board.relays("mail", "main").is_empty());
    }

    #[test]
    fn a_relay_is_silent_after_three_questions_and_a_new_pod_has_said_nothing() {
        let board = Board::default();
        let works: Option<&[_]> = Some(&[("ses", Standing::Works, "fine")]);
        let note = |pod, standings| {
            board.note("mail", "main", answer(pod, standings));
            obstacle(&board)
        };
        assert_eq!([note("a", None), note("a", works)], ["unheard", "fine"]);
        assert_eq!([note("a", None), note("a", None), note("a", None)], ["fine", "fine", "silent"]);
        assert_eq!([note("a", works), note("b", None), note("b", works)], ["fine", "unheard", "fine"]);
        board.note("mail", "main", BTreeMap::new());
        assert_eq!(obstacle(&board), "unheard", "its pod has gone");
    }

    #[test]
    fn other_words_for_the_same_are_taken_after_some_minutes() {
        let board = Board::default();
        let fails =
            |why: &str| board.note("mail", "main", answer("a", Some(&[("ses", Standing::Fails, why)])));
        fails("421 busy [1]");
        for round in 0..WORDS_LAST {
            assert!(!fails(&format!("421 busy [{round}]")));
        }
        assert!(fails("421 busy [x]"));
        assert_eq!(obstacle(&board), "421 busy [x]");
    }
}
