//! What is given to a connection while its session is renewed, against the embedded broker.

use std::sync::Arc;

use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use ottla_test_broker::{ApiKey, Cluster, Fault};

use super::*;
use crate::cluster::Lane;
use crate::cluster::testbed::{Bed, bed_as, ms, secs};
use crate::config::Caller;
use crate::net::Connection;
use crate::security::{Sasl, Security};

const LIFE: Duration = Duration::from_secs(100);

fn bed_with_sessions(life: Duration) -> Bed {
    let sasl = ottla_test_broker::Sasl::new().plain().user("alice", "secret").max_reauth(life);
    let security = Security { tls: None, sasl: Some(Sasl::plain("alice", "secret")) };
    bed_as(Cluster::builder().brokers(1).topic("t", 1, 1).sasl(sasl), 1, security)
}

/// A connection that begins to log in anew, which takes so long.
async fn renewing(bed: &Bed, takes: Duration) -> Connection {
    let connection = bed.lane(1, Lane::Produce).await;
    let before = bed.seen(1, ApiKey::SASL_HANDSHAKE);
    bed.spoil(Fault::DelayResponse(takes), ApiKey::SASL_AUTHENTICATE, 1);
    while bed.seen(1, ApiKey::SASL_HANDSHAKE) == before {
        tokio::time::sleep(ms(10)).await;
    }
    connection
}

fn hasty(connection: &Connection, request_timeout: Duration) -> Connection {
    let caller = Caller { client_id: "h".into(), request_timeout, idle_timeout: secs(600) };
    connection.on_behalf_of(&Arc::new(caller))
}

async fn ask(connection: &Connection) -> Result<InitProducerIdResponse, CallError> {
    connection.call(&InitProducerIdRequest::default(), (0, 4), false).await
}

