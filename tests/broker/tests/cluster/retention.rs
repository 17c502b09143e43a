use ottla_test_broker::error_code as code;

use crate::client::{Client, TOPIC, base_offsets, batch, start};

#[tokio::test(start_paused = true)]
async fn the_oldest_batches_of_the_cluster_go_first() {
    let one = batch(10);
    let bound = one.len() * 4;
    let cluster = start(|builder| builder.topic(TOPIC, 2, 1).max_bytes_retained(bound));
    let mut client = Client::new(&cluster, 1);
    let starts = || {
        [0, 1].map(|index| cluster.partition(TOPIC, index).expect("a known partition").log_start)
    };
    for partition in [0, 1, 0, 0] {
        client.produce(partition, 1, &one).await.expect("an answer");
    }
    assert_eq!((cluster.retained_bytes(), starts()), (bound, [0, 0]));
    client.produce(0, 1, &one).await.expect("an answer");
    assert_eq!((cluster.retained_bytes(), starts()), (bound, [10, 0]));
    client.produce(0, 1, &one).await.expect("an answer");
    assert_eq!((cluster.retained_bytes(), starts()), (bound, [10, 10]));
    assert_eq!(client.fetch(0, 0).await.expect("an answer").error_code, code::OFFSET_OUT_OF_RANGE);
    let kept = client.fetch(0, 10).await.expect("an answer");
    assert_eq!(base_offsets(&kept), [10, 20, 30, 40]);
    assert_eq!(cluster.records(TOPIC, 0).expect("a known partition").len(), 40);
}

#[tokio::test(start_paused = true)]
async fn the_newest_batch_stays_however_large() {
    let cluster = start(|builder| builder.topic(TOPIC, 1, 1).max_bytes_retained(1));
    let mut client = Client::new(&cluster, 1);
    for offset in [0, 10] {
        client.produce(0, 1, &batch(10)).await.expect("an answer");
        let data = client.fetch(0, offset).await.expect("an answer");
        assert_eq!(base_offsets(&data), [offset]);
    }
}

#[tokio::test(start_paused = true)]
async fn deleting_gives_the_bytes_back() {
    let one = batch(10);
    let cluster = start(|builder| builder.topic(TOPIC, 2, 1).topic("other", 1, 1));
    let mut client = Client::new(&cluster, 1);
    for partition in [0, 1, 0] {
        client.produce(partition, 1, &one).await.expect("an answer");
    }
    assert_eq!(cluster.retained_bytes(), one.len() * 3);
    cluster.delete_records(TOPIC, 0, 10).expect("a known partition");
    assert_eq!(cluster.retained_bytes(), one.len() * 2);
    cluster.delete_topic(TOPIC).expect("a known topic");
    assert_eq!(cluster.retained_bytes(), 0);
    let response = client.produce(0, 1, &one).await.expect("an answer");
    assert_eq!(response.error_code, code::UNKNOWN_TOPIC_OR_PARTITION);
}
