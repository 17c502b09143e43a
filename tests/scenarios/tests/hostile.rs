//! Scenario 33: answers that no broker should send. A typed error or a new attempt, bounded memory,
//! no panic, and nothing lost or doubled.

use ottla::testing::{ApiKey, Cluster};
use ottla::{Client, Compression, ErrorKind, Record};
use ottla_scenarios::hostile::{Damage, Hostile};
use ottla_scenarios::wait::within;

fn cluster() -> Cluster {
    Cluster::builder().brokers(1).tcp(false).topic("t", 1, 1).start_on_current_runtime().unwrap()
}

async fn connect(hostile: &Hostile, cluster: &Cluster) -> Client {
    within("connect", hostile.client(cluster).connect()).await.unwrap()
}

async fn send(client: &Client, numbers: std::ops::Range<u32>) {
    let producer =
        client.producer().batch_size(1 << 10).compression(Compression::None).build().unwrap();
    let mut deliveries = Vec::new();
    for number in numbers {
        let value = format!("{number:0300}");
        deliveries.push(producer.send(Record::to("t").value(&value)).await.unwrap());
    }
    for delivery in deliveries {
        within("ack", delivery).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_answers_are_damaged() {
    for damage in Damage::ALL {
        for api in [ApiKey::API_VERSIONS, ApiKey::METADATA] {
            let cluster = cluster();
            let hostile = Hostile::new(&cluster);
            hostile.always(Some((api, damage)));
            let result = within("connect", hostile.client(&cluster).connect()).await;
            assert!(hostile.done() > 0);
            match result {
                // An answer too many is noticed with the next request.
                Ok(_) => assert_eq!(damage, Damage::Twice, "{api:?}"),
                Err(e) => assert!(
                    matches!(
                        e.kind(),
                        ErrorKind::NotKafka
                            | ErrorKind::Connect
                            | ErrorKind::Disconnected
                            | ErrorKind::UnsupportedVersion
                            | ErrorKind::Broker
                            | ErrorKind::Timeout
                    ),
                    "{damage:?} {api:?}: {e}"
                ),
            }
            // The next attempt, to a mended broker, works.
            hostile.always(None);
            connect(&hostile, &cluster).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn answers_to_produce_are_damaged() {
    for damage in Damage::ALL {
        let cluster = cluster();
        let hostile = Hostile::new(&cluster);
        let client = connect(&hostile, &cluster).await;
        send(&client, 0..10).await;
        for _ in 0..3 {
            hostile.next(ApiKey::PRODUCE, damage);
        }
        send(&client, 10..60).await;
        assert_eq!(hostile.done(), 3, "{damage:?}");
        let mut stored: Vec<u32> = cluster
            .records("t", 0)
            .unwrap()
            .iter()
            .map(|r| str::from_utf8(r.value.as_ref().unwrap()).unwrap().parse().unwrap())
            .collect();
        stored.sort_unstable();
        assert!(stored.into_iter().eq(0..60), "{damage:?}: a record is missing or doubled");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_to_fetch_are_damaged() {
    for damage in Damage::ALL {
        let cluster = cluster();
        let hostile = Hostile::new(&cluster);
        let client = connect(&hostile, &cluster).await;
        send(&client, 0..60).await;
        for _ in 0..3 {
            hostile.next(ApiKey::FETCH, damage);
        }
        hostile.next(ApiKey::LIST_OFFSETS, damage);
        let mut consumer =
            client.consumer().topics(["t"]).max_partition_bytes(2_000).build().unwrap();
        let mut read = Vec::new();
        while read.len() < 60 {
            match within("a batch", consumer.next()).await.unwrap() {
                Ok(batch) => read.extend(batch.iter().map(|r| r.offset())),
                Err(e) => assert_eq!(e.kind(), ErrorKind::NotKafka, "{damage:?}: {e}"),
            }
        }
        assert!(read.into_iter().eq(0..60), "{damage:?}");
        assert!(hostile.done() >= 3, "{damage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_consumer_is_told_of_answers_that_stay_damaged() {
    let cluster = cluster();
    let hostile = Hostile::new(&cluster);
    let client = connect(&hostile, &cluster).await;
    send(&client, 0..10).await;
    hostile.always(Some((ApiKey::FETCH, Damage::Short)));
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    let error = within("an error", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
    hostile.always(None);
    let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
    assert_eq!(batch.base_offset(), 0);
}
