//! A sender that is told by hand what happens.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::mpsc::UnboundedReceiver;
use uuid::Uuid;

use super::partition::{Partition, ToSend};
use super::request::{DraftPart, RequestDraft};
use super::topic::{LEARN_AGAIN, Topic};
use super::*;
use crate::cluster::{Handle, TopicMeta, by_hand};
use crate::config::{BACKOFF_BASE, ProducerConfig};
use crate::error::{Error, ErrorKind};
use crate::net::CallError;
use crate::net::by_hand::connection;
use crate::policy::retry_budget::Cost;
use crate::policy::spread::{self, Candidate};
use crate::producer::accumulator::{LastKnown, Shard, Told};
use crate::producer::batch::{Batch, FailureCause};
use crate::producer::delivery::Unread;
use crate::producer::record::Record;

struct Set {
    pool: Handle,
    sender: Sender,
    events: UnboundedReceiver<Event>,
    accumulator: Arc<Accumulator>,
    /// The other ends of connections.
    peers: Vec<DuplexStream>,
}

const BROKERS: std::ops::RangeInclusive<i32> = 1..=3;

/// A sender that has learned who leads the partitions of topic `t`, which has this id.
fn set(id: u128, leaders: &[i32]) -> Set {
    let pool = by_hand::client();
    let (tx, events) = mpsc::unbounded_channel();
    let sender = Sender::new(&pool, pool.settings(), Acks::All, tx.clone(), 0);
    let config = ProducerConfig::default();
    let accumulator = Accumulator::new(config, pool.env(), pool.buffers(), pool.metrics(), tx);
    let mut set =
        Set { pool, sender, events, accumulator: Arc::new(accumulator), peers: Vec::new() };
    // Of what nobody sends to, nothing is learned.
    drop(set.batch(1));
    set.learns(id, leaders);
    set
}

impl Set {
    fn now(&self) -> Instant {
        self.sender.env.now()
    }

    /// A batch of so many records that the sender has taken.
    fn batch(&mut self, records: usize) -> Batch {
        self.batch_of(records, || Record::to("t").value("v"))
    }

    fn batch_of<'a>(&mut self, records: usize, record: impl Fn() -> Record<'a>) -> Batch {
        (0..records).for_each(|_| self.append(&record()));
        let batch_queue = self.announced();
        let batch = batch_queue.take(&self.accumulator).unwrap();
        self.topic().queues_mut().for_each(|queue| queue.forget_empty());
        batch
    }

    fn append(&self, record: &Record<'_>) {
        assert!(self.accumulator.append(Shard::default(), record, &Unread::new(None)).is_ok());
    }

    /// What was appended is announced to the sender.
    fn announced(&mut self) -> Arc<BatchQueue> {
        let Ok(Event::Ready(accumulator, batches, batch_queue)) = self.events.try_recv() else {
            panic!("not announced")
        };
        self.sender.handle(Event::Ready(accumulator, batches, Arc::clone(&batch_queue)));
        batch_queue
    }

    fn topic(&mut self) -> &mut Topic {
        self.sender.topics.get_mut("t").expect("a topic that was sent to")
    }

    fn partition(&mut self) -> &mut Partition {
        &mut self.topic().partitions[0]
    }

    /// Who leads the partitions of topic `t`, and its id.
    fn learns(&mut self, id: u128, leaders: &[i32]) {
        self.pool.told_of_topic(BROKERS, id, leaders);
        self.sender.cluster_changed();
        let now = self.now();
        let Sender { topics, metadata, metrics, .. } = &mut self.sender;
        let mut topic = topics.take("t").unwrap();
        assert!(topics.learn(&mut topic, metadata, metrics, now));
        topics.put(Arc::from("t"), topic);
    }

    /// A batch of as many records is in flight to partition 0.
    fn sends(&mut self, id: u64, records: usize) {
        let (batch, now) = (self.batch(records), self.now());
        assert!(self.partition().has_room(1, now));
        self.partition().push(id, batch, 1, (7, 0));
    }

    /// One batch after the other is in doubt in partition 0, and the broker refuses the first one's place.
    fn forgotten(&mut self, ids: std::ops::RangeInclusive<u64>) {
        let now = self.now();
        ids.clone().for_each(|id| self.partition().failed(id, false, FailureCause::Failed));
        let partition = self.partition();
        assert!(partition.settle().is_empty());
        assert!(partition.next_resend(1, now).is_some());
        partition.out_of_sequence(*ids.start());
        self.sender.settle(&Arc::from("t"), 0);
        self.partition().lookup_begun();
    }

    /// What is sent has a name, and there is a connection to its leader.
    fn may_send(&mut self) {
        let now = self.now();
        assert!(matches!(self.sender.id_state.readiness(now), Readiness::Ask));
        self.sender.handle(Event::ProducerId(0, Ok(7)));
        let (connection, peer) = connection(&self.sender.env, 1);
        self.sender.leaders.connected(1, connection);
        self.peers.push(peer);
    }

    fn looks_for_unused(&mut self, now: Instant) {
        let Sender { topics, id_state, schedule, .. } = &mut self.sender;
        topics.release_unused(id_state, schedule, now);
    }

    fn is_acknowledged(&mut self, id: u64) {
        assert!(self.partition().acknowledged(id).is_some());
    }

    /// Partitions that something goes to that may go to any of two, in many draws.
    fn chosen(&mut self) -> BTreeSet<i32> {
        let now = self.now();
        let pool = Arc::clone(&self.pool);
        let mut topic = self.sender.topics.take("t").unwrap();
        let meta = topic.meta.clone().unwrap();
        let mut round = self.sender.begin_round(&pool, now);
        let draw = |_| round.choose(&mut topic, &meta, true, false, &[false; 2]);
        let chosen = (0..64).map(draw).map(|pick| pick.expect("both are ready").partition);
        let chosen = chosen.collect();
        self.sender.topics.put(Arc::from("t"), topic);
        chosen
    }
}

