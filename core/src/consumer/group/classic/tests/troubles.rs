//! Each code in each state, and each response lost.

use super::*;

const FINAL: [i16; 6] = [
    code::FENCED_INSTANCE_ID,
    code::INCONSISTENT_GROUP_PROTOCOL,
    code::INVALID_GROUP_ID,
    code::INVALID_SESSION_TIMEOUT,
    code::INVALID_REQUEST,
    code::UNSUPPORTED_VERSION,
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// The coordinator is looked up, what is owned stays.
    LookUp,
    /// Again after a pause, what is owned stays.
    Again,
    /// Another join, what is owned stays.
    Join,
    /// All is lost, the next join has the id.
    LostWithId,
    /// All is lost, the next join is a stranger's.
    Lost,
    End,
}

fn check(mut rig: Rig, then: Then, context: &str) {
    let lost = Action::Drop { parts: parts(&[0]), why: Why::Lost };
    let is_lost = rig.done.contains(&lost);
    match then {
        Then::LookUp => {
            assert!(!is_lost, "{context}");
            let before = rig.now;
            rig.lookup();
            assert!(rig.now <= before + Duration::from_millis(100), "{context}");
        }
        Then::Again => {
            assert!(!is_lost && !rig.done.iter().any(is_send), "{context}: {:?}", rig.done);
            rig.request();
        }
        Then::Join => {
            assert!(!is_lost, "{context}");
            let (_, request) = rig.join();
            assert!(
                matches!(request, Request::Join { ref owned, .. } if !owned.is_empty()),
                "{context}: {request:?}"
            );
        }
        Then::LostWithId | Then::Lost => {
            assert!(is_lost, "{context}: {:?}", rig.done);
            assert_eq!(rig.member.commits(), Commits::Never, "{context}");
            rig.done.retain(is_send);
            let (_, request) = rig.join();
            let Request::Join { member_id, owned, owned_generation, .. } = request else { return };
            let id = if then == Then::Lost { "" } else { "m" };
            assert_eq!((&*member_id, owned, owned_generation), (id, vec![], -1), "{context}");
        }
        Then::End => {
            assert!(is_lost, "{context}");
            assert!(matches!(rig.done.last(), Some(Action::End(_))), "{context}");
            assert!(rig.member.next_wake().is_none(), "{context}");
        }
    }
}

fn is_send(action: &Action<Request>) -> bool {
    matches!(action, Action::Send { .. })
}

#[test]
fn what_a_heartbeat_says() {
    let table = [
        (code::NOT_COORDINATOR, Then::LookUp),
        (code::COORDINATOR_NOT_AVAILABLE, Then::LookUp),
        (code::COORDINATOR_LOAD_IN_PROGRESS, Then::Again),
        (code::REBALANCE_IN_PROGRESS, Then::Join),
        (code::ILLEGAL_GENERATION, Then::LostWithId),
        (code::UNKNOWN_MEMBER_ID, Then::Lost),
        (code::UNKNOWN_SERVER_ERROR, Then::Again),
        (code::GROUP_AUTHORIZATION_FAILED, Then::Again),
    ];
    for (code, then) in table.into_iter().chain(FINAL.map(|code| (code, Then::End))) {
        let mut rig = Rig::stable(settings(), &[0]);
        rig.beaten(code);
        let told = rig.done.iter().any(|action| matches!(action, Action::Tell(_)));
        assert_eq!(told, code == code::GROUP_AUTHORIZATION_FAILED, "{code}");
        check(rig, then, &format!("a heartbeat says {code}"));
    }
}

/// A member that owns partition 0 and joins again.
fn joining() -> (Rig, RequestId) {
    let mut rig = Rig::stable(settings(), &[0]);
    rig.beaten(code::REBALANCE_IN_PROGRESS);
    let (id, _) = rig.join();
    rig.taken();
    (rig, id)
}

fn syncing() -> (Rig, RequestId) {
    let (mut rig, id) = joining();
    rig.joined(id, 2, false);
    let (id, _) = rig.request();
    (rig, id)
}

