//! How many partitions each member gets of which topics. Topics with the same members are one *class*: which of their
//! partitions a member gets makes no difference to the balance, so all that is decided here is a number for each
//! member of each class.
//!
//! The result is the best there is. Balance comes first: the sum of the squares of what members have is as small
//! as subscriptions allow, so no partition, and no chain of them, could be moved from a member to one that has two
//! fewer. With equal subscriptions all differ by one at most. Of all results as even as that, it is one where members
//! lose the fewest partitions. A plan that follows such a plan finds nothing to do, so a group comes to rest whoever
//! leads it.
//!
//! That is a flow of least cost. It is found from what members had, which costs nothing, in four steps:
//! 1. [`place`](Shares::place) what nobody had, each to the member with the fewest;
//! 2. [`level`](Shares::level) each class for itself, until none changes: with one class, or with classes that
//!    have no member in common, that is the result already;
//! 3. [`pass_on`](Shares::pass_on): chains, in which a member gets one of one class and gives one of another;
//! 4. [`restore`](restore::restore): rings of exchanges that leave the balance as it is and give members back what
//!    they had.

mod restore;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::layout::{Layout, Map, NOBODY};

pub(super) struct Shares {
    pub(super) classes: Vec<Class>,
    /// What each member has, of all classes.
    load: Vec<u32>,
    /// Of each member: its classes, and its place in them.
    places: Vec<Vec<(usize, usize)>>,
}

pub(super) struct Class {
    pub(super) topics: Vec<u32>,
    /// In order.
    pub(super) members: Vec<u32>,
    /// Of each of them what it had.
    pub(super) had: Vec<u32>,
    /// And what it is to get.
    pub(super) gets: Vec<u32>,
    /// How many partitions are not in `gets` yet.
    left: u32,
}

impl Shares {
    /// `had`: who had each partition, and still wants it.
    pub(super) fn balanced(layout: &Layout<'_>, had: &[u32], racks_matter: bool) -> Self {
        let mut shares = Self::kept(layout, had);
        shares.place(layout, had, racks_matter);
        shares.level();
        shares.pass_on();
        restore::restore(&mut shares);
        shares
    }

    /// Everybody has what it had.
    fn kept(layout: &Layout<'_>, had: &[u32]) -> Self {
        let mut by_members: BTreeMap<&[u32], Vec<u32>> = BTreeMap::new();
        for (at, field) in (0..).zip(&layout.topics) {
            by_members.entry(&field.members).or_default().push(at);
        }
        let mut load = vec![0; layout.members.len()];
        let mut places = vec![Vec::new(); layout.members.len()];
        let mut classes = Vec::with_capacity(by_members.len());
        for (members, topics) in by_members {
            for (place, member) in members.iter().enumerate() {
                places[*member as usize].push((classes.len(), place));
            }
            let mut theirs = vec![0; members.len()];
            let mut left = 0;
            for owner in topics.iter().flat_map(|at| &had[layout.topics[*at as usize].range()]) {
                match members.binary_search(owner) {
                    Ok(place) => {
                        theirs[place] += 1;
                        load[*owner as usize] += 1;
                    }
                    Err(_) => left += 1,
                }
            }
            let members = members.to_vec();
            classes.push(Class { topics, members, had: theirs.clone(), gets: theirs, left });
        }
        Self { classes, load, places }
    }

    /// Gives out what nobody had: of the class with the fewest members first, because who is in no other gets only
    /// that. Where it does not go round, members come first that have the most of it near.
    fn place(&mut self, layout: &Layout<'_>, had: &[u32], racks_matter: bool) {
        let mut order: Vec<usize> = (0..self.classes.len()).collect();
        order.sort_by_key(|class| self.classes[*class].members.len());
        for class in order {
            let class = &mut self.classes[class];
            let members = class.members.iter().zip(0..);
            let mut fewest: BinaryHeap<Reverse<(u32, usize)>> =
                members.map(|(m, place)| Reverse((self.load[*m as usize], place))).collect();
            while let Some(Reverse((load, _))) = fewest.peek().copied().filter(|_| class.left > 0) {
                let mut row = Vec::new();
                while let Some(Reverse((_, place))) = fewest.peek().filter(|top| top.0.0 == load) {
                    row.push(*place);
                    fewest.pop();
                }
                if class.left < row.len() as u32 {
                    if racks_matter {
                        class.near_first(layout, had, &mut row);
                    }
                    row.truncate(class.left as usize);
                }
                class.left -= row.len() as u32;
                for place in row {
                    class.gets[place] += 1;
                    self.load[class.members[place] as usize] += 1;
                    fewest.push(Reverse((load + 1, place)));
                }
            }
        }
    }

    /// Within each class from who has the most to who has the fewest, until that would not make it more even. Each
    /// move makes it more even, so this ends.
    fn level(&mut self) {
        let mut moved = true;
        while moved {
            moved = false;
            for class in 0..self.classes.len() {
                moved |= self.level_class(class);
            }
        }
    }