#[tokio::test(start_paused = true)]
async fn what_is_over_before_the_login_is_was_never_sent() {
    let bed = bed_with_sessions(LIFE).known().await;
    let connection = renewing(&bed, secs(6)).await;
    let asked = bed.seen(1, ApiKey::INIT_PRODUCER_ID);
    let begun = bed.now();
    let (hasty, patient) = (hasty(&connection, secs(2)), hasty(&connection, secs(20)));
    let (over, good) = tokio::join!(
        async {
            let over = ask(&hasty).await;
            (over, begun.elapsed())
        },
        ask(&patient)
    );
    let (Err(CallError::Unsent(error)), took) = over else { panic!("{over:?}") };
    assert_eq!((error.kind(), took.as_secs()), (ErrorKind::Timeout, 2), "{error}");
    good.unwrap();
    assert!((5..8).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    tokio::time::sleep(secs(1)).await;
    assert_eq!(bed.seen(1, ApiKey::INIT_PRODUCER_ID) - asked, 1, "what is over is not written");
    assert!(!connection.is_closed() && connection.in_flight() == 0);
}

/// It is late as long as it waits; how long the broker takes counts from the login on.
#[tokio::test(start_paused = true)]
async fn a_login_that_takes_long_is_late_and_what_comes_after_it_is_not() {
    let bed = bed_with_sessions(LIFE).known().await;
    let connection = renewing(&bed, secs(6)).await;
    let given = bed.now();
    assert!(!connection.is_late(ms(200), bed.now()), "nothing waits");
    let waiting = {
        let connection = connection.clone();
        tokio::spawn(async move { ask(&connection).await.map(drop) })
    };
    tokio::time::sleep(secs(4)).await;
    assert!(connection.is_late(secs(3), bed.now()) && !connection.is_late(secs(5), bed.now()));
    bed.spoil(Fault::DelayResponse(secs(5)), ApiKey::INIT_PRODUCER_ID, 1);
    tokio::time::sleep(secs(4)).await;
    let login = connection.at_work_since(given);
    assert!((secs(5)..secs(7)).contains(&(login - given)), "{:?}", login - given);
    assert!(connection.is_late(secs(1), bed.now()) && !connection.is_late(secs(3), bed.now()));
    waiting.await.unwrap().unwrap();
    assert_eq!(connection.at_work_since(bed.now()), bed.now());
}

/// Its caller's time has begun before, the broker's has not: it may answer as late as any other.
#[tokio::test(start_paused = true)]
async fn a_broker_has_its_time_after_a_login() {
    let bed = bed_with_sessions(LIFE).known().await;
    let connection = renewing(&bed, secs(6)).await;
    // Requests may take 30 s here.
    bed.spoil(Fault::DelayResponse(secs(27)), ApiKey::INIT_PRODUCER_ID, 1);
    let begun = bed.now();
    let outcome = ask(&connection).await;
    let Err(CallError::InDoubt(error)) = outcome else { panic!("{outcome:?}") };
    assert_eq!((error.kind(), begun.elapsed().as_secs()), (ErrorKind::Timeout, 30));
    tokio::time::sleep(secs(1)).await;
    assert!(!connection.is_closed(), "it was not silent for long");
}

/// Nobody needs it any more: it ends as any other does.
#[tokio::test(start_paused = true)]
async fn who_is_retired_while_logging_in_ends_when_nothing_is_held() {
    let bed = bed_with_sessions(LIFE).known().await;
    let connection = renewing(&bed, secs(6)).await;
    let held = {
        let connection = connection.clone();
        tokio::spawn(async move { ask(&connection).await.map(drop) })
    };
    tokio::time::sleep(ms(1)).await;
    connection.retire();
    held.await.unwrap().unwrap();
    assert!(matches!(ask(&connection).await, Err(CallError::Unsent(_))));
}

/// Brokers refuse a second login within a second, and take one that comes late.
#[tokio::test(start_paused = true)]
async fn sessions_that_are_shorter_than_a_login_may_come_after_another_are_renewed() {
    for life in [ms(300), ms(700), ms(1_000), ms(1_040), ms(1_100), ms(3_000)] {
        let bed = bed_with_sessions(life).known().await;
        let connection = bed.lane(1, Lane::Produce).await;
        let begun = bed.now();
        let mut answered = 0;
        while begun.elapsed() < secs(30) {
            ask(&connection).await.unwrap();
            answered += 1;
            tokio::time::sleep(ms(20)).await;
        }
        let stats = bed.cluster.stats();
        let broker = stats.broker(1).unwrap();
        assert_eq!(broker.sessions_expired, 0, "{life:?}");
        assert!((5..=30).contains(&broker.reauthentications), "{life:?}: {broker:?}");
        assert!(answered > 100 && !connection.is_closed(), "{life:?}: {answered}");
    }
}

/// A process that was stopped has not waited.
#[tokio::test(start_paused = true)]
async fn who_waits_for_a_login_loses_no_time_while_this_process_does_not_run() {
    let bed = bed_with_sessions(LIFE).known().await;
    let connection = renewing(&bed, ms(500)).await;
    let hasty = hasty(&connection, secs(2));
    let held = tokio::spawn(async move { ask(&hasty).await.map(drop) });
    tokio::time::sleep(ms(450)).await;
    // The broker's answer and the timer come at once.
    tokio::time::advance(secs(60)).await;
    held.await.unwrap().unwrap();
}

/// A login that was over before the process was stopped, in a session that is over now.
#[tokio::test(start_paused = true)]
async fn what_was_held_is_not_sent_in_a_session_that_has_ended() {
    let bed = bed_with_sessions(LIFE).known().await;
    let connection = renewing(&bed, ms(500)).await;
    let held = {
        let connection = connection.clone();
        tokio::spawn(async move { ask(&connection).await.map(drop) })
    };
    tokio::time::sleep(ms(450)).await;
    tokio::time::advance(2 * LIFE).await;
    held.await.unwrap().unwrap();
    let stats = bed.cluster.stats();
    let broker = stats.broker(1).unwrap();
    assert_eq!((broker.sessions_expired, broker.reauthentications), (0, 2));
}

/// The clock that timers follow stood still; brokers have closed the session.
#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_sends_nothing_in_a_session_that_has_ended() {
    let bed = bed_with_sessions(LIFE).known().await;
    let connection = bed.lane(1, Lane::Produce).await;
    ask(&connection).await.unwrap();
    let logins = |bed: &Bed| bed.cluster.stats().broker(1).unwrap().reauthentications;
    assert_eq!(logins(&bed), 0);
    bed.env.set_time_of_day(LIFE);
    ask(&connection).await.unwrap();
    assert_eq!(logins(&bed), 1, "before the request");
}
