//! Which partition a sealed batch without a partition goes to. Two are drawn, and the one with less in
//! flight to its leader gets it. No hashing: keys are payload.
//!
//! Brokers that answer alike are drawn alike. One that takes several times as long is drawn that much
//! less often: at equal load, the time that a request spends at a broker is in inverse proportion to
//! what the broker can carry. So a slow broker gets its share of the bytes, not none (nobody would
//! see it recover) and not as many as the others (whoever meets it would wait).

use rand::{Rng, RngExt};

/// A partition that can take a batch now: its leader is known, reachable and has room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) partition: i32,
    /// Bytes of produce requests in flight to its leader, what is being assembled included.
    pub(crate) bytes_in_flight: usize,
    /// What the leader's answers take beyond the round trip, smoothed, in microseconds; 0: not known.
    pub(crate) latency_us: u32,
}

/// Index of the choice, or `None` without candidates.
pub(crate) fn choose(candidates: &[Candidate], rng: &mut impl Rng) -> Option<usize> {
    match candidates.len() {
        0 => None,
        1 => Some(0),
        _ => {
            let (a, b) = draw_two(candidates, rng);
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
fn draw_two(candidates: &[Candidate], rng: &mut impl Rng) -> (usize, usize) {
    let n = candidates.len();
    let Some(pace) = pace(candidates) else {
        let a = rng.random_range(0..n);
        return (a, (a + rng.random_range(1..n)) % n);
    };
    let weight = |candidate: &Candidate| pace.weight(candidate);
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

/// What those that answer alike take.
struct Pace {
    mean_us: f64,
    up_to_us: u64,
}

/// `None` if all answer alike. If every microsecond counted, the quickest of three equal brokers would
/// get half of all: so only those of another order than the quickest are slow.
fn pace(candidates: &[Candidate]) -> Option<Pace> {
    let us = |c: &Candidate| u64::from(c.latency_us);
    let quickest = candidates.iter().map(us).min()?;
    let up_to_us = quickest * 2 + NOISE_US;
    let alike = candidates.iter().map(us).filter(|us| *us <= up_to_us);
    let (sum, n) = alike.fold((0, 0), |(sum, n), us| (sum + us, n + 1));
    let mean_us = (sum as f64 / n as f64).max(NOISE_US as f64);
    (n < candidates.len()).then_some(Pace { mean_us, up_to_us })
}

impl Pace {
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
        Candidate { partition, bytes_in_flight, latency_us }
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
        assert_eq!(choose(&[], &mut rng), None);
        assert_eq!(choose(&[candidate(3, 9, 9)], &mut rng), Some(0));
    }

    #[test]
    fn equals_share_alike() {
        let mut rng = StdRng::seed_from_u64(2);
        let all: Vec<_> = (0..12).map(|p| candidate(p, 0, 0)).collect();
        let mut hits = [0u32; 12];
        for _ in 0..12_000 {
            hits[choose(&all, &mut rng).unwrap()] += 1;
        }
        assert!(hits.iter().all(|h| (850..1150).contains(h)), "{hits:?}");
    }

    #[test]
    fn a_little_latency_changes_nothing() {
        let mut rng = StdRng::seed_from_u64(4);
        let all = [candidate(0, 0, 100), candidate(1, 0, 300), candidate(2, 0, 900)];
        let mut hits = [0u32; 3];
        for _ in 0..3_000 {
            hits[choose(&all, &mut rng).unwrap()] += 1;
        }
        assert!(hits.iter().all(|h| (850..1150).contains(h)), "{hits:?}");
    }

    /// How often each of these answer times is chosen in 100,000 draws, in per mille.
    fn shares(latencies_us: &[u32]) -> Vec<u32> {
        let mut rng = StdRng::seed_from_u64(5);
        let all: Vec<_> =
            latencies_us.iter().enumerate().map(|(p, us)| candidate(p as i32, 0, *us)).collect();
        let mut hits = vec![0u32; all.len()];
        for _ in 0..100_000 {
            hits[choose(&all, &mut rng).unwrap()] += 1;
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
            hits[choose(&all, &mut rng).unwrap()] += 1;
        }
        assert_eq!(hits[0], 0);
        assert!(hits[2] > hits[1] * 5, "{hits:?}");
    }
}
