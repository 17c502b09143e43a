//! Fleets of a few hundred: the experiments' own scripts, small enough for every test run. Time is
//! virtual, so that figures are exact and may be asserted; a failure prints them all, and the seed.

use std::time::Duration;

use ottla::{Client, Environment, Record};
use ottla_fleet::client::Load;
use ottla_fleet::experiments::outage::{self, How, Who};
use ottla_fleet::experiments::paths;
use ottla_fleet::experiments::spread::{self, Case};
use ottla_fleet::experiments::{
    Options, but_dont, errors, idle, load_curve, moved_leaders, overload, reset, slow_broker,
};
use ottla_fleet::lab::{Lab, ReadBack, Setup, TOPIC, virtual_time};
use ottla_fleet::report::Report;
use ottla_test_broker::{ApiKey, Fault, FaultRule};

const SEED: u64 = 1;

/// Of the figures that have a target, these meet it.
fn holds(report: &Report, figures: &[&str]) {
    let missed = report.missed();
    for name in figures {
        let _exists = report.value(name);
        assert!(
            !missed.iter().any(|figure| figure.name == *name),
            "'{name}' is missed with seed {SEED}\n{}",
            report.table()
        );
    }
}

/// A short life with a death in it.
fn digests(seed: u64) -> Vec<u64> {
    virtual_time(async {
        let setup = Setup { brokers: 5, partitions: 10, keep: true, ..Setup::new(seed) };
        let mut lab = Lab::open(&setup);
        lab.add_producers(30, Duration::from_secs(2), &Load::of(TOPIC));
        lab.add_consumers(2, Duration::from_secs(2));
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

/// Three clients whose records are numbered, and a client of a test that knows how to number its own.
#[test]
fn what_is_lost_or_there_twice_is_found_whoever_sent_it() {
    virtual_time(async {
        let setup = Setup { brokers: 3, partitions: 3, keep: true, ..Setup::new(SEED) };
        let mut lab = Lab::open(&setup);
        let load = Load { numbered: true, ..Load::of(TOPIC) };
        lab.add_producers(3, Duration::from_secs(1), &load);
        lab.all_connected().await;
        lab.pass(Duration::from_secs(10)).await;
        lab.drain(Duration::from_secs(30)).await;
        assert_eq!(lab.read_back(), ReadBack { lost: 0, doubled: 0 });
        let total = lab.ledger.total();
        assert_eq!((total.unresolved(), total.failed), (0, 0));
        let sent = total.sent;
        lab.pass(Duration::from_secs(10)).await;
        assert_eq!(lab.ledger.total().sent, sent, "they were told to stop");

        // The first record of the last client comes a second time, and one that nobody else sent twice.
        let environment = Environment::builder()
            .runtime(tokio::runtime::Handle::current())
            .dialer(lab.network.dialer(3))
            .build();
        let client = Client::builder().bootstrap(lab.cluster.bootstrap()).environment(environment);
        let producer = client.connect().await.unwrap().producer().build().unwrap();
        for numbers in [[2u32, 0], [0, 77_777], [0, 77_777]] {
            let value = numbers.map(u32::to_be_bytes).concat();
            producer.send(Record::to(TOPIC).value(&value)).await.unwrap().await.unwrap();
        }
        assert_eq!(lab.read_back(), ReadBack { lost: 0, doubled: 2 });

        // Of each client something is gone.
        let kept: u64 = (0..3)
            .map(|partition| {
                let end = lab.cluster.partition(TOPIC, partition).unwrap().log_end;
                lab.cluster.delete_records(TOPIC, partition, end).unwrap();
                lab.cluster.records(TOPIC, partition).unwrap().len() as u64
            })
            .sum();
        assert_eq!((kept, lab.read_back()), (0, ReadBack { lost: sent, doubled: 0 }));
    });
}

#[test]
fn retries_are_those_of_all_clients_and_per_second() {
    virtual_time(async {
        let mut lab = Lab::open(&Setup { brokers: 3, partitions: 3, ..Setup::new(SEED) });
        lab.add_producers(4, Duration::from_secs(1), &Load::of(TOPIC));
        lab.all_connected().await;
        let often = Fault::Error(ottla_test_broker::error_code::NOT_ENOUGH_REPLICAS);
        let rule = FaultRule::new(often).api(ApiKey::PRODUCE).share(0.5, SEED).always();
        let rule = lab.cluster.faults().inject(rule);
        lab.pass(Duration::from_secs(20)).await;
        lab.cluster.faults().remove(rule);
        // Until nothing is repeated any more, and counted after that.
        lab.pass(Duration::from_secs(20)).await;
        let each: Vec<u64> = lab.members.iter().map(|m| m.stats().produce_retries).collect();
        let all: u64 = each.iter().sum();
        assert!(each.iter().all(|n| *n > 0), "{each:?}");
        assert_eq!(lab.produce_retries(), all);
        let by_second = lab.retries_by_second();
        let counted: f64 = by_second.iter().sum();
        assert!((counted - all as f64).abs() <= all as f64 * 0.1, "{counted} of {all}");
        assert!(by_second.len() as u64 >= lab.now_ms() / 1000 - 6);
    });
}

/// Figures that miss their targets end the program as a failure, one experiment or several.
#[test]
fn the_program_fails_where_a_target_is_missed() {
    let pages = std::env::temp_dir().join(format!("ottla-fleet-{}", std::process::id()));
    let run = |args: &[&str]| {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_ottla-fleet"));
        let out = program.args(args).arg("--json").arg("--pages").arg(&pages).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let missed = text.lines().filter(|line| line.contains(r#""ok":false"#)).count();
        (out.status.code(), missed, text.lines().count())
    };
    // A single client cannot share its requests out over the brokers.
    let (status, missed, lines) = run(&["--clients", "1", "idle"]);
    assert!(missed > 0 && lines > 5, "{missed} of {lines}");
    assert_eq!(status, Some(1));
    let (status, both, _) = run(&["--clients", "1", "idle", "4"]);
    assert_eq!((status, both), (Some(1), 2 * missed));
    assert_eq!(run(&["no-such-experiment"]).0, Some(2));
    std::fs::remove_dir_all(pages).unwrap();
}

#[test]
fn a_broker_is_killed() {
    let report = outage::run("1 killed", How::Killed, Who::Unkeyed, 100, SEED);
    holds(
        &report,
        &[
            "dials per client",
            "ack p99 while it is down, ms",
            "records that failed",
            "records never resolved",
            "acknowledged records lost",
        ],
    );
}

#[test]
fn a_broker_falls_into_a_black_hole() {
    let report = outage::run("9 black hole", How::BlackHole, Who::Unkeyed, 100, SEED);
    holds(
        &report,
        &[
            "ack p99 while it is down, ms",
            "ack p99.9 while it is down, ms",
            "records that failed",
            "records never resolved",
            "acknowledged records lost",
        ],
    );
}

#[test]
fn all_connections_are_reset_at_once() {
    let options = Options { clients: 300, seed: SEED };
    holds(
        &reset::run(&options)[0],
        &[
            "peak of SYNs per 10 ms and broker",
            "SYNs dropped by a full backlog",
            "until 99 % of the clients had an ack, ms",
            "records that failed",
            "records never resolved",
        ],
    );
}

#[test]
fn leaders_move_and_nobody_asks_twice() {
    for report in moved_leaders::run(&Options { clients: 40, seed: SEED }) {
        let figures =
            ["Metadata requests per client", "records that failed", "records never resolved"];
        holds(&report, &figures);
    }
}

#[test]
fn an_idle_hour_asks_for_little() {
    let options = Options { clients: 200, seed: SEED };
    holds(&idle::run(&options)[0], &["Metadata requests of the busiest client in the hour"]);
}

#[test]
fn a_tenth_of_the_requests_is_refused() {
    let report = errors::injected(0.1, 4, SEED);
    let figures =
        ["requests / batches above the floor", "records that failed", "records never resolved"];
    holds(&report, &figures);
}

/// So few brokers that each client uses all, and only the choices are left to chance.
const SPREAD: Case = Case {
    brokers: 3,
    partitions: 3,
    ordinals: false,
    quiet: false,
    clients: 20,
    rate: 300,
    seed: SEED,
};

#[test]
fn partitions_are_filled_alike_and_new_ones_after_one_refresh() {
    let figures = [
        "max / mean of bytes per partition before",
        "max / mean of bytes per partition after one refresh",
        "refreshes of the busiest client until then",
        "records that failed",
        "records never resolved",
    ];
    holds(&spread::doubled(&SPREAD), &figures);
}

#[test]
fn quiet_clients_find_new_partitions_after_one_refresh() {
    let quiet = Case { quiet: true, clients: 200, rate: 200, ..SPREAD };
    let figures = [
        "share of the new partitions after one refresh, %",
        "refreshes of the busiest client until then",
    ];
    holds(&spread::doubled(&quiet), &figures);
}

#[test]
fn a_slow_broker_gets_what_it_can_carry() {
    let report = slow_broker::of(6, 6, SEED);
    holds(&report, &["records that failed", "records never resolved"]);
    // So few clients make about ninety choices of it: a standard deviation of a ninth.
    let share = report.value("its bytes / its share of the capacity");
    assert!((0.5..=1.5).contains(&share), "seed {SEED}\n{}", report.table());
}

/// As many clients as on the real cluster, with the bounds of the measurements there.
#[test]
fn paths_break_and_records_take_another_one() {
    use paths::How;
    let all = ["ack p99 meanwhile, ms", "records that failed", "records never resolved"];
    let all = [&all[..], &["acknowledged records lost", "records there twice"]].concat();
    for (how, more) in [
        (How::Unreachable, None),
        (How::BlackHole, Some("records that waited over 1 s, %")),
        (How::Throttled, Some("Produce requests on muted lanes")),
        (How::Reset, Some("peak of SYNs per 10 ms and broker")),
    ] {
        let report = paths::broken(how, 40, SEED);
        let figures: Vec<_> = all.iter().copied().chain(more).collect();
        holds(&report, &figures);
        assert!(report.value("records acknowledged") > 10_000.0, "{}", report.table());
        if how == How::Throttled {
            assert!(report.value("clients asked for silence") > 5.0, "{}", report.table());
        }
    }
}

/// What those make of a thousand records a second that gather for a fixed time, and that nobody else's
/// pace is in it; ours is judged beside them.
#[test]
fn ten_million_messages_are_gathered_as_long_as_each_fleet_says() {
    let reports = but_dont::compared(6, Duration::from_secs(4), SEED);
    let [ours, zero, five, ten] = &reports[..] else { panic!("four fleets") };
    let a_thousand = |report: &Report| report.value("requests per 1,000 messages");
    for (report, within) in [(zero, 250.0..=1000.0), (five, 140.0..=200.0), (ten, 80.0..=100.0)] {
        assert!(within.contains(&a_thousand(report)), "{}", report.table());
    }
    for (report, least) in [(five, 5.0), (ten, 10.0)] {
        assert!(report.value("ack p99, ms") >= least, "{}", report.table());
    }
    holds(ours, &["records that failed", "records never resolved"]);
    // A thousand messages a second of each of ten thousand.
    let requests = ours.value("Produce requests/s, all brokers");
    let messages = requests / a_thousand(ours) * 1000.0;
    assert!((9.5e6..1.05e7).contains(&messages), "{}", ours.table());
    let used = |report: &Report| report.value("used of all brokers' time, %");
    assert!(used(zero) > used(five) && used(five) > used(ten), "{}{}", zero.table(), ten.table());
    for report in &reports {
        let busiest = report.value("the busiest broker's, %");
        assert!(busiest >= used(report) && busiest <= 100.5, "{}", report.table());
    }
}

#[test]
fn a_load_that_rises_uses_brokers_up() {
    let (settle, watched) = (Duration::from_secs(2), Duration::from_secs(2));
    let size = load_curve::Size { clients: 5, settle, watched, seed: SEED };
    let reports = load_curve::compared(&size);
    let [ours, zero, five, _] = &reports[..] else { panic!("four fleets") };
    // Capacity is where these use all of it, so that a fifth more is too much.
    let busiest = |load: u32| five.value(&format!("{load} %: busiest broker, %"));
    assert!((85.0..=100.5).contains(&busiest(100)), "{}", five.table());
    assert!(busiest(120) > 95.0 && busiest(10) < 80.0, "{}", five.table());
    // Who gathers nothing is beyond its knee long before.
    let p99 = |report: &Report| report.value("50 %: ack p99, ms");
    assert!(p99(zero) > p99(five), "{}{}", zero.table(), five.table());
    holds(ours, &["records that failed", "records never resolved"]);
}

#[test]
fn an_overload_ends_with_what_was_too_much() {
    let report = overload::of(6, SEED);
    let figures = ["records that failed", "records never resolved", "acknowledged records lost"];
    holds(&report, &figures);
    assert!((75.0..90.0).contains(&report.value("brokers busy before, %")), "{}", report.table());
    let over = report.value("brokers busy in the overload, %");
    assert!(over > 97.0, "{}", report.table());
    holds(&report, &["the one / the other"]);
}
