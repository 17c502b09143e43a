//! Which partition a batch without a partition goes to. Two are drawn, and the one with less in flight to its
//! leader gets it. No hashing: keys are payload.
//!
//! They are drawn from the partitions that were given least so far, up to a batch more than the least. Draws
//! alone are too uneven: after ten batches for each, some partitions would have half as much again as others,
//! and consumers of a batch job have as much to do as their partitions hold. It is the start-time fair queueing
//! of packet networks (Goyal, Vin and Cheng 1996), with the two draws among what is due: a clock stands at the
//! least that any usable partition was given, and a partition that was busy counts as no further behind it than
//! two batches. A partition whose broker was avoided, or that has refused a batch, does not count as behind at
//! all: otherwise all batches that were refused elsewhere would go there, and a broker that comes back from an
//! outage would get everything.
//!
//! So while all partitions can be used, one is ahead of the least by two batches at most: one by the draws, and
//! the one that it is given. Staying adds to that: a choice stands until the partition has got a batch's worth
//! of bytes, give or take half of the batch that ends it ([`stays`]). How much more than the mean a partition
//! may have, by the length of a run in batches for each partition:
//!
//! - 10, full batches: a fifth, none of it by staying;
//! - 10, batches cut short by their linger: a quarter, of which a twentieth is by staying;
//! - 100: a tenth of that;
//! - less than 1: everything may go to one partition, by staying.
//!
//! This holds among the brokers that are used, within what they can take: in a run at full speed nobody waits
//! for a broker that can take less, or that was connected later.
//!
//! Brokers with equal response times are used equally. A broker whose responses take several times as long is
//! drawn that much less often, and what it is given counts that much more: at equal load, the time that a
//! request spends at a broker is in inverse proportion to what the broker can carry. So a slow broker gets its
//! share of the bytes: not none (nobody would see it recover), and not as many as the others (the batches sent
//! there would wait).

use rand::{Rng, RngExt};

/// A partition that can take a batch now: its leader is known, reachable and has room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) partition: i32,
    /// Bytes of produce requests in flight to its leader, what is being assembled included.
    pub(crate) bytes_in_flight: usize,
    /// The smoothed time that the leader's responses take beyond the round trip, in microseconds; 0: not known.
    pub(crate) latency_us: u32,
    /// How much it was given so far: [`Given::to`].
    pub(crate) given: f64,
}

/// A chosen partition, and how much a batch counts there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pick {
    pub(crate) partition: i32,
    /// How much a full batch counts there: more than 1 if its leader is slow.
    cost: f64,
    /// The least that any candidate had been given.
    least: f64,
}

/// Partitions with up to so many batches more than the one with least are candidates, too, so that there is something to
/// choose from.
const SLACK: f64 = 1.0;

/// No partition counts as further behind the clock than this many batches.
const CATCH_UP: f64 = 2.0;

/// How much the partitions of a topic were given, in full batches. A batch counts more if its leader is slow.
#[derive(Debug, Default)]
pub(crate) struct Given {
    to: Vec<f64>,
    clock: f64,
}

impl Given {
    pub(crate) fn to(&self, partition: usize) -> f64 {
        self.to.get(partition).copied().unwrap_or_default().max(self.clock - CATCH_UP)
    }

    /// A batch goes where it was chosen to go; `batches` is its size in full batches. It counts whatever
    /// becomes of it: a partition that takes nothing must not be tried more often for that.
    pub(crate) fn give(&mut self, pick: &Pick, batches: f64) {
        let index = pick.partition as usize;
        if self.to.len() <= index {
            self.to.resize(index + 1, 0.0);
        }
        self.clock = self.clock.max(pick.least);
        self.to[index] = self.to(index) + batches * pick.cost;
    }

    /// The partition could not be used when the choice was made, and not because it was busy: it does not catch
    /// up later on what it missed.
    pub(crate) fn passed_over(&mut self, partition: usize, pick: &Pick) {
        if let Some(to) = self.to.get_mut(partition) {
            *to = to.max(pick.least);
        } else if pick.least > 0.0 {
            self.to.resize(partition + 1, 0.0);
            self.to[partition] = pick.least;
        }
    }
}

