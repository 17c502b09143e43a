//! Which of the two protocols a consumer speaks that was not told: decided once, at its first join.
//!
//! The next generation is better at all that it does, and one member is enough to convert a live classic group for all of
//! its members (`group.consumer.migration.policy` is bidirectional by default), with another assignor and nobody asked.
//! So who comes to a live classic group stays with it, and an empty or new group is begun in the next generation.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Classic,
    Next,
}

/// What DescribeGroups says of the group. Groups of the next generation are none to it: GROUP_ID_NOT_FOUND, or before
/// version 6 a state of `Dead`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Described<'a> {
    pub(crate) state: &'a str,
    /// `consumer` of groups that consumers are in.
    pub(crate) protocol_type: &'a str,
}

/// The lowest finalised `group.version` with the protocol. (3.9 has it, but as a preview only.)
const GROUP_VERSION: i16 = 1;

/// `group_version`: the finalised feature, if the cluster has it. `classic_only`: something is set that only the classic
/// protocol has, as an assignor of the client's. `group`: `None` if there is none.
pub(crate) fn choose(
    group_version: Option<i16>,
    classic_only: bool,
    group: Option<Described<'_>>,
) -> Protocol {
    let is_live = group.is_some_and(|group| {
        !matches!(group.state, "Dead" | "Empty" | "") && group.protocol_type == "consumer"
    });
    if group_version.is_some_and(|version| version >= GROUP_VERSION) && !classic_only && !is_live {
        Protocol::Next
    } else {
        Protocol::Classic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_classic_group_stays_one() {
        let of = |state| Some(Described { state, protocol_type: "consumer" });
        for (version, classic_only, group, chosen) in [
            (Some(1), false, None, Protocol::Next),
            (Some(2), false, of("Dead"), Protocol::Next),
            (Some(1), false, of("Empty"), Protocol::Next),
            (Some(1), false, of("Stable"), Protocol::Classic),
            (Some(1), false, of("PreparingRebalance"), Protocol::Classic),
            (Some(1), false, of("CompletingRebalance"), Protocol::Classic),
            (Some(1), true, None, Protocol::Classic),
            (Some(0), false, None, Protocol::Classic),
            (None, false, None, Protocol::Classic),
        ] {
            assert_eq!(choose(version, classic_only, group), chosen, "{version:?} {group:?}");
        }
    }
}
