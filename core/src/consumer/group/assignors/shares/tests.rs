//! Against all the plans there are, where there are few.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::tests::{Group, says};
use crate::consumer::group::assignors::{Assignor, Plan};

/// Members by topics they want; topics by partitions; who had each partition, if anybody.
#[derive(Clone, Debug)]
struct Case {
    wants: Vec<Vec<bool>>,
    had: Vec<Vec<Option<usize>>>,
}

fn case(members: usize, topics: usize, partitions: usize) -> impl Strategy<Value = Case> {
    let wants = prop::collection::vec(prop::collection::vec(any::<bool>(), topics), 1..=members);
    let owner = prop::option::weighted(0.8, 0..members);
    let had = prop::collection::vec(prop::collection::vec(owner, 1..=partitions), topics);
    (wants, had).prop_map(|(wants, had)| Case { wants, had })
}

fn topic(at: usize) -> String {
    format!("t{at}")
}

fn group(case: &Case) -> Group {
    let topics: Vec<(String, usize)> =
        case.had.iter().enumerate().map(|(at, had)| (topic(at), had.len())).collect();
    let names: Vec<(&str, usize)> = topics.iter().map(|(name, n)| (&**name, *n)).collect();
    let mut group = Group::new(&names);
    for (at, wants) in case.wants.iter().enumerate() {
        let theirs: Vec<String> =
            wants.iter().enumerate().filter(|(_, wants)| **wants).map(|(t, _)| topic(t)).collect();
        group = group.member(&format!("m{at:04}"), &theirs.join(" "));
        let mut had = Vec::new();
        for (t, owners) in case.had.iter().enumerate() {
            let numbers: Vec<i32> = (0..)
                .zip(owners)
                .filter(|(_, owner)| **owner == Some(at))
                .map(|(number, _)| number)
                .collect();
            if !numbers.is_empty() {
                had.push((topic(t).into(), numbers));
            }
        }
        says(group.last(), had, 1);
    }
    group
}

/// How uneven a plan is, and how many partitions those lose who had them and want them.
fn judge(case: &Case, owner: impl Fn(usize, usize) -> Option<usize>) -> (u64, u64) {
    let mut load = vec![0u64; case.wants.len()];
    let mut lost = 0;
    for (t, owners) in case.had.iter().enumerate() {
        for (number, had) in owners.iter().enumerate() {
            let owner = owner(t, number);
            if let Some(owner) = owner {
                load[owner] += 1;
            }
            let kept = had.filter(|had| *had < case.wants.len() && case.wants[*had][t]);
            lost += u64::from(kept.is_some() && kept != owner);
        }
    }
    (load.iter().map(|load| load * load).sum(), lost)
}

/// The best of all plans there are.
fn best(case: &Case) -> (u64, u64) {
    let spots: Vec<(usize, usize)> = case
        .had
        .iter()
        .enumerate()
        .flat_map(|(t, had)| (0..had.len()).map(move |number| (t, number)))
        .collect();
    let wanting: Vec<Vec<usize>> = spots
        .iter()
        .map(|(t, _)| (0..case.wants.len()).filter(|m| case.wants[*m][*t]).collect())
        .collect();
    let mut choice = vec![0; spots.len()];
    let mut best = (u64::MAX, u64::MAX);
    loop {
        let owner = |t: usize, number: usize| {
            let at = spots.iter().position(|spot| *spot == (t, number)).expect("a spot");
            wanting[at].get(choice[at]).copied()
        };
        best = best.min(judge(case, owner));
        let Some(at) = (0..spots.len()).find(|at| choice[*at] + 1 < wanting[*at].len()) else {
            return best;
        };
        choice[at] += 1;
        choice[..at].fill(0);
    }
}

fn owners(case: &Case, plan: &Plan) -> Vec<Vec<Option<usize>>> {
    let mut owners: Vec<Vec<Option<usize>>> =
        case.had.iter().map(|had| vec![None; had.len()]).collect();
    for (member, (_, partitions)) in plan.members.iter().enumerate() {
        for (name, numbers) in partitions {
            let t: usize = name[1..].parse().expect("t and a number");
            assert!(case.wants[member][t], "{member} does not want {name}");
            for number in numbers {
                let owner = &mut owners[t][*number as usize];
                assert_eq!(owner.replace(member), None, "{name}-{number} is given twice");
            }
        }
    }
    for (t, owners) in owners.iter().enumerate() {
        let wanted = case.wants.iter().any(|wants| wants[t]);
        assert!(owners.iter().all(|owner| owner.is_some() == wanted), "all or none of {t}");
    }
    owners
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// As even as any plan, and of those that are as even none loses less.
    #[test]
    fn no_plan_is_better(case in case(4, 3, 2)) {
        let mut group = group(&case);
        let plan = group.plan(Assignor::Sticky);
        let given = owners(&case, &plan);
        let got = judge(&case, |t, number| given[t][number]);
        prop_assert_eq!(got, best(&case));
        group.follow(&plan, 2);
        prop_assert_eq!(group.plan(Assignor::Sticky), plan, "the next plan");
    }
}

#[derive(Clone, Copy)]
enum Had {
    Nothing,
    /// Each its own, and of a tenth those who have them are gone.
    Some,
    OneHasAll,
}

/// A thousand members and ten thousand partitions, 100 topics of 100: how even, and how many move.
#[test]
fn large_groups() {
    for (want, had, expected) in [
        (100, Had::Nothing, Some((100_000, 0))),
        (100, Had::OneHasAll, Some((100_000, 9990))),
        (50, Had::Nothing, Some((100_000, 0))),
        (50, Had::OneHasAll, Some((100_000, 9990))),
        (50, Had::Some, None),
        (5, Had::Some, None),
        (1, Had::Some, None),
    ] {
        let mut rng = StdRng::seed_from_u64(7);
        let (members, topics, partitions) = (1000, 100, 100);
        let wants: Vec<Vec<bool>> = (0..members)
            .map(|at| (0..topics).map(|_| at == 0 || rng.random_range(0..100) < want).collect())
            .collect();
        let mut owner = || match had {
            Had::Nothing => None,
            Had::Some => Some(rng.random_range(0..members + 100)),
            Had::OneHasAll => Some(0),
        };
        let had = (0..topics).map(|_| (0..partitions).map(|_| owner()).collect()).collect();
        let case = Case { wants, had };
        let mut group = group(&case);
        let plan = group.plan(Assignor::Sticky);
        let given = owners(&case, &plan);
        let got = judge(&case, |t, number| given[t][number]);
        assert!(expected.is_none_or(|expected| got == expected), "{want} of 100: {got:?}");
        group.follow(&plan, 2);
        assert!(group.plan(Assignor::Sticky) == plan, "{want} of 100: the next plan");
    }
}
