//! Looks at topics beside the cache: all there are, those that are known by their ids only, or with the racks of their
//! replicas. What is seen is the caller's to keep; the cache holds what is produced to and read, and grows by none of it.

use std::collections::HashMap;
use std::sync::Arc;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::Handle;
use super::refresh::VERSIONS;
use crate::error::names::{LEADER_NOT_AVAILABLE, NONE};
use crate::error::{Error, Result};
use crate::metrics::{Api, MetadataReason};
use crate::net::Connection;

/// The first version that tells the names of ids (KIP-516).
const IDS: i16 = 12;

/// Which topics to look at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About<'a> {
    /// Those that this client may describe.
    All,
    Named(&'a [Arc<str>]),
    Ids(&'a [Uuid]),
}

/// A topic, as one broker sees it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: Arc<str>,
    /// Nil if the broker is too old to tell it.
    pub(crate) id: Uuid,
    /// One of Kafka's own (`__consumer_offsets`).
    pub(crate) internal: bool,
    /// Of each partition the racks of its replicas, as far as their brokers tell one.
    pub(crate) racks: Vec<Vec<Arc<str>>>,
}

impl Handle {
    /// What one broker sees, another one than `not` if there is one, and which. Topics that are not there, or not for this client, are
    /// left out.
    ///
    /// # Errors
    /// Those of any call.
    pub(crate) async fn survey(
        &self,
        about: About<'_>,
        not: Option<i32>,
    ) -> Result<(i32, Vec<Seen>)> {
        let named = |name: Option<&Arc<str>>, id: Uuid| {
            let name = name.map(|name| TopicName(StrBytes::from_string(name.to_string())));
            MetadataRequestTopic::default().with_name(name).with_topic_id(id)
        };
        let (topics, versions, why) = match about {
            About::All => (None, VERSIONS, MetadataReason::Periodic),
            About::Named(names) => {
                let topics = names.iter().map(|name| named(Some(name), Uuid::nil())).collect();
                (Some(topics), VERSIONS, MetadataReason::NewTopic)
            }
            About::Ids(ids) => {
                let topics = ids.iter().map(|id| named(None, *id)).collect();
                (Some(topics), (IDS, VERSIONS.1), MetadataReason::NewTopic)
            }
        };
        let request =
            MetadataRequest::default().with_allow_auto_topic_creation(false).with_topics(topics);
        self.metrics().metadata_asked(why);
        let hedged = |_: i32| self.metrics().metadata_asked(MetadataReason::Trouble);
        let check = |id, by: &Connection, response: &MetadataResponse| match response.error_code {
            NONE => self.recognise(id, by, response),
            code => {
                by.metrics().broker().error_response(Api::Metadata);
                Err(Error::broker(code, "Metadata", None))
            }
        };
        let (by, response) =
            self.call_anybody(self.caller(), &request, versions, not, check, hedged).await?;
        Ok((by, seen(&response)))
    }
}

/// One without a leader for now is there all the same.
fn is_there(code: i16) -> bool {
    matches!(code, NONE | LEADER_NOT_AVAILABLE)
}

fn seen(response: &MetadataResponse) -> Vec<Seen> {
    // One text for each rack, however many replicas are there.
    let mut texts: HashMap<&str, Arc<str>> = HashMap::new();
    let mut racks: HashMap<i32, Arc<str>> = HashMap::new();
    for broker in &response.brokers {
        if let Some(rack) = broker.rack.as_deref() {
            let text = texts.entry(rack).or_insert_with(|| Arc::from(rack));
            racks.insert(broker.node_id.0, Arc::clone(text));
        }
    }
    let topic = |topic: &MetadataResponseTopic| {
        let name = topic.name.as_ref().filter(|_| is_there(topic.error_code))?;
        let mut of_partitions = vec![Vec::new(); topic.partitions.len()];
        for p in &topic.partitions {
            // Numbered without gaps: one beyond them is damaged.
            let at = usize::try_from(p.partition_index).ok();
            let Some(of) = at.and_then(|at| of_partitions.get_mut(at)) else { continue };
            of.extend(p.replica_nodes.iter().filter_map(|id| racks.get(&id.0).cloned()));
        }
        Some(Seen {
            name: Arc::from(&*name.0),
            id: topic.topic_id,
            internal: topic.is_internal,
            racks: of_partitions,
        })
    };
    response.topics.iter().filter_map(topic).collect()
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::BrokerId;
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition,
    };

    use super::*;

    #[test]
    fn replicas_have_the_racks_of_their_brokers() {
        let broker = |id: i32, rack: Option<&'static str>| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(id))
                .with_rack(rack.map(StrBytes::from_static_str))
        };
        let partition = |index: i32, replicas: &[i32]| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_replica_nodes(replicas.iter().map(|id| BrokerId(*id)).collect())
        };
        let topic = |name: Option<&'static str>, error: i16, partitions| {
            MetadataResponseTopic::default()
                .with_name(name.map(|name| TopicName(StrBytes::from_static_str(name))))
                .with_error_code(error)
                .with_partitions(partitions)
        };
        let response = MetadataResponse::default()
            .with_brokers(vec![broker(1, Some("a")), broker(2, None), broker(3, Some("b"))])
            .with_topics(vec![
                topic(
                    Some("t"),
                    NONE,
                    vec![partition(1, &[2, 3]), partition(0, &[1, 3, 9]), partition(7, &[1])],
                ),
                topic(Some("gone"), 3, Vec::new()),
                topic(None, NONE, Vec::new()),
            ]);
        let seen = seen(&response);
        assert_eq!(seen.len(), 1);
        let racks: Vec<Vec<&str>> =
            seen[0].racks.iter().map(|of| of.iter().map(|rack| &**rack).collect()).collect();
        assert_eq!((&*seen[0].name, racks), ("t", vec![vec!["a", "b"], vec!["b"], vec![]]));
    }
}
