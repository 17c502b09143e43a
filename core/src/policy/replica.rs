//! Whom a partition is read from (KIP-392). A leader that is told the client's rack may name a replica that is nearer
//! and in sync. It then sends no records: it only names the replica, each time.
//!
//! - Only the leader's word counts, for 5 minutes +-20 %, and for as long as it leads in the same epoch. Then the leader
//!   is asked again, since it alone knows which replicas are in sync.
//! - With any trouble at the replica, reading goes on at the leader, from the same position. That includes answers
//!   that would mean something of a leader: a replica that is behind calls a good offset out of range, and its own shorter
//!   log a truncation.
//! - A replica may be in sync and behind all the same, for as long as brokers allow. One that has not served what the leader
//!   had when it named it, and nothing at all for 10 s, makes trouble.
//! - A replica that made trouble is shunned for 30 s, then twice as long each time, 5 minutes at most. The leader does not
//!   know of the trouble and would name it for ever, without a record: so as long as it is shunned, the
//!   leader is not told the rack.
//! - A broker hears of another before we do. One that is named and that metadata does not have cannot be read from, and the
//!   leader gives nothing as long as it names it: it is shunned likewise, until metadata has it.

use std::time::Duration;

use rand::{Rng, RngExt};
use tokio::time::Instant;

/// How long the leader's word counts, about.
const LEASE: Duration = Duration::from_secs(5 * 60);
/// A replica that serves nothing for so long, and has not served all that the leader had, makes trouble.
const BEHIND: Duration = Duration::from_secs(10);
/// How long a replica is shunned at first, and at most.
const SHUNNED: Duration = Duration::from_secs(30);
const SHUNNED_MAX: Duration = Duration::from_secs(5 * 60);

/// See the module. State of one partition.
#[derive(Debug, Default)]
pub(crate) struct Replica {
    lease: Option<Lease>,
    /// One that made trouble, and one that metadata does not have: what is known of one says nothing of the other.
    shunned: Option<Shunned>,
    stranger: Option<Shunned>,
}

#[derive(Debug)]
struct Lease {
    broker: i32,
    /// The epoch of the leader that named it.
    epoch: i32,
    until: Instant,
    /// How far it is known to have to come, and how far it had come at a time.
    end: i64,
    at: i64,
    moved: Instant,
}

#[derive(Debug)]
struct Shunned {
    broker: i32,
    until: Instant,
    /// How often in a row it made trouble.
    times: u32,
}

impl Shunned {
    /// Once more, if it is the same as before.
    fn again(before: Option<&Self>, broker: i32, now: Instant, rng: &mut impl Rng) -> Self {
        let times = before.filter(|before| before.broker == broker).map_or(0, |s| s.times);
        let pause = SHUNNED_MAX.min(SHUNNED * 2u32.saturating_pow(times.min(16)));
        let until = now + pause.mul_f64(rng.random_range(0.8..1.0));
        Self { broker, until, times: times.saturating_add(1) }
    }
}

impl Replica {
    /// An answer of broker `from`, which leads in this epoch if it is `leader`, names a replica to read from, or
    /// none (-1). Gives whether that is another broker than before.
    pub(crate) fn told(
        &mut self,
        (from, named): (i32, i32),
        (leader, epoch): (i32, i32),
        now: Instant,
        rng: &mut impl Rng,
    ) -> bool {
        let before = self.source((leader, epoch), now);
        if from != leader || named < 0 || named == leader || self.is_shunned(named, now) {
            return false;
        }
        // It was read from for the whole of a lease, and there was no trouble.
        let served = self.lease.as_ref().is_some_and(|l| l.broker == named && l.until <= now);
        if served && self.shunned.as_ref().is_some_and(|s| s.broker == named) {
            self.shunned = None;
        }
        let until = now + LEASE.mul_f64(rng.random_range(0.8..1.2));
        let moves = before != named;
        let told = self.lease.take().filter(|_| !moves);
        let (end, at, moved) = told.map_or((i64::MIN, i64::MIN, now), |l| (l.end, l.at, l.moved));
        self.lease = Some(Lease { broker: named, epoch, until, end, at, moved });
        moves
    }