#[test]
fn what_a_join_is_refused_for() {
    let table = [
        (code::NOT_COORDINATOR, Then::LookUp),
        (code::COORDINATOR_LOAD_IN_PROGRESS, Then::Again),
        (code::REBALANCE_IN_PROGRESS, Then::Again),
        (code::UNKNOWN_MEMBER_ID, Then::Lost),
        (code::UNKNOWN_SERVER_ERROR, Then::Again),
        (code::GROUP_AUTHORIZATION_FAILED, Then::Again),
        (code::GROUP_MAX_SIZE_REACHED, Then::Again),
    ];
    for (code, then) in table.into_iter().chain(FINAL.map(|code| (code, Then::End))) {
        let (mut rig, id) = joining();
        rig.answer(id, join_refused(code));
        check(rig, then, &format!("a join is refused with {code}"));
    }
}

#[test]
fn what_a_sync_is_refused_for() {
    let table = [
        (code::NOT_COORDINATOR, Then::LookUp),
        (code::COORDINATOR_NOT_AVAILABLE, Then::LookUp),
        (code::COORDINATOR_LOAD_IN_PROGRESS, Then::Again),
        (code::REBALANCE_IN_PROGRESS, Then::Join),
        (code::ILLEGAL_GENERATION, Then::LostWithId),
        (code::UNKNOWN_MEMBER_ID, Then::Lost),
        (code::UNKNOWN_SERVER_ERROR, Then::Join),
        (code::GROUP_AUTHORIZATION_FAILED, Then::Again),
    ];
    for (code, then) in table.into_iter().chain(FINAL.map(|code| (code, Then::End))) {
        let (mut rig, id) = syncing();
        rig.answer(id, Answer::Sync { code, parts: vec![] });
        check(rig, then, &format!("a sync is refused with {code}"));
    }
}

#[test]
fn what_a_commit_is_refused_for() {
    let table = [
        (code::NOT_COORDINATOR, Some(Then::LookUp)),
        (code::ILLEGAL_GENERATION, Some(Then::LostWithId)),
        (code::UNKNOWN_MEMBER_ID, Some(Then::Lost)),
        (code::FENCED_INSTANCE_ID, Some(Then::End)),
        (code::REBALANCE_IN_PROGRESS, None),
        (code::COORDINATOR_LOAD_IN_PROGRESS, None),
        (code::GROUP_AUTHORIZATION_FAILED, None),
        (code::INVALID_REQUEST, None),
    ];
    for (code, then) in table {
        let mut rig = Rig::stable(settings(), &[0]);
        let found = rig.member.coordinator.found().unwrap();
        let sent = rig.member.identity().unwrap();
        rig.on(Event::Refused { code, sent: sent.clone(), found });
        match then {
            Some(then) => check(rig, then, &format!("a commit is refused with {code}")),
            None => assert!(rig.taken().is_empty(), "{code}"),
        }
        // Of a former generation, or by a former coordinator.
        for old_coordinator in [true, false] {
            let mut rig = Rig::stable(settings(), &[0]);
            let (found, sent) = if old_coordinator {
                (RequestId(0), sent.clone())
            } else {
                (found, Identity { generation: 0, ..sent.clone() })
            };
            rig.on(Event::Refused { code, sent, found });
            let moved = !old_coordinator && code == code::NOT_COORDINATOR;
            assert_eq!(rig.member.coordinator.found().is_none(), moved, "{code}");
            assert!(
                rig.taken().iter().all(|action| matches!(action, Action::FindCoordinator { .. }))
            );
        }
        // While a join is parked the group may have gone on.
        let (mut rig, _) = joining();
        if matches!(code, code::ILLEGAL_GENERATION | code::UNKNOWN_MEMBER_ID) {
            let found = rig.member.coordinator.found().unwrap();
            rig.on(Event::Refused { code, sent: rig.member.identity().unwrap(), found });
            assert!(rig.taken().is_empty() && rig.owned() == [0]);
        }
    }
}

