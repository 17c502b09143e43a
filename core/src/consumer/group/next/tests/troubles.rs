//! Each code in each state, and each answer lost.

use super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    LookUp,
    /// Again after a pause with all fields, what is owned stays.
    Again,
    /// All is lost, and it joins anew, under the same id.
    Lost,
    End,
}

const TABLE: [(i16, Then); 15] = [
    (code::NOT_COORDINATOR, Then::LookUp),
    (code::COORDINATOR_NOT_AVAILABLE, Then::LookUp),
    (code::COORDINATOR_LOAD_IN_PROGRESS, Then::Again),
    (code::STALE_MEMBER_EPOCH, Then::Again),
    (code::UNKNOWN_SERVER_ERROR, Then::Again),
    (code::GROUP_AUTHORIZATION_FAILED, Then::Again),
    (code::TOPIC_AUTHORIZATION_FAILED, Then::Again),
    (code::UNKNOWN_MEMBER_ID, Then::Lost),
    (code::FENCED_MEMBER_EPOCH, Then::Lost),
    (code::GROUP_ID_NOT_FOUND, Then::Lost),
    (code::FENCED_INSTANCE_ID, Then::End),
    (code::UNSUPPORTED_ASSIGNOR, Then::End),
    (code::INVALID_REGULAR_EXPRESSION, Then::End),
    (code::INVALID_REQUEST, Then::End),
    (code::UNSUPPORTED_VERSION, Then::End),
];

#[test]
fn what_a_heartbeat_is_refused_for() {
    for (code, then) in TABLE {
        let mut rig = Rig::stable(settings(), &[('t', 0)]);
        let id = rig.member.member_id.clone();
        let to = rig.beat();
        rig.refuse(to, code);
        let lost = rig.done.contains(&Action::Drop { parts: parts(&[('t', 0)]), why: Why::Lost });
        assert_eq!(lost, matches!(then, Then::Lost | Then::End), "{code}");
        match then {
            Then::End => {
                assert!(matches!(rig.done.last(), Some(Action::End(_))), "{code}");
                assert!(rig.member.next_wake().is_none());
                continue;
            }
            Then::LookUp => rig.find(),
            Then::Again => assert!(rig.hands_out(), "{code}"),
            Then::Lost => assert_eq!(rig.member.commits(), Commits::Never),
        }
        let (_, request) = rig.request();
        assert_eq!((&request.member_id, &request.all), (&id, &Some(topics(&["t"]))), "{code}");
        let (epoch, owned) =
            if then == Then::Lost { (0, vec![]) } else { (1, places(&[('t', 0)])) };
        assert_eq!((request.epoch, request.owned), (epoch, Some(owned)), "{code}");
    }
}

#[test]
fn what_a_commit_is_refused_for() {
    for (code, then) in TABLE {
        let mut rig = Rig::stable(settings(), &[('t', 0)]);
        let (found, sent) =
            (rig.member.coordinator.found().unwrap(), rig.member.identity().unwrap());
        let old = Identity { generation: 0, ..sent.clone() };
        if then != Then::LookUp {
            rig.on(Event::Refused { code, sent: old, found });
        }
        rig.on(Event::Refused { code, sent: sent.clone(), found: RequestId(0) });
        assert!(rig.taken().is_empty(), "{code}: of an epoch or a coordinator of before");
        rig.on(Event::Refused { code, sent, found });
        let ends = then == Then::End && code == code::FENCED_INSTANCE_ID;
        assert_eq!(rig.done.iter().any(|a| matches!(a, Action::End(_))), ends, "{code}");
        let lost = rig.done.iter().any(|a| matches!(a, Action::Drop { .. }));
        assert_eq!(lost, then == Then::Lost || ends, "{code}");
        assert_eq!(rig.member.coordinator.found().is_none(), then == Then::LookUp, "{code}");
        if code == code::STALE_MEMBER_EPOCH {
            let before = rig.now;
            let (_, request) = rig.request();
            assert!(request.all.is_some() && rig.now == before, "the next answer has the epoch");
        }
    }
}

#[test]
fn an_answer_that_is_lost_costs_no_partition() {
    for lost in [Outcome::Cut, Outcome::NotSent, Outcome::TimedOut] {
        let mut rig = Rig::stable(settings(), &[('t', 0)]);
        let to = rig.beat();
        rig.on(Event::Answer { to, outcome: lost });
        assert_eq!(rig.member.commits(), Commits::Wait);
        rig.find();
        let found_at = rig.now;
        let (to, request) = rig.request();
        assert!(rig.now - found_at <= H / 2);
        // The epoch before is taken only from who names what he owns.
        assert!(request.all.is_some() && request.epoch == 1);
        assert_eq!(request.owned, Some(places(&[('t', 0)])));
        rig.answer(to, 2, Some(&[('t', 0)]));
        assert!(rig.hands_out());
        rig.beat();
    }
}

#[test]
fn an_acknowledgement_that_is_lost_is_repeated() {
    let mut rig = Rig::stable(settings(), &[('t', 0)]);
    let to = rig.beat();
    rig.answer(to, 2, Some(&[('t', 0), ('t', 1)]));
    let (to, request) = rig.request();
    assert_eq!(request.owned.map(|owned| owned.len()), Some(2));
    // Something goes on meanwhile that has to be told as well.
    rig.on(Event::Answer { to, outcome: Outcome::Cut });
    rig.find();
    let (_, request) = rig.request();
    assert_eq!(request.owned.map(|owned| owned.len()), Some(2));
}

