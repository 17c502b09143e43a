use super::*;

fn marks() -> Marks {
    Marks::new(&Arc::default())
}

#[test]
fn what_is_not_finished_is_read_again() {
    let marks = marks();
    assert_eq!(marks.committable(1, (10, 3)), (10, 3), "nothing was handed out");
    let a = marks.handed(1, (10, 3), (20, 4));
    let b = marks.handed(1, (20, 4), (30, 5));
    let c = marks.handed(1, (30, 5), (33, 5));
    let at = || marks.committable(1, (35, 6));
    assert_eq!(at(), (10, 3));
    // Out of order: the lowest counts.
    marks.done(&b, 30);
    assert_eq!(at(), (10, 3));
    marks.done(&a, 15);
    assert_eq!(at(), (15, 4), "as far as it has come");
    marks.done(&a, 15);
    marks.done(&a, 12);
    assert_eq!(at(), (15, 4));
    marks.done(&a, 20);
    assert_eq!(at(), (30, 5));
    marks.done(&c, 33);
    // What is passed without being handed out counts once nothing is open.
    assert_eq!((at(), marks.is_open()), ((35, 6), false));
    marks.done(&a, 20);
    assert_eq!(at(), (35, 6));
}

#[test]
fn of_a_batch_whose_records_are_handed_on_one_by_one_those_before_the_one_in_hand_are_finished() {
    let marks = marks();
    let span = marks.handed(1, (10, 3), (20, 4));
    for (reached, at) in [(10, (10, 3)), (11, (11, 4)), (19, (19, 4))] {
        span.reached(reached);
        assert_eq!(marks.committable(1, (20, 4)), at);
    }
    let next = marks.handed(1, (20, 4), (30, 4));
    marks.done(&span, 20);
    assert_eq!(marks.committable(1, (30, 4)), (20, 4), "where it was in another one says nothing");
    next.reached(25);
    assert_eq!(marks.committable(1, (30, 4)), (25, 4));
    marks.done(&next, 30);
    assert_eq!(marks.committable(1, (30, 4)), (30, 4));
}

#[test]
fn what_was_worked_on_is_what_is_in_hand_and_what_was_finished() {
    let marks = marks();
    assert_eq!(marks.worked(1), None, "nothing was handed out");
    let a = marks.handed(1, (10, 3), (20, 4));
    let b = marks.handed(1, (20, 4), (30, 4));
    assert_eq!(marks.worked(1), Some(30));
    marks.done(&b, 30);
    assert_eq!(marks.worked(1), Some(20));
    marks.done(&a, 15);
    marks.put_aside(&a, 15, true);
    assert_eq!(marks.worked(1), Some(15));
    marks.done(&a, 20);
    assert_eq!(marks.worked(1), Some(30));
    assert_eq!(marks.worked(2), None, "of another topic of the name");
}

#[test]
fn single_offsets_are_finished_in_any_order() {
    let marks = marks();
    let span = marks.handed(1, (10, 3), (20, 4));
    let at = || marks.committable(1, (20, 4));
    marks.done_range(&span, 15, 16);
    marks.done_range(&span, 12, 13);
    assert_eq!(at(), (10, 3));
    marks.done_range(&span, 10, 11);
    assert_eq!(at(), (11, 4));
    marks.done_range(&span, 11, 12);
    assert_eq!(at(), (13, 4), "across what was finished before");
    marks.done_range(&span, 15, 15);
    marks.done_range(&span, 16, 15);
    assert_eq!(at(), (13, 4));
    marks.done_range(&span, i64::MIN, 15);
    assert_eq!(at(), (16, 4));
    // Behind its end is another's.
    let next = marks.handed(1, (20, 4), (30, 4));
    marks.done_range(&span, 16, i64::MAX);
    assert_eq!(marks.committable(1, (30, 4)), (20, 4));
    marks.done(&next, 30);
    assert!(!marks.is_open());
    // All of it, however it was taken apart.
    let span = marks.handed(1, (30, 4), (40, 4));
    marks.done_range(&span, 33, 34);
    marks.done(&span, 40);
    assert!(!marks.is_open());
}

#[test]
fn what_was_reached_is_finished_whatever_is_acknowledged_behind_it() {
    let marks = marks();
    let span = marks.handed(1, (10, 3), (20, 4));
    span.reached(14);
    marks.done_range(&span, 14, 15);
    assert_eq!(marks.committable(1, (20, 4)), (15, 4));
    span.reached(15);
    span.reached(17);
    marks.done_range(&span, 18, 19);
    assert_eq!(marks.committable(1, (20, 4)), (17, 4));
}

