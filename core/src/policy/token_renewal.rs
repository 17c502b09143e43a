//! When a client asks for its next token, while it has one that is good.
//!
//! Clients that were started together have tokens that end together, and all sessions that they open end with them.
//! Whatever all of them do at the same part of a token's life brings them into step, and their provider then has an
//! hour's work in a minute. So each token gets a time of its own, which is drawn; a session that is renewed before it
//! takes the token that there is.
//!
//! A provider that gives none is asked again at a time that is drawn from a part of the token's life, too: those whose
//! time came while it was down do not come back together. That is why the time is well before the token's end.

use std::ops::Range;
use std::time::Duration;

use rand::{Rng, RngExt};

/// The part of a token's life after which another one is asked for.
const SHARE: Range<f64> = 0.5..0.8;

/// The same of the first one, and of one that came after failures: those come to all clients together.
const FIRST_SHARE: Range<f64> = 0.1..0.8;

/// The part of a token's life that lies between two attempts, while there is so much of it.
const APART: f64 = 0.4;

/// Before this part of its life is over there is to be another one: what is nearly over is refused where clocks differ.
const NEEDED_AT: f64 = 0.95;

/// What is drawn of the time that there is, at least: a provider that is down has nothing of being asked often.
const LEAST_PART: f64 = 0.4;

/// Nobody asks again sooner.
const LEAST: Duration = Duration::from_secs(1);

/// How long after it came a token with such a life is to be replaced. `in_step`: others may have got theirs at the same
/// time.
pub(crate) fn renew_after(life: Duration, in_step: bool, rng: &mut impl Rng) -> Duration {
    let share = if in_step { FIRST_SHARE } else { SHARE };
    life.mul_f64(rng.random_range(share)).max(LEAST)
}

/// How long to wait after an attempt that failed, with a token of that `age`. `None`: its end is so near that the
/// provider is to be asked as if there were no token.
pub(crate) fn retry_after(life: Duration, age: Duration, rng: &mut impl Rng) -> Option<Duration> {
    let left = life.mul_f64(NEEDED_AT).checked_sub(age)?;
    let apart = left.min(life.mul_f64(APART)).mul_f64(rng.random_range(LEAST_PART..1.0));
    (left > LEAST).then(|| apart.max(LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const CLIENTS: usize = 10_000;
    const HOUR: u64 = 3_600_000;
    const MINUTE: u64 = 60_000;
    /// So long that chance is a thirtieth of what comes.
    const WINDOW: u64 = 5 * MINUTE;

    /// How often a provider is asked by clients that were started at once, in each window: it gives tokens of an hour,
    /// and none between two times. All in ms.
    fn asked(down: std::ops::Range<u64>, hours: u64, seed: u64) -> Vec<u64> {
        let mut rng = StdRng::seed_from_u64(seed);
        let life = Duration::from_millis(HOUR);
        let mut windows = vec![0; (hours * HOUR / WINDOW) as usize];
        let ms = |d: Duration| d.as_millis() as u64;
        // When it asks, since when it has its token, and whether it has failed since.
        let mut all = BinaryHeap::new();
        for _ in 0..CLIENTS {
            all.push(Reverse((ms(renew_after(life, true, &mut rng)), 0, false)));
        }
        while let Some(Reverse((at, since, failed))) = all.pop() {
            let Some(window) = windows.get_mut((at / WINDOW) as usize) else { break };
            *window += 1;
            if down.contains(&at) {
                let wait = retry_after(life, Duration::from_millis(at - since), &mut rng);
                let urgent = Duration::from_millis(rng.random_range(1_000..60_000));
                all.push(Reverse((at + ms(wait.unwrap_or(urgent)), since, true)));
            } else {
                all.push(Reverse((at + ms(renew_after(life, failed, &mut rng)), at, false)));
            }
        }
        windows
    }

    fn peak(windows: &[u64]) -> f64 {
        // As often as each asks in the long run.
        let mean = CLIENTS as f64 * WINDOW as f64 / (0.65 * HOUR as f64);
        *windows.iter().max().unwrap() as f64 / mean
    }

    #[test]
    fn a_fleet_that_was_started_at_once_does_not_ask_at_once() {
        for seed in 0..4 {
            let peak = peak(&asked(0..0, 24, seed));
            assert!(peak <= 2.0, "{peak} times the mean");
        }
    }

    /// Whenever it is.
    #[test]
    fn a_provider_that_was_down_for_ten_minutes_is_not_overrun() {
        for from in [20, 30, 45, 100, 300, 600] {
            let windows = asked(from * MINUTE..(from + 10) * MINUTE, 24, from);
            let peak = peak(&windows);
            assert!(peak <= 2.0, "from minute {from}: {peak} times the mean: {windows:?}");
        }
    }

    #[test]
    fn another_token_is_asked_for_before_one_ends() {
        let mut rng = StdRng::seed_from_u64(1);
        for seconds in [1, 5, 60, 300, 3_600, 86_400] {
            let life = Duration::from_secs(seconds);
            for in_step in [true, false] {
                for _ in 0..200 {
                    let mut age = renew_after(life, in_step, &mut rng);
                    assert!(age >= LEAST && (age < life.mul_f64(0.8) || age == LEAST), "{age:?}");
                    while let Some(wait) = retry_after(life, age, &mut rng) {
                        assert!(
                            wait >= LEAST && wait <= life.mul_f64(APART).max(LEAST),
                            "{wait:?}"
                        );
                        age += wait;
                        assert!(age <= life.mul_f64(NEEDED_AT), "{age:?} of {life:?}");
                    }
                    let rest = life.mul_f64(NEEDED_AT).saturating_sub(age);
                    assert!(rest <= LEAST, "{age:?} of {life:?}");
                }
            }
        }
    }
}
