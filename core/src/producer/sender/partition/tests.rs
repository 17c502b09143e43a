mod doubt;

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;

use super::*;
use crate::config::ProducerConfig;
use crate::environment::Environment;
use crate::producer::accumulator::{Accumulator, Event, Shard};
use crate::producer::batch::SplitPlan;
use crate::producer::delivery::Unread;
use crate::producer::record::Record;
use crate::record::pool::ChunkPool;

const LEADER: i32 = 1;

/// Batches of `records` records each, as a producer would fill them.
fn batches(n: usize, records: usize) -> Vec<Batch> {
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
    let env = Environment::builder().build();
    let config = ProducerConfig::default();
    let accumulator = Accumulator::new(config, &env, &ChunkPool::default(), &Arc::default(), tx);
    let accumulator = Arc::new(accumulator);
    let mut made = Vec::new();
    for _ in 0..n {
        for _ in 0..records {
            let (record, sender) = (Record::to("t").value("v"), Unread::new(None));
            assert!(accumulator.append(Shard::default(), &record, &sender).is_ok());
        }
        let Ok(Event::Ready(accumulator, _, batch_queue)) = rx.try_recv() else {
            panic!("not announced")
        };
        made.extend(batch_queue.take(&accumulator));
        batch_queue.peek(&accumulator);
    }
    made
}

fn now() -> Instant {
    Instant::now()
}

/// A partition with `n` batches of two records in flight, ids from 1, all after a first
/// acknowledgement; their sequences start at 2.
fn in_flight(n: usize) -> Partition {
    let mut p = Partition::default();
    let mut made = batches(n + 1, 2).into_iter();
    assert!(p.has_room(LEADER, now()));
    p.push(0, made.next().unwrap(), LEADER, (7, 0));
    assert!(!p.has_room(LEADER, now()), "one in flight until the first is acknowledged");
    assert!(p.acknowledged(0).is_some());
    for (i, batch) in made.enumerate() {
        assert!(p.has_room(LEADER, now()));
        let sent = p.push(1 + i as u64, batch, LEADER, (7, 0));
        assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (0, 2 + 2 * i as i32));
    }
    p
}

#[test]
fn five_in_flight_at_most() {
    let p = in_flight(5);
    assert!(!p.has_room(LEADER, now()));
}

#[test]
fn nothing_moves_while_a_response_is_due() {
    let mut p = in_flight(2);
    p.failed(1, true, FailureCause::Failed);
    assert!(p.settle().is_empty());
    assert!(!p.has_room(LEADER, now()));
    p.failed(2, true, FailureCause::Failed);
    assert!(p.next_resend(LEADER, now()).is_none(), "what moves is not known yet");
    assert_eq!(p.settle().len(), 2);
}

#[test]
fn what_is_unwritten_comes_back_and_the_sequence_is_rewound() {
    let mut p = in_flight(3);
    assert!(p.acknowledged(1).is_some());
    p.failed(2, true, FailureCause::Failed);
    p.failed(3, true, FailureCause::Failed);
    let back = p.settle();
    assert_eq!(back.len(), 2);
    let sent = p.push(9, batches(1, 1).remove(0), LEADER, (7, 0));
    assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (0, 4));
}

#[test]
fn a_batch_in_doubt_stays_and_holds_what_is_before_it() {
    let mut p = in_flight(3);
    p.failed(1, true, FailureCause::Failed);
    p.failed(2, false, FailureCause::Failed);
    p.failed(3, true, FailureCause::Failed);
    assert_eq!(p.settle().len(), 1, "only the tail behind the doubtful one");
    let again = p.next_resend(LEADER, now()).unwrap();
    assert_eq!((again.id, again.stamp.sequence), (1, 2));
    assert_eq!(again.retry, Some(Cost::Definite));
    assert!(p.next_resend(LEADER, now()).is_none(), "one in flight after an error");
    assert!(p.acknowledged(1).is_some());
    let again = p.next_resend(LEADER, now()).unwrap();
    assert_eq!((again.id, again.stamp.sequence), (2, 4));
    assert_eq!(again.retry, Some(Cost::InDoubt));
}

#[test]
fn doubt_sticks() {
    let mut p = in_flight(1);
    p.failed(1, false, FailureCause::Failed);
    assert!(p.settle().is_empty());
    assert!(p.next_resend(LEADER, now()).is_some());
    p.failed(1, true, FailureCause::Failed);
    assert!(p.settle().is_empty(), "a later refusal proves nothing about the first attempt");
    assert!(p.needs_leader());
}

