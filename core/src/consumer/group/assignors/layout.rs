//! The group in numbers: members in the order in which they are served, topics by name, partitions one after the
//! other. Whoever plans gives each partition's owner, and [`Layout::plan`] says it in names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Member, Plan, Topics};

pub(super) type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
pub(super) type Set<K> = HashSet<K, foldhash::fast::RandomState>;

/// Nobody's partition.
pub(super) const NOBODY: u32 = u32::MAX;

pub(super) struct Layout<'a> {
    /// Static members by instance id, then the others by member id.
    pub(super) members: Vec<Seat<'a>>,
    /// By name: those that exist and that somebody wants.
    pub(super) topics: Vec<Field<'a>>,
    /// How many partitions they have.
    pub(super) partitions: usize,
    by_name: Map<&'a str, u32>,
}

pub(super) struct Seat<'a> {
    pub(super) member: &'a Member,
    /// Its place in what was given.
    given: usize,
    pub(super) rack: Option<u32>,
}

pub(super) struct Field<'a> {
    name: &'a Arc<str>,
    /// The first of its partitions.
    pub(super) first: usize,
    pub(super) partitions: usize,
    /// Who wants it, in order.
    pub(super) members: Vec<u32>,
    /// Of each partition the racks of its replicas, sorted; nothing where none is known.
    racks: Vec<Vec<u32>>,
}

impl Field<'_> {
    /// By number within the topic.
    pub(super) fn racks(&self, partition: usize) -> &[u32] {
        self.racks.get(partition).map_or(&[], Vec::as_slice)
    }

    pub(super) fn wanted_by(&self, member: u32) -> bool {
        self.members.binary_search(&member).is_ok()
    }

    /// All its partitions.
    pub(super) fn range(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.partitions
    }
}

impl<'a> Layout<'a> {
    pub(super) fn new(members: &'a [Member], topics: &'a Topics) -> Self {
        let mut racks: Map<&str, u32> = Map::default();
        let mut number = |rack: &'a Arc<str>| {
            let next = racks.len() as u32;
            *racks.entry(rack).or_insert(next)
        };
        let mut seen: Set<&str> = Set::default();
        let mut seats: Vec<Seat<'_>> = members
            .iter()
            .enumerate()
            .filter(|(_, member)| seen.insert(&member.id))
            .map(|(given, member)| Seat {
                member,
                given,
                rack: member.subscription.rack.as_ref().map(&mut number),
            })
            .collect();
        seats.sort_by_key(|seat| {
            (seat.member.instance_id.is_none(), &seat.member.instance_id, &seat.member.id)
        });
        let mut wanted: Map<&str, Vec<u32>> = Map::default();
        for (at, seat) in (0u32..).zip(&seats) {
            for topic in &seat.member.subscription.topics {
                let by = wanted.entry(topic).or_default();
                if by.last() != Some(&at) {
                    by.push(at);
                }
            }
        }
        let mut fields: Vec<Field<'_>> = Vec::new();
        let mut first = 0;
        for (name, topic) in &topics.0 {
            let Some(members) = wanted.remove(&**name).filter(|_| topic.partitions > 0) else {
                continue;
            };
            let racks = topic.racks.iter().map(|replicas| {
                let mut racks: Vec<u32> = replicas.iter().map(&mut number).collect();
                racks.sort_unstable();
                racks.dedup();
                racks
            });
            let (partitions, racks) = (topic.partitions, racks.collect());
            fields.push(Field { name, first, partitions, members, racks });
            first += topic.partitions;
        }
        let by_name = (0..).zip(&fields).map(|(at, field)| (&**field.name, at)).collect();
        Self { members: seats, topics: fields, partitions: first, by_name }
    }

    /// The number of a partition, if there is such a one.
    pub(super) fn number(&self, field: &Field<'_>, partition: i32) -> Option<usize> {
        let partition = usize::try_from(partition).ok()?;
        (partition < field.partitions).then(|| field.first + partition)
    }

    pub(super) fn topic(&self, name: &str) -> Option<&Field<'a>> {
        self.by_name.get(name).map(|at| &self.topics[*at as usize])
    }

    /// Racks say something about a set of partitions if members are where replicas are, and if not all partitions are
    /// in all the racks: else any member is as near as any other (AbstractPartitionAssignor.useRackAwareAssignment).
    pub(super) fn racks_matter(&self, fields: &[&Field<'_>]) -> bool {
        let theirs = fields.iter().flat_map(|field| &field.members);
        let members: Set<u32> = theirs.filter_map(|at| self.members[*at as usize].rack).collect();
        let partitions =
            || fields.iter().flat_map(|field| (0..field.partitions).map(|at| field.racks(at)));
        let all: Set<u32> = partitions().flatten().copied().collect();
        !members.is_disjoint(&all) && partitions().any(|racks| racks.len() < all.len())
    }

    /// `owners`: of each partition.
    pub(super) fn plan(&self, owners: &[u32]) -> Plan {
        let mut all = vec![Vec::new(); self.members.len()];
        for field in &self.topics {
            for (number, owner) in (0..).zip(&owners[field.range()]) {
                if *owner == NOBODY {
                    continue;
                }
                let theirs: &mut Vec<(Arc<str>, Vec<i32>)> = &mut all[*owner as usize];
                match theirs.last_mut() {
                    Some((topic, numbers)) if topic == field.name => numbers.push(number),
                    _ => theirs.push((Arc::clone(field.name), vec![number])),
                }
            }
        }
        let mut named: Vec<_> = self.members.iter().zip(all).collect();
        named.sort_by_key(|(seat, _)| seat.given);
        let named = named.into_iter().map(|(seat, theirs)| (Arc::clone(&seat.member.id), theirs));
        Plan { members: named.collect() }
    }
}
