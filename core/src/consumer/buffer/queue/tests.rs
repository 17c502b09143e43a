//! The queues alone: what goes in comes out once and in order, and everybody has a share.

use proptest::prelude::*;

use super::super::tests::fetched;
use super::*;
use crate::error::{Error, ErrorKind};

fn key(topic: &str, partition: i32) -> Key {
    (Arc::from(topic), partition)
}

fn error(kind: ErrorKind) -> Arc<Notice> {
    Notice::new(Error::new(kind, "news"))
}

/// Some shelves of one topic.
fn shelves(count: i32) -> (Shelves, Vec<(SlotId, u64)>) {
    let mut shelves = Shelves::default();
    let slots = (0..count).map(|p| shelves.add(&key("t", p))).collect();
    (shelves, slots)
}

impl Shelves {
    /// One batch of one record at `offset`.
    fn put(&mut self, (slot, incarnation): (SlotId, u64), offset: i64, size: usize) -> bool {
        let pushed =
            self.push(slot, incarnation, vec![fetched(offset, size)], ((offset + 1, 0), 1_000));
        pushed.is_ok_and(|(ready, _)| ready)
    }

    fn position(&self, slot: SlotId) -> Option<i64> {
        self.get(slot).unwrap().position
    }

    /// Partition and offset of what is next, or the kind of the error.
    fn next(&mut self) -> Option<Result<(i32, i64), ErrorKind>> {
        loop {
            let taken = self.pop()?;
            return Some(match taken.what {
                What::Batch(fetched) => Ok((taken.key.1, fetched.raw.base_offset)),
                What::Returned(_) => panic!("nobody returns anything here"),
                What::Notice(notice) => match notice.tell() {
                    Some(error) => Err(error.kind()),
                    None => continue,
                },
            });
        }
    }

