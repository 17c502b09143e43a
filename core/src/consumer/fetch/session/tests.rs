mod model;

use super::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

const INVALID_FETCH_SESSION_EPOCH: i16 = 71;
const FETCH_SESSION_TOPIC_ID_ERROR: i16 = 106;
const MIN: Duration = Duration::from_secs(60);

/// Partition `n` of a topic, at an offset.
fn told(n: u32, offset: i64) -> Told {
    let of = PartitionRef { topic: "t".into(), id: Uuid::from_u128(1), partition: n as i32 };
    let (fetched_epoch, leader_epoch) = (3, 5);
    Told { of, incarnation: 1, offset, fetched_epoch, leader_epoch, max_bytes: 1 << 20 }
}

fn slots(numbers: &[u32]) -> Vec<SlotId> {
    numbers.iter().copied().map(SlotId).collect()
}

struct Talk {
    session: Session,
    now: Instant,
    rng: StdRng,
}

impl Talk {
    /// Partitions from 0 are wanted, at offset 0.
    fn about(partitions: u32) -> Self {
        let mut session = Session::default();
        (0..partitions).for_each(|n| session.want(SlotId(n), told(n, 0)));
        Self { session, now: Instant::now(), rng: StdRng::seed_from_u64(1) }
    }

    fn on(&mut self, event: Event<'_>) -> Action {
        self.session.on(event, self.now, &mut self.rng)
    }

    fn due(&mut self) -> Action {
        self.on(Event::Due { ids: true, supported: true })
    }

    fn ask(&mut self) -> Ask {
        match self.due() {
            Action::Send(ask) => ask,
            other => panic!("{other:?}"),
        }
    }

    /// The numbers of the next request, what it names and how much it forgets.
    fn asks(&mut self) -> (i32, i32, Vec<u32>, Vec<i32>) {
        let ask = self.ask();
        assert_eq!(ask.full, ask.epoch <= 0, "{ask:?}");
        let named = ask.named.iter().map(|slot| slot.0).collect();
        (ask.id, ask.epoch, named, ask.forget.iter().map(|of| of.partition).collect())
    }

    fn answer(&mut self, error: i16, session_id: i32) {
        self.answer_with(error, session_id, &[0]);
    }

    fn answer_with(&mut self, error: i16, session_id: i32, brought: &[u32]) {
        let part = |n: &u32| Part { slot: SlotId(*n), brought: true, lags: false };
        let parts: Vec<Part> = brought.iter().map(part).collect();
        let answer = Answer { error, session_id, throttled: false, parts: &parts, strangers: 0 };
        assert_eq!(self.on(Event::Answered(answer)), Action::Nothing);
    }

    fn throttled(&mut self, session_id: i32) {
        let answer = Answer { error: 0, session_id, throttled: true, parts: &[], strangers: 0 };
        assert_eq!(self.on(Event::Answered(answer)), Action::Nothing);
    }

    /// With an open session, whose next request is (7, 1).
    fn open(partitions: u32) -> Self {
        let mut talk = Self::about(partitions);
        talk.ask();
        talk.answer(NONE, 7);
        talk
    }

    fn in_doubt() -> Self {
        let mut talk = Self::open(2);
        talk.ask();
        talk.on(Event::Lost);
        talk
    }

    fn bare() -> Self {
        let mut talk = Self::about(2);
        talk.ask();
        talk.answer(NONE, 0);
        talk
    }
}

