//! Which partitions each member gets, once it is known how many of which topics. Members keep what they had as far as
//! that goes; what is left goes to members that have a replica near, then to all in turn.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::layout::{Field, Layout, Map, NOBODY};
use super::shares::{Class, Shares};

pub(super) fn fill(
    layout: &Layout<'_>,
    had: &[u32],
    shares: &Shares,
    racks_matter: bool,
) -> Vec<u32> {
    let mut owners = vec![NOBODY; layout.partitions];
    for class in &shares.classes {
        let mut pool = Pool::new(layout, class, had, racks_matter);
        pool.keep(class, &mut owners);
        if racks_matter {
            pool.give_near(layout, &mut owners);
        }
        pool.give(&mut owners);
    }
    owners
}

/// What is left of the topics of a class, and how much room each member has for it.
struct Pool<'a> {
    /// Partitions by topic and number, with the racks of their replicas.
    partitions: Vec<Spot<'a>>,
    members: &'a [u32],
    room: Vec<u32>,
}

struct Spot<'a> {
    partition: usize,
    number: usize,
    racks: &'a [u32],
    /// Who had it, as a number within the class.
    had: Option<usize>,
    /// Who had it has a replica near.
    near: bool,
}

impl<'a> Pool<'a> {
    fn new(layout: &'a Layout<'_>, class: &'a Class, had: &[u32], racks_matter: bool) -> Self {
        let spot = |field: &'a Field<'_>, number: usize| {
            let partition = field.first + number;
            let racks = if racks_matter { field.racks(number) } else { &[] };
            let rack = |owner: u32| layout.members[owner as usize].rack;
            let owner = had[partition];
            let near = owner != NOBODY && rack(owner).is_some_and(|rack| racks.contains(&rack));
            let had = class.members.binary_search(&owner).ok();
            Spot { partition, number, racks, had, near }
        };
        let fields = class.topics.iter().map(|topic| &layout.topics[*topic as usize]);
        let partitions = fields
            .flat_map(|field| (0..field.partitions).map(move |number| (field, number)))
            .map(|(field, number)| spot(field, number));
        Self { partitions: partitions.collect(), members: &class.members, room: class.gets.clone() }
    }

    /// What members had stays theirs, if there is room: what is near first, then the lowest numbers, so that what one
    /// has to give up is as much of one topic as of another.
    fn keep(&mut self, class: &Class, owners: &mut [u32]) {
        let mut order: Vec<usize> =
            (0..self.partitions.len()).filter(|at| self.partitions[*at].had.is_some()).collect();
        if class.gets.iter().zip(&class.had).any(|(gets, had)| gets < had) {
            order.sort_by_key(|at| (!self.partitions[*at].near, self.partitions[*at].number));
        }
        for at in order {
            let spot = &self.partitions[at];
            if let Some(member) = spot.had.filter(|member| self.room[*member] > 0) {
                self.room[member] -= 1;
                owners[spot.partition] = self.members[member];
            }
        }
        self.drop_given(owners);
    }

    /// Those first that have the fewest members near.
    fn give_near(&mut self, layout: &Layout<'_>, owners: &mut [u32]) {
        let mut by_rack: Map<u32, BinaryHeap<(u32, Reverse<usize>)>> = Map::default();
        for (member, room) in self.room.iter().enumerate().filter(|(_, room)| **room > 0) {
            if let Some(rack) = layout.members[self.members[member] as usize].rack {
                by_rack.entry(rack).or_default().push((*room, Reverse(member)));
            }
        }
        let near = |spot: &Spot<'_>| -> usize {
            spot.racks.iter().filter_map(|rack| by_rack.get(rack)).map(BinaryHeap::len).sum()
        };
        let mut order: Vec<(usize, usize)> =
            self.partitions.iter().map(&near).zip(0..).filter(|(near, _)| *near > 0).collect();
        order.sort_unstable();
        for (_, at) in order {
            let spot = &self.partitions[at];
            let rooms = |rack: &&u32| by_rack.get(rack).and_then(BinaryHeap::peek).copied();
            let Some(rack) = spot.racks.iter().max_by_key(rooms) else { continue };
            let heap = by_rack.get_mut(rack);
            let Some((heap, (room, Reverse(member)))) =
                heap.and_then(|heap| heap.pop().map(|top| (heap, top)))
            else {
                continue;
            };
            if room > 1 {
                heap.push((room - 1, Reverse(member)));
            }
            self.room[member] = room - 1;
            owners[spot.partition] = self.members[member];
        }
        self.drop_given(owners);
    }

    /// In turn to those with room.
    fn give(&mut self, owners: &mut [u32]) {
        let mut turn: VecDeque<usize> =
            (0..self.room.len()).filter(|member| self.room[*member] > 0).collect();
        for spot in &self.partitions {
            let Some(member) = turn.pop_front() else { break };
            owners[spot.partition] = self.members[member];
            self.room[member] -= 1;
            if self.room[member] > 0 {
                turn.push_back(member);
            }
        }
    }

    fn drop_given(&mut self, owners: &[u32]) {
        self.partitions.retain(|spot| owners[spot.partition] == NOBODY);
    }
}
