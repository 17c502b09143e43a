//! Which partition a sealed batch without a partition goes to: the better of two drawn at random,
//! by what is in flight to the leader and then by how quickly it answers. No hashing: keys are
//! payload.

use rand::{Rng, RngExt};

/// A partition that can take a batch now: its leader is known, reachable and has room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) partition: i32,
    /// Bytes of produce requests in flight to its leader, what is being assembled included.
    pub(crate) bytes_in_flight: usize,
    /// The leader's answer time, smoothed, in microseconds.
    pub(crate) latency_us: u32,
}

/// Index of the choice, or `None` without candidates.
pub(crate) fn choose(candidates: &[Candidate], rng: &mut impl Rng) -> Option<usize> {
    match candidates.len() {
        0 => None,
        1 => Some(0),
        n => {
            let a = rng.random_range(0..n);
            // Drawn from the others, so that two different ones are compared.
            let b = (a + rng.random_range(1..n)) % n;
            Some(if better(&candidates[b], &candidates[a]) { b } else { a })
        }
    }
}

/// Less in flight wins. Between equals only a latency of another order counts: if every microsecond
/// did, the quickest of three equal brokers would win every draw it is in, and get half of all.
fn better(a: &Candidate, b: &Candidate) -> bool {
    if a.bytes_in_flight != b.bytes_in_flight {
        return a.bytes_in_flight < b.bytes_in_flight;
    }
    u64::from(a.latency_us) * 2 + NOISE_US < u64::from(b.latency_us)
}

/// Differences below a millisecond are scheduling.
const NOISE_US: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn candidate(partition: i32, bytes_in_flight: usize, latency_us: u32) -> Candidate {
        Candidate { partition, bytes_in_flight, latency_us }
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

    #[test]
    fn the_busiest_of_all_is_never_chosen() {
        let mut rng = StdRng::seed_from_u64(3);
        let all = [candidate(0, 10, 0), candidate(1, 0, 90_000), candidate(2, 0, 10_000)];
        let mut hits = [0u32; 3];
        for _ in 0..3_000 {
            hits[choose(&all, &mut rng).unwrap()] += 1;
        }
        assert_eq!(hits[0], 0);
        // The slow one wins only against the busy one.
        assert!(hits[2] > hits[1], "{hits:?}");
    }
}
