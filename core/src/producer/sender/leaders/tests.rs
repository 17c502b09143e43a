//! Which brokers a sender knows, uses and dials, without a sender.

use std::ops::RangeInclusive;

use tokio::io::DuplexStream;

use super::lanes::BYTES_PER_LANE;
use super::*;
use crate::cluster::{Broker, Handle, Lane, by_hand};
use crate::error::Error;
use crate::net::Connection;
use crate::net::by_hand::connection;
use crate::policy::reconnect::DialEnd;

struct Set {
    pool: Handle,
    leaders: Leaders,
    now: Instant,
    /// The other ends of connections.
    peers: Vec<DuplexStream>,
}

/// Brokers with these ids, learned of and looked at once.
fn set(brokers: RangeInclusive<i32>) -> Set {
    let pool = by_hand::client();
    let now = pool.env().now();
    let leaders = Leaders::new(now, pool.settings().chooser(&pool));
    let mut set = Set { pool, leaders, now, peers: Vec::new() };
    set.told_of(brokers);
    set.round();
    set
}

impl Set {
    fn told_of(&mut self, brokers: RangeInclusive<i32>) {
        self.pool.told_of(brokers);
        self.leaders.learn(&self.pool);
    }

    fn round(&mut self) {
        self.leaders.begin_round(&self.pool, self.pool.metrics(), self.now);
    }

    fn get(&mut self, id: i32) -> &mut Leader {
        self.leaders.get(id).expect("a broker that was learned of")
    }

    fn connection(&mut self, id: i32) -> Connection {
        let (connection, peer) = connection(self.pool.env(), id);
        self.peers.push(peer);
        connection
    }

    fn connect(&mut self, id: i32) {
        let connection = self.connection(id);
        self.leaders.connected(id, connection);
    }

    fn broker(&self, id: i32) -> Arc<Broker> {
        self.pool.broker(id).expect("a member")
    }

    fn cannot_be_reached(&self, id: i32) {
        let (broker, error) = (self.broker(id), Error::closed("socket"));
        self.pool.random(|rng| broker.dial_failed(DialEnd::Failed, false, &error, self.now, rng));
    }

    fn wants_more(&mut self) -> bool {
        self.pool.random(|rng| self.leaders.wants_more(self.now, rng))
    }

    /// The brokers that are not of the subset, those that are ranked higher first.
    fn others(&self) -> Vec<i32> {
        let of_it = |id: &&i32| !self.leaders.subset.contains(id);
        self.leaders.ranking.iter().filter(of_it).copied().collect()
    }

    /// The subset turns, as after hours: another process would have this one.
    fn turns(&mut self) {
        self.leaders.chooser.instance += 1;
        self.leaders.ranked_until = None;
        self.round();
    }

    /// Brokers with an open lane.
    fn lanes(&mut self) -> BTreeSet<i32> {
        let lane = |(id, leader): (&i32, &mut Leader)| leader.lane().is_some().then_some(*id);
        self.leaders.all.iter_mut().filter_map(lane).collect()
    }

    fn widen(&mut self, topics: &[&[i32]]) -> bool {
        let topics: Vec<_> = topics.iter().map(|ids| ids.iter().copied().collect()).collect();
        self.leaders.widen(&topics, self.now)
    }

    fn outside(&self) -> Vec<i32> {
        self.leaders.outside.iter().copied().collect()
    }
}

/// Records for it would wait for a dial that cannot be, instead of for who leads now.
#[tokio::test(start_paused = true)]
async fn what_is_no_part_of_the_cluster_is_sent_to_for_as_long_as_it_is_connected() {
    let mut set = set(1..=3);
    set.connect(3);
    set.get(3).requests = 1;
    set.told_of(1..=2);
    assert!(set.leaders.known(3).is_some());
    set.get(3).connection = None;
    assert!(set.leaders.known(3).is_none());
    assert!(set.leaders.get(3).is_some(), "an answer is still to come");
    set.get(3).requests = 0;
    set.leaders.learn(&set.pool);
    assert!(set.leaders.get(3).is_none());
}

