//! A fetcher that is told by hand what metadata says and what brokers answer.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::protocol::StrBytes as Text;
use uuid::Uuid;

use super::silence::Kind;
use super::*;
use crate::cluster::by_hand;
use crate::config::ConsumerConfig;
use crate::error::ErrorKind;
use crate::policy::turns::Turn;

struct Set {
    pool: Handle,
    fetcher: Fetcher,
}

/// One that reads topic `t`, of which nothing is known yet.
fn set() -> Set {
    let pool = by_hand::client();
    let buffer = Arc::new(Buffer::new(ConsumerConfig::default()));
    let fetcher = Fetcher::new(&pool, &buffer, vec!["t".into()], Vec::new(), Start::Earliest);
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
    }

    fn topic(&mut self) -> &mut Topic {
        self.fetcher.topics.get_mut("t").unwrap()
    }

    fn reading(&mut self, partition: i32) -> &mut Reading {
        self.fetcher.reading.get_mut(&key(partition)).expect("a partition that is read")
    }

    fn asked(&mut self, partition: i32) -> Vec<Asked> {
        vec![Asked::new(&key(partition), self.reading(partition))]
    }

    /// What the application is told, and forgets.
    fn told(&self) -> Vec<ErrorKind> {
        let next = || self.fetcher.buffer.take(&self.pool);
        std::iter::from_fn(next).map(|told| told.map(drop).unwrap_err().kind()).collect()
    }

    /// Broker 1 answers what was asked for partition 0, or does not.
    fn answers(&mut self, went: bool, response: Result<FetchResponse>) {
        let (asked, sent) = (self.asked(0), self.now());
        self.fetcher.handle(Event::Response { leader: 1, asked, sent, went, response });
    }

    fn cannot_be_reached(&self, broker: i32) {
        let broker = self.pool.broker(broker).unwrap();
        let error = Error::new(ErrorKind::Connect, "refused");
        broker.dialing(self.now());
        self.pool.random(|rng| broker.dial_failed(false, false, &error, self.now(), rng));
    }

    fn is_silent(&mut self, broker: i32, kind: Kind, sent: Instant) {
        self.fetcher.unanswered(broker, kind, sent, true, &timeout(), sent + secs(30));
    }
}

/// No records of partition 0, of which there are as many as that.
fn empty_response(high_watermark: i64) -> FetchResponse {
    let partition = PartitionData::default()
        .with_partition_index(0)
        .with_high_watermark(high_watermark)
        .with_records(Some(Bytes::new()));
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
    assert!(set.fetcher.reading.is_empty() && set.topic().meta.is_none());
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
    let now = set.now();
    let mut soon = 0;
    for _ in 0..2_000 {
        set.reading(0).backoff.reset();
        set.fetcher.wake_at = None;
        set.fetcher.without_leader(&[key(0)], now);
        soon += usize::from(set.reading(0).retry_at.unwrap() < now + Duration::from_millis(1));
        assert!(set.fetcher.wake_at.unwrap() >= now + Duration::from_millis(1));
    }
    assert!(soon > 0, "no pause was as short as that");
}

/// It is told of where the topic is looked up.
#[tokio::test(start_paused = true)]
async fn that_a_topic_is_missing_is_not_told_of_its_partitions() {
    let mut set = led_by(&[1]);
    let now = set.now();
    let mut fails = |error: Error| {
        set.fetcher.partition_failed(&key(0), &error, now, &mut None);
        set.told()
    };
    assert_eq!(fails(Error::broker(3, "topic 't'", None).settled()), []);
    assert_eq!(fails(Error::broker(17, "topic 't'", None)).len(), 1, "what is sure to stay is");
}

/// There was no connection to ask on, which is told elsewhere.
#[tokio::test(start_paused = true)]
async fn who_was_not_asked_is_not_silent() {
    let mut set = led_by(&[1]);
    set.answers(false, Err(timeout()));
    assert_eq!(set.told(), []);
    set.answers(true, Err(timeout()));
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
    set.answers(true, Ok(empty_response(0)));
    (1..=2).for_each(|broker| set.cannot_be_reached(broker));
    set.fetcher.tell_troubles(set.now() + secs(5));
    assert_eq!(set.told(), [ErrorKind::Connect], "of broker 2");
}

