//! What leaving relays have lately said, so that each is asked every other second and no more often, however often its pool is
//! looked at: the number of messages in the pool's status is itself a change that brings the pool back.
//!
//! Only answers from which nothing follows are remembered. That a relay is empty has to be heard from it each time.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a relay that still holds something, or does not answer, is left alone.
pub const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What a leaving relay holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Whether it accepts nothing any more.
    pub closed: bool,
    /// Messages, those in quarantine among them.
    pub messages: u64,
}

impl Held {
    /// Nothing, and nothing can come.
    pub const NOTHING: Self = Self { closed: true, messages: 0 };
}

/// Answers by the UID of the pod; `None` where there was none.
#[derive(Default)]
pub struct Heard(Mutex<HashMap<String, (Instant, Option<Held>)>>);

impl Heard {
    /// The pod's last answer, while it is too early to ask again.
    pub fn lately(&self, pod: &str, now: Instant) -> Option<Option<Held>> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, held) = answers.get(pod)?;
        (now.duration_since(*at) < LOOK_AGAIN).then_some(*held)
    }

    /// Notes an answer.
    pub fn note(&self, pod: &str, held: Option<Held>, now: Instant) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, (at, _)| now.duration_since(*at) < LOOK_AGAIN);
        if held != Some(Held::NOTHING) {
            answers.insert(pod.to_owned(), (now, held));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_left_alone_for_a_while_unless_it_was_empty() {
        let (heard, begin) = (Heard::default(), Instant::now());
        let some = Some(Held { closed: true, messages: 3 });
        heard.note("a", some, begin);
        heard.note("b", None, begin);
        heard.note("c", Some(Held::NOTHING), begin);
        let soon = begin + LOOK_AGAIN / 2;
        let lately = ["a", "b", "c", "d"].map(|pod| heard.lately(pod, soon));
        assert_eq!(lately, [Some(some), Some(None), None, None]);
        assert_eq!(heard.lately("a", begin + LOOK_AGAIN), None);
    }
}
