//! A member, driven by hand: what it asks for, what it is told, what it does.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

mod leaving;
mod model;
mod troubles;

const R: Duration = Duration::from_secs(300);
const H: Duration = Duration::from_secs(3);
/// Nine heartbeats.
const S: Duration = Duration::from_secs(27);

fn settings() -> Settings {
    Settings {
        instance_id: None,
        session_timeout: Duration::from_secs(999),
        max_poll_interval: R,
        eager: false,
        request_timeout: Duration::from_secs(30),
    }
}

fn fixed() -> Settings {
    Settings { instance_id: Some(Arc::from("i")), ..settings() }
}

fn topics(names: &[&str]) -> Subscription {
    Subscription { topics: names.iter().map(|name| Arc::from(*name)).collect(), pattern: None }
}

/// Topics have letters, and their ids are those.
fn id(topic: char) -> Uuid {
    Uuid::from_u128(topic as u128)
}

fn parts(of: &[(char, i32)]) -> Vec<Part> {
    let part = |(topic, partition): &(char, i32)| Part {
        topic: Arc::from(topic.to_string()),
        topic_id: id(*topic),
        partition: *partition,
    };
    of.iter().map(part).collect()
}

fn places(of: &[(char, i32)]) -> Vec<Place> {
    of.iter().map(|(topic, partition)| (id(*topic), *partition)).collect()
}

struct Rig {
    member: Next,
    now: Instant,
    rng: StdRng,
    done: Actions,
}

impl Rig {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let mut rng = StdRng::seed_from_u64(7);
        let member = Next::new(settings, topics(&["t"]), now, &mut rng);
        Self { member, now, rng, done: Vec::new() }
    }

    fn on(&mut self, event: Event<Answer>) {
        let actions = self.member.on(event, self.now, &mut self.rng);
        self.done.extend(actions);
        let wake = self.member.next_wake();
        assert!(wake.is_none_or(|wake| wake > self.now), "{wake:?} has passed: {:?}", self.member);
    }

    fn taken(&mut self) -> Actions {
        std::mem::take(&mut self.done)
    }

    fn tick(&mut self) {
        self.now = self.member.next_wake().expect("something is wanted");
        self.on(Event::Tick);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.member.next_wake().is_some_and(|wake| wake <= end) {
            self.tick();
        }
        self.now = end;
    }

    /// The request that is wanted next.
    fn request(&mut self) -> (RequestId, Request) {
        for _ in 0..10 {
            let found = self.done.iter().position(|action| matches!(action, Action::Send { .. }));
            if let Some(at) = found {
                let Action::Send { id, request, lane, .. } = self.done.remove(at) else {
                    unreachable!()
                };
                assert_eq!(lane, Lane::Control);
                return (id, request);
            }
            self.tick();
        }
        panic!("no request: {:?}", self.member);
    }

    fn lookup(&mut self) -> RequestId {
        for _ in 0..10 {
            for at in 0..self.done.len() {
                if let Action::FindCoordinator { id } = self.done[at] {
                    self.done.remove(at);
                    return id;
                }
            }
            self.tick();
        }
        panic!("no lookup: {:?}", self.member);
    }

    fn find(&mut self) {
        let to = self.lookup();
        self.on(Event::Coordinator { to, outcome: Outcome::Answered(code::NONE) });
    }

    fn answer(&mut self, to: RequestId, epoch: i32, assigned: Option<&[(char, i32)]>) {
        let answer = Answer {
            code: code::NONE,
            epoch,
            interval_ms: 3_000,
            assignment: assigned.map(places),
        };
        self.on(Event::Answer { to, outcome: Outcome::Answered(answer) });
    }

    fn refuse(&mut self, to: RequestId, code: i16) {
        let answer = Answer { code, epoch: 0, interval_ms: 0, assignment: None };
        self.on(Event::Answer { to, outcome: Outcome::Answered(answer) });
    }

    fn name(&mut self, of: &[char]) {
        let topics = of.iter().map(|topic| (id(*topic), Arc::from(topic.to_string()))).collect();
        self.on(Event::Named { topics });
    }

    /// From nothing to a member at epoch 1 that owns this, and has said so.
    fn stable(settings: Settings, assigned: &[(char, i32)]) -> Self {
        let mut rig = Self::new(settings);
        rig.on(Event::Asks);
        rig.find();
        let (to, _) = rig.request();
        rig.answer(to, 1, Some(assigned));
        rig.name(&['t', 'u']);
        if !assigned.is_empty() {
            let (to, _) = rig.request();
            rig.answer(to, 1, None);
        }
        rig.taken();
        rig
    }

    /// The next heartbeat, with nothing but the epoch.
    fn beat(&mut self) -> RequestId {
        let (to, request) = self.request();
        assert_eq!((request.all, request.owned), (None, None));
        to
    }

    fn owned(&self) -> Vec<(String, i32)> {
        self.member.owned().map(|part| (part.topic.to_string(), part.partition)).collect()
    }

    fn hands_out(&self) -> bool {
        self.member.lease().is_some_and(|lease| lease > self.now) && !self.member.session.halted
    }

    fn given_up(&mut self) -> (Round, Vec<Part>, Instant) {
        let found = self.taken().into_iter().find_map(|action| match action {
            Action::GiveUp { round, parts, deadline } => Some((round, parts, deadline)),
            _ => None,
        });
        found.expect("something is given up")
    }
}