#[test]
fn given_up_in_doubt_drains_and_bumps_the_epoch() {
    let mut p = in_flight(2);
    let (_, maybe) = p.give_up(1).unwrap();
    assert!(maybe, "it is on its way");
    p.failed(1, false, FailureCause::Failed);
    p.failed(2, false, FailureCause::Failed);
    assert!(p.settle().is_empty());
    assert!(!p.has_room(LEADER, now()), "nothing new behind a hole");
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 2);
    assert!(p.acknowledged(2).is_some());
    let sent = p.push(9, batches(1, 1).remove(0), LEADER, (7, 0));
    assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (1, 0));
}

#[test]
fn after_the_last_epoch_it_goes_on_under_another_producer_id() {
    let mut p = in_flight(2);
    p.sequence.skip_to(i16::MAX);
    p.give_up(1).unwrap();
    p.failed(1, false, FailureCause::Failed);
    assert!(p.settle().is_empty() && p.take_used_up().is_none(), "not drained yet");
    assert!(p.acknowledged(2).is_some());
    assert!(p.settle().is_empty());
    assert_eq!((p.take_used_up(), p.take_used_up()), (Some(7), None));
    let stamp = p.push(9, batches(1, 1).remove(0), LEADER, (8, 0)).stamp;
    assert_eq!(stamp, ProducerStamp { producer_id: 8, epoch: 0, sequence: 0 });
    // One that has begun under an id stays with it.
    assert!(p.acknowledged(9).is_some());
    let stamp = p.push(10, batches(1, 1).remove(0), LEADER, (99, 0)).stamp;
    assert_eq!(stamp, ProducerStamp { producer_id: 8, epoch: 0, sequence: 1 });
}

#[test]
fn given_up_but_never_sent_again_leaves_no_hole() {
    let mut p = in_flight(2);
    p.failed(1, true, FailureCause::Failed);
    p.failed(2, true, FailureCause::Failed);
    let (_, maybe) = p.give_up(2).unwrap();
    assert!(!maybe);
    assert_eq!(p.settle().len(), 1);
    let sent = p.push(9, batches(1, 1).remove(0), LEADER, (7, 0));
    assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (0, 2));
}

#[test]
fn a_log_that_lost_data_goes_on_under_the_next_epoch() {
    let mut p = in_flight(1);
    p.failed(1, true, FailureCause::Failed);
    assert_eq!(p.settle().len(), 1);
    let refused = p.push(8, batches(1, 1).remove(0), LEADER, (7, 0));
    p.out_of_sequence(refused.id);
    assert_eq!(p.settle().len(), 1);
    let sent = p.push(9, batches(1, 1).remove(0), LEADER, (7, 0));
    assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (1, 0));
}

#[test]
fn halves_take_the_place_of_the_whole() {
    let mut p = in_flight(3);
    p.failed(1, true, FailureCause::Split(SplitPlan::Halves));
    p.failed(2, false, FailureCause::Failed);
    p.failed(3, true, FailureCause::Failed);
    assert_eq!(p.settle().len(), 1);
    let (at, whole) = p.take_halved().unwrap();
    assert!(p.take_halved().is_none());
    let parts = batches(2, 1).into_iter().zip(11..).map(|(batch, id)| (id, batch)).collect();
    assert!(p.put_parts(at, parts, whole.records()).is_empty());
    for (id, sequence) in [(11, 2), (12, 3), (2, 4)] {
        let again = p.next_resend(LEADER, now()).unwrap();
        assert_eq!((again.id, again.stamp.epoch, again.stamp.sequence), (id, 0, sequence));
        assert!(p.acknowledged(id).is_some());
    }
    let sent = p.push(9, batches(1, 1).remove(0), LEADER, (7, 0));
    assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (0, 6));
}

