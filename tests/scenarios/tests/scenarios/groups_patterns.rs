//! Topics that are subscribed to by a pattern, and partitions that are assigned where their replicas are. In virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, GroupKind, GroupState};
use ottla::{Assignor, Client, Consumer, ConsumerBuilder, ErrorKind, GroupProtocol, Record, Start};
use ottla_scenarios::steps::{acked, cluster, connect, secs};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};

const GROUP: &str = "g";

async fn client(cluster: &Cluster, seed: u64) -> Client {
    connect(virtual_cluster::client(cluster, seed)).await
}

async fn write(cluster: &Cluster, topics: &[&str]) {
    let client = client(cluster, 77).await;
    let producer = client.producer().build().unwrap();
    for topic in topics {
        acked(&producer, Record::to(topic).partition(0).value(b"v")).await;
    }
}

/// Topics of what was read, once for each record.
type Read = Arc<Mutex<Vec<String>>>;

fn reads(mut consumer: Consumer, read: &Read) -> tokio::task::JoinHandle<()> {
    let read = Arc::clone(read);
    tokio::spawn(async move {
        while let Some(next) = consumer.next().await {
            let Ok(batch) = next else { continue };
            read.lock().unwrap().extend(batch.iter().map(|_| batch.topic().to_owned()));
        }
    })
}

fn sorted(read: &Read) -> Vec<String> {
    let mut read = read.lock().unwrap().clone();
    read.sort();
    read
}

fn asked(cluster: &Cluster, api: ApiKey) -> u64 {
    cluster.stats().broker(1).map_or(0, |broker| broker.requests_of(api))
}

async fn both(check: impl AsyncFn(GroupProtocol)) {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Next] {
        check(protocol).await;
    }
}

/// Whole names, beside one that is named; also topics that come later, from their first record.
#[tokio::test(start_paused = true)]
async fn what_matches_is_read() {
    both(async |protocol| {
        let cluster = cluster(1, 1);
        for topic in ["pay-in", "pay-out", "prepay-in", "pay"] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        write(&cluster, &["t", "pay-in", "pay-out", "prepay-in", "pay"]).await;
        let client = client(&cluster, 1).await;
        let read = Read::default();
        let member = client.consumer().group(GROUP).topics(["t", "^pay-.*"]);
        let reader = reads(member.group_protocol(protocol).build().unwrap(), &read);
        until("all is read", || read.lock().unwrap().len() >= 3).await;
        cluster.create_topic("pay-back", 1, 1).unwrap();
        write(&cluster, &["pay-back"]).await;
        tokio::time::sleep(secs(400)).await;
        assert_eq!(sorted(&read), ["pay-back", "pay-in", "pay-out", "t"]);
        reader.abort();
    })
    .await;
}

/// What begins at the end misses nothing of a topic that was not there when it subscribed.
#[tokio::test(start_paused = true)]
async fn a_topic_that_comes_to_match_is_read_from_its_first_record() {
    let cluster = cluster(1, 1);
    cluster.create_topic("pay-in", 1, 1).unwrap();
    let client = client(&cluster, 1).await;
    let read = Read::default();
    let member = client.consumer().group(GROUP).topics(["^pay-.*"]).start(Start::Latest);
    let member = member.group_protocol(GroupProtocol::Classic).build().unwrap();
    let reader = reads(member, &read);
    until("it is a member", || {
        cluster.group(GROUP).is_some_and(|group| group.state == GroupState::Stable)
    })
    .await;
    cluster.create_topic("pay-out", 1, 1).unwrap();
    write(&cluster, &["pay-out"]).await;
    tokio::time::sleep(secs(400)).await;
    assert_eq!(sorted(&read), ["pay-out"]);
    reader.abort();
}

