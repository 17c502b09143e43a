use super::*;
use proptest::prelude::*;

const MIB: usize = 1 << 20;
const LIMITS: Limits =
    Limits { max_bytes: 8 * MIB, max_wait: Duration::from_millis(500), least: LEAST };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Something is queued of a partition that lags, and it was read from just now.
fn queued(bytes: usize, moved: Instant) -> Queued {
    Queued { bytes, largest: 0, reader: Reader::Shared, is_over: false, lags: true, moved }
}

/// So many that lag, and so many that do not, may be asked for.
fn view(queues: &[Queued], lagging: usize, idle: usize) -> View<'_> {
    View { queues, lagging, idle, own: 0, taken: 0, room: usize::MAX, dry: false, largest: 0 }
}

fn ask(max_wait: u64) -> Plan {
    Plan::Ask { max_bytes: FIRST, max_wait: ms(max_wait), idle_only: false }
}

#[test]
fn with_little_queued_it_is_asked_at_once() {
    let (mut ahead, now) = (ReadAhead::default(), Instant::now());
    assert_eq!(ahead.plan(&view(&[], 1, 0), &LIMITS, now), ask(500));
    assert_eq!(ahead.plan(&view(&[], 0, 1), &LIMITS, now), ask(500));
    let queues = [queued(FIRST / 2, now), queued(FIRST - 1, now)];
    assert_eq!(ahead.plan(&view(&queues, 2, 5), &LIMITS, now), ask(500));
    assert_eq!(ahead.plan(&view(&[], 0, 0), &LIMITS, now), Plan::Wait(None), "nothing to name");
}

#[test]
fn with_enough_queued_nothing_that_lags_is_asked_for() {
    let (mut ahead, now) = (ReadAhead::default(), Instant::now());
    let queues = [queued(FIRST - 1, now), queued(FIRST - 1, now)];
    assert_eq!(ahead.plan(&view(&queues, 3, 0), &LIMITS, now), Plan::Wait(None));
    // Not even after a long time in which nobody reads: that is no reason to fetch more.
    assert_eq!(ahead.plan(&view(&queues, 3, 0), &LIMITS, now + ms(5_000)), Plan::Wait(None));
    // Only for who reads one partition alone, and that one only.
    let own = View { own: 1, ..view(&queues, 3, 0) };
    let own_only = Plan::Ask { max_bytes: FIRST, max_wait: SHORT, idle_only: true };
    assert_eq!(ahead.plan(&own, &LIMITS, now), own_only);
    // Those that have nothing new are asked for all the same, after a moment.
    let idle = view(&queues, 3, 1);
    assert_eq!(ahead.plan(&idle, &LIMITS, now), Plan::Wait(Some(now + HOLD)));
    let idle_only = Plan::Ask { max_bytes: FIRST, max_wait: SHORT, idle_only: true };
    assert_eq!(ahead.plan(&idle, &LIMITS, now + HOLD), idle_only);
}

/// What its own reader, or nobody, reads says nothing about the others.
#[test]
fn what_is_stuck_or_paused_does_not_count() {
    let (mut ahead, now) = (ReadAhead::default(), Instant::now());
    let long_ago = now - STUCK;
    let paused = Queued { reader: Reader::Nobody, ..queued(9 * FIRST, now) };
    assert_eq!(ahead.plan(&view(&[paused], 1, 0), &LIMITS, now), ask(500));
    assert_eq!(ahead.plan(&view(&[paused], 0, 1), &LIMITS, now), ask(500), "it is not left out");
    // A stream of a partition, of which much or not so much is queued, that is read or not.
    let own = |bytes, moved| Queued { reader: Reader::Own, ..queued(bytes, moved) };
    for (bytes, moved) in [(FIRST / 2, long_ago), (9 * FIRST, long_ago), (9 * FIRST, now)] {
        let queues = [own(bytes, moved), queued(FIRST, now), queued(FIRST / 2 - 1, now)];
        let plan = ahead.plan(&view(&queues, 1, 0), &LIMITS, now);
        assert!(matches!(plan, Plan::Ask { idle_only: false, .. }), "{plan:?}");
        let queues = [own(bytes, moved), queued(FIRST, now), queued(FIRST / 2 + 1, now)];
        assert_eq!(ahead.plan(&view(&queues, 1, 0), &LIMITS, now), Plan::Wait(None));
    }
    // Whoever reads all has enough to read, and memory is not filled because he is slow.
    let queues = [queued(9 * FIRST, long_ago)];
    assert_eq!(ahead.plan(&view(&queues, 1, 0), &LIMITS, now), Plan::Wait(None));
    let queues = [FIRST, FIRST / 2, FIRST / 2 + 1].map(|bytes| queued(bytes, long_ago));
    assert_eq!(ahead.plan(&view(&queues, 2, 0), &LIMITS, now), Plan::Wait(None));
}

