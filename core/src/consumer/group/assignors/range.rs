//! `range`: each topic is cut into one range a member, of n/m partitions, the first n%m of one more. Topics with
//! as many partitions and the same members are cut in the same places, so that partitions of one number meet in one
//! member.
//!
//! With racks (KIP-881) sizes stay as they are, and partitions go first to members that have a replica near: of topics
//! that belong together each number to the first member with room that is near all of them, of a single topic to
//! each member in turn what it is near to. A member without a rack is near to everything. What is left goes as it would
//! without racks.

use std::collections::BTreeMap;

use super::layout::{Field, Layout, NOBODY};

pub(super) fn plan(layout: &Layout<'_>) -> Vec<u32> {
    let mut owners = vec![NOBODY; layout.partitions];
    let mut topics: Vec<Cut<'_>> =
        layout.topics.iter().map(|field| Cut::new(layout, field)).collect();
    if topics.iter().any(|topic| topic.racks_matter) {
        // Topics without any member in a rack get nothing here: where no rack is known all match, in plain order.
        let mut together: BTreeMap<(&[u32], usize), Vec<usize>> = BTreeMap::new();
        for (at, topic) in topics.iter().enumerate() {
            if topic.field.members.iter().any(|m| layout.members[*m as usize].rack.is_some()) {
                let key = (topic.field.members.as_slice(), topic.field.partitions);
                together.entry(key).or_default().push(at);
            }
        }
        for group in together.values() {
            match group.as_slice() {
                [one] if !topics[*one].racks_matter => {}
                [one] => topics[*one].ranges(layout, true, &mut owners),
                many => match_together(layout, &mut topics, many, &mut owners),
            }
        }
    }
    for topic in &mut topics {
        topic.ranges(layout, false, &mut owners);
    }
    owners
}

/// A topic, and what its members have of it.
struct Cut<'a> {
    field: &'a Field<'a>,
    racks_matter: bool,
    /// What each member gets at least.
    least: usize,
    /// How many members may still get one more.
    larger: usize,
    has: Vec<usize>,
}

impl<'a> Cut<'a> {
    fn new(layout: &Layout<'_>, field: &'a Field<'a>) -> Self {
        let members = field.members.len();
        Self {
            field,
            racks_matter: layout.racks_matter(&[field]),
            least: field.partitions / members,
            larger: field.partitions % members,
            has: vec![0; members],
        }
    }

    fn room(&self, member: usize) -> usize {
        (self.least + usize::from(self.larger > 0)).saturating_sub(self.has[member])
    }

    /// `partition` and `member` by their numbers within the topic.
    fn give(&mut self, partition: usize, member: usize, owners: &mut [u32]) {
        owners[self.field.first + partition] = self.field.members[member];
        self.has[member] += 1;
        if self.has[member] > self.least {
            self.larger -= 1;
        }
    }

    fn near(&self, layout: &Layout<'_>, partition: usize, member: usize) -> bool {
        let rack = layout.members[self.field.members[member] as usize].rack;
        rack.is_none_or(|rack| self.field.racks(partition).binary_search(&rack).is_ok())
    }

    /// Each member in order as many as there is room for, of those that are left.
    fn ranges(&mut self, layout: &Layout<'_>, near: bool, owners: &mut [u32]) {
        let mut left: Vec<usize> = (0..self.field.partitions)
            .filter(|partition| owners[self.field.first + partition] == NOBODY)
            .collect();
        for member in 0..self.has.len() {
            if left.is_empty() {
                break;
            }
            // As it was before the first of them was given: one that is larger takes all at once.
            let mut room = self.room(member);
            left.retain(|&partition| {
                let takes = room > 0 && (!near || self.near(layout, partition, member));
                if takes {
                    room -= 1;
                    self.give(partition, member, owners);
                }
                !takes
            });
        }
    }
}

/// Topics of the same members and as many partitions.
fn match_together(
    layout: &Layout<'_>,
    topics: &mut [Cut<'_>],
    group: &[usize],
    owners: &mut [u32],
) {
    let first = topics[group[0]].field;
    let mut members: Vec<usize> = (0..first.members.len()).collect();
    for partition in 0..first.partitions {
        let fits = |member: &&usize| {
            group
                .iter()
                .map(|at| &topics[*at])
                .all(|topic| topic.room(**member) > 0 && topic.near(layout, partition, **member))
        };
        let Some(member) = members.iter().find(fits).copied() else { continue };
        for at in group {
            topics[*at].give(partition, member, owners);
        }
        if group.iter().all(|at| topics[*at].room(member) == 0) {
            members.retain(|other| *other != member);
        }
    }
}

#[cfg(test)]
mod tests;
