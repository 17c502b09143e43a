//! The subset: which brokers a client that could use any of them uses.
//!
//! A client that sends little needs few brokers, one that sends much should use all; every broker
//! more costs connections, and broker heap for a day for each producer id and partition. So the
//! size follows the volume, a broker per MB/s, at least six, and shrinks only after minutes.
//!
//! The members come from a rendezvous hash of (instance, broker), so that a broker that joins or
//! leaves moves only its own share; the hash turns over hours. An ordinal, where there is one (a
//! StatefulSet), gives exact shares instead: ordinals take their places on a shuffled ring one
//! after the other.
//!
//! Records that find no partition inside go outside: first to brokers that are connected anyway,
//! then to the one that covers most topics in use ([`cover`]).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes per second that make up for one broker.
const BYTES_PER_BROKER: f64 = 1e6;
/// Never fewer, as far as there are.
pub(crate) const MIN_SIZE: usize = 6;
/// The subset shrinks after needing less for so long.
const SHRINK_AFTER: Duration = Duration::from_secs(300);
/// The hash turns once in this time, at another moment for each instance.
pub(crate) const ROTATION: Duration = Duration::from_secs(4 * 3600);
/// Time constant of the volume's mean.
const VOLUME_OVER: f64 = 10.0;

/// How many brokers the volume asks for. Bytes are told as they are sent.
#[derive(Debug)]
pub(crate) struct Size {
    rate: f64,
    at: Instant,
    current: usize,
    lower_since: Option<Instant>,
}

impl Size {
    pub(crate) fn new(now: Instant) -> Self {
        Self { rate: 0.0, at: now, current: MIN_SIZE, lower_since: None }
    }

    pub(crate) fn sent(&mut self, bytes: usize, now: Instant) {
        self.fade(now);
        self.rate += bytes as f64 / VOLUME_OVER;
    }

    fn fade(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        if seconds > 0.0 {
            self.at = now;
            self.rate *= (-seconds / VOLUME_OVER).exp();
        }
    }

    /// Size of the subset now, with so many brokers in the cluster: grows at once, shrinks late.
    pub(crate) fn get(&mut self, brokers: usize, now: Instant) -> usize {
        self.fade(now);
        let wanted = ((self.rate / BYTES_PER_BROKER).ceil() as usize).max(MIN_SIZE);
        if wanted >= self.current {
            self.current = wanted;
            self.lower_since = None;
        } else {
            let since = *self.lower_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= SHRINK_AFTER {
                self.current = wanted;
                self.lower_since = None;
            }
        }
        self.current.min(brokers)
    }
}

/// A broker as the choice sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: i32,
    pub(crate) rack: Option<String>,
}

/// The process that chooses its subset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chooser {
    /// Differs between the processes of a fleet.
    pub(crate) instance: u64,
    pub(crate) rack: Option<String>,
    /// (index, count): this process's number among its equals.
    pub(crate) ordinal: Option<(u32, u32)>,
}

impl Chooser {
    /// The rotation of the hash at `wall` (time since 1970), and how long it lasts from then on.
    pub(crate) fn rotation(&self, wall: Duration) -> (u64, Duration) {
        let period = ROTATION.as_millis() as u64;
        // Ordinals must turn together, or their shares would not be exact; others one by one.
        let phase = if self.ordinal.is_some() { 0 } else { self.instance % period };
        let at = u64::try_from(wall.as_millis()).unwrap_or(0) + phase;
        (at / period, Duration::from_millis(period - at % period))
    }

    /// All brokers, best first: a subset of size d is the first d of them.
    pub(crate) fn rank(&self, brokers: &[Member], rotation: u64) -> Vec<i32> {
        match self.ordinal {
            Some((index, count)) => ring(brokers, index, count, rotation),
            None => self.rendezvous(brokers, rotation),
        }
    }

