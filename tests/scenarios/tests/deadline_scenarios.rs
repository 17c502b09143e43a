//! Every record is resolved by its delivery timeout, whatever does not happen meanwhile. In virtual
//! time.

use ottla::testing::{ApiKey, Fault, FaultRule, Leaders};
use ottla::{ErrorKind, Partitioner, Record};
use ottla_scenarios::steps::{acked, cluster, connect, free, ms, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::time::Instant;

/// One record after the other times out while nobody can be asked about their topic.
#[tokio::test(start_paused = true)]
async fn s03_records_of_a_topic_that_nobody_knows_time_out_one_after_the_other() {
    let cluster = cluster(3, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().partitioner(Partitioner::KeyHash);
    let producer = producer.delivery_timeout(secs(3)).build().unwrap();
    for broker in cluster.broker_ids() {
        cluster.stop_broker(broker, Leaders::Keep).unwrap();
    }
    for record in [free(), free().partition(1), free().key("k")] {
        for _ in 0..3 {
            let begun = Instant::now();
            let delivery = producer.send(record).await.unwrap();
            let error = within("the timeout", delivery).await.unwrap_err();
            assert_eq!((error.kind(), error.maybe_written()), (ErrorKind::Timeout, false));
            let took = begun.elapsed();
            assert!((secs(3)..secs(3) + ms(100)).contains(&took), "{took:?}");
            tokio::time::sleep(secs(20)).await;
        }
    }
}

/// The same while there is no producer id to be had.
#[tokio::test(start_paused = true)]
async fn s03_records_without_a_producer_id_time_out_one_after_the_other() {
    let cluster = cluster(1, 3);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().delivery_timeout(secs(3)).build().unwrap();
    let silent = FaultRule::new(Fault::BlackHole).api(ApiKey::INIT_PRODUCER_ID);
    cluster.faults().inject(silent.always());
    for record in [free(), free().partition(1)] {
        for _ in 0..3 {
            let begun = Instant::now();
            let delivery = producer.send(record).await.unwrap();
            let error = within("the timeout", delivery).await.unwrap_err();
            assert_eq!((error.kind(), error.maybe_written()), (ErrorKind::Timeout, false));
            let took = begun.elapsed();
            assert!((secs(3)..secs(3) + ms(100)).contains(&took), "{took:?}");
            tokio::time::sleep(secs(2)).await;
        }
    }
    cluster.faults().clear();
    acked(&producer, Record::to("t").value("x")).await;
}