#[test]
fn a_join_whose_answer_is_lost_is_repeated_under_the_same_id() {
    let mut rig = Rig::new(settings());
    rig.on(Event::Asks);
    rig.find();
    let (to, first) = rig.request();
    rig.on(Event::Answer { to, outcome: Outcome::Cut });
    rig.find();
    let (to, again) = rig.request();
    assert_eq!(first, again);
    rig.answer(to, 1, Some(&[]));
    assert!(matches!(rig.member.state, State::Member));
}

#[test]
fn who_is_refused_as_new_leaves_and_joins() {
    let mut rig = Rig::stable(settings(), &[('t', 0)]);
    let to = rig.beat();
    rig.refuse(to, code::FENCED_MEMBER_EPOCH);
    let (to, request) = rig.request();
    assert_eq!(request.epoch, 0);
    // Up to 4.1.2 (KAFKA-19233).
    rig.refuse(to, code::FENCED_MEMBER_EPOCH);
    let (to, request) = rig.request();
    assert_eq!((request.epoch, request.all, request.owned), (-1, None, None));
    // Lost: again, for it matters.
    rig.on(Event::Answer { to, outcome: Outcome::Cut });
    rig.find();
    let (to, request) = rig.request();
    assert_eq!(request.epoch, -1);
    rig.refuse(to, code::UNKNOWN_MEMBER_ID);
    let (to, request) = rig.request();
    assert_eq!(request.epoch, 0);
    rig.answer(to, 9, Some(&[('t', 0)]));
    rig.name(&['t']);
    assert_eq!(rig.owned(), [("t".to_owned(), 0)]);
}

#[test]
fn a_broker_without_the_protocol_is_spoken_to_in_the_classic_one_if_it_never_knew_it() {
    for code in [code::GROUP_ID_NOT_FOUND, code::UNSUPPORTED_VERSION] {
        let mut rig = Rig::new(settings());
        rig.on(Event::Asks);
        rig.find();
        let (to, _) = rig.request();
        rig.refuse(to, code);
        assert_eq!(rig.taken(), [Action::UseClassic]);
        assert!(rig.member.next_wake().is_none());
    }
    // A group that is gone is made again.
    let mut rig = Rig::stable(settings(), &[('t', 0)]);
    let to = rig.beat();
    rig.refuse(to, code::GROUP_ID_NOT_FOUND);
    let start = rig.now;
    for _ in 0..20 {
        let (to, request) = rig.request();
        assert_eq!(request.epoch, 0);
        rig.refuse(to, code::GROUP_ID_NOT_FOUND);
    }
    assert!(rig.now - start > Duration::from_secs(10), "not without a pause");
}

#[test]
fn an_instance_id_that_somebody_holds_is_waited_for_and_told_after_a_session() {
    let mut rig = Rig::new(fixed());
    rig.on(Event::Asks);
    rig.find();
    let start = rig.now;
    let mut told = Vec::new();
    while rig.now - start < Duration::from_secs(300) {
        let (to, request) = rig.request();
        assert_eq!(request.epoch, 0, "nobody is driven out");
        rig.refuse(to, code::UNRELEASED_INSTANCE_ID);
        let tells = rig.taken().iter().any(|action| matches!(action, Action::Tell(_)));
        told.extend(tells.then(|| rig.now - start));
    }
    assert!(told[0] >= Duration::from_secs(60) && told[0] < Duration::from_secs(66), "{told:?}");
    assert!((4..=5).contains(&told.len()), "each minute: {told:?}");
    let (to, _) = rig.request();
    rig.answer(to, 3, Some(&[]));
    assert!(matches!(rig.member.state, State::Member));
}

#[test]
fn an_instance_id_that_may_be_held_by_ourselves_is_released() {
    // A join whose answer was lost, and an epoch that was refused.
    for fenced in [true, false] {
        for ours in [true, false] {
            let mut rig = if fenced {
                let mut rig = Rig::stable(fixed(), &[('t', 0)]);
                let to = rig.beat();
                rig.refuse(to, code::FENCED_MEMBER_EPOCH);
                rig
            } else {
                let mut rig = Rig::new(fixed());
                rig.on(Event::Asks);
                rig.find();
                let (to, _) = rig.request();
                rig.on(Event::Answer { to, outcome: Outcome::TimedOut });
                rig.find();
                rig
            };
            let (to, request) = rig.request();
            assert_eq!(request.epoch, 0);
            rig.refuse(to, code::UNRELEASED_INSTANCE_ID);
            let (to, request) = rig.request();
            assert_eq!(request.epoch, -2);
            if ours {
                rig.answer(to, -2, None);
            } else {
                rig.refuse(to, code::FENCED_INSTANCE_ID);
                // Somebody else's: waited for like any other.
                let (to, request) = rig.request();
                assert_eq!(request.epoch, 0);
                rig.refuse(to, code::UNRELEASED_INSTANCE_ID);
            }
            let (_, request) = rig.request();
            assert_eq!(request.epoch, 0);
        }
    }
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
            let (to, _) = rig.request();
            rig.refuse(to, code);
            tries += 1;
            let tells = |action: &&Action<Request>| matches!(action, Action::Tell(_));
            told += rig.taken().iter().filter(tells).count();
        }
        assert!((50..=61).contains(&told), "{told} in an hour");
        assert!((120..=480).contains(&tries), "{tries} in an hour");
    }
}

#[test]
fn what_comes_too_late_is_no_news() {
    let mut rig = Rig::stable(settings(), &[('t', 0)]);
    let to = rig.beat();
    rig.on(Event::Answer { to, outcome: Outcome::Cut });
    rig.taken();
    rig.answer(to, 7, Some(&[]));
    rig.refuse(to, code::FENCED_INSTANCE_ID);
    assert!(rig.taken().is_empty() && rig.owned().len() == 1);
}
