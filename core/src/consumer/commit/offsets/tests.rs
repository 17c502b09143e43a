//! Offsets that are asked for, by hand.

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

struct Rig {
    offsets: Offsets,
    now: Instant,
    rng: StdRng,
}

fn part(n: i32) -> Part {
    Part { topic: "t".into(), topic_id: uuid::Uuid::nil(), partition: n }
}

fn member() -> Commits {
    Commits::As(Identity { member_id: "m".into(), generation: 3, instance_id: None })
}

fn said(n: i32, code: i16, offset: i64) -> Said {
    Said { part: part(n), code, offset: (offset, 7).into() }
}

impl Rig {
    fn new() -> Self {
        let now = Instant::now();
        Self { offsets: Offsets::new(now), now, rng: StdRng::seed_from_u64(1) }
    }

    fn on(&mut self, event: Event) -> Actions {
        self.offsets.on(event, &member(), self.now, &mut self.rng)
    }

    fn want(&mut self, of: &[(i32, u64)]) -> Actions {
        let parts = of.iter().map(|(n, incarnation)| (part(*n), *incarnation)).collect();
        self.on(Event::Want { parts })
    }

    /// The next request, once it is time.
    fn sent(&mut self) -> (RequestId, Vec<i32>) {
        let wake = self.offsets.next_wake(&member()).expect("something is wanted");
        self.now = self.now.max(wake);
        sent(&self.on(Event::Tick))
    }

    fn answer(&mut self, to: RequestId, code: i16, said: Vec<Said>) -> Actions {
        self.on(Event::Answer { to, outcome: Outcome::Answered((code, said)) })
    }
}

fn sent(actions: &Actions) -> (RequestId, Vec<i32>) {
    match actions.last() {
        Some(Action::Send { id, parts, .. }) => {
            (*id, parts.iter().map(|part| part.partition).collect())
        }
        other => panic!("{other:?} instead of a request"),
    }
}

fn found(actions: &Actions) -> Vec<(i32, u64, Option<i64>)> {
    (actions.iter())
        .filter_map(|action| match action {
            Action::Found { part, incarnation, committed } => {
                let offset = committed.as_ref().map(|offset| offset.spot.offset);
                Some((part.partition, *incarnation, offset))
            }
            _ => None,
        })
        .collect()
}

#[test]
fn only_minus_one_without_an_error_means_that_nothing_is_committed() {
    let mut rig = Rig::new();
    let (id, parts) = sent(&rig.want(&[(0, 1), (1, 2), (2, 3), (3, 4)]));
    assert_eq!(parts, [0, 1, 2, 3]);
    let answer = vec![
        said(0, code::NONE, 50),
        said(1, code::NONE, -1),
        said(2, code::UNKNOWN_TOPIC_OR_PARTITION, -1),
        // The last one is left out.
    ];
    let done = rig.answer(id, code::NONE, answer);
    assert_eq!(found(&done), [(0, 1, Some(50)), (1, 2, None)]);
    let (id, parts) = rig.sent();
    assert_eq!(parts, [2, 3]);
    let done = rig.answer(id, code::NONE, vec![said(2, code::NONE, 0), said(3, code::NONE, 9)]);
    assert_eq!(found(&done), [(2, 3, Some(0)), (3, 4, Some(9))]);
    assert_eq!(rig.offsets.next_wake(&member()), None);
}

#[test]
fn what_a_transaction_may_change_is_asked_for_again() {
    let mut rig = Rig::new();
    let (mut id, _) = sent(&rig.want(&[(0, 1)]));
    let start = rig.now;
    for _ in 0..30 {
        let done = rig.answer(id, code::NONE, vec![said(0, code::UNSTABLE_OFFSET_COMMIT, -1)]);
        assert!(found(&done).is_empty());
        assert!(!done.iter().any(|action| matches!(action, Action::Tell(_))), "it is no trouble");
        (id, _) = rig.sent();
    }
    assert!(rig.now > start + std::time::Duration::from_secs(20), "with a growing pause");
    // What is added meanwhile does not wait for it.
    rig.answer(id, code::NONE, vec![said(0, code::UNSTABLE_OFFSET_COMMIT, -1)]);
    let (id, parts) = sent(&rig.want(&[(1, 2)]));
    assert_eq!(parts, [0, 1]);
    rig.answer(id, code::NONE, vec![said(0, code::NONE, 5), said(1, code::NONE, 5)]);
    assert_eq!(rig.offsets.next_wake(&member()), None);
}

#[test]
fn a_failure_of_the_whole_is_an_answer_for_none() {
    for code in [
        code::NOT_COORDINATOR,
        code::COORDINATOR_LOAD_IN_PROGRESS,
        code::STALE_MEMBER_EPOCH,
        code::UNKNOWN_MEMBER_ID,
        code::GROUP_AUTHORIZATION_FAILED,
        code::UNKNOWN_SERVER_ERROR,
    ] {
        let mut rig = Rig::new();
        let (id, _) = sent(&rig.want(&[(0, 1)]));
        // Some versions repeat -1 for each partition.
        let done = rig.answer(id, code, vec![said(0, code::NONE, -1)]);
        assert!(found(&done).is_empty(), "{code}");
        let refused = done.iter().any(|action| matches!(action, Action::Refused { .. }));
        let concerns_member = matches!(
            code,
            code::NOT_COORDINATOR | code::STALE_MEMBER_EPOCH | code::UNKNOWN_MEMBER_ID
        );
        assert_eq!(refused, concerns_member, "{code}");
        let told = done.iter().any(|action| matches!(action, Action::Tell(_)));
        assert_eq!(told, code == code::GROUP_AUTHORIZATION_FAILED, "{code}");
        let (_, parts) = rig.sent();
        assert_eq!(parts, [0], "{code}");
    }
    for outcome in [Outcome::Cut, Outcome::NotSent, Outcome::TimedOut] {
        let mut rig = Rig::new();
        let (to, _) = sent(&rig.want(&[(0, 1)]));
        assert_eq!(rig.on(Event::Answer { to, outcome }), [Action::Lost]);
        rig.sent();
    }
}

#[test]
fn what_is_not_wanted_any_more_is_not_found() {
    let mut rig = Rig::new();
    let (id, _) = sent(&rig.want(&[(0, 1), (1, 2)]));
    rig.on(Event::Forget { parts: vec![part(0)] });
    // It came back as another incarnation: the committed offset is the group's all the same.
    rig.on(Event::Forget { parts: vec![part(1)] });
    assert!(rig.want(&[(1, 9)]).is_empty(), "one request at a time");
    let done = rig.answer(id, code::NONE, vec![said(0, code::NONE, 1), said(1, code::NONE, 1)]);
    assert_eq!(found(&done), [(1, 9, Some(1))]);
    let done = rig.answer(id, code::NONE, vec![said(1, code::NONE, 7)]);
    assert!(done.is_empty(), "it was answered");
}

#[test]
fn nobody_asks_who_is_not_there() {
    let mut rig = Rig::new();
    let parts = vec![(part(0), 1)];
    for commits in [Commits::Wait, Commits::Never] {
        let event = Event::Want { parts: parts.clone() };
        assert!(rig.offsets.on(event, &commits, rig.now, &mut rig.rng).is_empty());
        assert_eq!(rig.offsets.next_wake(&commits), None);
    }
    let by_hand = Commits::As(Identity::none());
    let done = rig.offsets.on(Event::Tick, &by_hand, rig.now, &mut rig.rng);
    assert!(matches!(&done[..], [Action::Send { identity, .. }] if identity.generation == -1));
}