#[tokio::test(start_paused = true)]
async fn a_pattern_is_subscribed_to_and_left_while_it_runs() {
    both(async |protocol| {
        let cluster = cluster(1, 1);
        cluster.create_topic("pay-in", 1, 1).unwrap();
        write(&cluster, &["t", "pay-in"]).await;
        let client = client(&cluster, 1).await;
        let member = client.consumer().group(GROUP).topics(["t"]).group_protocol(protocol);
        let mut consumer = member.build().unwrap();
        let topic = |batch: ottla::Batch| batch.topic().to_owned();
        let next = within("a batch", consumer.next()).await.unwrap().unwrap();
        assert_eq!(topic(next), "t");
        consumer.subscribe(["^pay-.*"]).unwrap();
        let next = within("another", consumer.next()).await.unwrap().unwrap();
        assert_eq!(topic(next), "pay-in");
        write(&cluster, &["t", "pay-in"]).await;
        let next = within("another", consumer.next()).await.unwrap().unwrap();
        assert_eq!(topic(next), "pay-in");
        consumer.subscribe(["t"]).unwrap();
        let next = within("another", consumer.next()).await.unwrap().unwrap();
        assert_eq!(topic(next), "t");
    })
    .await;
}

/// Brokers whose next generation has no patterns yet: the group is a classic one.
#[tokio::test(start_paused = true)]
async fn who_knows_no_patterns_is_a_classic_coordinator() {
    let cluster = Cluster::builder().brokers(1).tcp(false).topic("pay-in", 1, 1);
    let cluster = cluster.max_version(ApiKey::CONSUMER_GROUP_HEARTBEAT, 0);
    let cluster = cluster.start_on_current_runtime().unwrap();
    write(&cluster, &["pay-in"]).await;
    let client = client(&cluster, 1).await;
    let mut member = client.consumer().group(GROUP).topics(["^pay-.*"]).build().unwrap();
    within("a batch", member.next()).await.unwrap().unwrap();
    assert_eq!(cluster.group(GROUP).unwrap().kind, GroupKind::Classic);
    let looks = asked(&cluster, ApiKey::METADATA);
    tokio::time::sleep(secs(60)).await;
    assert!(
        asked(&cluster, ApiKey::METADATA) <= looks + 1,
        "all topics are looked at now and then"
    );
}

/// A classic member looks at all topics before it joins: as long as nobody shows them, it asks less and less often.
#[tokio::test(start_paused = true)]
async fn a_look_that_fails_before_the_join_is_not_repeated_in_a_hurry() {
    let cluster = cluster(1, 1);
    cluster.create_topic("pay-in", 1, 1).unwrap();
    write(&cluster, &["pay-in"]).await;
    let client = client(&cluster, 1).await;
    let cut = FaultRule::new(Fault::CutBeforeAppend).api(ApiKey::METADATA).always();
    let cut = cluster.faults().inject(cut);
    let before = cluster.faults().fired();
    let member = client.consumer().group(GROUP).topics(["^pay-.*"]);
    let mut member = member.group_protocol(GroupProtocol::Classic).build().unwrap();
    let minute = tokio::time::sleep(secs(60));
    tokio::pin!(minute);
    loop {
        tokio::select! {
            () = &mut minute => break,
            told = member.next() => assert!(!told.unwrap().unwrap_err().is_fatal()),
        }
    }
    let asked = cluster.faults().fired() - before;
    assert!((2..=120).contains(&asked), "{asked} in a minute");
    assert!(cluster.group(GROUP).is_none_or(|group| group.members.is_empty()));
    cluster.faults().remove(cut);
    while within("a batch", member.next()).await.unwrap().is_err() {}
}

/// Whoever takes a static member's place says what it subscribes to, and that there is no pattern any more.
#[tokio::test(start_paused = true)]
async fn a_former_pattern_of_a_static_member_is_taken_back() {
    let cluster = cluster(1, 1);
    cluster.create_topic("pay-in", 1, 1).unwrap();
    write(&cluster, &["t", "pay-in"]).await;
    let client = client(&cluster, 1).await;
    let member = |topic: &str| {
        let member = client.consumer().group(GROUP).topics([topic]).instance_id("i");
        member.group_protocol(GroupProtocol::Next).build().unwrap()
    };
    let mut first = member("^pay-.*");
    let batch = within("a batch", first.next()).await.unwrap().unwrap();
    assert_eq!(batch.topic(), "pay-in");
    drop(batch);
    first.close().await.unwrap();
    let read = Read::default();
    let second = member("t");
    let control = second.control();
    let reader = reads(second, &read);
    until("it reads", || !read.lock().unwrap().is_empty()).await;
    write(&cluster, &["pay-in", "t"]).await;
    tokio::time::sleep(secs(60)).await;
    assert_eq!(sorted(&read), ["t", "t"]);
    let theirs: Vec<String> = control.assignment().iter().map(|of| of.topic.to_string()).collect();
    assert_eq!(theirs, ["t"]);
    reader.abort();
}

