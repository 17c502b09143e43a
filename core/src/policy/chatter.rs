//! Whether a producer makes a request for about every record, though it sends many, because somebody has
//! told it not to let them gather: with `linger(0)`, or a flush after each. Judged by windows of ten
//! seconds; said after three of them in a row, and no more after one that is better. Few records are no
//! reason to gather, and a request for each is as it should be.

use std::time::Duration;

use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(10);
const WINDOWS: u32 = 3;
/// More requests for 1,000 records than these are too many.
const TOO_MANY: f64 = 500.0;
/// With more records a second than these.
const MANY_RECORDS: f64 = 200.0;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chatter {
    since: Option<Instant>,
    /// Those of which nothing gathered.
    requests: u64,
    records: u64,
    /// Windows in a row with too many.
    bad: u32,
    says: f64,
}

impl Chatter {
    /// A Produce request with so many records was answered. `hasty`: none of them was let gather.
    pub(crate) fn answered(&mut self, records: u64, hasty: bool, now: Instant) {
        let since = *self.since.get_or_insert(now);
        let took = now.saturating_duration_since(since);
        if took >= WINDOW {
            let per_second = self.records as f64 / took.as_secs_f64();
            let ratio = self.requests as f64 * 1_000.0 / self.records.max(1) as f64;
            let bad = per_second > MANY_RECORDS && ratio > TOO_MANY;
            self.bad = if bad { self.bad + 1 } else { 0 };
            self.says = if self.bad >= WINDOWS { ratio } else { 0.0 };
            (self.since, self.requests, self.records) = (Some(now), 0, 0);
        }
        self.requests += u64::from(hasty);
        self.records += records;
    }

    /// Requests for 1,000 records, if they are too many and have been for a while; else 0.
    pub(crate) fn says(&self) -> f64 {
        self.says
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many seconds of so many requests a second with so many records each.
    fn go(chatter: &mut Chatter, now: &mut Instant, seconds: u64, requests: u32, records: u64) {
        for _ in 0..seconds * u64::from(requests) {
            *now += Duration::from_secs(1) / requests;
            chatter.answered(records, true, *now);
        }
    }

    #[test]
    fn it_is_said_once_it_lasts_and_no_more_when_it_is_better() {
        let (mut chatter, mut now) = (Chatter::default(), Instant::now());
        go(&mut chatter, &mut now, 25, 1_000, 1);
        assert_eq!(chatter.says(), 0.0);
        go(&mut chatter, &mut now, 10, 1_000, 1);
        assert_eq!(chatter.says(), 1_000.0);
        go(&mut chatter, &mut now, 25, 190, 5);
        assert_eq!(chatter.says(), 0.0);
    }

    #[test]
    fn few_records_and_few_requests_are_as_they_should_be() {
        for (requests, records) in [(150, 1), (190, 5), (190, 100), (450, 2)] {
            let (mut chatter, mut now) = (Chatter::default(), Instant::now());
            go(&mut chatter, &mut now, 100, requests, records);
            assert_eq!(chatter.says(), 0.0, "{requests} {records}");
        }
        let (mut chatter, mut now) = (Chatter::default(), Instant::now());
        go(&mut chatter, &mut now, 40, 300, 1);
        assert_eq!(chatter.says(), 1_000.0);
    }

    /// What gathers for the pace alone is as it should be, however few come together.
    #[test]
    fn what_gathers_is_not_said() {
        let (mut chatter, mut now) = (Chatter::default(), Instant::now());
        for _ in 0..100_000 {
            now += Duration::from_millis(4);
            chatter.answered(1, false, now);
            assert_eq!(chatter.says(), 0.0);
        }
    }

    /// What was used up at the start is no lasting thing; neither is what stops.
    #[test]
    fn a_burst_is_not_said_and_a_pause_ends_it() {
        let (mut chatter, mut now) = (Chatter::default(), Instant::now());
        for _ in 0..10 {
            go(&mut chatter, &mut now, 5, 1_000, 1);
            assert_eq!(chatter.says(), 0.0);
            now += Duration::from_secs(60);
        }
        go(&mut chatter, &mut now, 45, 1_000, 1);
        assert!(chatter.says() > 900.0);
        now += Duration::from_secs(300);
        chatter.answered(1, true, now);
        assert_eq!(chatter.says(), 0.0);
    }
}