    /// The leader names a broker that metadata does not have, and no lease is taken. Gives whether that is news: the leader is
    /// to be asked without the rack, at once.
    pub(crate) fn stranger(
        &mut self,
        (from, named): (i32, i32),
        leader: i32,
        now: Instant,
        rng: &mut impl Rng,
    ) -> bool {
        if self.is_shunned(named, now) || named == leader || named < 0 || from != leader {
            return false;
        }
        self.stranger = Some(Shunned::again(self.stranger.as_ref(), named, now, rng));
        true
    }

    /// Metadata has changed: whom it has now is as good as any.
    pub(crate) fn meets(&mut self, is_known: impl Fn(i32) -> bool) {
        self.stranger.take_if(|stranger| is_known(stranger.broker));
    }

    /// The replica that was named is read from this offset on, and the leader has what lies before `end`.
    pub(crate) fn expects(&mut self, at: i64, end: i64, now: Instant) {
        if let Some(lease) = &mut self.lease {
            (lease.at, lease.end, lease.moved) = (at, end, now);
        }
    }

    /// The leader says how far the log goes, while it is read from `at` on elsewhere. Gives whether more is expected of the
    /// replica than was.
    pub(crate) fn hears(&mut self, at: i64, end: i64, now: Instant) -> bool {
        let Some(lease) = self.lease.as_mut().filter(|lease| now < lease.until) else {
            return false;
        };
        let more = end > lease.end;
        if at > lease.at || more && lease.at >= lease.end {
            // Until now it had all that was expected, or it has come on: its time begins here.
            (lease.at, lease.moved) = (lease.at.max(at), now);
        }
        lease.end = lease.end.max(end);
        more
    }

    /// The replica, if it serves nothing although it should: it was asked for the records from `at` on, all the time.
    pub(crate) fn behind(&mut self, at: i64, now: Instant) -> Option<i32> {
        let lease = self.lease.as_mut().filter(|lease| now < lease.until)?;
        if at > lease.at {
            (lease.at, lease.moved) = (at, now);
        }
        (at < lease.end && now >= lease.moved + BEHIND).then_some(lease.broker)
    }

    /// It was not asked until now.
    pub(crate) fn waits(&mut self, now: Instant) {
        if let Some(lease) = &mut self.lease {
            lease.moved = now;
        }
    }

    /// Whom to read from.
    pub(crate) fn source(&self, (leader, epoch): (i32, i32), now: Instant) -> i32 {
        let counts = |lease: &&Lease| lease.epoch == epoch && now < lease.until;
        self.lease.as_ref().filter(counts).map_or(leader, |lease| lease.broker)
    }

    /// When to look at [`source`](Self::source) again, if nothing happens until then.
    pub(crate) fn until(&self, now: Instant) -> Option<Instant> {
        let lease = self.lease.as_ref().filter(|lease| now < lease.until)?;
        let behind = (lease.at < lease.end).then_some(lease.moved + BEHIND);
        Some(behind.map_or(lease.until, |behind| behind.min(lease.until)))
    }

    /// Something is wrong with what was read from this broker, or it is not answered. Of a broker that is not read from as
    /// a replica this means nothing here.
    pub(crate) fn trouble(&mut self, at: i32, now: Instant, rng: &mut impl Rng) {
        if self.lease.take_if(|lease| lease.broker == at).is_none() {
            return;
        }
        self.shunned = Some(Shunned::again(self.shunned.as_ref(), at, now, rng));
    }

    /// Both of them.
    fn avoided(&self) -> impl Iterator<Item = &Shunned> {
        self.shunned.iter().chain(&self.stranger)
    }

