use proptest::prelude::*;

use super::super::tests::{Group, partitions, says, text};
use super::super::{Assignor, Member, Plan};
use crate::consumer::group::wire::{History, NO_GENERATION, Subscription};

fn planned(group: &Group) -> Vec<String> {
    group.planned(Assignor::Sticky)
}

/// The first example of Java's StickyAssignor.
#[test]
fn what_a_member_leaves_is_all_that_moves() {
    let topics = [("t0", 2), ("t1", 2), ("t2", 2), ("t3", 2)];
    let all = "t0 t1 t2 t3";
    let mut group = Group::new(&topics).member("C0", all).member("C1", all).member("C2", all);
    let first = ["t0-0 t1-1 t3-0", "t0-1 t2-0 t3-1", "t1-0 t2-1"];
    assert_eq!(planned(&group), first);
    let plan = group.plan(Assignor::Sticky);
    group.follow(&plan, 1);
    assert_eq!(planned(&group), first, "with everybody there nothing moves");
    group.members.remove(1);
    assert_eq!(planned(&group), ["t0-0 t0-1 t1-1 t3-0", "t1-0 t2-0 t2-1 t3-1"]);
}

/// The second, in which nobody wants the same.
#[test]
fn different_subscriptions_are_as_even_as_can_be() {
    let mut group = Group::new(&[("t0", 1), ("t1", 2), ("t2", 3)])
        .member("C0", "t0")
        .member("C1", "t0 t1")
        .member("C2", "t0 t1 t2");
    let first = ["t0-0", "t1-0 t1-1", "t2-0 t2-1 t2-2"];
    assert_eq!(planned(&group), first);
    let plan = group.plan(Assignor::Sticky);
    group.follow(&plan, 1);
    assert_eq!(planned(&group), first);
    group.members.remove(0);
    assert_eq!(planned(&group), ["t0-0 t1-0 t1-1", "t2-0 t2-1 t2-2"]);
}

#[test]
fn a_new_member_gets_its_share_from_who_has_the_most() {
    let group = Group::new(&[("t", 8)])
        .member("a", "t")
        .had("t-0 t-1 t-2 t-3", 1)
        .member("b", "t")
        .had("t-4 t-5", 1)
        .member("c", "t")
        .had("t-6 t-7", 1)
        .member("new", "t");
    assert_eq!(planned(&group), ["t-0 t-1", "t-4 t-5", "t-6 t-7", "t-2 t-3"]);
}

/// What one has to give up is as much of one topic as of another.
#[test]
fn a_new_member_gets_some_of_each_topic() {
    let group = Group::new(&[("t1", 4), ("t2", 4)])
        .member("a", "t1 t2")
        .had("t1-0 t1-1 t1-2 t1-3 t2-0 t2-1 t2-2 t2-3", 1)
        .member("new", "t1 t2");
    assert_eq!(planned(&group), ["t1-0 t1-1 t2-0 t2-1", "t1-2 t1-3 t2-2 t2-3"]);
}

/// A chain: who has too many cannot give to who has too few, but both share something with a third.
#[test]
fn a_third_member_passes_on() {
    let group = Group::new(&[("t1", 3), ("t2", 2)])
        .member("a", "t1")
        .had("t1-0 t1-1 t1-2", 1)
        .member("b", "t1 t2")
        .had("t2-0 t2-1", 1)
        .member("c", "t2");
    let plan = planned(&group);
    assert_eq!(plan, ["t1-0 t1-1", "t1-2 t2-0", "t2-1"]);
}

#[test]
fn topics_change() {
    let group = Group::new(&[("more", 4), ("same", 2)])
        .member("a", "more gone same")
        .had("more-0 gone-0 same-1 more-9 same--1", 1)
        .member("b", "more gone same")
        .had("more-1 gone-1 same-0", 1);
    assert_eq!(planned(&group), ["more-0 more-2 same-1", "more-1 more-3 same-0"]);
}

#[test]
fn what_is_not_wanted_any_more_moves() {
    let group = Group::new(&[("t1", 2), ("t2", 2)])
        .member("a", "t2")
        .had("t1-0 t2-0", 1)
        .member("b", "t1 t2")
        .had("t1-1 t2-1", 1);
    assert_eq!(planned(&group), ["t2-0 t2-1", "t1-0 t1-1"]);
}

