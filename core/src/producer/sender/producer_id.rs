//! The gate before a batch gets its sequence: the only place that decides under which producer id and epoch
//! a batch is written. Idempotent batches wait here for the producer id, which one call gets for all
//! producers of the sender. Batches that are not idempotent have no producer id and do not wait.

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};
use rand::Rng;
use std::sync::Arc;
use tokio::time::Instant;

use crate::cluster::Pool;
use crate::config::{Acks, Caller};
use crate::error::names::NONE;
use crate::error::{Error, ErrorKind, NOT_THE_PROTOCOL, Result};
use crate::metrics::Api;
use crate::net::Connection;
use crate::policy::backoff::Backoff;
use crate::protocol;
use crate::protocol::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE};

/// Versions of InitProducerId.
const INIT_VERSIONS: (i16, i16) = protocol::bounded::<InitProducerIdRequest>(0, 5);

/// The producer id, epoch and sequence that a batch is written under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerStamp {
    pub(super) producer_id: i64,
    pub(in crate::producer) epoch: i16,
    pub(super) sequence: i32,
}

impl ProducerStamp {
    /// The stamp of a batch that is not idempotent: sent twice, it is written twice.
    const NONE: Self =
        Self { producer_id: NO_PRODUCER_ID, epoch: NO_PRODUCER_EPOCH, sequence: NO_SEQUENCE };
}

/// The producer id of one sender: whether it is known, and under which epoch partitions begin.
#[derive(Debug)]
pub(super) struct ProducerIdState {
    acks: Acks,
    request: IdRequest,
    /// The epoch under which partitions begin.
    epoch: i16,
    backoff: Backoff,
}

#[derive(Debug)]
enum IdRequest {
    Unknown,
    Asked,
    Known(i64),
    /// The call failed; the id is asked for again at this time.
    Failed(Instant),
}

/// Whether batches may get sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// A producer id is to be asked for.
    Ask,
    /// Not before this time, or (`None`) not before the producer id has come.
    Wait(Option<Instant>),
}

impl ProducerIdState {
    pub(in crate::producer) fn new(acks: Acks) -> Self {
        Self { acks, request: IdRequest::Unknown, epoch: 0, backoff: Backoff::default() }
    }

    /// Asked before each round: while batches cannot pass, they stay open and take more records.
    pub(super) fn readiness(&mut self, now: Instant) -> Readiness {
        match self.request {
            _ if self.acks != Acks::All => Readiness::Ready,
            IdRequest::Known(_) => Readiness::Ready,
            IdRequest::Asked => Readiness::Wait(None),
            IdRequest::Failed(at) if at > now => Readiness::Wait(Some(at)),
            IdRequest::Unknown | IdRequest::Failed(_) => {
                self.request = IdRequest::Asked;
                Readiness::Ask
            }
        }
    }

    /// The producer id and epoch under which a partition begins; -1: no id is needed.
    pub(in crate::producer) fn begins(&self) -> (i64, i16) {
        match self.request {
            IdRequest::Known(id) => (id, self.epoch),
            _ => (NO_PRODUCER_ID, 0),
        }
    }

    /// The sequences of a partition under this producer id and epoch were forgotten here, but not by the broker:
    /// from now on all partitions begin under a later epoch.
    pub(in crate::producer) fn forgotten(&mut self, (producer_id, epoch): (i64, i16)) {
        if !matches!(self.request, IdRequest::Known(id) if id == producer_id) {
            return;
        }
        match epoch.checked_add(1) {
            Some(next) => self.epoch = self.epoch.max(next),
            None => self.used_up(producer_id),
        }
    }

    /// The stamp as it is written into a batch's header: none if the batch is not idempotent.
    pub(super) fn stamp(&self, stamp: ProducerStamp) -> ProducerStamp {
        if self.acks == Acks::All { stamp } else { ProducerStamp::NONE }
    }

