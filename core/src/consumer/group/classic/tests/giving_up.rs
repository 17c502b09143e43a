//! What has to be given up, when, and what becomes of it.

use super::*;

fn given_up(actions: &[Action<Request>]) -> (Round, Vec<Part>, Instant) {
    let found = actions.iter().find_map(|action| match action {
        Action::GiveUp { round, parts, deadline } => Some((*round, parts.clone(), *deadline)),
        _ => None,
    });
    found.expect("something is given up")
}

#[test]
fn an_eager_member_gives_all_up_before_it_joins() {
    let mut rig = Rig::stable(Settings { eager: true, ..settings() }, &[0, 1]);
    rig.beaten(code::REBALANCE_IN_PROGRESS);
    let done = rig.taken();
    let (round, given, deadline) = given_up(&done);
    assert_eq!(given, parts(&[0, 1]));
    assert_eq!(deadline, rig.now + R - H - Duration::from_secs(5));
    assert!(!done.iter().any(is_join));
    // It is alive meanwhile, and commits.
    for _ in 0..30 {
        rig.beaten(code::REBALANCE_IN_PROGRESS);
        assert!(rig.taken().is_empty() && rig.hands_out());
        assert!(matches!(rig.member.commits(), Commits::As(_)));
    }
    rig.on(Event::GaveUp { round: Round(999) });
    assert!(rig.taken().is_empty());
    rig.on(Event::GaveUp { round });
    assert_eq!(rig.done[0], Action::Drop { parts: parts(&[0, 1]), why: Why::GivenUp });
    let (_, request) = rig.join();
    assert!(matches!(request, Request::Join { ref owned, .. } if owned.is_empty()));
    assert!(rig.owned().is_empty() && !rig.hands_out());
}

#[test]
fn a_cooperative_member_gives_up_what_it_lost_after_it_joined_and_joins_again() {
    let mut rig = Rig::stable(settings(), &[0, 1]);
    rig.beaten(code::REBALANCE_IN_PROGRESS);
    let (id, _) = rig.join();
    assert!(rig.taken().is_empty(), "nothing is given up before");
    rig.joined(id, 2, false);
    rig.sync(&[1, 2]);
    let done = rig.taken();
    assert_eq!(done[0], Action::Take { parts: parts(&[2]) }, "what is gained is read at once");
    let (round, given, _) = given_up(&done);
    assert_eq!(given, parts(&[0]));
    assert_eq!(rig.owned(), [0, 1, 2]);
    assert!(matches!(rig.member.commits(), Commits::As(Identity { generation: 2, .. })));
    // The others are told to rebalance by nobody: we have to join.
    rig.beaten(code::NONE);
    assert!(rig.taken().is_empty());
    rig.on(Event::GaveUp { round });
    assert_eq!(rig.done[0], Action::Drop { parts: parts(&[0]), why: Why::GivenUp });
    assert!(rig.done.iter().any(is_join), "at once");
    let (_, request) = rig.join();
    let Request::Join { owned, owned_generation, .. } = request else { unreachable!() };
    assert_eq!((owned, owned_generation), (parts(&[1, 2]), 2));
}

#[test]
fn a_deadline_ends_the_wait_for_what_is_in_hand() {
    for eager in [true, false] {
        let mut rig = Rig::stable(Settings { eager, ..settings() }, &[0]);
        rig.beaten(code::REBALANCE_IN_PROGRESS);
        if !eager {
            let (id, _) = rig.join();
            rig.joined(id, 2, false);
            rig.sync(&[]);
        }
        let (round, _, deadline) = given_up(&rig.taken());
        while rig.member.giving.is_some() {
            rig.now = rig.member.next_wake().unwrap();
            rig.on(Event::Tick);
            if let Some(id) = rig.done.iter().find_map(beat_of) {
                rig.done.clear();
                rig.answer(id, Answer::Code(code::REBALANCE_IN_PROGRESS));
            }
        }
        assert!(rig.now <= deadline && rig.owned().is_empty());
        let (_, request) = rig.join();
        assert!(matches!(request, Request::Join { ref owned, .. } if owned.is_empty()));
        // Too late to be of use.
        rig.taken();
        rig.on(Event::GaveUp { round });
        assert!(rig.taken().is_empty());
    }
}

fn beat_of(action: &Action<Request>) -> Option<RequestId> {
    match action {
        Action::Send { id, request: Request::Heartbeat { .. }, .. } => Some(*id),
        _ => None,
    }
}

#[test]
fn giving_up_ends_before_the_others_have_waited_for_the_rebalance_timeout() {
    let h = Duration::from_secs(3);
    for (r, within) in [(300, 292_000), (30, 22_000), (16, 8_000), (10, 5_000), (6, 3_000)] {
        let settings = Settings { max_poll_interval: Duration::from_secs(r), ..settings() };
        assert_eq!(settings.give_up_within(h), Duration::from_millis(within));
    }
}

#[test]
fn a_topic_that_is_not_subscribed_any_more_is_given_up_before_the_join() {
    let mut rig = Rig::stable(settings(), &[0, 1]);
    rig.on(Event::Subscribed(topics(&["t"])));
    assert!(rig.taken().is_empty(), "the same");
    rig.on(Event::Subscribed(topics(&["u"])));
    let (round, given, _) = given_up(&rig.taken());
    assert_eq!(given, parts(&[0, 1]));
    rig.on(Event::GaveUp { round });
    let (id, request) = rig.join();
    let Request::Join { owned, topics, .. } = request else { unreachable!() };
    assert_eq!((owned, topics), (vec![], vec![Arc::from("u")]));
    rig.joined(id, 2, false);
    rig.sync(&[0]);
    assert!(rig.owned().is_empty(), "a plan by the old subscription");
}

#[test]
fn a_subscription_that_changes_during_a_join_is_told_with_the_next() {
    let mut rig = Rig::stable(settings(), &[0]);
    rig.beaten(code::REBALANCE_IN_PROGRESS);
    let (id, _) = rig.join();
    rig.on(Event::Subscribed(topics(&["t", "u"])));
    assert!(rig.taken().is_empty());
    rig.joined(id, 2, false);
    rig.sync(&[0]);
    let (_, request) = rig.join();
    assert!(matches!(request, Request::Join { ref topics, .. } if topics.len() == 2));
}

#[test]
fn what_is_lost_is_not_given_up_any_more() {
    let mut rig = Rig::stable(Settings { eager: true, ..settings() }, &[0]);
    rig.beaten(code::REBALANCE_IN_PROGRESS);
    let (round, ..) = given_up(&rig.taken());
    rig.beaten(code::UNKNOWN_MEMBER_ID);
    assert_eq!(rig.done[0], Action::Drop { parts: parts(&[0]), why: Why::Lost });
    assert_eq!(rig.member.commits(), Commits::Never);
    rig.taken();
    rig.on(Event::GaveUp { round });
    assert!(rig.taken().is_empty());
    let (_, request) = rig.join();
    assert!(matches!(request, Request::Join { ref member_id, .. } if member_id.is_empty()));
}
