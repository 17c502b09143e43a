//! Vectors that kafka-clients 4.2.1 gives for the same groups.

use super::super::Assignor;
use super::super::tests::Group;

fn planned(group: &Group) -> Vec<String> {
    group.planned(Assignor::Range)
}

#[test]
fn each_topic_for_itself() {
    let two = Group::new(&[("t1", 3), ("t2", 3)]).member("a", "t1 t2").member("b", "t1 t2");
    assert_eq!(planned(&two), ["t1-0 t1-1 t2-0 t2-1", "t1-2 t2-2"]);
    let mixed = Group::new(&[("t1", 3), ("t2", 2), ("other", 9)])
        .member("a", "t1")
        .member("b", "t2 t1 unknown")
        .member("c", "t1");
    assert_eq!(planned(&mixed), ["t1-0", "t1-1 t2-0 t2-1", "t1-2"]);
    let idle = Group::new(&[("t", 2)]).member("c", "t").member("b", "t").member("a", "t");
    assert_eq!(planned(&idle), ["", "t-1", "t-0"]);
}

#[test]
fn static_members_first() {
    let group = |dynamic: &str| {
        Group::new(&[("t1", 5), ("t2", 4)])
            .member(dynamic, "t1 t2")
            .member("z", "t1 t2")
            .instance("i1")
            .member("y", "t1 t2")
            .instance("i3")
            .member("x", "t1 t2")
            .instance("i2")
    };
    let expected = ["t1-4 t2-3", "t1-0 t1-1 t2-0", "t1-3 t2-2", "t1-2 t2-1"];
    assert_eq!(planned(&group("a")), expected);
    assert_eq!(planned(&group("zz")), expected, "under another member id");
}

/// Of one topic each member takes what it is near to, in order, up to its size.
#[test]
fn a_topic_by_racks() {
    let group = |replicas| {
        Group::default()
            .racked("t", 7, replicas, "a b c")
            .member("m0", "t")
            .rack(Some("a"))
            .member("m1", "t")
            .rack(Some("b"))
            .member("m2", "t")
            .rack(Some("c"))
    };
    assert_eq!(planned(&group(1)), ["t-0 t-3 t-6", "t-1 t-4", "t-2 t-5"]);
    assert_eq!(planned(&group(2)), ["t-0 t-2 t-3", "t-1 t-4", "t-5 t-6"]);
    // All are everywhere.
    assert_eq!(planned(&group(3)), ["t-0 t-1 t-2", "t-3 t-4", "t-5 t-6"]);
}

#[test]
fn a_member_that_is_nowhere() {
    let group = |rack| {
        Group::default()
            .racked("t", 7, 1, "a b c")
            .member("m0", "t")
            .rack(rack)
            .member("m1", "t")
            .rack(Some("b"))
            .member("m2", "t")
            .rack(Some("c"))
    };
    // Without a rack it is near to all; in one where no replica is to none, and it gets what is left.
    assert_eq!(planned(&group(None)), ["t-0 t-1 t-2", "t-3 t-4", "t-5 t-6"]);
    assert_eq!(planned(&group(Some("z"))), ["t-0 t-3 t-6", "t-1 t-4", "t-2 t-5"]);
    // Where all others are near to everything it is in its place.
    let everywhere = Group::default()
        .racked("t", 4, 2, "a b")
        .member("m0", "t")
        .rack(Some("z"))
        .member("m1", "t")
        .rack(Some("b"));
    assert_eq!(planned(&everywhere), ["t-0 t-1", "t-2 t-3"]);
}

#[test]
fn topics_that_belong_together() {
    let together = |replicas| {
        Group::default()
            .racked("t1", 5, replicas, "a b c")
            .racked("t2", 5, replicas, "a b c")
            .racked("t3", 4, replicas, "a b c")
            .member("m0", "t1 t2 t3")
            .rack(Some("a"))
            .member("m1", "t1 t2 t3")
            .rack(Some("b"))
            .member("m2", "t1 t2 t3")
            .rack(Some("c"))
    };
    assert_eq!(
        planned(&together(1)),
        ["t1-0 t1-3 t2-0 t2-3 t3-0 t3-3", "t1-1 t1-4 t2-1 t2-4 t3-1", "t1-2 t2-2 t3-2"]
    );
    assert_eq!(
        planned(&together(2)),
        ["t1-0 t1-2 t2-0 t2-2 t3-0 t3-2", "t1-1 t1-3 t2-1 t2-3 t3-1", "t1-4 t2-4 t3-3"]
    );
    // Partitions of a number lie apart: no member is near to both, and they meet all the same.
    let apart = Group::default()
        .racked("t1", 4, 1, "a b")
        .racked("t2", 4, 1, "b a")
        .member("m0", "t1 t2")
        .rack(Some("a"))
        .member("m1", "t1 t2")
        .rack(Some("b"));
    assert_eq!(planned(&apart), ["t1-0 t1-1 t2-0 t2-1", "t1-2 t1-3 t2-2 t2-3"]);
    // Members differ, so the topics are two, each for itself.
    let differ = Group::default()
        .racked("t1", 4, 1, "a b")
        .racked("t2", 4, 1, "b a")
        .member("m0", "t1 t2")
        .rack(Some("b"))
        .member("m1", "t1 t2")
        .rack(Some("a"))
        .member("m2", "t1")
        .rack(Some("a"));
    assert_eq!(planned(&differ), ["t1-1 t1-3 t2-0 t2-2", "t1-0 t2-1 t2-3", "t1-2"]);
}

/// Racks matter for one topic, so the others that belong together are matched too, although each of
/// their partitions is everywhere.
#[test]
fn topics_that_are_everywhere_beside_one_that_is_not() {
    let group = Group::default()
        .racked("t1", 3, 2, "a b")
        .racked("t2", 3, 2, "a b")
        .racked("t3", 2, 1, "a b")
        .member("m0", "t1 t2 t3")
        .rack(Some("z"))
        .member("m1", "t1 t2 t3")
        .rack(Some("b"));
    assert_eq!(planned(&group), ["t1-2 t2-2 t3-0", "t1-0 t1-1 t2-0 t2-1 t3-1"]);
}

#[test]
fn where_no_rack_is_known() {
    let group = Group::default()
        .racked("t1", 4, 1, "a - b -")
        .racked("t2", 4, 1, "-")
        .racked("t3", 3, 1, "-")
        .member("m0", "t1 t2 t3")
        .rack(Some("b"))
        .member("m1", "t1 t2 t3")
        .rack(Some("a"));
    assert_eq!(planned(&group), ["t1-0 t1-1 t2-0 t2-1 t3-0 t3-1", "t1-2 t1-3 t2-2 t2-3 t3-2"]);
    let alone = Group::default()
        .racked("t1", 4, 1, "a - b -")
        .member("m0", "t1")
        .rack(Some("b"))
        .member("m1", "t1")
        .rack(Some("a"));
    assert_eq!(planned(&alone), ["t1-1 t1-2", "t1-0 t1-3"]);
}
