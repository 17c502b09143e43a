//! The bucket, the strain of a broker, and what a batch waits for.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn limits(per_second: f64, burst: f64) -> PaceLimits {
    PaceLimits { per_second, burst, ..PaceLimits::default() }
}

#[test]
fn a_full_bucket_has_its_burst_and_then_its_pace() {
    let t0 = Instant::now();
    let mut bucket = Bucket::new(&limits(200.0, 300.0), t0);
    for n in 0..300 {
        assert_eq!(bucket.holds_at(), None, "{n}");
        bucket.take(false);
    }
    for n in 1..100 {
        // A millisecond ahead, which the next one waits for in its turn.
        let next = t0 + ms(5 * n - 1);
        let at = bucket.holds_at().expect("it is empty");
        let off = at.max(next) - at.min(next);
        assert!(off < Duration::from_micros(1), "{n}: {off:?}");
        bucket.advance(next);
        assert_eq!(bucket.holds_at(), None, "{n}");
        bucket.take(false);
    }
    // Idle for long: the burst again, and no more.
    bucket.advance(t0 + ms(60_000));
    (0..300).for_each(|_| bucket.take(false));
    assert!(bucket.holds_at().is_some());
}

/// What goes although there is nothing is not owed: what comes after a flush waits no longer for it.
#[test]
fn what_goes_at_once_is_no_debt() {
    let t0 = Instant::now();
    let mut bucket = Bucket::new(&limits(200.0, 10.0), t0);
    (0..10_000).for_each(|_| bucket.take(false));
    assert_eq!(bucket.holds_at(), Some(t0 + ms(4)));
    // Nor is what went ahead of its time forgiven by it.
    bucket.advance(t0 + ms(4));
    (0..3).for_each(|_| bucket.take(false));
    assert_eq!(bucket.holds_at(), Some(t0 + ms(9)));
}

/// A producer without a linger makes as many requests as it has records. Others of its process go on as before.
#[test]
fn what_may_not_wait_leaves_some_to_who_can() {
    let t0 = Instant::now();
    let mut bucket = Bucket::new(&limits(200.0, 300.0), t0);
    (0..10_000).for_each(|_| bucket.take(true));
    for n in 0..10 {
        assert_eq!(bucket.holds_at(), None, "{n}");
        bucket.take(false);
    }
    let mut others = 0;
    for n in 1..=10_000u64 {
        bucket.advance(t0 + ms(n));
        bucket.take(true);
        if bucket.holds_at().is_none() {
            bucket.take(false);
            others += 1;
        }
    }
    assert!((1_990..=2_001).contains(&others), "{others} in ten seconds");
    // What is saved up is theirs as well.
    bucket.advance(t0 + ms(60_000));
    (0..289).for_each(|_| bucket.take(true));
    (0..11).for_each(|_| bucket.take(false));
    assert!(bucket.holds_at().is_some());
}

/// A late timer costs nothing: what was due meanwhile is there.
#[test]
fn rounding_of_timers_does_not_add_up() {
    let t0 = Instant::now();
    let mut bucket = Bucket::new(&limits(190.0, 0.0), t0);
    let (mut now, mut requests) = (t0, 0);
    while now < t0 + ms(100_000) {
        if bucket.holds_at().is_none() {
            bucket.take(false);
            requests += 1;
        }
        now += ms(1);
        bucket.advance(now);
    }
    assert!((18_990..=19_001).contains(&requests), "{requests}");
}

#[test]
fn a_bucket_without_income_never_has_any() {
    let t0 = Instant::now();
    let mut bucket = Bucket::new(&limits(0.0, 0.0), t0);
    bucket.advance(t0 + ms(3_600_000));
    assert!(bucket.holds_at().is_some_and(|at| at > t0 + ms(80_000_000)));
}

/// Responses of so many microseconds, 5 ms apart. Gives the pace that is left.
fn feel(
    strain: &mut Strain,
    now: &mut Instant,
    responses: usize,
    us: impl Fn(usize) -> u64,
) -> f64 {
    feel_at(Duration::ZERO, strain, now, responses, us)
}

