use kafka_protocol::messages::MetadataRequest;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::cluster::testbed::{bed, secs};
use crate::metrics::Metrics;

fn broker() -> Broker {
    let endpoint = Endpoint { host: "here".into(), port: 9092 };
    Broker::new(7, endpoint, Some("a".into()), Metrics::default().broker(7))
}

#[test]
fn a_new_rack_is_known_where_the_address_stays() {
    let broker = broker();
    broker.named_at(&broker.endpoint(), Some("b".into()));
    assert_eq!(broker.rack().as_deref(), Some("b"));
    broker.named_at(&broker.endpoint(), None);
    assert_eq!(broker.rack(), None);
}

#[test]
fn it_is_gone_since_the_first_response_without_it() {
    let broker = broker();
    for now_us in [5, 9, 14] {
        broker.vanished(now_us);
        assert_eq!(broker.gone_since(), Some(5));
    }
    broker.named_at(&broker.endpoint(), None);
    assert_eq!(broker.gone_since(), None);
    broker.vanished(20);
    assert_eq!(broker.gone_since(), Some(20));
}

#[test]
fn whose_responses_are_far_worse_than_the_others_is_out() {
    let (broker, now) = (broker(), Instant::now());
    assert!(matches!(broker.admission(now), Admission::Open));
    let pause = broker.eject(now, &mut StdRng::seed_from_u64(1));
    assert!(broker.is_troubled());
    assert!(matches!(broker.admission(now), Admission::Ejected { until } if until == now + pause));
}

#[tokio::test(start_paused = true)]
async fn of_its_lanes_the_one_that_was_used_the_longest_ago_makes_room() {
    let bed = bed(1, 1).known().await;
    let broker = bed.pool.broker(1).unwrap();
    let lanes = [bed.lane(1, Lane::Produce).await, bed.lane(1, Lane::Fetch(1)).await];
    for used in [0, 1, 0] {
        tokio::time::sleep(secs(1)).await;
        lanes[used].call(&MetadataRequest::default(), (9, 13), false).await.unwrap();
        let (at, idle) = broker.longest_idle().unwrap();
        assert_eq!((at, idle.id()), (lanes[1 - used].last_used(), lanes[1 - used].id()));
    }
}

/// Whatever else is heard of it: another lane that has answered, or is lost, makes a password no better.
#[test]
fn a_refusal_counts_for_as_long_as_the_broker_is_not_to_be_asked() {
    let (broker, now) = (broker(), Instant::now());
    let error = Error::new(crate::ErrorKind::Authentication, "no");
    broker.dialing(now);
    let mut rng = StdRng::seed_from_u64(1);
    broker.dial_failed(DialEnd::TurnedAway, false, &error, now, &mut rng);
    broker.was_of_use();
    let refusal = broker.refusal(now).expect("it is left alone");
    assert_eq!(refusal.error.message(), "no");
    assert!(broker.refusal(refusal.until).is_none(), "and asked again then");
}
