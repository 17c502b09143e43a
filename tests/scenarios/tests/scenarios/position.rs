//! What a position is: an offset of one topic, as one line of leaders wrote it. Topics that are made
//! anew, logs that are cut back, partitions that come later, and starts at a time. In virtual time.

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule};
use ottla::{Client, Consumer, Error, ErrorKind, OffsetSpec, Record, Start};
use ottla_scenarios::steps::{acked, cluster, connect, ms, pinned, secs, seen, small_batches};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};

/// So many records in partition 0 of "t", each a batch of its own, written by somebody else.
async fn write(cluster: &Cluster, count: usize) {
    let client = connect(virtual_cluster::client(cluster, 77)).await;
    let producer = small_batches(&client).build().unwrap();
    for _ in 0..count {
        acked(&producer, Record::to("t").partition(0).value(&[7; 700])).await;
    }
}

/// One record.
async fn write_to(cluster: &Cluster, partition: i32) {
    let client = connect(virtual_cluster::client(cluster, 77)).await;
    acked(&client.producer().build().unwrap(), pinned(partition)).await;
}

/// Offsets of the next records.
async fn offsets(consumer: &mut Consumer, count: usize) -> Vec<i64> {
    let mut read = Vec::new();
    while read.len() < count {
        let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
        read.extend(batch.iter().map(|record| record.offset()));
    }
    read
}

async fn refusal(consumer: &mut Consumer) -> Error {
    match within("an error", consumer.next()).await.unwrap() {
        Ok(batch) => panic!("records from offset {} instead of an error", batch.base_offset()),
        Err(error) => error,
    }
}

fn assert_offsets(read: &[i64], from: i64, to: i64) {
    assert!(read.iter().copied().eq(from..to), "{from}..{to}: {read:?}");
}

/// Nothing more comes.
async fn assert_quiet(consumer: &mut Consumer) {
    tokio::time::sleep(secs(30)).await;
    let more = consumer.try_next().map(|more| more.map(|batch| batch.base_offset()));
    assert!(more.is_none(), "{more:?}");
}

async fn start(starts: Start) -> (Cluster, Client, Consumer) {
    let cluster = cluster(3, 1);
    write(&cluster, 5).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let consumer = client.consumer().topics(["t"]).start(starts).build().unwrap();
    (cluster, client, consumer)
}