/// KIP-341: a member that missed rebalances has a history that is no more true.
#[test]
fn of_two_histories_the_later_is_true() {
    for (old, later) in [("a", "b"), ("b", "a")] {
        let group = Group::new(&[("t", 4)])
            .member(old, "t")
            .had("t-0 t-1", 3)
            .member(later, "t")
            .had("t-1 t-2", 4)
            .member("third", "t")
            .had("t-3", 4);
        assert_eq!(planned(&group), ["t-0", "t-1 t-2", "t-3"]);
    }
}

/// Neither can be right. As nobody's it goes to who has the fewest.
#[test]
fn of_two_histories_of_one_generation_none_is_true() {
    let group = Group::new(&[("t", 4)])
        .member("a", "t")
        .had("t-0 t-1", 3)
        .member("b", "t")
        .had("t-1 t-2", 3)
        .member("c", "t");
    assert_eq!(planned(&group), ["t-0 t-1", "t-2", "t-3"]);
    let group = Group::new(&[("t", 3)])
        .member("a", "t")
        .had("t-0 t-1 t-2", 3)
        .member("b", "t")
        .had("t-0 t-1 t-2", 3)
        .member("c", "t")
        .had("t-2", 4);
    assert_eq!(planned(&group), ["t-0", "t-1", "t-2"]);
}

#[test]
fn histories_of_old_clients_and_of_none() {
    let user_data = |bytes: &[u8]| Some(bytes.to_vec().into());
    let mut group = Group::new(&[("t", 2)]).member("a", "t").member("b", "t").had("t-0", 0);
    // Version 0, in which no generation stands: any other is later.
    let v0 = History { partitions: partitions("t-0 t-1"), generation: 0 }.encode();
    group.members[0].subscription.user_data = user_data(&v0[..v0.len() - 4]);
    assert_eq!(planned(&group), ["t-1", "t-0"]);
    for garbage in [&b""[..], b"x", &[0xff; 4], &[0x7f; 400]] {
        group.members[0].subscription.user_data = user_data(garbage);
        assert_eq!(planned(&group), ["t-1", "t-0"]);
    }
    // What is owned is not looked at: an eager member owns nothing.
    group.members[0].subscription.owned = partitions("t-0");
    group.members[0].subscription.generation = 9;
    assert_eq!(planned(&group), ["t-1", "t-0"]);
}

#[test]
fn a_member_whose_bytes_are_malformed_gets_nothing() {
    let mut group = Group::new(&[("t", 2)]).member("a", "t").member("b", "t");
    group.members[0].subscription = Subscription::default();
    assert_eq!(planned(&group), ["", "t-0 t-1"]);
}

/// Where partitions have to go somewhere they go near, and nothing moves only for that.
#[test]
fn racks_decide_where_what_moves_goes() {
    let group = Group::default()
        .racked("t", 6, 1, "a b c")
        .member("m0", "t")
        .rack(Some("c"))
        .member("m1", "t")
        .rack(Some("b"))
        .member("m2", "t")
        .rack(Some("a"));
    assert_eq!(planned(&group), ["t-2 t-5", "t-1 t-4", "t-0 t-3"]);
    let mut settled = group.clone();
    for (member, had) in settled.members.iter_mut().zip(["t-0 t-1", "t-2 t-3", "t-4 t-5"]) {
        says(member, partitions(had), 1);
    }
    assert_eq!(planned(&settled), ["t-0 t-1", "t-2 t-3", "t-4 t-5"]);
    // Who must give something up keeps what is near.
    let full = Group::default()
        .racked("t", 4, 1, "a b")
        .member("m0", "t")
        .rack(Some("b"))
        .had("t-0 t-1 t-2 t-3", 1)
        .member("m1", "t")
        .rack(Some("a"));
    assert_eq!(planned(&full), ["t-1 t-3", "t-0 t-2"]);
    // Replicas everywhere: as without racks.
    let everywhere = Group::default()
        .racked("t", 4, 2, "a b")
        .member("m0", "t")
        .rack(Some("b"))
        .member("m1", "t")
        .rack(Some("a"));
    assert_eq!(planned(&everywhere), ["t-0 t-2", "t-1 t-3"]);
}