#[test]
fn what_is_set_apart_is_not_finished_by_who_comes_behind_it() {
    let marks = marks();
    let span = marks.handed(1, (10, 3), (20, 4));
    span.reached(12);
    // Another goes on behind it.
    let holder = Arc::new(());
    marks.set_apart(&span, 12, 13, &Arc::downgrade(&holder));
    span.reached(13);
    span.reached(17);
    assert_eq!(marks.committable(1, (20, 4)), (12, 4));
    marks.done_range(&span, 12, 13);
    assert_eq!(marks.committable(1, (20, 4)), (17, 4));
}

/// After an unclean election offsets are given again.
#[test]
fn what_a_log_that_was_cut_back_has_no_more_is_neither_open_nor_done() {
    let marks = marks();
    let low = marks.handed(1, (40, 1), (60, 1));
    let high = marks.handed(1, (60, 1), (100, 1));
    assert_eq!(marks.committable(1, (50, 1)), (40, 1));
    marks.done(&low, 45);
    // It goes on at 50.
    let new = marks.handed(1, (50, 1), (70, 2));
    marks.done(&high, 100);
    marks.done(&low, 60);
    assert_eq!(marks.committable(1, (70, 2)), (50, 1), "those of before say nothing of it");
    marks.done(&new, 70);
    assert_eq!(marks.committable(1, (70, 2)), (70, 2));
    assert!(!marks.is_open());
    marks.handed(1, (70, 2), (80, 2));
    assert_eq!(marks.committable(1, (65, 2)), (65, 2), "cut back, and nothing handed out since");
}

/// All that was handed out of the old log is done, so that nothing is open as it is cut back.
#[test]
fn how_far_a_batch_was_handed_on_says_nothing_of_what_came_in_its_place() {
    let marks = marks();
    let old = marks.handed(1, (0, -1), (10, 1));
    old.reached(9);
    marks.done(&old, 10);
    let new = marks.handed(1, (5, 1), (15, 2));
    assert_eq!(marks.committable(1, (15, 2)), (5, 1));
    old.reached(8);
    assert_eq!(marks.committable(1, (15, 2)), (5, 1));
    marks.done(&old, 10);
    assert_eq!(marks.committable(1, (15, 2)), (5, 1), "nor does to finish it again");
    marks.done(&new, 15);
    // Another topic of the name, and who is at it still hands on the old one's records.
    marks.handed(2, (0, -1), (200, 0));
    new.reached(14);
    assert_eq!(marks.committable(2, (200, 0)), (0, -1));
    // As far as somebody had come in what is left of a batch, that is finished.
    let marks = self::marks();
    let old = marks.handed(1, (0, -1), (10, 1));
    old.reached(3);
    marks.handed(1, (5, 1), (15, 2));
    assert_eq!(marks.committable(1, (15, 2)), (3, 1));
}

/// lr2782: offsets of one partition were committed for another of its name.
#[test]
fn what_another_incarnation_left_open_says_nothing() {
    let marks = marks();
    let old = marks.handed(1, (10, 3), (20, 3));
    assert_eq!(marks.committable(2, (0, -1)), (0, -1));
    old.reached(12);
    let new = marks.handed(2, (0, -1), (15, 0));
    assert_eq!(marks.committable(2, (15, 0)), (0, -1));
    marks.done(&old, 20);
    assert_eq!(marks.committable(2, (15, 0)), (0, -1));
    marks.done(&new, 15);
    assert_eq!(marks.committable(2, (15, 0)), (15, 0));
}

#[test]
fn who_hands_records_on_is_there() {
    let marks = marks();
    assert!(!marks.has_moved());
    let span = marks.handed(1, (0, -1), (9, 0));
    assert!(!marks.has_moved());
    span.reached(3);
    assert!(marks.has_moved() && !marks.has_moved());
    marks.hands_on(3);
    assert!(marks.has_moved() && !marks.has_moved());
    span.reached(3);
    assert!(!marks.has_moved());
    // Of several, and of one that is finished already.
    let last = marks.handed(1, (9, 0), (20, 0));
    span.reached(4);
    assert!(marks.has_moved() && !marks.has_moved());
    marks.done(&last, 20);
    last.reached(12);
    assert!(marks.has_moved() && !marks.has_moved());
}

#[test]
fn what_is_put_aside_is_in_nobodys_hand_and_not_finished() {
    let marks = marks();
    let span = marks.handed(1, (10, 3), (20, 4));
    marks.put_aside(&span, 15, true);
    assert!(marks.is_open(), "what lies before is in hand");
    marks.done(&span, 15);
    assert!(!marks.is_open());
    assert_eq!(marks.committable(1, (20, 4)), (15, 4));
    marks.put_aside(&span, 15, false);
    assert!(marks.is_open());
    // In whatever order.
    marks.put_aside(&span, 16, true);
    marks.done_range(&span, 15, 16);
    assert!(!marks.is_open());
    marks.done(&span, 20);
    assert!(!marks.is_open());
    assert_eq!(marks.committable(1, (20, 4)), (20, 4));
}

