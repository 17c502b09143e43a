//! Vectors that kafka-clients 4.2.1 gives for the same groups.

use super::super::Assignor;
use super::super::tests::Group;

fn planned(group: &Group) -> Vec<String> {
    group.planned(Assignor::RoundRobin)
}

#[test]
fn in_turn() {
    let two = Group::new(&[("t1", 3), ("t2", 3)]).member("a", "t1 t2").member("b", "t1 t2");
    assert_eq!(planned(&two), ["t1-0 t1-2 t2-1", "t1-1 t2-0 t2-2"]);
    let idle = Group::new(&[("t", 2)]).member("c", "t").member("b", "t").member("a", "t");
    assert_eq!(planned(&idle), ["", "t-1", "t-0"]);
}

/// The turn goes on behind who got the last, also over those who do not want it.
#[test]
fn who_does_not_want_it_is_passed_over() {
    let mixed = Group::new(&[("t1", 3), ("t2", 2), ("other", 9)])
        .member("a", "t1")
        .member("b", "t2 t1 unknown")
        .member("c", "t1");
    assert_eq!(planned(&mixed), ["t1-0", "t1-1 t2-0 t2-1", "t1-2"]);
    let steps = Group::new(&[("t0", 1), ("t1", 2), ("t2", 3)])
        .member("c0", "t0")
        .member("c1", "t0 t1")
        .member("c2", "t0 t1 t2");
    assert_eq!(planned(&steps), ["t0-0", "t1-0", "t1-1 t2-0 t2-1 t2-2"]);
    let nobody = Group::new(&[("t", 3)]).member("a", "").member("b", "t").member("c", "u");
    assert_eq!(planned(&nobody), ["", "t-0 t-1 t-2", ""]);
}

#[test]
fn static_members_first() {
    let group = Group::new(&[("t1", 3), ("t2", 3)])
        .member("a", "t1 t2")
        .member("z", "t1 t2")
        .instance("i1")
        .member("y", "t1 t2")
        .instance("i3")
        .member("x", "t1 t2")
        .instance("i2");
    assert_eq!(planned(&group), ["t2-0", "t1-0 t2-1", "t1-2", "t1-1 t2-2"]);
}

/// It knows nothing of racks.
#[test]
fn racks_are_nothing_to_it() {
    let group = Group::default()
        .racked("t", 4, 1, "a b")
        .member("m0", "t")
        .rack(Some("b"))
        .member("m1", "t")
        .rack(Some("a"));
    assert_eq!(planned(&group), ["t-0 t-2", "t-1 t-3"]);
}
