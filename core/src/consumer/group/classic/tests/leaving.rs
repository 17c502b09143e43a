//! The ends of a membership: the application does not come back, or closes.

use super::*;

fn fixed() -> Settings {
    Settings { instance_id: Some(Arc::from("i")), ..settings() }
}

/// Answers heartbeats for so long.
fn live(rig: &mut Rig, time: Duration) {
    let end = rig.now + time;
    while let Some(wake) = rig.member.next_wake().filter(|wake| *wake <= end) {
        rig.now = wake;
        rig.on(Event::Tick);
        let beats: Vec<RequestId> = (rig.done.iter())
            .filter_map(|action| match action {
                Action::Send { id, request: Request::Heartbeat { .. }, .. } => Some(*id),
                _ => None,
            })
            .collect();
        rig.done.retain(|action| {
            !matches!(action, Action::Send { request: Request::Heartbeat { .. }, .. })
        });
        for id in beats {
            rig.answer(id, Answer::Code(code::NONE));
        }
    }
    rig.now = end;
}

#[test]
fn who_does_not_ask_within_the_max_poll_interval_leaves_and_the_next_ask_joins() {
    let mut rig = Rig::stable(settings(), &[0]);
    // Waiting for us is no absence.
    live(&mut rig, R * 3);
    assert!(rig.taken().is_empty());
    rig.on(Event::Away { since: rig.now });
    live(&mut rig, R / 2);
    // Being given more does not start the clock anew: it has not asked.
    rig.on(Event::Away { since: rig.now });
    live(&mut rig, R / 2 - Duration::from_millis(1));
    assert!(rig.taken().is_empty());
    rig.pass(Duration::from_millis(1));
    let done = rig.taken();
    assert_eq!(done[0], Action::Drop { parts: parts(&[0]), why: Why::Lost });
    let Action::Send { id, lane: Lane::Control, request: Request::Leave { member_id }, .. } =
        &done[1]
    else {
        panic!("{done:?}")
    };
    assert_eq!(&**member_id, "m");
    assert_eq!(rig.member.commits(), Commits::Never);
    rig.answer(*id, Answer::Code(code::NONE));
    assert!(rig.member.next_wake().is_none(), "nothing more until it asks");
    rig.on(Event::Asks);
    let (_, request) = rig.join();
    assert!(matches!(request, Request::Join { ref member_id, .. } if member_id.is_empty()));
}

#[test]
fn who_asks_again_while_it_leaves_joins() {
    let mut rig = Rig::stable(settings(), &[0]);
    rig.on(Event::Away { since: rig.now });
    live(&mut rig, R);
    let done = rig.taken();
    let Action::Send { id, .. } = done[1] else { panic!("{done:?}") };
    rig.on(Event::Asks);
    let (join, _) = rig.join();
    rig.answer(id, Answer::Code(code::NONE));
    rig.joined(join, 4, false);
    rig.sync(&[1]);
    assert_eq!(rig.owned(), [1]);
}

#[test]
fn a_static_member_that_does_not_ask_stops_telling_that_it_is_there() {
    let mut rig = Rig::stable(fixed(), &[0]);
    rig.on(Event::Away { since: rig.now });
    live(&mut rig, R);
    assert_eq!(rig.taken(), [Action::Drop { parts: parts(&[0]), why: Why::Lost }]);
    assert!(rig.member.next_wake().is_none());
    rig.on(Event::Asks);
    let (_, request) = rig.join();
    assert!(matches!(request, Request::Join { ref member_id, .. } if &**member_id == "m"));
}

#[test]
fn a_join_that_is_parked_when_the_time_is_up_is_abandoned() {
    let mut rig = Rig::stable(settings(), &[0]);
    rig.on(Event::Away { since: rig.now });
    rig.beaten(code::REBALANCE_IN_PROGRESS);
    let (join, _) = rig.join();
    for _ in 0..200 {
        if !matches!(rig.member.state, State::Joining { .. }) {
            break;
        }
        rig.now = rig.member.next_wake().unwrap();
        rig.on(Event::Tick);
        if rig
            .done
            .iter()
            .any(|a| matches!(a, Action::Send { request: Request::Heartbeat { .. }, .. }))
        {
            rig.beaten(code::REBALANCE_IN_PROGRESS);
        }
    }
    assert_eq!(rig.done[0], Action::Abandon { id: join });
    rig.joined(join, 2, false);
    assert!(rig.owned().is_empty());
}

fn close(rig: &mut Rig, within: Duration, leave: bool) -> Instant {
    let deadline = rig.now + within;
    rig.on(Event::Close { deadline, leave });
    deadline
}

fn round_of(rig: &Rig) -> Round {
    rig.member.giving.as_ref().expect("something is given up").round
}

const TEN: Duration = Duration::from_secs(10);