/// The table of the module: what the request after each response says.
#[test]
fn what_follows_what() {
    let none = || Talk::about(2);
    let open = || Talk::open(2);
    type Then = fn(&mut Talk);
    type Row<'a> = (&'a str, &'a dyn Fn() -> Talk, [(Then, (i32, i32)); 7]);
    let new: Then = |talk| talk.answer(NONE, 9);
    let no_session: Then = |talk| talk.answer(NONE, 0);
    let not_found: Then = |talk| talk.answer(FETCH_SESSION_ID_NOT_FOUND, 0);
    let epoch: Then = |talk| talk.answer(INVALID_FETCH_SESSION_EPOCH, 0);
    let lost: Then = |talk| drop(talk.on(Event::Lost));
    let unsent: Then = |talk| drop(talk.on(Event::Unsent));
    let throttled: Then = |talk| talk.throttled(0);
    let rows: &[Row<'_>] = &[
        (
            "none",
            &none,
            [
                (new, (9, 1)),
                (no_session, (0, -1)),
                (not_found, (0, 0)),
                (epoch, (0, 0)),
                (lost, (0, 0)),
                (unsent, (0, 0)),
                (throttled, (0, 0)),
            ],
        ),
        (
            "open",
            &open,
            [
                // Another session than the one that was asked in.
                (new, (7, 0)),
                (no_session, (0, 0)),
                (not_found, (0, 0)),
                (epoch, (7, 0)),
                (lost, (7, 0)),
                (unsent, (7, 1)),
                (throttled, (0, 0)),
            ],
        ),
        (
            "doubt",
            &Talk::in_doubt,
            [
                (new, (9, 1)),
                (no_session, (0, -1)),
                (not_found, (0, 0)),
                (epoch, (7, 0)),
                (lost, (7, 0)),
                (unsent, (7, 0)),
                // The old one was closed all the same.
                (throttled, (0, 0)),
            ],
        ),
        (
            "bare",
            &Talk::bare,
            [new, no_session, not_found, epoch, lost, unsent, throttled]
                .map(|then| (then, (0, -1))),
        ),
    ];
    for (name, begin, thens) in rows {
        for (n, (then, next)) in thens.iter().enumerate() {
            let mut talk = begin();
            talk.ask();
            then(&mut talk);
            let (id, epoch, ..) = talk.asks();
            assert_eq!((id, epoch), *next, "{name}, {n}");
        }
    }
}

/// Other errors of a whole response say nothing about what the broker did with the request.
#[test]
fn an_error_of_the_response_is_doubt() {
    for error in [-1, 31, 58, INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR] {
        let mut talk = Talk::open(2);
        talk.ask();
        talk.answer(error, 0);
        assert_eq!(talk.asks(), (7, 0, vec![0, 1], vec![]));
    }
}

#[test]
fn s27_nothing_is_named_that_did_not_change() {
    let mut talk = Talk::open(1_000);
    assert_eq!(talk.asks(), (7, 1, vec![], vec![]));
    talk.answer_with(NONE, 7, &[3]);
    talk.session.want(SlotId(3), told(3, 10));
    // What is said again is no change; neither is what only this side has to know.
    talk.session.want(SlotId(4), told(4, 0));
    talk.session.want(SlotId(5), Told { incarnation: 2, ..told(5, 0) });
    talk.session.unwant(SlotId(6));
    talk.session.want(SlotId(6), told(6, 0));
    assert_eq!(talk.asks(), (7, 2, vec![3], vec![]));
    assert_eq!(talk.session.asked(SlotId(5)).map(|told| told.incarnation), Some(2));
    talk.answer_with(NONE, 7, &[]);
    assert_eq!(talk.asks(), (7, 3, vec![], vec![]));
    talk.throttled(7);
    assert_eq!(talk.asks(), (7, 4, vec![], vec![]));
    // Whatever else the broker has to know is one.
    let base = told(0, 0);
    talk.answer_with(NONE, 7, &[]);
    talk.session.want(SlotId(0), Told { fetched_epoch: 4, ..base.clone() });
    talk.session.want(SlotId(1), Told { leader_epoch: 6, ..told(1, 0) });
    talk.session.want(SlotId(2), Told { max_bytes: 1, ..told(2, 0) });
    assert_eq!(talk.asks(), (7, 5, vec![0, 1, 2], vec![]));
}

#[test]
fn a_reconnect_after_a_known_answer_goes_on() {
    let mut talk = Talk::open(2);
    talk.session.want(SlotId(0), told(0, 5));
    talk.session.unwant(SlotId(1));
    for _ in 0..3 {
        assert_eq!(talk.asks(), (7, 1, vec![0], vec![1]));
        talk.on(Event::Unsent);
        assert_eq!(talk.session.asked(SlotId(0)), Some(&told(0, 0)));
        assert_eq!(talk.session.asked(SlotId(1)), Some(&told(1, 0)));
    }
    // Also if it is wanted again meanwhile.
    talk.session.want(SlotId(1), told(1, 0));
    assert_eq!(talk.asks(), (7, 1, vec![0], vec![]));
}