    /// Whether the leader may be told the rack. A request has one for all of its partitions.
    pub(crate) fn tells_rack(&self, now: Instant) -> bool {
        self.avoided().all(|shunned| shunned.until <= now)
    }

    fn is_shunned(&self, broker: i32, now: Instant) -> bool {
        self.avoided().any(|shunned| shunned.broker == broker && now < shunned.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const LEADER: i32 = 1;
    const NEAR: i32 = 2;
    const EPOCH: (i32, i32) = (LEADER, 5);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    /// Reading from the replica, since now.
    fn near(now: Instant, rng: &mut StdRng) -> Replica {
        let mut replica = Replica::default();
        assert_eq!(replica.source(EPOCH, now), LEADER);
        assert!(replica.told((LEADER, NEAR), EPOCH, now, rng));
        assert_eq!(replica.source(EPOCH, now), NEAR);
        replica
    }

    #[test]
    fn the_leaders_word_counts_for_five_minutes_and_its_epoch() {
        let now = Instant::now();
        let mut ends = Vec::new();
        for seed in 0..50 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut replica = near(now, &mut rng);
            assert_eq!(replica.source(EPOCH, now + secs(239)), NEAR);
            assert_eq!(replica.source(EPOCH, now + secs(360)), LEADER);
            ends.extend(replica.until(now));
            assert_eq!(replica.until(now + secs(360)), None);
            // Another leader, or the same one again.
            assert_eq!(replica.source((3, 6), now), 3);
            assert_eq!(replica.source((LEADER, 7), now), LEADER);
            // The same again is no move, and counts from now on.
            assert!(!replica.told((LEADER, NEAR), EPOCH, now + secs(200), &mut rng));
            assert_eq!(replica.source(EPOCH, now + secs(439)), NEAR);
            assert!(replica.told((LEADER, 4), EPOCH, now + secs(201), &mut rng));
            assert_eq!(replica.source(EPOCH, now + secs(202)), 4);
        }
        ends.sort();
        ends.dedup();
        assert_eq!(ends.len(), 50, "clients that began together ask together");
    }

    #[test]
    fn nobody_else_decides() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut replica = Replica::default();
        // Not the leader; no replica; the leader itself.
        for (from, named) in [(NEAR, 3), (LEADER, -1), (LEADER, LEADER)] {
            assert!(!replica.told((from, named), EPOCH, now, &mut rng));
            assert_eq!(replica.source(EPOCH, now), LEADER);
        }
        let mut replica = near(now, &mut rng);
        for (from, named) in [(NEAR, 3), (NEAR, -1), (NEAR, LEADER)] {
            assert!(!replica.told((from, named), EPOCH, now, &mut rng));
            assert_eq!(replica.source(EPOCH, now), NEAR);
        }
    }

