//! Who has what, of what members say they have. A member that missed rebalances still claims what others have been
//! given since, so of claims on one partition the one of the highest generation is right (KIP-341, KIP-792). Two of
//! the same generation cannot both be right, and nobody has it.

use std::sync::Arc;

use super::layout::{Layout, NOBODY};

pub(super) struct Claims {
    of: Vec<Claim>,
}

#[derive(Clone, Copy)]
struct Claim {
    /// Of the highest generation; nobody if that is more than one.
    owner: u32,
    generation: i32,
    /// Some member that claims it.
    by: u32,
    /// Others do, too.
    disputed: bool,
}

impl Claims {
    /// `of`: what a member claims, and of which generation.
    pub(super) fn new<'a, H: AsRef<[(Arc<str>, Vec<i32>)]>>(
        layout: &Layout<'a>,
        of: impl Fn(&'a super::Member) -> (H, i32),
    ) -> Self {
        let none = Claim { owner: NOBODY, generation: i32::MIN, by: NOBODY, disputed: false };
        let mut claims = vec![none; layout.partitions];
        for (member, seat) in (0..).zip(&layout.members) {
            let (partitions, generation) = of(seat.member);
            for (topic, numbers) in partitions.as_ref() {
                let Some(field) = layout.topic(topic) else { continue };
                for number in numbers.iter().filter_map(|number| layout.number(field, *number)) {
                    claims[number].add(member, generation);
                }
            }
        }
        Self { of: claims }
    }

    /// Whose a partition is, whether it still wants the topic or not.
    pub(super) fn owner(&self, partition: usize) -> u32 {
        self.of[partition].owner
    }

    /// Whether somebody else says that it is reading this.
    pub(super) fn claimed_by_another(&self, partition: usize, member: u32) -> bool {
        let claim = self.of[partition];
        claim.disputed || claim.by != NOBODY && claim.by != member
    }

    /// Of each partition who has it and may keep it.
    pub(super) fn owners(&self, layout: &Layout<'_>) -> Vec<u32> {
        let mut owners = vec![NOBODY; layout.partitions];
        for field in &layout.topics {
            for partition in field.range() {
                let owner = self.owner(partition);
                if owner != NOBODY && field.wanted_by(owner) {
                    owners[partition] = owner;
                }
            }
        }
        owners
    }
}

impl Claim {
    fn add(&mut self, member: u32, generation: i32) {
        if self.by == NOBODY {
            *self = Self { owner: member, generation, by: member, disputed: false };
            return;
        }
        self.disputed |= self.by != member;
        if generation > self.generation {
            (self.owner, self.generation) = (member, generation);
        } else if generation == self.generation && self.owner != member {
            self.owner = NOBODY;
        }
    }
}