/// What is wanted while a request is under way is told with the next one.
#[test]
fn what_changes_meanwhile_is_not_lost() {
    let mut talk = Talk::open(3);
    talk.session.want(SlotId(0), told(0, 5));
    talk.ask();
    assert_eq!((talk.due(), talk.session.asks_all()), (Action::Nothing, false), "one at a time");
    talk.session.want(SlotId(0), told(0, 6));
    talk.session.unwant(SlotId(1));
    assert_eq!(talk.session.asked(SlotId(0)).map(|told| told.offset), Some(5));
    assert!(talk.session.asked(SlotId(1)).is_some(), "the response may bring it yet");
    talk.answer(NONE, 7);
    assert_eq!(talk.asks(), (7, 2, vec![0], vec![1]));
    assert!(talk.session.asked(SlotId(1)).is_none());
    assert!(talk.session.find("t", Uuid::from_u128(1), 1).is_none());
}

#[test]
fn slots_taken_are_asked_for_again_after_1_2_4_to_15_minutes() {
    for seed in 0..50 {
        let mut talk = Talk::about(2);
        talk.rng = StdRng::seed_from_u64(seed);
        for minutes in [1, 2, 4, 8, 15, 15, 15] {
            assert_eq!(talk.asks(), (0, 0, vec![0, 1], vec![]));
            talk.answer(NONE, 0);
            let pause = MIN * minutes;
            talk.now += pause.mul_f64(0.79);
            for _ in 0..3 {
                assert_eq!(talk.asks(), (0, -1, vec![0, 1], vec![]));
                talk.answer(NONE, 0);
            }
            talk.now += pause.mul_f64(0.21);
        }
        talk.ask();
        talk.answer(NONE, 9);
        assert_eq!(talk.asks().1, 1);
        // From the beginning.
        talk.on(Event::Lost);
        talk.ask();
        talk.answer(NONE, 0);
        talk.now += MIN;
        assert_eq!(talk.asks().1, 0);
    }
}

#[test]
fn an_empty_throttled_answer_is_not_bare() {
    let mut talk = Talk::about(2);
    for _ in 0..5 {
        assert_eq!(talk.asks(), (0, 0, vec![0, 1], vec![]));
        talk.throttled(0);
    }
    // One that is throttled and has something is answered as it is.
    talk.ask();
    let parts = [Part { slot: SlotId(0), brought: true, lags: false }];
    let answer = Answer { error: 0, session_id: 0, throttled: true, parts: &parts, strangers: 0 };
    talk.on(Event::Answered(answer));
    assert_eq!(talk.asks().1, -1);
}

#[test]
fn an_emptied_session_is_closed() {
    for begin in [Talk::open, |_| Talk::in_doubt()] {
        let mut talk = begin(2);
        talk.session.unwant(SlotId(0));
        talk.session.unwant(SlotId(1));
        assert_eq!(talk.due(), Action::Close { id: 7 });
        assert_eq!(talk.due(), Action::Nothing, "once");
        talk.session.want(SlotId(1), told(1, 0));
        assert_eq!(talk.asks(), (0, 0, vec![1], vec![]));
    }
    assert_eq!(Talk::about(0).due(), Action::Nothing);
}

#[test]
fn an_error_is_forgotten_until_tried_again() {
    let mut talk = Talk::open(2);
    talk.session.unwant(SlotId(1));
    assert_eq!(talk.asks(), (7, 1, vec![], vec![1]));
    talk.answer(NONE, 7);
    assert_eq!(talk.asks(), (7, 2, vec![], vec![]));
    talk.answer(NONE, 7);
    talk.session.want(SlotId(1), told(1, 0));
    assert_eq!(talk.asks(), (7, 3, vec![1], vec![]));
}

#[test]
fn ids_and_names_are_two_sessions() {
    let mut talk = Talk::open(2);
    let by_name = Event::Due { ids: false, supported: true };
    let Action::Send(ask) = talk.on(by_name) else { panic!() };
    assert_eq!((ask.id, ask.epoch, ask.named.len()), (7, 0, 2));
    assert!(talk.session.find("t", Uuid::nil(), 1).is_some());
    assert!(talk.session.find("u", Uuid::from_u128(1), 1).is_none());
    talk.answer(NONE, 9);
    let Action::Send(ask) = talk.on(Event::Due { ids: false, supported: true }) else { panic!() };
    assert_eq!((ask.id, ask.epoch), (9, 1));
    talk.answer(NONE, 9);
    assert_eq!(talk.asks(), (9, 0, vec![0, 1], vec![]));
    assert!(talk.session.find("", Uuid::from_u128(1), 1).is_some());
}