/// The same, of a broker that is so far away.
fn feel_at(
    far: Duration,
    strain: &mut Strain,
    now: &mut Instant,
    responses: usize,
    us: impl Fn(usize) -> u64,
) -> f64 {
    let (limits, mut rng) = (PaceLimits::default(), StdRng::seed_from_u64(7));
    for n in 0..responses {
        *now += ms(5);
        strain.answered(Duration::from_micros(us(n)), far, &limits, *now, &mut rng);
    }
    strain.pace
}

#[test]
fn slow_responses_of_all_slow_it_down_and_quick_ones_up_again() {
    let (mut strain, mut now) = (Strain::default(), Instant::now());
    assert_eq!(feel(&mut strain, &mut now, 200, |_| 800), 1.0);
    assert_eq!(feel(&mut strain, &mut now, 200, |_| 1_600), 1.0, "machines have their moods");
    let begun = now;
    let pace = feel(&mut strain, &mut now, 200, |_| 20_000);
    let least = PaceLimits::default().floor();
    assert_eq!(pace, least, "within {:?}", now - begun);
    assert_eq!(strain.distance(&PaceLimits::default()), Some(ms(20)), "50 a second");
    assert_eq!(strain.linger(ms(5), &PaceLimits::default()), ms(20));
    // By summands: the half is back after a second or two, all of it within ten.
    let pace = feel(&mut strain, &mut now, 100, |_| 800);
    assert!((0.3..0.6).contains(&pace), "{pace}");
    assert_eq!(feel(&mut strain, &mut now, 1_500, |_| 800), 1.0);
    assert_eq!(strain.distance(&PaceLimits::default()), None);
    assert_eq!(strain.linger(ms(5), &PaceLimits::default()), ms(5));
}

/// Its queue is short yet, and no longer than it may be: half of the pace, and never less.
#[test]
fn a_busy_broker_is_left_half() {
    let (mut strain, mut now) = (Strain::default(), Instant::now());
    feel(&mut strain, &mut now, 200, |_| 800);
    assert_eq!(feel(&mut strain, &mut now, 400, |_| 3_000), BUSY);
    assert_eq!(feel(&mut strain, &mut now, 400, |_| 3_000), BUSY);
    // One that was slow comes back to that first.
    assert!(feel(&mut strain, &mut now, 200, |_| 20_000) < 0.3);
    assert_eq!(feel(&mut strain, &mut now, 1_000, |_| 3_000), BUSY);
    assert_eq!(feel(&mut strain, &mut now, 1_500, |_| 800), 1.0);
    // Half of its responses are no sign of a queue.
    assert_eq!(feel(&mut strain, &mut now, 500, |n| if n % 2 == 0 { 3_000 } else { 800 }), 1.0);
}

/// Nothing is sent to it, or this process sleeps again and again: what it was long ago says little.
#[test]
fn what_is_not_heard_of_is_strained_no_more() {
    let (mut strain, mut now) = (Strain::default(), Instant::now());
    feel(&mut strain, &mut now, 100, |_| 800);
    let least = feel(&mut strain, &mut now, 200, |_| 20_000);
    assert_eq!(strain.by(now + ms(5_000)).pace, least, "a moment");
    assert!((strain.by(now + ms(6_000)).pace - least - UP_UNHEARD).abs() < 1e-9);
    assert_eq!(strain.by(now + ms(9_000)).pace, 1.0);
    // And it goes on from there.
    now += ms(6_000);
    let pace = feel(&mut strain, &mut now, 3, |_| 800);
    assert!((least + 0.2..least + 0.21).contains(&pace), "{pace}");
    assert!(feel(&mut strain, &mut now, 1_000, |_| 800) > 0.9);
}

