//! When something ends that others count, by both clocks. The one that timers follow stands still while a machine
//! sleeps, or a virtual one is moved, and a token or a session ends all the same; the time of day is set, forwards and
//! backwards. Whatever says first that it is over is believed.

use std::time::Duration;

use tokio::time::Instant;

use super::Environment;

/// Clocks that differ by less are the same: the time of day is corrected all the time.
const SAME: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    at: Instant,
    wall_ms: i64,
}

impl End {
    /// By the clock that timers follow.
    pub(crate) fn at(self) -> Instant {
        self.at
    }
}

impl Environment {
    /// What ends then.
    pub(crate) fn end_at(&self, at: Instant) -> End {
        let (now, wall_ms) = (self.now(), self.wall_ms());
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let wall_ms = match at.checked_duration_since(now) {
            Some(left) => wall_ms.saturating_add(ms(left)),
            None => wall_ms.saturating_sub(ms(now - at)),
        };
        End { at, wall_ms }
    }

    /// How much time there is until then.
    pub(crate) fn left(&self, end: End) -> Duration {
        let left = end.at.saturating_duration_since(self.now());
        let by_day = u64::try_from(end.wall_ms.saturating_sub(self.wall_ms())).unwrap_or(0);
        let by_day = Duration::from_millis(by_day);
        if by_day + SAME < left { by_day } else { left }
    }

    /// Whether it has come.
    pub(crate) fn is_over(&self, end: End) -> bool {
        self.left(end).is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_says_first_that_it_is_over_is_believed() {
        let env = Environment::builder().runtime(tokio::runtime::Handle::current()).build();
        let secs = Duration::from_secs;
        let end = env.end_at(env.now() + secs(100));
        tokio::time::advance(secs(10)).await;
        assert_eq!(env.left(end), secs(90));
        // A machine that slept.
        env.set_time_of_day(secs(60));
        assert_eq!(env.left(end), secs(30));
        env.set_time_of_day(secs(29));
        assert!(!env.is_over(end));
        env.set_time_of_day(secs(2));
        assert!(env.is_over(end));
        let later = env.end_at(env.now() + secs(100));
        assert_eq!(env.left(later), secs(100));
        tokio::time::advance(secs(100)).await;
        assert!(env.is_over(later));
    }
}
