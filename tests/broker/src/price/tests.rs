use proptest::prelude::*;

use super::*;

const fn us(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// When each of these (arrival, cost) is done, in microseconds.
fn done(threads: usize, work: &[(u64, u64)]) -> Vec<u64> {
    let mut queue = Queue::new(threads);
    work.iter().map(|(at, cost)| queue.take(us(*at), us(*cost)).as_micros() as u64).collect()
}

const PRICE: Price = Price { threads: 2, request: us(50), batch: us(5), record: us(1), kib: us(2) };

#[test]
fn a_request_costs_the_sum_of_what_is_in_it() {
    let of = |requests, batches, records, bytes| {
        PRICE.of(Work { requests, batches, records, bytes }).as_nanos()
    };
    assert_eq!(of(1, 0, 0, 0), 50_000);
    assert_eq!(of(1, 3, 0, 0), 65_000);
    assert_eq!(of(1, 3, 100, 0), 165_000);
    assert_eq!(of(1, 3, 100, 10_240), 185_000);
    // A byte costs something, although less than the grain of the price.
    assert_eq!(of(0, 0, 0, 1), 1);
    assert_eq!(of(0, 0, 0, 512), 1_000);
    assert_eq!(of(u64::MAX, 0, 0, 0), u128::from(u64::MAX), "no overflow");
}

#[test]
fn a_dearer_price_is_dearer_in_all_and_has_as_many_threads() {
    let dear = PRICE.times(4.0);
    let work = Work { requests: 1, batches: 2, records: 30, bytes: 4_096 };
    assert_eq!(dear.of(work), PRICE.of(work) * 4);
    assert_eq!(dear.threads, PRICE.threads);
    assert_eq!(PRICE.times(1.0), PRICE);
}

#[test]
fn one_thread_works_in_order_and_an_idle_one_begins_at_once() {
    // The second waits for the first, the third for the second; the fourth finds it idle.
    assert_eq!(done(1, &[(0, 100), (10, 100), (20, 5), (500, 7)]), [100, 200, 205, 507]);
}

#[test]
fn threads_work_side_by_side_and_the_next_is_for_the_first_that_is_free() {
    let work = [(0, 100), (0, 30), (0, 10), (0, 10), (45, 1)];
    assert_eq!(done(2, &work), [100, 30, 40, 50, 51]);
    assert_eq!(done(5, &work), [100, 30, 10, 10, 46]);
    assert_eq!(done(0, &work[..2]), done(1, &work[..2]), "no broker is without a thread");
}

#[test]
fn below_capacity_nothing_piles_up_and_above_it_all_that_is_too_much_does() {
    // One request in 10 us; a second of them.
    let last = |threads, cost| {
        let mut queue = Queue::new(threads);
        let mut waits = 0;
        for i in 0..100_000u64 {
            let at = us(10 * i);
            waits = (queue.take(at, us(cost)) - at).as_micros() as u64;
        }
        (waits, queue.longest_wait().as_millis() as u64)
    };
    assert_eq!(last(2, 19), (19, 0));
    assert_eq!(last(2, 20), (20, 0));
    // A twelfth more than it can: after a second, half of that in time of each of the threads.
    let (wait, longest) = last(2, 24);
    assert!((199_000..201_000).contains(&wait), "{wait}");
    assert!((199..=200).contains(&longest), "{longest}");
}

#[test]
fn what_was_worked_is_neither_what_was_given_nor_more_than_there_was_time_for() {
    let mut queue = Queue::new(2);
    assert_eq!(queue.worked(us(1_000)), Duration::ZERO);
    queue.take(us(1_000), us(100));
    queue.take(us(1_000), us(300));
    queue.take(us(1_000), us(100));
    assert_eq!(queue.worked(us(1_000)), Duration::ZERO, "all of it is ahead");
    assert_eq!(queue.worked(us(1_050)), us(100), "two threads, half of the first piece each");
    assert_eq!(queue.worked(us(1_250)), us(450));
    assert_eq!(queue.worked(us(1_300)), us(500));
    assert_eq!(queue.worked(us(9_000)), us(500), "idle since");
    queue.take(us(9_000), us(10));
    assert_eq!(queue.worked(us(9_005)), us(505));
}

/// Pieces of work in the order in which they come: the time since the one before, and the cost, in
/// microseconds.
fn work() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0..200u64, 0..500u64), 1..80)
}