    /// Own rack first; without one, racks in turn, so that the loss of one leaves the others.
    fn rendezvous(&self, brokers: &[Member], rotation: u64) -> Vec<i32> {
        let mut scored: Vec<(u64, &Member)> =
            brokers.iter().map(|b| (hash(&[self.instance, b.id as u64, rotation]), b)).collect();
        scored.sort_by_key(|(score, broker)| (*score, broker.id));
        let mut used: BTreeMap<Option<&str>, usize> = BTreeMap::new();
        let mut ranked: Vec<(usize, usize, i32)> = scored
            .iter()
            .enumerate()
            .map(|(place, (_, broker))| {
                let group = match &self.rack {
                    Some(own) => usize::from(broker.rack.as_ref() != Some(own)),
                    None => {
                        let n = used.entry(broker.rack.as_deref()).or_default();
                        *n += 1;
                        *n
                    }
                };
                (group, place, broker.id)
            })
            .collect();
        // Without racks at all each broker would be the n-th of one group: the order stays.
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, id)| id).collect()
    }
}

/// Places on a ring of all brokers, reshuffled for each revolution: ordinal i takes places
/// `i*d .. (i+1)*d`. Written for the smallest size; more volume takes the following places.
fn ring(brokers: &[Member], index: u32, count: u32, rotation: u64) -> Vec<i32> {
    let n = brokers.len() as u64;
    if n == 0 {
        return Vec::new();
    }
    let size = (MIN_SIZE as u64).min(n);
    // With every rotation each ordinal moves on by one subset, around all of them.
    let place = (u64::from(index) + rotation) % u64::from(count.max(1));
    let first = place * size;
    let mut ranked = Vec::with_capacity(brokers.len());
    let mut at = first;
    while ranked.len() < brokers.len() {
        let revolution = at / n;
        let mut shuffled: Vec<i32> = brokers.iter().map(|b| b.id).collect();
        shuffled.sort_unstable_by_key(|id| (hash(&[revolution, *id as u64]), *id));
        for id in &shuffled[(at % n) as usize..] {
            if !ranked.contains(id) {
                ranked.push(*id);
            }
        }
        at = (revolution + 1) * n;
    }
    ranked
}

/// Same on every machine and in every release: processes that are compared must agree.
fn hash(words: &[u64]) -> u64 {
    let mut hasher = foldhash::quality::FixedState::with_seed(0x0771_a5b5).build_hasher();
    for word in words {
        hasher.write_u64(*word);
    }
    hasher.finish()
}

