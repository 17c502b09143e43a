use kafka_protocol::protocol::StrBytes;
use ottla_test_broker::{ApiKey, Cluster};

use super::*;
use crate::cluster::testbed::{Bed, Way, bed, bed_of, secs};

/// A cluster called "first", of whose two brokers both are connected.
async fn first() -> Bed {
    let first = Cluster::builder().brokers(2).cluster_id("first").topic("t", 2, 2);
    let bed = bed_of(first, 1).known().await;
    for id in 1..=2 {
        bed.lane(id, Lane::Produce).await;
    }
    bed
}

/// What came by the connection to this broker is a response of another cluster.
async fn strays(bed: &Bed, id: i32) {
    let connection = bed.lane(id, Lane::Produce).await;
    let id_of_another = Some(StrBytes::from_static_str("second"));
    let response = MetadataResponse::default().with_cluster_id(id_of_another);
    let error = bed.pool.recognise(id, &connection, &response).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ClusterChanged);
}

#[tokio::test(start_paused = true)]
async fn another_cluster_is_not_believed_beside_the_old_one() {
    let bed = first().await;
    strays(&bed, 2).await;
    assert!(!bed.pool.give_in(false), "it may have come back");
    tokio::time::sleep(BELIEVED_AFTER).await;
    assert!(!bed.pool.give_in(false), "a broker of the old one is there");
    assert_eq!(bed.pool.identity().cluster_id().as_deref(), Some("first"));
    bed.pool.broker(1).unwrap().hang_up();
    assert!(bed.pool.give_in(false));
    assert_eq!(bed.pool.identity().cluster_id().as_deref(), Some("second"));
}

#[tokio::test(start_paused = true)]
async fn connections_to_the_old_cluster_are_used_no_more() {
    let bed = first().await;
    let old = bed.lane(1, Lane::Produce).await;
    strays(&bed, 2).await;
    assert!(!old.is_closed());
    assert!(bed.pool.give_in(true));
    assert!(old.is_closed() && !bed.pool.is_connected(None));
}

/// A dial takes seconds, in which another cluster may be accepted.
#[tokio::test(start_paused = true)]
async fn who_was_dialled_in_the_old_cluster_is_nobody_in_the_new_one() {
    let bed = first().await;
    let (broker, host) = (bed.pool.broker(1).unwrap(), bed.host(1));
    broker.hang_up();
    bed.net.set(&host, Way::Hangs);
    let dials = bed.net.dials(&host);
    let pool = Arc::clone(&bed.pool);
    let urgency = crate::policy::reconnect::DialUrgency::Needed;
    let lane = tokio::spawn(async move { pool.lane(1, Lane::Produce, urgency).await.map(drop) });
    while bed.net.dials(&host) == dials {
        tokio::task::yield_now().await;
    }
    strays(&bed, 2).await;
    assert!(bed.pool.give_in(true));
    let asked = bed.seen(1, ApiKey::METADATA);
    bed.net.set(&host, Way::Open);
    let error = lane.await.unwrap().expect_err("it leads to the old cluster");
    assert_eq!(error.kind(), ErrorKind::Connect, "{error}");
    assert!(broker.open(Lane::Produce).is_none());
    assert_eq!(bed.seen(1, ApiKey::METADATA), asked, "it was asked who it is");
}