/// The cluster that was there before may have given it to us, and the one that is there to others.
#[tokio::test(start_paused = true)]
async fn an_id_from_another_cluster_is_none() {
    let mut set = set(7, &[1]);
    let sender = &mut set.sender;
    sender.incarnation = 1;
    let now = sender.env.now();
    assert!(matches!(sender.id_state.readiness(now), Readiness::Ask));
    sender.handle(Event::ProducerId(0, Ok(77)));
    assert!(!matches!(sender.id_state.readiness(now), Readiness::Ready));
    sender.handle(Event::ProducerId(1, Ok(78)));
    assert!(matches!(sender.id_state.readiness(now), Readiness::Ready));
}

/// It knows nothing of us for certain, which says nothing of a batch that went to this one.
#[tokio::test(start_paused = true)]
async fn what_another_cluster_knows_of_us_is_nothing() {
    let mut set = set(7, &[1]);
    set.sends(1, 1);
    let now = set.now();
    let partition = set.partition();
    partition.failed(1, false, FailureCause::Failed);
    assert!(partition.settle().is_empty());
    assert!(partition.next_resend(1, now).is_some());
    partition.out_of_sequence(1);
    assert!(partition.settle().is_empty());
    assert_eq!(partition.wants_lookup(), Some(7));
    partition.lookup_begun();
    set.sender.incarnation = 1;
    let told =
        |of| Told { leader: 1, topic: "t".into(), partition: 0, of, asked_by: 0, last: Ok(None) };
    set.sender.handle(Event::LookedUp(told(0)));
    assert!(set.partition().batch(1).is_some(), "still to be found out");
    set.sender.handle(Event::LookedUp(told(1)));
    assert!(set.partition().batch(1).is_none());
}

/// A partition that knows nothing of us takes any sequence as the first: of two that are in flight the
/// second would lock the first out.
#[tokio::test(start_paused = true)]
async fn a_topic_that_was_made_anew_gets_one_batch_at_first() {
    let mut set = set(7, &[1]);
    let now = set.now();
    let has_room_beside_one = |set: &mut Set, id| {
        set.sends(id, 1);
        let room = set.partition().has_room(1, now);
        set.is_acknowledged(id);
        room
    };
    assert!(!has_room_beside_one(&mut set, 1), "the very first");
    assert!(has_room_beside_one(&mut set, 2));
    set.learns(7, &[1, 1]);
    assert!(has_room_beside_one(&mut set, 3), "it has a partition more");
    set.learns(8, &[1, 1]);
    assert!(!has_room_beside_one(&mut set, 4));
    assert!(has_room_beside_one(&mut set, 5));
}