#[test]
fn a_member_joins_with_all_fields_an_id_of_its_own_and_an_empty_list() {
    let mut rig = Rig::new(settings());
    rig.on(Event::Tick);
    assert!(rig.taken().is_empty() && rig.member.next_wake().is_none(), "nobody has asked");
    rig.on(Event::Asks);
    rig.find();
    let (to, request) = rig.request();
    assert_eq!(request.epoch, 0);
    assert_eq!((request.all, request.owned), (Some(topics(&["t"])), Some(vec![])));
    assert_eq!(request.member_id.len(), 36);
    assert_eq!(rig.member.commits(), Commits::Never);
    rig.answer(to, 5, Some(&[('t', 0)]));
    assert_eq!(rig.taken(), [Action::Resolve { topics: vec![id('t')] }]);
    rig.name(&['t']);
    assert_eq!(rig.done[0], Action::Take { parts: parts(&[('t', 0)]) });
    // What it has is said at once.
    let before = rig.now;
    let (to, again) = rig.request();
    assert_eq!((again.epoch, again.all, again.owned), (5, None, Some(places(&[('t', 0)]))));
    assert_eq!((rig.now, &again.member_id), (before, &request.member_id));
    rig.answer(to, 5, None);
    let Commits::As(identity) = rig.member.commits() else { panic!() };
    assert_eq!((identity.generation, &identity.member_id), (5, &request.member_id));
    assert!(rig.hands_out());
    // Two members have two ids.
    let mut rng = StdRng::seed_from_u64(8);
    let other = Next::new(settings(), topics(&["t"]), rig.now, &mut rng);
    assert_ne!(other.member_id, request.member_id);
}

#[test]
fn nothing_assigned_is_not_final() {
    let mut rig = Rig::new(settings());
    rig.on(Event::Asks);
    rig.find();
    let (to, _) = rig.request();
    rig.answer(to, 1, Some(&[]));
    assert_eq!(rig.taken(), [Action::Take { parts: vec![] }]);
    let joined = rig.now;
    let to = rig.beat();
    assert!(rig.now - joined <= Duration::from_secs(1), "it is looked for soon, once");
    rig.answer(to, 1, None);
    let before = rig.now;
    let to = rig.beat();
    assert!(rig.now - before >= H.mul_f64(0.8));
    rig.answer(to, 2, Some(&[('t', 3)]));
    rig.name(&['t']);
    assert_eq!(rig.owned(), [("t".to_owned(), 3)]);
}

