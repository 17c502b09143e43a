mod incarnations;

use std::collections::BTreeSet;

use super::*;
use crate::config::UNKNOWN_TOPIC_SPACING;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

fn response(code: i16, leaders: &[(i32, i32)]) -> MetadataResponse {
    let partitions = leaders
        .iter()
        .enumerate()
        .map(|(i, (leader, epoch))| {
            MetadataResponsePartition::default()
                .with_partition_index(i as i32)
                .with_leader_id(BrokerId(*leader))
                .with_leader_epoch(*epoch)
        })
        .collect();
    MetadataResponse::default().with_brokers((1..=3).map(broker).collect()).with_topics(vec![
        MetadataResponseTopic::default()
            .with_error_code(code)
            .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
            .with_partitions(partitions),
    ])
}

fn broker(id: i32) -> MetadataResponseBroker {
    MetadataResponseBroker::default()
        .with_node_id(BrokerId(id))
        .with_host(StrBytes::from_static_str("h"))
        .with_port(9092)
}

/// Merges; tells whether anything was news, and who is named by a newer epoch.
fn merge(m: &Metadata, response: &MetadataResponse, from: i32, all: bool) -> (bool, Vec<i32>) {
    let mut names = Vec::new();
    let merged = m.merge(response, from, all, |_, named| names.extend(named));
    (merged.changed, names)
}

fn leaders(m: &Metadata) -> Vec<(i32, i32)> {
    match m.lookup("t") {
        Lookup::Known(t) => t.partitions.iter().map(|p| (p.leader, p.epoch)).collect(),
        _ => vec![],
    }
}