/// What is dialled for it would be dialled for one that never is a member again.
#[tokio::test(start_paused = true)]
async fn a_broker_that_was_forgotten_and_is_back_is_another_one() {
    let mut set = set(1..=3);
    set.get(3).requests = 1;
    set.told_of(1..=2);
    tokio::time::advance(Duration::from_secs(3_600)).await;
    set.told_of(1..=2);
    set.told_of(1..=3);
    let back = set.broker(3);
    assert!(!Arc::ptr_eq(&set.get(3).broker, &back), "what is in flight is the old one's");
    set.get(3).requests = 0;
    set.leaders.learn(&set.pool);
    assert!(Arc::ptr_eq(&set.get(3).broker, &back));
}

#[tokio::test(start_paused = true)]
async fn who_comes_into_the_cluster_is_chosen_from_at_once() {
    let mut set = set(1..=3);
    assert!(set.leaders.is_used(3) && !set.leaders.is_used(4));
    set.told_of(1..=4);
    set.round();
    assert!(set.leaders.is_used(4));
}

#[tokio::test(start_paused = true)]
async fn nothing_goes_beside_what_may_end_the_connection() {
    let mut set = set(1..=1);
    set.connect(1);
    let now = set.now;
    let leader = set.get(1);
    leader.requests = 1;
    assert!(leader.is_ready(now));
    leader.alone = true;
    assert!(!leader.is_ready(now), "it is in flight");
    leader.alone = false;
    leader.reserved = true;
    assert!(!leader.is_ready(now), "it waits for what is in flight");
    leader.requests = 0;
    assert!(leader.is_ready(now), "it may go");
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_are_in_flight_than_the_limit_says() {
    let mut set = set(1..=1);
    set.connect(1);
    let now = set.now;
    let leader = set.get(1);
    leader.requests = leader.limit.get() - 1;
    assert!(leader.is_ready(now));
    leader.requests += 1;
    assert!(!leader.is_ready(now));
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_reached_is_avoided_unless_most_cannot() {
    let mut set = set(1..=4);
    set.cannot_be_reached(1);
    set.round();
    let avoided = |set: &mut Set| (1..=4).map(|id| set.get(id).is_avoided()).collect::<Vec<_>>();
    assert_eq!(avoided(&mut set), [true, false, false, false]);
    (2..=3).for_each(|id| set.cannot_be_reached(id));
    set.round();
    assert_eq!(avoided(&mut set), [false; 4]);
}

/// What was sent before says nothing about how many are needed now: a fleet that lost a broker would
/// dial in the same second.
#[tokio::test(start_paused = true)]
async fn after_a_loss_the_volume_is_counted_anew() {
    let mut set = set(1..=6);
    set.connect(1);
    set.connect(2);
    set.round();
    set.leaders.sent(BYTES_PER_LANE - 1, set.now);
    set.get(1).connection = None;
    set.round();
    set.leaders.sent(1, set.now);
    assert!(!set.wants_more());
    set.leaders.sent(BYTES_PER_LANE - 1, set.now);
    assert!(set.wants_more());
}

/// All lanes would be opened one right after the other.
#[tokio::test(start_paused = true)]
async fn with_each_lane_the_volume_is_counted_anew() {
    let mut set = set(1..=6);
    set.leaders.sent(BYTES_PER_LANE, set.now);
    assert!(set.wants_more());
    set.leaders.opening();
    assert!(!set.wants_more());
}

#[tokio::test(start_paused = true)]
async fn outside_the_subset_nobody_is_used_whom_records_avoid() {
    let mut set = set(1..=9);
    let [first, second, _] = set.others()[..] else { panic!("six of nine") };
    set.cannot_be_reached(first);
    set.round();
    assert!(set.widen(&[&[first, second]]));
    assert_eq!(set.outside(), [second]);
}

/// One connection less.
#[tokio::test(start_paused = true)]
async fn outside_the_subset_who_is_connected_is_used_first() {
    let mut set = set(1..=9);
    let [first, second, _] = set.others()[..] else { panic!("six of nine") };
    let connection = set.connection(second);
    set.broker(second).put(Lane::Control, connection);
    assert!(set.widen(&[&[first, second]]));
    assert_eq!(set.outside(), [second]);
}

/// A service that goes on naming topics would stay with what it once needed.
#[tokio::test(start_paused = true)]
async fn outside_the_subset_brokers_are_used_for_minutes_whatever_comes_meanwhile() {
    let mut set = set(1..=9);
    let [first, second, _] = set.others()[..] else { panic!("six of nine") };
    let start = set.now;
    assert!(set.widen(&[&[first]]));
    set.now = start + OUTSIDE_FOR / 2;
    set.round();
    assert!(set.widen(&[&[first], &[second]]));
    set.now = start + OUTSIDE_FOR;
    set.round();
    assert!(set.outside().is_empty(), "{:?}", set.outside());
}

/// Until their idle timeout there would be twice as many, of a whole fleet where ordinals turn together.
#[tokio::test(start_paused = true)]
async fn after_a_turn_each_lane_that_opens_takes_the_place_of_one() {
    let mut set = set(1..=20);
    for turn in 0..50 {
        let before = set.leaders.subset.clone();
        before.iter().for_each(|id| set.connect(*id));
        set.round();
        assert_eq!(set.lanes(), before, "turn {turn}");
        set.turns();
        assert_eq!(set.lanes(), before, "nobody has taken a place yet");
        let after = set.leaders.subset.clone();
        for id in after.difference(&before) {
            set.connect(*id);
            set.round();
            assert_eq!(set.lanes().len(), before.len(), "turn {turn}");
            assert!(!set.leaders.lost_one, "it was closed, not lost");
        }
        assert_eq!(set.lanes(), after, "turn {turn}");
    }
}

/// What is in flight would be in doubt, and what is used is dialled again.
#[tokio::test(start_paused = true)]
async fn after_a_turn_what_is_of_use_stays() {
    for (case, stays) in [("idle", false), ("in flight", true), ("used", true), ("outside", true)] {
        let mut set = set(1..=20);
        let before = set.leaders.subset.clone();
        set.turns();
        let after = set.leaders.subset.clone();
        let (old, new) = (
            *before.difference(&after).next().expect("it has turned"),
            *after.difference(&before).next().expect("it has turned"),
        );
        set.leaders.chooser.instance -= 1;
        set.leaders.ranked_until = None;
        set.round();
        set.connect(old);
        set.turns();
        match case {
            "used" => {
                // A connection counts as used when it is made.
                tokio::time::advance(Duration::from_secs(5)).await;
                set.now += Duration::from_secs(5);
                set.connect(old);
            }
            "in flight" => set.get(old).requests = 1,
            "outside" => assert!(set.widen(&[&[old]])),
            _ => {}
        }
        set.connect(new);
        set.round();
        assert_eq!(set.lanes().contains(&old), stays, "{case}");
        if case == "in flight" {
            set.get(old).requests = 0;
            set.round();
            assert!(!set.lanes().contains(&old), "it is answered");
        }
    }
}

/// A lane that was proved, or that batches needed that name their partition, is no other one's successor.
#[tokio::test(start_paused = true)]
async fn after_a_turn_only_lanes_of_the_new_choice_take_a_place() {
    let mut set = set(1..=20);
    let before = set.leaders.subset.clone();
    before.iter().for_each(|id| set.connect(*id));
    set.turns();
    let lanes = set.lanes();
    let foreign = *set.others().iter().find(|id| !before.contains(id)).expect("twenty brokers");
    set.connect(foreign);
    let inside = *set.leaders.subset.iter().next().expect("six");
    set.get(inside).proving = true;
    set.connect(inside);
    set.round();
    assert!(lanes.is_subset(&set.lanes()));
}

/// What may go elsewhere is taken away from it with each, and looked for once.
#[tokio::test(start_paused = true)]
async fn each_silence_of_a_broker_is_news_once() {
    let mut set = set(1..=2);
    for silence in 1..=3 {
        set.get(1).stuck = true;
        assert_eq!(set.leaders.newly_stuck(), [1], "silence {silence}");
        assert!(set.leaders.newly_stuck().is_empty(), "it is the same");
        set.get(1).stuck = false;
        assert!(set.leaders.newly_stuck().is_empty());
    }
}