#[test]
fn a_response_that_is_lost_costs_no_partition() {
    for lost in [Outcome::Cut, Outcome::NotSent, Outcome::TimedOut] {
        for state in 0..3 {
            let (mut rig, id) = match state {
                0 => {
                    let mut rig = Rig::stable(settings(), &[0]);
                    let id = rig.beat();
                    (rig, id)
                }
                1 => joining(),
                _ => syncing(),
            };
            rig.on(Event::Answer { to: id, outcome: lost.clone() });
            assert!(!matches!(rig.member.commits(), Commits::As(_)), "there is nobody to ask");
            let lost_at = rig.now;
            rig.find();
            let found_at = rig.now;
            let (_, request) = rig.request();
            assert!(
                rig.now - found_at <= H / 2 && found_at - lost_at <= Duration::from_millis(100)
            );
            let same = match state {
                0 => matches!(request, Request::Heartbeat { .. }),
                1 => matches!(request, Request::Join { .. } | Request::Heartbeat { .. }),
                _ => matches!(request, Request::Sync { .. } | Request::Heartbeat { .. }),
            };
            assert!(same && rig.owned() == [0] && rig.hands_out(), "{request:?}");
        }
    }
}

#[test]
fn members_that_lost_their_coordinator_together_do_not_come_back_together() {
    let mut at = Vec::new();
    for seed in 0..200 {
        let mut rig = Rig::stable(settings(), &[0]);
        rig.rng = StdRng::seed_from_u64(seed);
        let found = rig.member.coordinator.found().unwrap();
        let lost_at = rig.now;
        rig.on(Event::CoordinatorLost { found });
        let to = rig.lookup();
        let asked = rig.now - lost_at;
        let found_at = rig.now;
        rig.on(Event::Coordinator { to, outcome: Outcome::Answered(code::NONE) });
        rig.request();
        at.push((asked, rig.now - found_at));
    }
    let spread = |of: &dyn Fn(&(Duration, Duration)) -> Duration, limit: Duration| {
        for slice in 0..5 {
            let n = at
                .iter()
                .map(of)
                .filter(|d| (limit / 5 * slice..limit / 5 * (slice + 1)).contains(d));
            assert!(n.count() > 20, "slice {slice} of {limit:?}");
        }
        assert!(at.iter().map(of).all(|d| d <= limit));
    };
    spread(&|at| at.0, Duration::from_millis(100));
    spread(&|at| at.1, H / 2);
}

#[test]
fn what_comes_too_late_is_no_news() {
    let (mut rig, join) = joining();
    let beat = rig.beat();
    rig.lose(beat);
    rig.taken();
    // A coordinator that is not ours any more.
    for answer in [joined(2, true), join_refused(code::UNKNOWN_MEMBER_ID)] {
        rig.answer(join, answer);
    }
    rig.answer(beat, Answer::Code(code::FENCED_INSTANCE_ID));
    assert!(rig.taken().is_empty() && rig.owned() == [0]);
    // A lookup that was answered twice.
    let to = rig.find();
    rig.on(Event::Coordinator { to, outcome: Outcome::Answered(code::NOT_COORDINATOR) });
    rig.on(Event::CoordinatorLost { found: RequestId(1) });
    assert!(rig.member.coordinator.found() == Some(to));
}

#[test]
fn a_heartbeat_of_the_generation_before_says_nothing_of_this_one() {
    let (mut rig, join) = joining();
    let beat = rig.beat();
    rig.joined(join, 2, false);
    rig.sync(&[0]);
    rig.taken();
    rig.answer(beat, Answer::Code(code::ILLEGAL_GENERATION));
    let beat = rig.beat();
    assert!(rig.owned() == [0]);
    rig.answer(beat, Answer::Code(code::NONE));
    assert!(rig.owned() == [0]);
}

#[test]
fn what_is_owned_is_claimed_by_the_generation_that_assigned_it() {
    let (mut rig, id) = syncing();
    // The group rebalances before we have heard what generation 2 assigns.
    rig.answer(id, Answer::Sync { code: code::REBALANCE_IN_PROGRESS, parts: vec![] });
    let (id, request) = rig.join();
    let Request::Join { owned, owned_generation, .. } = request else { unreachable!() };
    assert_eq!((owned, owned_generation), (parts(&[0]), 1));
    rig.joined(id, 3, false);
    rig.sync(&[0]);
    assert_eq!(rig.member.owned_generation, 3);
}