    #[test]
    fn s26_trouble_at_a_follower_is_the_leaders_turn() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(2));
        let mut replica = near(now, &mut rng);
        // Not of another one.
        replica.trouble(LEADER, now, &mut rng);
        assert_eq!((replica.source(EPOCH, now), replica.tells_rack(now)), (NEAR, true));
        replica.trouble(NEAR, now, &mut rng);
        assert_eq!((replica.source(EPOCH, now), replica.tells_rack(now)), (LEADER, false));
        assert!(!replica.told((LEADER, NEAR), EPOCH, now + secs(1), &mut rng));
        assert_eq!(replica.source(EPOCH, now + secs(1)), LEADER);
        // A third one is as good as ever.
        assert!(replica.told((LEADER, 3), EPOCH, now + secs(2), &mut rng));
        // A response that was under way is no second trouble.
        replica.trouble(NEAR, now + secs(3), &mut rng);
        assert!(replica.tells_rack(now + secs(30)));
    }

    #[test]
    fn s26_a_replica_that_is_behind_and_serves_nothing_makes_trouble() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(4));
        let mut replica = near(now, &mut rng);
        assert_eq!(replica.behind(5, now + secs(60)), None, "nothing is expected");
        replica.expects(5, 10, now);
        assert_eq!(replica.until(now), Some(now + secs(10)));
        assert_eq!(replica.behind(5, now + secs(9)), None);
        assert_eq!(replica.behind(5, now + secs(10)), Some(NEAR));
        // It moves, slowly.
        assert_eq!(replica.behind(6, now + secs(10)), None);
        assert_eq!(replica.until(now + secs(10)), Some(now + secs(20)));
        replica.waits(now + secs(15));
        assert_eq!(replica.behind(6, now + secs(24)), None, "nobody asked it");
        assert_eq!(replica.behind(6, now + secs(25)), Some(NEAR));
        // All that was expected has come: an end of the log is no trouble.
        assert_eq!(replica.behind(10, now + secs(25)), None);
        assert_eq!(replica.behind(10, now + secs(60)), None);
        assert!(replica.until(now + secs(60)).is_some_and(|at| at > now + secs(200)));
        // Named again: what was expected before is still to come.
        replica.expects(10, 12, now + secs(60));
        replica.told((LEADER, NEAR), EPOCH, now + secs(65), &mut rng);
        assert_eq!(replica.behind(10, now + secs(70)), Some(NEAR));
        replica.trouble(NEAR, now + secs(70), &mut rng);
        assert_eq!(replica.behind(10, now + secs(90)), None);
    }

    /// A partition that was read to its end is not behind the moment that more is written.
    #[test]
    fn s26_what_the_leader_says_later_is_expected_from_then_on() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(5));
        assert!(!Replica::default().hears(0, 5, now));
        let mut replica = near(now, &mut rng);
        replica.expects(5, 5, now);
        assert!(!replica.hears(5, 5, now + secs(1)), "that was known");
        assert!(replica.hears(5, 8, now + secs(60)));
        assert_eq!(replica.until(now + secs(60)), Some(now + secs(70)));
        assert_eq!(replica.behind(5, now + secs(69)), None);
        // More of what it does not have is no more time for it.
        assert!(replica.hears(5, 9, now + secs(65)));
        assert!(!replica.hears(5, 2, now + secs(66)), "an older word");
        assert_eq!(replica.behind(5, now + secs(70)), Some(NEAR));
        // It has come on: that is.
        replica.hears(6, 9, now + secs(71));
        assert_eq!(replica.behind(6, now + secs(80)), None);
        assert_eq!(replica.behind(6, now + secs(81)), Some(NEAR));
    }

    #[test]
    fn s26_whom_metadata_does_not_have_is_shunned_until_it_has() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(6));
        let mut replica = Replica::default();
        // Not the leader; no replica; the leader itself.
        for (from, named) in [(NEAR, 3), (LEADER, -1), (LEADER, LEADER)] {
            assert!(!replica.stranger((from, named), LEADER, now, &mut rng));
        }
        assert!(replica.tells_rack(now));
        assert!(replica.stranger((LEADER, NEAR), LEADER, now, &mut rng));
        assert!(
            !replica.stranger((LEADER, NEAR), LEADER, now, &mut rng),
            "a second one is no news"
        );
        assert_eq!((replica.source(EPOCH, now), replica.tells_rack(now)), (LEADER, false));
        replica.meets(|id| id != NEAR);
        assert!(!replica.tells_rack(now));
        replica.meets(|id| id == NEAR);
        assert!(replica.tells_rack(now));
        assert!(replica.told((LEADER, NEAR), EPOCH, now, &mut rng));
        // One that makes trouble is none to be met.
        replica.trouble(NEAR, now, &mut rng);
        replica.meets(|_| true);
        assert!(!replica.tells_rack(now));
        // Nobody says that it is there: the leader is told again after a while, and a longer one.
        let mut replica = Replica::default();
        assert!(replica.stranger((LEADER, NEAR), LEADER, now, &mut rng));
        assert!(replica.tells_rack(now + secs(30)));
        assert!(replica.stranger((LEADER, NEAR), LEADER, now + secs(30), &mut rng));
        assert!(!replica.tells_rack(now + secs(77)));
    }

    /// Two brokers, or one of which both is true.
    #[test]
    fn s26_trouble_is_not_forgotten_for_a_broker_that_nobody_knows() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(7));
        let mut replica = near(now, &mut rng);
        replica.trouble(NEAR, now, &mut rng);
        assert!(replica.stranger((LEADER, 3), LEADER, now, &mut rng));
        replica.meets(|_| true);
        assert!(!replica.tells_rack(now), "the other one made trouble");
        assert!(!replica.told((LEADER, NEAR), EPOCH, now, &mut rng));
        // It makes trouble again: for twice as long, whoever was met in between.
        let now = now + secs(30);
        assert!(replica.told((LEADER, NEAR), EPOCH, now, &mut rng));
        assert!(replica.stranger((LEADER, 3), LEADER, now, &mut rng));
        replica.meets(|_| true);
        replica.trouble(NEAR, now, &mut rng);
        assert!(!replica.tells_rack(now + secs(40)) && replica.tells_rack(now + secs(60)));
    }

    #[test]
    fn shunned_doubles_to_five_minutes() {
        let (mut now, mut rng) = (Instant::now(), StdRng::seed_from_u64(3));
        let mut replica = near(now, &mut rng);
        let twice = [30, 60, 120, 240, 300, 300];
        for pause in twice {
            replica.trouble(NEAR, now, &mut rng);
            assert!(!replica.tells_rack(now + secs(pause * 4 / 5 - 1)), "{pause}");
            now += secs(pause);
            assert!(replica.tells_rack(now), "{pause}");
            assert!(replica.told((LEADER, NEAR), EPOCH, now, &mut rng));
        }
        // A lease without trouble, and it is as good as ever.
        now += secs(360);
        assert!(replica.told((LEADER, NEAR), EPOCH, now, &mut rng));
        replica.trouble(NEAR, now, &mut rng);
        assert!(replica.tells_rack(now + secs(30)));
    }

    proptest! {
        /// Whatever is said and goes wrong: it is the leader or the replica that this leader named, never one that is
        /// shunned, and never for longer than the leader's word counts.
        #[test]
        fn never_two_brokers_at_once(
            seed: u64,
            events in prop::collection::vec((0u8..4, 1i32..5, -1i32..5, 0u64..200), 1..200),
        ) {
            let (mut now, mut rng) = (Instant::now(), StdRng::seed_from_u64(seed));
            let mut replica = Replica::default();
            let (mut leader, mut epoch) = (1, 1);
            // The last word of this leader that could count.
            let mut word: Option<(i32, Instant)> = None;
            let mut trouble: Option<(i32, Instant)> = None;
            for (what, from, named, seconds) in events {
                now += secs(seconds);
                match what {
                    0 => {
                        (leader, epoch) = (from, epoch + 1);
                        word = None;
                    }
                    1 => {
                        if replica.source((leader, epoch), now) == from && from != leader {
                            trouble = Some((from, now));
                        }
                        replica.trouble(from, now, &mut rng);
                    }
                    _ => {
                        replica.told((from, named), (leader, epoch), now, &mut rng);
                        if from == leader && named >= 0 {
                            word = Some((named, now));
                        }
                    }
                }
                let source = replica.source((leader, epoch), now);
                prop_assert_eq!(source, replica.source((leader, epoch), now));
                if source != leader {
                    let (_, said) = word.expect("the leader named nobody");
                    prop_assert!(now < said + LEASE.mul_f64(1.2) || now < said + secs(360));
                    if let Some((shunned, at)) = trouble {
                        prop_assert!(source != shunned || now >= at + secs(24));
                    }
                }
            }
        }
    }
}
