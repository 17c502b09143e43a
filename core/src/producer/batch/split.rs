//! Taking a batch apart that the broker refuses because of one of its records, or because of its size: the
//! culprit fails alone, the others go on in smaller batches. Handles follow their records.
//!
//! Only batches that are definitely unwritten come here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Batch, OpenBatch};
use crate::error::{Error, ErrorKind};
use crate::producer::delivery::{Owner, Producers, RecordLocation, RunTag, Sent, Unread};
use crate::record::builder::HeaderList;
use crate::record::{RecordRef, walk};

/// How a batch is taken apart.
#[derive(Clone, Debug)]
pub(crate) enum SplitPlan {
    /// In two halves, again and again: it is too large, or the broker does not say which record is at fault.
    Halves,
    /// Without the records with these indexes, which the broker named (KIP-467), each with its error.
    Without(Arc<BTreeMap<u32, Error>>),
}

impl SplitPlan {
    fn culprit(&self, index: u32) -> Option<&Error> {
        match self {
            Self::Halves => None,
            Self::Without(bad) => bad.get(&index),
        }
    }
}

/// Takes `batch` apart. Gives the batches that its records are in now, in their order.
pub(in crate::producer) fn split(batch: Batch, plan: &SplitPlan) -> Vec<Batch> {
    let bytes = match batch.sealed.records_section(batch.buffers()) {
        Ok(bytes) => bytes,
        Err(e) => {
            // This process has compressed it a moment ago: its memory or its codec is broken.
            let words = format!("a batch that was compressed here cannot be read: {e:?}");
            batch.resolve(Err(Error::new(ErrorKind::Internal, words)));
            return Vec::new();
        }
    };
    let count = batch.records();
    let half = count.div_ceil(2);
    let runs = batch.take_runs();
    let mut tags = runs.iter().flat_map(|run| run.tags()).peekable();
    let mut places = Vec::with_capacity(count);
    let mut open: Option<OpenBatch> = None;
    let mut pieces = Vec::new();
    for (at, record) in (0..).zip(walk(&bytes, batch.sealed.base_timestamp())) {
        let run = tags.next_if(|(index, _)| *index == at).map(|(_, run)| run);
        if let Some(error) = plan.culprit(at) {
            places.push(failed(
                batch.doubting(error.clone()),
                run,
                batch.topic(),
                batch.producer(at),
            ));
            continue;
        }
        if matches!(plan, SplitPlan::Halves) && at as usize == half {
            pieces.extend(open.take());
        }
        let open = open.get_or_insert_with(|| batch.open_piece());
        places.push(copy(open, &record, run, &batch, batch.producer(at)));
    }
    pieces.extend(open);
    while places.len() < count {
        let words = "a batch that was filled here cannot be read to its end";
        let run = tags.next_if(|(index, _)| *index as usize == places.len()).map(|(_, run)| run);
        let producer = batch.producer(places.len() as u32);
        let error = batch.doubting(Error::new(ErrorKind::Internal, words));
        places.push(failed(error, run, batch.topic(), producer));
    }
    let pieces = pieces.into_iter().filter_map(|piece| batch.seal_piece(piece)).collect();
    batch.moved(places);
    pieces
}

/// Copies a record into an open batch.
fn copy(
    open: &mut OpenBatch,
    record: &RecordRef<'_>,
    run: Option<RunTag<'_>>,
    of: &Batch,
    producer: Option<&Arc<Unread>>,
) -> RecordLocation {
    let headers: Vec<_> = record.headers().collect();
    let (headers, timestamp_ms) = (HeaderList::Raw(&headers), record.timestamp_ms());
    let index = open.builder.len_records() as u32;
    if open.builder.append(record.key(), record.value(), headers, timestamp_ms).is_err() {
        let words = "a record that was in a batch does not fit into a smaller one";
        let error = of.doubting(Error::new(ErrorKind::Internal, words));
        return failed(error, run, of.topic(), producer);
    }
    open.ledger.records += 1;
    open.ledger.producers.add(index, producer);
    let owner = open.owner();
    if let Some(run) = run {
        owner.state().add_to_run(run, index, 1, timestamp_ms);
    }
    RecordLocation { state_ref: owner.state_ref(), record: owner.record(index, Some(timestamp_ms)) }
}

