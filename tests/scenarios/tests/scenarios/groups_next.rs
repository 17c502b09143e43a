//! Members of the next generation (KIP-848), and the choice between the two protocols, in virtual time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use ottla::testing::{ApiKey, Cluster, Fault, FaultRule, GroupKind, GroupState};
use ottla::{
    Assignor, Client, Commit, Consumer, ConsumerBuilder, ErrorKind, Event, GroupProtocol, Record,
};
use ottla_scenarios::steps::{acked, cluster, connect, secs, small_batches};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};

const GROUP: &str = "g";

async fn write(cluster: &Cluster, partitions: std::ops::Range<i32>, count: usize) {
    let client = connect(virtual_cluster::client(cluster, 77)).await;
    let producer = small_batches(&client).build().unwrap();
    for partition in partitions {
        for _ in 0..count {
            acked(&producer, Record::to("t").partition(partition).value(&[7; 700])).await;
        }
    }
}

async fn client(cluster: &Cluster, seed: u64) -> Client {
    connect(virtual_cluster::client(cluster, seed)).await
}

fn member(client: &Client) -> ConsumerBuilder {
    client.consumer().group(GROUP).topics(["t"])
}

fn kind(cluster: &Cluster) -> GroupKind {
    cluster.group(GROUP).unwrap().kind
}

fn is_settled(cluster: &Cluster, members: usize) -> bool {
    cluster
        .group(GROUP)
        .is_some_and(|g| g.state == GroupState::Stable && g.members.len() == members)
}

/// Partition and offset of what was read.
type Read = Arc<Mutex<Vec<(i32, i64)>>>;

fn reads(mut consumer: Consumer, read: &Read) -> tokio::task::JoinHandle<()> {
    let read = Arc::clone(read);
    tokio::spawn(async move {
        while let Some(next) = consumer.next().await {
            // What is told passes.
            let Ok(batch) = next else { continue };
            let places = batch.iter().map(|record| (batch.partition(), record.offset()));
            read.lock().unwrap().extend(places);
        }
    })
}

fn partitions(read: &Read) -> BTreeSet<i32> {
    read.lock().unwrap().iter().map(|(partition, _)| *partition).collect()
}

#[tokio::test(start_paused = true)]
async fn auto_begins_the_next_generation_where_nothing_speaks_against_it() {
    let cluster = cluster(1, 2);
    write(&cluster, 0..2, 1).await;
    let client = client(&cluster, 1).await;
    let mut one = member(&client).build().unwrap();
    within("a batch", one.next()).await.unwrap().unwrap();
    assert_eq!(kind(&cluster), GroupKind::Consumer);
    assert_eq!(asked(&cluster, ApiKey::FIND_COORDINATOR), 1, "who it is was known by then");
    // A group that it left behind is no live one either.
    one.close().await.unwrap();
    let mut one = member(&client).build().unwrap();
    within("a batch", one.next()).await.unwrap().unwrap();
    assert_eq!(kind(&cluster), GroupKind::Consumer);
}

/// One member of the next generation would convert the group for all: with another assignor, and nobody asked.
#[tokio::test(start_paused = true)]
async fn auto_leaves_a_live_classic_group_what_it_is() {
    let cluster = cluster(1, 2);
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    let read = Read::default();
    let classic =
        reads(member(&one).group_protocol(GroupProtocol::Classic).build().unwrap(), &read);
    until("it is a member", || is_settled(&cluster, 1)).await;
    let auto = reads(member(&two).build().unwrap(), &read);
    until("both are members", || is_settled(&cluster, 2)).await;
    assert_eq!(kind(&cluster), GroupKind::Classic);
    // By its own choice, and not because it was refused.
    assert_eq!(asked(&cluster, ApiKey::CONSUMER_GROUP_HEARTBEAT), 0);
    classic.abort();
    auto.abort();
}

fn asked(cluster: &Cluster, api: ApiKey) -> u64 {
    cluster.stats().broker(1).map_or(0, |broker| broker.requests_of(api))
}

