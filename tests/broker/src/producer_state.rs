//! What a partition remembers about each idempotent producer, and what it accepts next.
//!
//! The rules are those of Kafka's `ProducerAppendInfo`: five batches are remembered per producer;
//! a batch equal in epoch, first and last sequence to one of them is a duplicate and is answered
//! with the original offset; anything else out of line is `OUT_OF_ORDER_SEQUENCE_NUMBER`, also a
//! duplicate that is older than the five.

use std::collections::{HashMap, VecDeque};

use crate::batch::{BatchHeader, Refusal, increment_sequence};
use crate::error_code as code;

/// Batches remembered per producer and partition: also the limit of a client's batches in flight.
const REMEMBERED: usize = 5;
/// Producers remembered in one partition. Ids are the clients' choice; Kafka bounds them by time
/// (`producer.id.expiration.ms`), which a test does not run long enough for.
const MAX_PRODUCERS: usize = 100_000;

#[derive(Debug, Clone, Copy)]
struct RememberedBatch {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    last_offset: i64,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    batches: VecDeque<RememberedBatch>,
}

/// A batch's place in its producer's sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// In sequence: append it.
    Append,
    /// Appended before, at these offsets: answer with success, append nothing.
    Duplicate { base_offset: i64, last_offset: i64 },
}

/// Every producer that wrote to one partition.
#[derive(Debug, Default)]
pub(crate) struct ProducerStates {
    producers: HashMap<i64, Producer>,
}

impl ProducerStates {
    /// Judges a batch before it is appended. Batches without a producer id always pass.
    pub(crate) fn judge(&self, batch: &BatchHeader) -> Result<Verdict, Refusal> {
        if batch.producer_id < 0 {
            return Ok(Verdict::Append);
        }
        // A producer without state may start anywhere: its records may have been deleted here.
        let Some(producer) = self.producers.get(&batch.producer_id) else {
            return Ok(Verdict::Append);
        };
        let first = batch.base_sequence;
        if batch.producer_epoch < producer.epoch {
            return Err(Refusal::new(
                code::INVALID_PRODUCER_EPOCH,
                format!(
                    "producer {} wrote with epoch {}, its newest is {}",
                    batch.producer_id, batch.producer_epoch, producer.epoch
                ),
            ));
        }
        if batch.producer_epoch > producer.epoch {
            if first == 0 {
                return Ok(Verdict::Append);
            }
            return Err(Refusal::new(
                code::OUT_OF_ORDER_SEQUENCE_NUMBER,
                format!(
                    "producer {} starts epoch {} at sequence {first}, 0 is expected",
                    batch.producer_id, batch.producer_epoch
                ),
            ));
        }
        let last = increment_sequence(first, batch.last_offset_delta);
        if let Some(known) = producer
            .batches
            .iter()
            .find(|known| known.first_sequence == first && known.last_sequence == last)
        {
            return Ok(Verdict::Duplicate {
                base_offset: known.base_offset,
                last_offset: known.last_offset,
            });
        }
        // Nothing is remembered of a producer that was heard of by a marker alone.
        let newest = producer.batches.back().map(|one| one.last_sequence);
        let expected = newest.map_or(0, |newest| increment_sequence(newest, 1));
        if first != expected {
            return Err(Refusal::new(
                code::OUT_OF_ORDER_SEQUENCE_NUMBER,
                format!(
                    "producer {} sent sequence {first}, {expected} is expected",
                    batch.producer_id
                ),
            ));
        }
        Ok(Verdict::Append)
    }

    /// Takes a marker, which ends a transaction of a producer with this epoch: what it wrote under an
    /// older one is forgotten.
    pub(crate) fn marked(&mut self, producer_id: i64, epoch: i16) -> Result<(), Refusal> {
        let known = self.producers.get(&producer_id).map_or(epoch, |producer| producer.epoch);
        if epoch < known {
            return Err(Refusal::new(
                code::INVALID_PRODUCER_EPOCH,
                format!(
                    "a marker of producer {producer_id} with epoch {epoch}, its newest is {known}"
                ),
            ));
        }
        self.make_room(producer_id);
        self.of(producer_id, epoch);
        Ok(())
    }

    fn make_room(&mut self, producer_id: i64) {
        if self.producers.len() >= MAX_PRODUCERS && !self.producers.contains_key(&producer_id) {
            self.forget();
        }
    }

    fn of(&mut self, producer_id: i64, epoch: i16) -> &mut Producer {
        let producer = self
            .producers
            .entry(producer_id)
            .or_insert_with(|| Producer { epoch, batches: VecDeque::new() });
        if producer.epoch != epoch {
            // An older epoch's sequences say nothing about the new one's.
            producer.epoch = epoch;
            producer.batches.clear();
        }
        producer
    }

    /// Remembers a batch that was appended at `base_offset`.
    pub(crate) fn appended(&mut self, batch: &BatchHeader, base_offset: i64) {
        if batch.producer_id < 0 {
            return;
        }
        self.make_room(batch.producer_id);
        let producer = self.of(batch.producer_id, batch.producer_epoch);
        if producer.batches.len() == REMEMBERED {
            producer.batches.pop_front();
        }
        producer.batches.push_back(RememberedBatch {
            first_sequence: batch.base_sequence,
            last_sequence: increment_sequence(batch.base_sequence, batch.last_offset_delta),
            base_offset,
            last_offset: base_offset + i64::from(batch.last_offset_delta),
        });
    }

    /// What a broker knows again after a clean restart: its snapshot has the last batch of each
    /// producer and no other (`ProducerStateManager.readSnapshot`).
    pub(crate) fn forget_all_but_the_last(&mut self) {
        for producer in self.producers.values_mut() {
            producer.batches.drain(..producer.batches.len().saturating_sub(1));
        }
    }

    /// Id, epoch and last sequence of each producer.
    pub(crate) fn newest(&self) -> impl Iterator<Item = (i64, i16, i32)> {
        self.producers.iter().map(|(id, producer)| {
            let last = producer.batches.back().map_or(-1, |batch| batch.last_sequence);
            (*id, producer.epoch, last)
        })
    }

    /// Forgets every producer, as a broker does after `producer.id.expiration.ms`.
    pub(crate) fn forget(&mut self) {
        self.producers.clear();
    }
}

#[cfg(test)]
mod tests;
