//! Scenario 33: answers that no broker should send. A typed error or a new attempt, bounded memory,
//! no panic, and nothing lost or doubled.

use std::time::Duration;

use allocation_counter::measure;
use ottla::testing::{ApiKey, Cluster};
use ottla::{Client, Compression, ErrorKind, OffsetSpec, Record};
use ottla_scenarios::hostile::{Damage, Hostile};
use ottla_scenarios::wait::within;
use ottla_scenarios::warnings::{Warnings, listen};

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

/// Connects, and asks the first question.
async fn first_use(hostile: &Hostile, cluster: &Cluster) -> ottla::Result<usize> {
    let client = hostile.client(cluster).request_timeout(Duration::from_secs(10)).connect().await?;
    client.admin().partitions("t").await
}

#[tokio::test(start_paused = true)]
async fn the_first_responses_are_damaged() {
    for damage in Damage::ALL {
        for api in [ApiKey::API_VERSIONS, ApiKey::METADATA] {
            let cluster = cluster();
            let hostile = Hostile::new(&cluster);
            hostile.always(Some((api, damage)));
            let result = within("first use", first_use(&hostile, &cluster)).await;
            assert!(hostile.done() > 0);
            match result {
                // A response too many is noticed with the next request, and bytes too many are passed over.
                Ok(_) => {
                    assert!(matches!(damage, Damage::Twice | Damage::Long), "{api:?} {damage:?}");
                }
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
async fn responses_to_produce_are_damaged() {
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
        assert_stored(&cluster, damage);
    }
}

#[tokio::test(start_paused = true)]
async fn responses_to_init_producer_id_are_damaged() {
    for damage in Damage::ALL {
        let cluster = cluster();
        let hostile = Hostile::new(&cluster);
        let client = connect(&hostile, &cluster).await;
        for _ in 0..3 {
            hostile.next(ApiKey::INIT_PRODUCER_ID, damage);
        }
        send(&client, 0..60).await;
        // The first of two responses is sound, so is one with more behind it, and one id is enough.
        let expected = if matches!(damage, Damage::Twice | Damage::Long) { 1 } else { 3 };
        assert_eq!(hostile.done(), expected, "{damage:?}");
        assert_stored(&cluster, damage);
    }
}

/// Records 0 to 60 are in the log, each of them once.
fn assert_stored(cluster: &Cluster, damage: Damage) {
    let mut stored: Vec<u32> = cluster
        .records("t", 0)
        .unwrap()
        .iter()
        .map(|r| str::from_utf8(r.value.as_ref().unwrap()).unwrap().parse().unwrap())
        .collect();
    stored.sort_unstable();
    assert!(stored.into_iter().eq(0..60), "{damage:?}: a record is missing or doubled");
}

#[tokio::test(start_paused = true)]
async fn responses_to_fetch_are_damaged() {
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
async fn a_consumer_is_told_of_responses_that_stay_damaged() {
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

#[tokio::test(start_paused = true)]
async fn bytes_behind_a_response_are_passed_over_and_told_once() {
    let warnings = Warnings::default();
    let _listening = listen(warnings.clone());
    let cluster = cluster();
    let hostile = Hostile::new(&cluster);
    hostile.always(Some((ApiKey::LIST_OFFSETS, Damage::Long)));
    let client = connect(&hostile, &cluster).await;
    let admin = client.admin();
    for _ in 0..3 {
        let asked = admin.list_offsets([("t", 0, OffsetSpec::Latest)]);
        assert_eq!(within("offsets", asked).await.unwrap().pop().unwrap().1.unwrap(), 0);
    }
    assert!(hostile.done() >= 3);
    let said = warnings.with("left over");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("ottla::net: ") && said[0].contains("api_key=2"), "{said:?}");
}

/// What fails when every response to requests of this kind is damaged.
async fn ask(api: ApiKey, hostile: &Hostile, cluster: &Cluster) -> ottla::Result<()> {
    let client = within("connect", hostile.client(cluster).connect()).await?;
    match api {
        ApiKey::PRODUCE | ApiKey::INIT_PRODUCER_ID => {
            let patience = Duration::from_secs(20);
            let producer = client.producer().delivery_timeout(patience).build()?;
            within("ack", producer.send(Record::to("t").value("v")).await?).await.map(drop)
        }
        ApiKey::FETCH => {
            let mut consumer = client.consumer().topics(["t"]).build()?;
            within("a batch", consumer.next()).await.expect("it is open").map(drop)
        }
        ApiKey::LIST_OFFSETS => {
            let admin = client.admin();
            let asked = admin.list_offsets([("t", 0, OffsetSpec::Latest)]);
            let mut found = within("offsets", asked).await?;
            found.pop().expect("an answer for each partition").1.map(drop)
        }
        _ => within("partitions", client.admin().partitions("t")).await.map(drop),
    }
}

/// One client and one broker on this thread: what came of it, and the most memory both took.
fn with_damage(api: ApiKey, damage: Option<Damage>) -> (ottla::Result<()>, u64) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    let mut result = Ok(());
    let memory = measure(|| {
        result = runtime.block_on(async {
            let cluster = cluster();
            let hostile = Hostile::new(&cluster);
            send(&connect(&hostile, &cluster).await, 0..10).await;
            hostile.always(damage.map(|damage| (api, damage)));
            let result = ask(api, &hostile, &cluster).await;
            assert!(damage.is_none() || hostile.done() > 0, "{api:?} {damage:?}");
            result
        });
    });
    (result, memory.bytes_max)
}

/// Whatever is damaged, and however often: an error that says what it is, and memory for the first
/// piece of a large frame at most.
#[test]
fn every_response_stays_damaged() {
    const PIECE: u64 = 4 << 20;
    for api in [
        ApiKey::API_VERSIONS,
        ApiKey::METADATA,
        ApiKey::INIT_PRODUCER_ID,
        ApiKey::PRODUCE,
        ApiKey::LIST_OFFSETS,
        ApiKey::FETCH,
    ] {
        let (sound, usual) = with_damage(api, None);
        assert!(sound.is_ok(), "{api:?}: {sound:?}");
        for damage in Damage::ALL {
            let ends = matches!(damage, Damage::Truncated | Damage::Promised);
            if api == ApiKey::FETCH && ends {
                // For the consumer a broker that went away, which it waits for without a word.
                continue;
            }
            let (result, peak) = with_damage(api, Some(damage));
            let piece = if damage == Damage::Promised { PIECE } else { 0 };
            let limit = usual + piece + (256 << 10);
            assert!(peak < limit, "{api:?} {damage:?}: {peak} bytes, {usual} without");
            // Bytes behind a whole response are passed over.
            if damage == Damage::Long {
                assert!(result.is_ok(), "{api:?} {damage:?}: {result:?}");
                continue;
            }
            if damage == Damage::Twice && api != ApiKey::API_VERSIONS {
                assert!(result.is_ok(), "{api:?} {damage:?}: {result:?}");
                continue;
            }
            let e = result.expect_err("nothing could be read");
            let produce = api == ApiKey::PRODUCE;
            let kind = match api {
                // Tried again until time is up.
                ApiKey::PRODUCE | ApiKey::INIT_PRODUCER_ID => ErrorKind::Timeout,
                // The first response tells whether it is Kafka at all.
                ApiKey::API_VERSIONS => ErrorKind::NotKafka,
                _ if ends => ErrorKind::Disconnected,
                _ => ErrorKind::NotKafka,
            };
            assert_eq!((e.kind(), e.maybe_written()), (kind, produce), "{api:?} {damage:?}: {e}");
            let cause = match damage {
                Damage::Correlation => "correlation id",
                // Who is not known yet has not so much to say.
                Damage::Promised if api == ApiKey::API_VERSIONS => "1048576 at most",
                Damage::Truncated | Damage::Promised => "closed the connection",
                Damage::HugeLength => "a frame of 2147483647 bytes",
                Damage::NegativeLength => "a frame of -7 bytes",
                Damage::Tiny | Damage::Twice => "answer",
                Damage::HugeCount | Damage::NegativeCount => "length or end of",
                Damage::Long | Damage::Fewer => unreachable!("a whole answer"),
                Damage::Short | Damage::Noise | Damage::Ones => "malformed",
            };
            assert!(e.message().contains(cause), "{api:?} {damage:?}: {e}");
        }
    }
}
