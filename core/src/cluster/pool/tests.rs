use ottla_test_broker::{ApiKey, Cluster, Fault};

use super::*;
use crate::cluster::metadata::BrokerAddress;
use crate::cluster::testbed::{bed, bed_of, secs};

/// Trying again would not help, and nobody waits for it.
#[tokio::test(start_paused = true)]
async fn a_broker_of_another_age_is_no_first_contact() {
    let old = Cluster::builder().brokers(1).max_version(ApiKey::METADATA, 8);
    let bed = bed_of(old, 1);
    let begun = bed.now();
    let error = bed.pool.reach(secs(10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion, "{error}");
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
    assert_eq!(bed.net.all_dials(), 1);
}

/// What answers is no broker, and does not become one within the time that there is.
#[tokio::test(start_paused = true)]
async fn who_hangs_up_on_the_first_request_is_not_tried_until_the_deadline() {
    let bed = bed(1, 1);
    bed.spoil(Fault::CutBeforeAppend, ApiKey::API_VERSIONS, usize::MAX);
    let begun = bed.now();
    let error = bed.pool.reach(secs(10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
    assert!(begun.elapsed() < secs(1), "{:?}", begun.elapsed());
    assert_eq!(bed.net.all_dials(), 1);
}

/// Behind one address two brokers: nobody can tell whose the connection is.
#[tokio::test(start_paused = true)]
async fn a_connection_to_the_address_of_two_brokers_is_neithers() {
    for brokers in [2, 1] {
        let bed = bed(1, 1);
        bed.pool.control_but(&[]).await.unwrap();
        let endpoint = bed.pool.lock()[&-1].endpoint();
        let place = BrokerAddress { endpoint, rack: None };
        let known = (1..=brokers).map(|id| (id, place.clone())).collect();
        bed.pool.brokers_changed(&known, &BTreeSet::new());
        assert_eq!(bed.pool.is_connected_to(1), brokers == 1);
        assert_eq!(bed.pool.lock()[&-1].is_connected(), brokers == 2);
    }
}