    fn rest(&mut self) -> Vec<Result<(i32, i64), ErrorKind>> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

#[test]
fn pause_drops_nothing_and_hands_out_nothing() {
    let (mut shelves, slots) = shelves(2);
    (0..3).for_each(|at| assert!(shelves.put(slots[0], at, 100)));
    shelves.put(slots[1], 7, 100);
    shelves.pause(slots[0].0, true);
    assert_eq!(shelves.rest(), [Ok((1, 7))]);
    assert!(!shelves.put(slots[0], 3, 100), "nothing to wake anybody for");
    assert_eq!((shelves.bytes, shelves.next()), (400, None));
    shelves.pause(slots[0].0, false);
    assert!(shelves.ready(slots[0].0));
    assert_eq!(shelves.rest(), [Ok((0, 0)), Ok((0, 1)), Ok((0, 2)), Ok((0, 3))]);
    assert_eq!(shelves.bytes, 0);
}

#[test]
fn resume_goes_on_where_it_was() {
    let (mut shelves, slots) = shelves(2);
    for slot in &slots {
        (0..2).for_each(|at| _ = shelves.put(*slot, at, QUANTUM));
    }
    // Between two looks it keeps its place.
    shelves.pause(slots[0].0, true);
    shelves.pause(slots[0].0, false);
    assert!(shelves.ready(slots[0].0));
    assert_eq!(shelves.rest(), [Ok((0, 0)), Ok((1, 0)), Ok((0, 1)), Ok((1, 1))]);
}

#[test]
fn what_a_seek_leaves_is_not_handed_out_and_what_comes_late_is_not_taken() {
    let (mut shelves, slots) = shelves(1);
    let (slot, old) = slots[0];
    shelves.put(slots[0], 1, 100);
    shelves.pause(slot, true);
    let (new, dropped) = shelves.clear(slot).unwrap();
    assert!(new > old && dropped.0.len() == 1);
    assert!(!shelves.put((slot, old), 2, 100));
    assert!(!shelves.put((slot, new), 40, 100), "it is paused still");
    shelves.pause(slot, false);
    shelves.ready(slot);
    assert_eq!(shelves.rest(), [Ok((0, 40))]);
    assert_eq!((shelves.bytes, shelves.position(slot)), (0, Some(41)));
}

#[test]
fn unassigned_is_not_handed_out_and_its_number_is_given_again_later() {
    let (mut shelves, slots) = shelves(2);
    let (slot, old) = slots[0];
    shelves.put(slots[0], 1, 100);
    shelves.put(slots[1], 5, 100);
    assert_eq!(shelves.take_out(slot, StreamEnd::Left).0.len(), 1);
    assert_eq!((shelves.bytes, shelves.iter().count(), shelves.find("t", 0)), (100, 1, None));
    let other = shelves.add(&key("u", 0));
    assert_ne!(other.0, slot, "the fetcher may still speak of it");
    shelves.release(slot);
    let again = shelves.add(&key("t", 0));
    assert!(again.0 == slot && again.1 > old);
    assert!(!shelves.put((slot, old), 2, 100));
    shelves.put(again, 9, 100);
    assert_eq!(shelves.rest(), [Ok((1, 5)), Ok((0, 9))]);
}

#[test]
fn what_is_gone_is_handed_out_to_its_end() {
    let (mut shelves, slots) = shelves(1);
    let (slot, incarnation) = slots[0];
    shelves.put(slots[0], 1, 100);
    shelves.pause(slot, true);
    shelves.retire(slot);
    assert_eq!((shelves.iter().count(), shelves.find("t", 0)), (0, None));
    assert!(!shelves.put((slot, incarnation), 2, 100), "what comes later is not");
    assert_ne!(shelves.add(&key("t", 0)).0, slot);
    assert_eq!(shelves.rest(), [Ok((0, 1))]);
    assert_eq!(shelves.add(&key("u", 0)).0, slot);
    assert_eq!(shelves.iter().count(), 2);
}

#[test]
fn the_position_is_behind_each_batch() {
    let (mut shelves, slots) = shelves(1);
    let (slot, incarnation) = slots[0];
    let batches = [5, 6, 9].map(|offset| fetched(offset, 100)).into();
    assert!(shelves.push(slot, incarnation, batches, ((12, 0), 20)).is_ok());
    let mut positions = Vec::new();
    while shelves.next().is_some() {
        positions.extend(shelves.position(slot));
    }
    assert_eq!(positions, [6, 7, 12]);
}

/// Markers of transactions, and batches that compaction has emptied.
#[test]
fn position_passes_what_is_not_shown() {
    let (mut shelves, slots) = shelves(1);
    let (slot, incarnation) = slots[0];
    assert!(shelves.pass(slot, incarnation, (5, 0)), "where it begins");
    assert_eq!(shelves.position(slot), Some(5));
    let push = |shelves: &mut Shelves, fetched, next| {
        shelves.push(slot, incarnation, fetched, ((next, 0), 20)).ok().unwrap()
    };
    // Behind a batch: with it.
    assert_eq!(push(&mut shelves, vec![fetched(5, 100)], 8), (true, false));
    assert_eq!(push(&mut shelves, vec![], 9), (true, false));
    assert_eq!(shelves.position(slot), Some(5));
    assert_eq!(shelves.next(), Some(Ok((0, 5))));
    assert_eq!(shelves.position(slot), Some(9));
    // Behind nothing: at once.
    assert_eq!(push(&mut shelves, vec![], 12), (false, true));
    assert_eq!(shelves.position(slot), Some(12));
    assert_eq!(push(&mut shelves, vec![], 12), (false, false));
    // Behind an error: from there on.
    shelves.tell(slot, incarnation, &error(ErrorKind::Truncated), Then::Unknown);
    assert!(!shelves.pass(slot, incarnation, (3, 0)));
    assert_eq!(shelves.position(slot), Some(12));
    shelves.next();
    assert_eq!(shelves.position(slot), Some(3));
    shelves.tell(slot, incarnation, &error(ErrorKind::Truncated), Then::Unknown);
    shelves.next();
    assert_eq!(shelves.position(slot), None);
    // Entries of an earlier incarnation are in nobody's way.
    shelves.put((slot, incarnation), 3, 100);
    let new = shelves.renew(slot).unwrap();
    assert!(shelves.pass(slot, new, (0, 0)) && shelves.next().is_some());
    assert_eq!(shelves.position(slot), Some(0));
}

#[test]
fn errors_of_a_kind_that_nobody_took_are_one() {
    let (mut shelves, slots) = shelves(1);
    let (slot, incarnation) = slots[0];
    for n in 0..10 {
        for kind in [ErrorKind::Truncated, ErrorKind::OffsetOutOfRange] {
            shelves.tell(slot, incarnation, &error(kind), Then::At(n, 0));
        }
    }
    assert_eq!(shelves.position(slot), None);
    // The last of them says where to go on, also if there is one that does not say it.
    shelves.tell(slot, incarnation, &error(ErrorKind::OffsetOutOfRange), Then::Stays);
    let kinds = [Err(ErrorKind::Truncated), Err(ErrorKind::OffsetOutOfRange)];
    assert_eq!(shelves.rest(), kinds);
    assert_eq!(shelves.position(slot), Some(9));
    // A batch between two keeps them apart, and a seek leaves what there is to tell.
    shelves.tell(slot, incarnation, &error(ErrorKind::Truncated), Then::At(1, 0));
    shelves.put(slots[0], 1, 100);
    shelves.tell(slot, incarnation, &error(ErrorKind::Truncated), Then::At(1, 0));
    shelves.clear(slot);
    shelves.tell(slot, incarnation, &error(ErrorKind::Truncated), Then::At(1, 0));
    assert_eq!(shelves.rest(), [Err(ErrorKind::Truncated); 2]);
    assert_eq!(shelves.position(slot), None, "news of a place that was left");
}

/// One that is told to several has a place in the queue of each.
#[test]
fn an_error_of_many_is_told_once() {
    let (mut shelves, slots) = shelves(3);
    shelves.put(slots[0], 1, QUANTUM);
    shelves.put(slots[1], 2, QUANTUM);
    let notice = error(ErrorKind::Truncated);
    for (slot, incarnation) in &slots {
        shelves.tell(*slot, *incarnation, &notice, Then::At(0, 0));
    }
    slots.iter().for_each(|slot| _ = shelves.put(*slot, 0, QUANTUM));
    let rest = shelves.rest();
    assert_eq!(rest.iter().filter(|item| item.is_err()).count(), 1);
    assert_eq!(rest[..3], [Ok((0, 1)), Ok((1, 2)), Err(ErrorKind::Truncated)]);
    assert_eq!(rest.len(), 6);
}

/// Bytes that each topic got, where both always have something: one batch of so many bytes at a time.
fn shares(topics: [(i32, usize); 2]) -> [usize; 2] {
    let (mut shelves, mut got) = (Shelves::default(), [0, 0]);
    let batches = topics.map(|(_, size)| fetched(0, size).raw);
    let push = |shelves: &mut Shelves, slot: (SlotId, u64), topic: usize| {
        let again = Fetched { raw: batches[topic].clone(), from: 0, frame: 0 };
        _ = shelves.push(slot.0, slot.1, vec![again], ((1, 0), 1));
    };
    let names = ["a", "b"];
    let mut slots = BTreeMap::new();
    for (topic, (partitions, _)) in topics.into_iter().enumerate() {
        for partition in 0..partitions {
            let slot = shelves.add(&key(names[topic], partition));
            slots.insert(key(names[topic], partition), (slot, topic));
            (0..2).for_each(|_| push(&mut shelves, slot, topic));
        }
    }
    while got.iter().max() < Some(&(4 << 20)) {
        let taken = shelves.pop().unwrap();
        let (slot, topic) = slots[&taken.key];
        got[topic] += taken.bytes;
        push(&mut shelves, slot, topic);
    }
    got
}

#[test]
fn two_topics_share_in_bytes_whatever_their_partitions_and_batches() {
    let sizes = [500, 30_000, 300_000];
    for (a, b) in [(1, 1), (1, 20), (3, 2)] {
        for size_of_a in sizes {
            for size_of_b in sizes {
                let [least, most] = {
                    let mut got = shares([(a, size_of_a), (b, size_of_b)]);
                    got.sort_unstable();
                    got
                };
                assert!(
                    least * 10 > most * 8,
                    "{a} of {size_of_a}, {b} of {size_of_b}: {least} {most}"
                );
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Act {
    Push(usize, usize),
    Pop(usize),
    Pause(usize, bool),
    Seek(usize),
    Tell(usize),
    Reassign(usize),
    Retire(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let one = 0usize..4;
    prop_oneof![
        4 => (one.clone(), 1usize..5).prop_map(|(p, n)| Act::Push(p, n)),
        4 => (1usize..6).prop_map(Act::Pop),
        2 => (one.clone(), any::<bool>()).prop_map(|(p, pause)| Act::Pause(p, pause)),
        1 => one.clone().prop_map(Act::Seek),
        1 => one.clone().prop_map(Act::Tell),
        1 => one.clone().prop_map(Act::Reassign),
        1 => one.prop_map(Act::Retire),
    ]
}

proptest! {
    /// Whatever is done: of each incarnation what is handed out is what was pushed, in order, once; nothing of one that is
    /// paused; and no byte is left counted.
    #[test]
    fn what_goes_in_comes_out_once_and_in_order(acts in prop::collection::vec(act(), 1..80)) {
        let (mut shelves, mut slots) = shelves(4);
        let mut next = [0i64; 4];
        // What is to come, by partition; that of a partition that is gone before that of its successor.
        let mut wanted: [VecDeque<i64>; 4] = Default::default();
        let mut gone: [Vec<VecDeque<i64>>; 4] = Default::default();
        let mut told = 0;
        let mut paused = [false; 4];
        for act in acts.into_iter().chain([Act::Pop(usize::MAX)]) {
            match act {
                Act::Push(p, count) => {
                    let batches = (0..count as i64).map(|n| fetched(next[p] + n, 200)).collect();
                    wanted[p].extend(next[p]..next[p] + count as i64);
                    next[p] += count as i64;
                    let (slot, incarnation) = slots[p];
                    let pushed = shelves.push(slot, incarnation, batches, ((next[p], 0), next[p]));
                    prop_assert_eq!(pushed.ok().map(|(ready, _)| ready), Some(!paused[p]));
                }
                Act::Pop(count) => {
                    if count == usize::MAX {
                        for p in 0..4 {
                            shelves.pause(slots[p].0, false);
                            shelves.ready(slots[p].0);
                            paused[p] = false;
                        }
                    }
                    for item in std::iter::from_fn(|| shelves.next()).take(count) {
                        let Ok((p, offset)) = item else { continue };
                        let p = p as usize;
                        let of_gone = gone[p].iter_mut().find(|left| left.front() == Some(&offset));
                        if let Some(left) = of_gone {
                            left.pop_front();
                            continue;
                        }
                        prop_assert!(!paused[p]);
                        prop_assert_eq!(wanted[p].pop_front(), Some(offset));
                    }
                }
                Act::Pause(p, pause) => {
                    paused[p] = pause;
                    shelves.pause(slots[p].0, pause);
                    shelves.ready(slots[p].0);
                }
                Act::Seek(p) => {
                    let (incarnation, dropped) = shelves.clear(slots[p].0).unwrap();
                    slots[p].1 = incarnation;
                    prop_assert_eq!(
                        dropped.0.iter().filter(|e| matches!(e.what, What::Batch(_))).count(),
                        wanted[p].len()
                    );
                    wanted[p].clear();
                    next[p] += 1_000;
                }
                Act::Tell(p) => {
                    told += 1;
                    let (slot, incarnation) = slots[p];
                    let notice = error(ErrorKind::Truncated);
                    let then = Then::At(next[p], 0);
                    shelves.tell(slot, incarnation, &notice, then);
                }
                Act::Reassign(p) | Act::Retire(p) => {
                    if let Act::Reassign(_) = act {
                        shelves.take_out(slots[p].0, StreamEnd::Left);
                        shelves.release(slots[p].0);
                        wanted[p].clear();
                    } else {
                        shelves.retire(slots[p].0);
                        gone[p].push(std::mem::take(&mut wanted[p]));
                    }
                    slots[p] = shelves.add(&key("t", p as i32));
                    paused[p] = false;
                    next[p] += 1_000;
                }
            }
            let counted: usize = shelves.shelves.iter().flatten().map(|shelf| shelf.bytes).sum();
            prop_assert_eq!(counted, shelves.bytes);
            let held = shelves.shelves.iter().flatten().filter(|shelf| shelf.paused);
            prop_assert_eq!(held.map(|shelf| shelf.bytes).sum::<usize>(), shelves.held);
        }
        prop_assert!(wanted.iter().all(VecDeque::is_empty), "{wanted:?}");
        prop_assert!(gone.iter().flatten().all(VecDeque::is_empty), "{gone:?}");
        prop_assert_eq!((shelves.bytes, shelves.iter().count()), (0, 4));
        prop_assert!(told == 0 || shelves.next().is_none());
    }
}