/// The place of a record that is in no batch any more: its handle finds the error there.
pub(in crate::producer) fn failed(
    error: Error,
    run: Option<RunTag<'_>>,
    topic: &Arc<str>,
    producer: Option<&Arc<Unread>>,
) -> RecordLocation {
    let mut owner = Owner::new(0);
    if let Some(run) = run {
        owner.state().add_to_run(run, 0, 1, 0);
    }
    let place = RecordLocation { state_ref: owner.state_ref(), record: owner.record(0, None) };
    let mut producers = Producers::default();
    producers.add(0, producer);
    owner.resolve(&Err(error), &Sent { topic, producers: &producers, records: 1 });
    place
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::mpsc;

    use super::*;
    use crate::config::ProducerConfig;
    use crate::environment::Environment;
    use crate::producer::accumulator::{Accumulator, Shard};
    use crate::producer::delivery::{BatchAck, Delivery, RunResult, RunSink};
    use crate::producer::record::Record;
    use crate::record::pool::ChunkPool;

    /// Index in the submission, and offset and timestamp.
    #[derive(Default)]
    struct Sink(Mutex<Vec<(u32, i64, i64)>>);

    impl RunSink for Sink {
        fn resolved(&self, run: RunResult<'_>) {
            let acked = run.outcome.expect("an ack");
            for (index, offset) in (run.first..).zip(acked.offset..).take(run.count as usize) {
                self.0.lock().unwrap().push((index, offset, acked.timestamp_ms));
            }
        }
    }

    /// A batch of four records that have a time of their own: two with handles, two of a submission.
    fn batch() -> (Batch, Vec<Delivery>, Arc<Sink>) {
        let (tx, _events) = mpsc::unbounded_channel();
        let env = Environment::builder().seed(1).build();
        let config = ProducerConfig::default();
        let accumulator =
            Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
        let accumulator = Arc::new(accumulator);
        let (seen, producer) = (Arc::new(Sink::default()), Unread::new(None));
        let sink: Arc<dyn RunSink> = Arc::clone(&seen) as _;
        let mut deliveries = Vec::new();
        for i in 0..4 {
            let record = Record::to("t").value("v").timestamp_ms(1_000 * i64::from(i));
            if i % 2 == 0 {
                let delivery = accumulator.append(Shard::default(), &record, &producer).unwrap();
                deliveries.push(delivery);
            } else {
                let run = RunTag { sink: &sink, tag: 7, index: i };
                let one = std::iter::once(record);
                let (taken, result) = accumulator.append_submission(Shard::default(), run, one);
                assert!(taken == 1 && result.is_ok());
            }
        }
        let batch_queue = Arc::clone(accumulator.topic("t").unwrap().shard(Shard::default()));
        (batch_queue.take(&accumulator).expect("a batch"), deliveries, seen)
    }

    #[test]
    fn whoever_sent_a_record_hears_of_it_where_it_is_now() {
        let (batch, deliveries, seen) = batch();
        let pieces = split(batch, &SplitPlan::Halves);
        assert_eq!(pieces.iter().map(Batch::records).collect::<Vec<_>>(), [2, 2]);
        for (number, piece) in (1..).zip(pieces) {
            let (partition, base_offset) = (0, 100 * number);
            piece.resolve(Ok(BatchAck { partition, base_offset, append_time: None }));
        }
        let acked = deliveries.iter().map(|delivery| delivery.try_get().unwrap().unwrap());
        let acked: Vec<_> = acked.map(|acked| (acked.offset, acked.timestamp_ms)).collect();
        assert_eq!(acked, [(100, 0), (200, 2_000)]);
        assert_eq!(*seen.0.lock().unwrap(), [(1, 101, 1_000), (3, 201, 3_000)]);
    }

    /// Refused for certain here; it may be written where the batch was before.
    #[test]
    fn a_culprit_is_as_doubtful_as_its_batch() {
        for doubt in [false, true] {
            let (mut batch, deliveries, _seen) = batch();
            if doubt {
                batch.attempts.rerouted();
            }
            let refused = Error::new(ErrorKind::InvalidRecord, "by the broker");
            let plan = SplitPlan::Without(Arc::new([(0, refused)].into()));
            let pieces = split(batch, &plan);
            assert_eq!(pieces.iter().map(Batch::records).collect::<Vec<_>>(), [3]);
            let error = deliveries[0].try_get().expect("it has failed").unwrap_err();
            assert_eq!(error.maybe_written(), doubt, "{error}");
            let (partition, base_offset) = (0, 0);
            for piece in pieces {
                piece.resolve(Ok(BatchAck { partition, base_offset, append_time: None }));
            }
        }
    }
}
