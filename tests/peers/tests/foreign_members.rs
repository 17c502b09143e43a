//! Our members beside those of other clients in one group on the embedded broker: `cargo xtask test --only foreign`, for
//! which `OTTLA_PEER_...` name the programs.

use std::path::Path;
use std::time::Duration;

use ottla_peers::group::{Group, Setting};
use ottla_peers::programs::{Kind, Programs, Protocol, SESSION};
use ottla_test_broker::Cluster;

/// The other leads and ours comes, ours leads and the other comes, ours is frozen, the other is killed: each record is
/// handled, and no partition has two owners.
fn share(other: Kind, protocol: Protocol) {
    let timing = (SESSION, Duration::from_millis(500));
    let cluster = Cluster::builder().brokers(3).consumer_group_timing(timing.0, timing.1);
    let cluster = cluster.start().unwrap();
    let own = Path::new(env!("CARGO_BIN_EXE_verifiable-consumer"));
    let programs = Programs::beside(own, None);
    assert!(programs.kinds().contains(&other), "there is no program of {}", other.name());
    let setting = Setting {
        bootstrap: cluster.bootstrap(),
        name: format!("{}-{}", other.name(), protocol.name()),
        protocol,
        partitions: 6,
        replicas: 1,
        rate: 100,
    };
    let run = || {
        let mut group = Group::start(setting, programs)?;
        let theirs = group.join(other, None)?;
        let ours = group.join(Kind::Ours, None)?;
        group.leave(&theirs)?;
        let theirs = group.join(other, None)?;
        group.freeze(&ours)?;
        group.settle("ours is frozen")?;
        group.thaw(&ours)?;
        group.settle("ours wakes up")?;
        group.kill(&theirs)?;
        group.settle("theirs is killed")?;
        group.join(other, None)?;
        group.finish()
    };
    match run() {
        Ok(verdict) => println!("{}, {}:\n{verdict}", other.name(), protocol.name()),
        Err(why) => panic!("{}, {}: {why}", other.name(), protocol.name()),
    }
}

/// At the same time, as they mostly wait for sessions to end.
fn share_all(other: Kind, protocols: &[Protocol]) {
    std::thread::scope(|scope| {
        for protocol in protocols {
            scope.spawn(|| share(other, *protocol));
        }
    });
}

#[test]
fn foreign_member_sarama() {
    share_all(Kind::Sarama, &[Protocol::Range, Protocol::Cooperative]);
}

#[test]
fn foreign_member_franz_go() {
    share_all(Kind::FranzGo, &Protocol::ALL);
}

#[test]
fn foreign_member_librdkafka() {
    share_all(Kind::Librdkafka, &Protocol::ALL);
}
