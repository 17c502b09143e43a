//! FindCoordinator: which broker coordinates a group or a transactional id.
//!
//! Transactions go no further than that: a coordinator is named, gives producer ids, and offers
//! nothing else, so that clients learn at once that there are none.

use bytes::Bytes;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};

use super::groups::Injected;
use super::{ApiKey, Call, Outcome, str_bytes};
use crate::acl::Right;
use crate::error_code as code;

/// What a key is of.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

/// First version that asks for many keys.
const BATCHED: i16 = 4;

/// A broker and where it is.
type Node = (i32, String, u16);

pub(crate) async fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: FindCoordinatorRequest = call.decode(ApiKey::FIND_COORDINATOR, body)?;
    let kind = request.key_type;
    let keys = match call.version {
        ..BATCHED => vec![request.key],
        _ => request.coordinator_keys,
    };
    let groups = keys.iter().map(|key| if kind == GROUP { key.as_str() } else { "" });
    let injected = match call.of_groups(ApiKey::FIND_COORDINATOR, groups).await {
        Ok(injected) => injected,
        Err(outcome) => return Ok(outcome),
    };
    let found = keys.iter().zip(injected).map(|(key, injected)| find(call, kind, key, injected));
    let mut response = FindCoordinatorResponse::default();
    if call.version >= 1 {
        response.throttle_time_ms = call.throttle_time_ms();
    }
    if call.version >= BATCHED {
        let coordinators = found.zip(&keys).map(|(found, key)| {
            let (error_code, words, (id, host, port)) = told(found);
            Coordinator::default()
                .with_key(key.clone())
                .with_node_id(BrokerId(id))
                .with_host(str_bytes(&host))
                .with_port(port)
                .with_error_code(error_code)
                .with_error_message(Some(str_bytes(if error_code == 0 { "" } else { words })))
        });
        return call.answer(&response.with_coordinators(coordinators.collect()));
    }
    let mut found = found;
    let (error_code, words, (id, host, port)) = told(found.next().unwrap_or(Err((-1, ""))));
    response = response
        .with_node_id(BrokerId(id))
        .with_host(str_bytes(&host))
        .with_port(port)
        .with_error_code(error_code);
    if call.version >= 1 {
        response.error_message = Some(str_bytes(words));
    }
    call.answer(&response)
}

fn told(found: Result<Node, (i16, &str)>) -> (i16, &str, (i32, String, i32)) {
    match found {
        Ok((id, host, port)) => (code::NONE, "NONE", (id, host, i32::from(port))),
        Err((error, words)) => (error, words, (-1, String::new(), -1)),
    }
}

fn find(
    call: &Call<'_>,
    kind: i8,
    key: &str,
    injected: Injected,
) -> Result<Node, (i16, &'static str)> {
    let transactions = kind == TRANSACTION;
    if let Some(error) = injected.before {
        return Err((error, "by fault script"));
    }
    match kind {
        GROUP if !call.may(Right::DescribeGroup, key) => {
            return Err((code::GROUP_AUTHORIZATION_FAILED, "Group authorization failed."));
        }
        TRANSACTION if !call.may(Right::DescribeTransactionalId, key) => {
            let error = code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
            return Err((error, "Transactional Id authorization failed."));
        }
        GROUP | TRANSACTION => {}
        _ => return Err((code::INVALID_REQUEST, "only groups and transactions are coordinated")),
    }
    if let Some(error) = injected.after {
        return Err((error, "by fault script"));
    }
    let nobody = (code::COORDINATOR_NOT_AVAILABLE, "The coordinator is not available.");
    let coordinator = {
        let state = call.shared.state();
        let coordinator = match transactions {
            true => state.groups.coordinator_of_transactions(key, |id| !state.is_fenced(id)),
            false => state.groups.coordinator(key),
        };
        coordinator.ok_or(nobody)?
    };
    // A broker that was cut off names whom it knows.
    let known = call.broker.stale().as_ref().is_none_or(|stale| {
        stale.brokers.iter().any(|broker| broker.node_id == BrokerId(coordinator))
    });
    let broker = call.shared.broker(coordinator).filter(|_| known).ok_or(nobody)?;
    let (host, port) = broker.named_at();
    Ok((coordinator, host, port))
}