/// A topic that was made anew has another id, and the old one is an error in each response until it is forgotten.
#[test]
fn a_topic_made_anew_is_another_partition() {
    let mut anew = told(0, 0);
    anew.of.id = Uuid::from_u128(2);
    let mut talk = Talk::open(2);
    talk.session.want(SlotId(0), anew.clone());
    let ask = talk.ask();
    assert_eq!((ask.named, ask.forget), (slots(&[0]), vec![told(0, 0).of]));
    assert!(talk.session.find("", Uuid::from_u128(1), 0).is_none());
    assert!(talk.session.find("", Uuid::from_u128(2), 0).is_some());
    // Among names it is the same one, and what is named and forgotten in one request is lost.
    let mut talk = Talk::about(2);
    let by_name = || Event::Due { ids: false, supported: true };
    talk.on(by_name());
    talk.answer(NONE, 7);
    talk.session.want(SlotId(0), Told { offset: 1, ..anew });
    let Action::Send(ask) = talk.on(by_name()) else { panic!() };
    assert_eq!((ask.named, ask.forget), (slots(&[0]), vec![]));
}

/// It was assigned anew before the broker has heard that it was not wanted.
#[test]
fn a_slot_that_takes_over_is_not_forgotten() {
    for first in [true, false] {
        let mut talk = Talk::open(2);
        if first {
            talk.session.want(SlotId(5), told(1, 9));
            talk.session.unwant(SlotId(1));
        } else {
            talk.session.unwant(SlotId(1));
            talk.session.want(SlotId(5), told(1, 9));
        }
        assert_eq!(talk.asks(), (7, 1, vec![5], vec![]));
        let of = |talk: &Talk| talk.session.find("", Uuid::from_u128(1), 1).map(|(slot, _)| slot);
        assert_eq!(of(&talk), Some(SlotId(5)));
        talk.on(Event::Unsent);
        assert_eq!(of(&talk), Some(SlotId(1)));
        assert_eq!(talk.asks(), (7, 1, vec![5], vec![]));
    }
}

#[test]
fn brokers_without_sessions_are_asked_for_everything() {
    let mut talk = Talk::open(2);
    let due = || Event::Due { ids: false, supported: false };
    for _ in 0..3 {
        let Action::Send(ask) = talk.on(due()) else { panic!() };
        assert_eq!((ask.id, ask.epoch, ask.full, ask.named.len()), (0, -1, true, 2));
        talk.answer(NONE, 0);
    }
    assert_eq!(talk.asks().1, 0, "they were replaced");
}

#[test]
fn epoch_wraps_to_1() {
    let mut talk = Talk::open(1);
    talk.session.state = State::Open { id: 7, next: i32::MAX };
    assert_eq!(talk.asks().1, i32::MAX);
    talk.answer(NONE, 7);
    assert_eq!(talk.asks().1, 1);
}

/// What nobody asked for in a response: the broker's session is not what it is taken for.
#[test]
fn strangers_in_a_response_are_doubt() {
    for begin in [Talk::about, Talk::open] {
        let mut talk = begin(1);
        talk.ask();
        let answer = Answer { error: 0, session_id: 7, throttled: false, parts: &[], strangers: 1 };
        talk.on(Event::Answered(answer));
        assert_eq!(talk.asks(), (7, 0, vec![0], vec![]));
    }
}

/// No number that a peer makes up becomes one that a broker fails on.
#[test]
fn an_id_below_zero_is_no_session() {
    let mut talk = Talk::about(1);
    talk.ask();
    talk.answer(NONE, -5);
    assert_eq!(talk.asks(), (0, -1, vec![0], vec![]));
    let mut talk = Talk::open(1);
    talk.ask();
    talk.answer(NONE, -7);
    assert_eq!(talk.asks(), (7, 0, vec![0], vec![]));
    // Neither does a response to no request.
    let mut talk = Talk::open(1);
    talk.answer(NONE, 0);
    talk.on(Event::Lost);
    talk.on(Event::Unsent);
    assert_eq!(talk.asks(), (7, 1, vec![], vec![]));
}

