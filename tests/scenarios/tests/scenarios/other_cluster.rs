//! Another cluster comes to listen where the one was that a client knows: nothing of the old one is
//! believed of the new one, and the client goes on only if it was told to. In virtual time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Leaders};
use ottla::{
    Acks, ClusterChange, Delivery, Error, ErrorKind, NewTopic, OffsetSpec, Producer, Record, Start,
};
use ottla_scenarios::network::Network;
use ottla_scenarios::steps::{
    acked, connect, free, ms, pinned, secs, seen, send_pinned, small_batches, stored, value,
};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};
use tokio::time::Instant;

const FIRST: &str = "first-cluster";
const SECOND: &str = "second-cluster";

fn first(brokers: i32) -> Cluster {
    Cluster::builder()
        .brokers(brokers)
        .tcp(false)
        .cluster_id(FIRST)
        // Topics by name, as brokers before Kafka 4.1 do: an id would give the new cluster away.
        .max_version(ApiKey::PRODUCE, 12)
        .max_version(ApiKey::FETCH, 12)
        .topic("t", 3, brokers.min(3))
        .start_on_current_runtime()
        .unwrap()
}

fn names_both(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::ClusterChanged, "{error}");
    let words = error.to_string();
    assert!(words.contains(FIRST) && words.contains(SECOND), "{words}");
    assert!(error.is_fatal() && !error.is_retriable(), "{error}");
}

async fn end(sent: Result<Delivery, Error>) -> Result<ottla::Acked, Error> {
    match sent {
        Ok(delivery) => within("an end", delivery).await,
        Err(e) => Err(e),
    }
}

/// Somebody else writes to the new cluster under the producer id that it hands out first, which is the
/// one that the old cluster handed out first: the sequences that the client has used there.
async fn stranger(cluster: &Cluster, records: usize) {
    let client = connect(virtual_cluster::client(cluster, 99)).await;
    let producer = client.producer().build().unwrap();
    for n in 0..records {
        let value = format!("stranger {n}");
        acked(&producer, pinned(0).value(&value)).await;
    }
}

/// Values that the new cluster holds of this client: those that begin with a digit.
fn ours(cluster: &Cluster) -> Vec<Vec<u8>> {
    let all = (0..3).flat_map(|partition| stored(cluster, partition));
    all.filter_map(|record| record.value.map(|v| v.to_vec()))
        .filter(|v| v.first().is_some_and(u8::is_ascii_digit))
        .collect()
}

/// The batch was written here or there or not at all, and its response is lost. The stranger's batches
/// have the same producer id and sequences: sent again it would count as a duplicate of theirs.
#[tokio::test(start_paused = true)]
async fn what_is_in_doubt_is_maybe_written_and_what_was_never_sent_is_not() {
    for fault in [Fault::CutBeforeAppend, Fault::CutAfterAppend] {
        for brokers in [1, 3] {
            let cluster = first(brokers);
            let client = connect(virtual_cluster::client(&cluster, 1)).await;
            let producer = client.producer().build().unwrap();
            send_pinned_acked(&producer, 0..3).await;
            cluster.faults().on(None, ApiKey::PRODUCE, fault, 1);
            let doubtful = send_pinned(&producer, 3..4).await.remove(0);
            until("the loss", || cluster.faults().fired() == 1).await;
            for broker in cluster.broker_ids() {
                cluster.stop_broker(broker, Leaders::Keep).unwrap();
            }
            cluster.replace(SECOND).unwrap();
            let unsent = send_pinned(&producer, 4..5).await.remove(0);
            for broker in cluster.broker_ids() {
                cluster.start_broker(broker).unwrap();
            }
            stranger(&cluster, 5).await;

            let error = within("an end", doubtful).await.unwrap_err();
            names_both(&error);
            assert!(error.maybe_written(), "{error}");
            let error = within("an end", unsent).await.unwrap_err();
            names_both(&error);
            assert!(!error.maybe_written(), "{error}");
            // It stays with that.
            for _ in 0..3 {
                let error = end(producer.send(free()).await).await.unwrap_err();
                names_both(&error);
                assert!(!error.maybe_written(), "{error}");
                tokio::time::sleep(secs(20)).await;
            }
            names_both(&client.admin().create_topic(NewTopic::new("v", 1, 1)).await.unwrap_err());
            names_both(&client.admin().partitions("t").await.unwrap_err());
            let offsets = client.admin().list_offsets([("t", 0, OffsetSpec::Latest)]).await;
            names_both(&offsets.unwrap_err());
            assert!(ours(&cluster).is_empty(), "{fault:?}");
            assert!(cluster.partitions("v").is_err());
        }
    }
}