    /// The call for a producer id has ended with this.
    pub(in crate::producer) fn told(&mut self, id: &Result<i64>, now: Instant, rng: &mut impl Rng) {
        match id {
            Ok(id) => {
                self.request = IdRequest::Known(*id);
                self.epoch = 0;
                self.backoff.reset();
            }
            Err(_) => self.request = IdRequest::Failed(now + self.backoff.next(rng)),
        }
    }

    /// A partition has used the last epoch of this producer id: partitions that begin anew need another id.
    pub(in crate::producer) fn used_up(&mut self, producer_id: i64) {
        if matches!(self.request, IdRequest::Known(id) if id == producer_id) {
            self.request = IdRequest::Unknown;
        }
    }
}

pub(super) async fn init_producer_id(pool: &Arc<Pool>, caller: &Arc<Caller>) -> Result<i64> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(i32::MAX)
        .with_producer_id(ProducerId(NO_PRODUCER_ID))
        .with_producer_epoch(NO_PRODUCER_EPOCH);
    let check = |_, by: &Connection, response: &InitProducerIdResponse| match response.error_code {
        NONE if response.producer_id.0 >= 0 => Ok(()),
        // Without a producer id a batch that is sent twice would be written twice.
        NONE => Err(Error::new(ErrorKind::NotKafka, "the answer to InitProducerId carries no id")
            .advise(NOT_THE_PROTOCOL)),
        code => {
            by.metrics().broker().error_response(Api::InitProducerId);
            Err(Error::broker(code, "InitProducerId", None))
        }
    };
    // Asking twice costs an id, of which there are enough.
    let asked = pool.call_anybody(caller, &request, INIT_VERSIONS, None, check, |_| {});
    let (_, response) = asked.await?;
    Ok(response.producer_id.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn one_call_for_all_and_another_when_the_epochs_are_used_up() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut id_state = ProducerIdState::new(Acks::All);
        assert_eq!(id_state.readiness(now), Readiness::Ask);
        assert_eq!(id_state.readiness(now), Readiness::Wait(None), "it is asked already");
        id_state.told(&Ok(7), now, &mut rng);
        assert_eq!((id_state.readiness(now), id_state.begins()), (Readiness::Ready, (7, 0)));
        id_state.used_up(6);
        assert_eq!(id_state.readiness(now), Readiness::Ready, "an id that was replaced already");
        id_state.used_up(7);
        assert_eq!(id_state.readiness(now), Readiness::Ask);
    }

    #[test]
    fn what_is_forgotten_begins_under_a_later_epoch() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut id_state = ProducerIdState::new(Acks::All);
        id_state.told(&Ok(7), now, &mut rng);
        id_state.forgotten((7, 3));
        id_state.forgotten((7, 0));
        id_state.forgotten((6, 9));
        assert_eq!(id_state.begins(), (7, 4));
        id_state.forgotten((7, i16::MAX));
        assert_eq!(id_state.readiness(now), Readiness::Ask, "there is no later one");
        id_state.told(&Ok(8), now, &mut rng);
        assert_eq!(id_state.begins(), (8, 0));
    }

    #[test]
    fn a_refusal_is_tried_again_later() {
        let (now, mut rng) = (Instant::now(), StdRng::seed_from_u64(1));
        let mut id_state = ProducerIdState::new(Acks::All);
        assert_eq!(id_state.readiness(now), Readiness::Ask);
        id_state.told(&Err(Error::closed("x")), now, &mut rng);
        let Readiness::Wait(Some(at)) = id_state.readiness(now) else {
            panic!("no second call at once")
        };
        assert!(at > now && id_state.readiness(at) == Readiness::Ask);
    }

    #[test]
    fn what_is_not_idempotent_needs_no_name() {
        for acks in [Acks::Leader, Acks::None] {
            let mut id_state = ProducerIdState::new(acks);
            assert_eq!(id_state.readiness(Instant::now()), Readiness::Ready);
            let stamp = ProducerStamp { producer_id: -1, epoch: 0, sequence: 12 };
            assert_eq!(id_state.stamp(stamp), ProducerStamp::NONE);
        }
    }
}
