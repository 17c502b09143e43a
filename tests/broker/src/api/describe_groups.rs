//! DescribeGroups: classic groups and their members.

use bytes::Bytes;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};
use tokio::time::Instant;

use super::groups::Injected;
use super::{ApiKey, Call, Outcome, str_bytes};
use crate::acl::Right;
use crate::error_code as code;
use crate::groups::classic::{Classic, Phase};
use crate::groups::{GroupState, Kind};

/// First version that says what the client may do.
const RIGHTS: i16 = 3;
/// First version whose groups that are not there are an error (KIP-1043).
const NOT_FOUND: i16 = 6;
/// The state of a group that is not there.
const DEAD: &str = "Dead";

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: DescribeGroupsRequest = call.decode(ApiKey::DESCRIBE_GROUPS, body)?;
    let ids = request.groups.iter().map(|id| id.as_str());
    let injected = match call.of_groups(ApiKey::DESCRIBE_GROUPS, ids).await {
        Ok(injected) => injected,
        Err(outcome) => return Ok(outcome),
    };
    let tells_rights = call.version >= RIGHTS && request.include_authorized_operations;
    let groups = request.groups.into_iter().zip(injected).map(|(id, injected)| {
        let mut told = match describe(call, id.as_str(), injected) {
            Ok(told) => told,
            Err(error) => DescribedGroup::default().with_error_code(error),
        };
        if tells_rights && told.error_code == code::NONE {
            told.authorized_operations = call.rights_to_group(id.as_str());
        }
        told.with_group_id(id)
    });
    let response = DescribeGroupsResponse::default()
        .with_throttle_time_ms(call.throttle_time_ms())
        .with_groups(groups.collect());
    call.answer(&response)
}

fn describe(call: &Call<'_>, id: &str, injected: Injected) -> Result<DescribedGroup, i16> {
    if let Some(error) = call.forbidden(injected, Right::DescribeGroup, id).or(injected.after) {
        return Err(error);
    }
    let now = Instant::now();
    let groups = &mut call.shared.state().groups;
    groups.check(call.broker.id, id, now)?;
    match groups.get(id, now).map(|group| &group.kind) {
        Some(Kind::Classic(classic)) => Ok(described(classic)),
        Some(Kind::Consumer(_)) | None => {
            let dead = DescribedGroup::default().with_group_state(str_bytes(DEAD));
            if call.version < NOT_FOUND {
                return Ok(dead);
            }
            let words = format!("Group {id} not found.");
            Ok(dead
                .with_error_code(code::GROUP_ID_NOT_FOUND)
                .with_error_message(Some(str_bytes(&words))))
        }
    }
}

fn described(classic: &Classic) -> DescribedGroup {
    // What members have said is told once it is settled.
    let protocol = classic.protocol().filter(|_| classic.phase() == Phase::Stable);
    let members = classic.members().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(str_bytes(&member.id))
            .with_group_instance_id(member.instance.as_deref().map(str_bytes))
            .with_client_id(str_bytes(&member.client_id))
            .with_client_host(str_bytes(&member.client_host))
            .with_member_metadata(protocol.map(|name| member.metadata(name)).unwrap_or_default())
            .with_member_assignment(member.assignment.clone())
    });
    DescribedGroup::default()
        .with_group_state(str_bytes(GroupState::from(classic.phase()).name()))
        .with_protocol_type(str_bytes(classic.protocol_type().unwrap_or_default()))
        .with_protocol_data(str_bytes(protocol.unwrap_or_default()))
        .with_members(members.collect())
}
