//! Partitions that are left out of a Fetch although they have records, as their share of the buffer is used.
//!
//! A broker has one Fetch of a consumer at a time, and holds it until there is something in what it names: while
//! it waits for the records of idle partitions, one that was left out cannot be asked for, however soon its
//! share is free again. So a Fetch for the others alone waits for [`HOLD`] first, since an application that
//! reads makes room meanwhile, and then all go together. If there is no room by then the Fetch goes out, and the
//! broker may hold it for [`SHORT`] instead of `max_wait`; twice as long each time that the application has
//! taken nothing of what was left out, so that one that does nothing for long costs no more requests than usual.

use std::time::Duration;

use tokio::time::Instant;

/// How long a Fetch waits for partitions that are left out, at most.
const HOLD: Duration = Duration::from_millis(20);
/// How long the broker may hold a Fetch that leaves some out, at first.
const SHORT: Duration = Duration::from_millis(100);

/// See the module. State of one broker.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    /// Since when some are left out and nothing was asked.
    since: Option<Instant>,
    /// Requests since the application has taken something of those that are left out.
    stuck: u32,
}

impl LeftOut {
    /// Nothing is left out now.
    pub(crate) fn nobody(&mut self) {
        *self = Self::default();
    }

    /// Some are left out: when a Fetch for the others may go, if not now.
    pub(crate) fn not_before(&mut self, now: Instant) -> Option<Instant> {
        Some(*self.since.get_or_insert(now) + HOLD).filter(|at| *at > now)
    }

    /// A Fetch goes that leaves some out: how long the broker may hold it. `taken`: the application took something of
    /// those since the last one. `set`: the consumer's `max_wait`.
    pub(crate) fn max_wait(&mut self, set: Duration, taken: bool) -> Duration {
        self.since = None;
        if taken {
            self.stuck = 0;
        }
        let short = SHORT * 2u32.saturating_pow(self.stuck.min(16));
        self.stuck = self.stuck.saturating_add(1);
        set.min(short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn others_wait_for_a_moment_and_once() {
        let (mut left_out, t0) = (LeftOut::default(), Instant::now());
        assert_eq!(left_out.not_before(t0), Some(t0 + HOLD));
        assert_eq!(left_out.not_before(t0 + ms(7)), Some(t0 + HOLD), "it begins anew");
        assert_eq!(left_out.not_before(t0 + HOLD), None);
        left_out.max_wait(ms(500), true);
        assert_eq!(left_out.not_before(t0 + ms(90)), Some(t0 + ms(90) + HOLD));
        left_out.nobody();
        assert_eq!(left_out.not_before(t0 + ms(200)), Some(t0 + ms(200) + HOLD));
    }

    #[test]
    fn the_broker_holds_it_for_longer_as_long_as_nothing_is_taken() {
        let mut left_out = LeftOut::default();
        let waits = |left_out: &mut LeftOut, taken| left_out.max_wait(ms(500), taken).as_millis();
        let stuck = [(); 5].map(|()| waits(&mut left_out, false));
        assert_eq!(stuck, [100, 200, 400, 500, 500]);
        assert_eq!(waits(&mut left_out, true), 100);
        assert_eq!(waits(&mut left_out, false), 200);
        left_out.nobody();
        assert_eq!(waits(&mut left_out, false), 100);
        // Never longer than is set.
        assert_eq!(left_out.max_wait(ms(30), true), ms(30));
        (0..100).for_each(|_| assert!(left_out.max_wait(ms(60_000), false) <= ms(60_000)));
    }
}
