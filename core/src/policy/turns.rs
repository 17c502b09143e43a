//! Whose turn it is in a fetch. A broker fills its response in the order in which partitions are named,
//! and only the first that has anything may bring a batch larger than its share (KIP-74): in an order
//! that never changes, a partition with large batches waits for as long as one before it has records.
//!
//! What came empty although there are records goes first, then who has waited the longest for data;
//! what brought some goes to the end. So of n partitions of a broker that all have records, each is
//! first at least once in n responses.

/// A partition's place in the order of a request: the smallest goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    /// It did not come empty although there was something.
    content: bool,
    /// When it brought data last, counted in responses.
    brought: u64,
}

impl Turn {
    /// For a partition that was never asked for: behind those that wait, before those that brought something.
    pub(crate) fn new() -> Self {
        Self { content: true, brought: 0 }
    }

    /// It brought records, in the response of this number.
    pub(crate) fn brought(&mut self, response: u64) {
        *self = Self { content: true, brought: response };
    }

    /// The response brought nothing of it; `behind`: although there are records beyond its position.
    pub(crate) fn came_empty(&mut self, behind: bool) {
        self.content = !behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_starving_first_and_the_fed_last() {
        let [mut fed, mut starving, mut idle, new] = [Turn::new(); 4];
        idle.brought(1);
        starving.brought(2);
        fed.brought(3);
        starving.came_empty(true);
        idle.came_empty(false);
        let mut line = [("fed", fed), ("starving", starving), ("idle", idle), ("new", new)];
        line.sort_by_key(|(_, turn)| *turn);
        assert_eq!(line.map(|(name, _)| name), ["starving", "new", "idle", "fed"]);
        starving.came_empty(false);
        assert!(starving > idle, "what has caught up waits as the others do");
    }

    proptest! {
        /// A response has room for some; the first that has anything always comes. However large the
        /// batches are, nobody who has something is passed over more often than there are others.
        #[test]
        fn nobody_waits_longer_than_the_others_take(
            sizes in prop::collection::vec(1usize..40, 1..12),
            room in 1usize..60,
        ) {
            let mut turns = vec![Turn::new(); sizes.len()];
            let mut waited = vec![0; sizes.len()];
            for response in 1..200 {
                let mut order: Vec<usize> = (0..sizes.len()).collect();
                order.sort_by_key(|at| turns[*at]);
                let mut used = 0;
                for at in order {
                    if used == 0 || used + sizes[at] <= room {
                        used += sizes[at];
                        turns[at].brought(response);
                        waited[at] = 0;
                    } else {
                        turns[at].came_empty(true);
                        waited[at] += 1;
                        prop_assert!(waited[at] < sizes.len(), "{at} waits in {response}");
                    }
                }
            }
        }
    }
}
