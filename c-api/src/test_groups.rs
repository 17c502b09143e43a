//! Groups of the embedded broker.

use std::ffi::c_char;

use ottla::Result;

use crate::boundary::{Out, boundary, lent, text};
use crate::error::ottla_error;
use crate::status::ottla_status;
use crate::test_broker::ottla_test_broker;

/// Where a group of a cluster for tests is.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ottla_test_group_state {
    /// Nobody has joined or committed.
    OTTLA_TEST_GROUP_NONE = 0,
    /// It has no members.
    OTTLA_TEST_GROUP_EMPTY = 1,
    /// Its members are changing.
    OTTLA_TEST_GROUP_REBALANCING = 2,
    /// All have what they are to have.
    OTTLA_TEST_GROUP_STABLE = 3,
}

#[cfg(feature = "test-broker")]
mod imp {
    use ottla::Result;
    use ottla::bindings::argument_error;
    use ottla_test_broker::{Cluster, GroupState};

    use super::ottla_test_group_state;

    pub(super) fn group(cluster: &Cluster, id: &str) -> (ottla_test_group_state, usize) {
        use ottla_test_group_state::*;
        match cluster.group(id) {
            None => (OTTLA_TEST_GROUP_NONE, 0),
            Some(group) => {
                let state = match group.state {
                    GroupState::Empty => OTTLA_TEST_GROUP_EMPTY,
                    GroupState::Stable => OTTLA_TEST_GROUP_STABLE,
                    _ => OTTLA_TEST_GROUP_REBALANCING,
                };
                (state, group.members.len())
            }
        }
    }

    pub(super) fn committed(
        cluster: &Cluster,
        group: &str,
        topic: &str,
        partition: i32,
    ) -> Option<i64> {
        cluster.group(group)?.committed(topic, partition).map(|at| at.offset)
    }

    pub(super) fn set_committed(
        cluster: &Cluster,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<()> {
        let set = cluster.set_committed(group, topic, partition, offset);
        set.map_err(|e| argument_error(e.to_string()))
    }
}

#[cfg(not(feature = "test-broker"))]
mod imp {
    use ottla::Result;

    use super::ottla_test_group_state;
    use crate::test_broker::Cluster;

    pub(super) fn group(cluster: &Cluster, _: &str) -> (ottla_test_group_state, usize) {
        match *cluster {}
    }

    pub(super) fn committed(cluster: &Cluster, _: &str, _: &str, _: i32) -> Option<i64> {
        match *cluster {}
    }

    pub(super) fn set_committed(cluster: &Cluster, _: &str, _: &str, _: i32, _: i64) -> Result<()> {
        match *cluster {}
    }
}

/// Writes where a group is to `*state`, one of `ottla_test_group_state`, and how many members it has to `*members`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_group(
    broker: *const ottla_test_broker,
    group: *const c_char,
    state: *mut i32,
    members: *mut usize,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || -> Result<()> {
        // SAFETY: promised by the caller.
        let (broker, group) = unsafe { (lent(broker, "broker")?, text(group, "group")?) };
        // SAFETY: promised by the caller.
        let (to_state, to_members) =
            unsafe { (Out::new(state, "state")?, Out::new(members, "members")?) };
        let (state, members) = imp::group(&broker.cluster, group);
        to_state.set(state as i32);
        to_members.set(members);
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Writes the offset that a group has committed for a partition to `*offset`; -1: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_committed(
    broker: *const ottla_test_broker,
    group: *const c_char,
    topic: *const c_char,
    partition: i32,
    offset: *mut i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || -> Result<()> {
        // SAFETY: promised by the caller.
        let (broker, group, topic, out) = unsafe {
            (
                lent(broker, "broker")?,
                text(group, "group")?,
                text(topic, "topic")?,
                Out::new(offset, "offset")?,
            )
        };
        out.set(imp::committed(&broker.cluster, group, topic, partition).unwrap_or(-1));
        Ok(())
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}

/// Commits an offset, whoever is in the group; makes the group if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ottla_test_broker_set_committed(
    broker: *const ottla_test_broker,
    group: *const c_char,
    topic: *const c_char,
    partition: i32,
    offset: i64,
    error: *mut *mut ottla_error,
) -> ottla_status {
    let call = || -> Result<()> {
        // SAFETY: promised by the caller.
        let (broker, group, topic) =
            unsafe { (lent(broker, "broker")?, text(group, "group")?, text(topic, "topic")?) };
        imp::set_committed(&broker.cluster, group, topic, partition, offset)
    };
    // SAFETY: promised by the caller.
    unsafe { boundary(error, call) }
}
