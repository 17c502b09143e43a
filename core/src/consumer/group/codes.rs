//! What the codes of a group's coordinator mean to a member. A code that is about a member id, a generation or an epoch
//! counts only if those that were sent are still ours: else somebody else was refused, and nothing has happened.

use crate::error::names as code;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::consumer) enum Meaning {
    Fine,
    /// This broker is not the coordinator, or nobody is yet. The membership is kept: the next coordinator reads it from
    /// its log.
    Moved,
    /// The coordinator reads its log. Asking it again helps, asking others does not.
    Loading,
    /// The group rebalances, or has moved on without our having heard of it.
    Behind,
    /// The generation is not the group's: the membership is lost, the member id is good.
    Generation,
    /// The member id is not the group's, or not any more.
    Member,
    /// Next: the epoch is not the member's.
    Epoch,
    /// Next: a member with this instance id has not left.
    Unreleased,
    /// Next: there is no such group, or not under this protocol.
    NoGroup,
    /// Classic: join again with the id of the response.
    IdRequired,
    /// Nothing that is tried again helps: the handle ends.
    Final,
    /// Somebody has to do something, and may do it while we live.
    Told,
    /// It may pass.
    Odd,
}

pub(in crate::consumer) fn meaning(of: i16) -> Meaning {
    match of {
        code::NONE => Meaning::Fine,
        code::NOT_COORDINATOR | code::COORDINATOR_NOT_AVAILABLE => Meaning::Moved,
        code::COORDINATOR_LOAD_IN_PROGRESS => Meaning::Loading,
        code::REBALANCE_IN_PROGRESS | code::STALE_MEMBER_EPOCH => Meaning::Behind,
        code::ILLEGAL_GENERATION => Meaning::Generation,
        code::UNKNOWN_MEMBER_ID => Meaning::Member,
        code::FENCED_MEMBER_EPOCH => Meaning::Epoch,
        code::UNRELEASED_INSTANCE_ID => Meaning::Unreleased,
        code::GROUP_ID_NOT_FOUND => Meaning::NoGroup,
        code::MEMBER_ID_REQUIRED => Meaning::IdRequired,
        code::FENCED_INSTANCE_ID
        | code::INCONSISTENT_GROUP_PROTOCOL
        | code::UNSUPPORTED_ASSIGNOR
        | code::UNSUPPORTED_VERSION
        | code::INVALID_GROUP_ID
        | code::INVALID_SESSION_TIMEOUT
        | code::INVALID_REGULAR_EXPRESSION
        | code::INVALID_REQUEST => Meaning::Final,
        code::GROUP_MAX_SIZE_REACHED
        | code::GROUP_AUTHORIZATION_FAILED
        | code::TOPIC_AUTHORIZATION_FAILED => Meaning::Told,
        _ => Meaning::Odd,
    }
}
