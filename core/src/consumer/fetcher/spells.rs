//! What fails is tried again, with backoff, for as long as the consumer is there; the application gets one
//! error for each spell of it ([`policy::spell`](crate::policy::spell)). Each partition has its own spell.
//! Missing rights have one per topic, and failed requests one per broker: otherwise one broker would be
//! reported once for each of its partitions. Brokers that cannot be reached are reported by
//! [`troubles`](super::troubles), brokers that do not answer by [`silence`](super::silence).

use std::time::Duration;

use tokio::time::Instant;

use super::{Asked, Fetcher};
use crate::consumer::slot::SlotId;
use crate::error::names::LEADER_NOT_AVAILABLE;
use crate::error::{Error, ErrorKind};
use crate::metrics::limited;
use crate::policy::metadata_refresh::RefreshReason;
use crate::policy::spell::Outlook;

/// How sure it is that the error will not go away by itself.
pub(in crate::consumer) fn outlook(error: &Error) -> Outlook {
    match error.kind() {
        ErrorKind::NotKafka
        | ErrorKind::UnsupportedVersion
        | ErrorKind::Authentication
        | ErrorKind::Tls
        | ErrorKind::Credentials => Outlook::Doubtful,
        // A missing topic is reported by `learn`, and may still be created.
        ErrorKind::UnknownTopic => Outlook::Passing,
        _ if error.broker_code().is_some() && error.is_final() => Outlook::Certain,
        _ => Outlook::Passing,
    }
}

impl Fetcher {
    /// A request failed as a whole. All its partitions that are still asked of this broker are tried again at one
    /// time: with a delay for each, the one request would become many.
    pub(super) fn request_failed<'a>(
        &mut self,
        leader: i32,
        asked: impl Iterator<Item = &'a Asked>,
        error: &Error,
        now: Instant,
    ) {
        let mut again = None;
        for part in asked {
            self.pool.metadata().want(&part.key.0, RefreshReason::Lost);
            if !self.leaves_replica(part, leader, now) && self.is_asked_of(leader, part) {
                self.try_again(part.slot, now, &mut again);
            }
        }
        limited!(self.pool.metrics().logs(), "ottla::consumer", DEBUG, broker = leader, error = %error.message(), "fetch");
        let outlook = outlook(error);
        // Brokers that cannot be reached, or do not answer, are reported by `troubles` and `silence`.
        let silent = outlook == Outlook::Passing && error.broker_code().is_none();
        let source = self.sources.entry(leader).or_default();
        if !silent && source.spell.failed(outlook, now) {
            self.buffer.fail(error.context("reading"));
        }
    }

    /// A partition failed in a response that had something else for others. `again`: the retry time that all
    /// failed partitions of one response share; the first one sets it.
    pub(super) fn partition_failed(
        &mut self,
        slot: SlotId,
        error: &Error,
        now: Instant,
        again: &mut Option<Instant>,
    ) {
        self.try_again(slot, now, again);
        let Some(reading) = self.reading.get_mut(slot) else { return };
        let key = reading.key.clone();
        limited!(self.pool.metrics().logs(), "ottla::consumer", DEBUG, topic = %key.0, partition = key.1, error = %error.message(), "fetch");
        let spell = if error.kind() == ErrorKind::Authorization {
            self.topics.get_mut(&key.0).map(|topic| &mut topic.rights)
        } else {
            Some(&mut reading.spell)
        };
        if spell.is_some_and(|spell| spell.failed(outlook(error), now)) {
            limited!(self.pool.metrics().logs(), "ottla::consumer", WARN, topic = %key.0, partition = key.1, error = %error.message(), "reading a partition fails");
            self.buffer.fail(error.clone());
        }
    }

    /// Partitions without a leader now: they are tried again later.
    pub(super) fn without_leader(&mut self, slots: &[SlotId], now: Instant) {
        let mut again = None;
        for slot in slots {
            let Some(reading) = self.reading.get(*slot) else { continue };
            let key = &reading.key;
            self.pool.metadata().want(&key.0, RefreshReason::Stale);
            let what = format!("topic '{}' partition {}", key.0, key.1);
            let error = Error::broker(LEADER_NOT_AVAILABLE, what, None);
            self.partition_failed(*slot, &error, now, &mut again);
            // At least 1 ms later: with no delay the loop would ask again within this turn.
            if let Some(reading) = self.reading.get_mut(*slot) {
                let soon = now + Duration::from_millis(1);
                reading.retry_at = reading.retry_at.map(|at| at.max(soon));
            }
        }
    }

    fn try_again(&mut self, slot: SlotId, now: Instant, again: &mut Option<Instant>) {
        let Some(reading) = self.reading.get_mut(slot) else { return };
        let delay = reading.backoff.next(&mut self.rng);
        reading.retry_at = Some(*again.get_or_insert(now + delay));
    }

    /// A response was good for a partition: its spell ends, so that the next failure is reported again.
    pub(super) fn partition_is_well(&mut self, slot: SlotId) {
        let Some(reading) = self.reading.get_mut(slot) else { return };
        reading.recovered();
        let doubted = std::mem::take(&mut reading.doubted).then_some(reading.incarnation);
        if let Some(topic) = self.topics.get_mut(&reading.key.0) {
            topic.rights.ended();
        }
        if let Some(incarnation) = doubted {
            self.buffer.doubts(slot, incarnation, None);
        }
    }
}
