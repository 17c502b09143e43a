//! Whose turn it is. Everybody who has something takes turns of [`QUANTUM`] bytes. Who took more than a turn
//! (a batch is taken whole) is passed over until that is made up for: so shares are equal in bytes, however
//! large the batches of one are and how small those of another.

use std::collections::VecDeque;

/// Bytes of a turn.
pub(super) const QUANTUM: usize = 64 << 10;

/// Those who have something, the one whose turn it is in front; with the bytes that each took since its turn
/// began, and beyond earlier turns.
#[derive(Debug)]
pub(super) struct Ring<T>(VecDeque<(T, usize)>);

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Copy + PartialEq> Ring<T> {
    /// It has something now. Whoever joins must not be in it.
    pub(super) fn join(&mut self, who: T) {
        self.0.push_back((who, 0));
    }

    /// Whose turn it is.
    pub(super) fn first(&mut self) -> Option<T> {
        // Alone there is nobody to make up to.
        if self.0.len() == 1 {
            let (who, taken) = self.0.front_mut()?;
            *taken = 0;
            return Some(*who);
        }
        let passed_over = self.0.iter().position(|(_, taken)| *taken < QUANTUM);
        let passed_over = match passed_over {
            Some(count) => count,
            // All took more than this round is worth: rounds in which nobody had a turn are over at once.
            None => {
                let rounds = self.0.iter().map(|(_, taken)| taken / QUANTUM).min()?;
                self.0.iter_mut().for_each(|(_, taken)| *taken -= rounds * QUANTUM);
                self.0.iter().position(|(_, taken)| *taken < QUANTUM)?
            }
        };
        self.0.iter_mut().take(passed_over).for_each(|(_, taken)| *taken -= QUANTUM);
        self.0.rotate_left(passed_over);
        self.0.front().map(|(who, _)| *who)
    }

    /// The one whose turn it is took so many bytes.
    pub(super) fn took(&mut self, bytes: usize) {
        if let Some((_, taken)) = self.0.front_mut() {
            *taken = taken.saturating_add(bytes);
        }
    }

    /// The one whose turn it is has nothing more.
    pub(super) fn leave(&mut self) {
        self.0.pop_front();
    }

    /// This one is gone, wherever it stands.
    pub(super) fn remove(&mut self, who: T) {
        self.0.retain(|(other, _)| *other != who);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring(count: usize) -> Ring<usize> {
        let mut ring = Ring::default();
        (0..count).for_each(|who| ring.join(who));
        ring
    }

    #[test]
    fn a_turn_is_as_many_bytes_as_it_takes() {
        let mut ring = ring(3);
        let mut turns = Vec::new();
        for _ in 0..12 {
            turns.extend(ring.first());
            ring.took(QUANTUM / 2);
        }
        assert_eq!(turns, [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn who_is_alone_owes_nobody() {
        let mut ring = ring(1);
        for _ in 0..10 {
            assert_eq!(ring.first(), Some(0));
            ring.took(100 * QUANTUM);
        }
        ring.first();
        ring.join(1);
        ring.took(QUANTUM);
        assert_eq!(ring.first(), Some(1));
        ring.took(QUANTUM);
        assert_eq!(ring.first(), Some(0));
        ring.remove(0);
        ring.leave();
        assert!(ring.is_empty() && ring.first().is_none());
    }

    proptest! {
        /// Whatever the sizes: nobody is ahead of another by more than a turn and the largest that both take.
        #[test]
        fn shares_are_equal_in_bytes(
            sizes in prop::collection::vec(1usize..40 * QUANTUM, 2..8),
            rounds in 1usize..200,
        ) {
            let mut ring = ring(sizes.len());
            let mut took = vec![0; sizes.len()];
            for _ in 0..rounds {
                let who = ring.first().unwrap();
                ring.took(sizes[who]);
                took[who] += sizes[who];
                let (least, most) = (took.iter().min().unwrap(), took.iter().max().unwrap());
                prop_assert!(most - least <= 2 * QUANTUM + sizes.iter().max().unwrap());
            }
        }
    }
}