fn metadata() -> Metadata {
    let handle = tokio::runtime::Handle::current();
    Metadata::new(&Environment::builder().runtime(handle).seed(1).build())
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

#[tokio::test(start_paused = true)]
async fn the_newer_epoch_wins_whatever_comes_last() {
    let m = metadata();
    assert!(matches!(m.lookup("t"), Lookup::Pending));
    let all_new = merge(&m, &response(0, &[(1, 5), (2, 5)]), 1, false);
    assert_eq!(all_new, (true, vec![]), "nobody is named anew");
    assert_eq!(merge(&m, &response(0, &[(3, 6), (1, 4)]), 2, false), (true, vec![3]));
    assert_eq!(leaders(&m), [(3, 6), (2, 5)]);
    let hint = |leader, epoch| LeaderHint { partition: 0, leader, epoch };
    let stale = |_: &Brokers, _: &BTreeSet<i32>| unreachable!("it is no news");
    assert!(m.hint("t", Uuid::nil(), &[hint(9, 6)], &[], stale).is_empty());
    assert_eq!(m.hint("t", Uuid::nil(), &[hint(2, 7)], &[], |_, _| {}), BTreeSet::from([2]));
    assert_eq!(leaders(&m), [(2, 7), (2, 5)]);
    assert_eq!(merge(&m, &response(0, &[(2, 7), (2, 5)]), 1, false), (false, vec![]));
}

/// Else who learns of a topic at once dials a leader that is no broker of the cluster yet.
#[tokio::test(start_paused = true)]
async fn brokers_are_told_before_topics_can_be_read() {
    let m = metadata();
    m.lookup("t");
    let mut told = 0;
    let mut hidden = |brokers: &Brokers| {
        told += 1;
        assert_eq!(brokers.len(), 3);
        assert!(m.state.try_read().is_err(), "nobody reads meanwhile");
    };
    m.merge(&response(0, &[(1, 5)]), 1, false, |brokers, _| hidden(brokers));
    let hint = LeaderHint { partition: 0, leader: 2, epoch: 6 };
    m.hint("t", Uuid::nil(), &[hint], &[], |brokers, _| hidden(brokers));
    assert_eq!((told, leaders(&m)), (2, vec![(2, 6)]));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_cut_off_changes_nothing() {
    let m = metadata();
    m.lookup("t");
    merge(&m, &response(0, &[(1, 5), (2, 5)]), 1, false);
    let mut old = response(0, &[(9, 4), (2, 5)]);
    old.brokers.truncate(1);
    assert_eq!(merge(&m, &old, 9, false), (false, vec![]));
    assert_eq!(m.read().brokers.len(), 3);
    assert_eq!(leaders(&m), [(1, 5), (2, 5)]);
}

#[tokio::test(start_paused = true)]
async fn one_broker_that_does_not_know_a_topic_proves_nothing() {
    let m = metadata();
    m.lookup("t");
    merge(&m, &response(3, &[]), 1, false);
    pass(UNKNOWN_TOPIC_SPACING).await;
    merge(&m, &response(3, &[]), 1, false);
    assert!(matches!(m.lookup("t"), Lookup::Pending));
    merge(&m, &response(3, &[]), 2, false);
    assert!(matches!(m.lookup("t"), Lookup::Failed(e) if e.kind() == ErrorKind::UnknownTopic));
    m.created("t");
    assert!(matches!(m.lookup("t"), Lookup::Pending));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_fails_its_topic_with_the_kind_and_is_remembered_for_a_while() {
    let m = metadata();
    m.lookup("t");
    m.asked(&m.question().expect("a new topic"));
    merge(&m, &response(29, &[]), 1, false);
    assert!(matches!(m.lookup("t"), Lookup::Failed(e) if e.kind() == ErrorKind::Authorization));
    assert!(m.question().is_none());
    pass(FAILURE_REMEMBERED).await;
    assert!(matches!(m.lookup("t"), Lookup::Pending));
    assert!(m.question().is_some());
}

#[tokio::test(start_paused = true)]
async fn only_topics_in_use_are_asked_for() {
    let m = metadata();
    m.lookup("t");
    let question = m.question().expect("a new topic asks at once");
    assert_eq!((question.topics.len(), question.all, question.new), (1, false, true));
    m.asked(&question);
    merge(&m, &response(0, &[(1, 5)]), 1, false);
    assert!(m.question().is_none());
    pass(Duration::from_secs(360)).await;
    let question = m.question().expect("the period has passed");
    assert_eq!((question.topics.len(), question.all, question.new), (1, true, false));
    m.asked(&question);
    merge(&m, &response(0, &[(1, 5)]), 1, true);
    pass(UNUSED_AFTER).await;
    assert!(m.question().expect("another period").topics.is_empty());
}

#[tokio::test(start_paused = true)]
async fn many_wishes_are_one_question() {
    let m = metadata();
    m.lookup("t");
    m.asked(&m.question().expect("new"));
    merge(&m, &response(0, &[(1, 5), (2, 5)]), 1, false);
    for _ in 0..1_000 {
        m.want("t", RefreshReason::Stale);
    }
    assert!(m.question().is_none(), "what is known is too young");
    pass(Duration::from_millis(500)).await;
    let question = m.question().expect("due");
    m.asked(&question);
    assert!(m.question().is_none());
    m.not_answered(&question, &Error::new(ErrorKind::Disconnected, "gone"));
    pass(Duration::from_millis(250)).await;
    assert_eq!(m.question().expect("wanted still").topics.len(), 1);
}

/// The response was made before the wish, and may be what the wish is about.
#[tokio::test(start_paused = true)]
async fn a_wish_survives_the_response_that_was_on_its_way() {
    let m = metadata();
    m.lookup("t");
    m.asked(&m.question().expect("a new topic"));
    merge(&m, &response(0, &[(1, 5)]), 1, false);
    pass(Duration::from_secs(1)).await;
    m.want("t", RefreshReason::Lost);
    pass(Duration::from_millis(250)).await;
    m.asked(&m.question().expect("a broker was lost"));
    m.want("t", RefreshReason::Stale);
    merge(&m, &response(0, &[(1, 5)]), 2, false);
    pass(Duration::from_secs(1)).await;
    assert_eq!(m.question().expect("wished for since").topics.len(), 1);
    // A new one that is waited for is asked for once.
    m.lookup("u");
    m.asked(&m.question().expect("a new topic"));
    assert!(matches!(m.lookup("u"), Lookup::Pending));
    assert!(m.question().is_none(), "it is asked for already");
}

/// What the response leaves out was asked for, and is wanted still.
#[tokio::test(start_paused = true)]
async fn a_topic_that_the_response_leaves_out_is_asked_for_again() {
    let m = metadata();
    m.lookup("t");
    m.asked(&m.question().expect("a new topic"));
    let mut empty = response(0, &[]);
    empty.topics.clear();
    merge(&m, &empty, 1, false);
    pass(Duration::from_secs(1)).await;
    assert_eq!(m.question().expect("not answered").topics.len(), 1);
}

/// One that was missing long ago, and is missing at one broker now, may be on its way to it.
#[tokio::test(start_paused = true)]
async fn a_topic_that_was_missing_once_is_not_missing_by_one_response_for_ever() {
    let m = metadata();
    m.lookup("t");
    merge(&m, &response(3, &[]), 1, false);
    pass(UNKNOWN_TOPIC_SPACING).await;
    merge(&m, &response(3, &[]), 2, false);
    assert!(matches!(m.lookup("t"), Lookup::Failed(_)));
    pass(FAILURE_REMEMBERED).await;
    assert!(matches!(m.lookup("t"), Lookup::Pending));
    merge(&m, &response(3, &[]), 1, false);
    assert!(matches!(m.lookup("t"), Lookup::Pending), "it may have been made meanwhile");
    // Nor by two of which the first was about another hour.
    pass(Duration::from_secs(3600)).await;
    merge(&m, &response(3, &[]), 1, false);
    assert!(matches!(m.lookup("t"), Lookup::Pending));
    pass(UNKNOWN_TOPIC_SPACING).await;
    merge(&m, &response(3, &[]), 3, false);
    assert!(matches!(m.lookup("t"), Lookup::Failed(_)));
}

#[tokio::test(start_paused = true)]
async fn brokers_with_ids_or_addresses_that_are_none_are_left_out() {
    let m = metadata();
    m.lookup("t");
    let mut odd = response(0, &[(1, 5), (-7, 5)]);
    odd.brokers.extend([broker(-1), broker(-2), broker(i32::MIN)]);
    odd.brokers.push(broker(7).with_port(0));
    odd.brokers.push(broker(8).with_port(-1));
    odd.brokers.push(broker(9).with_host(StrBytes::from_static_str("")));
    let mut known = Vec::new();
    m.merge(&odd, 1, false, |brokers, _| known.extend(brokers.keys().copied()));
    assert_eq!(known, [1, 2, 3]);
    assert_eq!(leaders(&m), [(1, 5), (-1, 5)], "nobody leads, whatever nobody is called");
    let hint = LeaderHint { partition: 0, leader: 2, epoch: 6 };
    let endpoint = Endpoint { host: "elsewhere".into(), port: 9092 };
    let endpoints = [(-1, endpoint.clone()), (2, endpoint)];
    let mut known = Vec::new();
    m.hint("t", Uuid::nil(), &[hint], &endpoints, |all, _| known.extend(all.keys().copied()));
    assert_eq!(known, [1, 2, 3]);
}

/// Partitions are never taken away from a topic: who names fewer is behind.
#[tokio::test(start_paused = true)]
async fn a_response_with_fewer_partitions_takes_none_away() {
    let m = metadata();
    m.lookup("t");
    merge(&m, &response(0, &[(1, 5), (2, 5), (3, 5)]), 1, false);
    assert_eq!(merge(&m, &response(0, &[(2, 6)]), 2, false), (true, vec![2]));
    assert_eq!(leaders(&m), [(2, 6), (2, 5), (3, 5)]);
}

/// A topic that has no partitions is being made: nobody could use it, and it is asked for again.
#[tokio::test(start_paused = true)]
async fn a_topic_without_partitions_is_asked_for_again() {
    let m = metadata();
    m.lookup("t");
    let question = m.question().unwrap();
    m.asked(&question);
    merge(&m, &response(0, &[]), 1, false);
    assert!(m.read().topics["t"].wanted, "whoever waits for it waits, and asks no more");
    assert!(matches!(m.lookup("t"), Lookup::Pending));
    pass(Duration::from_secs(10)).await;
    assert_eq!(*m.question().expect("it is time").topics, ["t".into()]);
    merge(&m, &response(0, &[(1, 0)]), 1, false);
    assert_eq!(leaders(&m), [(1, 0)]);
}

/// A hint moves a broker, and says nothing of its rack.
#[tokio::test(start_paused = true)]
async fn a_hint_leaves_the_rack() {
    let m = metadata();
    m.lookup("t");
    let mut told = response(0, &[(1, 5)]);
    told.brokers[1].rack = Some(StrBytes::from_static_str("r"));
    merge(&m, &told, 1, false);
    let hint = LeaderHint { partition: 0, leader: 2, epoch: 6 };
    let endpoint = Endpoint { host: "elsewhere".into(), port: 9092 };
    let endpoints = [(2, endpoint.clone()), (9, endpoint.clone())];
    let mut seen = Brokers::new();
    m.hint("t", Uuid::nil(), &[hint], &endpoints, |all, _| seen = all.clone());
    assert_eq!((&seen[&2].endpoint, seen[&2].rack.as_deref()), (&endpoint, Some("r")));
    assert!(!seen.contains_key(&9), "it leads nothing");
}

/// What is not answered is asked again; trouble lasts from the first question without a response to the
/// first response.
#[tokio::test(start_paused = true)]
async fn what_nobody_answers_is_wanted_still() {
    let m = metadata();
    m.lookup("t");
    m.want_identity();
    pass(Duration::from_secs(1)).await;
    let begun = Instant::now();
    for _ in 0..3 {
        let question = m.question().expect("it is time");
        assert!(question.identity && *question.topics == ["t".into()]);
        m.asked(&question);
        m.not_answered(&question, &Error::new(ErrorKind::Connect, "nobody"));
        assert_eq!(m.trouble().unwrap().0, begun);
        pass(Duration::from_secs(10)).await;
    }
    let question = m.question().unwrap();
    m.asked(&question);
    merge(&m, &response(0, &[(1, 5)]), 1, false);
    assert!(m.trouble().is_none());
    m.want("t", RefreshReason::Stale);
    pass(Duration::from_secs(10)).await;
    assert!(!m.question().unwrap().identity, "that was answered");
}

/// Partitions are numbered without gaps: a far number is damage, and makes no large table.
#[tokio::test(start_paused = true)]
async fn a_far_partition_is_none() {
    let m = metadata();
    m.lookup("t");
    let mut far = response(0, &[(1, 5), (2, 5)]);
    for (index, expected) in
        [(1_000_000, vec![(1, 5)]), (2, vec![(1, 5)]), (1, vec![(1, 5), (2, 5)])]
    {
        far.topics[0].partitions[1].partition_index = index;
        merge(&m, &far, 1, false);
        assert_eq!(leaders(&m), expected, "{index}");
    }
}

/// Two that name the same new topic at the same time are one wish: the second puts nothing off.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_wanted_already_is_no_new_wish() {
    let m = metadata();
    let ask = || m.plan(|plan, _, _| plan.next());
    m.want("t", RefreshReason::New);
    m.asked(&m.question().unwrap());
    pass(Duration::from_millis(1)).await;
    m.want("u", RefreshReason::New);
    let at = ask();
    assert!(at > Instant::now(), "it is gathered with others");
    pass(Duration::from_millis(5)).await;
    m.want("u", RefreshReason::New);
    assert_eq!(ask(), at);
    m.want("v", RefreshReason::New);
    assert!(ask() > at, "this one is another");
}

/// Whoever wants it waits for that answer.
#[tokio::test(start_paused = true)]
async fn a_topic_that_is_asked_for_is_no_new_wish() {
    let m = metadata();
    assert!(matches!(m.lookup("t"), Lookup::Pending));
    m.asked(&m.question().unwrap());
    for _ in 0..3 {
        assert!(matches!(m.lookup("t"), Lookup::Pending));
        assert!(!m.read().topics["t"].wanted);
    }
}

/// Who names a new topic with every record does not fill the memory.
#[tokio::test(start_paused = true)]
async fn among_many_topics_those_that_nobody_uses_are_forgotten() {
    let m = metadata();
    let names = |round: usize| (0..MANY_TOPICS).map(move |n| format!("{round}-{n}"));
    for round in 0..5 {
        names(round).for_each(|name| m.want(&name, RefreshReason::New));
        let known = m.read().topics.len();
        assert!(known <= 2 * MANY_TOPICS, "round {round}: {known}");
        pass(UNUSED_AFTER).await;
    }
    m.want("t", RefreshReason::New);
    assert!(m.read().topics.len() <= MANY_TOPICS + 1);
}

/// Another broker has to say the same of a topic that one does not know.
#[tokio::test(start_paused = true)]
async fn what_one_broker_said_against_a_topic_is_asked_of_another() {
    let m = metadata();
    m.lookup("t");
    assert!(!m.question().unwrap().elsewhere);
    m.asked(&m.question().unwrap());
    merge(&m, &response(3, &[]), 1, false);
    pass(Duration::from_secs(10)).await;
    assert!(m.question().expect("it is time").elsewhere);
    merge(&m, &response(0, &[(1, 5)]), 2, false);
    m.want("t", RefreshReason::Stale);
    pass(Duration::from_secs(10)).await;
    assert!(!m.question().expect("it is time").elsewhere);
}

/// The missing right is told once, and so is that it is there again.
#[tokio::test(start_paused = true)]
async fn a_right_that_comes_back_is_told() {
    let m = metadata();
    m.lookup("t");
    let told = |response: &MetadataResponse, from| {
        let merged = m.merge(response, from, false, |_, _| {});
        (merged.forbidden.len(), merged.allowed.len())
    };
    let mut forbidden = 0;
    for from in [1, 2, 3, 1, 2, 3] {
        pass(UNKNOWN_TOPIC_SPACING).await;
        forbidden += told(&response(29, &[]), from).0;
    }
    assert_eq!(forbidden, 1);
    assert_eq!(told(&response(0, &[(1, 5)]), 1), (0, 1));
    assert_eq!(told(&response(0, &[(1, 5)]), 1), (0, 0));
}

/// However often the bootstrap list is begun again with, and whoever says that nobody is there.
#[tokio::test(start_paused = true)]
async fn who_knew_brokers_once_begins_again() {
    let m = metadata();
    m.forget_brokers();
    assert!(!m.begins_again(), "nobody was known");
    assert!(matches!(m.lookup("t"), Lookup::Pending));
    merge(&m, &response(0, &[(1, 5)]), 1, false);
    for _ in 0..3 {
        m.forget_brokers();
        assert!(m.begins_again());
    }
}