/// The partition that a batch goes to; `None` if there are no candidates. `stay`: the choice that stands, if it
/// is a candidate. `again`: the batch was refused elsewhere and may go to any candidate: where most partitions
/// refuse batches, those that were given least are those that take nothing.
pub(crate) fn choose(
    candidates: &[Candidate],
    stay: Option<i32>,
    again: bool,
    rng: &mut impl Rng,
) -> Option<Pick> {
    let least = candidates.iter().map(|c| c.given).reduce(f64::min)?;
    let latency_peers = latency_peers(candidates);
    let stays = stay.and_then(|p| candidates.iter().find(|c| c.partition == p)).copied();
    let chosen = stays.or_else(|| {
        let due = |c: &&Candidate| again || c.given <= least + SLACK;
        let due: Vec<Candidate> = candidates.iter().filter(due).copied().collect();
        Some(due[better_of_two(&due, latency_peers.as_ref(), rng)?])
    })?;
    let cost = latency_peers.map_or(1.0, |latency_peers| 1.0 / latency_peers.weight(&chosen));
    Some(Pick { partition: chosen.partition, cost, least })
}

/// Whether a partition may be named in a request beside others; `others`: the least that any of them was given.
/// A request names a partition only once: if nothing else is left, partitions that are ahead already would get
/// as much as the others each time. A batch that waits goes into the next request to the same broker.
pub(crate) fn goes_beside(candidate: &Candidate, others: Option<f64>) -> bool {
    others.is_none_or(|least| candidate.given <= least + SLACK)
}

/// Whether a choice stands that has `left` bytes to go after a batch of `batch` bytes: not if another batch
/// like it would go further beyond the limit than the partition is short of it now. Batches are full a little
/// below their limit: the rest is no reason for a second one.
pub(crate) fn stays(left: usize, batch: usize) -> bool {
    left > batch / 2
}

/// Index of the candidate whose leader is to be dialled, whatever they were given; `None` if there are no
/// candidates.
pub(crate) fn draw(candidates: &[Candidate], rng: &mut impl Rng) -> Option<usize> {
    better_of_two(candidates, latency_peers(candidates).as_ref(), rng)
}

fn better_of_two(
    candidates: &[Candidate],
    latency_peers: Option<&LatencyPeers>,
    rng: &mut impl Rng,
) -> Option<usize> {
    match candidates.len() {
        0 => None,
        1 => Some(0),
        _ => {
            let (a, b) = draw_two(candidates, latency_peers, rng);
            let less = candidates[b].bytes_in_flight < candidates[a].bytes_in_flight;
            Some(if less { b } else { a })
        }
    }
}

/// Topics with more partitions are not looked at whole for each batch.
const MANY: usize = 64;
/// As many are looked at instead: enough that some of the brokers that could be used are among them.
const SAMPLE: usize = 32;

/// Which of `n` partitions are looked at: all of a few, a sample of many. `with` is among them, the
/// choice that may stand. If nothing of a sample will do, all are to be looked at.
pub(crate) fn sample(n: usize, with: Option<usize>, rng: &mut impl Rng) -> Option<Vec<usize>> {
    if n <= MANY {
        return None;
    }
    let mut some = rand::seq::index::sample(rng, n, SAMPLE).into_vec();
    some.extend(with.filter(|i| *i < n && !some.contains(i)));
    Some(some)
}

/// Differences below a millisecond are scheduling.
const NOISE_US: u64 = 1_000;

/// Two different ones of at least two.
fn draw_two(
    candidates: &[Candidate],
    latency_peers: Option<&LatencyPeers>,
    rng: &mut impl Rng,
) -> (usize, usize) {
    let n = candidates.len();
    let Some(latency_peers) = latency_peers else {
        let a = rng.random_range(0..n);
        return (a, (a + rng.random_range(1..n)) % n);
    };
    let weight = |candidate: &Candidate| latency_peers.weight(candidate);
    let all: f64 = candidates.iter().map(weight).sum();
    let mut draw = |but: Option<usize>| {
        let others = candidates.iter().enumerate().filter(|(i, _)| Some(*i) != but);
        let mut left = rng.random::<f64>() * (all - but.map_or(0.0, |i| weight(&candidates[i])));
        let mut last = 0;
        for (i, candidate) in others {
            last = i;
            left -= weight(candidate);
            if left < 0.0 {
                break;
            }
        }
        last
    };
    let a = draw(None);
    (a, draw(Some(a)))
}

