//! A cluster that a unit test tells of by hand: what brokers would say is said here, and no address
//! leads anywhere.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{Handle, Lookup, Pool};
use crate::config::{ClientConfig, ClusterChange, Endpoint, parse_bootstrap};
use crate::environment::{BoxFuture, Dialer, Environment, EnvironmentBuilder, Transport};

/// Dials that come to nothing.
struct Nowhere;

impl Dialer for Nowhere {
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
    }
}

/// A client on the runtime of the test, and every draw the same.
pub(crate) fn handle(environment: EnvironmentBuilder) -> Handle {
    let environment = environment.runtime(tokio::runtime::Handle::current()).seed(1);
    let environment = environment.wall_clock(Duration::ZERO).dialer(Arc::new(Nowhere)).build();
    let config = ClientConfig {
        bootstrap: parse_bootstrap("nowhere:1").unwrap(),
        client_id: String::new(),
        software: Default::default(),
        connect_timeout: Duration::from_secs(1),
        request_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        rack: None,
        ordinal: None,
        on_cluster_change: ClusterChange::Fail,
        security: Default::default(),
    };
    Handle::get(&environment, &config).expect("it names no files")
}

/// The same with nothing special about its environment.
pub(crate) fn client() -> Handle {
    handle(Environment::builder())
}

impl Pool {
    /// One broker says which brokers there are.
    pub(crate) fn told_of(&self, brokers: impl IntoIterator<Item = i32>) {
        self.told(&response(brokers));
    }

    /// The same, and of topic `t`: its id (0: it is too old to tell one) and who leads its partitions.
    pub(crate) fn told_of_topic(
        &self,
        brokers: impl IntoIterator<Item = i32>,
        id: u128,
        leaders: &[i32],
    ) {
        let partitions = leaders.iter().enumerate().map(|(index, leader)| {
            MetadataResponsePartition::default()
                .with_partition_index(index as i32)
                .with_leader_id(BrokerId(*leader))
        });
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
            .with_topic_id(Uuid::from_u128(id))
            .with_partitions(partitions.collect());
        // What nobody asked for is not kept.
        if let Lookup::Pending = self.metadata().lookup("t") {
            self.metadata().forget_wish("t");
        }
        self.told(&response(brokers).with_topics(vec![topic]));
    }

    /// Whether topic `t` is asked for since this was asked last.
    pub(crate) fn is_asked_for(&self) -> bool {
        self.metadata().forget_wish("t")
    }

    fn told(&self, response: &MetadataResponse) {
        let brokers = |all: &_, named: &_| self.brokers_changed(all, named);
        self.metadata().merge(response, 1, false, brokers);
    }
}

fn response(brokers: impl IntoIterator<Item = i32>) -> MetadataResponse {
    let broker = |id| {
        MetadataResponseBroker::default()
            .with_node_id(BrokerId(id))
            .with_host(StrBytes::from_static_str("nowhere"))
            .with_port(9000 + id)
    };
    MetadataResponse::default().with_brokers(brokers.into_iter().map(broker).collect())
}
