//! Delivery handles: who waits for them, who no longer does, and who never did. In virtual time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use ottla::testing::{ApiKey, Fault};
use ottla_scenarios::steps::{acked, cluster, connect, free, ms, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::time::Instant;

/// One task has asked for two records of a batch, and then gives one handle away.
#[tokio::test(start_paused = true)]
async fn a_handle_that_another_task_waits_for_takes_nobodys_wake_up_away() {
    let cluster = cluster(1, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, free()).await;
    for given in [0, 1] {
        cluster.faults().on(1, ApiKey::PRODUCE, Fault::DelayAnswer(secs(1)), 1);
        let begun = Instant::now();
        let mut handles =
            vec![producer.try_send(free()).unwrap(), producer.try_send(free()).unwrap()];
        poll_fn(|cx| {
            assert!(handles.iter_mut().all(|handle| Pin::new(handle).poll(cx).is_pending()));
            Poll::Ready(())
        })
        .await;
        let other = tokio::spawn(handles.remove(given));
        within("an ack", handles.remove(0)).await.unwrap();
        assert!((secs(1)..secs(1) + ms(100)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        within("an ack", other).await.unwrap().unwrap();
    }
}
