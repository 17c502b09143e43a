//! Members of consumer groups, in virtual time: every record is handled, what is finished is not read again, and
//! partitions go from one to the other without a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use ottla::testing::{Cluster, GroupState};
use ottla::{Assignor, Client, Commit, Consumer, ConsumerBuilder, Event, GroupProtocol, Record};
use ottla_scenarios::steps::{acked, cluster, connect, secs, small_batches};
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::{until, within};

const GROUP: &str = "g";

/// So many records in each of the partitions, each a batch of its own.
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

const PROTOCOLS: [GroupProtocol; 2] = [GroupProtocol::Classic, GroupProtocol::Next];

fn member(client: &Client, protocol: GroupProtocol) -> ConsumerBuilder {
    client.consumer().group(GROUP).topics(["t"]).group_protocol(protocol)
}

fn committed(cluster: &Cluster, partition: i32) -> Option<i64> {
    cluster.group(GROUP)?.committed("t", partition).map(|at| at.offset)
}

/// By partition and offset: by whom, as often as it was.
type By = BTreeMap<(i32, i64), Vec<usize>>;

/// What members have handled.
#[derive(Clone, Default)]
struct Handled(Arc<Mutex<By>>);

impl Handled {
    fn note(&self, who: usize, batch: &ottla::Batch) {
        let mut handled = self.0.lock().unwrap();
        for record in batch {
            handled.entry((batch.partition(), record.offset())).or_default().push(who);
        }
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn twice(&self) -> usize {
        self.0.lock().unwrap().values().filter(|by| by.len() > 1).count()
    }

    /// Partitions of which somebody has handled something after this was handled.
    fn by(&self, who: usize) -> BTreeSet<i32> {
        let handled = self.0.lock().unwrap();
        let of = handled.iter().filter(|(_, by)| by.contains(&who));
        of.map(|((partition, _), _)| *partition).collect()
    }
}

/// Reads for ever.
fn reads(mut consumer: Consumer, who: usize, handled: &Handled) -> tokio::task::JoinHandle<()> {
    let handled = handled.clone();
    tokio::spawn(async move {
        while let Some(next) = consumer.next().await {
            handled.note(who, &next.unwrap());
        }
    })
}

#[tokio::test(start_paused = true)]
async fn one_member_reads_all_and_its_successor_goes_on() {
    for protocol in PROTOCOLS {
        let cluster = cluster(3, 4);
        write(&cluster, 0..4, 5).await;
        let handled = Handled::default();
        let client = client(&cluster, 1).await;
        let mut consumer = member(&client, protocol).build().unwrap();
        for _ in 0..20 {
            handled.note(0, &within("a batch", consumer.next()).await.unwrap().unwrap());
        }
        assert_eq!((handled.count(), handled.twice()), (20, 0));
        // The last one was not finished.
        consumer.close().await.unwrap();
        let offsets: Vec<i64> = (0..4).map(|p| committed(&cluster, p).unwrap_or(0)).collect();
        assert_eq!(offsets.iter().sum::<i64>(), 19, "{offsets:?}");
        assert_eq!(cluster.group(GROUP).unwrap().state, GroupState::Empty, "it has left");
        // Its successor goes on there, and has nothing else.
        let mut consumer = member(&client, protocol).build().unwrap();
        let batch = within("a batch", consumer.next()).await.unwrap().unwrap();
        handled.note(0, &batch);
        assert_eq!(handled.twice(), 1);
        assert!(tokio::time::timeout(secs(10), consumer.next()).await.is_err());
        // Asked for the next, it has committed that one by itself.
        assert_eq!((0..4).map(|p| committed(&cluster, p).unwrap()).sum::<i64>(), 20);
    }
}

#[tokio::test(start_paused = true)]
async fn members_share_and_take_over() {
    for assignors in
        [vec![Assignor::Range, Assignor::CooperativeSticky], vec![Assignor::CooperativeSticky]]
    {
        let cluster = cluster(3, 6);
        let handled = Handled::default();
        let build = |client: &Client| {
            member(client, GroupProtocol::Classic).assignors(assignors.clone()).build().unwrap()
        };
        let clients =
            [client(&cluster, 1).await, client(&cluster, 2).await, client(&cluster, 3).await];
        let first = reads(build(&clients[0]), 0, &handled);
        write(&cluster, 0..6, 3).await;
        until("all is read by the first", || handled.count() == 18).await;
        assert_eq!(handled.by(0).len(), 6);
        let second = reads(build(&clients[1]), 1, &handled);
        let third = reads(build(&clients[2]), 2, &handled);
        let is_shared = || {
            cluster
                .group(GROUP)
                .is_some_and(|g| g.state == GroupState::Stable && g.members.len() == 3)
        };
        until("all three are members", is_shared).await;
        tokio::time::sleep(secs(10)).await;
        assert!(is_shared());
        write(&cluster, 0..6, 3).await;
        until("all is read", || handled.count() == 36).await;
        assert_eq!(handled.twice(), 0, "{assignors:?}");
        let shares: Vec<usize> = (0..3).map(|who| handled.by(who).len()).collect();
        assert_eq!(shares[1..], [2, 2], "{shares:?}");
        // One is killed: nobody says good-bye.
        second.abort();
        drop(clients);
        write(&cluster, 0..6, 3).await;
        until("its partitions are read by others", || handled.count() == 54).await;
        for task in [first, third] {
            task.abort();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_come_between_batches() {
    let cluster = cluster(1, 4);
    write(&cluster, 0..4, 1).await;
    let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
    let build = |client: &Client| {
        member(client, GroupProtocol::Classic).assignors([Assignor::CooperativeSticky]).build()
    };
    let mut first = build(&one).unwrap();
    let event = within("an event", first.next_event()).await.unwrap().unwrap();
    assert!(matches!(&event, Event::Assigned(parts) if parts.len() == 4), "{event:?}");
    for _ in 0..4 {
        let event = within("a batch", first.next_event()).await.unwrap().unwrap();
        assert!(matches!(event, Event::Batch(_)), "{event:?}");
    }
    let handled = Handled::default();
    let second = reads(build(&two).unwrap(), 1, &handled);
    // Decided anew, and nothing new came of it.
    let event = within("an event", first.next_event()).await.unwrap().unwrap();
    assert!(matches!(&event, Event::Assigned(parts) if parts.is_empty()), "{event:?}");
    let event = within("an event", first.next_event()).await.unwrap().unwrap();
    let Event::GivingUp { partitions, .. } = event else { panic!("{event:?}") };
    assert_eq!(partitions.len(), 2);
    // Before it asks for the next nothing is given up.
    tokio::time::sleep(secs(20)).await;
    write(&cluster, 0..4, 1).await;
    assert_eq!(handled.count(), 0);
    let next = tokio::spawn(async move {
        let mut offsets = Vec::new();
        while let Ok(Some(event)) = tokio::time::timeout(secs(30), first.next_event()).await {
            if let Event::Batch(batch) = event.unwrap() {
                offsets.push((batch.partition(), batch.base_offset()));
            }
        }
        offsets
    });
    until("the other has them", || handled.count() == 2).await;
    assert_eq!(handled.by(1), partitions.iter().map(|part| part.partition).collect());
    let mine = within("its own", next).await.unwrap();
    assert_eq!(mine.len(), 2, "{mine:?}");
    second.abort();
}

#[tokio::test(start_paused = true)]
async fn what_is_acked_out_of_order_is_committed_up_to_the_gap() {
    for protocol in PROTOCOLS {
        let cluster = cluster(1, 1);
        write(&cluster, 0..1, 5).await;
        let client = client(&cluster, 1).await;
        let mut consumer = member(&client, protocol).commit(Commit::Acked).build().unwrap();
        let mut batches = Vec::new();
        for _ in 0..5 {
            batches.push(within("a batch", consumer.next()).await.unwrap().unwrap());
        }
        for n in [0, 1, 3, 4] {
            batches[n].ack();
        }
        within("a commit", consumer.commit()).await.unwrap();
        assert_eq!(committed(&cluster, 0), Some(2));
        batches[2].ack();
        within("a commit", consumer.commit()).await.unwrap();
        assert_eq!(committed(&cluster, 0), Some(5));
        within("a commit", consumer.commit_to([("t", 0, 3)])).await.unwrap();
        assert_eq!(committed(&cluster, 0), Some(3));
    }
}

#[tokio::test(start_paused = true)]
async fn by_hand_nothing_is_committed_by_itself() {
    for protocol in PROTOCOLS {
        let cluster = cluster(1, 1);
        write(&cluster, 0..1, 3).await;
        let client = client(&cluster, 1).await;
        let mut consumer = member(&client, protocol).commit(Commit::Manual).build().unwrap();
        for _ in 0..3 {
            within("a batch", consumer.next()).await.unwrap().unwrap();
        }
        tokio::time::sleep(secs(60)).await;
        assert_eq!(committed(&cluster, 0), None);
        within("a commit", consumer.commit()).await.unwrap();
        // The third is in hand.
        assert_eq!(committed(&cluster, 0), Some(2));
        consumer.close().await.unwrap();
        assert_eq!(committed(&cluster, 0), Some(2));
    }
}

/// s24: who does not ask for the next leaves, and comes back by asking.
#[tokio::test(start_paused = true)]
async fn s24_who_does_not_come_back_in_time_leaves_and_joins_again_by_asking() {
    for protocol in PROTOCOLS {
        let cluster = cluster(1, 2);
        write(&cluster, 0..2, 2).await;
        let [one, two] = [client(&cluster, 1).await, client(&cluster, 2).await];
        let mut slow = member(&one, protocol).max_poll_interval(secs(20)).build().unwrap();
        within("a batch", slow.next()).await.unwrap().unwrap();
        let handled = Handled::default();
        let other =
            reads(member(&two, protocol).max_poll_interval(secs(20)).build().unwrap(), 1, &handled);
        until("the other has all", || handled.count() == 4).await;
        assert_eq!(cluster.group(GROUP).unwrap().members.len(), 1);
        // Nothing of what it had fetched is handed out any more.
        let asks =
            tokio::spawn(async move { slow.next().await.map(|next| next.map(|b| b.partition())) });
        until("both are members", || cluster.group(GROUP).unwrap().members.len() == 2).await;
        tokio::time::sleep(secs(10)).await;
        assert!(!asks.is_finished());
        write(&cluster, 0..2, 1).await;
        within("a batch", asks).await.unwrap().unwrap().unwrap();
        other.abort();
    }
}

/// Who takes a batch apart asks for its records one by one, and for the next batch only behind the last.
#[tokio::test(start_paused = true)]
async fn who_hands_records_on_one_by_one_is_there_and_who_stops_is_not() {
    for protocol in PROTOCOLS {
        let cluster = cluster(1, 1);
        let one = client(&cluster, 1).await;
        let producer = one.producer().linger(secs(60)).build().unwrap();
        let sent: Vec<_> = (0..8)
            .map(|_| producer.try_send(Record::to("t").partition(0).value(&[7; 700])).unwrap())
            .collect();
        producer.flush().await.unwrap();
        drop(sent);
        let mut slow = member(&one, protocol).max_poll_interval(secs(20)).build().unwrap();
        let batch = within("a batch", slow.next()).await.unwrap().unwrap();
        assert_eq!(batch.len(), 8);
        for record in &batch {
            batch.reached(record.offset());
            tokio::time::sleep(secs(15)).await;
            assert_eq!(cluster.group(GROUP).unwrap().members.len(), 1);
        }
        // What it has come past is committed meanwhile.
        assert_eq!(committed(&cluster, 0), Some(7));
        until("it has left", || cluster.group(GROUP).unwrap().members.is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_moves_is_found_again() {
    for protocol in PROTOCOLS {
        let cluster = cluster(3, 3);
        let handled = Handled::default();
        let client = client(&cluster, 1).await;
        let reader = reads(member(&client, protocol).build().unwrap(), 0, &handled);
        write(&cluster, 0..3, 2).await;
        until("all is read", || handled.count() == 6).await;
        let generation = cluster.group(GROUP).unwrap().generation;
        for _ in 0..3 {
            let at = cluster.coordinator(GROUP).unwrap();
            cluster.move_coordinator(GROUP, at % 3 + 1).unwrap();
            tokio::time::sleep(secs(30)).await;
        }
        let group = cluster.group(GROUP).unwrap();
        assert_eq!((group.generation, group.members.len()), (generation, 1), "it stays a member");
        assert_eq!((0..3).map(|p| committed(&cluster, p)).collect::<Vec<_>>(), [Some(2); 3]);
        write(&cluster, 0..3, 2).await;
        until("all is read", || handled.count() == 12).await;
        assert_eq!(handled.twice(), 0);
        reader.abort();
    }
}
