//! InitProducerId: producer ids and epochs (KIP-360).

use bytes::Bytes;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::{ApiKey, Call, Outcome};
use crate::acl::Right;
use crate::batch::Refusal;
use crate::error_code as code;
use crate::state::{MAX_TRANSACTIONAL_IDS, State};

/// Epochs above this are kept for fencing, as Kafka keeps them.
const LAST_EPOCH: i16 = i16::MAX - 1;

pub(crate) fn handle(call: &mut Call<'_>, body: Bytes) -> Result<Outcome, String> {
    let request: InitProducerIdRequest = call.decode(ApiKey::INIT_PRODUCER_ID, body)?;
    let refusal = call.plan.error_before.map(|error| Refusal::new(error, "by fault script"));
    let result = match refusal.or_else(|| forbidden(call, &request)) {
        Some(refusal) => Err(refusal),
        None => {
            let mut state = call.shared.state();
            match &request.transactional_id {
                // Without a transactional id nothing ties the old id to its owner, so Kafka hands
                // out a fresh one whatever the request says: idempotent producers bump their
                // epoch on their own.
                None => Ok((state.new_producer_id(), 0)),
                Some(id) => transactional(
                    &mut state,
                    id.as_str(),
                    request.producer_id.0,
                    request.producer_epoch,
                    call.version,
                ),
            }
        }
    };
    let result = match call.plan.error_after {
        Some(error) => Err(Refusal::new(error, "by fault script")),
        None => result,
    };
    let response = InitProducerIdResponse::default().with_throttle_time_ms(call.throttle_time_ms());
    let response = match result {
        Ok((id, epoch)) => response.with_producer_id(ProducerId(id)).with_producer_epoch(epoch),
        Err(refusal) => response
            .with_error_code(refusal.code)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    };
    call.answer(&response)
}

/// Who writes to no topic at all has no use for a producer id (KIP-679).
fn forbidden(call: &Call<'_>, request: &InitProducerIdRequest) -> Option<Refusal> {
    match &request.transactional_id {
        Some(id) if !call.may(Right::TransactionalId, id.as_str()) => Some(Refusal::new(
            code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            "Transactional Id authorization failed.",
        )),
        None if !call.may(Right::IdempotentWrite, "") && !call.may_somewhere(Right::Write) => {
            Some(Refusal::new(code::CLUSTER_AUTHORIZATION_FAILED, "Cluster authorization failed."))
        }
        _ => None,
    }
}

/// A transactional id keeps its producer id; each start bumps the epoch and fences whoever had the
/// one before. A producer that recovers names what it has, and is fenced itself if that is old.
fn transactional(
    state: &mut State,
    transactional_id: &str,
    producer_id: i64,
    producer_epoch: i16,
    version: i16,
) -> Result<(i64, i16), Refusal> {
    let known = state.transactional.get(transactional_id).copied();
    if known.is_none() && state.transactional.len() >= MAX_TRANSACTIONAL_IDS {
        return Err(Refusal::new(code::UNKNOWN_SERVER_ERROR, "too many transactional ids"));
    }
    let fenced = if version >= 4 { code::PRODUCER_FENCED } else { code::INVALID_PRODUCER_EPOCH };
    let next = match known {
        None => (state.new_producer_id(), 0),
        Some(current) if producer_id >= 0 && (producer_id, producer_epoch) != current => {
            return Err(Refusal::new(
                fenced,
                format!("producer {producer_id} epoch {producer_epoch}, current is {current:?}"),
            ));
        }
        Some((_, LAST_EPOCH..)) => (state.new_producer_id(), 0),
        Some((id, epoch)) => (id, epoch + 1),
    };
    state.transactional.insert(transactional_id.to_owned(), next);
    Ok(next)
}
