use std::time::Duration;

use kafka_protocol::messages::ProduceRequest;
use ottla_test_broker::{Cluster, Leaders, error_code as code};
use tokio::time::Instant;

use crate::client::{Client, PRODUCE_VERSION, TOPIC, base_offsets, batch, produce, start};

const DELAY: Duration = Duration::from_millis(250);

fn cluster(delay: Duration) -> Cluster {
    start(|builder| builder.brokers(3).topic(TOPIC, 1, 3).replica_delay(delay))
}

fn offsets(cluster: &Cluster) -> (i64, i64) {
    let partition = cluster.partition(TOPIC, 0).expect("a known partition");
    (partition.high_watermark, partition.log_end)
}

#[tokio::test(start_paused = true)]
async fn acks_all_waits_for_the_followers_and_acks_one_does_not() {
    let cluster = cluster(DELAY);
    let mut client = Client::new(&cluster, 1);
    let started = Instant::now();
    assert_eq!(client.produce(0, 1, &batch(2)).await.expect("an answer").base_offset, 0);
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(offsets(&cluster), (0, 2));
    assert_eq!(client.produce(0, -1, &batch(2)).await.expect("an answer").base_offset, 2);
    assert!(started.elapsed() >= DELAY);
    assert_eq!(offsets(&cluster), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_produce_blocks_its_connection_and_no_other() {
    let cluster = cluster(DELAY);
    let mut client = Client::new(&cluster, 1);
    let started = Instant::now();
    let all = client.send(PRODUCE_VERSION, &produce(0, -1, &batch(1))).await.expect("sent");
    let one = client.send(PRODUCE_VERSION, &produce(0, 1, &batch(1))).await.expect("sent");
    let mut other = Client::new(&cluster, 1);
    let answer = other.produce(0, 1, &batch(1)).await.expect("an answer");
    assert_eq!((answer.error_code, answer.base_offset), (0, 1), "the pipelined one waits its turn");
    assert_eq!(started.elapsed(), Duration::ZERO);
    client.answer::<ProduceRequest>(all, PRODUCE_VERSION).await.expect("an answer");
    assert!(started.elapsed() >= DELAY);
    let answer = client.answer::<ProduceRequest>(one, PRODUCE_VERSION).await.expect("an answer");
    assert_eq!(answer.responses[0].partition_responses[0].base_offset, 2);
}

#[tokio::test(start_paused = true)]
async fn consumers_see_only_what_is_replicated() {
    let cluster = cluster(DELAY);
    Client::new(&cluster, 1).produce(0, 1, &batch(2)).await.expect("an answer");
    let mut consumer = Client::new(&cluster, 1);
    let early = consumer.fetch(0, 0).await.expect("an answer");
    assert_eq!((early.error_code, early.high_watermark, base_offsets(&early)), (0, 0, vec![]));
    tokio::time::advance(DELAY).await;
    let late = consumer.fetch(0, 0).await.expect("an answer");
    assert_eq!((late.error_code, late.high_watermark, base_offsets(&late)), (0, 2, vec![0]));
}

#[tokio::test(start_paused = true)]
async fn a_produce_whose_time_is_up_says_so_and_stays_appended() {
    let cluster = cluster(Duration::MAX);
    let request = produce(0, -1, &batch(3)).with_timeout_ms(2000);
    let mut client = Client::new(&cluster, 1);
    let started = Instant::now();
    let response = client.ask(PRODUCE_VERSION, &request).await.expect("an answer");
    let answer = &response.responses[0].partition_responses[0];
    assert_eq!((answer.error_code, answer.base_offset), (code::REQUEST_TIMED_OUT, 0));
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(offsets(&cluster), (0, 3));
    // The followers catch up after all, and what waits is let go.
    let id = client.send(PRODUCE_VERSION, &produce(0, -1, &batch(1))).await.expect("sent");
    client.silent_for(Duration::from_secs(1)).await;
    cluster.set_replica_delay(Duration::ZERO);
    client.answer::<ProduceRequest>(id, PRODUCE_VERSION).await.expect("an answer");
    assert_eq!(offsets(&cluster), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn one_partition_may_lag_behind_the_others() {
    let cluster = start(|builder| builder.brokers(2).topic(TOPIC, 3, 2));
    cluster.set_partition_replica_delay(TOPIC, 0, Some(DELAY)).expect("a known partition");
    let started = Instant::now();
    let mut client = Client::new(&cluster, 1);
    client.produce(2, -1, &batch(1)).await.expect("an answer");
    assert_eq!(started.elapsed(), Duration::ZERO);
    client.produce(0, -1, &batch(1)).await.expect("an answer");
    assert!(started.elapsed() >= DELAY);
}

#[tokio::test(start_paused = true)]
async fn too_few_in_sync_replicas_refuse_acks_all_only() {
    let cluster = start(|builder| builder.brokers(3).topic(TOPIC, 1, 3).min_insync_replicas(3));
    cluster.stop_broker(3, Leaders::Move).expect("a known broker");
    let mut client = Client::new(&cluster, 1);
    let answer = client.produce(0, -1, &batch(1)).await.expect("an answer");
    assert_eq!((answer.error_code, answer.base_offset), (code::NOT_ENOUGH_REPLICAS, -1));
    assert_eq!(client.produce(0, 1, &batch(1)).await.expect("an answer").error_code, 0);
    cluster.start_broker(3).expect("a known broker");
    assert_eq!(client.produce(0, -1, &batch(1)).await.expect("an answer").error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn acks_zero_is_not_answered_and_its_failure_cuts() {
    let cluster = cluster(Duration::ZERO);
    let mut client = Client::new(&cluster, 1);
    client.send(PRODUCE_VERSION, &produce(0, 0, &batch(2))).await.expect("sent");
    // The next response is the next request's: nothing came in between.
    assert_eq!(client.produce(0, 1, &batch(1)).await.expect("an answer").base_offset, 2);
    client.send(PRODUCE_VERSION, &produce(9, 0, &batch(1))).await.expect("sent");
    client.closed().await;
}

#[tokio::test(start_paused = true)]
async fn acks_two_does_not_exist() {
    let cluster = cluster(Duration::ZERO);
    let answer = Client::new(&cluster, 1).produce(0, 2, &batch(1)).await.expect("an answer");
    assert_eq!((answer.error_code, answer.base_offset), (code::INVALID_REQUIRED_ACKS, -1));
}

/// Two batches, of which the followers have one.
#[tokio::test(start_paused = true)]
async fn a_fetch_ends_at_the_high_watermark() {
    let cluster = cluster(DELAY);
    let mut client = Client::new(&cluster, 1);
    client.produce(0, 1, &batch(2)).await.expect("an answer");
    tokio::time::advance(DELAY).await;
    client.produce(0, 1, &batch(3)).await.expect("an answer");
    let early = client.fetch(0, 0).await.expect("an answer");
    assert_eq!((early.high_watermark, base_offsets(&early)), (2, vec![0]));
    tokio::time::advance(DELAY).await;
    let late = client.fetch(0, 0).await.expect("an answer");
    assert_eq!((late.high_watermark, base_offsets(&late)), (5, vec![0, 2]));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_topic_that_goes_away_is_told_so() {
    for again in [false, true] {
        let cluster = cluster(Duration::MAX);
        let mut client = Client::new(&cluster, 1);
        let id = client.send(PRODUCE_VERSION, &produce(0, -1, &batch(1))).await.expect("sent");
        client.silent_for(Duration::from_secs(1)).await;
        cluster.delete_topic(TOPIC).expect("a known topic");
        if again {
            // Another topic, though of the same name: it has nothing of what was sent.
            cluster.create_topic(TOPIC, 1, 3).expect("a new topic");
        }
        let answer = client.answer::<ProduceRequest>(id, PRODUCE_VERSION).await.expect("an answer");
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(answer.error_code, code::UNKNOWN_TOPIC_OR_PARTITION, "created again: {again}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_partition_forgets_of_its_producers() {
    let cluster = cluster(Duration::ZERO);
    let mut client = Client::new(&cluster, 1);
    let mut send = async |sequence| {
        let one = batch(1).with_producer(5, 0, sequence);
        let answer = client.produce(0, -1, &one).await.expect("an answer");
        (answer.error_code, answer.base_offset)
    };
    for sequence in 0..3 {
        send(sequence).await;
    }
    assert_eq!(send(1).await, (0, 1), "a duplicate");
    cluster.forget_older_batches(TOPIC, 0).expect("a known partition");
    assert_eq!(send(2).await, (0, 2), "the last is known after a restart");
    assert_eq!(send(1).await, (code::OUT_OF_ORDER_SEQUENCE_NUMBER, -1), "an older one is not");
    cluster.forget_producers(TOPIC, 0).expect("a known partition");
    assert_eq!(send(9).await, (0, 3), "any sequence begins");
    // A leader that has less knows nothing of what it lacks, and of who wrote it.
    cluster.elect_uncleanly(TOPIC, 0, 1, 3).expect("a known partition");
    assert_eq!(send(0).await, (0, 3));
    assert_eq!(cluster.stats().brokers[0].produce_duplicates, 2);
}
