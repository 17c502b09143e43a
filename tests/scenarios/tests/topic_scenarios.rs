//! Topics that change under a producer: deleted, made anew with fewer partitions or more, led by
//! brokers that nobody knows. In virtual time.

use ottla::testing::Cluster;
use ottla::{ErrorKind, NewTopic};
use ottla_scenarios::steps::{acked, cluster, connect, free, pinned, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_gone_is_refused_when_the_topic_is_made_anew_with_fewer() {
    let cluster = cluster(3, 6);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    for partition in 0..6 {
        acked(&producer, pinned(partition)).await;
    }
    cluster.delete_topic("t").unwrap();
    cluster.create_topic("t", 2, 3).unwrap();
    let begun = Instant::now();
    let gone = producer.send(pinned(5)).await.unwrap();
    let error = within("an end", gone).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPartition, "{error}");
    assert!(begun.elapsed() < secs(5), "{:?}", begun.elapsed());
    let refused = producer.send(pinned(5)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnknownPartition);
    assert_eq!(acked(&producer, pinned(1)).await.offset, 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_this_client_creates_can_be_used_at_once() {
    let cluster = Cluster::builder().brokers(3).tcp(false).start_on_current_runtime().unwrap();
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let lost = producer.send(free()).await.unwrap();
    let error = within("an end", lost).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    within("create", client.admin().create_topic(NewTopic::new("t", 3, 3))).await.unwrap();
    acked(&producer, free()).await;
}
