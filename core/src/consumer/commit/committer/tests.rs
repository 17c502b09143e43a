//! Commits, driven by hand.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

struct Rig {
    committer: Committer,
    commits: Commits,
    now: Instant,
    rng: StdRng,
    /// What the ledgers say.
    marks: BTreeMap<i32, (u64, i64)>,
    done: Actions,
}

fn part(n: i32) -> Part {
    Part { topic: "t".into(), topic_id: uuid::Uuid::nil(), partition: n }
}

fn at(offset: i64) -> Offset {
    Spot { offset, epoch: 4 }.into()
}

fn identity(generation: i32) -> Identity {
    Identity { member_id: "m".into(), generation, instance_id: None }
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            committer: Committer::new(now),
            commits: Commits::As(identity(1)),
            now,
            rng: StdRng::seed_from_u64(3),
            marks: BTreeMap::new(),
            done: Vec::new(),
        }
    }

    fn on(&mut self, event: Event) {
        let done = self.committer.on(event, &self.commits, self.now, &mut self.rng);
        for action in done {
            if action == Action::Collect {
                let mark = |(n, (incarnation, offset)): (&i32, &(u64, i64))| {
                    (part(*n), *incarnation, at(*offset).spot)
                };
                let marks = self.marks.iter().map(mark).collect();
                self.on(Event::Marks { marks });
            } else {
                self.done.push(action);
            }
        }
        let wake = self.committer.next_wake(&self.commits);
        assert!(wake.is_none_or(|wake| wake > self.now), "{wake:?}: {:?}", self.committer);
    }

    fn mark(&mut self, n: i32, offset: i64) {
        self.marks.insert(n, (1, offset));
        self.on(Event::Dirty);
    }

    fn commit(&mut self, ticket: u64, offsets: &[(i32, i64)]) {
        let offsets = offsets.iter().map(|(n, offset)| (part(*n), 1, at(*offset))).collect();
        self.on(Event::Commit { ticket: Ticket(ticket), offsets });
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(wake) = self.committer.next_wake(&self.commits).filter(|wake| *wake <= end) {
            self.now = wake;
            self.on(Event::Tick);
        }
        self.now = end;
    }

    /// The request that was sent since, if any.
    fn try_sent(&mut self) -> Option<(RequestId, Vec<(i32, i64)>)> {
        let at = self.done.iter().position(|action| matches!(action, Action::Send { .. }))?;
        let Action::Send { id, offsets, identity } = self.done.remove(at) else { unreachable!() };
        assert_eq!(self.commits, Commits::As(identity), "as whom we are now");
        let offset = |(part, offset): &(Part, Offset)| (part.partition, offset.spot.offset);
        Some((id, offsets.iter().map(offset).collect()))
    }

    fn sent(&mut self) -> (RequestId, Vec<(i32, i64)>) {
        if let Some(sent) = self.try_sent() {
            return sent;
        }
        self.now = self.committer.next_wake(&self.commits).expect("something is to be sent");
        self.on(Event::Tick);
        self.try_sent().expect("it is sent when it wakes")
    }

    fn answer(&mut self, to: RequestId, codes: &[(i32, i16)]) {
        let codes = codes.iter().map(|(n, code)| (part(*n), *code)).collect();
        self.on(Event::Answer { to, outcome: Outcome::Answered(codes) });
    }

    fn taken(&mut self) -> Actions {
        std::mem::take(&mut self.done)
    }

    fn finished(&mut self) -> Vec<(u64, bool)> {
        (self.taken().into_iter())
            .filter_map(|action| match action {
                Action::Done { ticket, result } => Some((ticket.0, result.is_ok())),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn marks_go_out_together_after_the_interval() {
    let mut all = Vec::new();
    for seed in 0..200 {
        let mut rig = Rig::new();
        rig.rng = StdRng::seed_from_u64(seed);
        let start = rig.now;
        rig.mark(0, 10);
        rig.pass(secs(1));
        rig.mark(1, 20);
        rig.mark(0, 15);
        let (id, offsets) = rig.sent();
        assert_eq!(offsets, [(0, 15), (1, 20)]);
        all.push(rig.now - start);
        rig.answer(id, &[(0, 0), (1, 0)]);
        assert!(matches!(rig.taken()[..], [Action::Alive { .. }]));
        // Nothing has changed: nothing is sent.
        rig.on(Event::Dirty);
        rig.pass(secs(60));
        assert!(rig.taken().is_empty() && rig.committer.is_idle());
    }
    assert!(all.iter().all(|d| *d >= secs(4) && *d <= secs(6)));
    assert!(all.iter().any(|d| *d < secs(5)) && all.iter().any(|d| *d > secs(5)));
}

#[test]
fn only_what_has_changed_is_sent() {
    let mut rig = Rig::new();
    rig.on(Event::Known { part: part(0), incarnation: 1, offset: at(10) });
    rig.mark(0, 10);
    rig.mark(1, 7);
    let (id, offsets) = rig.sent();
    assert_eq!(offsets, [(1, 7)]);
    rig.answer(id, &[(1, 0)]);
    rig.mark(0, 11);
    assert_eq!(rig.sent().1, [(0, 11)]);
}

#[test]
fn one_is_on_its_way_and_a_retry_carries_the_newest() {
    for outcome in [Outcome::Cut, Outcome::NotSent, Outcome::TimedOut] {
        let mut rig = Rig::new();
        rig.mark(0, 10);
        let (to, _) = rig.sent();
        rig.mark(0, 20);
        rig.commit(1, &[(0, 20)]);
        rig.pass(secs(100));
        assert!(rig.try_sent().is_none(), "one at a time");
        rig.on(Event::Answer { to, outcome });
        assert_eq!(rig.taken(), [Action::Lost]);
        rig.mark(0, 30);
        rig.commit(2, &[(0, 30)]);
        let (id, offsets) = rig.sent();
        assert_eq!(offsets, [(0, 30)]);
        // An answer to the first one changes nothing.
        rig.answer(to, &[(0, 0)]);
        assert!(rig.taken().is_empty());
        rig.answer(id, &[(0, 0)]);
        assert_eq!(rig.finished(), [(1, true), (2, true)], "in their order");
        rig.pass(secs(100));
        assert!(rig.try_sent().is_none());
    }
}

#[test]
fn who_waits_does_not_wait_for_the_interval() {
    let mut rig = Rig::new();
    rig.mark(0, 10);
    rig.commit(1, &[(0, 10)]);
    let (id, offsets) = rig.try_sent().expect("at once");
    assert_eq!(offsets, [(0, 10)]);
    // Another one meanwhile, of the same and of more.
    rig.commit(2, &[(0, 10)]);
    rig.commit(3, &[(0, 12), (1, 1)]);
    rig.answer(id, &[(0, 0)]);
    let (id, offsets) = rig.try_sent().expect("at once");
    assert_eq!(offsets, [(0, 12), (1, 1)]);
    assert_eq!(rig.finished(), [(1, true), (2, true)]);
    rig.answer(id, &[(0, 0), (1, 0)]);
    assert_eq!(rig.finished(), [(3, true)]);
    rig.commit(4, &[]);
    assert_eq!(rig.finished(), [(4, true)], "there is nothing to wait for");
}

#[test]
fn the_last_that_the_application_chose_holds() {
    let mut rig = Rig::new();
    rig.commit(1, &[(0, 100)]);
    let (id, _) = rig.sent();
    // Back, while the first one is on its way.
    rig.commit(2, &[(0, 40)]);
    rig.answer(id, &[(0, 0)]);
    assert_eq!(rig.finished().first(), Some(&(1, true)));
    let (id, offsets) = {
        rig.on(Event::Tick);
        let wake = rig.committer.in_flight();
        assert!(wake.is_some());
        (wake.unwrap(), rig.committer.flight.as_ref().unwrap().of[&part(0)].2.spot.offset)
    };
    assert_eq!(offsets, 40);
    rig.answer(id, &[(0, 0)]);
    assert_eq!(rig.finished(), [(2, true)]);
}

#[test]
fn an_identity_that_is_refused_is_not_used_again_until_it_is_another() {
    for code in [
        code::REBALANCE_IN_PROGRESS,
        code::STALE_MEMBER_EPOCH,
        code::ILLEGAL_GENERATION,
        code::UNKNOWN_MEMBER_ID,
        code::FENCED_MEMBER_EPOCH,
    ] {
        let mut rig = Rig::new();
        rig.commit(1, &[(0, 10)]);
        let (id, _) = rig.sent();
        rig.answer(id, &[(0, code)]);
        assert_eq!(rig.taken(), [Action::Refused { code, sent: identity(1) }]);
        rig.pass(secs(3));
        assert!(rig.taken().is_empty(), "{code}: held");
        // Meanwhile the group syncs.
        rig.commits = Commits::Wait;
        rig.on(Event::Tick);
        rig.pass(secs(30));
        assert!(rig.taken().is_empty());
        rig.commits = Commits::As(identity(2));
        rig.on(Event::Tick);
        let (id, offsets) = rig.try_sent().expect("at once, as the next");
        assert_eq!(offsets, [(0, 10)]);
        rig.answer(id, &[(0, 0)]);
        assert_eq!(rig.finished(), [(1, true)]);
        // If nothing comes of it, it is tried again all the same.
        rig.commit(2, &[(0, 11)]);
        let (id, _) = rig.sent();
        rig.answer(id, &[(0, code)]);
        let before = rig.now;
        rig.sent();
        assert!(rig.now - before >= secs(4) && rig.now - before <= secs(6), "{code}");
    }
}

#[test]
fn without_a_membership_nothing_is_committed() {
    let mut rig = Rig::new();
    rig.mark(0, 10);
    rig.commit(1, &[(0, 10)]);
    let (id, _) = rig.sent();
    rig.commits = Commits::Never;
    rig.on(Event::Tick);
    assert_eq!(rig.finished(), [(1, false)]);
    rig.on(Event::Forget { parts: vec![part(0)] });
    rig.answer(id, &[(0, 0)]);
    rig.commit(2, &[]);
    rig.pass(secs(100));
    assert!(rig.try_sent().is_none());
    // A new one, in which others have gone on from there.
    rig.marks.clear();
    rig.commits = Commits::As(identity(9));
    rig.on(Event::Tick);
    rig.pass(secs(100));
    assert!(rig.try_sent().is_none(), "what was lost stays lost");
}

#[test]
fn what_is_given_up_is_not_committed_and_who_waits_is_told() {
    let mut rig = Rig::new();
    rig.commit(1, &[(0, 10), (1, 5)]);
    let (id, _) = rig.sent();
    rig.on(Event::Forget { parts: vec![part(0)] });
    assert_eq!(
        rig.taken(),
        [Action::Done { ticket: Ticket(1), result: Err(Failure::NotOurs(Some(part(0)))) }]
    );
    // It comes back, and its first answer is for the one before.
    rig.on(Event::Known { part: part(0), incarnation: 2, offset: at(3) });
    rig.answer(id, &[(0, 0), (1, 0)]);
    rig.taken();
    let marks = vec![(part(0), 1, at(10).spot), (part(0), 2, at(3).spot)];
    rig.on(Event::Marks { marks });
    assert!(rig.try_sent().is_none(), "a mark of before, and what is committed");
    rig.on(Event::Marks { marks: vec![(part(0), 2, at(4).spot)] });
    assert_eq!(rig.sent().1, [(0, 4)]);
}

#[test]
fn coordinators_that_move_cost_no_commit() {
    for (code, refused) in [
        (code::NOT_COORDINATOR, true),
        (code::COORDINATOR_NOT_AVAILABLE, true),
        (code::COORDINATOR_LOAD_IN_PROGRESS, false),
        (code::UNKNOWN_SERVER_ERROR, false),
        (code::REQUEST_TIMED_OUT, false),
    ] {
        let mut rig = Rig::new();
        rig.commit(1, &[(0, 10)]);
        let start = rig.now;
        for _ in 0..10 {
            let (id, offsets) = rig.sent();
            assert_eq!(offsets, [(0, 10)], "{code}");
            rig.answer(id, &[(0, code)]);
            let says = rig.taken().iter().any(|action| matches!(action, Action::Refused { .. }));
            assert_eq!(says, refused, "{code}");
        }
        assert!(rig.now - start > secs(2), "{code}: with growing pauses");
        let (id, _) = rig.sent();
        rig.answer(id, &[(0, 0)]);
        assert_eq!(rig.finished(), [(1, true)]);
    }
}

#[test]
fn one_partition_that_is_refused_does_not_hold_up_the_others() {
    let mut rig = Rig::new();
    rig.commit(1, &[(0, 10), (1, 5)]);
    let (id, _) = rig.sent();
    rig.answer(id, &[(0, code::UNKNOWN_TOPIC_OR_PARTITION), (1, 0)]);
    assert_eq!(rig.finished(), []);
    rig.commit(2, &[(1, 6)]);
    let (id, offsets) = rig.try_sent().expect("at once");
    assert_eq!(offsets, [(1, 6)]);
    rig.answer(id, &[(1, 0)]);
    assert_eq!(rig.finished(), []);
    // It is tried again, more and more seldom; the second ticket waits for it too.
    let start = rig.now;
    for _ in 0..10 {
        let (id, offsets) = rig.sent();
        assert_eq!(offsets, [(0, 10)]);
        rig.answer(id, &[(0, code::UNKNOWN_TOPIC_OR_PARTITION)]);
    }
    assert!(rig.now - start > secs(60));
    let (id, _) = rig.sent();
    rig.answer(id, &[(0, 0)]);
    assert_eq!(rig.finished(), [(1, true), (2, true)]);
}

#[test]
fn what_no_retry_helps_fails_and_is_not_sent_again_until_it_changes() {
    let mut rig = Rig::new();
    rig.commit(1, &[(0, 10), (1, 5)]);
    let (id, _) = rig.sent();
    rig.answer(id, &[(0, code::OFFSET_METADATA_TOO_LARGE), (1, 0)]);
    let failure = Failure::Refused { part: part(0), code: code::OFFSET_METADATA_TOO_LARGE };
    let done = rig.taken();
    assert!(done.contains(&Action::Done { ticket: Ticket(1), result: Err(failure) }));
    rig.pass(secs(600));
    assert!(rig.try_sent().is_none());
    rig.commit(2, &[(0, 11)]);
    assert_eq!(rig.sent().1, [(0, 11)]);
}

#[test]
fn words_that_no_broker_takes_are_not_sent() {
    for (length, sent) in [(MOST_METADATA, true), (MOST_METADATA + 1, false)] {
        let mut rig = Rig::new();
        let offset = Offset { metadata: Some("x".repeat(length).into()), ..at(7) };
        let offsets = vec![(part(0), 1, at(3)), (part(1), 1, offset)];
        rig.on(Event::Commit { ticket: Ticket(1), offsets });
        assert_eq!(rig.try_sent().is_some(), sent);
        assert_eq!(rig.finished(), if sent { vec![] } else { vec![(1, false)] });
        assert_eq!(rig.committer.is_idle(), !sent, "all of it or none");
    }
}

#[test]
fn a_right_that_is_missing_is_told_each_minute_and_asked_for_slowly() {
    for code in [code::TOPIC_AUTHORIZATION_FAILED, code::GROUP_AUTHORIZATION_FAILED] {
        let mut rig = Rig::new();
        rig.commit(1, &[(0, 10)]);
        let start = rig.now;
        let (mut tries, mut told, mut failed) = (0, 0, 0);
        while rig.now < start + secs(3_600) {
            let (id, _) = rig.sent();
            tries += 1;
            rig.answer(id, &[(0, code)]);
            let done = rig.taken();
            told += done.iter().filter(|action| matches!(action, Action::Tell(_))).count();
            failed += done.iter().filter(|action| matches!(action, Action::Done { .. })).count();
        }
        assert_eq!(failed, 1);
        assert!((50..=61).contains(&told), "{code}: {told}");
        assert!((100..=400).contains(&tries), "{code}: {tries}");
        // The right is there.
        let (id, _) = rig.sent();
        rig.answer(id, &[(0, 0)]);
        rig.pass(secs(600));
        assert!(rig.try_sent().is_none());
    }
}

#[test]
fn what_was_assigned_by_hand_is_committed_again_each_day() {
    let mut rig = Rig::new();
    rig.commits = Commits::As(Identity::none());
    rig.on(Event::Known { part: part(0), incarnation: 1, offset: at(3) });
    rig.commit(1, &[(1, 5)]);
    let (id, _) = rig.sent();
    rig.answer(id, &[(1, 0)]);
    for _ in 0..5 {
        let before = rig.now;
        rig.taken();
        let (id, offsets) = rig.sent();
        assert_eq!(offsets, [(0, 3), (1, 5)], "moved or not");
        let after = rig.now - before;
        assert!(after >= secs(14 * 3_600) && after <= secs(24 * 3_600), "{after:?}");
        rig.answer(id, &[(0, 0), (1, 0)]);
    }
    // A member's offsets do not expire while it is one.
    let mut rig = Rig::new();
    rig.commit(1, &[(1, 5)]);
    let (id, _) = rig.sent();
    rig.answer(id, &[(1, 0)]);
    rig.taken();
    rig.pass(secs(3 * 24 * 3_600));
    assert!(rig.taken().is_empty());
}

/// Random marks, tickets, answers and identities: what was answered as committed is the newest that was sent, each
/// ticket ends once and only if its offsets, or later ones, are committed, and there is always something to wait for.
#[test]
fn whatever_happens_all_is_committed_in_the_end() {
    for seed in 0..400 {
        let mut rig = Rig::new();
        rig.rng = StdRng::seed_from_u64(seed);
        let mut rng = StdRng::seed_from_u64(seed + 1_000_000);
        let mut log: BTreeMap<i32, i64> = BTreeMap::new();
        let mut waiting: BTreeMap<u64, (i32, i64)> = BTreeMap::new();
        let mut open = None;
        let (mut ticket, mut generation, mut offset) = (0, 1, 0);
        for step in 0..300 {
            let troubles = step < 200;
            offset += 1;
            let n = rng.random_range(0..4);
            match rng.random_range(0..10) {
                0..3 => rig.mark(n, offset),
                3 => {
                    ticket += 1;
                    rig.marks.insert(n, (1, offset));
                    waiting.insert(ticket, (n, offset));
                    rig.commit(ticket, &[(n, offset)]);
                }
                4 if troubles => {
                    generation += 1;
                    rig.commits = Commits::As(identity(generation));
                    rig.on(Event::Tick);
                }
                5 if troubles => {
                    rig.commits = Commits::Wait;
                    rig.on(Event::Tick);
                }
                6 => rig.pass(Duration::from_millis(rng.random_range(0..8_000))),
                _ => {
                    if let Some((id, offsets)) = open.take() {
                        answer(&mut rig, &mut log, id, offsets, troubles, &mut rng);
                    }
                }
            }
            if rig.commits == Commits::Wait && !troubles {
                rig.commits = Commits::As(identity(generation));
                rig.on(Event::Tick);
            }
            if let Some(sent) = rig.try_sent() {
                assert!(open.replace(sent).is_none(), "seed {seed}: two on their way");
            }
            for (done, ok) in rig.finished() {
                let (n, offset) = waiting.remove(&done).expect("each ends once");
                assert!(ok && log[&n] >= offset, "seed {seed}");
            }
            let wakes = rig.committer.next_wake(&rig.commits).is_some();
            let waits = open.is_some() || rig.commits == Commits::Wait;
            assert!(
                rig.committer.is_idle() && !rig.committer.dirty || wakes || waits,
                "seed {seed}: stuck"
            );
        }
        for _ in 0..10 {
            if let Some((id, offsets)) = open.take().or_else(|| rig.try_sent()) {
                answer(&mut rig, &mut log, id, offsets, false, &mut rng);
            }
            rig.pass(secs(7));
        }
        for (n, (_, offset)) in &rig.marks {
            assert_eq!(log[n], *offset, "seed {seed}");
        }
        for (done, ok) in rig.finished() {
            assert!(ok && waiting.remove(&done).is_some());
        }
        assert!(waiting.is_empty(), "seed {seed}");
    }
}

/// The broker writes it, or not; the answer comes, or not.
fn answer(
    rig: &mut Rig,
    log: &mut BTreeMap<i32, i64>,
    to: RequestId,
    offsets: Vec<(i32, i64)>,
    troubles: bool,
    rng: &mut StdRng,
) {
    let codes = [
        code::NONE,
        code::REBALANCE_IN_PROGRESS,
        code::NOT_COORDINATOR,
        code::UNKNOWN_SERVER_ERROR,
    ];
    let code = codes[if troubles { rng.random_range(0..4) } else { 0 }];
    if code == code::NONE {
        log.extend(offsets.iter().copied());
    }
    if troubles && rng.random_bool(0.2) {
        return rig.on(Event::Answer { to, outcome: Outcome::Cut });
    }
    let codes: Vec<(i32, i16)> = offsets.iter().map(|(n, _)| (*n, code)).collect();
    rig.answer(to, &codes);
}
