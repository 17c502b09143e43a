//! Batches whose sequence is refused although they may be in the log.

use super::*;
use crate::producer::accumulator::LastKnown;

/// So many batches in doubt, of which the broker does not know the first any more; they are being
/// looked up. Sequences 2 to 3, 4 to 5, and so on, under epoch 0.
fn forgotten(n: usize) -> Partition {
    let mut p = in_flight(n);
    (1..=n as u64).for_each(|id| p.failed(id, false, FailureCause::Failed));
    assert!(p.settle().is_empty());
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 1);
    p.out_of_sequence(1);
    assert!(p.settle().is_empty(), "doubt sticks");
    assert_eq!(p.wants_lookup(), Some(7));
    p.lookup_begun();
    assert!(p.wants_lookup().is_none() && p.next_resend(LEADER, now()).is_none());
    p
}

fn last(epoch: i32, sequence: i32) -> Option<LastKnown> {
    Some(LastKnown { epoch, sequence })
}

#[test]
fn what_the_broker_forgot_is_acknowledged_with_what_it_remembers() {
    let mut p = forgotten(3);
    let out = p.looked_up(last(0, 7));
    assert!(out.acknowledged.is_empty() && out.unknown.is_empty(), "nobody has it for sure");
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 3, "that which is remembered");
    assert!(p.next_resend(LEADER, now()).is_none());
    assert!(p.acknowledged(3).is_some());
    // The second was not looked up: its sequence was not refused.
    assert_eq!(p.take_in_log().len(), 1);
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 2);
    p.out_of_sequence(2);
    assert!(p.settle().is_empty());
    p.lookup_begun();
    assert_eq!(p.looked_up(last(0, 7)).acknowledged.len(), 1);
    let sent = p.push(9, batches(1, 1).remove(0), LEADER, (7, 0));
    assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (0, 8), "no hole");
}

#[test]
fn what_the_log_takes_next_or_has_last_is_sent_again() {
    for known in [last(0, 1), last(0, 3)] {
        let mut p = forgotten(2);
        let out = p.looked_up(known);
        assert!(out.acknowledged.is_empty() && out.unknown.is_empty());
        assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 1);
    }
}

#[test]
fn what_proves_nothing() {
    // Nothing of us; another epoch; too little; more than we know of.
    for known in [None, last(1, 9), last(1, 1), last(1, 3), last(0, 0), last(0, 99)] {
        let mut p = forgotten(1);
        let out = p.looked_up(known);
        assert!(out.acknowledged.is_empty(), "{known:?}");
        assert_eq!(out.unknown.len(), 1, "{known:?}");
        assert!(p.settle().is_empty());
        let sent = p.push(9, batches(1, 1).remove(0), LEADER, (7, 0));
        assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (1, 0), "{known:?}");
    }
}

#[test]
fn another_leader_is_asked_anew() {
    let mut p = forgotten(2);
    p.looked_up(last(0, 5));
    assert_eq!(p.next_resend(2, now()).unwrap().id, 1, "what one knows, another may not");
}

#[test]
fn a_witness_that_is_refused_has_all_looked_up_again() {
    let mut p = forgotten(2);
    p.looked_up(last(0, 5));
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 2);
    assert!(!p.has_older(2));
    p.out_of_sequence(2);
    assert!(p.settle().is_empty());
    p.lookup_begun();
    assert_eq!(p.looked_up(None).unknown.len(), 2);
    assert!(p.settle().is_empty());
}

#[test]
fn locked_out_by_a_doubtful_one_behind_it() {
    let mut p = in_flight(3);
    p.failed(1, true, FailureCause::Failed);
    p.failed(2, false, FailureCause::Failed);
    p.failed(3, true, FailureCause::Failed);
    assert_eq!(p.settle().len(), 1);
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 1);
    p.out_of_sequence(1);
    assert_eq!(p.settle().len(), 1, "it is in no log, and cannot be appended there");
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 2);
    assert!(p.acknowledged(2).is_some());
    let sent = p.push(9, batches(1, 1).remove(0), LEADER, (7, 0));
    assert_eq!((sent.stamp.epoch, sent.stamp.sequence), (1, 0));
}

#[test]
fn a_lookup_waits_until_nothing_is_in_flight() {
    let mut p = in_flight(3);
    (1..=3).for_each(|id| p.failed(id, false, FailureCause::Failed));
    assert!(p.settle().is_empty());
    assert_eq!(p.next_resend(LEADER, now()).unwrap().id, 1);
    assert!(p.acknowledged(1).is_some());
    for id in 2..=3 {
        assert_eq!(p.next_resend(LEADER, now()).unwrap().id, id);
    }
    p.out_of_sequence(2);
    assert!(p.settle().is_empty() && p.wants_lookup().is_none());
    p.failed(3, true, FailureCause::Failed);
    assert!(p.settle().is_empty());
    assert_eq!(p.wants_lookup(), Some(7));
    // A leader that could not be asked is asked again.
    p.lookup_begun();
    assert!(p.wants_lookup().is_none());
    p.lookup_failed();
    assert_eq!(p.wants_lookup(), Some(7));
}

#[test]
fn without_its_witness_a_batch_is_looked_up_again() {
    let mut p = forgotten(2);
    assert!(p.looked_up(last(0, 5)).unknown.is_empty());
    assert!(p.give_up(2).unwrap().1, "its time was up");
    assert!(p.settle().is_empty());
    assert_eq!(p.wants_lookup(), Some(7));
    assert!(p.next_resend(LEADER, now()).is_none());
}