/// It has no burst; and where all are strained, they share one pace, however many they are.
#[test]
fn requests_to_strained_brokers_keep_a_distance() {
    let (t0, limits) = (Instant::now(), PaceLimits::default());
    let [half, floor] = [0.5, limits.floor()].map(|pace| Strain { pace, ..Strain::default() });
    let mut allowance = Allowance::new(&limits, t0);
    let after = |allowance: &Allowance, strain: &Strain| {
        allowance.next_at(strain, &limits, t0).map(|at| at - t0)
    };
    assert_eq!(after(&allowance, &half), None, "none was sent to one");
    // Requests to brokers that are well are none of their business, nor are those that could not wait.
    allowance.take(false, false, t0);
    allowance.take(true, true, t0);
    assert_eq!(after(&allowance, &half), None);
    allowance.take(false, true, t0);
    let distance = after(&allowance, &half).unwrap();
    assert!((distance.as_secs_f64() - 2.0 / 180.0).abs() < 1e-6, "{distance:?}");
    assert_eq!(after(&allowance, &floor), Some(ms(20)), "whichever of them the last one went to");
    assert_eq!(after(&allowance, &Strain::default()), None, "for it no other pays");
    assert_eq!(allowance.next_at(&floor, &limits, t0 + ms(20)), None);
    let without = PaceLimits { per_second: 0.0, ..limits };
    assert_eq!(allowance.apart(&half, &without, t0), None, "nothing is paced");
}

/// Everybody begins at once, or while there is too much to do already: that is not how the broker is.
#[test]
fn what_is_seen_first_is_usual_only_in_reason() {
    let (mut strain, mut now) = (Strain::default(), Instant::now());
    assert!(feel(&mut strain, &mut now, 400, |_| 40_000) < 0.3);
    assert_eq!(feel(&mut strain, &mut now, 1_500, |_| 2_000), 1.0);
}

#[test]
fn some_slow_responses_say_nothing() {
    let (mut strain, mut now) = (Strain::default(), Instant::now());
    feel(&mut strain, &mut now, 200, |_| 800);
    // A replica that is slow in two of five partitions; a stop that what is in flight falls into.
    assert_eq!(feel(&mut strain, &mut now, 500, |n| if n % 5 < 2 { 50_000 } else { 800 }), 1.0);
    assert_eq!(feel(&mut strain, &mut now, 5, |_| 300_000), 1.0);
    assert_eq!(feel(&mut strain, &mut now, 100, |_| 800), 1.0);
}

#[test]
fn a_broker_that_is_far_away_is_not_strained() {
    let (mut strain, mut now) = (Strain::default(), Instant::now());
    let us = |n| 80_000 + n as u64 % 50_000;
    assert_eq!(feel_at(ms(80), &mut strain, &mut now, 500, us), 1.0);
}

/// A minute of it is no reason to go on as before; a quarter of an hour is.
#[test]
fn what_lasts_for_many_minutes_is_usual() {
    let (mut strain, mut now) = (Strain::default(), Instant::now());
    feel(&mut strain, &mut now, 100, |_| 800);
    assert!(feel(&mut strain, &mut now, 12_000, |_| 20_000) < 0.3);
    assert_eq!(feel(&mut strain, &mut now, 150_000, |_| 20_000), 1.0);
}

/// Topics with more replicas than others are answered later, on the same connection.
#[test]
fn what_differs_by_topic_is_usual_too() {
    for slow in [2, 5, 9] {
        let (mut strain, mut now) = (Strain::default(), Instant::now());
        let us = |n: usize| if n * 7 % 10 < slow { 5_000 } else { 300 };
        assert_eq!(feel(&mut strain, &mut now, 5_000, us), 1.0, "{slow} of ten");
    }
}

#[test]
fn clients_that_feel_the_same_do_not_move_in_step() {
    let now = Instant::now();
    let mut paces: Vec<u64> = (0..100)
        .map(|seed| {
            let (mut rng, mut strain) = (StdRng::seed_from_u64(seed), Strain::default());
            for n in 0..200u64 {
                let took = if n < 100 { ms(1) } else { ms(30) };
                let at = now + ms(5 * n);
                strain.answered(took, ms(1), &PaceLimits::default(), at, &mut rng);
            }
            strain.pace.to_bits()
        })
        .collect();
    paces.sort_unstable();
    paces.dedup();
    assert!(paces.len() > 50, "{}", paces.len());
}