async fn send_pinned_acked(producer: &Producer, numbers: std::ops::Range<usize>) {
    for delivery in send_pinned(producer, numbers).await {
        within("an ack", delivery).await.unwrap();
    }
}

/// Acknowledged means: in the log of the cluster that it was sent to.
#[tokio::test(start_paused = true)]
async fn told_to_go_on_it_goes_on_under_another_producer_id() {
    for acks in [Acks::All, Acks::Leader] {
        for seed in 0..6 {
            let cluster = first(3);
            let client = virtual_cluster::client(&cluster, seed);
            let client = connect(client.on_cluster_change(ClusterChange::Accept)).await;
            // Batches of one record, as the stranger's are: under its producer id they would be taken
            // for those.
            let producer = small_batches(&client).acks(acks).build().unwrap();
            send_pinned_acked(&producer, 0..3).await;
            cluster.faults().on(None, ApiKey::PRODUCE, Fault::CutBeforeAppend, 1);
            let doubtful = send_pinned(&producer, 3..4).await.remove(0);
            until("the loss", || cluster.faults().fired() == 1).await;
            for broker in cluster.broker_ids() {
                cluster.stop_broker(broker, Leaders::Keep).unwrap();
            }
            assert_eq!(ours(&cluster).len(), 3);
            cluster.replace(SECOND).unwrap();
            let unsent = send_pinned(&producer, 4..7).await;
            let free = producer.send(Record::to("t").value("7")).await.unwrap();
            for broker in cluster.broker_ids() {
                cluster.start_broker(broker).unwrap();
            }
            stranger(&cluster, 5).await;

            let error = within("an end", doubtful).await.unwrap_err();
            names_both(&error);
            assert!(error.maybe_written(), "{error}");
            for delivery in unsent {
                within("an ack", delivery).await.unwrap();
            }
            within("an ack", free).await.unwrap();
            send_pinned_acked(&producer, 8..20).await;
            let mut got = ours(&cluster);
            got.sort();
            let mut wanted: Vec<_> = (4..7).chain(8..20).map(value).collect();
            wanted.push(b"7".to_vec());
            wanted.sort();
            assert_eq!(got, wanted, "seed {seed}");
            assert_eq!(client.cluster().cluster_id.as_deref(), Some(SECOND));
        }
    }
}

/// Records are produced all the time, while the cluster is replaced without anybody stopping: what is
/// acknowledged is in the log of the one or of the other.
#[tokio::test(start_paused = true)]
async fn acknowledged_is_in_the_log_of_the_one_or_the_other() {
    for change in [ClusterChange::Fail, ClusterChange::Accept] {
        for seed in 0..20 {
            let cluster = first(3);
            let client = virtual_cluster::client(&cluster, seed).on_cluster_change(change);
            let client = connect(client).await;
            let producer = client.producer().delivery_timeout(secs(30)).build().unwrap();
            acked(&producer, free()).await;
            cluster.set_replica_delay(ms(3));
            let mut sent = Vec::new();
            let mut before = Vec::new();
            for n in 0..120_usize {
                if n == 60 {
                    before = ours(&cluster);
                    cluster.replace(SECOND).unwrap();
                    stranger(&cluster, 80).await;
                }
                let text = format!("{n:04}");
                let record = match n % 2 {
                    0 => Record::to("t").partition((n % 3) as i32),
                    _ => Record::to("t"),
                };
                sent.push((text.clone(), producer.send(record.value(&text)).await));
                tokio::time::sleep(ms(1 + n as u64 * (seed + 1) % 7)).await;
            }
            let mut acknowledged = 0;
            let mut doubtful = 0;
            let mut ends = Vec::new();
            for (text, sent) in sent {
                ends.push((text, end(sent).await));
            }
            let after = ours(&cluster);
            for (text, end) in ends {
                let there =
                    |log: &[Vec<u8>]| log.iter().filter(|v| **v == *text.as_bytes()).count();
                let copies = there(&before) + there(&after);
                match end {
                    Ok(_) => {
                        acknowledged += 1;
                        assert_eq!(copies, 1, "{text}, seed {seed}");
                    }
                    Err(e) => {
                        names_both(&e);
                        doubtful += usize::from(e.maybe_written());
                        assert!(e.maybe_written() || copies == 0, "{text}, seed {seed}: {e}");
                        assert!(copies <= 1, "{text}, seed {seed}: {e}");
                    }
                }
            }
            let least = if change == ClusterChange::Accept { 100 } else { 40 };
            assert!(acknowledged >= least, "{acknowledged} acknowledged, {doubtful} in doubt");
            assert_eq!(after.is_empty(), change == ClusterChange::Fail, "seed {seed}");
        }
    }
}