/// One gets one more: who has more near.
#[test]
fn what_does_not_go_round_goes_to_who_is_near() {
    let group = Group::default()
        .racked("t", 5, 1, "a b b")
        .member("m0", "t")
        .rack(Some("a"))
        .member("m1", "t")
        .rack(Some("b"));
    assert_eq!(planned(&group), ["t-0 t-3", "t-1 t-2 t-4"]);
    // A member without a rack is near to nothing, and nothing is wasted on it.
    let group = Group::default()
        .racked("t", 4, 1, "a b")
        .member("m0", "t")
        .member("m1", "t")
        .rack(Some("a"))
        .member("m2", "t")
        .rack(Some("z"));
    assert_eq!(planned(&group), ["t-1", "t-0 t-2", "t-3"]);
}

/// What few are near to is given first: else `a` would be taken by who could have had `b`.
#[test]
fn those_with_the_fewest_near_first() {
    let mut group =
        Group::default().member("m0", "t").rack(Some("a")).member("m1", "t").rack(Some("b"));
    let racks = [&["a", "b"][..], &["a"]].map(|racks| racks.iter().map(|r| text(r)).collect());
    group.topics.insert_with_racks("t", racks.to_vec());
    assert_eq!(planned(&group), ["t-1", "t-0"]);
}

fn sizes(plan: &Plan) -> Vec<usize> {
    let size = |(_, partitions): &(_, Vec<(_, Vec<i32>)>)| {
        partitions.iter().map(|(_, numbers)| numbers.len()).sum()
    };
    plan.members.iter().map(size).collect()
}

fn has(member: &Member, topic: &str, number: i32) -> bool {
    let history = History::decode(member.subscription.user_data.as_deref());
    history.partitions.iter().any(|(name, numbers)| &**name == topic && numbers.contains(&number))
}

proptest! {
    /// Members come and go, and want the same: what they have differs by one at most, and no more moves than
    /// has to. The bound: whoever has more than the largest share gives up what is above it, and of those with
    /// the larger share only so many may stay.
    #[test]
    fn equal_subscriptions(
        rounds in prop::collection::vec(
            (prop::collection::vec(any::<prop::sample::Index>(), 0..3), 0usize..4),
            1..6,
        ),
        counts in prop::collection::vec(1usize..20, 1..4),
    ) {
        let names: Vec<String> = (0..counts.len()).map(|at| format!("t{at}")).collect();
        let topics: Vec<(&str, usize)> =
            names.iter().map(|name| &**name).zip(counts.iter().copied()).collect();
        let total: usize = counts.iter().sum();
        let mut group = Group::new(&topics);
        let mut next = 0;
        for (generation, (leave, join)) in (0..).zip(rounds) {
            for member in leave {
                if group.members.len() > 1 {
                    group.members.remove(member.index(group.members.len()));
                }
            }
            for _ in 0..join.max(usize::from(group.members.is_empty())) {
                group = group.member(&format!("m{next}"), &names.join(" "));
                next += 1;
            }
            let plan = group.plan(Assignor::Sticky);
            let sizes = sizes(&plan);
            let most = sizes.iter().max().expect("a member");
            prop_assert!(most - sizes.iter().min().expect("a member") <= 1);
            prop_assert_eq!(sizes.iter().sum::<usize>(), total);

            let (least, larger) = (total / sizes.len(), total % sizes.len());
            let had = group.members.iter().map(|member| {
                let history = History::decode(member.subscription.user_data.as_deref());
                history.partitions.iter().map(|(_, numbers)| numbers.len()).sum::<usize>()
            });
            let mut had: Vec<usize> = had.collect();
            had.sort_by(|a, b| b.cmp(a));
            let share = |at: usize| least + usize::from(at < larger);
            let must: usize =
                had.iter().enumerate().map(|(at, had)| had.saturating_sub(share(at))).sum();
            let kept = plan.members.iter().zip(&group.members).map(|((_, partitions), member)| {
                let all = partitions.iter().flat_map(|(topic, numbers)| {
                    numbers.iter().filter(|number| has(member, topic, **number))
                });
                all.count()
            });
            prop_assert_eq!(had.iter().sum::<usize>() - kept.sum::<usize>(), must);
            group.follow(&plan, generation);
        }
        for member in &mut group.members {
            prop_assert!(member.subscription.generation > NO_GENERATION);
        }
    }
}
