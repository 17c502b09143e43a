//! How a member comes from what it has to what it is to have, as Kafka's `CurrentAssignmentBuilder`.
//!
//! First it gives up what it is not to have, and stays in its epoch until it says that it has; then it
//! is in the target's epoch, and gets what nobody else has any more; what others still have it waits
//! for.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::assign::Assignment;

/// Where a member is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Stable,
    /// It has not given up what it has to.
    Unrevoked,
    /// Others have not given up what it is to have.
    Unreleased,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Current {
    pub(super) state: State,
    pub(super) epoch: i32,
    pub(super) previous_epoch: i32,
    pub(super) assigned: Assignment,
    pub(super) revoking: Assignment,
}

impl Current {
    pub(super) fn new() -> Self {
        Self {
            state: State::Stable,
            epoch: 0,
            previous_epoch: -1,
            assigned: Assignment::new(),
            revoking: Assignment::new(),
        }
    }

    pub(super) fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == State::Stable && self.epoch == epoch
    }

    fn in_epoch(
        &self,
        epoch: i32,
        state: State,
        assigned: Assignment,
        revoking: Assignment,
    ) -> Self {
        Self { state, epoch, previous_epoch: self.epoch, assigned, revoking }
    }
}

/// The next step. `owned`: what the member says that it has; `None`: that nothing has changed.
/// `is_free`: whether nobody has a partition, or is giving it up.
pub(super) fn next(
    current: &Current,
    (target_epoch, target): (i32, &Assignment),
    owned: Option<&Assignment>,
    is_free: impl Fn(Uuid, i32) -> bool,
) -> Current {
    match current.state {
        State::Stable if current.epoch == target_epoch => current.clone(),
        State::Unrevoked if owns(owned, &current.revoking) => current.clone(),
        State::Unrevoked => {
            step(current, current.epoch + 1, (target_epoch, target), owned, is_free)
        }
        State::Stable | State::Unreleased => {
            step(current, current.epoch, (target_epoch, target), owned, is_free)
        }
    }
}

fn owns(owned: Option<&Assignment>, revoking: &Assignment) -> bool {
    let Some(owned) = owned else { return true };
    owned.iter().any(|(topic, list)| {
        revoking.get(topic).is_some_and(|revoking| !revoking.is_disjoint(list))
    })
}

fn step(
    current: &Current,
    epoch: i32,
    (target_epoch, target): (i32, &Assignment),
    owned: Option<&Assignment>,
    is_free: impl Fn(Uuid, i32) -> bool,
) -> Current {
    let topics: BTreeSet<Uuid> = target.keys().chain(current.assigned.keys()).copied().collect();
    let nothing = BTreeSet::new();
    let mut assigned = Assignment::new();
    let mut revoking = Assignment::new();
    let mut gained = Assignment::new();
    let mut waits = false;
    for topic in topics {
        let wanted = target.get(&topic).unwrap_or(&nothing);
        let had = current.assigned.get(&topic).unwrap_or(&nothing);
        put(&mut assigned, topic, had.intersection(wanted).copied());
        put(&mut revoking, topic, had.difference(wanted).copied());
        let (free, held): (Vec<i32>, Vec<i32>) =
            wanted.difference(had).partition(|partition| is_free(topic, **partition));
        put(&mut gained, topic, free.into_iter());
        waits |= !held.is_empty();
    }
    if !revoking.is_empty() && owns(owned, &revoking) {
        return current.in_epoch(epoch, State::Unrevoked, assigned, revoking);
    }
    for (topic, list) in gained {
        assigned.entry(topic).or_default().extend(list);
    }
    let state = if waits { State::Unreleased } else { State::Stable };
    current.in_epoch(target_epoch, state, assigned, Assignment::new())
}

fn put(assignment: &mut Assignment, topic: Uuid, partitions: impl Iterator<Item = i32>) {
    let list: BTreeSet<i32> = partitions.collect();
    if !list.is_empty() {
        assignment.insert(topic, list);
    }
}

/// Whether all of an assignment is in another one.
pub(super) fn is_within(owned: &Assignment, other: &Assignment) -> bool {
    owned.iter().all(|(topic, list)| {
        other.get(topic).is_some_and(|other| list.is_subset(other)) || list.is_empty()
    })
}