#[test]
fn others_wait_for_a_moment_and_once() {
    let (mut ahead, t0) = (ReadAhead::default(), Instant::now());
    let plan =
        |ahead: &mut ReadAhead, now| ahead.plan(&view(&[queued(FIRST, now)], 0, 1), &LIMITS, now);
    assert_eq!(plan(&mut ahead, t0), Plan::Wait(Some(t0 + HOLD)));
    assert_eq!(plan(&mut ahead, t0 + ms(7)), Plan::Wait(Some(t0 + HOLD)), "it begins anew");
    assert_eq!(plan(&mut ahead, t0 + HOLD), ask(100));
    ahead.sent(t0 + HOLD);
    assert_eq!(plan(&mut ahead, t0 + ms(90)), Plan::Wait(Some(t0 + ms(90) + HOLD)));
    // Nobody is left out for once.
    ahead.plan(&view(&[], 0, 1), &LIMITS, t0 + ms(95));
    assert_eq!(plan(&mut ahead, t0 + ms(200)), Plan::Wait(Some(t0 + ms(200) + HOLD)));
    // Where the broker answers at once nobody waits; nor for one whose reader does not come.
    let now = t0 + ms(300);
    assert_eq!(ahead.plan(&view(&[queued(FIRST, now)], 1, 1), &LIMITS, now), ask(100));
    let mut ahead = ReadAhead::default();
    assert_eq!(ahead.plan(&view(&[queued(FIRST, t0)], 0, 1), &LIMITS, now), ask(100));
}

#[test]
fn the_broker_holds_it_for_longer_as_long_as_nothing_is_taken() {
    let (mut ahead, mut now) = (ReadAhead::default(), Instant::now());
    let waits = |ahead: &mut ReadAhead, moved, now| {
        let plan = ahead.plan(&view(&[queued(FIRST, moved)], 0, 1), &LIMITS, now);
        let Plan::Ask { max_wait, .. } = plan else { panic!("{plan:?}") };
        ahead.sent(now);
        max_wait.as_millis()
    };
    let since = now;
    let stuck = [(); 5].map(|()| {
        now += ms(500);
        waits(&mut ahead, since, now)
    });
    assert_eq!(stuck, [100, 200, 400, 500, 500]);
    // Something was taken, some time ago.
    now += ms(500);
    assert_eq!(waits(&mut ahead, now - ms(120), now), 100);
    now += ms(500);
    assert_eq!(waits(&mut ahead, now - ms(620), now), 200);
    // Never longer than is set.
    let short = Limits { max_wait: ms(30), ..LIMITS };
    let plan = ahead.plan(&view(&[queued(FIRST, since)], 0, 1), &short, now);
    assert_eq!(plan, ask(30));
}

/// The broker may hold the Fetch until the reader will have made room; if that is in a moment it waits here.
#[test]
fn it_is_held_for_as_long_as_the_reader_takes() {
    let now = Instant::now();
    // A tenth of a response was read in 10 ms.
    for (hundredths, wait) in [(100, 50), (110, 60), (149, 99), (151, 100), (900, 100)] {
        let mut ahead = ReadAhead::default();
        ahead.sent(now - ms(10));
        let queues = [queued(FIRST / 100 * hundredths + 100, now)];
        let view = View { taken: FIRST / 10, ..view(&queues, 0, 1) };
        let plan = ahead.plan(&view, &LIMITS, now);
        let Plan::Ask { max_wait, .. } = plan else { panic!("{hundredths}: {plan:?}") };
        assert!((ms(wait - 1)..=ms(wait + 1)).contains(&max_wait), "{hundredths}: {max_wait:?}");
    }
    // A whole one: what is too much is read in 5 ms.
    let mut ahead = ReadAhead::default();
    ahead.sent(now - ms(10));
    let queues = [queued(FIRST, now)];
    let view = View { taken: FIRST, ..view(&queues, 0, 1) };
    assert_eq!(ahead.plan(&view, &LIMITS, now), Plan::Wait(Some(now + HOLD)));
    // It took longer all the same.
    let Plan::Ask { max_wait, .. } = ahead.plan(&view, &LIMITS, now + HOLD) else { panic!() };
    assert_eq!(max_wait, HOLD);
}

