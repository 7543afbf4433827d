//! How the upstreams stand, cut to what an answer to the operator has room for. Pure.

use postroad_crds::relay_config::{Standing, UpstreamStanding};

use crate::excerpt::excerpt;
use crate::order::UpstreamState;

/// Octets of JSON for all upstreams together: room for some hundred that work, or fifty that fail, beside all else that an answer
/// has. An operator of an earlier release reads no more than 64 KiB of it.
const OCTETS: usize = 24 << 10;
/// Octets of UTF-8 for the obstacle of one upstream, and for each of its ports' reasons.
const TEXT: usize = 240;

/// As many as there is room for: those of which most is to be told come first, in the order of their names.
pub(super) fn bounded(mut states: Vec<UpstreamState>) -> Vec<UpstreamStanding> {
    states.sort_by_key(|state| !deviates(state));
    let mut room = OCTETS;
    let standings = states.into_iter().map(standing);
    standings
        .map_while(|standing| {
            let octets = serde_json::to_vec(&standing).ok()?.len() + 1;
            room = room.checked_sub(octets)?;
            Some(standing)
        })
        .collect()
}

fn deviates(state: &UpstreamState) -> bool {
    matches!(state.standing, Standing::Fails | Standing::Drained) || !state.passed_over.is_empty()
}

fn standing(state: UpstreamState) -> UpstreamStanding {
    let UpstreamState { name, standing, obstacle, port, passed_over, .. } = state;
    UpstreamStanding {
        name,
        standing,
        obstacle: obstacle.map(|text| excerpt(text, TEXT)),
        port,
        passed_over: passed_over.into_iter().map(|text| excerpt(text, TEXT)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: String, standing: Standing, obstacle: Option<String>) -> UpstreamState {
        UpstreamState {
            name,
            drained: standing == Standing::Drained,
            works: standing == Standing::Works,
            waiting: 0,
            sessions: 0,
            allowed_sessions: 1,
            obstacle,
            standing,
            port: Some(587),
            passed_over: Vec::new(),
        }
    }

    #[test]
    fn those_that_fail_are_told_first_and_what_has_no_room_is_cut() {
        let mut states: Vec<_> =
            (0..1000).map(|number| state(format!("u{number:03}"), Standing::Works, None)).collect();
        for number in [7, 900] {
            let reply = format!("550 {}", "é".repeat(10_000));
            states[number] = state(format!("u{number:03}"), Standing::Fails, Some(reply));
        }
        let told = bounded(states);
        let names: Vec<_> = told.iter().take(3).map(|standing| standing.name.as_str()).collect();
        assert_eq!(names, ["u007", "u900", "u000"]);
        let octets = serde_json::to_vec(&told).unwrap().len();
        assert!(octets <= OCTETS + 1 && octets > OCTETS - 100, "{octets}");
        assert!(told[0].obstacle.as_ref().unwrap().len() <= TEXT + '…'.len_utf8());
    }
}
