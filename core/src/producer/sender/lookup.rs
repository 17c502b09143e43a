//! Asks leaders for the last sequence that they know of our producer id (DescribeProducers), for batches in
//! doubt whose sequence was refused: one call for all partitions of a broker. What the response proves is
//! decided in [`partition`](super::partition).

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::{DescribeProducersRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::Sender;
use crate::cluster::{Lane, Pool};
use crate::config::Caller;
use crate::error::names::NONE;
use crate::error::{Error, ErrorKind, Result, describe};
use crate::metrics::{Api, limited};
use crate::net::CallError;
use crate::policy::metadata_refresh::RefreshReason;
use crate::producer::accumulator::{LastKnown, Told};
use crate::producer::delivery::BatchAck;
use crate::protocol;
use crate::protocol::NO_OFFSET;

const VERSIONS: (i16, i16) = protocol::bounded::<DescribeProducersRequest>(0, 0);

/// A partition, and the producer id that is asked about.
pub(super) type Wanted = (Arc<str>, i32, i64);

impl Sender {
    /// Sends one DescribeProducers call to each leader, for all partitions that are to be looked up there.
    pub(in crate::producer) fn look_up(&mut self, wanted: BTreeMap<i32, Vec<Wanted>>) {
        for (leader, parts) in wanted {
            for (topic, partition, _) in &parts {
                let topic = self.topics.get_mut(topic);
                if let Some(state) = topic.and_then(|t| t.partitions.get_mut(*partition as usize)) {
                    state.lookup_begun();
                }
            }
            self.tasks.look_up(leader, parts, self.incarnation, self.ids.first());
        }
    }

    /// Acts on what a leader told of one partition.
    pub(super) fn looked_up(&mut self, told: Told) {
        let Told { leader, topic: name, partition, of, asked_by, last } = told;
        // Ignored: another cluster was asked, or the sender that asked has panicked and had another
        // producer id.
        if of != self.incarnation || asked_by != self.ids.first() {
            return;
        }
        let now = self.env.now();
        let Self { topics, rng, metadata, .. } = self;
        let Some(topic) = topics.get_mut(&name) else { return };
        let Some(state) = topic.partitions.get_mut(partition as usize) else { return };
        let last = match last {
            // A client without the right to read the topic gets no answer, and brokers before 2.8 do not
            // know the request.
            Err(e)
                if !matches!(
                    e.kind(),
                    ErrorKind::Authorization | ErrorKind::UnsupportedVersion
                ) =>
            {
                if e.broker_code().is_some_and(|code| describe(code).refresh_metadata) {
                    metadata.want(&name, RefreshReason::Stale);
                }
                state.lookup_failed();
                state.delay_lookup(now, rng);
                topic.trouble = Some(e);
                return;
            }
            Err(e) => {
                limited!(self.metrics.logs(), "ottla::producer", WARN, topic = %name, partition, error = %e.message(),
                    "the leader does not tell what it knows of this producer");
                None
            }
            Ok(last) => last,
        };
        let out = state.looked_up(last);
        for batch in out.acknowledged {
            batch.acknowledged(
                leader,
                BatchAck { partition, base_offset: NO_OFFSET, append_time: None },
            );
        }
        for batch in out.unknown {
            let words = format!(
                "topic '{name}' partition {partition}: an attempt to write it was not answered, and the \
                 broker does not know its place in the sequence any more"
            );
            let error = Error::new(ErrorKind::Broker, words)
                .advise("read whether the records are there before they are sent again");
            batch.resolve(Err(error.with_maybe_written(true)));
        }
        self.settle(&name, partition);
    }
}

/// Asks one leader. Gives a result for each of `parts`, in their order.
pub(super) async fn describe_producers(
    pool: &Arc<Pool>,
    caller: &Arc<Caller>,
    leader: i32,
    parts: &[Wanted],
) -> Vec<Result<Option<LastKnown>>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition, _) in parts {
        topics.entry(topic).or_default().push(*partition);
    }
    let request = DescribeProducersRequest::default().with_topics(
        topics
            .into_iter()
            .map(|(topic, partitions)| {
                TopicRequest::default()
                    .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
                    .with_partition_indexes(partitions)
            })
            .collect(),
    );
    let asked = async {
        let connection = pool.lane_for_call(leader, Lane::Produce).await?;
        let connection = connection.on_behalf_of(caller);
        connection.call(&request, VERSIONS, false).await.map_err(CallError::into_error)
    };
    let response = match asked.await {
        Ok(response) => response,
        Err(e) => return parts.iter().map(|_| Err(e.clone())).collect(),
    };
    let found = |(topic, partition, id): &Wanted| {
        let what = format_args!("topic '{topic}' partition {partition}");
        let of_topic = response.topics.iter().filter(|t| *t.name.0 == **topic);
        let part = of_topic.flat_map(|t| &t.partitions).find(|p| p.partition_index == *partition);
        let Some(part) = part else {
            return Err(Error::broker(
                -1,
                format_args!("{what}: the response leaves it out"),
                None,
            ));
        };
        if part.error_code != NONE {
            pool.metrics().broker(leader).error_response(Api::DescribeProducers);
            return Err(Error::broker(part.error_code, what, part.error_message.as_deref()));
        }
        let ours = part.active_producers.iter().find(|p| p.producer_id.0 == *id);
        Ok(ours.map(|p| LastKnown { epoch: p.producer_epoch, sequence: p.last_sequence }))
    };
    parts.iter().map(found).collect()
}
