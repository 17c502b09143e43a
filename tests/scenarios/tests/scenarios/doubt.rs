//! What producers may choose: what acknowledges a record, and what happens in doubt.

use std::time::Duration;

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, Record as Stored};
use ottla::{Acks, Client, InDoubt, Record};
use ottla_scenarios::steps::{cluster, connect, ms, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::time::Instant;

async fn client(cluster: &Cluster) -> Client {
    connect(virtual_cluster::client(cluster, 1)).await
}

fn stored(cluster: &Cluster) -> Vec<Stored> {
    let partitions = cluster.partitions("t").unwrap();
    (0..partitions).flat_map(|p| cluster.records("t", p).unwrap()).collect()
}

/// Sends one record whose first attempt meets `fault`; how long its acknowledgement took, and how
/// often it is in the log.
async fn meets(fault: Fault, in_doubt: InDoubt, pinned: bool) -> (Duration, usize) {
    let cluster = cluster(3, 3);
    let client = client(&cluster).await;
    let producer = client.producer().in_doubt(in_doubt).build().unwrap();
    // Several brokers are connected before one goes silent.
    for i in 0..60 {
        let value = format!("{i:040000}");
        let sent = producer.send(Record::to("t").value(&value)).await.unwrap();
        within("ack", sent).await.unwrap();
    }
    cluster.faults().inject(FaultRule::new(fault).api(ApiKey::PRODUCE));
    let record = Record::to("t").value("x");
    let record = if pinned { record.partition(0) } else { record };
    let began = Instant::now();
    let delivery = producer.send(record).await.unwrap();
    within("ack", delivery).await.unwrap();
    let took = began.elapsed();
    // Whatever was abandoned is over, too: nothing that comes now is hindered by it.
    tokio::time::sleep(secs(60)).await;
    for partition in 0..3 {
        let record = Record::to("t").partition(partition).value("y");
        within("ack", producer.send(record).await.unwrap()).await.unwrap();
    }
    let all = stored(&cluster);
    let of = |value: &[u8]| all.iter().filter(|r| r.value.as_deref() == Some(value)).count();
    assert_eq!(of(b"y"), 3);
    (took, of(b"x"))
}

#[tokio::test(start_paused = true)]
async fn a_batch_in_doubt_waits_and_is_written_once() {
    let (took, times) = meets(Fault::BlackHoleAfterAppend, InDoubt::Wait, false).await;
    assert!(took >= secs(30) && times == 1, "{took:?}, {times}");
    let (took, times) = meets(Fault::CutAfterAppend, InDoubt::Wait, false).await;
    assert!(took < secs(1) && times == 1, "{took:?}, {times}");
}

#[tokio::test(start_paused = true)]
async fn rerouted_a_batch_in_doubt_is_acknowledged_soon_and_perhaps_twice() {
    let (took, times) = meets(Fault::BlackHoleAfterAppend, InDoubt::Reroute, false).await;
    assert!(took < secs(1) && times == 2, "{took:?}, {times}");
    let (took, times) = meets(Fault::BlackHole, InDoubt::Reroute, false).await;
    assert!(took < secs(1) && times == 1, "{took:?}, {times}");
    let (took, times) = meets(Fault::CutAfterAppend, InDoubt::Reroute, false).await;
    assert!(took < ms(500) && times == 2, "{took:?}, {times}");
}

#[tokio::test(start_paused = true)]
async fn a_pinned_record_in_doubt_waits_whatever_is_chosen() {
    let (took, times) = meets(Fault::BlackHoleAfterAppend, InDoubt::Reroute, true).await;
    assert!(took >= secs(30) && times == 1, "{took:?}, {times}");
}

/// Doubt sticks: whatever fails it in the end, it may have been written where it was first.
#[tokio::test(start_paused = true)]
async fn a_rerouted_record_that_fails_may_have_been_written() {
    let cluster = cluster(3, 3);
    let client = client(&cluster).await;
    let producer =
        client.producer().in_doubt(InDoubt::Reroute).delivery_timeout(secs(5)).build().unwrap();
    within("ack", producer.send(Record::to("t").value("known")).await.unwrap()).await.unwrap();
    let faults = cluster.faults();
    faults.inject(FaultRule::new(Fault::CutAfterAppend).api(ApiKey::PRODUCE));
    // NOT_ENOUGH_REPLICAS: certainly not written, this time.
    faults.inject(FaultRule::new(Fault::Error(19)).api(ApiKey::PRODUCE).always());
    let delivery = producer.send(Record::to("t").value("x")).await.unwrap();
    let e = within("its end", delivery).await.unwrap_err();
    assert!(e.maybe_written(), "{e}");
}

#[tokio::test(start_paused = true)]
async fn acknowledged_by_the_leader_alone() {
    let cluster = cluster(3, 3);
    // Followers never copy anything.
    cluster.set_replica_delay(secs(3_600));
    let client = client(&cluster).await;
    let producer = client.producer().acks(Acks::Leader).build().unwrap();
    let began = Instant::now();
    for i in 0..10 {
        let value = i.to_string();
        let sent = producer.send(Record::to("t").value(&value)).await.unwrap();
        let acked = within("ack", sent).await.unwrap();
        assert!(acked.offset >= 0);
    }
    assert!(began.elapsed() < secs(5));
    let all = stored(&cluster);
    assert_eq!(all.len(), 10);
    assert!(all.iter().all(|r| (r.producer_id, r.producer_epoch, r.sequence) == (-1, -1, -1)));
    assert_eq!(cluster.stats().requests_of(ApiKey::INIT_PRODUCER_ID), 0);
}

#[tokio::test(start_paused = true)]
async fn acknowledged_by_nobody() {
    let cluster = cluster(3, 3);
    let client = client(&cluster).await;
    let nobody = client.producer().acks(Acks::None).build().unwrap();
    let all = client.producer().build().unwrap();
    let mut numbers = Vec::new();
    for i in 0..200 {
        // Both kinds share the connections: answers are not mistaken for each other's.
        let value = i.to_string();
        let sent = nobody.send(Record::to("t").value(&value)).await.unwrap();
        let acked = within("written", sent).await.unwrap();
        assert_eq!(acked.offset, -1);
        let sent = all.send(Record::to("t").value("all")).await.unwrap();
        assert!(within("ack", sent).await.unwrap().offset >= 0);
        numbers.push(value.into_bytes());
    }
    let seen = || {
        let all = stored(&cluster);
        let mine = all.into_iter().filter(|r| r.value.as_deref() != Some(b"all"));
        let mut values: Vec<_> = mine.map(|r| r.value.unwrap().to_vec()).collect();
        values.sort();
        values
    };
    numbers.sort();
    ottla_scenarios::wait::until("all are in the log", || seen().len() >= 200).await;
    assert_eq!(seen(), numbers);
}

/// The leader says that it does not know whether it is written everywhere: it is not to be in another
/// partition as well.
#[tokio::test(start_paused = true)]
async fn a_response_that_leaves_it_open_is_no_reason_to_go_elsewhere() {
    // REQUEST_TIMED_OUT, and NOT_ENOUGH_REPLICAS_AFTER_APPEND.
    for code in [7, 20] {
        let (_, times) = meets(Fault::ErrorAfterAppend(code), InDoubt::Wait, false).await;
        assert_eq!(times, 1, "{code}");
    }
}

/// Where there is no other partition it would come behind later ones, and perhaps twice.
#[tokio::test(start_paused = true)]
async fn where_there_is_no_other_partition_a_batch_in_doubt_waits_whatever_is_chosen() {
    let cluster = cluster(1, 1);
    let client = client(&cluster).await;
    let producer = client.producer().in_doubt(InDoubt::Reroute).build().unwrap();
    for fault in [None, Some(Fault::CutAfterAppend)] {
        if let Some(fault) = fault {
            cluster.faults().inject(FaultRule::new(fault).api(ApiKey::PRODUCE));
        }
        let sent = producer.send(Record::to("t").value("x")).await.unwrap();
        within("ack", sent).await.unwrap();
    }
    assert_eq!(stored(&cluster).len(), 2);
}