#[test]
fn a_close_finishes_commits_and_leaves() {
    let mut rig = Rig::stable(settings(), &[0, 1]);
    let deadline = close(&mut rig, TEN, false);
    let round = round_of(&rig);
    let until = deadline - Duration::from_secs(2);
    assert_eq!(rig.taken(), [Action::GiveUp { round, parts: parts(&[0, 1]), deadline: until }]);
    assert!(rig.member.lease().is_none(), "nothing more is handed out");
    assert!(matches!(rig.member.commits(), Commits::As(_)));
    // A second one changes nothing, nor does what the group does.
    close(&mut rig, TEN * 2, true);
    rig.beaten(code::REBALANCE_IN_PROGRESS);
    assert!(rig.taken().is_empty());
    rig.on(Event::GaveUp { round });
    let (id, request) = rig.request();
    assert_eq!(request, Request::Leave { member_id: Arc::from("m") });
    assert_eq!(rig.taken(), [Action::Drop { parts: parts(&[0, 1]), why: Why::GivenUp }]);
    rig.answer(id, Answer::Code(code::NONE));
    assert_eq!(rig.taken(), [Action::Closed]);
    for event in [Event::Tick, Event::Asks, Event::Close { deadline, leave: true }] {
        rig.on(event);
    }
    assert!(rig.taken().is_empty() && rig.member.next_wake().is_none());
}

#[test]
fn a_static_member_leaves_only_if_it_is_told_to() {
    for leave in [false, true] {
        let mut rig = Rig::stable(fixed(), &[0]);
        close(&mut rig, TEN, leave);
        let round = round_of(&rig);
        rig.taken();
        rig.on(Event::GaveUp { round });
        let done = rig.taken();
        let leaves = done
            .iter()
            .any(|action| matches!(action, Action::Send { request: Request::Leave { .. }, .. }));
        assert_eq!(leaves, leave);
        assert_eq!(done.contains(&Action::Closed), !leave);
    }
}

/// In every state: whatever is answered, or nothing is.
#[test]
fn a_close_ends_by_its_deadline_in_any_state() {
    for state in 0..12 {
        for answers in [false, true] {
            let mut rig = Rig::new(settings());
            let mut open = None;
            let mut owns = false;
            if state >= 1 {
                rig.on(Event::Asks);
            }
            if state >= 2 {
                rig.find();
                open = Some(rig.join().0);
            }
            if state >= 3 {
                rig.answer(open.unwrap(), join_refused(code::MEMBER_ID_REQUIRED));
                open = Some(rig.join().0);
            }
            if (4..6).contains(&state) {
                rig.joined(open.unwrap(), 1, state == 5);
                open = None;
            }
            if state >= 6 {
                rig = Rig::stable(settings(), &[0]);
                owns = true;
                if state >= 7 {
                    rig.beaten(code::REBALANCE_IN_PROGRESS);
                    open = Some(rig.join().0);
                }
                if state >= 8 {
                    rig.joined(open.unwrap(), 2, state == 9);
                }
                if state >= 10 {
                    rig.sync(&[]);
                    assert!(rig.member.giving.is_some());
                }
                if state == 11 {
                    let found = rig.member.coordinator.found().unwrap();
                    rig.on(Event::CoordinatorLost { found });
                }
            }
            rig.taken();
            let deadline = close(&mut rig, TEN, false);
            if answers {
                // The application finishes at once, the coordinator serves.
                if let Some(giving) = &rig.member.giving {
                    let round = giving.round;
                    rig.on(Event::GaveUp { round });
                }
                if state == 11 {
                    rig.find();
                }
                let done = rig.done.clone();
                for action in done {
                    if let Action::Send { id, request: Request::Leave { .. }, .. } = action {
                        rig.answer(id, Answer::Code(code::NONE));
                    }
                }
                assert!(rig.now < deadline, "{state}");
            } else {
                rig.pass(TEN);
            }
            let closed = rig.done.iter().filter(|action| **action == Action::Closed).count();
            assert_eq!(closed, 1, "{state} {answers}: {:?}", rig.done);
            assert!(matches!(rig.done.last(), Some(Action::Closed)));
            assert!(rig.owned().is_empty() && (!owns || !rig.hands_out()));
            // A parked request would keep LeaveGroup waiting.
            let abandons = rig.done.iter().any(|action| matches!(action, Action::Abandon { .. }));
            assert_eq!(abandons, matches!(state, 2 | 3 | 4 | 7 | 8), "{state}");
        }
    }
}

#[test]
fn a_member_that_closes_while_it_syncs_takes_nothing_and_commits_when_it_may() {
    let mut rig = Rig::stable(settings(), &[0]);
    rig.beaten(code::REBALANCE_IN_PROGRESS);
    let (id, _) = rig.join();
    rig.joined(id, 2, false);
    close(&mut rig, TEN, false);
    assert_eq!(rig.member.commits(), Commits::Wait);
    rig.sync(&[0, 5]);
    assert!(matches!(rig.member.commits(), Commits::As(Identity { generation: 2, .. })));
    assert_eq!(rig.owned(), [0]);
    assert!(!rig.done.iter().any(|action| matches!(action, Action::Take { .. })));
}

#[test]
fn a_leave_that_is_lost_is_tried_again_until_the_deadline() {
    let mut rig = Rig::stable(settings(), &[0]);
    let deadline = close(&mut rig, TEN, false);
    let round = round_of(&rig);
    rig.on(Event::GaveUp { round });
    let (id, _) = rig.request();
    rig.lose(id);
    rig.find();
    let (id, request) = rig.request();
    assert!(matches!(request, Request::Leave { .. }) && rig.now < deadline);
    rig.answer(id, Answer::Code(code::COORDINATOR_LOAD_IN_PROGRESS));
    let (id, _) = rig.request();
    rig.answer(id, Answer::Code(code::UNKNOWN_MEMBER_ID));
    assert_eq!(rig.done.last(), Some(&Action::Closed));
}
