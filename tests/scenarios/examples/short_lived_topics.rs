//! A service that names a new topic with every job, a hundred thousand times: what the client keeps of
//! them. Each is written to by one producer that stays, and read by a consumer of its own; then it is
//! deleted. One a second, in virtual time, the embedded cluster included.
//!
//! ```console
//! cargo run --release -p ottla-scenarios --example short_lived_topics [TOPICS]
//! ```
//!
//! Prints what is kept after each tenth of them, and fails if that grows with their number.

use std::process::ExitCode;

use allocation_counter::measure;
use ottla::testing::Cluster;
use ottla::{Client, Compression, Producer, Record, Start};
use ottla_scenarios::seeds::runtime;
use ottla_scenarios::steps::{cluster, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;

/// Bytes for each topic that would be a leak: one name, and the least that is kept with it.
const LEAK: f64 = 16.0;

async fn job(cluster: &Cluster, client: &Client, producer: &Producer, number: usize) {
    let topic = format!("job-{number}");
    cluster.create_topic(&topic, 2, 1).expect("a new topic");
    let record = Record::to(&topic).value("x");
    // Batches of a topic, and those of a partition.
    let record = if number.is_multiple_of(2) { record.partition(1) } else { record };
    let sent = producer.send(record).await.expect("there is space");
    let at = within("an ack", sent).await.expect("the topic is there");
    // With all that is kept of a partition that is read: every tenth.
    if number.is_multiple_of(10) {
        let parts = [(topic.as_str(), at.partition, Start::Earliest)];
        let mut consumer = client.consumer().assign(parts).build().expect("a partition to read");
        let batch = within("a batch", consumer.next()).await.expect("it is open");
        assert_eq!(batch.expect("a record").len(), 1);
    }
    cluster.delete_topic(&topic).expect("it is there");
    tokio::time::sleep(secs(1)).await;
}

fn main() -> ExitCode {
    let topics = std::env::args().nth(1).map_or(100_000, |n| n.parse().expect("a number"));
    let runtime = runtime();
    let (cluster, client, producer) = runtime.block_on(async {
        let cluster = cluster(1, 1);
        let client = virtual_cluster::client(&cluster, 1).connect().await.expect("it is there");
        let producer = client.producer().compression(Compression::None).build().expect("settings");
        (cluster, client, producer)
    });
    let step = (topics / 10).max(1);
    let mut kept = 0;
    let mut at = Vec::new();
    for round in 0..10 {
        let numbers = round * step..(round + 1) * step;
        let grown = measure(|| {
            runtime.block_on(async {
                for number in numbers.clone() {
                    job(&cluster, &client, &producer, number).await;
                }
                // All of them are of long ago.
                tokio::time::sleep(secs(3_600)).await;
                job(&cluster, &client, &producer, usize::MAX).await;
            });
        });
        kept += grown.bytes_current;
        at.push(kept);
        println!("{:>8} topics: {:>9} bytes kept", numbers.end, kept);
    }
    // The first tenth makes what all others use again.
    let each = (at[9] - at[0]) as f64 / (9 * step) as f64;
    println!("{each:.2} bytes for each topic after the first {step}");
    if each < LEAK { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
