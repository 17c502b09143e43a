use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::*;
use crate::cluster::testbed::{Bed, bed, config, ms, secs};
use crate::cluster::{Pool, Pools};

/// A pool of its own, of another list than the bed's: one broker of its cluster.
fn another(bed: &Bed, broker: i32) -> Arc<Pool> {
    Pool::get(&bed.env, &config(&format!("{}:9092", bed.host(broker)))).unwrap()
}

#[tokio::test(start_paused = true)]
async fn pools_that_are_gone_count_for_nothing() {
    let bed = bed(2, 1);
    let other = another(&bed, 1);
    assert!(Pools::of(&bed.env).has_others());
    drop(other);
    assert!(!Pools::of(&bed.env).has_others());
    for n in 0..20 {
        drop(Pool::get(&bed.env, &config(&format!("list-{n}:9092"))).unwrap());
    }
    let kept = Pools::of(&bed.env).len();
    assert!(kept <= 2, "{kept} pools, of which one is there");
}

#[tokio::test(start_paused = true)]
async fn who_calls_itself_something_else_has_a_pool_of_its_own() {
    let bed = bed(2, 1).known().await;
    for (software, shares) in [("s", true), ("t", false)] {
        let mut config = config(&format!("{}:9092", bed.host(1)));
        config.software.0 = software.into();
        let pool = Pool::get(&bed.env, &config).unwrap();
        pool.learn_identity().await;
        assert_eq!(pool.identity().cluster_id(), bed.pool.identity().cluster_id());
        let twin = Pools::of(&bed.env).twin(&pool);
        assert_eq!(twin.is_some_and(|twin| Arc::ptr_eq(&twin, &bed.pool)), shares, "{software}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_connection_of_any_pool_that_was_idle_longest_makes_room() {
    for longest in [0, 1] {
        let bed = bed(2, 1).known().await;
        let other = another(&bed, 1);
        other.metadata().topic("t", secs(30)).await.unwrap();
        let pools = [&bed.pool, &other];
        let of = |n: usize| pools[n].longest_idle().unwrap().1;
        let connections = [of(0), of(1)];
        tokio::time::sleep(secs(1)).await;
        let ask = kafka_protocol::messages::MetadataRequest::default();
        connections[1 - longest].call(&ask, (9, 13), false).await.unwrap();
        bed.env.make_room();
        let closed = [0, 1].map(|n: usize| connections[n].is_closed());
        assert_eq!(closed, [longest == 0, longest == 1]);
    }
}

/// Clocks have gone on while the process stood still, and what came in meanwhile is read first.
#[tokio::test(start_paused = true)]
async fn a_timer_that_is_late_leaves_a_moment_for_what_came_in() {
    let bed = bed(1, 1);
    for (stood, after) in [(ms(0), ms(50)), (ms(140), ms(140)), (ms(1_000), ms(1_010))] {
        let begun = bed.now();
        let sleep = bed.env.sleep(ms(50));
        tokio::time::advance(stood).await;
        sleep.await;
        assert_eq!(begun.elapsed(), after);
    }
}

/// Looked at by hand: who waits in vain for good would not let the clock go on either.
#[tokio::test(start_paused = true)]
async fn who_finds_no_room_has_an_error_in_the_end() {
    let bed = bed(1, 1);
    let env = Environment::builder().runtime(Handle::current()).max_connections(1).build();
    let taken = env.permit(secs(1)).await.unwrap();
    let waits = env.permit(secs(1));
    tokio::pin!(waits);
    let mut looked = 0;
    let outcome = loop {
        let outcome = poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx))).await;
        if let Poll::Ready(outcome) = outcome {
            break outcome;
        }
        looked += 1;
        assert!(looked < 200, "still none after ten times the time");
        tokio::time::advance(ms(50)).await;
    };
    let error = outcome.expect_err("there is no room");
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("max_connections"), "{error}");
    drop((taken, bed));
    drop(env.permit(secs(1)).await.unwrap());
}
