use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::Assignor;
use super::super::tests::{Group, partitions, says, text, written};
use crate::consumer::group::wire::{History, NO_GENERATION, Partitions, encode_generation};

fn planned(group: &Group) -> Vec<String> {
    group.planned(Assignor::CooperativeSticky)
}

#[test]
fn what_somebody_still_reads_is_given_in_the_next_round() {
    let mut group =
        Group::new(&[("t", 4)]).member("a", "t").had("t-0 t-1 t-2 t-3", 1).member("new", "t");
    assert_eq!(planned(&group), ["t-0 t-1", ""]);
    let plan = group.plan(Assignor::CooperativeSticky);
    group.follow(&plan, 2);
    assert_eq!(planned(&group), ["t-0 t-1", "t-2 t-3"]);
    let plan = group.plan(Assignor::CooperativeSticky);
    group.follow(&plan, 3);
    assert_eq!(group.plan(Assignor::CooperativeSticky), plan, "and that is all");
}

/// Members that offer `range` too give up everything before, so there is nothing to hold back.
#[test]
fn eager_members_get_everything_at_once() {
    let mut group = Group::new(&[("t", 4)]).member("a", "t").member("new", "t");
    group.last().subscription.generation = 5;
    assert_eq!(planned(&group), ["t-0 t-2", "t-1 t-3"]);
}

#[test]
fn what_a_member_left_is_free() {
    let group =
        Group::new(&[("t", 3)]).member("a", "t").had("t-0", 1).member("b", "t").had("t-2", 1);
    assert_eq!(planned(&group), ["t-0 t-1", "t-2"]);
}

/// The one that has it wants it no more, the one that wants it only believes to have it: two would read it until
/// the first has heard of the plan.
#[test]
fn a_claim_that_is_beaten_makes_a_gain_of_what_the_plan_gives() {
    let mut group = Group::new(&[("t", 1), ("u", 1)])
        .member("reads", "u")
        .had("t-0", 5)
        .member("stale", "t")
        .had("t-0", 3);
    assert_eq!(planned(&group), ["u-0", ""]);
    let plan = group.plan(Assignor::CooperativeSticky);
    group.follow(&plan, 6);
    assert_eq!(planned(&group), ["u-0", "t-0"]);
}

/// Balance takes it from who has it, and it would go to who had it before.
#[test]
fn a_stale_claim_does_not_hide_a_move() {
    let group = Group::new(&[("t", 2)])
        .member("reads", "t")
        .had("t-0 t-1", 5)
        .member("stale", "t")
        .had("t-0 t-1", 3);
    assert_eq!(planned(&group), ["t-0", ""]);
    // Without that other claim what a member says is all there is to know.
    let alone =
        Group::new(&[("t", 2)]).member("a", "t").had("t-0", 5).member("late", "t").had("t-1", 3);
    assert_eq!(planned(&alone), ["t-0", "t-1"]);
}

/// Both give it up in this round.
#[test]
fn what_two_of_one_generation_claim_is_nobodys() {
    let mut group = Group::new(&[("t", 3)])
        .member("a", "t")
        .had("t-0 t-1", 3)
        .member("b", "t")
        .had("t-1 t-2", 3);
    assert_eq!(planned(&group), ["t-0", "t-2"]);
    let plan = group.plan(Assignor::CooperativeSticky);
    group.follow(&plan, 4);
    assert_eq!(planned(&group), ["t-0 t-1", "t-2"]);
}

/// Where the field tells no generation the user data may, in either form.
#[test]
fn the_field_decides_before_the_user_data() {
    let sticky = |generation| History { partitions: Vec::new(), generation }.encode();
    for (field, user_data, wins) in [
        (7, Some(encode_generation(2)), true),
        (7, Some(sticky(2)), true),
        (3, Some(encode_generation(9)), false),
        (NO_GENERATION, Some(encode_generation(9)), true),
        (NO_GENERATION, Some(sticky(9)), true),
        (NO_GENERATION, Some(sticky(2)), false),
        (NO_GENERATION, None, false),
    ] {
        let mut group = Group::new(&[("t", 2)])
            .member("a", "t")
            .had("t-0 t-1", field)
            .member("b", "t")
            .had("t-0 t-1", 5);
        group.members[0].subscription.user_data = user_data;
        let expected = if wins { ["t-0", ""] } else { ["", "t-0"] };
        assert_eq!(planned(&group), expected, "{field} {wins}");
    }
}

/// It costs the others nothing: they keep what they have, round for round.
#[test]
fn a_member_that_never_lets_go_does_not_move_the_others() {
    let mut group = Group::new(&[("t", 6)])
        .member("a", "t")
        .had("t-0 t-1", 1)
        .member("b", "t")
        .had("t-2 t-3", 1)
        .member("stuck", "")
        .had("t-4 t-5", 1);
    for generation in 2..6 {
        assert_eq!(planned(&group), ["t-0 t-1", "t-2 t-3", ""]);
        let plan = group.plan(Assignor::CooperativeSticky);
        group.follow(&plan, generation);
        says(group.last(), partitions("t-4 t-5"), generation);
    }
}

/// A member as it is: what it reads, and since when.
#[derive(Clone, Debug, Default)]
struct Real {
    topics: BTreeSet<usize>,
    reads: BTreeSet<(usize, i32)>,
    generation: i32,
}

