//! A fleet of a few hundred: what the experiments' scripts do, small enough for every test run. Time
//! is virtual, so that figures are exact and may be asserted.

use std::time::Duration;

use ottla_fleet::client::Load;
use ottla_fleet::lab::{Lab, Setup, TOPIC, virtual_time};

/// A short life with a death in it.
fn digests(seed: u64) -> Vec<u64> {
    virtual_time(async {
        let mut lab = Lab::open(&Setup { keep: true, ..Setup::new(seed) });
        lab.add_producers(50, Duration::from_secs(2), &Load::of(TOPIC));
        lab.add_consumers(5, Duration::from_secs(2));
        lab.all_connected().await;
        lab.pass(Duration::from_secs(5)).await;
        lab.kill(1);
        lab.pass(Duration::from_secs(5)).await;
        lab.fence(1);
        lab.pass(Duration::from_secs(10)).await;
        lab.restart(1);
        lab.pass(Duration::from_secs(10)).await;
        lab.network.log(|log| log.digests().to_vec())
    })
}

#[test]
fn a_seed_repeats_a_run() {
    let first = digests(7);
    assert_eq!(first, digests(7), "seed 7: two runs differ");
    assert_ne!(first, digests(8), "the seed changes nothing");
}