#[test]
fn what_somebody_had_who_is_gone_is_in_nobodys_hand_and_never_finished() {
    let marks = marks();
    let span = marks.handed(1, (10, 3), (20, 4));
    let [one, two] = [Arc::new(()), Arc::new(())];
    marks.set_apart(&span, 10, 11, &Arc::downgrade(&one));
    marks.set_apart(&span, 11, 20, &Arc::downgrade(&two));
    drop(one);
    assert!(marks.is_open());
    marks.done_range(&span, 11, 20);
    assert!(!marks.is_open());
    assert_eq!(marks.committable(1, (20, 4)), (10, 3));
    let next = marks.handed(1, (20, 4), (30, 4));
    marks.done(&next, 30);
    assert_eq!(marks.committable(1, (30, 4)), (10, 3));
    drop(two);
}

#[test]
fn so_much_may_be_open_and_no_more() {
    let attention = Arc::new(Attention::default());
    let marks = Marks::new(&attention);
    let most = MOST_OPEN as i64;
    let span = marks.handed(1, (0, -1), (2 * most, 0));
    // Every second one is finished.
    for at in 0..most - 1 {
        marks.done_range(&span, 2 * at, 2 * at + 1);
        assert!(!marks.is_full() && !attention.is_any_full(), "{at}");
    }
    let last = marks.handed(1, (2 * most, 0), (2 * most + 1, 0));
    assert!(marks.is_full());
    assert_eq!(attention.fillings(), (1, 0));
    // A batch that is finished in one piece is no way out, what lies between is.
    marks.done(&last, 2 * most + 1);
    assert!(marks.is_full() && attention.is_any_full());
    marks.done(&span, most / 2 - 10);
    assert!(marks.is_full());
    marks.done(&span, most / 2 + 10);
    assert!(!marks.is_full() && !attention.is_any_full());
    assert_eq!(attention.fillings(), (1, 1));
}

#[test]
fn what_is_full_and_goes_is_not_full_any_more() {
    let attention = Arc::new(Attention::default());
    let marks = Marks::new(&attention);
    for at in 0..MOST_OPEN as i64 {
        marks.handed(1, (at, -1), (at + 1, 0));
    }
    assert!(marks.is_full());
    // Another log.
    marks.handed(2, (0, -1), (1, 0));
    assert!(!marks.is_full());
    for at in 0..MOST_OPEN as i64 {
        marks.handed(3, (at, -1), (at + 1, 0));
    }
    assert!(attention.is_any_full());
    drop(marks);
    assert!(!attention.is_any_full());
    // Of one that is read no more, somebody may keep batches for ever.
    let marks = Marks::new(&attention);
    let spans: Vec<Span> =
        (0..MOST_OPEN as i64).map(|at| marks.handed(1, (at, -1), (at + 1, 0))).collect();
    assert!(attention.is_any_full());
    marks.leave();
    assert!(!attention.is_any_full());
    marks.done(&spans[0], 1);
    assert!(!attention.is_any_full());
}

#[test]
fn who_waits_is_woken_once() {
    let attention = Arc::new(Attention::default());
    let marks = Marks::new(&attention);
    let is_woken = || {
        let notified = std::pin::pin!(attention.wake.notified());
        notified.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    };
    let span = marks.handed(1, (0, -1), (2, 0));
    marks.done(&span, 1);
    assert!(!is_woken(), "nobody waits");
    attention.want();
    marks.done(&span, 2);
    assert!(is_woken() && !is_woken());
    attention.draw();
    assert!(!is_woken());
}

#[test]
fn what_is_handed_out_after_a_log_was_cut_back_is_done_after_the_next_cut_too() {
    let marks = marks();
    let first = marks.handed(1, (0, -1), (200, 0));
    let a = marks.handed(1, (100, 0), (300, 1));
    let b = marks.handed(1, (300, 1), (600, 1));
    let c = marks.handed(1, (500, 1), (700, 2));
    marks.done(&a, 300);
    // What it had behind the second cut is not in the log any more.
    marks.done(&b, 600);
    assert_eq!(marks.committable(1, (700, 2)), (0, -1));
    marks.done(&first, 200);
    assert_eq!(marks.committable(1, (700, 2)), (500, 1));
    marks.done(&c, 700);
    assert_eq!((marks.committable(1, (700, 2)), marks.is_open()), ((700, 2), false));
}
