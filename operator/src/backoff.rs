//! How long a watch that was interrupted rests before it tries again. The library's own backoff goes to a minute and forgets a failure
//! only after two, by which an outage of the API server that is over keeps the operator blind for up to two minutes more.

use std::time::Duration;

use kube::runtime::utils::Backoff;
use rand::RngExt;

/// The first rest.
const SHORTEST: Duration = Duration::from_millis(500);

/// The longest.
const LONGEST: Duration = Duration::from_secs(5);

/// Rests that double from half a second to five, of each a random part from the half on: operators that lost their watches
/// together do not come back together.
#[derive(Clone, Debug)]
pub struct Rests(Duration);

impl Default for Rests {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Iterator for Rests {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let rest = self.0;
        self.0 = (rest * 2).min(LONGEST);
        Some(rest.mul_f64(rand::rng().random_range(0.5..=1.0)))
    }
}

impl Backoff for Rests {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_a_bound_that_an_outage_is_not_prolonged_by_and_begin_anew_after_success() {
        let mut rests = Rests::default();
        for expected in [500, 1000, 2000, 4000, 5000, 5000] {
            let (rest, whole) = (rests.next().unwrap(), Duration::from_millis(expected));
            assert!(rest >= whole / 2 && rest <= whole, "{rest:?} of {whole:?}");
        }
        rests.reset();
        assert!(rests.next().unwrap() <= SHORTEST);
    }
}
