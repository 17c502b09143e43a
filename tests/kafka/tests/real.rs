//! Real brokers: started, broken, mended, and gone when nobody holds them.

use std::time::{Duration, Instant};

use ottla_test_kafka::{Cluster, Options, probe};

#[test]
fn real_three_brokers_survive_each_fault() {
    let cluster = Cluster::start(Options::default()).unwrap();
    assert_eq!(cluster.bootstrap().split(',').count(), 3);
    let first = cluster.broker_pid(1).unwrap();

    cluster.kill(1).unwrap();
    assert!(cluster.kill(1).is_err(), "it is dead already");
    cluster.restart(1).unwrap();
    assert_ne!(cluster.broker_pid(1).unwrap(), first);

    cluster.stop(2).unwrap();
    cluster.restart(2).unwrap();

    let port = cluster.address(3).unwrap().rsplit(':').next().unwrap().parse().unwrap();
    cluster.pause(3).unwrap();
    assert!(probe::view(port).is_err(), "a paused broker answers nothing");
    cluster.resume(3).unwrap();

    let args = [
        "--bootstrap-server",
        cluster.bootstrap(),
        "--create",
        "--topic",
        "t",
        "--partitions",
        "6",
    ];
    let made = cluster.run_tool("org.apache.kafka.tools.TopicCommand", &args).output().unwrap();
    let said = String::from_utf8_lossy(&made.stdout);
    assert!(said.contains("Created topic t"), "{made:?}\n{}", cluster.logs_tail(20));
    cluster.wait_in_sync(&["t"]).unwrap();
    cluster.stop(1).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while probe::topics(port, &["t"]).unwrap()["t"].iter().any(|p| p.in_sync == 3) {
        assert!(Instant::now() < deadline, "a broker that has left is still in sync");
    }
    cluster.restart(1).unwrap();
    cluster.wait_in_sync(&["t"]).unwrap();
}