    fn level_class(&mut self, class: usize) -> bool {
        let Class { members, had, gets, .. } = &mut self.classes[class];
        let load = |place: usize, loads: &[u32]| loads[members[place] as usize];
        let (most, fewest) = members.iter().zip(gets.iter()).fold(
            (0, u32::MAX),
            |(most, fewest), (member, gets)| {
                let load = self.load[*member as usize];
                (if *gets > 0 { most.max(load) } else { most }, fewest.min(load))
            },
        );
        if most < fewest.saturating_add(2) {
            return false;
        }
        // Of members with as many, from one with what it did not have before, to one that gets back what it had.
        let from = |place: usize, gets: &[u32], loads: &[u32]| {
            (load(place, loads), gets[place] > had[place], Reverse(place))
        };
        let to = |place: usize, gets: &[u32], loads: &[u32]| {
            Reverse((load(place, loads), gets[place] >= had[place], place))
        };
        let mut givers: BinaryHeap<_> = (0..members.len())
            .filter(|place| gets[*place] > 0)
            .map(|place| from(place, gets, &self.load))
            .collect();
        let mut takers: BinaryHeap<_> =
            (0..members.len()).map(|place| to(place, gets, &self.load)).collect();
        let mut moved = false;
        // A place is in both heaps: what they say of one that has moved since is out of date, and so is dropped.
        while let (Some(giver), Some(taker)) = (givers.peek(), takers.peek()) {
            let (give, take) = (giver.2.0, taker.0.2);
            if *giver != from(give, gets, &self.load) || gets[give] == 0 {
                givers.pop();
                continue;
            }
            if *taker != to(take, gets, &self.load) {
                takers.pop();
                continue;
            }
            if giver.0 < taker.0.0 + 2 {
                break;
            }
            gets[give] -= 1;
            gets[take] += 1;
            self.load[members[give] as usize] -= 1;
            self.load[members[take] as usize] += 1;
            moved = true;
            for place in [give, take] {
                if gets[place] > 0 {
                    givers.push(from(place, gets, &self.load));
                }
                takers.push(to(place, gets, &self.load));
            }
        }
        moved
    }

    /// From a member with many, over members that pass on, to one with two fewer at least. What can be reached from
    /// the member with the most, with none that has two fewer, can be left alone from then on: whoever is in there has
    /// no more, and reaches nothing else.
    fn pass_on(&mut self) {
        let mut settled = vec![false; self.load.len()];
        loop {
            let open = (0..self.load.len()).filter(|member| !settled[*member]);
            let Some(from) = open.max_by_key(|member| (self.load[*member], Reverse(*member)))
            else {
                return;
            };
            let reach = Reach::from(self, from, &settled);
            let fewest = reach.members.iter().min_by_key(|member| (self.load[**member], **member));
            match fewest.copied() {
                Some(to) if self.load[to] + 2 <= self.load[from] => self.pass(&reach, to),
                _ => reach.members.iter().for_each(|member| settled[*member] = true),
            }
        }
    }

    fn pass(&mut self, reach: &Reach, to: usize) {
        self.load[to] += 1;
        let mut at = to;
        // Back to where it began.
        while let Some((class, place)) = reach.taken[at] {
            let giver = reach.given[class];
            self.classes[class].gets[place] += 1;
            self.classes[class].gets[giver] -= 1;
            at = self.classes[class].members[giver] as usize;
        }
        self.load[at] -= 1;
    }
}

impl Class {
    /// Sorts places by what is near to them and not given to others of their rack.
    fn near_first(&self, layout: &Layout<'_>, had: &[u32], places: &mut [usize]) {
        let rack = |place: usize| layout.members[self.members[place] as usize].rack;
        let mut near: Map<u32, i64> = Map::default();
        for field in self.topics.iter().map(|topic| &layout.topics[*topic as usize]) {
            for number in (0..field.partitions).filter(|at| had[field.first + at] == NOBODY) {
                for rack in field.racks(number) {
                    *near.entry(*rack).or_default() += 1;
                }
            }
        }
        for place in 0..self.members.len() {
            if let Some(near) = rack(place).and_then(|rack| near.get_mut(&rack)) {
                *near -= i64::from(self.gets[place]) - i64::from(self.had[place]);
            }
        }
        let mut left: Vec<i64> = vec![0; self.members.len()];
        for place in places.iter().copied() {
            if let Some(rack) = rack(place) {
                let near = near.entry(rack).or_default();
                left[place] = *near;
                *near -= 1;
            }
        }
        places.sort_by_key(|place| Reverse(left[*place]));
    }
}

/// Whom a partition could be passed on to, in the fewest steps.
struct Reach {
    /// In the order in which they were reached, the first too.
    members: Vec<usize>,
    /// By which class, and at which place there, a member is reached.
    taken: Vec<Option<(usize, usize)>>,
    /// At which place of a class one is given by whom it was first reached.
    given: Vec<usize>,
}

impl Reach {
    fn from(shares: &Shares, from: usize, settled: &[bool]) -> Self {
        const NOT_YET: usize = usize::MAX;
        let mut reach = Self {
            members: vec![from],
            taken: vec![None; shares.load.len()],
            given: vec![NOT_YET; shares.classes.len()],
        };
        let mut seen = settled.to_vec();
        seen[from] = true;
        let mut next = 0;
        while let Some(giver) = reach.members.get(next).copied() {
            next += 1;
            for (class, place) in shares.places[giver].iter().copied() {
                let Class { members, gets, .. } = &shares.classes[class];
                if gets[place] == 0 || reach.given[class] != NOT_YET {
                    continue;
                }
                reach.given[class] = place;
                for (place, member) in members.iter().enumerate() {
                    let member = *member as usize;
                    if !std::mem::replace(&mut seen[member], true) {
                        reach.taken[member] = Some((class, place));
                        reach.members.push(member);
                    }
                }
            }
        }
        reach
    }
}

#[cfg(test)]
mod tests;