/// Where batches wait, in milliseconds from their opening: (early, linger's end, three quarters of the
/// timeout to go; next request, strained) and what comes of it.
#[test]
fn what_a_batch_waits_for() {
    let opened = Instant::now();
    let strained = Strain { pace: PaceLimits::default().floor(), ..Strain::default() };
    let table = [
        // A request is there: at once.
        ((0, 5, 30_000), None, false, (0, 5)),
        // It is not: until then, for the linger at most.
        ((0, 5, 30_000), Some(3), false, (3, 5)),
        ((0, 5, 30_000), Some(6), false, (6, 6)),
        ((0, 5, 30_000), Some(8), false, (5, 5)),
        ((0, 60, 30_000), Some(8), false, (8, 60)),
        // A stream is gathered anyway.
        ((1, 5, 30_000), None, false, (1, 5)),
        ((1, 5, 30_000), Some(3), false, (3, 5)),
        // Flushed, pressed, or without a linger: nothing is waited for.
        ((0, 0, 30_000), Some(3), false, (0, 0)),
        ((0, 0, 30_000), Some(3), true, (0, 0)),
        // A strained broker gets more at a time; who has set more has that.
        ((0, 5, 30_000), Some(30), true, (20, 20)),
        ((0, 5, 30_000), None, true, (0, 20)),
        ((0, 60, 30_000), Some(30), true, (30, 60)),
        // Little time.
        ((0, 5, 3), Some(30), false, (3, 5)),
        ((0, 5, 8), Some(30), true, (8, 8)),
        ((0, 1_000, 25), Some(500), false, (25, 1_000)),
    ];
    for (batch, until, slow, expected) in table {
        let at = |n: u64| opened + ms(n);
        let waits = Waits { opened, early: at(batch.0), at: at(batch.1), late: at(batch.2) };
        let strain = if slow { strained } else { Strain::default() };
        let until_at = until.map(at);
        let limits = PaceLimits::default();
        let gather = Gather { until: until_at, next: until_at, strain, limits };
        let (early, due) = gather.bounds(waits);
        let got = ((early - opened).as_millis() as u64, (due - opened).as_millis() as u64);
        assert_eq!(got, expected, "{batch:?} {until:?} {slow}");
    }
}

proptest! {
    /// Whatever is asked for when: what goes only if there is a request never exceeds burst and income.
    #[test]
    fn never_more_than_burst_and_income(
        per_second in 1.0f64..500.0,
        burst in 0.0f64..500.0,
        steps in prop::collection::vec((0u64..30, any::<bool>(), any::<bool>()), 1..300),
    ) {
        let limits = PaceLimits { per_second, burst, ..PaceLimits::default() };
        let t0 = Instant::now();
        let (mut now, mut bucket, mut paced) = (t0, Bucket::new(&limits, t0), 0.0);
        for (wait, forced, hasty) in steps {
            now += ms(wait);
            bucket.advance(now);
            let there = bucket.holds_at().is_none();
            if there && !forced {
                paced += 1.0;
            }
            if there || forced {
                bucket.take(forced && hasty);
            }
        }
        // And what may go ahead of its time.
        let most = burst + (now - t0).as_secs_f64() * per_second + 0.5;
        prop_assert!(paced <= most + 1e-3, "{paced} of {most}");
    }

    /// A batch waits for its linger, or for what a strained broker makes of it, and a moment longer at most;
    /// what is waited for comes, or the wait ends.
    #[test]
    fn no_batch_waits_for_longer_than_it_may(
        early in 0u64..2, linger in 0u64..100, timeout in 1u64..1_000,
        until in prop::option::of(0u64..100_000), pace in 0.01f64..1.0,
    ) {
        let opened = Instant::now();
        let at = opened + ms(linger);
        let late = opened + ms(timeout);
        let waits = Waits { opened, early: (opened + ms(early)).min(at), at, late };
        let strain = Strain { pace, ..Strain::default() };
        let until = until.map(|n| opened + ms(n));
        let (first, last) =
            Gather { until, next: until, strain, limits: PaceLimits::default() }.bounds(waits);
        prop_assert!(first <= last);
        prop_assert!(last <= at.max(opened + PaceLimits::default().longest) + AHEAD);
        prop_assert!(last <= at.max(late) && first <= late.max(waits.early));
        prop_assert!(linger > 0 || (first, last) == (waits.early, at));
        prop_assert!(until.is_some() || first == waits.early);
    }
}
