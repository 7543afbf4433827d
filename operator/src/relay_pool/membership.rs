//! Which relays a pool has, and which of them are leaving. Pure.
//!
//! A relay is taken away only when it has said that it holds nothing any more, from the highest ordinal down, because a
//! StatefulSet takes away no other. One that is to come back waits until what its predecessor left behind is removed.

use std::collections::BTreeSet;

/// The relays of a pool as they are to be now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// How many there are: those that stay and those that leave.
    pub replicas: u32,
    /// The ordinals that leave.
    pub leaving: BTreeSet<u32>,
}

impl Membership {
    /// So many relays, none of which leaves.
    #[must_use]
    pub fn of(replicas: u32) -> Self {
        Self { replicas, leaving: BTreeSet::new() }
    }
}

/// What is known of a pool's relays.
#[derive(Clone, Debug, Default)]
pub struct Situation {
    /// How many the StatefulSet has; `None` before there is one.
    pub present: Option<u32>,
    /// The ordinals that hold nothing, and accept nothing that they could.
    pub empty: BTreeSet<u32>,
    /// The ordinals that are gone and whose volumes, empty, are still to be removed.
    pub left_behind: BTreeSet<u32>,
}

/// How the pool gets from its situation to `desired` relays: the next step.
#[must_use]
pub fn next(desired: u32, situation: &Situation) -> Membership {
    let Some(present) = situation.present else { return Membership::of(desired) };
    let mut replicas = present;
    while replicas > desired && situation.empty.contains(&(replicas - 1)) {
        replicas -= 1;
    }
    while replicas < desired && !situation.left_behind.contains(&replicas) {
        replicas += 1;
    }
    Membership { replicas, leaving: (desired..replicas).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        desired: u32,
        present: Option<u32>,
        empty: &[u32],
        left_behind: &[u32],
        expected: (u32, &[u32]),
    ) {
        let situation = Situation {
            present,
            empty: empty.iter().copied().collect(),
            left_behind: left_behind.iter().copied().collect(),
        };
        let Membership { replicas, leaving } = next(desired, &situation);
        let leaving: Vec<u32> = leaving.into_iter().collect();
        assert_eq!((replicas, leaving.as_slice()), expected, "{desired} of {situation:?}");
    }

    #[test]
    fn a_pool_begins_and_grows_at_once() {
        check(3, None, &[], &[], (3, &[]));
        check(3, Some(1), &[], &[], (3, &[]));
        check(3, Some(3), &[0, 1, 2], &[], (3, &[]));
    }

    #[test]
    fn a_relay_goes_when_it_is_empty_and_none_above_it_is_left() {
        check(1, Some(4), &[], &[], (4, &[1, 2, 3]));
        check(1, Some(4), &[1, 2], &[], (4, &[1, 2, 3]));
        check(1, Some(4), &[1, 3], &[], (3, &[1, 2]));
        check(1, Some(4), &[1, 2, 3], &[], (1, &[]));
    }

    #[test]
    fn a_relay_that_stays_is_never_taken_away_for_being_empty() {
        check(2, Some(3), &[0, 1, 2], &[], (2, &[]));
    }

    #[test]
    fn an_ordinal_comes_back_only_when_nothing_of_it_is_left_behind() {
        check(4, Some(1), &[], &[2], (2, &[]));
        check(4, Some(1), &[], &[1, 2], (1, &[]));
        check(4, Some(2), &[], &[], (4, &[]));
    }

    #[test]
    fn a_change_of_mind_lets_those_stay_that_are_still_there() {
        check(3, Some(4), &[], &[], (4, &[3]));
        check(4, Some(4), &[3], &[], (4, &[]));
    }
}