/// The latency of the candidates whose responses are about equally fast.
struct LatencyPeers {
    mean_us: f64,
    up_to_us: u64,
}

/// `None` if all are equally fast. If every microsecond counted, the quickest of three equal brokers would
/// get half of all: so only those of another order than the quickest are slow.
fn latency_peers(candidates: &[Candidate]) -> Option<LatencyPeers> {
    let us = |c: &Candidate| u64::from(c.latency_us);
    let quickest = candidates.iter().map(us).min()?;
    let up_to_us = quickest * 2 + NOISE_US;
    let alike = candidates.iter().map(us).filter(|us| *us <= up_to_us);
    let (sum, n) = alike.fold((0, 0), |(sum, n), us| (sum + us, n + 1));
    let mean_us = (sum as f64 / n as f64).max(NOISE_US as f64);
    (n < candidates.len()).then_some(LatencyPeers { mean_us, up_to_us })
}

impl LatencyPeers {
    fn weight(&self, candidate: &Candidate) -> f64 {
        let us = u64::from(candidate.latency_us);
        if us <= self.up_to_us { 1.0 } else { self.mean_us / us as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn candidate(partition: i32, bytes_in_flight: usize, latency_us: u32) -> Candidate {
        Candidate { partition, bytes_in_flight, latency_us, given: 0.0 }
    }

    #[test]
    fn of_many_partitions_a_sample_in_which_each_is_as_often() {
        let mut rng = StdRng::seed_from_u64(9);
        assert_eq!(sample(MANY, None, &mut rng), None);
        let mut hits = [0u32; 100];
        for _ in 0..3_000 {
            let mut some = sample(100, Some(7), &mut rng).unwrap();
            assert!(some.contains(&7) && (SAMPLE..=SAMPLE + 1).contains(&some.len()));
            some.iter().for_each(|i| hits[*i] += 1);
            some.sort_unstable();
            assert!(some.windows(2).all(|pair| pair[0] < pair[1]));
        }
        let others = hits.iter().enumerate().filter(|(i, _)| *i != 7);
        assert!(others.map(|(_, n)| n).all(|n| (800..1_120).contains(n)), "{hits:?}");
        // A choice from before the topic was made anew, with fewer partitions.
        assert_eq!(sample(100, Some(100), &mut rng).unwrap().len(), SAMPLE);
    }

    #[test]
    fn nothing_and_one() {
        let mut rng = StdRng::seed_from_u64(1);
        assert!(choose(&[], Some(3), false, &mut rng).is_none() && draw(&[], &mut rng).is_none());
        assert_eq!(choose(&[candidate(3, 9, 9)], None, false, &mut rng).unwrap().partition, 3);
        assert_eq!(draw(&[candidate(3, 9, 9)], &mut rng), Some(0));
    }

    #[test]
    fn equals_share_alike() {
        let mut rng = StdRng::seed_from_u64(2);
        let all: Vec<_> = (0..12).map(|p| candidate(p, 0, 0)).collect();
        let mut hits = [0u32; 12];
        for _ in 0..12_000 {
            hits[draw(&all, &mut rng).unwrap()] += 1;
        }
        assert!(hits.iter().all(|h| (850..1150).contains(h)), "{hits:?}");
    }

    #[test]
    fn a_little_latency_changes_nothing() {
        let mut rng = StdRng::seed_from_u64(4);
        let all = [candidate(0, 0, 100), candidate(1, 0, 300), candidate(2, 0, 900)];
        let mut hits = [0u32; 3];
        for _ in 0..3_000 {
            hits[draw(&all, &mut rng).unwrap()] += 1;
        }
        assert!(hits.iter().all(|h| (850..1150).contains(h)), "{hits:?}");
    }

    /// How often each of these response times is chosen in 100,000 draws, in per mille.
    fn shares(latencies_us: &[u32]) -> Vec<u32> {
        let mut rng = StdRng::seed_from_u64(5);
        let all: Vec<_> =
            latencies_us.iter().enumerate().map(|(p, us)| candidate(p as i32, 0, *us)).collect();
        let mut hits = vec![0u32; all.len()];
        for _ in 0..100_000 {
            hits[draw(&all, &mut rng).unwrap()] += 1;
        }
        hits.iter().map(|n| (n + 50) / 100).collect()
    }

    #[test]
    fn one_that_is_slower_by_an_order_is_chosen_so_much_less_often() {
        for (latencies_us, slow) in [
            // Ten times as slow: a tenth of each of the others' share.
            ([2_000, 20_000, 2_000, 2_000, 2_000, 2_000], 0.1 / 5.1),
            // The mean of the others counts, and not the quickest by chance.
            ([1_000, 20_000, 3_000, 2_000, 3_000, 1_000], 0.1 / 5.1),
            // Below a millisecond all are as good.
            ([100, 10_000, 900, 10, 300, 0], 0.1 / 5.1),
            // Five times.
            ([2_000, 10_000, 2_000, 2_000, 2_000, 2_000], 0.2 / 5.2),
            // Twice is nothing yet.
            ([2_000, 4_900, 2_000, 2_000, 2_000, 2_000], 1.0 / 6.0),
        ] {
            let shares = shares(&latencies_us);
            let off = (f64::from(shares[1]) - 1000.0 * slow).abs();
            assert!(off <= 5.0, "{latencies_us:?}: {shares:?}");
            let rest: Vec<u32> = [0, 2, 3, 4, 5].map(|i| shares[i]).into();
            let (least, most) = (rest.iter().min().unwrap(), rest.iter().max().unwrap());
            assert!(most - least <= 10, "{latencies_us:?}: {shares:?}");
        }
        // Most are slow: the quick ones get most all the same.
        let shares = shares(&[1_000, 10_000, 10_000, 10_000]);
        assert!((760..780).contains(&shares[0]), "{shares:?}");
    }

    #[test]
    fn the_busiest_of_all_is_never_chosen() {
        let mut rng = StdRng::seed_from_u64(3);
        let all = [candidate(0, 10, 0), candidate(1, 0, 90_000), candidate(2, 0, 10_000)];
        let mut hits = [0u32; 3];
        for _ in 0..3_000 {
            hits[draw(&all, &mut rng).unwrap()] += 1;
        }
        assert_eq!(hits[0], 0);
        assert!(hits[2] > hits[1] * 5, "{hits:?}");
    }

    /// What partitions with these response times have after so many full batches, all of which were ready each
    /// time but for those that `absent` names.
    fn run(
        latencies_us: &[u32],
        batches: usize,
        seed: u64,
        absent: impl Fn(usize, usize) -> bool,
    ) -> Vec<usize> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut given = Given::default();
        let mut hits = vec![0; latencies_us.len()];
        for batch in 0..batches {
            let ready: Vec<_> = latencies_us
                .iter()
                .enumerate()
                .filter(|(p, _)| !absent(batch, *p))
                .map(|(p, us)| Candidate { given: given.to(p), ..candidate(p as i32, 0, *us) })
                .collect();
            let Some(pick) = choose(&ready, None, false, &mut rng) else { continue };
            given.give(&pick, 1.0);
            hits[pick.partition as usize] += 1;
        }
        hits
    }

    proptest::proptest! {
        /// A short run leaves no partition with much more than the others, whoever is busy meanwhile.
        #[test]
        fn ten_batches_each(partitions in 2..60usize, seed: u64) {
            let busy = |batch: usize, p: usize| partitions > 3 && (batch * 7 + p * 5 + seed as usize % 11).is_multiple_of(3);
            let hits = run(&vec![0; partitions], 10 * partitions, seed, busy);
            let most = hits.iter().max().copied().unwrap_or_default();
            proptest::prop_assert!(most <= 12, "{hits:?}");
        }

        /// The same for batches of any size: the choice stands for a batch's worth of bytes, as the sender
        /// keeps it.
        #[test]
        fn ten_batches_worth_each(partitions in 2..60usize, seed: u64) {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut given, mut stay) = (Given::default(), None::<(i32, f64)>);
            let mut has = vec![0.0; partitions];
            let mut sum = 0.0;
            while sum < 10.0 * partitions as f64 {
                let ready: Vec<_> = (0..partitions)
                    .map(|p| Candidate { given: given.to(p), ..candidate(p as i32, 0, 0) })
                    .collect();
                let pick = choose(&ready, stay.map(|(p, _)| p), false, &mut rng).unwrap();
                let size = rng.random_range(0.01..=1.0);
                given.give(&pick, size);
                has[pick.partition as usize] += size;
                sum += size;
                let left: f64 = stay.map_or(1.0, |(_, left)| left) - size;
                let bytes = |batches: f64| (batches.max(0.0) * 1e6) as usize;
                stay = stays(bytes(left), bytes(size)).then_some((pick.partition, left));
            }
            let most = has.iter().copied().fold(0.0, f64::max);
            proptest::prop_assert!(most <= 12.5, "{has:?}");
        }
    }

