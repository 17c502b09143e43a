//! Closing while something is on its way that cannot be stopped at once. In virtual time.

use std::time::Duration;

use ottla::testing::{Cluster, Leaders};
use ottla::{Compression, ErrorKind, Producer, Record};
use ottla_scenarios::steps::{acked, cluster, connect, free, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::time::Instant;

/// So large that it is compressed on a thread of its own.
static LARGE: [u8; 300_000] = [b'x'; 300_000];

async fn start() -> (Cluster, Producer) {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client
        .producer()
        .compression(Compression::Zstd { level: 12 })
        .batch_size(400_000)
        .build()
        .unwrap();
    acked(&producer, free()).await;
    (cluster, producer)
}

async fn close(producer: &Producer, timeout: Duration) {
    let begun = Instant::now();
    let error = within("close", producer.close(timeout)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!((timeout..timeout + secs(1)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

/// Full batches are being compressed as the close begins, or not even that, and one is open.
#[tokio::test(start_paused = true)]
async fn s06_close_while_batches_are_compressed_and_nothing_is_reachable() {
    for records in [1, 2, 9] {
        for timeout in [Duration::ZERO, secs(3)] {
            let (cluster, producer) = start().await;
            cluster.stop_broker(1, Leaders::Keep).unwrap();
            let mut deliveries = Vec::new();
            for _ in 0..records {
                deliveries.push(producer.send(Record::to("t").value(&LARGE)).await.unwrap());
            }
            close(&producer, timeout).await;
            for delivery in deliveries {
                let error = delivery.try_get().expect("close resolves everything").unwrap_err();
                assert_eq!((error.kind(), error.maybe_written()), (ErrorKind::Timeout, false));
            }
        }
    }
}
