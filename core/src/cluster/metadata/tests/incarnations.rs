//! Topics that are made anew under their name, and brokers that are behind.

use super::*;

#[tokio::test(start_paused = true)]
async fn another_topic_id_is_another_topic() {
    let m = metadata();
    m.lookup("t");
    merge(&m, &response(0, &[(1, 5), (2, 5)]), 1, false);
    let mut recreated = response(0, &[(3, 0)]);
    recreated.topics[0].topic_id = Uuid::from_u128(7);
    assert!(merge(&m, &recreated, 1, false).0);
    assert_eq!(leaders(&m), [(3, 0)]);
}

fn incarnation(id: u128, leaders: &[(i32, i32)]) -> MetadataResponse {
    let mut response = response(0, leaders);
    response.topics[0].topic_id = Uuid::from_u128(id);
    response
}

/// KRaft publishes to brokers one by one, and one that is cut off goes on telling of what is gone.
#[tokio::test(start_paused = true)]
async fn an_older_incarnation_does_not_come_back_by_a_broker_that_is_behind() {
    let m = metadata();
    m.lookup("t");
    merge(&m, &incarnation(1, &[(1, 5), (2, 5)]), 1, false);
    merge(&m, &incarnation(2, &[(2, 0), (3, 0), (2, 0)]), 2, false);
    merge(&m, &incarnation(3, &[(3, 0), (3, 0), (3, 0)]), 2, false);
    for old in [1, 2] {
        let mut behind = incarnation(old, &[(1, 9)]);
        behind.brokers.truncate(1);
        // Now and then, for an hour; others say what is.
        for _ in 0..60 {
            assert_eq!(merge(&m, &behind, 1, true), (false, vec![]));
            assert_eq!(leaders(&m), [(3, 0), (3, 0), (3, 0)]);
            assert_eq!(m.read().brokers.len(), 3);
            assert!(m.read().topics["t"].wanted, "another one is asked");
            pass(Duration::from_secs(60)).await;
            merge(&m, &incarnation(3, &[(3, 0), (3, 0), (3, 0)]), 2, false);
        }
    }
    // Nor once the last one is gone as well.
    for from in [1, 2] {
        merge(&m, &response(3, &[]), from, false);
        pass(UNKNOWN_TOPIC_SPACING).await;
    }
    assert!(matches!(m.lookup("t"), Lookup::Failed(_)));
    merge(&m, &incarnation(2, &[(1, 9)]), 1, false);
    assert_eq!(leaders(&m), []);
}

/// An id that is none of the topic's, from a broker that is broken, does not take it away for ever.
#[tokio::test(start_paused = true)]
async fn what_all_brokers_go_on_saying_is_so() {
    let m = metadata();
    m.lookup("t");
    merge(&m, &incarnation(1, &[(1, 5)]), 1, false);
    merge(&m, &incarnation(666, &[(3, 0)]), 3, false);
    for n in 0..6 {
        assert_eq!(leaders(&m), [(3, 0)], "after {n} answers");
        merge(&m, &incarnation(1, &[(1, 5)]), 1 + n % 2, false);
        pass(Duration::from_secs(5)).await;
    }
    assert_eq!(leaders(&m), [(1, 5)]);
    merge(&m, &incarnation(666, &[(3, 0)]), 3, false);
    assert_eq!(leaders(&m), [(1, 5)]);
}

/// Nor if that broker is gone, and the others with it: who is left is the cluster by its own word.
#[tokio::test(start_paused = true)]
async fn what_the_only_broker_left_goes_on_saying_is_so() {
    let m = metadata();
    m.lookup("t");
    merge(&m, &incarnation(1, &[(1, 5)]), 1, false);
    merge(&m, &incarnation(666, &[(3, 0)]), 3, false);
    let mut alone = incarnation(1, &[(1, 5)]);
    alone.brokers.truncate(1);
    for _ in 0..100 {
        merge(&m, &alone, 1, true);
        pass(Duration::from_secs(5)).await;
    }
    assert_eq!(leaders(&m), [(1, 5)]);
}

/// A response that was long on its way knows the leaders of the topic that it was asked about.
#[tokio::test(start_paused = true)]
async fn a_hint_about_a_topic_that_is_gone_says_nothing_of_its_successor() {
    let m = metadata();
    m.lookup("t");
    let (old, new) = (Uuid::from_u128(6), Uuid::from_u128(7));
    let mut recreated = response(0, &[(3, 0)]);
    recreated.topics[0].topic_id = new;
    merge(&m, &recreated, 1, false);
    let hint = LeaderHint { partition: 0, leader: 2, epoch: 9 };
    let stale = |_: &Brokers, _: &BTreeSet<i32>| unreachable!("it is no news");
    assert!(m.hint("t", old, &[hint], &[], stale).is_empty());
    assert_eq!(leaders(&m), [(3, 0)]);
    // Whoever is too old to tell an id cannot mean another topic.
    assert_eq!(m.hint("t", Uuid::nil(), &[hint], &[], |_, _| {}), BTreeSet::from([2]));
}

/// Who has an older epoch of one topic may not know another one yet, however often it says so.
#[tokio::test(start_paused = true)]
async fn who_is_behind_takes_no_topic_away() {
    let m = metadata();
    m.lookup("t");
    m.lookup("u");
    let both = |code: i16, epoch: i32| {
        let mut both = response(code, if code == 0 { &[(1, 5)] } else { &[] });
        let mut other = response(0, &[(1, epoch)]).topics.remove(0);
        other.name = Some(TopicName(StrBytes::from_static_str("u")));
        both.topics.push(other);
        both
    };
    merge(&m, &both(0, 7), 1, false);
    for from in [2, 3, 2, 3] {
        pass(UNKNOWN_TOPIC_SPACING).await;
        merge(&m, &both(3, 6), from, false);
        assert_eq!(leaders(&m), [(1, 5)]);
    }
    // One that is not behind is believed, with another one.
    for from in [1, 2] {
        pass(UNKNOWN_TOPIC_SPACING).await;
        merge(&m, &both(3, 7), from, false);
    }
    assert!(matches!(m.lookup("t"), Lookup::Failed(_)));
}

/// In another cluster an id that a topic had in the old one is as good as any.
#[tokio::test(start_paused = true)]
async fn anew_nothing_is_a_former_topic() {
    let m = metadata();
    m.lookup("t");
    merge(&m, &incarnation(1, &[(1, 5)]), 1, false);
    merge(&m, &incarnation(2, &[(2, 0)]), 1, false);
    m.begin_anew(&incarnation(1, &[(3, 0)]), 1, |_, _| {});
    assert_eq!(leaders(&m), [(3, 0)]);
}
