//! Groups on real brokers whose members are ours, Java's, librdkafka's and franz-go's: `cargo xtask test --only kafka`, for
//! which `OTTLA_PEER_LIBRDKAFKA` and `OTTLA_PEER_FRANZ_GO` name the programs. For longer: `cargo xtask peers mixed`.

use std::path::Path;

use ottla_peers::group::Setting;
use ottla_peers::programs::{Kind, Programs, Protocol};
use ottla_peers::script;
use ottla_test_kafka::{Cluster, Options};

fn programs(cluster: &Cluster) -> Programs {
    let own = Path::new(env!("CARGO_BIN_EXE_verifiable-consumer"));
    let programs = Programs::beside(own, Some(cluster.state().clone()));
    let kinds = programs.kinds();
    let all = [Kind::Ours, Kind::Java, Kind::Librdkafka, Kind::FranzGo];
    assert!(all.iter().all(|kind| kinds.contains(kind)), "only {kinds:?} are here");
    programs
}

fn setting(cluster: &Cluster, name: &str, protocol: Protocol) -> Setting {
    Setting {
        bootstrap: cluster.bootstrap().to_owned(),
        name: format!("peers-{name}-{}", std::process::id()),
        protocol,
        partitions: 12,
        replicas: 3,
        rate: 120,
    }
}

/// At the same time, as they mostly wait for sessions to end.
#[test]
fn real_peers_share_a_group_and_each_record_is_handled() {
    let cluster = Cluster::shared().unwrap();
    let programs = programs(&cluster);
    let runs = [
        (Protocol::Cooperative, Kind::FranzGo, Kind::Java),
        (Protocol::Range, Kind::Librdkafka, Kind::FranzGo),
        (Protocol::Next, Kind::Ours, Kind::Librdkafka),
    ];
    let told = std::thread::scope(|scope| {
        let run = |(protocol, leader, killed): (Protocol, Kind, Kind)| {
            let setting = setting(&cluster, protocol.name(), protocol);
            let programs = programs.clone();
            scope.spawn(move || (protocol, script::short(setting, programs, leader, killed)))
        };
        let threads = runs.map(run);
        threads.map(|thread| thread.join().unwrap())
    });
    for (protocol, verdict) in &told {
        match verdict {
            Ok(verdict) => println!("{}:\n{verdict}", protocol.name()),
            Err(why) => println!("{} FAILED:\n{why}", protocol.name()),
        }
    }
    assert!(told.iter().all(|(_, verdict)| verdict.is_ok()), "{told:#?}");
}

#[test]
fn real_peers_go_on_while_a_broker_restarts() {
    let cluster = Cluster::start(Options::default()).unwrap();
    let settings = [Protocol::Cooperative, Protocol::Next];
    let settings = settings.map(|protocol| setting(&cluster, protocol.name(), protocol));
    let told = script::broker_restarts(settings.to_vec(), &programs(&cluster), &cluster);
    let told = told.unwrap_or_else(|why| panic!("{why}\n{}", cluster.logs_tail(15)));
    told.iter().for_each(|verdict| println!("{verdict}"));
}