#[tokio::test(start_paused = true)]
async fn auto_is_classic_where_that_was_asked_for_or_nothing_else_is_known() {
    let new = cluster(1, 1);
    let old = Cluster::builder().brokers(1).tcp(false).topic("t", 1, 1).consumer_groups(false);
    let old = old.start_on_current_runtime().unwrap();
    // It has the feature, and no look at groups that this client takes.
    let older = Cluster::builder().brokers(1).tcp(false).topic("t", 1, 1);
    let older = older.max_version(ApiKey::DESCRIBE_GROUPS, 4).start_on_current_runtime().unwrap();
    type Set = fn(ConsumerBuilder) -> ConsumerBuilder;
    let cases: [(&Cluster, Set); 4] = [
        (&new, |member| member.assignors([Assignor::Range])),
        (&new, |member| member.session_timeout(secs(20))),
        (&old, |member| member),
        (&older, |member| member),
    ];
    for (cluster, set) in cases {
        write(cluster, 0..1, 1).await;
        let client = client(cluster, 1).await;
        let mut one = set(member(&client)).build().unwrap();
        within("a batch", one.next()).await.unwrap().unwrap();
        assert_eq!(kind(cluster), GroupKind::Classic);
        assert_eq!(asked(cluster, ApiKey::DESCRIBE_GROUPS), 0, "nothing was to be looked up");
        one.close().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_brokers_do_not_have_is_said() {
    let old = Cluster::builder().brokers(1).tcp(false).topic("t", 1, 1);
    for old in
        [old.clone().consumer_groups(false), old.max_version(ApiKey::CONSUMER_GROUP_HEARTBEAT, -1)]
    {
        let cluster = old.start_on_current_runtime().unwrap();
        let client = client(&cluster, 1).await;
        let mut one = member(&client).group_protocol(GroupProtocol::Next).build().unwrap();
        let error = within("an error", one.next()).await.unwrap().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
        assert!(error.to_string().contains("set group_protocol to auto or classic"), "{error}");
        assert!(within("the end", one.next()).await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn an_assignor_of_the_brokers_is_named_or_refused() {
    let cluster = cluster(1, 2);
    let client = client(&cluster, 1).await;
    let mut none = member(&client).remote_assignor("own").build().unwrap();
    let error = within("an error", none.next()).await.unwrap().err().unwrap();
    assert!(error.to_string().contains("UNSUPPORTED_ASSIGNOR"), "{error}");
    assert!(error.to_string().contains("group.consumer.assignors"), "{error}");
    write(&cluster, 0..2, 1).await;
    let mut ranged = member(&client).remote_assignor("range").build().unwrap();
    within("a batch", ranged.next()).await.unwrap().unwrap();
    assert_eq!(cluster.group(GROUP).unwrap().protocol.as_deref(), Some("range"));
}

#[tokio::test(start_paused = true)]
async fn the_group_is_looked_at_again_until_somebody_answers() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 1).await;
    let client = client(&cluster, 1).await;
    for fault in [Fault::Error(15), Fault::CutBeforeAppend, Fault::Error(14)] {
        let rule = FaultRule::new(fault).times(3);
        cluster.faults().inject(rule.clone().api(ApiKey::FIND_COORDINATOR));
        cluster.faults().inject(rule.api(ApiKey::DESCRIBE_GROUPS));
        let mut one = member(&client).build().unwrap();
        within("a batch", one.next()).await.unwrap().unwrap();
        assert_eq!(kind(&cluster), GroupKind::Consumer);
        drop(one);
    }
}

/// s19, as the coordinator of the next generation has it: who is back in time goes on, and the newcomer waits.
#[tokio::test(start_paused = true)]
async fn a_static_member_is_back_and_nobody_else_moves() {
    let cluster = cluster(1, 4);
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    let read = Read::default();
    let other = reads(member(&two).build().unwrap(), &read);
    let mut fixed = member(&one).instance_id("a").build().unwrap();
    let event = within("an event", fixed.next_event()).await.unwrap().unwrap();
    assert!(matches!(event, Event::Assigned(_)), "{event:?}");
    until("it is shared", || {
        let _ = fixed.try_next();
        is_settled(&cluster, 2)
    })
    .await;
    let before = cluster.group(GROUP).unwrap();
    let of = |group: &ottla::testing::GroupInfo| {
        let member = group.members.iter().find(|member| member.instance.is_some()).unwrap();
        member.target.clone()
    };
    fixed.close().await.unwrap();
    tokio::time::sleep(secs(20)).await;
    let mut fixed = member(&one).instance_id("a").build().unwrap();
    let event = within("an event", fixed.next_event()).await.unwrap().unwrap();
    let Event::Assigned(mine) = event else { panic!("{event:?}") };
    assert_eq!(mine.len(), 2);
    let after = cluster.group(GROUP).unwrap();
    assert_eq!(after.assignment_epoch, before.assignment_epoch, "the others were left in peace");
    assert_eq!(of(&after), of(&before));
    // A twin waits until it has gone.
    let mut twin = member(&two).instance_id("a").build().unwrap();
    assert!(tokio::time::timeout(secs(30), twin.next_event()).await.is_err());
    fixed.close().await.unwrap();
    let event = within("an event", twin.next_event()).await.unwrap().unwrap();
    assert!(matches!(&event, Event::Assigned(parts) if parts.len() == 2), "{event:?}");
    other.abort();
}

/// A topic of the same name has come in the place of the old one: it is read from its first record.
#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_is_read_from_its_beginning() {
    let cluster = cluster(1, 2);
    write(&cluster, 0..2, 3).await;
    let client = client(&cluster, 1).await;
    let read = Read::default();
    let reader = reads(member(&client).build().unwrap(), &read);
    until("all is read", || read.lock().unwrap().len() == 6).await;
    tokio::time::sleep(secs(20)).await;
    cluster.delete_topic("t").unwrap();
    tokio::time::sleep(secs(30)).await;
    cluster.create_topic("t", 2, 1).unwrap();
    write(&cluster, 0..2, 2).await;
    until("the new one is read", || read.lock().unwrap().len() >= 10).await;
    let read = read.lock().unwrap().clone();
    for partition in 0..2 {
        let of: Vec<i64> = read.iter().filter(|(p, _)| *p == partition).map(|(_, o)| *o).collect();
        assert_eq!(of, [0, 1, 2, 0, 1], "{read:?}");
    }
    reader.abort();
}

/// The same at once: who has the old one's partition has to give it up before the new one's, of the same name, is its own.
#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_at_once_is_read_from_its_beginning() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 3).await;
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).build().unwrap();
    for _ in 0..3 {
        within("a batch", consumer.next()).await.unwrap().unwrap();
    }
    // The third is in hand meanwhile.
    cluster.delete_topic("t").unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    write(&cluster, 0..1, 2).await;
    tokio::time::sleep(secs(20)).await;
    let mut offsets = Vec::new();
    while offsets.len() < 2 {
        match within("a batch", consumer.next()).await.unwrap() {
            Ok(batch) => offsets.push(batch.base_offset()),
            Err(told) => assert!(!told.is_fatal(), "{told}"),
        }
    }
    assert_eq!(offsets, [0, 1]);
}