/// Where replicas are is only better to know: the group does not wait for it.
#[tokio::test(start_paused = true)]
async fn a_plan_is_made_without_racks_if_nobody_tells_them() {
    let cluster = Cluster::builder().brokers(2).tcp(false).racks(["a", "b"]).topic("t", 4, 1);
    let cluster = cluster.start_on_current_runtime().unwrap();
    let client = connect(virtual_cluster::client(&cluster, 1).rack("a")).await;
    // It knows the topic.
    acked(&client.producer().build().unwrap(), Record::to("t").value(b"v")).await;
    let late = FaultRule::new(Fault::Delay(secs(60))).api(ApiKey::METADATA).always();
    cluster.faults().inject(late);
    let member = client.consumer().group(GROUP).topics(["t"]).assignors([Assignor::Range]);
    let mut member = member.build().unwrap();
    let control = member.control();
    let reading = tokio::spawn(async move { while member.next().await.is_some() {} });
    tokio::time::sleep(secs(20)).await;
    assert_eq!(control.assignment().len(), 4);
    reading.abort();
}

#[tokio::test(start_paused = true)]
async fn a_pattern_that_nobody_can_read_is_refused() {
    let cluster = cluster(1, 1);
    let client = client(&cluster, 1).await;
    let kind = |builder: ConsumerBuilder| builder.build().map(drop).unwrap_err().kind();
    assert_eq!(kind(client.consumer().group(GROUP).topics(["^("])), ErrorKind::InvalidArgument);
    assert_eq!(kind(client.consumer().topics(["^pay-.*"])), ErrorKind::Config);
    let member = client.consumer().group(GROUP).topics(["t"]).build().unwrap();
    let refused = member.subscribe(["^[z-a]"]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

/// KIP-881: each partition goes to a member in the rack of its replica.
#[tokio::test(start_paused = true)]
async fn partitions_are_assigned_where_their_replicas_are() {
    let racks = ["a", "b", "c"];
    let cluster = Cluster::builder().brokers(3).tcp(false).racks(racks).topic("t", 6, 1);
    let cluster = cluster.start_on_current_runtime().unwrap();
    // Members in another order than the racks of the partitions.
    let mut members: BTreeMap<&str, Consumer> = BTreeMap::new();
    for (seed, rack) in ["c", "a", "b"].into_iter().enumerate() {
        let client = virtual_cluster::client(&cluster, seed as u64).rack(rack);
        let client = connect(client).await;
        let member = client.consumer().group(GROUP).topics(["t"]).assignors([Assignor::Range]);
        members.insert(rack, member.instance_id(format!("{}", 3 - seed)).build().unwrap());
    }
    let reading: Vec<_> = members
        .into_iter()
        .map(|(rack, mut member)| {
            let control = member.control();
            let task = tokio::spawn(async move { while member.next().await.is_some() {} });
            (rack, control, task)
        })
        .collect();
    until("all are members", || {
        cluster.group(GROUP).is_some_and(|g| g.state == GroupState::Stable && g.members.len() == 3)
    })
    .await;
    tokio::time::sleep(secs(10)).await;
    let writer = client(&cluster, 9).await;
    acked(&writer.producer().build().unwrap(), Record::to("t").value(b"v")).await;
    let topic = &writer.cluster().topics["t"];
    for (rack, control, task) in reading {
        let at = racks.iter().position(|of| *of == rack).unwrap() as i32 + 1;
        let theirs: BTreeSet<i32> = control.assignment().iter().map(|of| of.partition).collect();
        let led: BTreeSet<i32> = (0..)
            .zip(&topic.partitions)
            .filter(|(_, partition)| partition.leader == Some(at))
            .map(|(partition, _)| partition)
            .collect();
        assert_eq!(theirs, led, "{rack}");
        task.abort();
    }
}