#[test]
fn heartbeats_come_as_often_as_the_coordinator_says_and_never_in_step() {
    let mut rig = Rig::stable(settings(), &[('t', 0)]);
    let mut last = None;
    for n in 0..300 {
        let to = rig.beat();
        if let Some(last) = last.replace(rig.now) {
            let (gap, h) = (rig.now - last, if n > 200 { H / 3 } else { H });
            assert!(n == 201 || gap >= h.mul_f64(0.8) && gap <= h, "{gap:?}");
        }
        let interval_ms = if n < 200 { 3_000 } else { 1_000 };
        // What makes no sense is not heeded.
        let interval_ms = if n % 7 == 3 { 0 } else { interval_ms };
        let answer = Answer { code: code::NONE, epoch: 1, interval_ms, assignment: None };
        rig.on(Event::Answer { to, outcome: Outcome::Answered(answer) });
        assert!(rig.taken().is_empty());
    }
    let to = rig.beat();
    rig.answer(to, -1, None);
    assert_eq!(rig.member.epoch, 1, "no member's epoch");
}

#[test]
fn an_assignment_is_the_whole_and_none_is_as_before() {
    let mut rig = Rig::stable(settings(), &[('t', 0), ('t', 1)]);
    let to = rig.beat();
    rig.answer(to, 2, None);
    assert!(rig.taken().is_empty() && rig.owned().len() == 2);
    let to = rig.beat();
    rig.answer(to, 2, Some(&[('t', 1)]));
    let (round, given, deadline) = rig.given_up();
    assert_eq!((given, deadline), (parts(&[('t', 0)]), rig.now + R - H - Duration::from_secs(5)));
    // Until it is given up it is ours, and null says so.
    for _ in 0..5 {
        let to = rig.beat();
        rig.answer(to, 2, None);
        assert!(rig.taken().is_empty());
        assert!(matches!(rig.member.commits(), Commits::As(_)));
    }
    rig.on(Event::GaveUp { round: Round(99) });
    assert!(rig.taken().is_empty());
    rig.on(Event::GaveUp { round });
    assert_eq!(rig.done[0], Action::Drop { parts: parts(&[('t', 0)]), why: Why::GivenUp });
    let before = rig.now;
    let (to, request) = rig.request();
    assert_eq!((request.owned, rig.now), (Some(places(&[('t', 1)])), before), "at once");
    rig.answer(to, 3, Some(&[('t', 1), ('u', 0)]));
    rig.taken();
    rig.name(&['u']);
    assert_eq!(rig.done[0], Action::Take { parts: parts(&[('u', 0)]) });
}

#[test]
fn a_deadline_ends_the_wait_for_what_is_in_hand() {
    let mut rig = Rig::stable(settings(), &[('t', 0)]);
    let to = rig.beat();
    rig.answer(to, 1, Some(&[]));
    let (round, _, deadline) = rig.given_up();
    while rig.member.giving.is_some() {
        rig.tick();
        if let Some(Action::Send { id, .. }) = rig.done.first() {
            let to = *id;
            rig.done.clear();
            rig.answer(to, 1, None);
        }
    }
    assert_eq!(rig.now, deadline);
    assert!(rig.owned().is_empty());
    rig.taken();
    rig.on(Event::GaveUp { round });
    assert!(rig.taken().is_empty());
}

#[test]
fn what_is_assigned_again_while_it_is_given_up_is_taken_anew() {
    let mut rig = Rig::stable(settings(), &[('t', 0), ('t', 1)]);
    let to = rig.beat();
    rig.answer(to, 1, Some(&[('t', 1)]));
    let (round, ..) = rig.given_up();
    let to = rig.beat();
    // The other one instead.
    rig.answer(to, 1, Some(&[('t', 0)]));
    assert!(rig.taken().is_empty(), "one after the other");
    rig.on(Event::GaveUp { round });
    let done = rig.done.clone();
    assert_eq!(done[0], Action::Drop { parts: parts(&[('t', 0)]), why: Why::GivenUp });
    assert_eq!(done[1], Action::Take { parts: parts(&[('t', 0)]) });
    let (_, given, _) = rig.given_up();
    assert_eq!(given, parts(&[('t', 1)]));
}