#[test]
fn halves_without_a_place_leave_before_what_is_behind_them() {
    let mut p = in_flight(4);
    p.failed(1, true, FailureCause::Split(SplitPlan::Halves));
    p.failed(2, true, FailureCause::Failed);
    p.failed(3, false, FailureCause::Failed);
    p.failed(4, true, FailureCause::Failed);
    assert_eq!(p.settle().len(), 1, "the fourth is in no log");
    let (at, whole) = p.take_halved().unwrap();
    // One could not be compressed.
    let parts = vec![(11, batches(1, 1).remove(0))];
    let back = p.put_parts(at, parts, whole.records());
    let records: Vec<_> = back.iter().map(|(batch, _)| batch.records()).collect();
    assert_eq!(records, [1, 2], "its piece, and the second behind it");
    // The third is looked up, or nobody knows; then it goes on under the next epoch.
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 3);
    assert!(p.acknowledged(3).is_some());
    let sent = p.push(9, batches(1, 1).remove(0), LEADER, (7, 0));
    assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (1, 0));
}

#[test]
fn a_culprit_leaves_a_hole_and_what_is_behind_it_does_not_wait() {
    let mut p = in_flight(4);
    p.failed(1, true, FailureCause::Failed);
    p.failed(2, true, FailureCause::Failed);
    p.failed(3, false, FailureCause::Failed);
    p.failed(4, false, FailureCause::Failed);
    assert!(!p.give_up(1).unwrap().1);
    assert_eq!(p.settle().len(), 1, "the second is in no log");
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 3);
    assert!(p.acknowledged(3).is_some() && p.acknowledged(4).is_some());
    let sent = p.push(9, batches(1, 1).remove(0), LEADER, (7, 0));
    assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (1, 0));
}

#[test]
fn a_new_leader_gets_nothing_while_the_old_one_owes_responses() {
    let mut p = in_flight(2);
    assert!(p.has_room(LEADER, now()) && !p.has_room(2, now()));
    p.failed(1, false, FailureCause::Failed);
    assert!(p.next_resend(2, now()).is_none());
    p.failed(2, false, FailureCause::Failed);
    assert!(p.settle().is_empty(), "both are in doubt");
    assert_eq!(p.next_resend(2, now()).unwrap().id, 1);
}

#[test]
fn a_pause_holds_everything() {
    let mut p = in_flight(1);
    p.failed(1, false, FailureCause::Failed);
    p.retry_at = Some(now() + Duration::from_secs(3600));
    assert!(p.next_resend(LEADER, now()).is_none());
    assert!(!Partition { retry_at: p.retry_at, ..Partition::default() }.has_room(LEADER, now()));
}

/// What was acknowledged behind the oldest counts too: a broker takes a batch older than the five
/// it remembers for a gap.
#[test]
fn five_counts_from_the_oldest() {
    let mut p = in_flight(5);
    for id in 2..=5 {
        assert!(p.acknowledged(id).is_some() && !p.has_room(LEADER, now()), "{id}");
    }
    assert!(p.acknowledged(1).is_some() && p.has_room(LEADER, now()));
}

/// Whether there is room beside one that is put in now.
fn room_for_two(p: &mut Partition, leader: i32) -> bool {
    assert!(p.has_room(leader, now()));
    p.push(99, batches(1, 1).remove(0), leader, (7, 0));
    p.has_room(leader, now())
}

/// What was proven is not any more: a second batch could lock the first out.
#[test]
fn one_in_flight_after_an_error_a_move_and_a_new_log() {
    assert!(room_for_two(&mut in_flight(0), LEADER));
    let mut refused = in_flight(1);
    refused.failed(1, true, FailureCause::Failed);
    assert_eq!(refused.settle().len(), 1);
    assert!(!room_for_two(&mut refused, LEADER));
    assert!(!room_for_two(&mut in_flight(0), 2), "another leader");
    let mut recreated = in_flight(0);
    recreated.recreated();
    assert!(!room_for_two(&mut recreated, LEADER));
    // A response to what was sent before the error proves nothing.
    let mut doubtful = in_flight(2);
    doubtful.failed(1, false, FailureCause::Failed);
    assert!(doubtful.acknowledged(2).is_some());
    assert!(doubtful.settle().is_empty());
    assert_eq!(doubtful.next_resend(LEADER, now()).unwrap().id, 1);
    assert!(!doubtful.has_room(LEADER, now()));
    // Nor does the last response under an epoch for the next one.
    let mut holed = in_flight(2);
    holed.give_up(1).unwrap();
    (1..=2).for_each(|id| holed.failed(id, false, FailureCause::Failed));
    assert!(holed.settle().is_empty());
    assert_eq!(holed.next_resend(LEADER, now()).unwrap().id, 2);
    assert!(holed.acknowledged(2).is_some());
    assert!(!room_for_two(&mut holed, LEADER));
}

