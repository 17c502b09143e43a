//! One partition read by itself: in order, whoever reads the others, and whatever ends it nothing is lost.

use std::future::poll_fn;
use std::task::Poll;

use ottla::testing::Cluster;
use ottla::{
    Batch, Client, Commit, Consumer, ErrorKind, Event, PartitionStream, Record, Start, StreamEnd,
};
use ottla_scenarios::hostile::Hostile;
use ottla_scenarios::steps::{acked, cluster, connect, ms, secs, small_batches};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};

/// So many records in each of the partitions, each a batch of its own.
async fn write(cluster: &Cluster, count: usize) {
    let client = connect(virtual_cluster::client(cluster, 77)).await;
    let producer = small_batches(&client).build().unwrap();
    for partition in 0..cluster.partitions("t").unwrap() {
        for _ in 0..count {
            acked(&producer, Record::to("t").partition(partition).value(&[7; 700])).await;
        }
    }
}

/// One that reads the two partitions of a topic.
async fn reader(cluster: &Cluster) -> (Client, Consumer) {
    let client = connect(virtual_cluster::client(cluster, 1)).await;
    let parts = [("t", 0, Start::Earliest), ("t", 1, Start::Earliest)];
    let consumer = client.consumer().assign(parts).build().unwrap();
    (client, consumer)
}

fn member(client: &Client, commit: Commit) -> Consumer {
    client.consumer().group("g").topics(["t"]).commit(commit).build().unwrap()
}

fn offsets(batch: &Batch) -> Vec<i64> {
    batch.iter().map(|record| record.offset()).collect()
}

async fn next(consumer: &mut Consumer) -> (i32, i64) {
    let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
    (batch.partition(), batch.base_offset())
}

async fn next_of(stream: &mut PartitionStream) -> Batch {
    let batch = within("a batch of its own", stream.next()).await.unwrap().unwrap();
    assert_eq!((batch.topic(), batch.partition()), (stream.topic(), stream.partition()));
    batch
}

/// The offsets of so many batches.
async fn read(stream: &mut PartitionStream, count: usize) -> Vec<i64> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.extend(offsets(&next_of(stream).await));
    }
    all
}

async fn is_pending(stream: &mut PartitionStream) -> bool {
    poll_fn(|cx| Poll::Ready(stream.poll_next(cx).is_pending())).await
}