/// What was done of the old one is nothing of the new one, whose id comes with a heartbeat and whose name with metadata: a
/// commit names the topic only, and the group would pass over what lies before it.
#[tokio::test(start_paused = true)]
async fn nothing_of_a_topic_that_is_gone_is_committed_for_its_namesake() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 3).await;
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).build().unwrap();
    for _ in 0..3 {
        within("a batch", consumer.next()).await.unwrap().unwrap();
    }
    cluster.delete_topic("t").unwrap();
    cluster.create_topic("t", 1, 1).unwrap();
    write(&cluster, 0..1, 2).await;
    // From here on names come late.
    let late = FaultRule::new(Fault::Delay(secs(4))).api(ApiKey::METADATA).times(2);
    cluster.faults().inject(late);
    let mut offsets = Vec::new();
    while offsets.len() < 2 {
        match within("a batch", consumer.next()).await.unwrap() {
            Ok(batch) => offsets.push(batch.base_offset()),
            Err(told) => assert!(!told.is_fatal(), "{told}"),
        }
    }
    assert_eq!(offsets, [0, 1]);
}

/// Behind a join that is late, and not past it on another connection: nobody would hear of that member any more.
#[tokio::test(start_paused = true)]
async fn a_farewell_comes_behind_the_join() {
    let cluster = cluster(1, 1);
    let client = client(&cluster, 1).await;
    let late = FaultRule::new(Fault::Delay(secs(8))).api(ApiKey::CONSUMER_GROUP_HEARTBEAT);
    cluster.faults().inject(late);
    let mut consumer = member(&client).build().unwrap();
    assert!(tokio::time::timeout(secs(4), consumer.next()).await.is_err());
    consumer.close().await.unwrap();
    tokio::time::sleep(secs(10)).await;
    assert!(asked(&cluster, ApiKey::CONSUMER_GROUP_HEARTBEAT) >= 2, "it has said farewell");
    assert!(cluster.group(GROUP).is_none_or(|group| group.members.is_empty()));
}