#[test]
fn what_waits_to_be_sent_again_goes_before_what_is_new() {
    let mut p = in_flight(3);
    (1..=3).for_each(|id| p.failed(id, false, FailureCause::Failed));
    assert!(p.settle().is_empty());
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 1);
    assert!(p.acknowledged(1).is_some());
    assert!(!p.has_room(LEADER, now()));
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 2);
    assert!(!p.has_room(LEADER, now()));
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 3);
    assert!(p.has_room(LEADER, now()));
}

/// The place of a batch that was refused for good is the next one's.
#[test]
fn what_is_refused_for_good_leaves_no_gap() {
    let mut p = in_flight(1);
    p.failed(1, true, FailureCause::Failed);
    assert!(!p.give_up(1).unwrap().1);
    assert!(p.settle().is_empty() && p.is_empty());
    let sent = p.push(9, batches(1, 1).remove(0), LEADER, (7, 0));
    assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (0, 2));
}

/// It was given up, and is in the log after all.
#[test]
fn an_acknowledgement_closes_the_hole_before_it() {
    let mut p = in_flight(2);
    p.give_up(1).unwrap();
    (1..=2).for_each(|id| p.failed(id, false, FailureCause::Failed));
    assert!(p.settle().is_empty());
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 2);
    p.give_up(2).unwrap();
    assert!(p.acknowledged(2).is_none(), "nobody waits for it");
    let sent = p.push(9, batches(1, 1).remove(0), LEADER, (7, 0));
    assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (0, 6));
}

#[test]
fn a_success_makes_the_next_pause_a_first_one() {
    let mut p = in_flight(1);
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    for _ in 0..3 {
        p.backoff.next(&mut rng);
    }
    assert!(p.acknowledged(1).is_some());
    assert_eq!(p.backoff.attempts(), 0);
}

#[test]
fn what_is_taken_in_flight_or_in_doubt_may_be_written() {
    let mut p = in_flight(4);
    p.failed(1, true, FailureCause::Failed);
    p.failed(2, false, FailureCause::Failed);
    p.failed(3, true, FailureCause::Failed);
    let maybe: Vec<bool> = p.take_all().into_iter().map(|(_, maybe)| maybe).collect();
    assert_eq!(maybe, [false, true, false, true]);
}

/// Two halves are two batches to a broker, which remembers five.
#[test]
fn halves_count_as_two() {
    let mut p = in_flight(2);
    p.failed(1, true, FailureCause::Split(SplitPlan::Halves));
    p.failed(2, false, FailureCause::Failed);
    assert!(p.settle().is_empty());
    let (at, whole) = p.take_halved().unwrap();
    let parts = batches(2, 1).into_iter().zip(11..).map(|(batch, id)| (id, batch)).collect();
    assert!(p.put_parts(at, parts, whole.records()).is_empty());
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 11);
    assert!(p.acknowledged(11).is_some());
    for id in [12, 2] {
        assert_eq!(p.next_resend(LEADER, now()).unwrap().id, id);
    }
    let fill = |p: &mut Partition| {
        let mut more = 0;
        while p.has_room(LEADER, now()) {
            p.push(20, batches(1, 1).remove(0), LEADER, (7, 0));
            more += 1;
        }
        more
    };
    assert_eq!(fill(&mut p), 3, "beside the second half and what was behind");
    assert!(p.acknowledged(12).is_some());
    assert_eq!(fill(&mut p), 1);
}

/// Going to another leader is no retry, nor is what never left.
#[test]
fn a_move_in_place_costs_nothing() {
    let mut p = in_flight(2);
    p.failed(1, true, FailureCause::Moved);
    p.failed(2, false, FailureCause::Failed);
    assert!(p.settle().is_empty());
    let again = p.next_resend(LEADER, now()).unwrap();
    assert_eq!((again.id, again.retry), (1, None));
}

#[test]
fn nothing_new_goes_behind_a_hole() {
    let mut p = in_flight(3);
    p.give_up(1).unwrap();
    (1..=3).for_each(|id| p.failed(id, false, FailureCause::Failed));
    assert!(p.settle().is_empty());
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 2);
    assert!(p.acknowledged(2).is_some());
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 3);
    assert!(!p.has_room(LEADER, now()), "it would be the first of the next epoch");
    assert!(p.acknowledged(3).is_some() && p.has_room(LEADER, now()));
}