#[test]
fn memory_bounds_what_may_come() {
    let (mut ahead, now) = (ReadAhead::default(), Instant::now());
    let plan = |ahead: &mut ReadAhead, room, dry, largest| {
        let view = View { room, dry, largest, ..view(&[], 1, 1) };
        match ahead.plan(&view, &LIMITS, now) {
            Plan::Ask { max_bytes, .. } => Some(max_bytes),
            Plan::Wait(_) => None,
        }
    };
    assert_eq!(plan(&mut ahead, MIB, false, 0), Some(MIB));
    assert_eq!(plan(&mut ahead, LEAST, false, 0), Some(LEAST));
    assert_eq!(plan(&mut ahead, LEAST - 1, false, 0), None);
    assert_eq!(plan(&mut ahead, MIB, false, 2 * MIB), None, "the first batch comes whole");
    assert_eq!(plan(&mut ahead, 3 * MIB, false, 2 * MIB), Some(3 * MIB));
    // Somebody waits and there is nothing else that could make room.
    assert_eq!(plan(&mut ahead, 0, true, 0), Some(LEAST));
    assert_eq!(plan(&mut ahead, 0, true, 2 * MIB), Some(2 * MIB));
    // What is set is set.
    let small = Limits { max_bytes: 1 << 10, ..LIMITS };
    let tight = View { room: 1 << 10, ..view(&[], 1, 0) };
    let Plan::Ask { max_bytes, .. } = ahead.plan(&tight, &small, now) else { panic!() };
    assert_eq!(max_bytes, 1 << 10);
}

#[test]
fn responses_grow_where_the_way_is_long_and_the_reader_waits() {
    let mut ahead = ReadAhead::default();
    let asks = |ahead: &mut ReadAhead| match ahead.plan(&view(&[], 1, 0), &LIMITS, Instant::now()) {
        Plan::Ask { max_bytes, .. } => max_bytes,
        other => panic!("{other:?}"),
    };
    let came = Came { bytes: FIRST, asked: FIRST, took: ms(50), taken: FIRST, waited: true };
    // It is fast; there is still something to read; there is no more; the reader does not read as much as comes.
    for came in [
        Came { took: ms(4), ..came },
        Came { waited: false, ..came },
        Came { bytes: FIRST / 2, ..came },
        Came { taken: FIRST / 3, ..came },
    ] {
        ahead.answered(&came, &LIMITS);
        assert_eq!(asks(&mut ahead), FIRST, "{came:?}");
    }
    let full = |ahead: &mut ReadAhead, waited| {
        let (bytes, asked) = (asks(ahead) / 10 * 9, asks(ahead));
        ahead.answered(&Came { bytes, asked, waited, taken: bytes, ..came }, &LIMITS);
        asks(ahead) + AROUND
    };
    // No buffer is larger than what is set.
    assert_eq!([(); 3].map(|()| full(&mut ahead, true)), [4 * MIB, 8 * MIB, 8 * MIB]);
    let at_ease: Vec<usize> = (0..22).map(|_| full(&mut ahead, false)).collect();
    assert_eq!(
        (at_ease[8], at_ease[9], at_ease[18], at_ease[19]),
        (8 * MIB, 4 * MIB, 4 * MIB, 2 * MIB)
    );
    assert_eq!(at_ease[21], 2 * MIB, "that is the least");
    // Where twice as much takes twice as long, it is not the way that is long.
    let mut ahead = ReadAhead::default();
    let sizes = [(); 200].map(|()| {
        let asked = asks(&mut ahead);
        let took = Duration::from_nanos(asked as u64 * 10);
        ahead.answered(&Came { bytes: asked, asked, took, taken: asked, ..came }, &LIMITS);
        asked
    });
    assert_eq!(sizes.iter().filter(|size| **size > FIRST).count(), 2);
    // Or with large batches, of which the last one is cut.
    let large = View { largest: MIB / 2, ..view(&[], 1, 0) };
    let Plan::Ask { max_bytes, .. } = ahead.plan(&large, &LIMITS, Instant::now()) else { panic!() };
    assert_eq!(max_bytes, 4 * MIB);
    assert!(
        !ahead.is_over(4 * MIB - 1, MIB / 2, &LIMITS) && ahead.is_over(4 * MIB, MIB / 2, &LIMITS)
    );
    assert!(!ahead.is_over(14 * MIB, 15 * MIB, &LIMITS), "or it could never be asked for");
}