/// An assignment from lists as requests have them: what is named twice is there once.
pub(crate) fn gather(lists: impl Iterator<Item = (Uuid, Vec<i32>)>) -> Assignment {
    let mut gathered: BTreeMap<Uuid, BTreeSet<i32>> = BTreeMap::new();
    for (topic, list) in lists {
        gathered.entry(topic).or_default().extend(list);
    }
    gathered.retain(|_, list| !list.is_empty());
    gathered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(partitions: &[i32]) -> Assignment {
        gather([(Uuid::from_u128(1), partitions.to_vec())].into_iter())
    }

    fn at(state: State, epoch: i32, assigned: &[i32], revoking: &[i32]) -> Current {
        Current {
            state,
            epoch,
            previous_epoch: epoch - 1,
            assigned: of(assigned),
            revoking: of(revoking),
        }
    }

    #[test]
    fn steps_are_those_of_kafka() {
        use State::{Stable, Unreleased, Unrevoked};
        // State, epoch, assigned, revoking; target; owned; free; what comes.
        for (before, target, owned, free, after) in [
            // There already, whatever it says.
            (
                (Stable, 5, &[0, 1][..], &[][..]),
                &[2][..],
                None,
                &[2][..],
                (Stable, 5, &[0, 1][..], &[][..]),
            ),
            // Something to gain, which is free.
            ((Stable, 4, &[0], &[]), &[0, 1], None, &[1], (Stable, 5, &[0, 1], &[])),
            // And which is not.
            ((Stable, 4, &[0], &[]), &[0, 1, 2], None, &[1], (Unreleased, 5, &[0, 1], &[])),
            ((Stable, 4, &[0], &[]), &[0, 1], None, &[], (Unreleased, 5, &[0], &[])),
            // Something to give up: nothing said is not given up.
            ((Stable, 4, &[0, 1], &[]), &[0, 2], None, &[2], (Unrevoked, 4, &[0], &[1])),
            (
                (Stable, 4, &[0, 1], &[]),
                &[0, 2],
                Some(&[0, 1][..]),
                &[2],
                (Unrevoked, 4, &[0], &[1]),
            ),
            // It had not taken it yet.
            ((Stable, 4, &[0, 1], &[]), &[0, 2], Some(&[0]), &[2], (Stable, 5, &[0, 2], &[])),
            ((Unrevoked, 4, &[0], &[1]), &[0, 2], None, &[2], (Unrevoked, 4, &[0], &[1])),
            ((Unrevoked, 4, &[0], &[1]), &[0, 2], Some(&[1]), &[2], (Unrevoked, 4, &[0], &[1])),
            ((Unrevoked, 4, &[0], &[1]), &[0, 2], Some(&[0]), &[2], (Stable, 5, &[0, 2], &[])),
            // The target has moved on meanwhile: another thing to give up.
            (
                (Unrevoked, 3, &[0, 3], &[1]),
                &[0, 2],
                Some(&[0, 3]),
                &[2],
                (Unrevoked, 4, &[0], &[3]),
            ),
            ((Unreleased, 5, &[0], &[]), &[0, 1], None, &[], (Unreleased, 5, &[0], &[])),
            ((Unreleased, 5, &[0], &[]), &[0, 1], None, &[1], (Stable, 5, &[0, 1], &[])),
            // What it gives up to get back is not free as long as it has not.
            ((Unreleased, 4, &[0], &[]), &[1], Some(&[]), &[1], (Stable, 5, &[1], &[])),
        ] {
            let (state, epoch, assigned, revoking) = before;
            let owned = owned.map(of);
            let told = next(
                &at(state, epoch, assigned, revoking),
                (5, &of(target)),
                owned.as_ref(),
                |_, partition| free.contains(&partition),
            );
            let (state, epoch, assigned, revoking) = after;
            let expected = at(state, epoch, assigned, revoking);
            assert_eq!(
                (told.state, told.epoch, &told.assigned, &told.revoking),
                (expected.state, expected.epoch, &expected.assigned, &expected.revoking),
                "{before:?} to {target:?}, owned {owned:?}, free {free:?}"
            );
        }
    }

    #[test]
    fn within_is_by_topic_and_partition() {
        assert!(is_within(&of(&[1]), &of(&[0, 1])));
        assert!(!is_within(&of(&[2]), &of(&[0, 1])));
        assert!(is_within(&of(&[]), &of(&[])));
        assert!(!is_within(&of(&[2]), &of(&[])));
    }
}
