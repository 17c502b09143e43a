//! A member, driven by hand: what it asks for, what it is told, what it does.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

mod giving_up;
mod leaving;
mod model;
mod troubles;

pub(super) const S: Duration = Duration::from_secs(45);
pub(super) const R: Duration = Duration::from_secs(300);
pub(super) const H: Duration = Duration::from_secs(3);

pub(super) fn settings() -> Settings {
    Settings {
        instance_id: None,
        session_timeout: S,
        max_poll_interval: R,
        eager: false,
        request_timeout: Duration::from_secs(30),
    }
}

pub(super) fn topics(names: &[&str]) -> Subscription {
    Subscription { topics: names.iter().map(|name| Arc::from(*name)).collect(), pattern: None }
}

/// Partitions of topic `t`.
pub(super) fn parts(numbers: &[i32]) -> Vec<Part> {
    let part = |n: &i32| Part { topic: Arc::from("t"), topic_id: uuid::Uuid::nil(), partition: *n };
    numbers.iter().map(part).collect()
}

/// A member, and what it wants done.
pub(super) struct Rig {
    pub(super) member: Classic,
    pub(super) now: Instant,
    rng: StdRng,
    /// What it wanted since it was last looked at.
    pub(super) done: Actions,
}

impl Rig {
    pub(super) fn new(settings: Settings) -> Self {
        let now = Instant::now();
        let member = Classic::new(settings, topics(&["t"]), now);
        Self { member, now, rng: StdRng::seed_from_u64(7), done: Vec::new() }
    }

    pub(super) fn on(&mut self, event: Event<Answer>) {
        let actions = self.member.on(event, self.now, &mut self.rng);
        self.done.extend(actions);
        let wake = self.member.next_wake();
        assert!(wake.is_none_or(|wake| wake > self.now), "{wake:?} has passed: {:?}", self.member);
    }

    pub(super) fn taken(&mut self) -> Actions {
        std::mem::take(&mut self.done)
    }

    /// Lets time pass, and is there when it wants to be woken.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(wake) = self.member.next_wake().filter(|wake| *wake <= end) {
            self.now = wake;
            self.on(Event::Tick);
        }
        self.now = end;
    }

    /// The one request that is wanted, after what time it takes to be wanted.
    pub(super) fn request(&mut self) -> (RequestId, Request) {
        for _ in 0..10 {
            let found = self.done.iter().position(|action| matches!(action, Action::Send { .. }));
            if let Some(at) = found {
                let Action::Send { id, request, .. } = self.done.remove(at) else { unreachable!() };
                return (id, request);
            }
            let wake = self.member.next_wake().expect("something is wanted");
            self.now = wake;
            self.on(Event::Tick);
        }
        panic!("no request: {:?}", self.member);
    }

    pub(super) fn lookup(&mut self) -> RequestId {
        for _ in 0..10 {
            let found = |action: &Action<Request>| matches!(action, Action::FindCoordinator { .. });
            if let Some(at) = self.done.iter().position(found) {
                let Action::FindCoordinator { id } = self.done.remove(at) else { unreachable!() };
                return id;
            }
            self.now = self.member.next_wake().expect("something is wanted");
            self.on(Event::Tick);
        }
        panic!("no lookup: {:?}", self.member);
    }

    pub(super) fn find(&mut self) -> RequestId {
        let to = self.lookup();
        self.on(Event::Coordinator { to, outcome: Outcome::Answered(code::NONE) });
        to
    }

    pub(super) fn answer(&mut self, to: RequestId, answer: Answer) {
        self.on(Event::Answer { to, outcome: Outcome::Answered(answer) });
    }

    pub(super) fn lose(&mut self, to: RequestId) {
        self.on(Event::Answer { to, outcome: Outcome::Cut });
    }

    /// The JoinGroup that is wanted, past heartbeats, which are answered as in a rebalance.
    pub(super) fn join(&mut self) -> (RequestId, Request) {
        loop {
            let (id, request) = self.request();
            match request {
                Request::Join { .. } => return (id, request),
                Request::Heartbeat { .. } => {
                    self.answer(id, Answer::Code(code::REBALANCE_IN_PROGRESS));
                }
                other => panic!("{other:?} instead of a join"),
            }
        }
    }

    pub(super) fn joined(&mut self, to: RequestId, generation: i32, leader: bool) {
        self.answer(to, joined(generation, leader));
    }

    pub(super) fn sync(&mut self, assigned: &[i32]) {
        let (id, request) = self.request();
        assert!(matches!(request, Request::Sync { .. }), "{request:?}");
        self.answer(id, Answer::Sync { code: code::NONE, parts: parts(assigned) });
    }

    /// From nothing to a member with these partitions in generation 1.
    pub(super) fn stable(settings: Settings, assigned: &[i32]) -> Self {
        let mut rig = Self::new(settings);
        rig.on(Event::Asks);
        rig.find();
        let (id, _) = rig.request();
        rig.joined(id, 1, false);
        rig.sync(assigned);
        rig.taken();
        rig
    }

    pub(super) fn beat(&mut self) -> RequestId {
        let (id, request) = self.request();
        assert!(matches!(request, Request::Heartbeat { .. }), "{request:?}");
        id
    }

    /// The next heartbeat is answered so.
    pub(super) fn beaten(&mut self, code: i16) {
        let id = self.beat();
        self.answer(id, Answer::Code(code));
    }

    pub(super) fn owned(&self) -> Vec<i32> {
        self.member.owned().map(|part| part.partition).collect()
    }

    pub(super) fn hands_out(&self) -> bool {
        self.member.lease().is_some_and(|lease| lease > self.now) && !self.member.session.halted
    }
}