/// The choice was made among fewer, and would stand for minutes.
#[tokio::test(start_paused = true)]
async fn where_there_are_more_partitions_is_chosen_anew() {
    let mut set = set(7, &[1]);
    let (now, mut rng) = (set.now(), set.sender.env.rng());
    set.topic().stay(0, 1, 1_000, now, &mut rng);
    set.learns(7, &[2]);
    assert!(set.topic().sticky.is_some(), "another leader, and as many");
    set.learns(7, &[2, 2]);
    assert!(set.topic().sticky.is_none());
}

/// A request to broker 1.
fn draft(parts: impl IntoIterator<Item = DraftPart>) -> RequestDraft {
    let mut draft = RequestDraft::new(1, false);
    parts.into_iter().for_each(|part| draft.add(part, 1));
    draft
}

/// Of each it is told once, however often the sender looks.
#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_the_retry_budget_is_counted_once() {
    let mut set = set(7, &[1]);
    set.sends(1, 1);
    let partition = set.partition();
    partition.failed(1, false, FailureCause::Failed);
    assert!(partition.settle().is_empty());
    let to_send: ToSend = partition.next_resend(1, Instant::now()).unwrap();
    assert_eq!(to_send.retry, Some(Cost::InDoubt));
    let draft = draft([(Arc::from("t"), Uuid::nil(), 0, to_send)]);
    let (pool, now) = (Arc::clone(&set.pool), set.now());
    while set.sender.affords(&pool, &draft, now) {}
    assert!(!set.sender.affords(&pool, &draft, now));
    let delayed = || pool.metrics().snapshot().retry_budget.produce.delayed;
    assert_eq!(delayed(), 1);
    let later = now + Duration::from_secs(2);
    assert!(set.sender.affords(&pool, &draft, later));
    assert!(!set.sender.affords(&pool, &draft, later), "the next one");
    assert_eq!(delayed(), 2);
}

/// The request goes anyway.
#[tokio::test(start_paused = true)]
async fn a_retry_that_rides_with_what_is_new_costs_nothing() {
    let mut set = set(7, &[1]);
    set.sends(1, 1);
    let partition = set.partition();
    partition.failed(1, false, FailureCause::Failed);
    assert!(partition.settle().is_empty());
    let doubtful = partition.next_resend(1, Instant::now()).unwrap();
    let new = ToSend { retry: None, ..doubtful };
    let definite = ToSend { retry: Some(Cost::Definite), ..doubtful };
    let cost = |parts: &[ToSend]| {
        draft(parts.iter().map(|to_send| (Arc::from("t"), Uuid::nil(), 0, *to_send))).cost()
    };
    assert_eq!(cost(&[definite, definite]), Some(Cost::Definite));
    assert_eq!(cost(&[doubtful, definite]), Some(Cost::InDoubt));
    for parts in [[new, new], [new, definite], [definite, new], [doubtful, new]] {
        assert_eq!(cost(&parts), None, "{parts:?}");
    }
}