#[derive(Clone, Debug)]
enum Event {
    Join(BTreeSet<usize>),
    Leave(prop::sample::Index),
    Subscribe(prop::sample::Index, BTreeSet<usize>),
    /// A rebalance that one of them is not in, and does not hear of.
    Without(prop::sample::Index),
    Rebalance,
}

const PARTITIONS: [usize; 3] = [5, 3, 1];

fn event() -> impl Strategy<Value = Event> {
    let topics = || prop::collection::btree_set(0..PARTITIONS.len(), 0..=PARTITIONS.len());
    let member = any::<prop::sample::Index>;
    prop_oneof![
        3 => topics().prop_map(Event::Join),
        1 => member().prop_map(Event::Leave),
        1 => (member(), topics()).prop_map(|(at, topics)| Event::Subscribe(at, topics)),
        2 => member().prop_map(Event::Without),
        2 => Just(Event::Rebalance),
    ]
}

fn topic(at: usize) -> String {
    format!("t{at}")
}

fn in_words(parts: &BTreeSet<(usize, i32)>) -> Partitions {
    let mut all: BTreeMap<usize, Vec<i32>> = BTreeMap::new();
    for (topic, number) in parts {
        all.entry(*topic).or_default().push(*number);
    }
    all.into_iter().map(|(at, numbers)| (text(&topic(at)), numbers)).collect()
}

/// A rebalance of all but one. Gives whether somebody has to join again.
fn rebalance(members: &mut BTreeMap<u32, Real>, absent: Option<u32>, generation: i32) -> bool {
    let topics: Vec<String> = (0..PARTITIONS.len()).map(topic).collect();
    let sizes: Vec<(&str, usize)> = topics.iter().map(|name| &**name).zip(PARTITIONS).collect();
    let mut group = Group::new(&sizes);
    let present: Vec<u32> = members.keys().copied().filter(|id| Some(*id) != absent).collect();
    for id in &present {
        let member = &members[id];
        let wants: Vec<String> = member.topics.iter().map(|at| topic(*at)).collect();
        group = group.member(&format!("m{id}"), &wants.join(" "));
        says(group.last(), in_words(&member.reads), member.generation);
    }
    let plan = group.plan(Assignor::CooperativeSticky);
    let mut again = false;
    let before = members.clone();
    for (id, (_, partitions)) in present.iter().zip(&plan.members) {
        let gets: BTreeSet<(usize, i32)> = written(partitions)
            .split_whitespace()
            .map(|part| {
                let (topic, number) = part[1..].split_once('-').expect("a partition");
                (topic.parse().expect("a topic"), number.parse().expect("a number"))
            })
            .collect();
        for part in &gets {
            for (other, theirs) in before.iter().filter(|(other, _)| present.contains(other)) {
                let mine = &before[id];
                let keeps = mine.reads.contains(part) && mine.generation > theirs.generation;
                assert!(
                    other == id || keeps || !theirs.reads.contains(part),
                    "m{id} gets {part:?}, which m{other} says to be reading"
                );
            }
        }
        let Some(member) = members.get_mut(id) else { continue };
        again |= !member.reads.is_subset(&gets);
        (member.reads, member.generation) = (gets, generation);
    }
    again
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever happens to a group, nobody gets what another member may be reading, and it comes to rest with everything
    /// read, in two rebalances that it asks for itself.
    #[test]
    fn nothing_is_read_twice_and_the_group_comes_to_rest(
        events in prop::collection::vec(event(), 1..20),
    ) {
        let mut members: BTreeMap<u32, Real> = BTreeMap::new();
        let (mut next, mut generation) = (0, 0);
        let pick = |members: &BTreeMap<u32, Real>, at: prop::sample::Index| {
            (!members.is_empty()).then(|| *at.get(&members.keys().copied().collect::<Vec<_>>()))
        };
        for event in events {
            match event {
                Event::Join(topics) => {
                    let reads = BTreeSet::new();
                    members.insert(next, Real { topics, reads, generation: NO_GENERATION });
                    next += 1;
                }
                Event::Leave(at) => drop(pick(&members, at).and_then(|id| members.remove(&id))),
                Event::Subscribe(at, topics) => {
                    if let Some(member) = pick(&members, at).and_then(|id| members.get_mut(&id)) {
                        member.topics = topics;
                    }
                }
                Event::Without(at) => {
                    generation += 1;
                    let absent = pick(&members, at);
                    rebalance(&mut members, absent, generation);
                }
                Event::Rebalance => {
                    generation += 1;
                    rebalance(&mut members, None, generation);
                }
            }
        }
        let mut rounds = 0;
        while rebalance(&mut members, None, generation + 1 + rounds) {
            rounds += 1;
            prop_assert!(rounds <= 2, "it does not come to rest");
        }
        let at_rest = members.clone();
        prop_assert!(!rebalance(&mut members, None, generation + 1 + rounds + 1));
        for (id, member) in &members {
            prop_assert_eq!(&member.reads, &at_rest[id].reads, "something moves");
        }
        for (topic, partitions) in PARTITIONS.into_iter().enumerate() {
            let wanted = members.values().any(|member| member.topics.contains(&topic));
            for number in 0..partitions as i32 {
                let readers = members.values().filter(|m| m.reads.contains(&(topic, number)));
                prop_assert_eq!(readers.count(), usize::from(wanted), "t{}-{}", topic, number);
            }
        }
    }
}