/// A piece of work, when it came, was begun and done.
#[derive(Debug)]
struct Piece {
    came: Duration,
    begun: Duration,
    done: Duration,
}

fn played(queue: &mut Queue, pieces: &[(u64, u64)]) -> Vec<Piece> {
    let mut came = Duration::ZERO;
    let play = |(gap, cost): &(u64, u64)| {
        came += us(*gap);
        let done = queue.take(came, us(*cost));
        Piece { came, begun: done - us(*cost), done }
    };
    pieces.iter().map(play).collect()
}

/// How many of these are worked on right before a moment, and from it on.
fn under_way(pieces: &[Piece], at: Duration) -> (usize, usize) {
    let before = pieces.iter().filter(|piece| piece.begun < at && piece.done >= at).count();
    let behind = pieces.iter().filter(|piece| piece.begun <= at && piece.done > at).count();
    (before, behind)
}

proptest! {
    #[test]
    fn nobody_overtakes_nobody_waits_for_an_idle_thread_and_none_does_two_things(
        threads in 1..6usize,
        pieces in work(),
    ) {
        let mut queue = Queue::new(threads);
        let played = played(&mut queue, &pieces);
        let mut longest = Duration::ZERO;
        for (index, piece) in played.iter().enumerate() {
            prop_assert!(piece.begun >= piece.came);
            prop_assert!(index == 0 || piece.begun >= played[index - 1].begun, "in their order");
            let (before, behind) = under_way(&played[..index], piece.begun);
            prop_assert!(behind < threads, "{behind} are worked on and it is begun");
            if piece.begun > piece.came {
                prop_assert_eq!(before, threads, "it waited, and a thread was idle");
            }
            longest = longest.max(piece.begun - piece.came);
        }
        prop_assert_eq!(queue.longest_wait(), longest);
    }

    #[test]
    fn all_that_is_given_is_worked_in_the_end_and_never_more_than_there_is_time_for(
        threads in 1..6usize,
        pieces in work(),
    ) {
        let mut queue = Queue::new(threads);
        let played = played(&mut queue, &pieces);
        let came = played.last().expect("one at least").came;
        let end = played.iter().map(|piece| piece.done).max().expect("one at least").max(came);
        let mut before = queue.worked(came);
        prop_assert!(before <= came * threads as u32);
        let step = (end - came) / 20 + us(1);
        for steps in 1..=21 {
            let worked = queue.worked(came + step * steps);
            prop_assert!(worked >= before && worked - before <= step * threads as u32);
            before = worked;
        }
        prop_assert_eq!(before, pieces.iter().map(|(_, cost)| us(*cost)).sum::<Duration>());
    }

    #[test]
    fn more_work_costs_more_and_parts_cost_what_the_whole_does(
        parts in prop::collection::vec((0..9u64, 0..99u64, 0..9_999u64, 0..9_999_999u64), 1..9),
    ) {
        let (mut whole, mut sum) = (Work::default(), Duration::ZERO);
        for &(requests, batches, records, bytes) in &parts {
            let before = PRICE.of(whole);
            whole.requests += requests;
            whole.batches += batches;
            whole.records += records;
            whole.bytes += bytes;
            sum += PRICE.of(Work { requests, batches, records, bytes });
            prop_assert!(PRICE.of(whole) >= before);
        }
        // Bytes are rounded down to a nanosecond in each part.
        let rounding = Duration::from_nanos(parts.len() as u64);
        prop_assert!(PRICE.of(whole) >= sum && PRICE.of(whole) <= sum + rounding);
    }
}