/// The dial before it has ended badly by then, and the new cluster's own connection would vouch for this one.
#[tokio::test(start_paused = true)]
async fn who_waits_to_dial_in_the_old_cluster_gets_no_lane_to_it_in_the_new_one() {
    let bed = first().await;
    let (broker, host) = (bed.pool.broker(2).unwrap(), bed.host(2));
    broker.hang_up();
    bed.net.set(&host, Way::Hangs);
    let dials = bed.net.dials(&host);
    let urgency = crate::policy::reconnect::DialUrgency::Needed;
    let wait = |lane| {
        let pool = Arc::clone(&bed.pool);
        tokio::spawn(async move { pool.lane(2, lane, urgency).await })
    };
    let first = wait(Lane::Fetch(7));
    while bed.net.dials(&host) == dials {
        tokio::task::yield_now().await;
    }
    let second = wait(Lane::Produce);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    strays(&bed, 1).await;
    assert!(bed.pool.give_in(true));
    // The bootstrap address leads to the new cluster, which says so.
    let other = Cluster::builder().brokers(1).tcp(false).cluster_id("second").topic("t", 1, 1);
    let other = other.start_on_current_runtime().unwrap();
    let (to, port) = other.address(1).unwrap();
    bed.net.set(&bed.host(1), Way::Elsewhere(other.dialer(), to, port));
    tokio::time::sleep(secs(2)).await;
    bed.pool.control().await.unwrap();
    assert_eq!(bed.pool.identity().cluster_id().as_deref(), Some("second"));
    // The old cluster's broker is back.
    bed.net.set(&host, Way::Open);
    first.await.unwrap().map(drop).expect_err("it leads to the old cluster");
    let second = second.await.unwrap();
    let vouched = second.as_ref().is_ok_and(|lane| lane.is_vouched() && !lane.is_closed());
    assert!(!vouched, "a lane to the old cluster, taken for one to the new one");
}

/// Nothing is in use that would have the others asked.
#[tokio::test(start_paused = true)]
async fn the_others_are_asked_who_they_are() {
    let bed = first().await;
    let other = Cluster::builder().brokers(1).tcp(false).cluster_id("second");
    let other = other.start_on_current_runtime().unwrap();
    let (host, port) = other.address(1).unwrap();
    bed.net.set(&bed.host(2), Way::Elsewhere(other.dialer(), host, port));
    bed.pool.broker(2).unwrap().hang_up();
    bed.pool.broker(2).unwrap().suspect(true);
    let asked = bed.seen(1, ApiKey::METADATA);
    let urgency = crate::policy::reconnect::DialUrgency::Needed;
    let error = bed.pool.lane(2, Lane::Produce, urgency).await.err().expect("another cluster");
    assert_eq!(error.kind(), ErrorKind::ClusterChanged);
    tokio::time::sleep(secs(1)).await;
    assert_eq!(bed.seen(1, ApiKey::METADATA) - asked, 1);
    assert_eq!(bed.pool.identity().cluster_id().as_deref(), Some("first"));
}

/// Nobody avoids it, nor asks who leads instead, until it happens to be dialled once more.
#[tokio::test(start_paused = true)]
async fn who_answers_for_the_right_cluster_again_is_well() {
    let bed = first().await;
    let broker = bed.pool.broker(2).unwrap();
    strays(&bed, 2).await;
    assert!(broker.is_unreachable());
    tokio::time::sleep(secs(1)).await;
    bed.lane(2, Lane::Produce).await;
    assert!(!broker.is_unreachable());
    assert_eq!(broker.condition(bed.now()), crate::cluster::BrokerHealth::Good);
}

/// What else was lost may not have been noticed yet: who has not answered since says nothing about a
/// connection that is opened beside it.
#[tokio::test(start_paused = true)]
async fn only_who_has_answered_since_a_loss_vouches_for_others() {
    for responses in [false, true] {
        let bed = bed(2, 1).known().await;
        for id in 1..=2 {
            bed.lane(id, Lane::Produce).await;
        }
        bed.cluster.cut_connections(1).unwrap();
        tokio::time::sleep(secs(1)).await;
        if responses {
            let two = bed.lane(2, Lane::Produce).await;
            two.call(&MetadataRequest::default(), refresh::VERSIONS, false).await.unwrap();
        }
        let asked = bed.seen(1, ApiKey::METADATA);
        bed.lane(1, Lane::Produce).await;
        let asked = bed.seen(1, ApiKey::METADATA) - asked;
        assert_eq!(asked, u64::from(!responses), "the other has answered: {responses}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_has_a_lane_before_it_is_known_where_it_leads() {
    let bed = bed(1, 1).known().await;
    bed.cut().await;
    // For who asks just that.
    let (id, connection) = bed.pool.control_but(&[]).await.unwrap();
    let broker = bed.pool.broker(id).unwrap();
    assert!(broker.is_connected() && broker.open(Lane::Control).is_none());
    assert!(broker.open(Lane::Produce).is_none());
    bed.pool.vouch(id, &connection).await.unwrap();
    assert!(broker.open(Lane::Control).is_some());
}