/// Also where nothing is on its way: connections closed for being idle, and the address is another's
/// when the next record comes.
#[tokio::test(start_paused = true)]
async fn a_client_that_was_idle_asks_who_is_there_before_it_sends() {
    let cluster = first(3);
    let client = virtual_cluster::client(&cluster, 1).idle_timeout(secs(5));
    let client = connect(client).await;
    let producer = client.producer().build().unwrap();
    for round in 0..5 {
        acked(&producer, pinned(0)).await;
        let asked = cluster.stats().requests_of(ApiKey::METADATA);
        tokio::time::sleep(secs(10)).await;
        assert_eq!(cluster.stats().connections_open(), 0);
        let begun = Instant::now();
        for partition in 0..3 {
            acked(&producer, pinned(partition)).await;
        }
        assert!(begun.elapsed() < ms(100), "{:?}", begun.elapsed());
        // One for the pool, and none for each dial.
        assert_eq!(cluster.stats().requests_of(ApiKey::METADATA) - asked, 1, "round {round}");
        tokio::time::sleep(secs(10)).await;
    }
    assert!(client.stats().bad_stuff.is_zero(), "{}", client.stats().bad_stuff);
    cluster.replace(SECOND).unwrap();
    stranger(&cluster, 20).await;
    for partition in 0..3 {
        names_both(&end(producer.send(pinned(partition)).await).await.unwrap_err());
    }
    // A new client knows nothing of the old cluster.
    drop(client);
    let again = connect(virtual_cluster::client(&cluster, 1)).await;
    acked(&again.producer().build().unwrap(), pinned(1)).await;
}

/// A client of the same process, made after the change, has nothing to do with it.
#[tokio::test(start_paused = true)]
async fn a_new_client_of_the_process_is_one_of_the_new_cluster() {
    let cluster = first(3);
    let network = Network::new(&cluster);
    let environment = network.environment(1).build();
    let settings = || network.client(&cluster, 1).environment(environment.clone());
    let old = connect(settings()).await;
    let accepting = connect(settings().on_cluster_change(ClusterChange::Accept)).await;
    let producers = [old.producer().build().unwrap(), accepting.producer().build().unwrap()];
    for producer in &producers {
        acked(producer, pinned(0)).await;
    }
    cluster.replace(SECOND).unwrap();
    stranger(&cluster, 10).await;
    names_both(&end(producers[0].send(pinned(0)).await).await.unwrap_err());
    acked(&producers[1], pinned(0)).await;
    let new = connect(settings()).await;
    acked(&new.producer().build().unwrap(), pinned(0)).await;
    // Also made from a client of before, whoever asks for it.
    let late = old.producer().build().unwrap();
    names_both(&end(late.send(pinned(0)).await).await.unwrap_err());
}