pub(super) fn joined(generation: i32, leader: bool) -> Answer {
    Answer::Join {
        code: code::NONE,
        member_id: Arc::from("m"),
        generation,
        leader,
        skip_assignment: false,
    }
}

pub(super) fn join_refused(code: i16) -> Answer {
    Answer::Join {
        code,
        member_id: Arc::from("m"),
        generation: -1,
        leader: false,
        skip_assignment: false,
    }
}

#[test]
fn nobody_joins_before_the_application_asks() {
    let mut rig = Rig::new(settings());
    rig.on(Event::Tick);
    rig.on(Event::Away { since: rig.now });
    assert!(rig.taken().is_empty() && rig.member.next_wake().is_none());
    assert_eq!(rig.member.commits(), Commits::Never);
    rig.on(Event::Asks);
    assert!(matches!(rig.taken()[..], [Action::FindCoordinator { .. }]));
}

#[test]
fn a_member_is_made_in_two_joins() {
    let mut rig = Rig::new(settings());
    rig.on(Event::Asks);
    rig.find();
    let (id, request) = rig.request();
    let topics = vec![Arc::from("t")];
    let join = |member_id: &str| Request::Join {
        member_id: Arc::from(member_id),
        topics: topics.clone(),
        owned: Vec::new(),
        owned_generation: -1,
    };
    assert_eq!(request, join(""));
    rig.answer(id, join_refused(code::MEMBER_ID_REQUIRED));
    let before = rig.now;
    let (id, request) = rig.request();
    assert_eq!((request, rig.now), (join("m"), before), "at once, with the id");
    rig.joined(id, 5, false);
    assert_eq!(rig.member.commits(), Commits::Wait, "commits wait for the sync");
    let (id, request) = rig.request();
    let sync = Request::Sync { member_id: Arc::from("m"), generation: 5, planned: None };
    assert_eq!(request, sync);
    rig.answer(id, Answer::Sync { code: code::NONE, parts: parts(&[1, 2]) });
    assert_eq!(rig.taken(), [Action::Take { parts: parts(&[1, 2]) }]);
    let as_member = Identity { member_id: Arc::from("m"), generation: 5, instance_id: None };
    assert_eq!(rig.member.commits(), Commits::As(as_member));
    assert!(rig.hands_out());
}

