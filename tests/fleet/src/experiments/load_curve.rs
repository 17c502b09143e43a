//! Experiment 18: the load rises from a tenth of what brokers can do to a fifth more than that. Where each
//! way to gather has its knee, and how soon all is well again after the overload.
//!
//! What they can do is defined by clients that gather for 5 ms, as those of others do: with a thousand
//! messages a second of each, all of the brokers' time is used. Load is messages: each client sends as
//! many more.

use std::time::Duration;

use ottla_test_broker::Price;

use super::Options;
use super::priced::{Fleet, RATE, Seen, back_after, each, every, size, threads_there};
use crate::lab::{Lab, virtual_time};
use crate::plot::Plot;
use crate::report::{Report, Target};

/// Loads, in per cent of what brokers can do. A small fleet leaves some of them out.
const LOADS: [u32; 12] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120];
const FEWER: [u32; 7] = [10, 20, 30, 50, 80, 100, 120];
const SMALL: u32 = 100;
/// From this load on no more requests than those of 5 ms.
const BUSY: u32 = 50;
/// After the last of them.
const AFTERWARDS: u32 = 80;
/// Until what brokers felt while clients started is forgotten.
const WARM: Duration = Duration::from_secs(4);
/// Until a load is what it is.
const SETTLE: Duration = Duration::from_secs(3);
const WATCHED: Duration = Duration::from_secs(2);
/// Seconds watched after the overload.
const SECONDS: usize = 12;
/// What an ack may take on this side of the knee: the longest that batches gather, and what is beside
/// that.
const KNEE_MS: f64 = 25.0;

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Producers.
    pub clients: u32,
    /// Passes before each load is watched.
    pub settle: Duration,
    /// How long each is watched.
    pub watched: Duration,
    /// Every draw follows from it.
    pub seed: u64,
}

/// The curve of one fleet.
struct Curve {
    points: Vec<Point>,
    /// p99 of the records of each second after the overload.
    after: Vec<f64>,
    failed: f64,
    unresolved: f64,
    plot: Plot,
}

struct Point {
    load: u32,
    seen: Seen,
    p50: f64,
    p99: f64,
}

impl Curve {
    fn at(&self, load: u32) -> &Point {
        self.points.iter().find(|point| point.load == load).expect("one of the loads")
    }

    /// The highest load up to which every one is acknowledged in time.
    fn knee(&self) -> f64 {
        let within = self.points.iter().take_while(|point| point.p99 <= KNEE_MS);
        within.last().map_or(0.0, |point| point.load.into())
    }

    /// Seconds until records take no longer than at that load before.
    fn back(&self) -> f64 {
        back_after(&self.after, self.at(AFTERWARDS).p99 * 1.25 + 1.0)
    }
}

/// The experiment.
pub fn run(options: &Options) -> Vec<Report> {
    compared(&Size { clients: size(options), settle: SETTLE, watched: WATCHED, seed: options.seed })
}

/// All fleets.
pub fn compared(size: &Size) -> Vec<Report> {
    let (price, worked) = full(size);
    let mut curves = each(|fleet| of(fleet, price, size));
    let there = threads_there(worked, size.clients);
    let about = format!(
        "{} producers send 10 to 120 % of {RATE} messages/s each, for which brokers have just enough \
         time if they gather for 5 ms ({there:.1} request threads for each of 20 brokers and 10,000 \
         producers)",
        size.clients
    );
    let mut reports = Vec::new();
    for (index, fleet) in Fleet::ALL.into_iter().enumerate() {
        let mut report = Report::new(format!("18 {}", fleet.name()), about.as_str());
        let plot = std::mem::take(&mut curves[index].plot);
        let ours = fleet == Fleet::Ours;
        let curve = &curves[index];
        for point in &curve.points {
            let load = point.load;
            let best = curves[1..].iter().map(|curve| curve.at(load).p99);
            let best = best.fold(f64::INFINITY, f64::min);
            let target = if ours { Target::AtMost(best) } else { Target::Told };
            report.figure(format!("{load} %: ack p99, ms"), point.p99, target);
            report.figure(format!("{load} %: ack p50, ms"), point.p50, Target::Told);
            let five = curves[2].at(load).seen.requests;
            let judged = ours && load >= BUSY;
            let target = if judged { Target::AtMost(five) } else { Target::Told };
            report.figure(format!("{load} %: requests/s"), point.seen.requests, target);
            let busiest = point.seen.busiest * 100.0;
            report.figure(format!("{load} %: busiest broker, %"), busiest, Target::Told);
        }
        let within = format!("knee: the load up to which 99 % take {KNEE_MS} ms at most, %");
        report.figure(within, curve.knee(), Target::Told);
        let judged = |target: Target| if ours { target } else { Target::Told };
        let back = judged(Target::AtMost(10.0));
        report.figure("back after the overload, s", curve.back(), back);
        report.figure("records that failed", curve.failed, judged(Target::AtMost(0.0)));
        report.figure("records never resolved", curve.unresolved, judged(Target::AtMost(0.0)));
        report.plot = Some(plot);
        reports.push(report);
    }
    reports
}

/// The price at which clients that gather for 5 ms use all of the time of brokers with one thread; and
/// what part of a thread that time is at the price that was measured.
fn full(size: &Size) -> (Price, f64) {
    let cheap = Price { threads: 1, ..Price::MEASURED.times(0.01) };
    let worked = virtual_time(async {
        let mut lab = Fleet::Fixed(5).open(size.clients, cheap, size.seed).await;
        lab.pass(Duration::from_secs(1)).await;
        let used = Seen::of(&mut lab, "steady", size.watched).await.used;
        lab.drain(Duration::from_secs(150)).await;
        used
    });
    (cheap.times(1.0 / worked), worked * 100.0)
}

fn set(lab: &Lab, load: u32) {
    let rate = RATE * f64::from(load) / 100.0;
    lab.members.iter().for_each(|member| member.send_every(every(rate)));
}

fn of(fleet: Fleet, price: Price, size: &Size) -> Curve {
    virtual_time(async {
        let mut lab = fleet.open(size.clients, price, size.seed).await;
        lab.pass(WARM).await;
        let mut seen = Vec::new();
        let loads = if size.clients < SMALL { &FEWER[..] } else { &LOADS[..] };
        for &load in loads {
            set(&lab, load);
            lab.phase("between");
            lab.pass(size.settle).await;
            seen.push((load, Seen::of(&mut lab, &format!("{load} %"), size.watched).await));
        }
        set(&lab, AFTERWARDS);
        let seconds: Vec<String> = (0..SECONDS).map(|second| format!("after {second} s")).collect();
        for second in &seconds {
            lab.phase(second);
            lab.pass(Duration::from_secs(1)).await;
        }
        lab.phase("end");
        lab.drain(Duration::from_secs(150)).await;
        let total = lab.ledger.total();
        let points = seen.into_iter().map(|(load, seen)| {
            let [p50, p99] = [0.5, 0.99].map(|share| seen.quantile(&lab, share));
            Point { load, seen, p50, p99 }
        });
        Curve {
            points: points.collect(),
            after: seconds.iter().map(|second| lab.ledger.of(second).quantile(0.99)).collect(),
            failed: total.failed as f64,
            unresolved: total.unresolved() as f64,
            plot: lab.plot(),
        }
    })
}