/// One address of three leads elsewhere. That condemns this connection and nothing else.
#[tokio::test(start_paused = true)]
async fn one_address_that_leads_to_another_cluster_fails_nobody() {
    let cluster = first(3);
    let other = Cluster::builder()
        .brokers(1)
        .tcp(false)
        .cluster_id(SECOND)
        .topic("t", 3, 1)
        .start_on_current_runtime()
        .unwrap();
    // The dialer of one network leads to one cluster: a broker of the other is reached by its door.
    let network = Network::new(&cluster);
    network.lead_elsewhere("broker-2", &other);
    let client = network.client(&cluster, 1).bootstrap("broker-1:9092,broker-3:9092");
    let client = connect(client.idle_timeout(secs(5))).await;
    let producer = client.producer().delivery_timeout(secs(5)).build().unwrap();
    acked(&producer, pinned(0)).await;
    acked(&producer, pinned(2)).await;
    for _ in 0..10 {
        tokio::time::sleep(secs(60)).await;
        // It is the first to be dialled, and asked.
        let astray = end(producer.send(pinned(1)).await).await.unwrap_err();
        assert_eq!(
            (astray.kind(), astray.maybe_written()),
            (ErrorKind::Timeout, false),
            "{astray}"
        );
        assert!(astray.to_string().contains(SECOND), "{astray}");
        acked(&producer, pinned(0)).await;
        acked(&producer, free()).await;
    }
    assert_eq!(client.cluster().cluster_id.as_deref(), Some(FIRST));
    assert!((0..3).all(|partition| stored(&other, partition).is_empty()));
}

/// Where a consumer is in the old cluster says nothing about the new one.
#[tokio::test(start_paused = true)]
async fn a_consumer_stops_or_begins_by_its_start() {
    for (change, start) in [
        (ClusterChange::Fail, Start::Earliest),
        (ClusterChange::Accept, Start::Earliest),
        (ClusterChange::Accept, Start::Latest),
    ] {
        let cluster = first(3);
        let writer = connect(virtual_cluster::client(&cluster, 1)).await;
        let producer = writer.producer().build().unwrap();
        let client = virtual_cluster::client(&cluster, 2).on_cluster_change(change);
        let client = connect(client).await;
        let mut consumer = client.consumer().topics(["t"]).start(start).build().unwrap();
        assert!(consumer.try_next().is_none());
        tokio::time::sleep(secs(2)).await;
        for _ in 0..5 {
            acked(&producer, pinned(0).value("old")).await;
        }
        let mut read = 0;
        while read < 5 {
            read += within("old records", consumer.next()).await.unwrap().unwrap().len();
        }
        cluster.replace(SECOND).unwrap();
        stranger(&cluster, 7).await;
        if change == ClusterChange::Fail {
            let error = within("the error", consumer.next()).await.unwrap().unwrap_err();
            names_both(&error);
            // It stays with that.
            let mut more = Vec::new();
            let listen = tokio::time::timeout(secs(60), async {
                while let Some(next) = consumer.next().await {
                    more.push(next.map(|b| b.len()));
                    if more.len() > 100 {
                        return;
                    }
                }
            });
            let _ = listen.await;
            assert!(more.iter().all(Result::is_err), "{more:?}");
            continue;
        }
        let mut values = Vec::new();
        if start == Start::Latest {
            tokio::time::sleep(secs(5)).await;
            let client = connect(virtual_cluster::client(&cluster, 98)).await;
            acked(&client.producer().build().unwrap(), pinned(0).value("stranger new")).await;
        }
        let wanted = if start == Start::Latest { 1 } else { 7 };
        while values.len() < wanted {
            let batch = within("new records", consumer.next()).await.unwrap().unwrap();
            values.extend(batch.iter().map(|r| r.value().unwrap().to_vec()));
        }
        assert!(values.iter().all(|v| v.starts_with(b"stranger")), "{values:?}");
        assert_eq!(values.len(), wanted);
        if start == Start::Latest {
            assert_eq!(values, [b"stranger new"]);
        } else {
            assert_eq!(values[0], b"stranger 0");
        }
    }
}

/// One connection was lost, and one is open that nothing came by since: where that one leads says
/// nothing. Once it has answered, nobody need be asked.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_silent_since_a_loss_vouches_for_none() {
    let cluster = first(2);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let of = |broker: i32| {
        (0..3).find(|p| cluster.partition("t", *p).unwrap().leader == Some(broker)).unwrap()
    };
    for broker in [1, 2] {
        acked(&producer, pinned(of(broker))).await;
    }
    let first_contacts = || client.stats().metadata_reasons.first_contact;
    let before = first_contacts();
    for _ in 0..3 {
        cluster.cut_connections(1).unwrap();
        tokio::time::sleep(ms(1)).await;
        acked(&producer, pinned(of(2))).await;
        acked(&producer, pinned(of(1))).await;
        tokio::time::sleep(secs(20)).await;
    }
    assert_eq!(first_contacts(), before);
    // The other one would say what it knows, but does not at once.
    let slow = FaultRule::new(Fault::Delay(secs(5))).broker(2).api(ApiKey::METADATA).always();
    cluster.faults().inject(slow);
    let written = cluster.stats().requests_of(ApiKey::PRODUCE);
    cluster.replace(SECOND).unwrap();
    cluster.cut_connections(1).unwrap();
    tokio::time::sleep(ms(1)).await;
    let error = end(producer.send(pinned(of(1)).value("1")).await).await.unwrap_err();
    names_both(&error);
    assert!(!error.maybe_written(), "{error}");
    assert_eq!(cluster.stats().requests_of(ApiKey::PRODUCE), written);
    assert!(ours(&cluster).is_empty());
}

