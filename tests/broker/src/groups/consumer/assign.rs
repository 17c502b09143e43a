//! Who is to have which partition: the assignors that a broker has (KIP-848).
//!
//! `range` gives each member a range of each topic; `uniform` gives all as many partitions as others
//! as far as their subscriptions allow, and leaves with a member what it has.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

/// Partitions, by topic; no topic is there without partitions.
pub(crate) type Assignment = BTreeMap<Uuid, BTreeSet<i32>>;

/// The assignors, the default first.
pub(crate) const ASSIGNORS: [&str; 2] = ["uniform", "range"];

/// A member as an assignor sees it.
#[derive(Debug, Clone)]
pub(super) struct Claim<'a> {
    pub(super) member: &'a str,
    pub(super) instance: Option<&'a str>,
    /// Topics that are there.
    pub(super) topics: BTreeSet<Uuid>,
    /// What it was to have before.
    pub(super) before: &'a Assignment,
}

/// Assigns partitions of topics, whose counts are told, to members.
pub(super) fn assign(
    assignor: &str,
    claims: &[Claim<'_>],
    partitions: &BTreeMap<Uuid, i32>,
) -> BTreeMap<String, Assignment> {
    match assignor {
        "range" => range(claims, partitions),
        _ => uniform(claims, partitions),
    }
}

/// Static members come first, by their instance ids, then the others by their ids.
fn range(claims: &[Claim<'_>], partitions: &BTreeMap<Uuid, i32>) -> BTreeMap<String, Assignment> {
    let mut order: Vec<&Claim<'_>> = claims.iter().collect();
    order.sort_by_key(|claim| (claim.instance.is_none(), claim.instance, claim.member));
    let mut assigned: BTreeMap<String, Assignment> = BTreeMap::new();
    for claim in &order {
        assigned.insert(claim.member.to_owned(), Assignment::new());
    }
    for (topic, count) in partitions {
        let takers: Vec<_> = order.iter().filter(|claim| claim.topics.contains(topic)).collect();
        let Ok(members) = i32::try_from(takers.len()) else { continue };
        let mut next = 0;
        for (taker, place) in takers.iter().zip(0..) {
            let size = count / members + i32::from(place < count % members);
            if size > 0
                && let Some(one) = assigned.get_mut(taker.member)
            {
                one.insert(*topic, (next..next + size).collect());
            }
            next += size;
        }
    }
    assigned
}

fn uniform(claims: &[Claim<'_>], partitions: &BTreeMap<Uuid, i32>) -> BTreeMap<String, Assignment> {
    let mut plan = Plan::of(claims, partitions);
    plan.give_out(partitions);
    plan.level();
    plan.assigned
        .into_iter()
        .zip(claims)
        .map(|(assigned, claim)| (claim.member.to_owned(), assigned))
        .collect()
}

struct Plan<'a> {
    claims: &'a [Claim<'a>],
    /// In the order of the claims.
    assigned: Vec<Assignment>,
    sizes: Vec<usize>,
    /// What is somebody's.
    taken: BTreeSet<(Uuid, i32)>,
}

impl<'a> Plan<'a> {
    /// What members had, as far as they want it still.
    fn of(claims: &'a [Claim<'a>], partitions: &BTreeMap<Uuid, i32>) -> Self {
        let mut plan = Self {
            claims,
            assigned: vec![Assignment::new(); claims.len()],
            sizes: vec![0; claims.len()],
            taken: BTreeSet::new(),
        };
        for (index, claim) in claims.iter().enumerate() {
            for (topic, list) in claim.before {
                let count = partitions.get(topic).copied().unwrap_or(0);
                for partition in list.iter().filter(|partition| **partition < count) {
                    let free = !plan.taken.contains(&(*topic, *partition));
                    if claim.topics.contains(topic) && free {
                        plan.put(index, *topic, *partition);
                    }
                }
            }
        }
        plan
    }

    fn put(&mut self, member: usize, topic: Uuid, partition: i32) {
        self.assigned[member].entry(topic).or_default().insert(partition);
        self.sizes[member] += 1;
        self.taken.insert((topic, partition));
    }

    fn take(&mut self, member: usize, topic: Uuid, partition: i32) {
        if let Some(list) = self.assigned[member].get_mut(&topic) {
            list.remove(&partition);
            if list.is_empty() {
                self.assigned[member].remove(&topic);
            }
        }
        self.sizes[member] -= 1;
    }

    /// The member with the least of those that want a topic.
    fn least(&self, topic: &Uuid) -> Option<usize> {
        let wanting = (0..self.claims.len()).filter(|one| self.claims[*one].topics.contains(topic));
        wanting.min_by_key(|one| self.sizes[*one])
    }

    /// What nobody has goes to who has least.
    fn give_out(&mut self, partitions: &BTreeMap<Uuid, i32>) {
        for (topic, count) in partitions {
            for partition in 0..*count {
                if !self.taken.contains(&(*topic, partition))
                    && let Some(member) = self.least(topic)
                {
                    self.put(member, *topic, partition);
                }
            }
        }
    }

    /// As long as somebody has two more than another who could have one of them, one moves: the
    /// highest of its topic, so that low ones stay where they are.
    fn level(&mut self) {
        while let Some((from, to, topic, partition)) = self.move_that_helps() {
            self.take(from, topic, partition);
            self.put(to, topic, partition);
        }
    }

    fn move_that_helps(&self) -> Option<(usize, usize, Uuid, i32)> {
        let mut order: Vec<usize> = (0..self.claims.len()).collect();
        order.sort_by_key(|one| std::cmp::Reverse(self.sizes[*one]));
        order.into_iter().find_map(|from| {
            self.assigned[from].iter().rev().find_map(|(topic, list)| {
                let to = self.least(topic)?;
                let partition = *list.last()?;
                (self.sizes[from] > self.sizes[to] + 1).then_some((from, to, *topic, partition))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn topic(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    fn sizes(assigned: &BTreeMap<String, Assignment>) -> Vec<usize> {
        assigned.values().map(|one| one.values().map(BTreeSet::len).sum()).collect()
    }

    #[test]
    fn ranges_go_to_static_members_first() {
        let nothing = Assignment::new();
        let claim = |member, instance, topics: &[u128]| Claim {
            member,
            instance,
            topics: topics.iter().map(|one| topic(*one)).collect(),
            before: &nothing,
        };
        let claims = [
            claim("a", None, &[1, 2]),
            claim("b", Some("y"), &[1]),
            claim("c", Some("x"), &[1, 2]),
        ];
        let partitions = BTreeMap::from([(topic(1), 7), (topic(2), 2), (topic(3), 9)]);
        let told = assign("range", &claims, &partitions);
        let of = |member: &str| {
            let of = told[member].iter();
            of.map(|(id, list)| (id.as_u128(), list.iter().copied().collect::<Vec<_>>()))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("c"), [(1, vec![0, 1, 2]), (2, vec![0])]);
        assert_eq!(of("b"), [(1, vec![3, 4])]);
        assert_eq!(of("a"), [(1, vec![5, 6]), (2, vec![1])]);
    }

    #[test]
    fn uniform_keeps_and_moves_no_more_than_it_has_to() {
        let all = Assignment::from([(topic(1), (0..6).collect())]);
        let nothing = Assignment::new();
        let claim = |member, before| Claim {
            member,
            instance: None,
            topics: BTreeSet::from([topic(1)]),
            before,
        };
        let partitions = BTreeMap::from([(topic(1), 6)]);
        let told = assign("uniform", &[claim("b", &all), claim("a", &nothing)], &partitions);
        assert_eq!(told["b"], Assignment::from([(topic(1), (0..3).collect())]));
        assert_eq!(told["a"], Assignment::from([(topic(1), (3..6).collect())]));
        // Run again with what came out, nothing moves.
        let again = [claim("b", &told["b"]), claim("a", &told["a"])];
        assert_eq!(assign("uniform", &again, &partitions), told);
    }

    proptest! {
        /// Every partition that somebody wants is somebody's who wants it, nobody's twice; where all want
        /// the same, sizes differ by one at most; and a second run moves nothing.
        #[test]
        fn what_is_wanted_is_assigned_once(
            counts in prop::collection::vec(0..8i32, 1..4),
            wants in prop::collection::vec(0..16u8, 1..6),
            same in any::<bool>(),
            assignor in prop::sample::select(&ASSIGNORS[..]),
        ) {
            let partitions: BTreeMap<Uuid, i32> =
                (1..).map(topic).zip(counts.iter().copied()).collect();
            let names: Vec<String> = (0..wants.len()).map(|one| format!("m{one}")).collect();
            let mut before: BTreeMap<String, Assignment> = BTreeMap::new();
            for round in 0..3 {
                let nothing = Assignment::new();
                let claims: Vec<Claim<'_>> = names
                    .iter()
                    .zip(&wants)
                    .map(|(member, bits)| Claim {
                        member,
                        instance: None,
                        topics: partitions
                            .keys()
                            .zip(0..)
                            .filter(|(_, bit)| same || bits & (1 << bit) != 0)
                            .map(|(id, _)| *id)
                            .collect(),
                        before: before.get(member).unwrap_or(&nothing),
                    })
                    .collect();
                let told = assign(assignor, &claims, &partitions);
                let mut seen = BTreeSet::new();
                for claim in &claims {
                    for (id, list) in &told[claim.member] {
                        prop_assert!(claim.topics.contains(id) && !list.is_empty());
                        for partition in list {
                            prop_assert!(*partition < partitions[id]);
                            prop_assert!(seen.insert((*id, *partition)));
                        }
                    }
                }
                for (id, count) in &partitions {
                    let wanted = claims.iter().any(|claim| claim.topics.contains(id));
                    let given = seen.iter().filter(|(topic, _)| topic == id).count();
                    prop_assert_eq!(given, if wanted { *count as usize } else { 0 });
                }
                if same && assignor == "uniform" {
                    let sizes = sizes(&told);
                    let (least, most) = (sizes.iter().min(), sizes.iter().max());
                    prop_assert!(most.zip(least).is_none_or(|(most, least)| most - least <= 1));
                }
                prop_assert!(round == 0 || told == before, "a second run moves something");
                before = told;
            }
        }
    }
}