#[test]
fn topics_without_a_name_are_neither_taken_nor_given_up() {
    let mut rig = Rig::stable(settings(), &[('t', 0)]);
    let to = rig.beat();
    rig.answer(to, 2, Some(&[('t', 0), ('t', 1), ('x', 0)]));
    let done = rig.taken();
    assert_eq!(done[0], Action::Resolve { topics: vec![id('x')] });
    assert_eq!(done[1], Action::Take { parts: parts(&[('t', 1)]) });
    let Action::Send { request, id: to, .. } = &done[2] else { panic!("{done:?}") };
    assert_eq!(request.owned, Some(places(&[('t', 0), ('t', 1)])));
    let to = *to;
    rig.answer(to, 2, None);
    // Named twice, and with what is not ours.
    rig.name(&['x', 'z']);
    assert_eq!(rig.done[0], Action::Take { parts: parts(&[('x', 0)]) });
    let (to, request) = rig.request();
    assert_eq!(request.owned.map(|owned| owned.len()), Some(3));
    rig.answer(to, 2, None);
    rig.taken();
    rig.name(&['x']);
    assert!(rig.taken().is_empty());
    assert!(!rig.member.names.contains_key(&id('z')));
}

#[test]
fn a_subscription_that_changes_is_told_at_once_with_all_fields() {
    let mut rig = Rig::stable(settings(), &[('t', 0)]);
    rig.on(Event::Subscribed(topics(&["t"])));
    assert!(rig.taken().is_empty(), "the same");
    let other = Subscription { topics: vec![], pattern: Some(Arc::from("t.*")) };
    rig.on(Event::Subscribed(other.clone()));
    let (_, request) = rig.request();
    assert_eq!((request.all, request.owned), (Some(other.clone()), Some(places(&[('t', 0)]))));
    // While it is on its way, it changes again.
    rig.on(Event::Subscribed(topics(&["u"])));
    assert!(rig.taken().is_empty());
    let to = rig.member.flight.unwrap().id;
    rig.answer(to, 2, None);
    let (_, request) = rig.request();
    assert_eq!(request.all, Some(topics(&["u"])));
}

#[test]
fn a_heartbeat_and_a_commit_wait_for_each_other() {
    let mut rig = Rig::stable(settings(), &[('t', 0)]);
    rig.on(Event::Committing(true));
    rig.pass(H * 2);
    assert!(rig.taken().is_empty(), "the epoch may move under it");
    rig.on(Event::Committing(false));
    let to = rig.beat();
    assert_eq!(rig.member.commits(), Commits::Wait);
    rig.answer(to, 2, None);
    assert!(matches!(rig.member.commits(), Commits::As(Identity { generation: 2, .. })));
}

#[test]
fn who_hears_nothing_for_the_session_hands_nothing_out_until_it_does() {
    let mut rig = Rig::stable(settings(), &[('t', 0)]);
    let to = rig.beat();
    let sent = rig.now;
    rig.answer(to, 1, None);
    assert_eq!(rig.member.lease(), Some(sent + S), "nine heartbeats, as the timeout is not told");
    // Commits count for nothing here.
    let ours = rig.member.identity().unwrap();
    let to = rig.beat();
    rig.on(Event::Alive { sent: ours, since: rig.now });
    assert_eq!(rig.member.lease(), Some(sent + S));
    let until = sent + S - rig.now;
    rig.pass(until);
    assert_eq!(rig.taken(), [Action::Halt]);
    assert!(!rig.hands_out());
    rig.pass(S);
    rig.answer(to, 1, None);
    assert!(!rig.hands_out(), "an answer to what was sent long ago");
    let (to, _) = rig.request();
    rig.answer(to, 1, None);
    assert_eq!(rig.taken(), [Action::Resume]);
    assert!(rig.hands_out());
}