/// While brokers of the old cluster may still come back, one that answers for another is not believed,
/// for ten seconds from the first such response in a row.
#[tokio::test(start_paused = true)]
async fn another_cluster_is_believed_after_a_while_if_some_cannot_be_asked() {
    let cluster = first(3);
    let client = virtual_cluster::client(&cluster, 1).on_cluster_change(ClusterChange::Accept);
    let client = connect(client).await;
    let producer = client.producer().build().unwrap();
    acked(&producer, pinned(0)).await;
    let only_one_answers_for = |id: &str| {
        for broker in cluster.broker_ids() {
            cluster.stop_broker(broker, Leaders::Keep).unwrap();
        }
        cluster.replace(id).unwrap();
        cluster.start_broker(1).unwrap();
    };
    let is = || client.cluster().cluster_id.unwrap();
    // For a moment, and then it is the old one again.
    only_one_answers_for(SECOND);
    let kept = (0..3).map(|partition| producer.try_send(pinned(partition)).unwrap());
    let mut kept: Vec<_> = kept.collect();
    tokio::time::sleep(secs(5)).await;
    assert_eq!(is(), FIRST);
    cluster.replace(FIRST).unwrap();
    for broker in [2, 3] {
        cluster.start_broker(broker).unwrap();
    }
    for delivery in kept.drain(..) {
        let _ = within("an end", delivery).await;
    }
    tokio::time::sleep(secs(60)).await;
    assert_eq!(is(), FIRST);
    only_one_answers_for(SECOND);
    kept.extend((0..3).map(|partition| producer.try_send(pinned(partition)).unwrap()));
    let begun = Instant::now();
    until("another cluster", || is() == SECOND).await;
    let waited = begun.elapsed();
    assert!((secs(10)..secs(30)).contains(&waited), "{waited:?}");
}

/// Who has answered for another cluster is asked at each dial, until it answers for the right one.
#[tokio::test(start_paused = true)]
async fn a_broker_that_answers_rightly_again_is_asked_no_more() {
    let cluster = first(3);
    let other = Cluster::builder().brokers(1).tcp(false).cluster_id(SECOND).topic("t", 3, 1);
    let other = other.start_on_current_runtime().unwrap();
    let network = Network::new(&cluster);
    network.lead_elsewhere("broker-2", &other);
    let client = network.client(&cluster, 1).bootstrap("broker-1:9092,broker-3:9092");
    let client = connect(client.idle_timeout(secs(5))).await;
    let producer = client.producer().delivery_timeout(secs(5)).build().unwrap();
    acked(&producer, pinned(0)).await;
    tokio::time::sleep(secs(60)).await;
    // It is the first to be dialled, and asked.
    end(producer.send(pinned(1)).await).await.unwrap_err();
    network.lead_back("broker-2");
    tokio::time::sleep(secs(30)).await;
    acked(&producer, pinned(1)).await;
    tokio::time::sleep(secs(1)).await;
    let (asked, dials) = (seen(&cluster, 2, ApiKey::METADATA), network.dials("broker-2").len());
    for _ in 0..5 {
        // Somebody is connected all the time, but not this one.
        for _ in 0..10 {
            tokio::time::sleep(secs(1)).await;
            acked(&producer, pinned(0)).await;
        }
        acked(&producer, pinned(1)).await;
    }
    assert_eq!(network.dials("broker-2").len(), dials + 5);
    assert_eq!(seen(&cluster, 2, ApiKey::METADATA), asked);
}