fn make_anew(cluster: &Cluster, partitions: i32) {
    cluster.delete_topic("t").unwrap();
    cluster.create_topic("t", partitions, 3).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_is_told_and_read_from_its_beginning() {
    for starts in [Start::Earliest, Start::Latest, Start::Timestamp(0)] {
        let (cluster, _client, mut consumer) = start(starts).await;
        if starts == Start::Latest {
            until("a place", || cluster.stats().requests_of(ApiKey::FETCH) > 0).await;
            write(&cluster, 5).await;
        }
        let first = offsets(&mut consumer, 5).await;
        let position = *first.last().unwrap() + 1;
        make_anew(&cluster, 1);
        // More than the old one had: no offset is out of range.
        write(&cluster, 20).await;
        let error = refusal(&mut consumer).await;
        assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
        assert!(!error.is_fatal() && error.message().contains("made anew"), "{error}");
        assert!(error.message().contains(&position.to_string()), "{error}");
        // Where it begins may be known already.
        assert!(matches!(consumer.position("t", 0), None | Some(0)));
        assert_offsets(&offsets(&mut consumer, 20).await, 0, 20);
        assert_eq!(consumer.position("t", 0), Some(20));
        assert_quiet(&mut consumer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_gone_for_long_and_made_anew_with_fewer_partitions() {
    let cluster = cluster(3, 4);
    write(&cluster, 5).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    offsets(&mut consumer, 5).await;
    assert_eq!(consumer.assignment().len(), 4);
    cluster.delete_topic("t").unwrap();
    assert_eq!(refusal(&mut consumer).await.kind(), ErrorKind::UnknownTopic);
    assert_quiet(&mut consumer).await;
    cluster.create_topic("t", 2, 3).unwrap();
    write(&cluster, 20).await;
    // Once, not for each partition.
    assert_eq!(refusal(&mut consumer).await.kind(), ErrorKind::Truncated);
    assert_offsets(&offsets(&mut consumer, 20).await, 0, 20);
    assert_eq!(consumer.assignment().len(), 2);
    let error = consumer.seek("t", 3, Start::Earliest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPartition);
}

/// Whoever chose an offset chose it in the topic that was.
#[tokio::test(start_paused = true)]
async fn an_offset_that_was_chosen_means_nothing_in_a_topic_made_anew() {
    let cluster = cluster(3, 1);
    write(&cluster, 5).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let assigned = [("t", 0, Start::Offset(3))];
    let mut consumer = client.consumer().assign(assigned).build().unwrap();
    assert_offsets(&offsets(&mut consumer, 2).await, 3, 5);
    make_anew(&cluster, 1);
    write(&cluster, 20).await;
    let error = refusal(&mut consumer).await;
    assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
    assert_quiet(&mut consumer).await;
    consumer.seek("t", 0, Start::Offset(10)).unwrap();
    assert_offsets(&offsets(&mut consumer, 10).await, 10, 20);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_cut_back_is_told_and_read_from_where_it_parts() {
    // The new leader's log is longer than what was read, or shorter.
    for written in [20, 4] {
        let (cluster, _client, mut consumer) = start(Start::Earliest).await;
        write(&cluster, 5).await;
        assert_offsets(&offsets(&mut consumer, 10).await, 0, 10);
        assert_eq!(cluster.elect_uncleanly("t", 0, 2, 7).unwrap(), 7);
        write(&cluster, written).await;
        let error = refusal(&mut consumer).await;
        assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
        assert!(error.message().contains("10") && error.message().contains("7"), "{error}");
        assert_eq!(consumer.position("t", 0), Some(7));
        assert_offsets(&offsets(&mut consumer, written).await, 7, 7 + written as i64);
        assert_quiet(&mut consumer).await;
    }
}

/// Brokers whose Fetch does not take the epoch of what was read: they are asked before anything is read of a new leader.
mod with_an_older_fetch {
    use super::*;

    async fn start(cluster: &Cluster) -> (Client, Consumer) {
        write(cluster, 10).await;
        let client = connect(virtual_cluster::client(cluster, 1)).await;
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        assert_offsets(&offsets(&mut consumer, 10).await, 0, 10);
        (client, consumer)
    }

    fn cluster() -> Cluster {
        let builder = Cluster::builder().brokers(3).tcp(false).topic("t", 1, 3);
        builder.max_version(ApiKey::FETCH, 11).start_on_current_runtime().unwrap()
    }

    fn asked(cluster: &Cluster) -> u64 {
        cluster.stats().requests_of(ApiKey::OFFSET_FOR_LEADER_EPOCH)
    }

    #[tokio::test(start_paused = true)]
    async fn s23_a_log_that_was_cut_back_is_told_and_read_from_where_it_parts() {
        // The new leader's log is longer than what was read, or shorter.
        for written in [20, 2] {
            let cluster = cluster();
            let (_client, mut consumer) = start(&cluster).await;
            assert_eq!(asked(&cluster), 0, "nothing has changed");
            assert_eq!(cluster.elect_uncleanly("t", 0, 2, 7).unwrap(), 7);
            write(&cluster, written).await;
            let error = refusal(&mut consumer).await;
            assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
            assert!(error.message().contains("10") && error.message().contains("7"), "{error}");
            assert_eq!(consumer.position("t", 0), Some(7));
            assert_offsets(&offsets(&mut consumer, written).await, 7, 7 + written as i64);
            assert_quiet(&mut consumer).await;
            assert_eq!(asked(&cluster), 1, "once for each leader");
        }
    }

    /// Clean elections are asked about, and are no news.
    #[tokio::test(start_paused = true)]
    async fn s23_a_new_leader_with_the_same_log_is_read_on() {
        let cluster = cluster();
        let (client, mut consumer) = start(&cluster).await;
        for (round, leader) in [2, 3, 1].into_iter().enumerate() {
            cluster.move_leader("t", 0, leader).unwrap();
            write(&cluster, 3).await;
            let from = 10 + 3 * round as i64;
            assert_offsets(&offsets(&mut consumer, 3).await, from, from + 3);
        }
        assert_quiet(&mut consumer).await;
        assert_eq!(asked(&cluster), 3);
        assert_eq!(client.stats().requests["OffsetForLeaderEpoch"], 3);
    }

    /// Who is not answered, or refused, is asked again, and nothing is read meanwhile.
    #[tokio::test(start_paused = true)]
    async fn s23_a_position_that_was_not_compared_is_not_read_on() {
        let not_leader = 6;
        for fault in
            [Fault::CutBeforeAppend, Fault::Error(not_leader), Fault::DelayResponse(secs(3))]
        {
            let cluster = cluster();
            let (_client, mut consumer) = start(&cluster).await;
            let rule = FaultRule::new(fault).api(ApiKey::OFFSET_FOR_LEADER_EPOCH).times(2);
            cluster.faults().inject(rule);
            cluster.elect_uncleanly("t", 0, 2, 7).unwrap();
            write(&cluster, 20).await;
            let error = refusal(&mut consumer).await;
            assert_eq!(error.kind(), ErrorKind::Truncated, "{fault:?}: {error}");
            assert_offsets(&offsets(&mut consumer, 20).await, 7, 27);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn s23_who_chose_an_offset_is_told_and_stops() {
        let cluster = cluster();
        write(&cluster, 10).await;
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let assigned = [("t", 0, Start::Offset(3))];
        let mut consumer = client.consumer().assign(assigned).build().unwrap();
        assert_offsets(&offsets(&mut consumer, 7).await, 3, 10);
        cluster.elect_uncleanly("t", 0, 2, 7).unwrap();
        write(&cluster, 20).await;
        assert_eq!(refusal(&mut consumer).await.kind(), ErrorKind::Truncated);
        assert_quiet(&mut consumer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_cut_back_stops_who_chose_an_offset() {
    let cluster = cluster(3, 1);
    write(&cluster, 10).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let assigned = [("t", 0, Start::Offset(3))];
    let mut consumer = client.consumer().assign(assigned).build().unwrap();
    assert_offsets(&offsets(&mut consumer, 7).await, 3, 10);
    cluster.elect_uncleanly("t", 0, 2, 7).unwrap();
    write(&cluster, 20).await;
    let error = refusal(&mut consumer).await;
    assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
    assert_quiet(&mut consumer).await;
    consumer.seek("t", 0, Start::Offset(7)).unwrap();
    assert_offsets(&offsets(&mut consumer, 20).await, 7, 27);
}

/// The end was looked up and nothing read yet: that end is gone, too.
#[tokio::test(start_paused = true)]
async fn an_end_that_was_looked_up_belongs_to_its_leaders() {
    let (cluster, _client, mut consumer) = start(Start::Latest).await;
    until("a place", || cluster.stats().requests_of(ApiKey::FETCH) > 0).await;
    assert_eq!(cluster.elect_uncleanly("t", 0, 2, 2).unwrap(), 2);
    write(&cluster, 20).await;
    let error = refusal(&mut consumer).await;
    assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
    assert_offsets(&offsets(&mut consumer, 20).await, 2, 22);
}

/// Leaders that write nothing leave no trace in the log; nothing is lost, and nothing is told.
#[tokio::test(start_paused = true)]
async fn leaders_that_come_and_go_are_no_news() {
    for starts in [Start::Earliest, Start::Latest, Start::Timestamp(1)] {
        let (cluster, _client, mut consumer) = start(starts).await;
        until("a place", || cluster.stats().requests_of(ApiKey::FETCH) > 0).await;
        for round in 0..10 {
            cluster.move_leader("t", 0, round % 3 + 1).unwrap();
            tokio::time::sleep(ms(700)).await;
        }
        write(&cluster, 1).await;
        let mut last = -1;
        while last < 5 {
            last = *offsets(&mut consumer, 1).await.last().unwrap();
        }
        assert_quiet(&mut consumer).await;
    }
}

/// Written to a partition before anybody here knew of it.
#[tokio::test(start_paused = true)]
async fn a_partition_found_later_is_read_from_its_beginning() {
    for starts in [Start::Latest, Start::Timestamp(i64::MAX), Start::Earliest] {
        let (cluster, _client, mut consumer) = start(starts).await;
        until("a place", || cluster.stats().requests_of(ApiKey::FETCH) > 0).await;
        if starts == Start::Earliest {
            offsets(&mut consumer, 5).await;
        }
        cluster.create_partitions("t", 2).unwrap();
        let writer = connect(virtual_cluster::client(&cluster, 77)).await;
        let producer = writer.producer().build().unwrap();
        for _ in 0..3 {
            acked(&producer, pinned(1)).await;
        }
        assert_eq!(consumer.assignment().len(), 1, "{starts:?}");
        // Noticed with the periodic refresh.
        tokio::time::sleep(secs(1_000)).await;
        assert_eq!(consumer.assignment().len(), 2);
        assert_offsets(&offsets(&mut consumer, 3).await, 0, 3);
        assert_quiet(&mut consumer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_topic_found_later_is_read_from_its_beginning() {
    let cluster = Cluster::builder().brokers(3).tcp(false).start_on_current_runtime().unwrap();
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let mut consumer = client.consumer().topics(["t"]).start(Start::Latest).build().unwrap();
    assert_eq!(refusal(&mut consumer).await.kind(), ErrorKind::UnknownTopic);
    cluster.create_topic("t", 1, 3).unwrap();
    write(&cluster, 3).await;
    assert_offsets(&offsets(&mut consumer, 3).await, 0, 3);
}

/// What is written between two questions is answered by neither: each of them is late once.
#[tokio::test(start_paused = true)]
async fn nothing_falls_between_the_questions_for_a_time() {
    for late in 0..3 {
        let (cluster, client, _consumer) = start(Start::Earliest).await;
        until("a start", || cluster.stats().requests_of(ApiKey::LIST_OFFSETS) > 0).await;
        let future = 2_000_000_000_000;
        let slow = FaultRule::new(Fault::DelayResponse(secs(2))).api(ApiKey::LIST_OFFSETS);
        let rule = cluster.faults().inject(slow.after(late));
        let from = client.consumer().assign([("t", 0, Start::Timestamp(future))]);
        let mut consumer = from.build().unwrap();
        tokio::time::sleep(secs(1)).await;
        let writer = connect(virtual_cluster::client(&cluster, 77)).await;
        let producer = writer.producer().build().unwrap();
        acked(&producer, pinned(0).timestamp_ms(future)).await;
        assert_offsets(&offsets(&mut consumer, 1).await, 5, 6);
        cluster.faults().remove(rule);

        let slow = FaultRule::new(Fault::DelayResponse(secs(2))).api(ApiKey::LIST_OFFSETS);
        cluster.faults().inject(slow.after(late));
        let admin = client.admin();
        let asked = admin.list_offsets([("t", 0, OffsetSpec::Timestamp(future + 1))]);
        let (found, ()) = tokio::join!(asked, async {
            tokio::time::sleep(secs(1)).await;
            acked(&producer, pinned(0).timestamp_ms(future + 1)).await;
        });
        assert_eq!(*found.unwrap()[0].1.as_ref().unwrap(), 6, "question {late} was late");
        cluster.faults().clear();
    }
}

#[tokio::test(start_paused = true)]
async fn starts_below_zero_are_refused() {
    let (cluster, client, mut consumer) = start(Start::Earliest).await;
    offsets(&mut consumer, 5).await;
    let asked = cluster.stats().requests_of(ApiKey::LIST_OFFSETS);
    for below in [-1, -2, -3, -4, -62_135_596_800_000, i64::MIN] {
        for starts in [Start::Timestamp(below), Start::Offset(below)] {
            let built = [
                client.consumer().topics(["t"]).start(starts).build().err(),
                client.consumer().assign([("t", 0, starts)]).build().err(),
                consumer.seek("t", 0, starts).err(),
            ];
            for error in built {
                let error = error.expect("an error");
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
                assert!(error.message().contains(&below.to_string()), "{error}");
            }
        }
        let found = client.admin().list_offsets([("t", 0, OffsetSpec::Timestamp(below))]).await;
        assert_eq!(found.unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
    assert_eq!(cluster.stats().requests_of(ApiKey::LIST_OFFSETS), asked);
    assert_eq!(consumer.position("t", 0), Some(5), "a refused seek changes nothing");
}

/// Also while a reader waits, and from where nobody may wait.
#[tokio::test(start_paused = true)]
async fn who_waits_for_records_is_in_nobodys_way() {
    let (_cluster, _client, mut consumer) = start(Start::Earliest).await;
    let control = consumer.control();
    offsets(&mut consumer, 5).await;
    let reader = tokio::spawn(async move {
        let read = offsets(&mut consumer, 2).await;
        (read, consumer.next().await.is_none())
    });
    tokio::time::sleep(secs(10)).await;
    assert_eq!(control.position("t", 0), Some(5));
    assert_eq!(control.assignment().len(), 1);
    control.seek("t", 0, Start::Offset(3)).unwrap();
    until("records", || control.position("t", 0) == Some(5)).await;
    tokio::time::sleep(secs(10)).await;
    control.close().unwrap();
    let (read, ended) = within("the reader's end", reader).await.unwrap();
    assert!(ended && control.is_closed(), "{read:?}");
    assert_offsets(&read, 3, 5);
    assert_eq!(control.seek("t", 0, Start::Earliest).unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn nobody_seeks_in_a_consumer_that_is_closed() {
    let (_cluster, _client, mut consumer) = start(Start::Earliest).await;
    offsets(&mut consumer, 5).await;
    consumer.close().await.unwrap();
    assert_eq!(consumer.seek("t", 0, Start::Earliest).unwrap_err().kind(), ErrorKind::Closed);
}

/// A partition that is not there is told of, and read when it is: brokers hear of it one after the
/// other.
#[tokio::test(start_paused = true)]
async fn a_partition_that_is_assigned_before_it_is_there() {
    let cluster = cluster(3, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let assigned = [("t", 0, Start::Earliest), ("t", 2, Start::Earliest)];
    let reader = client.consumer().assign(assigned).max_wait(secs(20));
    let mut consumer = reader.build().unwrap();
    let error = refusal(&mut consumer).await;
    assert_eq!(error.kind(), ErrorKind::UnknownPartition, "{error}");
    let read = |error: Option<ottla::Result<ottla::Batch>>| error.unwrap().unwrap().partition();
    // Once, however often it is looked for.
    cluster.create_partitions("t", 2).unwrap();
    tokio::time::sleep(secs(1_200)).await;
    assert_quiet(&mut consumer).await;
    cluster.create_partitions("t", 3).unwrap();
    write_to(&cluster, 2).await;
    let next = tokio::time::timeout(secs(1_200), consumer.next()).await;
    assert_eq!(read(next.expect("a record")), 2);
    // Nor is it forgotten where the topic is made anew without it.
    make_anew(&cluster, 1);
    write_to(&cluster, 0).await;
    let error = refusal(&mut consumer).await;
    assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
    assert_eq!(read(within("a record", consumer.next()).await), 0);
    cluster.create_partitions("t", 3).unwrap();
    write_to(&cluster, 2).await;
    let next = tokio::time::timeout(secs(1_200), consumer.next()).await;
    assert_eq!(read(next.expect("a record")), 2);
}

/// What is told of a place that was left by a seek says nothing of where the seek went.
#[tokio::test(start_paused = true)]
async fn a_seek_is_not_undone_by_news_of_the_place_that_was_left() {
    let (cluster, _client, mut consumer) = start(Start::Earliest).await;
    write(&cluster, 5).await;
    assert_offsets(&offsets(&mut consumer, 10).await, 0, 10);
    cluster.elect_uncleanly("t", 0, 2, 7).unwrap();
    // The news waits to be taken.
    tokio::time::sleep(secs(30)).await;
    consumer.seek("t", 0, Start::Offset(2)).unwrap();
    let error = refusal(&mut consumer).await;
    assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
    assert_eq!(consumer.position("t", 0), Some(2));
    assert_offsets(&offsets(&mut consumer, 5).await, 2, 7);
}

/// A time means the same in the topic that was made anew: what is older there is passed over.
#[tokio::test(start_paused = true)]
async fn a_time_that_was_chosen_counts_in_a_topic_made_anew() {
    let cluster = cluster(3, 1);
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let producer = client.producer().build().unwrap();
    let at = |ms| pinned(0).timestamp_ms(ms);
    acked(&producer, at(2_000)).await;
    let reader = client.consumer().assign([("t", 0, Start::Timestamp(1_000))]);
    let mut consumer = reader.build().unwrap();
    offsets(&mut consumer, 1).await;
    // Nobody learns where to start before both records are there.
    let slow = FaultRule::new(Fault::Delay(secs(5))).api(ApiKey::LIST_OFFSETS).always();
    cluster.faults().inject(slow);
    make_anew(&cluster, 1);
    for ms in [500, 3_000] {
        acked(&producer, at(ms)).await;
    }
    let error = refusal(&mut consumer).await;
    assert_eq!(error.kind(), ErrorKind::Truncated, "{error}");
    assert_eq!(offsets(&mut consumer, 1).await, [1]);
}

/// All that is there was written since: an end that was chosen was the old one's.
#[tokio::test(start_paused = true)]
async fn a_partition_whose_end_was_chosen_is_read_from_the_beginning_of_a_topic_made_anew() {
    let cluster = cluster(3, 1);
    write(&cluster, 5).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let mut consumer = client.consumer().assign([("t", 0, Start::Latest)]).build().unwrap();
    until("a place", || cluster.stats().requests_of(ApiKey::FETCH) > 0).await;
    write(&cluster, 5).await;
    assert_offsets(&offsets(&mut consumer, 5).await, 5, 10);
    // Nobody learns where to start before all is written.
    let slow = FaultRule::new(Fault::Delay(secs(5))).api(ApiKey::LIST_OFFSETS).always();
    cluster.faults().inject(slow);
    make_anew(&cluster, 1);
    write(&cluster, 20).await;
    assert_eq!(refusal(&mut consumer).await.kind(), ErrorKind::Truncated);
    assert_offsets(&offsets(&mut consumer, 20).await, 0, 20);
}

/// Each time that a topic goes is news, once it was there in between.
#[tokio::test(start_paused = true)]
async fn a_topic_that_goes_twice_is_told_of_twice() {
    let (cluster, _client, mut consumer) = start(Start::Earliest).await;
    offsets(&mut consumer, 5).await;
    for round in 0..2 {
        cluster.delete_topic("t").unwrap();
        tokio::time::sleep(secs(60)).await;
        let mut told = Vec::new();
        while let Some(next) = consumer.try_next() {
            told.push(next.unwrap_err());
        }
        let missing = told.iter().filter(|error| error.broker_code() == Some(3)).count();
        assert_eq!(missing, 1, "round {round}: {told:?}");
        cluster.create_topic("t", 1, 3).unwrap();
        write(&cluster, 3).await;
        assert_eq!(refusal(&mut consumer).await.kind(), ErrorKind::Truncated, "round {round}");
        assert_offsets(&offsets(&mut consumer, 3).await, 0, 3);
    }
}

/// One broker is cut off, and goes on telling of a topic that was deleted.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_gone_is_told_of_once_whatever_one_broker_says() {
    let mut asked = 0;
    for seed in 0..8 {
        let cluster = cluster(3, 1);
        cluster.move_leader("t", 0, 2).unwrap();
        write(&cluster, 5).await;
        // What keeps the client connected to the broker.
        cluster.create_topic("u", 1, 3).unwrap();
        cluster.move_leader("u", 0, 1).unwrap();
        let client = connect(virtual_cluster::client(&cluster, seed)).await;
        let mut consumer = client.consumer().topics(["t", "u"]).build().unwrap();
        offsets(&mut consumer, 5).await;
        cluster.cut_off_broker(1).unwrap();
        let before = seen(&cluster, 1, ApiKey::METADATA);
        cluster.delete_topic("t").unwrap();
        tokio::time::sleep(secs(900)).await;
        asked += seen(&cluster, 1, ApiKey::METADATA) - before;
        let told = std::iter::from_fn(|| consumer.try_next()).map(|told| told.unwrap_err());
        let told: Vec<_> = told.map(|error| error.to_string()).collect();
        assert_eq!(told.len(), 1, "seed {seed}: {told:#?}");
    }
    assert!(asked >= 8, "the broker that is behind was asked {asked} times only");
}

/// Brokers that did not know it for a while, all of them, make it no topic that is gone.
#[tokio::test(start_paused = true)]
async fn a_topic_that_was_missing_for_a_while_is_read_on() {
    for brokers in [1, 3] {
        let cluster = cluster(brokers, 1);
        write(&cluster, 5).await;
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let mut consumer = client.consumer().topics(["t"]).build().unwrap();
        offsets(&mut consumer, 5).await;
        let missing = FaultRule::new(Fault::Error(3)).api(ApiKey::METADATA).topic("t").always();
        let missing = cluster.faults().inject(missing);
        let lost = FaultRule::new(Fault::Error(6)).api(ApiKey::FETCH).topic("t").times(1);
        cluster.faults().inject(lost);
        assert_eq!(refusal(&mut consumer).await.kind(), ErrorKind::UnknownTopic);
        assert!(cluster.faults().remove(missing));
        write(&cluster, 1).await;
        let begun = tokio::time::Instant::now();
        assert_offsets(&offsets(&mut consumer, 1).await, 5, 6);
        assert!(begun.elapsed() < secs(8), "{:?}", begun.elapsed());
    }
}