/// A reader of so many bytes a second, and a broker that is so far away, with `hot` partitions that have all one can
/// read and one that gets a record every 210 ms.
struct Sim {
    reader: usize,
    /// Bytes a second on the way.
    network: f64,
    away: Duration,
    hot: usize,
}

#[derive(Debug)]
struct Seen {
    /// Bytes a second that were read.
    rate: f64,
    /// The most that was queued.
    queued: usize,
    /// The longest that the idle partition's record waited at the broker.
    late: Duration,
    requests: usize,
}

impl Sim {
    const STEP: Duration = Duration::from_micros(500);
    const SECONDS: u64 = 3;

    fn run(&self) -> Seen {
        struct Flight {
            sent: Instant,
            until: Instant,
            idle_only: bool,
            named: Vec<usize>,
            max_bytes: usize,
            /// What it brings, once the broker has sent it, and when that is here.
            comes: Option<(Instant, Vec<(usize, usize)>)>,
        }
        let t0 = Instant::now();
        let mut now = t0;
        let mut ahead = ReadAhead::default();
        let idle = self.hot;
        let mut bytes = vec![0; self.hot + 1];
        let mut moved = vec![now; self.hot + 1];
        let mut order: Vec<usize> = (0..self.hot).collect();
        let (mut read, mut taken, mut credit, mut turn) = (0, 0, 0.0, 0);
        let (mut new_since, mut next_new): (Option<Instant>, _) = (None, now + ms(100));
        let mut flight: Option<Flight> = None;
        let mut seen = Seen { rate: 0.0, queued: 0, late: Duration::ZERO, requests: 0 };
        while now < t0 + Duration::from_secs(Self::SECONDS) {
            now += Self::STEP;
            if now >= next_new && new_since.is_none() {
                (new_since, next_new) = (Some(now), now + ms(210));
            }
            credit += self.reader as f64 * Self::STEP.as_secs_f64();
            while credit > 0.0 && bytes.iter().any(|bytes| *bytes > 0) {
                turn = (turn + 1) % bytes.len();
                let some = bytes[turn].min(16 << 10);
                if some > 0 {
                    bytes[turn] -= some;
                    moved[turn] = now;
                    (read, taken, credit) = (read + some, taken + some, credit - some as f64);
                }
            }
            credit = credit.min(0.0);
            if let Some(mut asked) = flight.take() {
                let there = now >= asked.sent + self.away / 2;
                if there && asked.comes.is_none() {
                    let mut some = Vec::new();
                    let mut room = asked.max_bytes;
                    if asked.named.contains(&idle)
                        && let Some(since) = new_since.take()
                    {
                        seen.late = seen.late.max(now - since);
                        some.push((idle, 100));
                    }
                    for hot in order.clone() {
                        let one = room.min(MIB);
                        if !asked.idle_only && asked.named.contains(&hot) && one > 0 {
                            some.push((hot, one));
                            room -= one;
                            order.retain(|other| *other != hot);
                            order.push(hot);
                        }
                    }
                    let all: usize = some.iter().map(|(_, bytes)| bytes).sum();
                    if all > 0 || now >= asked.until {
                        let sending = Duration::from_secs_f64(all as f64 / self.network);
                        asked.comes = Some((now + self.away / 2 + sending, some));
                    }
                }
                match asked.comes {
                    Some((at, some)) if at <= now => {
                        let all = some.iter().map(|(_, bytes)| bytes).sum();
                        let waited = bytes.iter().all(|bytes| *bytes == 0);
                        let (took, asked) = (now - asked.sent, asked.max_bytes);
                        ahead.answered(&Came { bytes: all, asked, took, taken, waited }, &LIMITS);
                        for (at, some) in some {
                            if bytes[at] == 0 {
                                moved[at] = now;
                            }
                            bytes[at] += some;
                        }
                    }
                    comes => flight = Some(Flight { comes, ..asked }),
                }
            }
            seen.queued = seen.queued.max(bytes.iter().sum());
            if flight.is_some() {
                continue;
            }
            let some = (0..bytes.len()).filter(|at| bytes[*at] > 0);
            let queues = some.map(|at| Queued { lags: at != idle, ..queued(bytes[at], moved[at]) });
            let queues: Vec<Queued> = queues.collect();
            let under = |at: &usize| !ahead.is_over(bytes[*at], 0, &LIMITS);
            let lagging: Vec<usize> = (0..self.hot).filter(under).collect();
            let view = View { taken, ..view(&queues, lagging.len(), 1) };
            if let Plan::Ask { max_bytes, max_wait, idle_only } = ahead.plan(&view, &LIMITS, now) {
                ahead.sent(now);
                (taken, seen.requests) = (0, seen.requests + 1);
                let named = [lagging, vec![idle]].concat();
                let until = now + self.away / 2 + max_wait;
                flight =
                    Some(Flight { sent: now, until, idle_only, named, max_bytes, comes: None });
            }
        }
        seen.rate = read as f64 / Self::SECONDS as f64;
        seen
    }
}

