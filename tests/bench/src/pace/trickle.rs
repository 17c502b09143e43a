//! Reading what somebody writes slowly: from when a record is handed to the one until the other shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ottla::Record;
use ottla::blocking::Client;
use ottla_bench::{TOPIC, machine, values};
use rustix::time::{ClockId, clock_gettime};

use super::steady::Schedule;
use super::{MEASURED, Paced, Reads, WARM_UP};
use crate::broker;

/// A clock that all processes have: nanoseconds.
fn clock() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Writes, with the same client for whoever reads, in this process and on the brokers' core.
pub(super) struct Feeder {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), String>>,
}

impl Feeder {
    /// `at_once`: each record as a batch of its own.
    pub(super) fn start(bootstrap: &str, rate: u64, at_once: bool) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let (seen, bootstrap) = (Arc::clone(&ends), bootstrap.to_owned());
        let thread = std::thread::spawn(move || write(&bootstrap, rate, at_once, &seen));
        Self { ends, thread }
    }

    pub(super) fn stop(self) -> Result<(), String> {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "it panicked".to_owned())?
    }
}

fn write(bootstrap: &str, rate: u64, at_once: bool, ends: &AtomicBool) -> Result<(), String> {
    machine::pin(broker::CORE);
    let client = Client::connect(bootstrap).map_err(|e| e.to_string())?;
    let producer = client.producer(|b| if at_once { b.linger(Duration::ZERO) } else { b });
    let producer = producer.map_err(|e| e.to_string())?;
    let mut value = values(1)[0];
    let mut schedule = Schedule::new(rate);
    let begun = Instant::now();
    while !ends.load(Ordering::Relaxed) {
        for _ in 0..schedule.due(begun.elapsed()) {
            value[..8].copy_from_slice(&clock().to_le_bytes());
            drop(producer.send(Record::to(TOPIC).value(&value)).map_err(|e| e.to_string())?);
        }
        let next = begun + schedule.next();
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    producer.flush(Some(Duration::from_secs(10))).map_err(|e| e.to_string())
}

pub(super) fn run(reader: &mut impl Reads, rate: u64) -> Result<Paced, String> {
    let begun = Instant::now();
    while begun.elapsed() < WARM_UP {
        reader.next(&mut |_| {})?;
    }
    println!("begins");
    let (from, cpu_before) = (Instant::now(), machine::cpu_time());
    let here_before = machine::thread_cpu_time();
    let mut us: Vec<f64> = Vec::new();
    while from.elapsed() < MEASURED {
        reader.next(&mut |value| {
            let stamp = value.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
            us.push(clock().saturating_sub(stamp) as f64 / 1e3);
        })?;
    }
    let here = machine::thread_cpu_time() - here_before;
    let (cpu, seconds) = (machine::cpu_time() - cpu_before, from.elapsed().as_secs_f64());
    let expected = rate as f64 * seconds;
    if (us.len() as f64 - expected).abs() > expected / 20.0 + 2.0 {
        return Err(format!("{} records came, and {expected:.0} were expected", us.len()));
    }
    us.sort_by(f64::total_cmp);
    let at = |share: f64| us[((us.len() - 1) as f64 * share).round() as usize];
    Ok(Paced {
        p50_us: at(0.5),
        p99_us: at(0.99),
        cpu_us: cpu.as_secs_f64() * 1e6 / us.len() as f64,
        own_us: cpu.saturating_sub(here).as_secs_f64() * 1e6 / us.len() as f64,
        ..Paced::default()
    })
}