/// A cluster that is moved goes on with other brokers, and under the same ids others may come.
#[tokio::test(start_paused = true)]
async fn brokers_that_are_gone_are_forgotten_once_they_owe_no_response() {
    let mut set = led_by(&[1]);
    for broker in 1..=5 {
        set.fetcher.sources.entry(broker).or_default();
    }
    set.fetcher.sources.get_mut(&5).unwrap().in_flight = 1;
    set.fetcher.forget_sources();
    let left = |set: &Set| set.fetcher.sources.keys().copied().collect::<Vec<_>>();
    assert_eq!(left(&set), [1, 2, 3, 5]);
    set.fetcher.sources.get_mut(&5).unwrap().in_flight = 0;
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
    let (asked, found) = (set.asked(0), vec![(key(0), Ok(FoundOffset { offset: 3, epoch: 1 }))]);
    set.fetcher.handle(Event::Offsets { leader: 1, asked, sent: start, found });
    assert_eq!(set.reading(0).next, Some(Position::at(3, 1)));
    assert_eq!(spell(&mut set, start + secs(200)), [ErrorKind::Timeout], "another one");
}

/// At once it would be asked for as often as brokers can answer.
#[tokio::test(start_paused = true)]
async fn a_start_that_the_response_leaves_out_is_asked_for_again_later() {
    let mut set = led_by(&[1, 1]);
    let (now, asked) = (set.now(), [set.asked(0), set.asked(1)].into_iter().flatten().collect());
    let found = vec![(key(1), Ok(FoundOffset { offset: 3, epoch: 1 }))];
    set.reading(0).busy = true;
    set.fetcher.handle(Event::Offsets { leader: 1, asked, sent: now, found });
    assert!(!set.reading(0).busy && set.reading(0).retry_at.is_some_and(|at| at > now));
    assert_eq!(set.reading(0).backoff.attempts(), 1);
    assert!(set.reading(1).next.is_some() && set.reading(1).retry_at.is_none());
}

/// The response had no room for it, or the broker had no time.
#[tokio::test(start_paused = true)]
async fn what_came_empty_although_there_are_records_goes_first() {
    let mut set = led_by(&[1]);
    set.reading(0).next = Some(Position::at(5, -1));
    set.answers(true, Ok(empty_response(5)));
    assert_eq!(set.reading(0).turn, Turn::new(), "it waits like the others");
    set.answers(true, Ok(empty_response(6)));
    assert!(set.reading(0).turn < Turn::new());
}

/// One that has nothing to tell would hold for itself what the others need.
#[tokio::test(start_paused = true)]
async fn brokers_have_turns_where_there_is_not_room_for_all() {
    let mut set = led_by(&[1, 2, 3]);
    let now = set.now();
    // What another response may bring leaves room for one more.
    let memory = set.fetcher.buffer.config.buffer_memory;
    set.fetcher.sources.entry(9).or_default().in_flight = memory - 1;
    let mut turns = Vec::new();
    for _ in 0..6 {
        for partition in 0..3 {
            let reading = set.reading(partition);
            reading.next = Some(Position::at(0, -1));
            reading.busy = false;
        }
        set.fetcher.fetch(now);
        for broker in 1..=3 {
            let source = set.fetcher.sources.entry(broker).or_default();
            turns.extend((std::mem::take(&mut source.in_flight) > 0).then_some(broker));
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
    set.topic().missing.push(9);
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
    let parts: Vec<_> = set.asked(0).into_iter().map(|part| (part, 0)).collect();
    while set.fetcher.pay(1, &parts, now).is_ok() {}
    assert!(set.fetcher.pay(1, &parts, now).is_err());
    let delayed = || pool.metrics().snapshot().retry_budget.fetch.delayed;
    assert_eq!(delayed(), 1);
    let later = now + secs(2);
    assert!(set.fetcher.pay(1, &parts, later).is_ok());
    while set.fetcher.pay(1, &parts, later).is_ok() {}
    assert_eq!(delayed(), 2);
}