#[test]
fn an_id_that_is_asked_for_twice_is_not_asked_for_without_a_pause() {
    let mut rig = Rig::new(settings());
    rig.on(Event::Asks);
    rig.find();
    let start = rig.now;
    for _ in 0..20 {
        let (id, _) = rig.join();
        rig.answer(id, join_refused(code::MEMBER_ID_REQUIRED));
    }
    assert!(rig.now > start + Duration::from_secs(10));
}

#[test]
fn the_leader_loads_topics_plans_and_syncs_with_the_plan() {
    let mut rig = Rig::new(settings());
    rig.on(Event::Asks);
    rig.find();
    let (join, _) = rig.request();
    rig.joined(join, 1, true);
    assert_eq!(rig.taken(), [Action::Plan { join, assign: true }]);
    // Heartbeats go on: a leader that takes long is not parked, and has its session only.
    rig.pass(H);
    rig.beaten(code::NONE);
    rig.on(Event::Planned { join: RequestId(999), ok: true });
    assert!(rig.taken().is_empty());
    rig.on(Event::Planned { join, ok: false });
    assert!(rig.taken().is_empty(), "after a pause");
    rig.pass(Duration::from_millis(200));
    assert_eq!(rig.taken(), [Action::Plan { join, assign: true }]);
    rig.on(Event::Planned { join, ok: true });
    let (id, request) = rig.request();
    let sync = |planned| Request::Sync { member_id: Arc::from("m"), generation: 1, planned };
    assert_eq!(request, sync(Some(join)));
    // It is lost: the plan goes along again.
    rig.lose(id);
    rig.find();
    let again = loop {
        let (id, request) = rig.request();
        match request {
            Request::Heartbeat { .. } => rig.answer(id, Answer::Code(code::NONE)),
            other => break other,
        }
    };
    assert_eq!(again, sync(Some(join)));
}

#[test]
fn a_static_leader_that_comes_back_syncs_empty_and_watches() {
    let mut rig = Rig::new(Settings { instance_id: Some(Arc::from("i")), ..settings() });
    rig.on(Event::Asks);
    rig.find();
    let (join, _) = rig.request();
    let answer = Answer::Join {
        code: code::NONE,
        member_id: Arc::from("m"),
        generation: 8,
        leader: true,
        skip_assignment: true,
    };
    rig.answer(join, answer);
    assert_eq!(rig.taken(), [Action::Plan { join, assign: false }]);
    rig.on(Event::Planned { join, ok: true });
    let (_, request) = rig.request();
    assert!(matches!(request, Request::Sync { planned: None, .. }), "{request:?}");
}

#[test]
fn the_leader_joins_again_when_its_topics_change_and_others_do_not() {
    for leads in [true, false] {
        let mut rig = Rig::new(settings());
        rig.on(Event::Asks);
        rig.find();
        let (join, _) = rig.request();
        rig.joined(join, 1, leads);
        if leads {
            rig.on(Event::Planned { join, ok: true });
        }
        // Also if it happens between the plan and the assignment.
        rig.on(Event::TopicsChanged);
        rig.sync(&[1]);
        let joins = rig.taken().iter().filter(|action| is_join(action)).count();
        assert_eq!(joins, usize::from(leads));
    }
}

pub(super) fn is_join(action: &Action<Request>) -> bool {
    matches!(action, Action::Send { request: Request::Join { .. }, .. })
}

#[test]
fn heartbeats_are_never_in_step() {
    let mut rig = Rig::stable(settings(), &[0]);
    let mut last = None;
    for _ in 0..500 {
        let id = rig.beat();
        if let Some(last) = last.replace(rig.now) {
            let gap = rig.now - last;
            assert!(gap >= H.mul_f64(0.8) && gap <= H, "{gap:?}");
        }
        rig.answer(id, Answer::Code(code::NONE));
        assert!(rig.taken().is_empty(), "nothing else goes on");
    }
}