/// Others are waited for by nobody: what a member keeps it reads on.
#[tokio::test(start_paused = true)]
async fn what_is_kept_is_read_on_while_the_group_moves() {
    let cluster = cluster(1, 4);
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    let mut slow = member(&one).build().unwrap();
    write(&cluster, 0..4, 1).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 4 {
        seen.insert(within("a batch", slow.next()).await.unwrap().unwrap().partition());
    }
    let read = Read::default();
    let reader = reads(member(&two).build().unwrap(), &read);
    until("it is a member", || cluster.group(GROUP).unwrap().members.len() == 2).await;
    tokio::time::sleep(secs(20)).await;
    // It has not asked: nothing is given up, and the newcomer has nothing.
    write(&cluster, 0..4, 1).await;
    assert!(partitions(&read).is_empty());
    let kept: BTreeSet<i32> = {
        let mut kept = BTreeSet::new();
        for _ in 0..2 {
            kept.insert(within("a batch", slow.next()).await.unwrap().unwrap().partition());
        }
        kept
    };
    assert!(tokio::time::timeout(secs(20), slow.next()).await.is_err());
    let theirs: BTreeSet<i32> = (0..4).filter(|partition| !kept.contains(partition)).collect();
    assert_eq!(partitions(&read), theirs);
    reader.abort();
}

/// The epoch moves with the answers to heartbeats, and commits bear it: each waits for the other.
#[tokio::test(start_paused = true)]
async fn a_heartbeat_and_a_commit_wait_for_one_another() {
    let cluster = cluster(1, 1);
    write(&cluster, 0..1, 3).await;
    let client = client(&cluster, 1).await;
    let mut consumer = member(&client).commit(Commit::Manual).build().unwrap();
    for _ in 0..2 {
        within("a batch", consumer.next()).await.unwrap().unwrap();
    }
    until("it is settled", || is_settled(&cluster, 1)).await;
    for (held, waits) in [
        (ApiKey::OFFSET_COMMIT, ApiKey::CONSUMER_GROUP_HEARTBEAT),
        (ApiKey::CONSUMER_GROUP_HEARTBEAT, ApiKey::OFFSET_COMMIT),
    ] {
        let control = consumer.control();
        // Heartbeats go out every 4 to 5 s.
        let rule = FaultRule::new(Fault::DelayResponse(secs(9))).api(held);
        let rule = cluster.faults().inject(rule);
        if held == ApiKey::CONSUMER_GROUP_HEARTBEAT {
            until("a heartbeat is on its way", || !cluster.faults().is_pending(rule)).await;
        }
        let commit = tokio::spawn(async move { control.commit_to([("t", 0, 1)]).await });
        if held == ApiKey::OFFSET_COMMIT {
            until("a commit is on its way", || !cluster.faults().is_pending(rule)).await;
        }
        let before = asked(&cluster, waits);
        tokio::time::sleep(secs(8)).await;
        assert_eq!(asked(&cluster, waits), before, "{waits:?} goes out beside {held:?}");
        within("a commit", commit).await.unwrap().unwrap();
        until("the other goes out", || asked(&cluster, waits) > before).await;
    }
}