#[test]
fn the_end_gives_the_session_back() {
    assert_eq!(Talk::open(1).on(Event::Closing), Action::Close { id: 7 });
    assert_eq!(Talk::in_doubt().on(Event::Closing), Action::Close { id: 7 });
    assert_eq!(Talk::bare().on(Event::Closing), Action::Nothing);
    // Under way: what it had is closed, and what comes of the request.
    let mut talk = Talk::open(1);
    talk.ask();
    assert_eq!(talk.on(Event::Closing), Action::Close { id: 7 });
    talk.answer(NONE, 7);
    assert_eq!(talk.due(), Action::Nothing);
    let mut talk = Talk::about(1);
    talk.ask();
    assert_eq!(talk.on(Event::Closing), Action::Nothing);
    let answer = Answer { error: 0, session_id: 8, throttled: false, parts: &[], strangers: 0 };
    assert_eq!(talk.on(Event::Answered(answer)), Action::Close { id: 8 });
    assert_eq!(talk.due(), Action::Nothing);
}

#[test]
fn who_lags_and_gets_nothing_makes_a_doubtful_session() {
    let mut talk = Talk::about(3);
    let ask = |talk: &mut Talk, brought: &[(u32, bool)]| {
        let epoch = talk.ask().epoch;
        let part =
            |(n, lags): &(u32, bool)| Part { slot: SlotId(*n), brought: *n != 2, lags: *lags };
        let parts: Vec<Part> = brought.iter().map(part).collect();
        let answer =
            Answer { error: 0, session_id: 7, throttled: false, parts: &parts, strangers: 0 };
        talk.on(Event::Answered(answer));
        epoch
    };
    // 0 and 1 bring something each time, 2 is behind and gets nothing: looked at every third time.
    ask(&mut talk, &[(0, true), (1, true), (2, true)]);
    let epochs: Vec<i32> = (0..10).map(|_| ask(&mut talk, &[(0, true), (1, true)])).collect();
    let at = epochs.iter().position(|epoch| *epoch == 0).expect("nobody noticed");
    assert!((6..=9).contains(&at), "{epochs:?}");
    // Who has all there is does not wait; neither does anybody while nothing comes.
    let mut talk = Talk::about(3);
    ask(&mut talk, &[(0, true), (1, true), (2, false)]);
    for _ in 0..30 {
        assert_ne!(ask(&mut talk, &[(0, true), (1, true)]), 0);
    }
    let mut talk = Talk::about(3);
    ask(&mut talk, &[(0, true), (1, true), (2, true)]);
    for _ in 0..30 {
        assert_ne!(ask(&mut talk, &[]), 0);
    }
}

/// A broker that serves whom it left without once he is named first never changes its order.
#[test]
fn an_order_that_never_changes_is_not_waited_for_twice() {
    let full = |fair: bool| {
        let mut talk = Talk::about(3);
        let mut epochs = Vec::new();
        for _ in 0..40 {
            let ask = talk.ask();
            epochs.push(ask.epoch);
            let third = ask.full && !fair;
            let part = |n, brought| Part { slot: SlotId(n), brought, lags: true };
            let parts = [part(0, !third), part(1, !third), part(2, third)];
            let parts = if ask.full { &parts[..] } else { &parts[..2] };
            let answer = Answer { error: 0, session_id: 7, throttled: false, parts, strangers: 0 };
            talk.on(Event::Answered(answer));
        }
        epochs.iter().filter(|epoch| **epoch == 0).count()
    };
    // Here somebody is left without each time: every second request begins with his turn.
    assert!((17..=20).contains(&full(false)), "{}", full(false));
    // Here it has nothing, whoever is named first: ever fewer are made for that.
    assert!((3..=4).contains(&full(true)), "{}", full(true));
}

/// What is wanted and left again leaves nothing behind.
#[test]
fn nothing_is_kept_of_what_is_gone() {
    let mut talk = Talk::open(1);
    for n in 1..100 {
        talk.session.want(SlotId(n), told(n, 0));
        if n % 3 > 0 {
            talk.ask();
            talk.answer(NONE, 7);
        }
        (0..n).for_each(|_| talk.session.unwant(SlotId(n)));
        if n % 2 > 0 {
            talk.ask();
            talk.answer(NONE, 7);
        }
    }
    talk.ask();
    talk.answer(NONE, 7);
    let session = &talk.session;
    assert_eq!((session.entries.len(), session.known.count, session.wanted), (1, 1, 1));
    assert!(session.changed.is_empty() && session.undo.is_empty());
}
