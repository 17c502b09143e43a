//! FindCoordinator: this broker coordinates no groups, and says so in a way clients retry quietly.

use bytes::Bytes;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};

use super::{ApiKey, Call, Outcome, str_bytes};
use crate::acl::Right;
use crate::error_code as code;

/// What a key is of that is no group's.
const TRANSACTIONS: i8 = 1;

const NOBODY: &str = "this broker coordinates no groups or transactions";

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: FindCoordinatorRequest = call.decode(ApiKey::FIND_COORDINATOR, body)?;
    let error = call.plan.error_before.or(call.plan.error_after);
    let of_key = |key: &str| {
        let transactions = request.key_type == TRANSACTIONS;
        let (right, forbidden) = match transactions {
            true => (Right::DescribeTransactionalId, code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
            false => (Right::DescribeGroup, code::GROUP_AUTHORIZATION_FAILED),
        };
        match error {
            Some(error) => (error, NOBODY),
            None if call.may(right, key) => (code::COORDINATOR_NOT_AVAILABLE, NOBODY),
            None if transactions => (forbidden, "Transactional Id authorization failed."),
            None => (forbidden, "Group authorization failed."),
        }
    };
    let mut response = FindCoordinatorResponse::default();
    if call.version >= 1 {
        response.throttle_time_ms = call.throttle_time_ms();
    }
    if call.version >= 4 {
        response.coordinators = request
            .coordinator_keys
            .iter()
            .map(|key| {
                let (error, words) = of_key(key.as_str());
                Coordinator::default()
                    .with_key(key.clone())
                    .with_node_id(BrokerId(-1))
                    .with_port(-1)
                    .with_error_code(error)
                    .with_error_message(Some(str_bytes(words)))
            })
            .collect();
    } else {
        let (error, words) = of_key(request.key.as_str());
        response = response.with_node_id(BrokerId(-1)).with_port(-1).with_error_code(error);
        if call.version >= 1 {
            response.error_message = Some(str_bytes(words));
        }
    }
    call.answer(&response)
}
