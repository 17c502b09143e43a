//! The ends of a membership: the application does not come back, or closes.

use super::*;

/// Answers heartbeats for so long.
fn live(rig: &mut Rig, time: Duration) {
    let end = rig.now + time;
    while rig.member.next_wake().is_some_and(|wake| wake <= end) {
        rig.tick();
        if let Some(Action::Send { id, request, .. }) = rig.done.last().cloned()
            && request.epoch > 0
        {
            rig.done.pop();
            rig.answer(id, request.epoch, None);
        }
    }
    rig.now = end;
}

#[test]
fn who_does_not_ask_within_the_max_poll_interval_leaves_and_the_next_ask_joins() {
    for (settings, epoch) in [(settings(), -1), (fixed(), -2)] {
        let mut rig = Rig::stable(settings, &[('t', 0)]);
        live(&mut rig, R * 2);
        assert!(rig.taken().is_empty(), "waiting for us is no absence");
        rig.on(Event::Away { since: rig.now });
        live(&mut rig, R - Duration::from_millis(1));
        assert!(rig.taken().is_empty());
        rig.pass(Duration::from_millis(1));
        assert_eq!(rig.done[0], Action::Drop { parts: parts(&[('t', 0)]), why: Why::Lost });
        let (to, request) = rig.request();
        assert_eq!(request.epoch, epoch);
        assert_eq!(rig.member.commits(), Commits::Never);
        rig.answer(to, epoch, None);
        assert!(rig.member.next_wake().is_none(), "nothing more until it asks");
        rig.on(Event::Asks);
        let (_, request) = rig.request();
        assert_eq!(request.epoch, 0);
    }
}

#[test]
fn who_asks_again_while_it_leaves_joins_behind_it() {
    let mut rig = Rig::stable(settings(), &[('t', 0)]);
    rig.on(Event::Away { since: rig.now });
    live(&mut rig, R);
    let (to, request) = rig.request();
    assert_eq!(request.epoch, -1);
    rig.on(Event::Asks);
    assert!(!rig.done.iter().any(|action| matches!(action, Action::Send { .. })));
    rig.answer(to, -1, None);
    let (_, request) = rig.request();
    assert_eq!(request.epoch, 0);
}

fn close(rig: &mut Rig, within: Duration, leave: bool) -> Instant {
    let deadline = rig.now + within;
    rig.on(Event::Close { deadline, leave });
    deadline
}

const TEN: Duration = Duration::from_secs(10);

#[test]
fn a_close_finishes_commits_and_leaves() {
    for (settings, leave, epoch) in
        [(settings(), false, -1), (settings(), true, -1), (fixed(), false, -2), (fixed(), true, -1)]
    {
        let mut rig = Rig::stable(settings, &[('t', 0)]);
        let deadline = close(&mut rig, TEN, leave);
        let (round, given, until) = rig.given_up();
        assert_eq!((given, until), (parts(&[('t', 0)]), deadline - Duration::from_secs(2)));
        assert!(rig.member.lease().is_none() && matches!(rig.member.commits(), Commits::As(_)));
        // What is assigned meanwhile is not taken.
        let to = rig.beat();
        rig.answer(to, 2, Some(&[('u', 1)]));
        assert!(rig.taken().is_empty());
        rig.on(Event::GaveUp { round });
        assert_eq!(rig.done[0], Action::Drop { parts: parts(&[('t', 0)]), why: Why::GivenUp });
        let (to, request) = rig.request();
        assert_eq!(request.epoch, epoch);
        rig.answer(to, epoch, None);
        assert_eq!(rig.taken().last(), Some(&Action::Closed));
        rig.on(Event::Asks);
        rig.on(Event::Tick);
        assert!(rig.taken().is_empty() && rig.member.next_wake().is_none());
    }
}

#[test]
fn a_close_ends_by_its_deadline_in_any_state() {
    for state in 0..9 {
        for answers in [true, false] {
            let mut rig = Rig::new(settings());
            if state >= 1 {
                rig.on(Event::Asks);
            }
            if state >= 2 {
                rig.find();
                rig.request();
            }
            if state >= 3 {
                rig = Rig::stable(settings(), &[('t', 0)]);
            }
            if state >= 4 {
                let to = rig.beat();
                if state >= 5 {
                    rig.answer(to, 2, Some(&[]));
                }
            }
            if state == 6 {
                let found = rig.member.coordinator.found().unwrap();
                rig.on(Event::CoordinatorLost { found });
            }
            if state >= 7 {
                rig.taken();
                rig.on(Event::Away { since: rig.now });
                live(&mut rig, R);
                if state == 8 {
                    rig.on(Event::Asks);
                }
            }
            let leaves = rig.done.iter().rev().find_map(|action| match action {
                Action::Send { id, request, .. } if request.epoch == -1 => Some(*id),
                _ => None,
            });
            rig.taken();
            let deadline = close(&mut rig, TEN, false);
            if answers {
                if let Some(giving) = &rig.member.giving {
                    let round = giving.round;
                    rig.on(Event::GaveUp { round });
                }
                if state == 6 {
                    rig.find();
                }
                let sent = rig.done.iter().find_map(|action| match action {
                    Action::Send { id, request, .. } if request.epoch == -1 => Some(*id),
                    _ => None,
                });
                if let Some(to) = sent.or(leaves) {
                    rig.answer(to, -1, None);
                }
                assert!(rig.now < deadline);
            } else {
                rig.pass(TEN);
            }
            let closed = rig.done.iter().filter(|action| **action == Action::Closed).count();
            assert_eq!(closed, 1, "{state} {answers}: {:?}", rig.done);
            assert!(matches!(rig.done.last(), Some(Action::Closed)) && rig.owned().is_empty());
            assert!(rig.member.next_wake().is_none());
        }
    }
}
