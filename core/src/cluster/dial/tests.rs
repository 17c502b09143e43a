use kafka_protocol::messages::{InitProducerIdRequest, MetadataRequest};
use ottla_test_broker::{ApiKey, Cluster, Fault};

use super::*;
use crate::cluster::testbed::{Bed, Way, bed, bed_as, bed_of, ms, secs};
use crate::security::{OAuth, Sasl, Security, Token};

/// The broker was dialled in vain until what must go to it has to wait for so long.
fn fails_until(bed: &Bed, id: i32, wait: Duration) {
    let broker = bed.pool.broker(id).unwrap();
    let error = Error::new(ErrorKind::Connect, "nobody there");
    let now = bed.now();
    while broker.not_before(DialUrgency::Needed, now).is_none_or(|at| at < now + wait) {
        bed.pool.random(|rng| broker.dial_failed(DialEnd::Failed, false, &error, now, rng));
    }
}

#[tokio::test(start_paused = true)]
async fn who_moves_while_it_is_dialled_is_not_where_it_was() {
    let bed = bed(2, 1).known().await;
    let (_, id) = bed.friend_and_stranger();
    bed.net.set(&bed.host(id), Way::Hangs);
    let pool = Arc::clone(&bed.pool);
    let dialling =
        tokio::spawn(async move { pool.lane(id, Lane::Produce, DialUrgency::Needed).await });
    tokio::time::sleep(ms(1)).await;
    bed.named(&[(id, "moved")], &[]);
    bed.net.set(&bed.host(id), Way::Open);
    let error = dialling.await.unwrap().err().expect("that is another place");
    assert!(error.message().contains("elsewhere"), "{error}");
    assert!(!bed.pool.is_connected_to(id));
    bed.cluster.move_broker(id, "moved", 9092).unwrap();
    bed.lane(id, Lane::Produce).await;
    assert_eq!(bed.net.dials("moved"), 1);
}

