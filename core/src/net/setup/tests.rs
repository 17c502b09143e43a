use ottla_test_broker::{ApiKey, Fault};

use super::*;
use crate::cluster::Lane;
use crate::cluster::testbed::{Way, bed, ms};
use crate::policy::reconnect::DialUrgency;

/// It is this process that has none: no broker is blamed, and what is of least use is closed.
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_dial_without_a_descriptor_makes_room_and_says_whose_fault_it_is() {
    let bed = bed(2, 1).known().await;
    let (friend, stranger) = bed.friend_and_stranger();
    let idle = bed.lane(friend, Lane::Produce).await;
    bed.net.set(&bed.host(stranger), Way::UsedUp);
    let dialled = bed.pool.lane(stranger, Lane::Produce, DialUrgency::Needed).await;
    let error = dialled.err().expect("there is no descriptor");
    assert_eq!(error.kind(), ErrorKind::OutOfResources, "{error}");
    assert!(idle.is_closed(), "nobody needs it now");
}

/// A name that takes long to look up, or a broker that has much to do, is no long way.
#[tokio::test(start_paused = true)]
async fn the_round_trip_is_what_is_quicker_of_the_dial_and_the_first_response() {
    for (dial, response, way) in
        [(ms(300), ms(0), ms(0)), (ms(0), ms(300), ms(0)), (ms(300), ms(200), ms(200))]
    {
        let bed = bed(2, 1).known().await;
        let (_, stranger) = bed.friend_and_stranger();
        bed.net.set(&bed.host(stranger), Way::Slow(dial));
        bed.spoil(Fault::DelayResponse(response), ApiKey::API_VERSIONS, 1);
        let connection = bed.lane(stranger, Lane::Produce).await;
        let told = connection.round_trip();
        assert!(told >= way && told < way + ms(50), "{told:?} of {dial:?} and {response:?}");
    }
}

/// Whoever has not even said which versions it speaks is not believed that it has megabytes to say.
#[tokio::test(start_paused = true)]
async fn who_is_not_known_yet_takes_no_memory() {
    for size in [MAX_SETUP_FRAME as u32 + 1, MAX_FRAME as u32] {
        let bed = bed(1, 1);
        bed.net.set(&bed.host(1), Way::Says([size.to_be_bytes(), [0; 4]].concat()));
        let error = bed.pool.control_but(&[]).await.err().expect("no broker");
        assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
        assert!(error.message().contains("1048576 at most"), "{error}");
    }
}