/// Brokers to add to `used` so that each topic in use has a leader among them, greedily: the one
/// that covers most topics that are not covered yet; among equals one that is connected, then by
/// `order` (the client's own ranking, so that a fleet does not choose the same).
pub(crate) fn cover(
    topics: &[BTreeSet<i32>],
    used: &BTreeSet<i32>,
    connected: &BTreeSet<i32>,
    order: &[i32],
) -> Vec<i32> {
    let mut open: Vec<&BTreeSet<i32>> =
        topics.iter().filter(|leaders| !leaders.is_empty() && leaders.is_disjoint(used)).collect();
    let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
    for leader in open.iter().flat_map(|leaders| leaders.iter()) {
        *counts.entry(*leader).or_default() += 1;
    }
    let place = |id: &i32| order.iter().position(|o| o == id).unwrap_or(usize::MAX);
    let mut added = Vec::new();
    // Those that are connected anyway cost nothing more.
    let mut free: Vec<i32> = counts.keys().copied().filter(|id| connected.contains(id)).collect();
    free.sort_by_key(|id| (std::cmp::Reverse(counts[id]), place(id)));
    let mut free = free.into_iter();
    while !open.is_empty() {
        let next = free.by_ref().find(|id| open.iter().any(|leaders| leaders.contains(id)));
        let next = next.or_else(|| {
            let best = |(id, n): &(&i32, &usize)| (**n, std::cmp::Reverse(place(id)));
            counts.iter().max_by_key(best).map(|(id, _)| *id)
        });
        let Some(next) = next else { break };
        added.push(next);
        open.retain(|leaders| {
            let covered = leaders.contains(&next);
            if covered {
                for leader in *leaders {
                    if let Some(n) = counts.get_mut(leader) {
                        *n -= 1;
                    }
                }
            }
            !covered
        });
        counts.retain(|_, n| *n > 0);
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn brokers(n: i32) -> Vec<Member> {
        (1..=n).map(|id| Member { id, rack: None }).collect()
    }

    fn chooser(instance: u64) -> Chooser {
        Chooser { instance, rack: None, ordinal: None }
    }

    #[test]
    fn size_grows_at_once_and_shrinks_after_minutes() {
        let mut now = Instant::now();
        let mut size = Size::new(now);
        assert_eq!((size.get(3, now), size.get(100, now)), (3, 6));
        for _ in 0..300 {
            now += Duration::from_millis(100);
            size.sent(2_000_000, now);
        }
        let busy = size.get(100, now);
        assert!((18..=21).contains(&busy), "20 MB/s: {busy}");
        assert_eq!(size.get(10, now), 10);
        now += Duration::from_secs(120);
        assert_eq!(size.get(100, now), busy);
        now += SHRINK_AFTER;
        assert_eq!(size.get(100, now), 6);
    }

    #[test]
    fn a_broker_that_joins_or_leaves_moves_its_own_share_only() {
        let twenty = brokers(20);
        let twenty_one = brokers(21);
        for instance in 0..200 {
            let before = chooser(instance).rank(&twenty, 0);
            let mut after = chooser(instance).rank(&twenty_one, 0);
            after.retain(|id| *id != 21);
            assert_eq!(before, after);
        }
    }

    #[test]
    fn a_fleet_spreads_over_the_brokers() {
        let all = brokers(20);
        let mut hits = [0u32; 21];
        for instance in 0..10_000u64 {
            for id in &chooser(hash(&[instance])).rank(&all, 3)[..6] {
                hits[*id as usize] += 1;
            }
        }
        // 3,000 each, a standard deviation of 46: four of them.
        assert!(hits[1..].iter().all(|n| (2_815..=3_185).contains(n)), "{hits:?}");
    }

    #[test]
    fn ordinals_share_exactly() {
        for (n, count) in [(20, 100u32), (7, 70), (100, 1_000)] {
            let all = brokers(n);
            for rotation in [0, 1, 17] {
                let mut hits = vec![0u32; n as usize + 1];
                for index in 0..count {
                    let rank = Chooser { ordinal: Some((index, count)), ..chooser(1) }
                        .rank(&all, rotation);
                    assert_eq!(rank.iter().collect::<BTreeSet<_>>().len(), n as usize);
                    for id in &rank[..6] {
                        hits[*id as usize] += 1;
                    }
                }
                let mean = f64::from(count * 6) / f64::from(n);
                let most = f64::from(*hits[1..].iter().max().unwrap());
                assert!(most <= (mean * 1.03).max(mean + 6.0), "{n} brokers, {count}: {hits:?}");
            }
        }
    }

    #[test]
    fn turns_come_one_by_one_without_ordinals_and_together_with() {
        let wall = Duration::from_secs(1_700_000_000);
        let rotations: BTreeSet<_> =
            (0..50).map(|i| chooser(hash(&[i])).rotation(wall).1.as_secs() / 60).collect();
        assert!(rotations.len() > 25, "{rotations:?}");
        let ordinal = |i| Chooser { ordinal: Some((i, 9)), ..chooser(u64::from(i)) };
        assert_eq!(ordinal(1).rotation(wall), ordinal(5).rotation(wall));
        let (rotation, left) = chooser(5).rotation(wall);
        assert_eq!(chooser(5).rotation(wall + left).0, rotation + 1);
        assert_ne!(
            chooser(5).rank(&brokers(20), rotation),
            chooser(5).rank(&brokers(20), rotation + 1)
        );
    }

    #[test]
    fn own_rack_first_and_without_one_racks_in_turn() {
        let racks: Vec<Member> = (0..12)
            .map(|i| Member { id: i, rack: Some(["a", "b", "c"][i as usize % 3].to_owned()) })
            .collect();
        for instance in 0..50 {
            let own = Chooser { rack: Some("b".into()), ..chooser(instance) };
            assert!(own.rank(&racks, 0)[..4].iter().all(|id| id % 3 == 1));
            let rank = chooser(instance).rank(&racks, 0);
            for three in rank.chunks(3) {
                let seen: BTreeSet<_> = three.iter().map(|id| id % 3).collect();
                assert_eq!(seen.len(), 3, "{rank:?}");
            }
        }
    }

    #[test]
    fn outside_the_subset_connected_brokers_come_first() {
        let topics = [BTreeSet::from([1, 9]), BTreeSet::from([7, 8]), BTreeSet::from([8, 9])];
        let used = BTreeSet::from([1]);
        let connected = BTreeSet::from([1, 7]);
        assert_eq!(cover(&topics, &used, &connected, &[9, 8, 7, 1]), [7, 9]);
        assert_eq!(cover(&topics, &used, &BTreeSet::new(), &[9, 8, 7, 1]), [8]);
        assert!(cover(&[BTreeSet::new()], &used, &connected, &[]).is_empty());
    }

    #[test]
    fn a_thousand_topics_need_little_more_than_a_cover_from_scratch() {
        let mut rng = StdRng::seed_from_u64(11);
        let topics: Vec<BTreeSet<i32>> =
            (0..1_000).map(|_| (0..4).map(|_| rng.random_range(1..=100)).collect()).collect();
        let none = BTreeSet::new();
        let scratch = cover(&topics, &none, &none, &[]).len();
        let rank = chooser(4).rank(&brokers(100), 0);
        let used: BTreeSet<i32> = rank[..6].iter().copied().collect();
        let all = used.len() + cover(&topics, &used, &none, &rank).len();
        assert!(all as f64 <= scratch as f64 * 1.2, "{all} brokers, {scratch} from scratch");
    }

    proptest! {
        #[test]
        fn everything_that_has_a_leader_is_covered(
            topics in prop::collection::vec(prop::collection::btree_set(0i32..12, 0..4), 0..40),
            used in prop::collection::btree_set(0i32..12, 0..4),
            connected in prop::collection::btree_set(0i32..12, 0..4),
        ) {
            let added: BTreeSet<i32> =
                cover(&topics, &used, &connected, &[]).into_iter().collect();
            for leaders in &topics {
                prop_assert!(
                    leaders.is_empty() || !leaders.is_disjoint(&used) || !leaders.is_disjoint(&added)
                );
            }
            prop_assert!(added.is_disjoint(&used));
        }
    }

    /// A client that needs more now and then keeps it: the minutes count from when it needed less last.
    #[test]
    fn needing_more_again_begins_the_minutes_anew() {
        let mut now = Instant::now();
        let mut size = Size::new(now);
        let mut busy = 0;
        for _ in 0..4 {
            size.sent(200_000_000, now);
            busy = busy.max(size.get(100, now));
            now += SHRINK_AFTER / 2;
            assert_eq!(size.get(100, now), busy, "less is needed since a while");
            now += SHRINK_AFTER / 2 - Duration::from_secs(1);
            assert_eq!(size.get(100, now), busy);
        }
        now += SHRINK_AFTER;
        size.get(100, now);
        now += SHRINK_AFTER;
        assert_eq!(size.get(100, now), MIN_SIZE);
    }

    /// With each rotation every ordinal moves on to what was the next one's.
    #[test]
    fn ordinals_turn_together() {
        let all = brokers(24);
        let first_six = |index, rotation| {
            let chooser = Chooser { instance: 0, rack: None, ordinal: Some((index, 4)) };
            chooser.rank(&all, rotation)[..6].to_vec()
        };
        for rotation in 0..8 {
            for index in 0..4 {
                assert_eq!(first_six(index, rotation + 1), first_six((index + 1) % 4, rotation));
            }
        }
        assert_ne!(first_six(0, 0), first_six(0, 1));
    }
}