#[tokio::test(start_paused = true)]
async fn who_failed_a_moment_ago_is_dialled_last() {
    let bed = bed(3, 1).known().await;
    fails_until(&bed, 2, ms(1));
    let mut first = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let order: Vec<i32> = bed.pool.candidates(&[]).iter().map(|b| b.id).collect();
        assert_eq!((order.len(), order[2]), (3, 2), "{order:?}");
        first.insert(order[0]);
    }
    assert_eq!(first.len(), 2, "the others in any order");
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_looks_for_somebody() {
    for seed in 0..5 {
        let bed = bed(3, seed);
        for id in 1..=3 {
            bed.net.set(&bed.host(id), Way::Hangs);
        }
        let looking: Vec<_> = (0..3)
            .map(|_| {
                let pool = Arc::clone(&bed.pool);
                tokio::spawn(async move { pool.control_but(&[]).await.map(|(_, c)| c.id()) })
            })
            .collect();
        tokio::time::sleep(DIAL_PATIENCE - ms(100)).await;
        assert_eq!(bed.net.all_dials(), 1, "seed {seed}");
        for id in 1..=3 {
            bed.net.set(&bed.host(id), Way::Open);
        }
        let mut found = Vec::new();
        for one in looking {
            found.push(one.await.unwrap().unwrap());
        }
        assert_eq!(found, [found[0]; 3], "seed {seed}");
        assert_eq!(bed.net.all_dials(), 1, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_reached_is_looked_for_at_once_again() {
    for seed in 0..6 {
        let bed = bed(1, seed);
        bed.net.set(&bed.host(1), Way::Refused);
        let begun = bed.now();
        while begun.elapsed() < secs(60) {
            bed.pool.control_but(&[]).await.err().expect("it is refused");
        }
        bed.net.set(&bed.host(1), Way::Open);
        bed.pool.control_but(&[]).await.unwrap();
        bed.cluster.cut_connections(1).unwrap();
        tokio::time::sleep(ms(1)).await;
        let now = bed.now();
        assert!(bed.pool.look_for_somebody(now).is_ok(), "seed {seed}");
        let next = bed.pool.look_for_somebody(now).err().unwrap_or(now);
        assert!(next - now <= crate::config::BACKOFF_BASE, "seed {seed}: {:?}", next - now);
    }
}

/// Who waits for a later time does not keep the turn from who may dial now.
#[tokio::test(start_paused = true)]
async fn who_backs_off_has_not_the_turn() {
    let bed = bed(2, 1).known().await;
    let (_, id) = bed.friend_and_stranger();
    fails_until(&bed, id, secs(2));
    let pool = Arc::clone(&bed.pool);
    let waits =
        tokio::spawn(async move { pool.lane(id, Lane::Produce, DialUrgency::Needed).await });
    tokio::time::sleep(ms(1)).await;
    bed.named(&[], &[id]);
    let begun = bed.now();
    bed.lane(id, Lane::Control).await;
    assert!(begun.elapsed() < ms(200), "{:?}", begun.elapsed());
    assert!(!waits.is_finished());
    waits.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waited_for_somebody_elses_dial_has_its_connection() {
    let bed = bed(2, 1).known().await;
    let (_, id) = bed.friend_and_stranger();
    let (one, other) = tokio::join!(bed.lane(id, Lane::Produce), bed.lane(id, Lane::Produce));
    assert_eq!(one.id(), other.id());
    assert_eq!(bed.net.dials(&bed.host(id)), 1);
}

/// A long poll that was quicker: what is short takes another lane.
#[tokio::test(start_paused = true)]
async fn a_short_call_does_not_wait_behind_who_was_quicker() {
    let bed = bed(1, 1).known().await;
    bed.cut().await;
    bed.spoil(Fault::DelayResponse(ms(500)), ApiKey::METADATA, 1);
    bed.spoil(Fault::DelayResponse(secs(20)), ApiKey::INIT_PRODUCER_ID, 1);
    let lane = Lane::Fetch(7);
    let pool = Arc::clone(&bed.pool);
    let (told, polls) = oneshot::channel();
    // It is this one that asks which cluster it is, and so hears of it first.
    let poll = tokio::spawn(async move {
        let connection = pool.lane(1, lane, DialUrgency::Needed).await.unwrap();
        told.send(connection.clone()).ok().unwrap();
        let poll = InitProducerIdRequest::default();
        connection.call(&poll, (0, 4), false).await.map(drop)
    });
    tokio::time::sleep(ms(100)).await;
    let short = bed.pool.lane_for_call(1, lane).await.unwrap();
    let polls = polls.await.unwrap();
    assert_eq!((polls.in_flight(), short.in_flight()), (1, 0));
    assert_ne!(short.id(), polls.id());
    poll.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_was_quiet_for_long_is_asked_for_a_sign_of_life() {
    let bed = bed(1, 1).known().await;
    bed.lane(1, Lane::Produce).await;
    for (quiet, asked) in [(secs(190), 1), (secs(170), 0)] {
        let before = bed.seen(1, ApiKey::API_VERSIONS);
        bed.lane(1, Lane::Produce)
            .await
            .call(&MetadataRequest::default(), (9, 13), false)
            .await
            .unwrap();
        tokio::time::sleep(quiet).await;
        bed.lane(1, Lane::Produce).await;
        assert_eq!(bed.seen(1, ApiKey::API_VERSIONS) - before, asked, "{quiet:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_ended_is_kept_nowhere_and_was_of_use() {
    let bed = bed(1, 1).known().await;
    let broker = bed.pool.broker(1).unwrap();
    let connection = broker.open(Lane::Control).expect("it was asked for metadata");
    assert!(broker.has(connection.id()) && !broker.was_reached());
    bed.cut().await;
    assert!(connection.is_closed());
    assert!(!broker.has(connection.id()), "there may be a lane for each consumer that ever was");
    assert!(broker.was_reached(), "it is down, and not somewhere else");
}

/// A fleet that a broker falls silent to does not dial it in the same instant.
#[tokio::test(start_paused = true)]
async fn who_fell_silent_is_dialled_later_than_who_hung_up() {
    let mut waits = Vec::new();
    for seed in 0..6 {
        let bed = bed(1, seed).known().await;
        let connection = bed.lane(1, Lane::Produce).await;
        bed.spoil(Fault::BlackHole, ApiKey::INIT_PRODUCER_ID, 1);
        let asked = InitProducerIdRequest::default();
        connection.call(&asked, (0, 4), false).await.expect_err("nobody answers");
        let (broker, now) = (bed.pool.broker(1).unwrap(), bed.now());
        waits.push(broker.not_before(DialUrgency::Needed, now).unwrap_or(now) - now);
    }
    assert!(waits.iter().any(|wait| *wait > secs(1)), "{waits:?}");
}

/// It is connected each time, and each time answers for another cluster: that is no success.
#[tokio::test(start_paused = true)]
async fn who_leads_elsewhere_is_dialled_ever_slower() {
    let first = Cluster::builder().brokers(2).cluster_id("first").topic("t", 2, 2);
    let bed = bed_of(first, 1).known().await;
    let (friend, id) = bed.friend_and_stranger();
    let other = Cluster::builder().brokers(1).tcp(false).cluster_id("second");
    let other = other.start_on_current_runtime().unwrap();
    let (host, port) = other.address(1).unwrap();
    bed.net.set(&bed.host(id), Way::Elsewhere(other.dialer(), host, port));
    bed.pool.broker(id).unwrap().suspect(true);
    let begun = bed.now();
    while begun.elapsed() < secs(60) {
        let error = bed.pool.lane(id, Lane::Produce, DialUrgency::Needed).await.err();
        assert_eq!(error.expect("another cluster").kind(), ErrorKind::ClusterChanged);
        // Until it has ended.
        tokio::time::sleep(ms(1)).await;
    }
    assert!(bed.pool.is_connected_to(friend));
    let dials = bed.net.dials(&bed.host(id));
    // As in the scenarios of dials: full jitter up to 5 s, with a margin of five standard deviations.
    assert!((15..=45).contains(&dials), "{dials} dials in a minute");
}

/// All brokers have turned this client away, for so long.
fn turned_away(bed: &Bed, but: Option<i32>, wait: Duration) {
    let error = Error::new(ErrorKind::Authentication, "no").passing();
    let (now, brokers): (_, Vec<_>) = (bed.now(), bed.pool.lock().values().cloned().collect());
    for broker in brokers.iter().filter(|broker| Some(broker.id) != but) {
        while broker.refusal(now).is_none_or(|refusal| refusal.until < now + wait) {
            bed.pool.random(|rng| broker.dial_failed(DialEnd::TurnedAway, false, &error, now, rng));
        }
    }
}

/// Of many that are known a few are tried, and not those that have just refused.
#[tokio::test(start_paused = true)]
async fn who_has_not_refused_is_asked_before_who_has() {
    for seed in 0..8 {
        let bed = bed(8, seed).known().await;
        // Elsewhere than in the bootstrap list.
        let names: Vec<_> = (1..=8).map(|id| (id, format!("moved-{id}"))).collect();
        let moved: Vec<_> = names.iter().map(|(id, name)| (*id, name.as_str())).collect();
        for (id, name) in &moved {
            bed.cluster.move_broker(*id, name, 9092).unwrap();
        }
        bed.named(&moved, &[]);
        bed.cut().await;
        turned_away(&bed, Some(5), secs(20));
        let begun = bed.now();
        let (id, _) = bed.pool.control_but(&[]).await.unwrap();
        assert_eq!(id, 5, "seed {seed}");
        assert!(begun.elapsed() < ms(150), "seed {seed}: {:?}", begun.elapsed());
    }
}

/// Who waits until it may ask again finds at once what somebody else has reached, or what has become of the brokers,
/// and keeps nobody else from looking.
#[tokio::test(start_paused = true)]
async fn who_is_turned_away_by_all_waits_and_looks() {
    let bed = bed(2, 1).known().await;
    bed.cut().await;
    turned_away(&bed, None, secs(20));
    let waiting = [0, 1].map(|_| {
        let pool = Arc::clone(&bed.pool);
        tokio::spawn(async move { pool.control_but(&[]).await.map(|(id, _)| id) })
    });
    tokio::time::sleep(secs(2)).await;
    assert!(bed.pool.reaching.try_lock().is_ok(), "nobody is looking just now");
    bed.cluster.move_broker(2, "moved", 9092).unwrap();
    bed.named(&[(2, "moved")], &[]);
    let begun = bed.now();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap(), 2);
    }
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
}

/// What is known of who is being dialled is that.
#[tokio::test(start_paused = true)]
async fn who_is_being_dialled_is_told_of() {
    let bed = bed(2, 1).known().await;
    bed.cut().await;
    for id in 1..=2 {
        bed.net.set(&bed.host(id), Way::Hangs);
    }
    let dials = [1, 2].map(|id| {
        let pool = Arc::clone(&bed.pool);
        tokio::spawn(async move { pool.lane(id, Lane::Produce, DialUrgency::Needed).await })
    });
    tokio::time::sleep(ms(1)).await;
    let error = bed.pool.control_but(&[]).await.err().expect("nobody answers");
    assert!(error.message().contains("it is being dialled"), "{error}");
    dials.iter().for_each(tokio::task::JoinHandle::abort);
}

/// What comes from others is waited for within the set-up, of which a broker has half at least; and none is blamed.
#[tokio::test(start_paused = true)]
async fn who_dials_waits_for_a_provider_for_half_of_the_set_up() {
    let provider = || async {
        tokio::time::sleep(secs(8)).await;
        Ok(Token::new("a"))
    };
    let bearer = ottla_test_broker::BearerLogin { principal: "a".into(), lifetime: None };
    let sasl = ottla_test_broker::Sasl::new().tokens(move |_| Some(bearer.clone()));
    let security = Security { tls: None, sasl: Some(Sasl::oauth(OAuth::provider(provider))) };
    let bed = bed_as(Cluster::builder().brokers(1).sasl(sasl), 1, security);
    let begun = bed.now();
    let error = bed.pool.lane(-1, Lane::Control, DialUrgency::Needed).await.err().unwrap();
    assert_eq!((error.kind(), begun.elapsed()), (ErrorKind::Credentials, secs(5)), "{error}");
    assert!(error.message().contains("nothing to log in with within 5s"), "{error}");
    let broker = bed.pool.broker(-1).unwrap();
    assert!(!broker.is_unreachable() && bed.net.all_dials() == 0);
    tokio::time::timeout(ms(1), broker.dial_lock()).await.expect("nobody dials");
    bed.lane(-1, Lane::Control).await;
    assert_eq!(begun.elapsed().as_secs(), 8);
}

#[test]
fn the_verdict_is_hopeless_only_if_all_are() {
    let hopeless = || Error::new(ErrorKind::NotKafka, "a web server");
    let passing = || Error::new(ErrorKind::Connect, "refused");
    for errors in [vec![hopeless(), passing()], vec![passing(), hopeless()]] {
        let told = summary(errors);
        assert_eq!(told.kind(), ErrorKind::Connect);
        assert!(told.message().contains("a web server") && told.message().contains("refused"));
    }
    assert_eq!(summary(vec![hopeless(), hopeless()]).kind(), ErrorKind::NotKafka);
}