/// Partitions of the old one that were to get something again may not even be there.
#[tokio::test(start_paused = true)]
async fn to_another_cluster_goes_what_was_never_sent_in_its_order() {
    let mut set = set(7, &[1, 1]);
    set.sends(1, 1);
    set.is_acknowledged(1);
    (2..=4).for_each(|id| set.sends(id, id as usize));
    for id in 2..=4 {
        set.partition().failed(id, id < 4, FailureCause::Failed);
    }
    set.sender.settle(&Arc::from("t"), 0);
    assert!(set.topic().resend.contains(&0), "the last one is in doubt, and they are before it");
    set.sender.incarnation = 7;
    assert!(set.sender.goes_on());
    assert!(set.topic().resend.is_empty());
    let waiting = std::iter::from_fn(|| set.topic().unbound.pop_back()).map(|b| b.records());
    assert_eq!(waiting.collect::<Vec<_>>(), [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_is_let_go_when_nothing_of_it_is_under_way() {
    let mut set = set(7, &[1]);
    set.sends(1, 1);
    let mut now = set.now() + UNUSED_AFTER;
    set.looks_for_unused(now);
    assert!(set.sender.topics.get("t").is_some(), "something is in flight");
    set.is_acknowledged(1);
    now += UNUSED_AFTER - Duration::from_secs(1);
    set.looks_for_unused(now);
    assert!(set.sender.topics.get("t").is_some(), "it was in use a moment ago");
    now += Duration::from_secs(1);
    set.looks_for_unused(now);
    assert!(set.sender.topics.get("t").is_none());
}

/// Where most is refused, those that were given least are those that take nothing.
#[tokio::test(start_paused = true)]
async fn what_was_refused_goes_to_any() {
    let mut set = set(7, &[1, 2]);
    for broker in 1..=2 {
        let (connection, peer) = connection(&set.sender.env, broker);
        set.sender.leaders.connected(broker, connection);
        set.peers.push(peer);
    }
    let first = Candidate { partition: 0, bytes_in_flight: 0, latency_us: 0, given: 0.0 };
    let mut rng = set.sender.env.rng();
    let pick = spread::choose(&[first], None, false, &mut rng).unwrap();
    set.topic().given.give(&pick, 10.0);
    assert_eq!(set.chosen(), BTreeSet::from([1]), "which has had less");
    let (mut batch, now) = (set.batch(1), set.now());
    batch.attempts.came_back(&FailureCause::Failed, now, &mut rng);
    set.topic().put_back(batch);
    assert_eq!(set.chosen(), BTreeSet::from([0, 1]));
}

/// A batch that may have ended a connection goes alone, once it is known what became of it. Until then
/// its leader is everybody's.
#[tokio::test(start_paused = true)]
async fn a_suspect_that_is_looked_up_keeps_its_leader_from_nobody() {
    let mut set = set(7, &[1, 1]);
    set.may_send();
    set.sends(1, 1);
    set.partition().attempts(1).unwrap().closed(1, false);
    set.forgotten(1..=1);
    set.append(&Record::to("t").partition(1).value("v"));
    set.announced();
    let now = set.now();
    assert!(set.sender.round(now), "nothing goes to the leader");
}

/// A fleet that has lost a broker in one second would dial those that lead now in the next one, together.
#[tokio::test(start_paused = true)]
async fn after_a_silence_who_leads_now_is_dialled_at_a_moment_of_its_own() {
    let ms = Duration::from_millis(1);
    for (error, waits) in [
        (Error::new(ErrorKind::Timeout, "no response"), true),
        (Error::new(ErrorKind::Disconnected, "cut"), false),
    ] {
        let mut set = set(7, &[1]);
        set.may_send();
        set.append(&Record::to("t").value("v"));
        set.announced();
        assert!(set.sender.round(set.now()));
        let request = *set.sender.in_flight.keys().next().expect("it was sent");
        tokio::time::advance(Duration::from_secs(30)).await;
        let now = set.now();
        set.sender.answered(request, Err(CallError::InDoubt(error)));
        set.learns(7, &[2]);
        let retried = now + BACKOFF_BASE;
        let dialled = |set: &mut Set, at| {
            set.sender.round(at);
            set.sender.leaders.get(2).expect("a member").is_being_dialled()
        };
        let dial_at = set.partition().dials_not_before(now);
        assert_eq!(dial_at.is_some(), waits);
        if let Some(dial_at) = dial_at {
            assert!(!dialled(&mut set, dial_at - ms));
            assert!(set.partition().dials_not_before(dial_at).is_none());
        }
        let at = dial_at.map_or(retried, |at| at.max(retried));
        assert!(dialled(&mut set, at), "waits: {waits}");
    }
}

/// Partitions before it in the order of numbers have something all the time: their leader would never be
/// idle.
#[tokio::test(start_paused = true)]
async fn what_goes_alone_waits_for_none_that_come_later() {
    let mut set = set(7, &[1, 1]);
    set.may_send();
    let mut suspect = set.batch_of(1, || Record::to("t").partition(1).value("v"));
    suspect.attempts.closed(1, false);
    let other = set.batch_of(1, || Record::to("t").partition(0).value("v"));
    [suspect, other].into_iter().for_each(|batch| set.topic().put_back(batch));
    let now = set.now();
    let _ = set.sender.leaders.get(1).unwrap().sent(1, now);
    assert!(!set.sender.round(now), "the next request went before it");
    set.sender.leaders.get(1).unwrap().returned(1);
    assert!(set.sender.round(now));
    let went = |set: &mut Set, index: usize| !set.topic().partitions[index].is_empty();
    assert!(went(&mut set, 1) && !went(&mut set, 0), "alone");
}

/// What the broker remembers was to be sent again, to tell of what is before it. Its time is up: who else
/// tells is asked at once, and not when something else happens.
#[tokio::test(start_paused = true)]
async fn without_its_witness_a_batch_is_looked_up_at_once() {
    let mut set = set(7, &[1]);
    set.may_send();
    set.sends(1, 1);
    set.is_acknowledged(1);
    (2..=3).for_each(|id| set.sends(id, 1));
    set.forgotten(2..=3);
    let last = Ok(Some(LastKnown { epoch: 0, sequence: 2 }));
    let told = Told { leader: 1, topic: "t".into(), partition: 0, of: 0, asked_by: 0, last };
    set.sender.handle(Event::LookedUp(told));
    assert!(set.partition().give_up(3).is_some());
    set.sender.settle(&Arc::from("t"), 0);
    let now = set.now();
    assert!(!set.sender.round(now), "there is nothing to be sent");
    assert_eq!(set.partition().wants_lookup(), None, "it waits to be asked for");
    set.partition().lookup_failed();
    assert_eq!(set.partition().wants_lookup(), Some(7), "nobody was asked");
}

impl Set {
    /// No request is left but what may not wait.
    fn bucket_is_empty(&self) {
        let now = Instant::now();
        (0..10_000).for_each(|_| self.pool.pace().take(false, false, now));
    }

    /// Topic `name` is like topic `t`, whatever the cluster says.
    fn has_also(&mut self, name: &str) {
        let now = self.now();
        let (meta, learned) = (self.topic().meta.clone().unwrap(), self.topic().learned);
        let topic = self.sender.topics.get_mut(name).expect("sent to");
        topic.partitions.resize_with(meta.partitions.len(), Partition::default);
        topic.meta = Some(Arc::new(TopicMeta { name: name.into(), ..TopicMeta::clone(&meta) }));
        topic.learned = learned.map(|(changes, _)| (changes, now + LEARN_AGAIN));
    }
}

/// What is left to gather is looked at again once a request goes to its leader: the topic comes to a second turn,
/// behind others. Brokers are told of each topic once.
#[tokio::test(start_paused = true)]
async fn a_request_names_each_topic_once() {
    let mut set = set(7, &[1, 1]);
    set.may_send();
    set.bucket_is_empty();
    let full = vec![7; set.accumulator.config().batch_size];
    for topic in ["t", "u"] {
        // The first one waits, as nothing goes to its leader yet.
        for (partition, value) in [(0, &b"v"[..]), (1, &full[..])] {
            set.append(&Record::to(topic).partition(partition).value(value));
            set.announced();
        }
    }
    set.has_also("u");
    let now = set.now();
    assert!(set.sender.round(now));
    let sent: Vec<_> = set.sender.in_flight.values().collect();
    assert_eq!(sent.len(), 1);
    let mut topics: Vec<&str> = sent[0].items.iter().map(|item| &*item.topic).collect();
    assert_eq!(topics.len(), 4, "{topics:?}");
    topics.dedup();
    assert_eq!(topics.len(), 2, "{topics:?}");
}

#[tokio::test(start_paused = true)]
async fn who_has_two_turns_asks_once() {
    let mut set = set(7, &[1, 1]);
    set.may_send();
    set.bucket_is_empty();
    set.sends(1, 1);
    set.forgotten(1..=1);
    set.partition().lookup_failed();
    set.append(&Record::to("t").partition(1).value("v"));
    set.announced();
    let (pool, now) = (Arc::clone(&set.pool), set.now());
    let lookups = set.sender.begin_round(&pool, now).with_two_turns("t");
    assert_eq!(lookups.values().map(Vec::len).collect::<Vec<_>>(), [1]);
}
