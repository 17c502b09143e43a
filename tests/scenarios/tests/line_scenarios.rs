//! Several that send to the same place: each has its turn, however much the others send. In virtual
//! time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Compression, Producer, Record};
use ottla_scenarios::steps::{cluster, connect, ms, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;

/// A broker that takes less than a producer has to send.
fn slow(cluster: &Cluster) {
    let rule = FaultRule::new(Fault::Delay(ms(50))).api(ApiKey::PRODUCE);
    cluster.faults().inject(rule.always());
}

/// Sends as much as there is space for.
fn flood(producer: Producer, partition: Option<i32>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let record = Record::to("t").value(&[7; 1_000]);
            let record = match partition {
                Some(partition) => record.partition(partition),
                None => record,
            };
            drop(producer.send(record).await.unwrap());
        }
    })
}

/// How long a record takes of one that sends little, beside one that sends all it can.
async fn beside_a_flood(partition: Option<i32>, settings_differ: bool) {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    slow(&cluster);
    let builder = || {
        let builder = client.producer().compression(Compression::None).batch_size(2 << 10);
        builder.buffer_memory(1 << 20)
    };
    let much = builder().build().unwrap();
    let little = match settings_differ {
        true => builder().linger(ms(6)).build().unwrap(),
        false => much.clone(),
    };
    let flooding = flood(much, partition);
    tokio::time::sleep(secs(1)).await;
    for _ in 0..3 {
        let record = Record::to("t").value("little");
        let record = match partition {
            Some(partition) => record.partition(partition),
            None => record,
        };
        let delivery = within("space", little.send(record)).await.unwrap();
        let took = tokio::time::timeout(secs(60), delivery).await;
        took.expect("others are served for ever").unwrap();
    }
    flooding.abort();
}

#[tokio::test(start_paused = true)]
async fn a_clone_has_its_turn_beside_one_that_sends_all_it_can() {
    beside_a_flood(None, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_producer_with_other_settings_has_its_turn() {
    for partition in [None, Some(0)] {
        beside_a_flood(partition, true).await;
    }
}