    #[test]
    fn who_is_ahead_waits_for_the_next_request() {
        let ahead = |given| Candidate { given, ..candidate(0, 0, 0) };
        for (given, others, goes) in [
            (9.0, None, true),
            (3.0, Some(3.0), true),
            (4.0, Some(3.0), true),
            (4.1, Some(3.0), false),
        ] {
            assert_eq!(goes_beside(&ahead(given), others), goes, "{given} beside {others:?}");
        }
    }

    #[test]
    fn a_slow_one_gets_its_share_in_short_runs_too() {
        let hits = run(&[2_000, 20_000, 2_000, 2_000], 310, 7, |_, _| false);
        assert!((9..=12).contains(&hits[1]), "{hits:?}");
        assert!(hits.iter().enumerate().all(|(p, n)| p == 1 || (98..=102).contains(n)), "{hits:?}");
    }

    #[test]
    fn who_was_busy_does_not_get_everything() {
        let hits = run(&[0; 4], 1_000, 7, |batch, p| p == 0 && batch < 900);
        // A quarter of what came since, and two batches.
        assert!((24..=30).contains(&hits[0]), "{hits:?}");
    }

    #[test]
    fn who_was_passed_over_has_no_claim() {
        let mut rng = StdRng::seed_from_u64(12);
        let mut given = Given::default();
        let all = |given: &Given, which: std::ops::Range<usize>| -> Vec<Candidate> {
            which.map(|p| Candidate { given: given.to(p), ..candidate(p as i32, 0, 0) }).collect()
        };
        for _ in 0..90 {
            let pick = choose(&all(&given, 0..3), None, false, &mut rng).unwrap();
            given.give(&pick, 1.0);
            given.passed_over(3, &pick);
        }
        let hits = (0..8).filter(|_| {
            let pick = choose(&all(&given, 0..4), None, false, &mut rng).unwrap();
            given.give(&pick, 1.0);
            pick.partition == 3
        });
        let hits = hits.count();
        assert!((1..=4).contains(&hits), "{hits} of 8 for the one of four that was away");
    }

    /// Three brokers with four partitions each, of which one answers a third as often: what waits there is seen
    /// by the two draws and by who has room, and the others get what it cannot carry.
    #[test]
    fn what_is_busy_sheds() {
        let mut rng = StdRng::seed_from_u64(11);
        let (mut given, mut in_flight) = (Given::default(), [0usize; 3]);
        let mut answered = [0u32; 3];
        for tick in 0..3_000 {
            // A batch is there whenever somebody has room for it.
            loop {
                let room = |p: &usize| in_flight[p % 3] < 3;
                let ready: Vec<_> = (0..12)
                    .filter(room)
                    .map(|p| Candidate {
                        given: given.to(p),
                        ..candidate(p as i32, in_flight[p % 3], 0)
                    })
                    .collect();
                let Some(pick) = choose(&ready, None, false, &mut rng) else { break };
                given.give(&pick, 1.0);
                in_flight[pick.partition as usize % 3] += 1;
            }
            for (broker, every) in [1, 3, 1].into_iter().enumerate() {
                if tick % every == 0 {
                    in_flight[broker] -= 1;
                    answered[broker] += 1;
                }
            }
        }
        assert_eq!(answered, [3_000, 1_000, 3_000], "everybody works all the time");
    }
}