/// Whatever the reader's pace: it does not wait for what the broker has, no more is queued than is of use, and what
/// comes to an idle partition is not late.
#[test]
fn a_reader_of_any_pace_has_what_it_reads_in_time() {
    for reader in [100_000, 1_000_000, 10_000_000, 40_000_000, 100_000_000, 1_000_000_000] {
        for (away, network) in [(ms(1), 2e9), (ms(5), 2e9), (ms(40), 2e9), (ms(1), 1e8)] {
            for hot in [1, 2, 3, 20] {
                let seen = Sim { reader, network, away, hot }.run();
                // One request at a time; of each partition 1 MiB.
                let most = (hot.min(8) * MIB) as f64;
                let once = (away + Sim::STEP * 2).as_secs_f64() + most / network;
                let possible = (most / once).min(reader as f64).min(FAST);
                let what = format!("{reader} B/s of {network}, {away:?} away, {hot} hot: {seen:?}");
                assert!(seen.rate >= 0.8 * possible, "{what}");
                // What comes is as much as is read only where the way is long.
                let far = away > ms(1) && reader > 10_000_000;
                assert!(seen.queued <= if far { 20 * MIB } else { 10 * MIB }, "{what}");
                assert!(seen.late <= ms(150) + away, "{what}");
                // At a slow reader no more than for those that are left out.
                let slow = reader <= 1_000_000;
                assert!(!slow || seen.requests <= 60 * Sim::SECONDS as usize, "{what}");
            }
        }
    }
}

proptest! {
    /// Whatever is queued by whomever: if somebody can be asked for, and there is memory, a Fetch goes at once or at a
    /// known time, unless enough is queued for a reader who has not read it yet.
    #[test]
    fn nobody_is_forgotten(
        queues in prop::collection::vec((1usize..6 * MIB, 0u8..3, any::<bool>(), 0u64..300), 0..6),
        (lagging, idle) in (0usize..3, 0usize..3),
        taken in 0usize..10 * MIB,
        own in 0usize..2,
    ) {
        let now = Instant::now() + ms(1_000);
        let reader = [Reader::Shared, Reader::Own, Reader::Nobody];
        let queues: Vec<Queued> = queues.iter().map(|(bytes, who, lags, ago)| Queued {
            reader: reader[*who as usize],
            lags: *lags,
            ..queued(*bytes, now - ms(*ago))
        }).collect();
        let mut ahead = ReadAhead::default();
        ahead.sent(now - ms(300));
        let view = View { taken, own, ..view(&queues, lagging, idle) };
        let mut at = now;
        for _ in 0..=queues.len() + 1 {
            match ahead.plan(&view, &LIMITS, at) {
                Plan::Ask { max_bytes, max_wait, idle_only } => {
                    prop_assert!(max_bytes <= LIMITS.max_bytes && max_wait <= LIMITS.max_wait);
                    prop_assert!(idle > 0 || own > 0 || (lagging > 0 && !idle_only));
                    prop_assert!(at <= now + HOLD + STUCK);
                    return Ok(());
                }
                Plan::Wait(Some(next)) => {
                    prop_assert!(next > at);
                    at = next;
                }
                Plan::Wait(None) => {
                    prop_assert!(idle == 0 && own == 0);
                    let shared = queues.iter().filter(|queued| queued.reader == Reader::Shared);
                    let all: usize = shared.map(|queued| queued.bytes).sum();
                    prop_assert!(lagging == 0 || all > FIRST + FIRST / 2);
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "it is looked at again and again");
    }
}