async fn nothing_comes(consumer: &mut Consumer) {
    let waits = tokio::time::timeout(secs(5), consumer.next()).await;
    assert!(waits.is_err(), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_its_partition_and_the_consumer_the_others() {
    let cluster = cluster(3, 2);
    write(&cluster, 5).await;
    let (_client, mut consumer) = reader(&cluster).await;
    let mut stream = consumer.partition_stream("t", 1).unwrap();
    for at in 0..5 {
        assert_eq!(next(&mut consumer).await, (0, at));
    }
    nothing_comes(&mut consumer).await;
    assert_eq!(read(&mut stream, 5).await, [0, 1, 2, 3, 4]);
    assert!(is_pending(&mut stream).await && stream.end().is_none());
    // What comes later wakes who reads it, and nobody has to ask the consumer.
    let waits = tokio::spawn(async move { (offsets(&next_of(&mut stream).await), stream) });
    write(&cluster, 1).await;
    let (got, mut stream) = within("the next", waits).await.unwrap();
    assert_eq!(got, [5]);
    assert_eq!((next(&mut consumer).await, consumer.position("t", 1)), ((0, 5), Some(6)));
    within("close", consumer.close()).await.unwrap();
    assert!(within("the end", stream.next()).await.is_none());
    assert_eq!(stream.end(), Some(StreamEnd::Closed));
}

#[tokio::test(start_paused = true)]
async fn what_has_a_stream_has_one_and_is_read() {
    let cluster = cluster(1, 2);
    let (_client, mut consumer) = reader(&cluster).await;
    let kind = |consumer: &mut Consumer, partition| {
        consumer.partition_stream("t", partition).err().map(|error| error.kind())
    };
    assert_eq!(kind(&mut consumer, 2), Some(ErrorKind::UnknownPartition));
    let stream = consumer.partition_stream("t", 0).unwrap();
    assert_eq!(kind(&mut consumer, 0), Some(ErrorKind::InvalidArgument));
    drop(stream);
    assert_eq!(kind(&mut consumer, 0), None);
    within("close", consumer.close()).await.unwrap();
    assert_eq!(kind(&mut consumer, 0), Some(ErrorKind::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_loses_nothing() {
    let cluster = cluster(1, 2);
    write(&cluster, 4).await;
    let (_client, mut consumer) = reader(&cluster).await;
    let mut stream = consumer.partition_stream("t", 1).unwrap();
    assert_eq!(read(&mut stream, 2).await, [0, 1]);
    // A wait that is given up takes nothing.
    for _ in 0..3 {
        let waits = tokio::time::timeout(ms(0), stream.next()).await;
        if let Ok(batch) = waits {
            assert_eq!(offsets(&batch.unwrap().unwrap()), [2]);
            break;
        }
    }
    let position = consumer.position("t", 1).unwrap();
    drop(stream);
    let mut rest = Vec::new();
    while consumer.lag("t", 1) != Some(0) || consumer.lag("t", 0) != Some(0) {
        let (partition, at) = next(&mut consumer).await;
        if partition == 1 {
            rest.push(at);
        }
    }
    assert_eq!(rest, (position..4).collect::<Vec<_>>());
    // Another one goes on where that was.
    write(&cluster, 1).await;
    let mut stream = consumer.partition_stream("t", 1).unwrap();
    assert_eq!(read(&mut stream, 1).await, [4]);
}

/// It is steered as ever, by the consumer.
#[tokio::test(start_paused = true)]
async fn pause_seek_and_the_end_of_an_assignment_reach_a_stream() {
    let cluster = cluster(1, 2);
    write(&cluster, 5).await;
    let (_client, mut consumer) = reader(&cluster).await;
    let mut stream = consumer.partition_stream("t", 1).unwrap();
    assert_eq!(read(&mut stream, 2).await, [0, 1]);
    consumer.pause([("t", 1)]).unwrap();
    let waits = tokio::time::timeout(secs(5), stream.next()).await;
    assert!(waits.is_err(), "{waits:?}");
    let control = consumer.control();
    let (resumed, got) = tokio::join!(
        async move {
            tokio::time::sleep(secs(1)).await;
            control.resume([("t", 1)])
        },
        read(&mut stream, 1)
    );
    resumed.unwrap();
    assert_eq!(got, [2]);
    consumer.seek("t", 1, Start::Offset(1)).unwrap();
    assert_eq!(read(&mut stream, 4).await, [1, 2, 3, 4]);
    let control = consumer.control();
    let (left, end) = tokio::join!(
        async move {
            tokio::time::sleep(secs(1)).await;
            control.unassign([("t", 1)])
        },
        within("its end", stream.next())
    );
    left.unwrap();
    assert!(end.is_none() && stream.end() == Some(StreamEnd::Left));
    // One of the same name is another one.
    consumer.assign([("t", 1, Start::Earliest)]).unwrap();
    assert!(within("its end", stream.next()).await.is_none());
    let mut other = consumer.partition_stream("t", 1).unwrap();
    drop(stream);
    assert_eq!(read(&mut other, 5).await, [0, 1, 2, 3, 4]);
}

/// Workers have what has no stream.
#[tokio::test(start_paused = true)]
async fn a_stream_beside_workers() {
    let cluster = cluster(1, 2);
    write(&cluster, 5).await;
    let (_client, mut consumer) = reader(&cluster).await;
    let mut stream = consumer.partition_stream("t", 1).unwrap();
    let control = consumer.control();
    let done = std::cell::RefCell::new(Vec::new());
    let run = consumer.run(4, async |batch: Batch| {
        assert_eq!(batch.partition(), 0);
        done.borrow_mut().extend(offsets(&batch));
        Ok::<_, ottla::Error>(())
    });
    let reads = async {
        let got = read(&mut stream, 5).await;
        until("the workers' share", || done.borrow().len() == 5).await;
        control.close().unwrap();
        (got, stream.next().await.is_none())
    };
    let (ran, got) = tokio::join!(within("the end", run), reads);
    ran.unwrap();
    assert_eq!(got, (vec![0, 1, 2, 3, 4], true));
}

/// Who does not read does not keep the others from reading, and little is fetched for him.
#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_is_in_nobodys_way() {
    let cluster = cluster(1, 2);
    let writer = connect(virtual_cluster::client(&cluster, 77)).await;
    let producer = writer.producer().compression(ottla::Compression::None).build().unwrap();
    let value = vec![7; 100 << 10];
    for _ in 0..100 {
        for partition in 0..2 {
            acked(&producer, Record::to("t").partition(partition).value(&value[..])).await;
        }
    }
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let parts = [("t", 0, Start::Earliest), ("t", 1, Start::Earliest)];
    let builder = client.consumer().assign(parts).max_bytes(1 << 20).buffer_memory(2 << 20);
    let mut consumer = builder.build().unwrap();
    let mut stream = consumer.partition_stream("t", 1).unwrap();
    for at in 0..100 {
        assert_eq!(next(&mut consumer).await, (0, at));
    }
    // And the other way round: what nobody takes of the consumer is not in the stream's way.
    let wrote = async {
        for _ in 0..100 {
            acked(&producer, Record::to("t").partition(0).value(&value[..])).await;
        }
    };
    wrote.await;
    assert_eq!(read(&mut stream, 100).await, (0..100).collect::<Vec<_>>());
    assert_eq!(next(&mut consumer).await, (0, 100));
}

/// What a stream has been asked for is committed, and a group that takes the partition away ends it with a word.
#[tokio::test(start_paused = true)]
async fn a_group_commits_what_streams_have_done_and_ends_them() {
    let cluster = cluster(3, 2);
    write(&cluster, 4).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let mut consumer = member(&client, Commit::Marks);
    let assigned = within("an assignment", consumer.next_event()).await.unwrap().unwrap();
    let Event::Assigned(parts) = assigned else { panic!("{assigned:?}") };
    assert_eq!(parts.len(), 2);
    let mut streams: Vec<PartitionStream> =
        (0..2).map(|p| consumer.partition_stream("t", p).unwrap()).collect();
    assert_eq!(read(&mut streams[0], 3).await, [0, 1, 2]);
    assert_eq!(read(&mut streams[1], 2).await, [0, 1]);
    let committed = |partition| {
        let group = cluster.group("g").unwrap();
        group.committed("t", partition).map_or(0, |at| at.offset)
    };
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!((committed(0), committed(1)), (2, 1), "what is in hand is not done");
    // Another member: one of the partitions goes there, and the consumer tells of it.
    let other = connect(virtual_cluster::client(&cluster, 2)).await;
    let mut other = member(&other, Commit::Marks);
    let gives = async {
        let given = loop {
            let event = within("news of the group", consumer.next_event()).await;
            if let Event::GivingUp { partitions, .. } = event.unwrap().unwrap() {
                break partitions;
            }
        };
        // Each is asked for the next: what was in hand is done.
        let is_given = |p: usize| given.iter().any(|part| part.partition == p as i32);
        for p in (0..2).filter(|p| is_given(*p)) {
            let stream = &mut streams[p];
            assert!(within("its end", stream.next()).await.is_none());
            assert_eq!(stream.end(), Some(StreamEnd::GivenUp));
        }
        while consumer.next_event().await.is_some() {}
        panic!("it was closed");
    };
    let first = async {
        loop {
            let event = within("the other's", other.next_event()).await.unwrap().unwrap();
            if let Event::Batch(batch) = event {
                break (batch.partition(), batch.base_offset());
            }
        }
    };
    let (partition, at) = tokio::select! {
        biased;
        first = first => first,
        () = gives => unreachable!(),
    };
    assert_eq!(at, [3, 2][partition as usize]);
}

/// The group takes a partition away while nobody asks for the next: nothing of it is handed out after that, what is done is
/// committed once that is said, and who comes back hears why.
#[tokio::test(start_paused = true)]
async fn a_partition_that_goes_between_two_asks_takes_along_what_is_done() {
    let cluster = cluster(3, 2);
    write(&cluster, 4).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let mut consumer = member(&client, Commit::Marks);
    within("an assignment", consumer.next_event()).await.unwrap().unwrap();
    let mut streams: Vec<PartitionStream> =
        (0..2).map(|p| consumer.partition_stream("t", p).unwrap()).collect();
    let mut held = Vec::new();
    for stream in &mut streams {
        assert_eq!(read(stream, 1).await, [0]);
        held.push(next_of(stream).await);
    }
    // The last batch is done with before anything is asked for.
    held.iter().for_each(Batch::ack);
    let other = connect(virtual_cluster::client(&cluster, 2)).await;
    let mut other = member(&other, Commit::Marks);
    let drives = async { while consumer.next_event().await.is_some() {} };
    let first = async {
        loop {
            let event = within("the other's", other.next_event()).await.unwrap().unwrap();
            if let Event::Batch(batch) = event {
                break (batch.partition() as usize, batch.base_offset());
            }
        }
    };
    let (partition, at) = tokio::select! {
        biased;
        first = first => first,
        () = drives => panic!("it was closed"),
    };
    assert_eq!(at, 2, "what was done, and no more");
    let stays = 1 - partition;
    assert!(within("its end", streams[partition].next()).await.is_none());
    assert_eq!(streams[partition].end(), Some(StreamEnd::GivenUp));
    assert_eq!(read(&mut streams[stays], 2).await, [2, 3]);
}

/// By hand, too: whoever hears the end of a stream has time to commit what he has finished, though somebody else waits.
#[tokio::test(start_paused = true)]
async fn what_a_stream_has_done_may_be_committed_by_hand_at_its_end() {
    for commit in [Commit::Manual, Commit::ManualAcked] {
        let cluster = cluster(3, 1);
        write(&cluster, 2).await;
        let client = connect(virtual_cluster::client(&cluster, 1)).await;
        let mut consumer = member(&client, commit);
        within("an assignment", consumer.next_event()).await.unwrap().unwrap();
        let mut stream = consumer.partition_stream("t", 0).unwrap();
        let batch = next_of(&mut stream).await;
        let control = consumer.control();
        // It does not take events.
        let waits = tokio::spawn(async move { consumer.next().await.is_none() });
        // The only partition goes elsewhere.
        control.subscribe(["u"]).unwrap();
        if commit == Commit::ManualAcked {
            batch.ack();
        }
        drop(batch);
        let end = async {
            while stream.next().await.is_some() {}
            stream.end()
        };
        assert_eq!(within("its end", end).await, Some(StreamEnd::GivenUp));
        tokio::time::sleep(secs(1)).await;
        within("a commit", control.commit()).await.unwrap();
        let committed = cluster.group("g").unwrap().committed("t", 0).map_or(0, |at| at.offset);
        assert!(committed >= 1, "{commit:?}: {committed}");
        drop(stream);
        control.close().unwrap();
        assert!(within("the end", waits).await.unwrap());
    }
}

/// One batch was damaged on its way: the stream tells so, and whoever ends there has not passed it over.
#[tokio::test(start_paused = true)]
async fn what_a_stream_could_not_read_is_told_again_if_it_ends_there() {
    let cluster = cluster(1, 1);
    write(&cluster, 3).await;
    let hostile = Hostile::new(&cluster);
    let client = connect(hostile.client(&cluster)).await;
    hostile.change_batches(|mut batch| {
        if batch[..8] == 1i64.to_be_bytes() {
            let last = batch.len() - 1;
            batch[last] ^= 1;
        }
        batch
    });
    let mut consumer = member(&client, Commit::Marks);
    within("an assignment", consumer.next_event()).await.unwrap().unwrap();
    let mut stream = consumer.partition_stream("t", 0).unwrap();
    assert_eq!(read(&mut stream, 1).await, [0]);
    let error = within("the damage", stream.next()).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.unreadable()), (ErrorKind::Corrupt, Some(("t", 0, 1))));
    drop(stream);
    let again = within("the damage", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(again.unreadable(), Some(("t", 0, 1)));
    // Who asks for the next passes it over.
    assert_eq!(next(&mut consumer).await, (0, 2));
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(cluster.group("g").unwrap().committed("t", 0).map(|at| at.offset), Some(2));
}

/// By acknowledgement, what was handed out is the application's, stream or not.
#[tokio::test(start_paused = true)]
async fn what_a_stream_had_handed_out_is_acknowledged_after_it_is_gone() {
    let cluster = cluster(1, 1);
    write(&cluster, 3).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let mut consumer = member(&client, Commit::Acked);
    within("an assignment", consumer.next_event()).await.unwrap().unwrap();
    let mut stream = consumer.partition_stream("t", 0).unwrap();
    let (first, second) = (next_of(&mut stream).await, next_of(&mut stream).await);
    drop(stream);
    let third = within("a batch", consumer.next()).await.unwrap().unwrap();
    assert_eq!(third.base_offset(), 2, "what is the application's does not come again");
    let committed = || cluster.group("g").unwrap().committed("t", 0).map_or(0, |at| at.offset);
    second.ack();
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(committed(), 0);
    first.ack();
    within("a commit", consumer.commit()).await.unwrap();
    assert_eq!(committed(), 2);
}

/// Nobody has finished what a stream had in hand when it was dropped, unless that was said.
#[tokio::test(start_paused = true)]
async fn what_a_stream_had_in_hand_comes_again() {
    let cluster = cluster(1, 1);
    write(&cluster, 4).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let mut consumer = member(&client, Commit::Marks);
    within("an assignment", consumer.next_event()).await.unwrap().unwrap();
    let mut stream = consumer.partition_stream("t", 0).unwrap();
    assert_eq!(read(&mut stream, 2).await, [0, 1]);
    drop(stream);
    assert_eq!(next(&mut consumer).await, (0, 1));
    let mut stream = consumer.partition_stream("t", 0).unwrap();
    let batch = next_of(&mut stream).await;
    assert_eq!(batch.base_offset(), 2);
    batch.ack();
    drop((stream, batch));
    assert_eq!(next(&mut consumer).await, (0, 3));
    // After a seek it is not wanted.
    let mut stream = consumer.partition_stream("t", 0).unwrap();
    consumer.seek("t", 0, Start::Offset(0)).unwrap();
    assert_eq!(read(&mut stream, 1).await, [0]);
    consumer.seek("t", 0, Start::Offset(2)).unwrap();
    drop(stream);
    assert_eq!(next(&mut consumer).await, (0, 2));
    within("close", consumer.close()).await.unwrap();
}

/// Who waits for positions hears of one that a stream has reached.
#[tokio::test(start_paused = true)]
async fn a_wait_for_positions_ends_where_a_stream_reaches_the_last() {
    let cluster = cluster(1, 2);
    write(&cluster, 2).await;
    let (_client, mut consumer) = reader(&cluster).await;
    let mut stream = consumer.partition_stream("t", 1).unwrap();
    let part = ottla::TopicPartition { topic: "t".into(), partition: 1 };
    let ends = [(part, 2)];
    assert_eq!((next(&mut consumer).await, next(&mut consumer).await), ((0, 0), (0, 1)));
    let reads = async {
        tokio::time::sleep(secs(5)).await;
        read(&mut stream, 2).await
    };
    let (end, got) = tokio::join!(within("the end", consumer.next_until(&ends)), reads);
    assert!(end.is_none() && got == [0, 1]);
}

/// One that waits does not stand for one that has a batch in hand and does not come back.
#[tokio::test(start_paused = true)]
async fn a_stream_that_hangs_is_noticed_whatever_the_others_do() {
    let cluster = cluster(1, 2);
    write(&cluster, 2).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let builder = client.consumer().group("g").topics(["t"]).max_poll_interval(secs(20));
    let mut consumer = builder.build().unwrap();
    within("an assignment", consumer.next_event()).await.unwrap().unwrap();
    let mut stream = consumer.partition_stream("t", 1).unwrap();
    assert_eq!(offsets(&next_of(&mut stream).await), [0]);
    let lost = async {
        loop {
            match consumer.next_event().await.unwrap().unwrap() {
                Event::Lost(parts) => break parts.len(),
                _ => continue,
            }
        }
    };
    assert_eq!(tokio::time::timeout(secs(60), lost).await.expect("it is noticed"), 2);
    assert!(within("its end", stream.next()).await.is_none());
    assert_eq!(stream.end(), Some(StreamEnd::Lost));
}

/// What a stream had in hand when it was dropped is not waited for.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_behind_a_close_keeps_nobody() {
    let cluster = cluster(1, 1);
    write(&cluster, 3).await;
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let mut consumer = member(&client, Commit::Marks);
    within("an assignment", consumer.next_event()).await.unwrap().unwrap();
    let mut stream = consumer.partition_stream("t", 0).unwrap();
    assert_eq!(read(&mut stream, 2).await, [0, 1]);
    consumer.control().close().unwrap();
    tokio::time::sleep(ms(100)).await;
    drop(stream);
    let left = until("it has left", || cluster.group("g").unwrap().members.is_empty());
    tokio::time::timeout(secs(3), left).await.expect("nobody has it in hand");
    assert_eq!(cluster.group("g").unwrap().committed("t", 0).map(|at| at.offset), Some(1));
}

/// Each has a share of the memory, and who waits with nothing is fetched for however full it is.
#[tokio::test(start_paused = true)]
async fn streams_that_nobody_reads_leave_the_others_their_memory() {
    let cluster = cluster(1, 8);
    let writer = connect(virtual_cluster::client(&cluster, 77)).await;
    let producer = writer.producer().compression(ottla::Compression::None).build().unwrap();
    let value = vec![7; 100 << 10];
    for _ in 0..30 {
        for partition in 0..8 {
            acked(&producer, Record::to("t").partition(partition).value(&value[..])).await;
        }
    }
    let client = connect(virtual_cluster::client(&cluster, 1)).await;
    let parts: Vec<_> = (0..8).map(|partition| ("t", partition, Start::Earliest)).collect();
    let builder = client.consumer().assign(parts).max_bytes(1 << 20).buffer_memory(2 << 20);
    let mut consumer = builder.build().unwrap();
    let mut streams: Vec<PartitionStream> =
        (1..8).map(|partition| consumer.partition_stream("t", partition).unwrap()).collect();
    for at in 0..30 {
        assert_eq!(next(&mut consumer).await, (0, at));
    }
    // One after the other, while nobody reads the rest.
    for stream in &mut streams {
        assert_eq!(read(stream, 30).await, (0..30).collect::<Vec<_>>());
    }
}
