//! A fetcher that is told by hand what metadata says and what brokers answer.

use std::time::Duration;

use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::protocol::StrBytes as Text;
use uuid::Uuid;

use super::silence::Kind;
use super::*;
use crate::cluster::by_hand;
use crate::config::ConsumerConfig;
use crate::consumer::fetch::session::{self, Action, Session};
use crate::error::ErrorKind;
use crate::policy::reconnect::DialEnd;
use crate::policy::turns::Turn;

struct Set {
    pool: Handle,
    fetcher: Fetcher,
}

/// One that reads topic `t`, of which nothing is known yet.
fn set() -> Set {
    let pool = by_hand::client();
    let buffer = Arc::new(Buffer::new(ConsumerConfig::default()));
    let fetcher = Fetcher::new(&pool, &buffer, vec!["t".into()], Start::Earliest);
    Set { pool, fetcher }
}

/// The same where these brokers lead its partitions.
fn led_by(leaders: &[i32]) -> Set {
    let mut set = set();
    set.learns(7, leaders);
    set
}

fn key(partition: i32) -> Key {
    ("t".into(), partition)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn timeout() -> Error {
    Error::new(ErrorKind::Timeout, "no answer")
}

impl Set {
    fn now(&self) -> Instant {
        self.fetcher.env.now()
    }

    /// What metadata says of the topic; id 0: it tells none.
    fn learns(&mut self, id: u128, leaders: &[i32]) {
        self.pool.told_of_topic(1..=3, id, leaders);
        self.fetcher.learn(self.now());
        self.fetcher.settle(self.now());
    }

    fn slot(&self, partition: i32) -> SlotId {
        self.fetcher.topics["t"].slots[&partition]
    }

    /// The application's commands are heard.
    fn obeys(&mut self) {
        self.fetcher.obey();
        self.fetcher.learn(self.now());
        self.fetcher.settle(self.now());
    }

    fn topic(&mut self) -> &mut Topic {
        self.fetcher.topics.get_mut("t").unwrap()
    }

    fn reading(&mut self, partition: i32) -> &mut Reading {
        let slot = self.slot(partition);
        self.fetcher.reading.get_mut(slot).expect("a partition that is read")
    }

    /// Partition's start is asked for.
    fn starting(&mut self, partition: i32) -> Vec<Asked> {
        vec![Asked::start(self.slot(partition), self.reading(partition))]
    }

    /// A broker is asked for this partition alone, as it is now.
    fn asked(&mut self, partition: i32) -> Session {
        let slot = self.slot(partition);
        let now = self.now();
        self.reading(partition).next.get_or_insert(Position::at(0, -1));
        self.fetcher.tell(slot, 9);
        let source = self.fetcher.sources.remove(&9).unwrap();
        let mut session = source.session;
        let due = session::Event::Due { ids: false, supported: true };
        let action = session.on(due, now, &mut self.fetcher.rng);
        assert!(matches!(action, Action::Send(_)));
        session
    }

    fn wanted(&self, broker: i32) -> Vec<SlotId> {
        self.fetcher
            .sources
            .get(&broker)
            .iter()
            .flat_map(|source| &source.wanted)
            .copied()
            .collect()
    }

    /// Broker 1 answers a lookup of partition 0's start.
    fn starts_at(&mut self, asked: Vec<Asked>, offset: i64) {
        let (sent, found) = (self.now(), vec![(key(0), Ok(FoundOffset { offset, epoch: 1 }))]);
        self.fetcher.handle(Event::Offsets { leader: 1, asked, sent, found });
        self.fetcher.settle(sent);
    }

    /// Broker 1 answers a Fetch.
    fn fetched(&mut self, asked: Session, response: FetchResponse) {
        self.response(asked, Ok(response));
        self.fetcher.settle(self.now());
    }

    fn response(&mut self, asked: Session, response: Result<FetchResponse, Failed>) {
        self.fetcher.sources.entry(1).or_default().session = asked;
        let (leader, sent, version, cluster) = (1, self.now(), None, self.fetcher.incarnation);
        self.fetcher.handle(Event::Response { leader, cluster, sent, version, response });
    }

    fn position(&self) -> Option<i64> {
        self.fetcher.buffer.position("t", 0)
    }

    /// What the application is told, and forgets.
    fn told(&self) -> Vec<ErrorKind> {
        let next = || self.fetcher.buffer.take(&self.pool);
        std::iter::from_fn(next).map(|told| told.map(drop).unwrap_err().kind()).collect()
    }

    /// Broker 1 answers what was asked for partition 0, or does not.
    fn answers(&mut self, response: Result<FetchResponse, Failed>) {
        let asked = self.asked(0);
        self.response(asked, response);
    }

    fn cannot_be_reached(&self, broker: i32) {
        let broker = self.pool.broker(broker).unwrap();
        let error = Error::new(ErrorKind::Connect, "refused");
        broker.dialing(self.now());
        self.pool.random(|rng| broker.dial_failed(DialEnd::Failed, false, &error, self.now(), rng));
    }

    fn is_silent(&mut self, broker: i32, kind: Kind, sent: Instant) {
        self.fetcher.unanswered(broker, kind, sent, true, &timeout(), sent + secs(30));
    }
}

/// No records of partition 0, of which there are as many as that.
fn empty_response(high_watermark: i64) -> FetchResponse {
    response(PartitionData::default().with_high_watermark(high_watermark))
}

/// An error of partition 0.
fn refusal(code: i16) -> FetchResponse {
    response(PartitionData::default().with_error_code(code).with_log_start_offset(50))
}

/// One record of partition 0.
fn record(offset: i64) -> FetchResponse {
    let bytes = crate::consumer::buffer::one_record(offset);
    response(PartitionData::default().with_high_watermark(offset + 1).with_records(Some(bytes)))
}

fn response(partition: PartitionData) -> FetchResponse {
    let records = partition.records.clone().unwrap_or_default();
    let partition = partition.with_partition_index(0).with_records(Some(records));
    let mut topic = FetchableTopicResponse::default().with_partitions(vec![partition]);
    topic.topic = TopicName(Text::from_static_str("t"));
    FetchResponse::default().with_responses(vec![topic])
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// What was read of the one that came after it stands, and the others are asked.
#[tokio::test(start_paused = true)]
async fn a_topic_that_another_one_came_after_is_not_read_by_the_word_of_a_broker_that_is_behind() {
    let mut set = set();
    set.topic().was.push_back(id(6));
    set.learns(6, &[1]);
    assert!(set.topic().slots.is_empty() && set.topic().meta.is_none());
    assert!(set.pool.is_asked_for());
    set.learns(6, &[1]);
    assert!(!set.pool.is_asked_for(), "once for each");
    set.learns(7, &[1]);
    assert_eq!(set.reading(0).id, id(7));
    assert!(!set.pool.is_asked_for());
}

#[tokio::test(start_paused = true)]
async fn the_former_ids_of_a_topic_are_known_until_there_is_another_cluster() {
    let mut set = led_by(&[1]);
    set.learns(8, &[1]);
    assert_eq!(set.topic().was, [id(7)]);
    set.fetcher.incarnation = 7;
    assert!(set.fetcher.goes_on());
    assert!(set.topic().was.is_empty() && set.topic().id.is_nil());
}

/// In a cluster that is being upgraded some brokers are too old to tell it.
#[tokio::test(start_paused = true)]
async fn the_id_of_a_topic_is_learned_when_it_is_told_and_stays() {
    let mut set = set();
    set.learns(0, &[1]);
    assert!(set.reading(0).id.is_nil());
    set.learns(7, &[1]);
    assert_eq!(set.reading(0).id, id(7));
    set.learns(0, &[1]);
    assert_eq!((set.topic().id, set.reading(0).id), (id(7), id(7)));
    // It is another one than was told before that broker was asked.
    set.learns(8, &[1]);
    assert_eq!(set.topic().was, [id(7)]);
}

/// The first pause may be none, and the fetcher would go round and round.
#[tokio::test(start_paused = true)]
async fn a_partition_without_a_leader_is_looked_at_after_a_moment() {
    let mut set = led_by(&[1]);
    let (now, slot) = (set.now(), set.slot(0));
    for _ in 0..2_000 {
        set.reading(0).backoff.reset();
        set.fetcher.without_leader(&[slot], now);
        assert!(set.reading(0).retry_at.unwrap() >= now + Duration::from_millis(1));
    }
    set.fetcher.settle(now);
    let at = set.reading(0).retry_at;
    assert_eq!(set.fetcher.wake_at, at);
}

/// It is told of where the topic is looked up.
#[tokio::test(start_paused = true)]
async fn that_a_topic_is_missing_is_not_told_of_its_partitions() {
    let mut set = led_by(&[1]);
    let (now, slot) = (set.now(), set.slot(0));
    let mut fails = |error: Error| {
        set.fetcher.partition_failed(slot, &error, now, &mut None);
        set.told()
    };
    assert_eq!(fails(Error::broker(3, "topic 't'", None).settled()), []);
    assert_eq!(fails(Error::broker(17, "topic 't'", None)).len(), 1, "what is sure to stay is");
}

/// There was no connection to ask on, which is told elsewhere.
#[tokio::test(start_paused = true)]
async fn who_was_not_asked_is_not_silent() {
    let mut set = led_by(&[1]);
    set.answers(Err(Failed::Unsent(timeout())));
    assert_eq!(set.told(), []);
    set.answers(Err(Failed::Lost(timeout())));
    assert_eq!(set.told(), [ErrorKind::Timeout]);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_is_not_silent_as_well() {
    let mut set = led_by(&[1]);
    let now = set.now();
    set.cannot_be_reached(1);
    set.is_silent(1, Kind::Fetch, now);
    assert_eq!(set.told(), []);
    set.pool.broker(1).unwrap().connected();
    set.is_silent(1, Kind::Fetch, now);
    assert_eq!(set.told(), [ErrorKind::Timeout]);
}

/// That a broker cannot be reached, and then does not answer, is one trouble for who reads.
#[tokio::test(start_paused = true)]
async fn a_trouble_that_was_told_is_not_told_in_other_words() {
    let mut set = led_by(&[1, 2]);
    let now = set.now();
    for broker in 1..=2 {
        set.fetcher.sources.entry(broker).or_default();
    }
    set.cannot_be_reached(1);
    set.fetcher.troubles.wait_for(Some(1));
    set.fetcher.tell_troubles(now + secs(5));
    assert_eq!(set.told(), [ErrorKind::Connect]);
    set.pool.broker(1).unwrap().connected();
    for kind in [Kind::Fetch, Kind::ListOffsets] {
        set.is_silent(1, kind, now);
        assert_eq!(set.told(), [], "{kind:?}");
        set.is_silent(2, kind, now);
        assert_eq!(set.told(), [ErrorKind::Timeout], "another one, {kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_answered_is_not_waited_for() {
    let mut set = led_by(&[1, 2]);
    set.fetcher.troubles.wait_for(Some(1));
    set.fetcher.troubles.wait_for(Some(2));
    set.answers(Ok(empty_response(0)));
    (1..=2).for_each(|broker| set.cannot_be_reached(broker));
    set.fetcher.tell_troubles(set.now() + secs(5));
    assert_eq!(set.told(), [ErrorKind::Connect], "of broker 2");
}

/// A cluster that is moved goes on with other brokers, and under the same ids others may come.
#[tokio::test(start_paused = true)]
async fn brokers_that_are_gone_are_forgotten_once_they_owe_no_response() {
    let mut set = led_by(&[1]);
    for broker in 1..=6 {
        set.fetcher.sources.entry(broker).or_default();
    }
    set.fetcher.sources.get_mut(&5).unwrap().in_flight = 1;
    // Metadata that names it is on its way.
    set.fetcher.sources.get_mut(&6).unwrap().wanted.insert(SlotId(0));
    set.fetcher.forget_sources();
    let left = |set: &Set| set.fetcher.sources.keys().copied().collect::<Vec<_>>();
    assert_eq!(left(&set), [1, 2, 3, 5, 6]);
    set.fetcher.sources.get_mut(&5).unwrap().in_flight = 0;
    set.fetcher.sources.get_mut(&6).unwrap().wanted.clear();
    set.fetcher.forget_sources();
    assert_eq!(left(&set), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_told_ends_the_silence_about_starts() {
    let mut set = led_by(&[1]);
    let start = set.now();
    let spell = |set: &mut Set, at| {
        set.is_silent(1, Kind::ListOffsets, at);
        set.is_silent(1, Kind::ListOffsets, at + secs(40));
        set.told()
    };
    assert_eq!(spell(&mut set, start), [ErrorKind::Timeout]);
    assert_eq!(spell(&mut set, start + secs(100)), [], "it lasts");
    let (asked, found) = (set.starting(0), vec![(key(0), Ok(FoundOffset { offset: 3, epoch: 1 }))]);
    set.fetcher.handle(Event::Offsets { leader: 1, asked, sent: start, found });
    assert_eq!(set.reading(0).next, Some(Position::at(3, 1)));
    assert_eq!(spell(&mut set, start + secs(200)), [ErrorKind::Timeout], "another one");
}

/// At once it would be asked for as often as brokers can answer.
#[tokio::test(start_paused = true)]
async fn a_start_that_the_response_leaves_out_is_asked_for_again_later() {
    let mut set = led_by(&[1, 1]);
    let (now, asked) =
        (set.now(), [set.starting(0), set.starting(1)].into_iter().flatten().collect());
    let found = vec![(key(1), Ok(FoundOffset { offset: 3, epoch: 1 }))];
    set.reading(0).looking = true;
    set.fetcher.handle(Event::Offsets { leader: 1, asked, sent: now, found });
    assert!(!set.reading(0).looking && set.reading(0).retry_at.is_some_and(|at| at > now));
    assert_eq!(set.reading(0).backoff.attempts(), 1);
    assert!(set.reading(1).next.is_some() && set.reading(1).retry_at.is_none());
}

/// The response had no room for it, or the broker had no time.
#[tokio::test(start_paused = true)]
async fn what_came_empty_although_there_are_records_goes_first() {
    let mut set = led_by(&[1]);
    set.reading(0).next = Some(Position::at(5, -1));
    set.answers(Ok(empty_response(5)));
    assert_eq!(set.reading(0).turn, Turn::new(), "it waits like the others");
    set.answers(Ok(empty_response(6)));
    assert!(set.reading(0).turn < Turn::new());
}

/// One that has nothing to tell would hold for itself what the others need.
#[tokio::test(start_paused = true)]
async fn brokers_have_turns_where_there_is_not_room_for_all() {
    let mut set = led_by(&[1, 2, 3]);
    let now = set.now();
    // What another response may bring leaves room for one more.
    let memory = set.fetcher.buffer.config.buffer_memory;
    set.fetcher.sources.entry(9).or_default().in_flight = memory - (64 << 10);
    let mut turns = Vec::new();
    for _ in 0..6 {
        for partition in 0..3 {
            let reading = set.reading(partition);
            reading.next = Some(Position::at(0, -1));
        }
        set.fetcher.fetch(now);
        for broker in 1..=3 {
            let source = set.fetcher.sources.entry(broker).or_default();
            turns.extend((std::mem::take(&mut source.in_flight) > 0).then_some(broker));
            source.session.on(session::Event::Lost, now, &mut set.fetcher.rng);
        }
    }
    assert_eq!(turns, [1, 2, 3, 1, 2, 3]);
}

/// It has brokers with the same numbers, and topics with the same names.
#[tokio::test(start_paused = true)]
async fn what_was_told_of_one_cluster_is_news_in_another() {
    let mut set = led_by(&[1]);
    let now = set.now();
    let silent = |set: &mut Set| {
        set.is_silent(1, Kind::Fetch, now);
        set.told()
    };
    assert_eq!(silent(&mut set), [ErrorKind::Timeout]);
    assert!(silent(&mut set).is_empty(), "once");
    set.topic().told = Some(ErrorKind::UnknownTopic);
    set.topic().missing.insert(9);
    set.fetcher.incarnation += 1;
    assert!(set.fetcher.goes_on());
    assert_eq!(silent(&mut set), [ErrorKind::Timeout]);
    assert!(set.topic().told.is_none() && set.topic().missing.is_empty());
}

/// Each is counted once, however often the fetcher looks.
#[tokio::test(start_paused = true)]
async fn each_wait_for_the_retry_budget_is_counted_once() {
    let mut set = led_by(&[1]);
    let (pool, now) = (set.pool.clone(), set.now());
    let _ = pool.random(|rng| set.reading(0).backoff.next(rng));
    set.reading(0).next = Some(Position::at(0, -1));
    set.fetcher.settle(now);
    let none = BTreeSet::new();
    while set.fetcher.pay(1, &none, now).is_ok() {}
    assert!(set.fetcher.pay(1, &none, now).is_err());
    let delayed = || pool.metrics().snapshot().retry_budget.fetch.delayed;
    assert_eq!(delayed(), 1);
    let later = now + secs(2);
    assert!(set.fetcher.pay(1, &none, later).is_ok());
    while set.fetcher.pay(1, &none, later).is_ok() {}
    assert_eq!(delayed(), 2);
}

#[tokio::test(start_paused = true)]
async fn out_of_range_is_told_before_the_policy() {
    for (reset, position) in [(Start::Earliest, None), (Start::Offset(5), Some(5))] {
        let mut set = led_by(&[1]);
        set.reading(0).reset = reset;
        set.reading(0).next = Some(Position::at(5, -1));
        let asked = set.asked(0);
        set.fetched(asked, empty_response(9));
        assert_eq!(set.position(), Some(5));
        let asked = set.asked(0);
        set.fetched(asked, refusal(1));
        assert_eq!(set.position(), Some(5), "it is not told yet");
        assert_eq!(set.told(), [ErrorKind::OffsetOutOfRange], "{reset:?}");
        assert_eq!(set.position(), position);
        assert_eq!(set.reading(0).stopped, position.is_some());
        if position.is_none() {
            assert!(set.wanted(1).is_empty());
            let asked = set.starting(0);
            set.starts_at(asked, 50);
            assert_eq!((set.position(), set.wanted(1)), (Some(50), vec![set.slot(0)]));
        }
    }
}

/// By compaction: only the header of the batch is left.
#[tokio::test(start_paused = true)]
async fn what_is_emptied_is_passed_without_a_reader() {
    let mut set = led_by(&[1]);
    set.reading(0).next = Some(Position::at(5, -1));
    let mut header = crate::consumer::buffer::one_record(5).to_vec();
    header.truncate(61);
    header[8..12].copy_from_slice(&49i32.to_be_bytes());
    // The offset of its last record is four beyond that of its first; no record is left.
    header[23..27].copy_from_slice(&4i32.to_be_bytes());
    header[57..61].copy_from_slice(&0i32.to_be_bytes());
    let partition = PartitionData::default().with_high_watermark(10);
    let asked = set.asked(0);
    set.fetched(asked, response(partition.with_records(Some(header.into()))));
    assert_eq!((set.position(), set.reading(0).next.unwrap().offset), (Some(10), 10));
    assert_eq!(set.fetcher.buffer.lag("t", 0), Some(0));
    assert!(set.told().is_empty());
}

/// The position is where it begins, as soon as that is known.
#[tokio::test(start_paused = true)]
async fn a_start_is_a_position() {
    let mut set = led_by(&[1]);
    assert_eq!(set.position(), None);
    let asked = set.starting(0);
    set.starts_at(asked, 3);
    assert_eq!((set.position(), set.wanted(1)), (Some(3), vec![set.slot(0)]));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_looked_up_for_another_question_is_none() {
    let mut set = led_by(&[1]);
    let now = set.now();
    let [asked, late] = [set.starting(0), set.starting(0)];
    set.fetcher.find_starts(now);
    assert!(set.reading(0).looking);
    set.fetcher.buffer.seek("t", 0, Start::Latest).unwrap();
    // The fetcher has not heard of the seek; the buffer has.
    set.starts_at(asked, 3);
    assert_eq!(set.position(), None);
    set.obeys();
    let slot = set.slot(0);
    assert!(!set.reading(0).looking && set.fetcher.sources[&1].starting.contains(&slot));
    set.starts_at(late, 3);
    assert_eq!((set.reading(0).next, set.position()), (None, None));
}

/// Another cluster is found while a partition is assigned that the fetcher has not heard of.
#[tokio::test(start_paused = true)]
async fn what_is_assigned_as_there_is_another_cluster_is_read_there() {
    let mut set = led_by(&[1, 1]);
    set.fetcher.buffer.unassign(&[("t", 1)]).unwrap();
    set.obeys();
    set.fetcher.buffer.assign(vec![(key(1), Start::Offset(5))]).unwrap();
    set.fetcher.incarnation += 1;
    assert!(set.fetcher.goes_on());
    set.obeys();
    let incarnation = set.reading(1).incarnation;
    set.fetcher.buffer.starts(set.slot(1), incarnation, (7, 0));
    assert_eq!(set.fetcher.buffer.position("t", 1), Some(7), "that is its incarnation");
}

#[tokio::test(start_paused = true)]
async fn assigned_while_running() {
    let mut set = led_by(&[1, 2]);
    set.fetcher.buffer.unassign(&[("t", 1)]).unwrap();
    set.obeys();
    assert!(!set.topic().slots.contains_key(&1));
    // Found again with each look at the metadata, and not wanted.
    set.learns(7, &[1, 2, 2]);
    assert_eq!(set.topic().slots.keys().copied().collect::<Vec<_>>(), [0, 2]);
    set.fetcher.buffer.assign(vec![(key(1), Start::Offset(4)), (key(9), Start::Earliest)]).unwrap();
    set.obeys();
    assert_eq!(set.told(), [ErrorKind::UnknownPartition], "9");
    assert_eq!(set.wanted(2), [set.slot(1)]);
    assert_eq!((set.reading(1).next, set.reading(1).id), (Some(Position::at(4, -1)), id(7)));
    // One that is created after it was assigned.
    set.learns(7, &[2; 10]);
    let slot = set.slot(9);
    assert!(set.fetcher.sources[&2].starting.contains(&slot));
    assert_eq!(set.told(), []);
    // One that is read goes on elsewhere.
    let before = set.reading(1).incarnation;
    set.fetcher.buffer.assign(vec![(key(1), Start::Offset(8))]).unwrap();
    set.obeys();
    assert_eq!(set.reading(1).next, Some(Position::at(8, -1)));
    assert!(set.reading(1).incarnation > before);
}

/// A topic of which nothing is read any more is not asked about.
#[tokio::test(start_paused = true)]
async fn a_topic_is_there_as_long_as_something_of_it_is_read() {
    let mut set = led_by(&[1]);
    let key = |partition| ("u".into(), partition);
    set.fetcher.buffer.assign(vec![(key(0), Start::Earliest), (key(1), Start::Earliest)]).unwrap();
    set.obeys();
    for partition in 0..2 {
        assert!(set.fetcher.topics.contains_key("u"));
        set.fetcher.buffer.unassign(&[("u", partition)]).unwrap();
        set.obeys();
    }
    assert!(!set.fetcher.topics.contains_key("u"));
    set.fetcher.buffer.unassign(&[("t", 0)]).unwrap();
    set.obeys();
    assert!(set.topic().slots.is_empty(), "that is a whole topic");
}

#[tokio::test(start_paused = true)]
async fn unassigned_while_a_fetch_is_under_way() {
    let mut set = led_by(&[1]);
    set.reading(0).next = Some(Position::at(5, -1));
    let slot = set.slot(0);
    let asked = [(); 2].map(|()| set.asked(0));
    let [answered, failed] = asked;
    set.fetcher.buffer.unassign(&[("t", 0)]).unwrap();
    // Whether the fetcher has heard of it or not.
    set.fetched(answered, record(5));
    assert!(set.told().is_empty());
    set.obeys();
    assert!(set.wanted(1).is_empty() && set.fetcher.reading.get(slot).is_none());
    set.fetched(failed, refusal(3));
    assert!(set.told().is_empty() && set.wanted(1).is_empty());
}

#[tokio::test(start_paused = true)]
async fn assigned_again_is_another_incarnation() {
    let mut set = led_by(&[1]);
    set.reading(0).next = Some(Position::at(5, -1));
    let (slot, before, was) = (set.slot(0), set.asked(0), set.reading(0).incarnation);
    let [late, later] = [set.asked(0), set.asked(0)];
    set.fetcher.buffer.unassign(&[("t", 0)]).unwrap();
    set.obeys();
    set.fetcher.buffer.assign(vec![(key(0), Start::Offset(5))]).unwrap();
    set.obeys();
    assert_eq!(set.slot(0), slot, "the number is given again");
    assert_eq!(set.reading(0).next, Some(Position::at(5, -1)));
    assert_ne!(set.reading(0).incarnation, was);
    // What was asked for before comes too late, whatever it is.
    set.fetched(before, record(5));
    assert_eq!((set.position(), set.reading(0).next), (Some(5), Some(Position::at(5, -1))));
    set.fetched(late, refusal(1));
    set.fetched(later, refusal(6));
    assert!(set.told().is_empty());
    assert_eq!((set.reading(0).retry_at, set.reading(0).stopped), (None, false));
    let asked = set.asked(0);
    set.fetched(asked, record(5));
    assert_eq!(set.fetcher.buffer.take(&set.pool).unwrap().unwrap().base_offset(), 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_is_not_asked_for_and_what_comes_is_kept() {
    let mut set = led_by(&[1, 1]);
    for partition in 0..2 {
        set.reading(partition).next = Some(Position::at(5, -1));
    }
    let asked = set.asked(0);
    set.fetcher.buffer.pause(&[("t", 0)], true).unwrap();
    set.obeys();
    assert_eq!(set.wanted(1), [set.slot(1)]);
    set.fetched(asked, record(5));
    assert!(set.told().is_empty() && set.wanted(1) == [set.slot(1)]);
    assert_eq!(set.reading(0).next.map(|at| at.offset), Some(6));
    set.fetcher.buffer.pause(&[("t", 0)], false).unwrap();
    assert_eq!(set.fetcher.buffer.take(&set.pool).unwrap().unwrap().base_offset(), 5);
    set.obeys();
    assert_eq!(set.wanted(1), [set.slot(0), set.slot(1)]);
}

/// What the former leader answers does not delay what the present one is asked.
#[tokio::test(start_paused = true)]
async fn a_partition_that_has_moved_is_asked_for_where_it_is() {
    let mut set = led_by(&[1]);
    set.reading(0).next = Some(Position::at(5, -1));
    set.fetcher.settle(set.now());
    assert_eq!(set.wanted(1), [set.slot(0)]);
    let [refused, failed] = [set.asked(0), set.asked(0)];
    set.learns(7, &[2]);
    assert_eq!((set.wanted(1), set.wanted(2)), (vec![], vec![set.slot(0)]));
    set.fetched(refused, refusal(6));
    set.response(failed, Err(Failed::Unsent(timeout())));
    set.fetcher.settle(set.now());
    assert_eq!((set.reading(0).retry_at, set.wanted(2)), (None, vec![set.slot(0)]));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_time_is_asked_for_then() {
    let mut set = led_by(&[1]);
    set.reading(0).next = Some(Position::at(5, -1));
    let asked = set.asked(0);
    set.fetched(asked, refusal(-1));
    let at = set.reading(0).retry_at.unwrap();
    set.fetcher.settle(set.now());
    assert_eq!(set.wanted(1).is_empty(), at > set.now());
    set.fetcher.settle(at);
    assert_eq!(set.wanted(1), [set.slot(0)]);
    assert!(set.fetcher.retries.is_empty());
}

/// The application and the metadata name a partition at the same moment: what was asked for the one is no answer
/// to the other.
#[tokio::test(start_paused = true)]
async fn a_lookup_answers_the_start_that_it_was_made_for() {
    let mut set = set();
    set.fetcher.obey();
    set.fetcher.buffer.assign(vec![(key(0), Start::Latest)]).unwrap();
    set.learns(7, &[1]);
    let asked = set.starting(0);
    set.obeys();
    set.starts_at(asked, 0);
    assert_eq!(set.reading(0).next, None, "that was its beginning");
    // A seek that is not heard of yet as the topic is found to be another one.
    let mut set = led_by(&[1]);
    set.reading(0).next = Some(Position::at(5, -1));
    set.fetcher.buffer.seek("t", 0, Start::Latest).unwrap();
    set.learns(8, &[1]);
    let asked = set.starting(0);
    set.obeys();
    set.starts_at(asked, 0);
    assert_eq!(set.reading(0).next, None);
}

/// It was asked of two brokers, as it moved in between.
#[tokio::test(start_paused = true)]
async fn a_late_response_is_nothing_to_who_waits_for_a_seek() {
    let mut set = led_by(&[1]);
    set.reading(0).reset = Start::Offset(5);
    set.reading(0).next = Some(Position::at(5, -1));
    let [first, second, third] = [0; 3].map(|partition| set.asked(partition));
    set.fetched(first, refusal(1));
    assert_eq!(set.told(), [ErrorKind::OffsetOutOfRange]);
    set.fetched(second, refusal(1));
    assert_eq!(set.told(), [], "told twice");
    set.fetched(third, record(5));
    assert!(set.fetcher.buffer.take(&set.pool).is_none(), "nothing more until a seek");
}

/// Batches that overlap: a record of both is handed out once.
#[tokio::test(start_paused = true)]
async fn what_a_response_holds_twice_is_handed_out_once() {
    let mut set = led_by(&[1]);
    set.reading(0).next = Some(Position::at(5, -1));
    let asked = set.asked(0);
    let twice = [5, 5, 6].map(crate::consumer::buffer::one_record).concat();
    let data = PartitionData::default().with_high_watermark(7).with_records(Some(twice.into()));
    set.fetched(asked, response(data));
    let taken = || set.fetcher.buffer.take(&set.pool);
    let offsets: Vec<i64> =
        std::iter::from_fn(taken).map(|batch| batch.unwrap().base_offset()).collect();
    assert_eq!(offsets, [5, 6]);
}

/// In a session a response says nothing of what is as it was: that is well, too.
#[tokio::test(start_paused = true)]
async fn what_failed_and_is_left_out_of_the_next_response_is_well() {
    let mut set = led_by(&[1, 1]);
    for partition in 0..2 {
        set.reading(partition).next = Some(Position::at(5, -1));
    }
    set.fetcher.settle(set.now());
    let ids = session::Event::Due { ids: false, supported: true };
    let now = set.now();
    // A session is begun, and broken off before the next request leaves.
    let begun = response(PartitionData::default().with_high_watermark(5)).with_session_id(7);
    let mut other = begun.responses[0].clone();
    other.partitions[0].partition_index = 1;
    let begun = begun.clone().with_responses(vec![begun.responses[0].clone(), other]);
    let source = set.fetcher.sources.get_mut(&1).unwrap();
    source.session.on(ids, now, &mut set.fetcher.rng);
    let version = Some(12);
    let cluster = set.fetcher.incarnation;
    let answers = |set: &mut Set, response| {
        let event = Event::Response { leader: 1, cluster, sent: now, version, response };
        set.fetcher.handle(event);
    };
    answers(&mut set, Ok(begun));
    let asks = |set: &mut Set| {
        let ids = session::Event::Due { ids: false, supported: true };
        let source = set.fetcher.sources.get_mut(&1).unwrap();
        matches!(source.session.on(ids, now, &mut set.fetcher.rng), Action::Send(ask) if !ask.full)
    };
    set.fetcher.settle(now);
    assert!(asks(&mut set));
    answers(&mut set, Err(Failed::Unsent(timeout())));
    assert_eq!([0, 1].map(|partition| set.reading(partition).backoff.attempts()), [1, 1]);
    set.fetcher.settle(now + secs(10));
    assert!(asks(&mut set));
    set.fetcher.settle(now + secs(10));
    tokio::time::advance(secs(10)).await;
    answers(&mut set, Ok(FetchResponse::default().with_session_id(7)));
    assert_eq!([0, 1].map(|partition| set.reading(partition).backoff.attempts()), [0, 0]);
}

/// What was asked of a broker of another cluster is nothing to the one that has its number now.
#[tokio::test(start_paused = true)]
async fn responses_of_another_cluster_are_none() {
    let mut set = led_by(&[1]);
    let asked = set.asked(0);
    set.fetcher.sources.entry(1).or_default().in_flight = 5;
    set.fetcher.incarnation += 1;
    let cluster = set.fetcher.incarnation - 1;
    set.fetcher.sources.entry(1).or_default().session = asked;
    let (sent, response) = (set.now(), Err(Failed::Lost(timeout())));
    let event = Event::Response { leader: 1, cluster, sent, version: Some(4), response };
    set.fetcher.handle(event);
    let source = &set.fetcher.sources[&1];
    assert_eq!((source.in_flight, source.version), (0, None));
    assert_eq!(set.told(), []);
    assert_eq!(set.reading(0).backoff.attempts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_look_at_epochs_is_over_also_if_reading_has_gone_on_meanwhile() {
    let mut set = led_by(&[1]);
    let (now, slot) = (set.now(), set.slot(0));
    set.reading(0).next = Some(Position::at(100, 3));
    set.reading(0).looking = true;
    let what = What::Records { offset: 100, epoch: 3 };
    let asked = Asked::of(slot, set.reading(0), what);
    // A Fetch that was on its way before.
    set.reading(0).next = Some(Position::at(200, 3));
    set.fetcher.checked(1, &[(asked, 4)], now, Ok(Vec::new()), now);
    assert!(!set.reading(0).looking);
    assert_eq!(set.reading(0).next, Some(Position::at(200, 3)));
}

/// While enough of others is queued, or the next Fetch has to wait, nobody asks a replica: it is not behind for that.
#[tokio::test(start_paused = true)]
async fn s26_a_replica_that_is_not_asked_is_not_behind() {
    let mut set = led_by(&[1]);
    let (slot, now, leader) = (set.slot(0), set.now(), set.fetcher.leader(&key(0)).unwrap());
    let Fetcher { rng, reading, leases, .. } = &mut set.fetcher;
    let reading = reading.get_mut(slot).unwrap();
    reading.next = Some(Position::at(0, -1));
    reading.lags = true;
    assert!(reading.replica.told((leader.0, 2), leader, now, rng));
    reading.replica.expects(0, 10, now);
    leases.insert((now + secs(10), slot));
    set.fetcher.settle(now);
    assert_eq!(set.wanted(2), [slot]);
    for _ in 0..3 {
        tokio::time::advance(secs(11)).await;
        set.fetcher.settle(set.now());
        assert!(set.fetcher.shunned.is_empty() && set.wanted(2) == [slot]);
    }
    // It is asked, and another partition brings all that comes.
    let (now, Fetcher { rng, sources, .. }) = (set.now(), &mut set.fetcher);
    let source = sources.get_mut(&2).unwrap();
    let due = session::Event::Due { ids: false, supported: true };
    assert!(matches!(source.session.on(due, now, rng), Action::Send(_)));
    source.in_flight = 1;
    tokio::time::advance(secs(11)).await;
    set.fetcher.settle(set.now());
    assert_eq!((set.fetcher.shunned.len(), set.wanted(1)), (1, vec![slot]));
}
