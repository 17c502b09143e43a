//! All brokers are gone. Who has nothing to send costs next to nothing, who has knocks at the pace of
//! the backoff, and everything is delivered once they are back.

use std::time::Duration;

use ottla::{Client, NewTopic};
use ottla_relay::load::process::{Job, Process, Report};
use ottla_test_kafka::{Cluster, Options};

const TOPIC: &str = "outage";

/// How long they are gone. Of a minute no more could be learned: what is bounded is a rate.
const OUTAGE: Duration = Duration::from_secs(15);

/// Of a core: twenty times what a build without optimisation takes.
const IDLE_CPU: f64 = 0.001;

/// First delay and cap of the backoff for a broker that is needed, in seconds.
const BASE: f64 = 0.1;
const CAP: f64 = 5.0;

/// Dials to one broker that full jitter allows in so many seconds, but for one process in ten
/// thousand: the n-th delay is drawn from U(0, min(CAP, BASE * 2^n)).
fn most_dials(seconds: f64) -> usize {
    let (mut mean, mut variance) = (0.0, 0.0);
    for n in 0.. {
        let ceiling = (BASE * 2_f64.powi(n)).min(CAP);
        mean += ceiling / 2.0;
        variance += ceiling * ceiling / 12.0;
        if mean - 3.7 * f64::sqrt(variance) > seconds {
            // The first dial waits for nothing.
            return n as usize + 1;
        }
    }
    unreachable!("the sum of delays grows without bound")
}

#[test]
fn the_bound_is_what_the_formula_gives() {
    // 2.5 s on average once at the cap, which the sixth delay reaches.
    let in_a_minute = most_dials(60.0);
    assert!((30..45).contains(&in_a_minute), "{in_a_minute}");
    let ten_minutes_on = most_dials(660.0) - most_dials(600.0);
    assert!((24..=27).contains(&ten_minutes_on), "{ten_minutes_on}");
}

fn start(cluster: &Cluster, name: &str, every_ms: Option<u64>) -> Process {
    let job = Job {
        bootstrap: cluster.bootstrap().to_owned(),
        topic: TOPIC.to_owned(),
        name: name.to_owned(),
        clients: 1,
        every_ms,
        ready_after: 1,
    };
    let mut process = Process::start(env!("CARGO_BIN_EXE_clients"), &job).unwrap();
    process.ready().unwrap();
    process
}

fn share(report: &Report) -> f64 {
    report.cpu_us as f64 / report.elapsed_us as f64
}

#[test]
fn real_nobody_knocks_in_a_loop_while_all_brokers_are_down() {
    let cluster = Cluster::start(Options::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client::connect(cluster.bootstrap()).await.unwrap();
        client.admin().create_topic(NewTopic::new(TOPIC, 6, 3)).await.unwrap();
    });
    cluster.wait_in_sync(&[TOPIC]).unwrap();
    let idle = start(&cluster, "idle", None);
    let busy = start(&cluster, "busy", Some(100));
    for id in cluster.ids() {
        cluster.kill(id).unwrap();
    }
    // No condition to wait for: it is the time that is looked at.
    std::thread::sleep(OUTAGE);
    let idle = idle.end().unwrap();
    let bound = most_dials(idle.elapsed_us as f64 / 1e6);
    println!("idle: {:.4} % of a core, {:?}", 100.0 * share(&idle), idle);
    assert!(share(&idle) <= IDLE_CPU, "{idle:?}");

    cluster.restart_all().unwrap();
    let busy = busy.end().unwrap();
    println!("busy: {:.4} % of a core, {:?}", 100.0 * share(&busy), busy);
    assert_eq!(busy.failed, 0, "{busy:?}");
    for (who, report) in [("idle", &idle), ("busy", &busy)] {
        for (port, dials) in &report.dials {
            let within = dials.iter().filter(|at| **at < OUTAGE.as_millis() as u64).count();
            assert!(within <= bound, "{who}: {within} dials to {port}; {bound} at most");
        }
    }
}