#[test]
fn a_heartbeat_waits_for_the_one_before() {
    let mut rig = Rig::stable(settings(), &[0]);
    let id = rig.beat();
    rig.pass(Duration::from_secs(10));
    assert!(rig.taken().is_empty());
    rig.answer(id, Answer::Code(code::NONE));
    assert!(matches!(
        rig.taken()[..],
        [Action::Send { lane: Lane::Control, request: Request::Heartbeat { .. }, .. }]
    ));
}

#[test]
fn who_hears_nothing_for_the_session_hands_nothing_out_until_it_does() {
    let mut rig = Rig::stable(settings(), &[0]);
    rig.beaten(code::NONE);
    let answered = rig.now;
    let mut id = rig.beat();
    let sent = rig.now;
    assert_eq!(rig.member.lease(), Some(answered + S));
    rig.pass(S - (sent - answered) - Duration::from_millis(1));
    assert!(rig.hands_out());
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.taken(), [Action::Halt]);
    assert!(!rig.hands_out());
    // What it hears now is an answer to what was sent long ago, and says nothing of today.
    rig.pass(S);
    rig.answer(id, Answer::Code(code::NONE));
    assert!(!rig.hands_out());
    id = rig.beat();
    rig.answer(id, Answer::Code(code::NONE));
    assert_eq!(rig.taken(), [Action::Resume]);
    assert!(rig.hands_out() && rig.owned() == [0]);
    assert_eq!(rig.member.lease(), Some(rig.now + S));
}

#[test]
fn a_commit_is_a_sign_of_life_only_if_it_was_ours() {
    let mut rig = Rig::stable(settings(), &[0]);
    let ours = rig.member.identity().unwrap();
    rig.pass(Duration::from_secs(2));
    let lease = rig.member.lease();
    let other = Identity { generation: 0, ..ours.clone() };
    rig.on(Event::Alive { sent: other, since: rig.now });
    assert_eq!(rig.member.lease(), lease);
    rig.on(Event::Alive { sent: ours, since: rig.now });
    assert_eq!(rig.member.lease(), Some(rig.now + S));
}

/// Others may take their time to join; meanwhile the partitions that are kept are read.
#[test]
fn a_cooperative_member_is_alive_while_its_join_is_parked() {
    let mut rig = Rig::stable(settings(), &[0, 1]);
    rig.beaten(code::REBALANCE_IN_PROGRESS);
    let (join, request) = rig.join();
    let Request::Join { owned, owned_generation, .. } = request else { unreachable!() };
    assert_eq!((owned, owned_generation), (parts(&[0, 1]), 1));
    let parked_at = rig.now;
    while rig.now < parked_at + S * 3 {
        rig.beaten(code::REBALANCE_IN_PROGRESS);
        assert!(rig.hands_out() && rig.taken().is_empty());
        assert!(matches!(rig.member.commits(), Commits::As(_)), "commits pass");
    }
    rig.joined(join, 2, false);
    rig.sync(&[0, 1]);
    assert_eq!(rig.taken(), [Action::Take { parts: vec![] }]);
}

#[test]
fn a_member_of_no_generation_asks_whether_the_coordinator_of_its_parked_join_is_there() {
    let mut rig = Rig::new(settings());
    rig.on(Event::Asks);
    rig.find();
    let (id, _) = rig.request();
    rig.answer(id, join_refused(code::MEMBER_ID_REQUIRED));
    let (_, _) = rig.request();
    for _ in 0..20 {
        let (id, request) = rig.request();
        assert_eq!(request, Request::Heartbeat { member_id: Arc::from("m"), generation: -1 });
        rig.answer(id, Answer::Code(code::ILLEGAL_GENERATION));
    }
    let id = rig.beat();
    rig.on(Event::Answer { to: id, outcome: Outcome::TimedOut });
    rig.find();
    let (_, request) = rig.request();
    assert!(matches!(request, Request::Join { ref member_id, .. } if &**member_id == "m"));
}