#[test]
fn a_parked_request_that_nobody_knows_of_is_sent_again() {
    // (in which state, what heartbeats say, whether it is sent again)
    for (sync, says, again) in [
        (false, code::REBALANCE_IN_PROGRESS, false),
        (false, code::NONE, true),
        (false, code::ILLEGAL_GENERATION, true),
        (true, code::NONE, false),
        (true, code::REBALANCE_IN_PROGRESS, true),
        (true, code::ILLEGAL_GENERATION, true),
        (true, code::UNKNOWN_MEMBER_ID, true),
    ] {
        let (mut rig, id) = if sync { syncing() } else { joining() };
        rig.beaten(says);
        assert!(rig.taken().is_empty(), "it may have been answered at that moment");
        rig.beaten(says);
        let abandoned = rig.done.first() == Some(&Action::Abandon { id });
        assert_eq!(abandoned, again, "{sync} {says}");
        if again {
            rig.taken();
            let (_, request) = rig.join();
            assert!(matches!(request, Request::Join { ref owned, .. } if owned.len() == 1));
        }
    }
}

#[test]
fn who_is_not_known_while_it_joins_has_lost_everything_and_joins_anew() {
    let (mut rig, id) = joining();
    rig.beaten(code::UNKNOWN_MEMBER_ID);
    assert_eq!(rig.taken(), [Action::Drop { parts: parts(&[0]), why: Why::Lost }]);
    // The join may still be good.
    let mut other = joining();
    other.0.beaten(code::UNKNOWN_MEMBER_ID);
    other.0.joined(other.1, 2, false);
    other.0.taken();
    other.0.on(Event::Tick);
    rig.beaten(code::UNKNOWN_MEMBER_ID);
    assert_eq!(rig.taken()[0], Action::Abandon { id });
    let (id, _) = rig.join();
    rig.answer(id, join_refused(code::UNKNOWN_MEMBER_ID));
    let (_, request) = rig.join();
    assert!(matches!(request, Request::Join { ref member_id, .. } if member_id.is_empty()));
}

#[test]
fn what_somebody_has_to_put_right_is_told_each_minute_and_tried_slowly() {
    for code in [code::GROUP_AUTHORIZATION_FAILED, code::GROUP_MAX_SIZE_REACHED] {
        let mut rig = Rig::new(settings());
        rig.on(Event::Asks);
        rig.find();
        let start = rig.now;
        let (mut tries, mut told) = (0, 0);
        while rig.now < start + Duration::from_secs(3_600) {
            let (id, _) = rig.join();
            rig.answer(id, join_refused(code));
            tries += 1;
            let tells = |action: &&Action<Request>| matches!(action, Action::Tell(_));
            told += rig.taken().iter().filter(tells).count();
        }
        assert!((50..=61).contains(&told), "{told} in an hour");
        assert!((120..=480).contains(&tries), "{tries} in an hour");
        let (id, _) = rig.join();
        rig.joined(id, 1, false);
    }
}

#[test]
fn brokers_that_do_not_agree_on_the_coordinator_are_not_asked_without_a_pause() {
    let mut rig = Rig::new(settings());
    rig.on(Event::Asks);
    let start = rig.now;
    let mut lookups = 0;
    while rig.now < start + Duration::from_secs(600) {
        rig.find();
        lookups += 1;
        let (id, _) = rig.join();
        rig.answer(id, join_refused(code::NOT_COORDINATOR));
    }
    assert!((100..400).contains(&lookups), "{lookups} in ten minutes");
}

#[test]
fn a_lookup_without_a_right_is_told() {
    let mut rig = Rig::new(settings());
    rig.on(Event::Asks);
    let to = rig.lookup();
    let outcome = Outcome::Answered(code::GROUP_AUTHORIZATION_FAILED);
    rig.on(Event::Coordinator { to, outcome });
    let trouble = Trouble { code: code::GROUP_AUTHORIZATION_FAILED, during: "FindCoordinator" };
    assert_eq!(rig.taken(), [Action::Tell(trouble)]);
    rig.find();
    rig.join();
}
