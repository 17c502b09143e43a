//! `throttle_time_ms`, wherever a broker says it (KIP-219): the response comes at once, and the client
//! keeps silent on that channel for the time it names, whatever the next request is.

use kafka_protocol::messages::{
    ConsumerGroupHeartbeatResponse, CreateTopicsResponse, DescribeGroupsResponse,
    DescribeProducersResponse, FetchResponse, FindCoordinatorResponse, HeartbeatResponse,
    InitProducerIdResponse, JoinGroupResponse, LeaveGroupResponse, ListOffsetsResponse,
    MetadataResponse, OffsetCommitResponse, OffsetFetchResponse, OffsetForLeaderEpochResponse,
    ProduceResponse, SyncGroupResponse,
};

/// A response that may ask for silence.
pub(crate) trait Throttle {
    /// Milliseconds; 0: no.
    fn throttle_time_ms(&self) -> i32;
}

macro_rules! throttle {
    ($($response:ty),* $(,)?) => {
        $(impl Throttle for $response {
            fn throttle_time_ms(&self) -> i32 {
                self.throttle_time_ms
            }
        })*
    };
}

throttle!(
    ConsumerGroupHeartbeatResponse,
    CreateTopicsResponse,
    DescribeGroupsResponse,
    DescribeProducersResponse,
    FetchResponse,
    FindCoordinatorResponse,
    HeartbeatResponse,
    InitProducerIdResponse,
    JoinGroupResponse,
    LeaveGroupResponse,
    ListOffsetsResponse,
    MetadataResponse,
    OffsetCommitResponse,
    OffsetFetchResponse,
    OffsetForLeaderEpochResponse,
    ProduceResponse,
    SyncGroupResponse,
);

/// Requests that are sent on a throttled channel all the same: a member that keeps silent loses its
/// membership, and a commit that waits is a rewind. OffsetCommit, JoinGroup, Heartbeat, LeaveGroup,
/// SyncGroup, ConsumerGroupHeartbeat, ShareGroupHeartbeat.
pub(crate) fn goes_on_throttled(api_key: i16) -> bool {
    matches!(api_key, 8 | 11 | 12 | 13 | 14 | 68 | 76)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_membership_goes_on() {
        for key in 0..100 {
            let kept = [8, 11, 12, 13, 14, 68, 76].contains(&key);
            assert_eq!(goes_on_throttled(key), kept, "{key}");
        }
    }
}
