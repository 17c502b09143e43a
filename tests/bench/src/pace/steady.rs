//! So many records a second, whatever comes of those before: one thread hands them over, another waits for
//! their acknowledgements in the order in which they were sent.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use ottla_bench::{machine, values};

use super::{Driven, MEASURED, Paced, WARM_UP};

/// Where records are more than one in so long, as many as are due are handed over together: nobody sleeps
/// for less.
const TICK: Duration = Duration::from_millis(1);

pub(super) fn run<D: Driven>(driver: &D, rate: u64) -> Result<Paced, String> {
    let value = values(1)[0];
    D::wait(driver.send(&value)?)?;
    let (tx, rx) = mpsc::channel::<(Instant, D::Handle)>();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let acks = scope.spawn(move || -> Result<_, String> {
            let (mut took, mut cpu_before) = (Vec::new(), None);
            for (sent, handle) in rx {
                if cpu_before.is_none() && sent.duration_since(begun) >= WARM_UP {
                    cpu_before = Some(machine::thread_cpu_time());
                }
                D::wait(handle)?;
                took.push((sent, sent.elapsed()));
            }
            let cpu = machine::thread_cpu_time();
            Ok((took, cpu.saturating_sub(cpu_before.unwrap_or_default())))
        });
        let mut schedule = Schedule::new(rate);
        let mut measured_from = None;
        loop {
            let now = Instant::now();
            if now - begun >= WARM_UP && measured_from.is_none() {
                println!("begins");
                let here = machine::thread_cpu_time();
                measured_from = Some((Instant::now(), machine::cpu_time(), here));
            }
            if now - begun >= WARM_UP + MEASURED {
                break;
            }
            for _ in 0..schedule.due(now - begun) {
                let sent = Instant::now();
                tx.send((sent, driver.send(&value)?)).map_err(|_| "a record failed".to_owned())?;
            }
            let next = begun + schedule.next();
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let (from, cpu_before, here_before) = measured_from.ok_or("nothing was measured")?;
        let (cpu, seconds) = (machine::cpu_time() - cpu_before, from.elapsed().as_secs_f64());
        let here = machine::thread_cpu_time() - here_before;
        drop(tx);
        let (took, there) =
            acks.join().map_err(|_| "the thread that waits panicked".to_owned())??;
        let mut us: Vec<f64> = took
            .iter()
            .filter(|(sent, _)| *sent >= from)
            .map(|(_, took)| took.as_secs_f64() * 1e6)
            .collect();
        us.sort_by(f64::total_cmp);
        let at = |share: f64| us[((us.len() - 1) as f64 * share).round() as usize];
        Ok(Paced {
            p50_us: at(0.5),
            p99_us: at(0.99),
            cpu_us: cpu.as_secs_f64() * 1e6 / (rate as f64 * seconds),
            own_us: cpu.saturating_sub(here + there).as_secs_f64() * 1e6 / (rate as f64 * seconds),
            ..Paced::default()
        })
    })
}

/// When records are due. Not in step with any client's timers: each somewhere in its millisecond, or, if they
/// are few, in the first tenth of its part of the time, as none waits for the next one then.
pub(super) struct Schedule {
    rate: u64,
    part: Duration,
    given: u64,
    parts: u64,
    next: Duration,
    state: u64,
}

impl Schedule {
    pub(super) fn new(rate: u64) -> Self {
        let part = TICK.max(Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX));
        Self { rate, part, given: 0, parts: 0, next: Duration::ZERO, state: 0x5eed }
    }

    pub(super) fn next(&self) -> Duration {
        self.next
    }

    /// How many, by then.
    pub(super) fn due(&mut self, elapsed: Duration) -> u64 {
        let mut due = 0;
        while self.next <= elapsed {
            self.parts += 1;
            // By the whole, so that no rounding adds up.
            let until = self.part.as_nanos() * u128::from(self.parts) * u128::from(self.rate);
            let by_then = (until / 1_000_000_000) as u64;
            due += by_then - self.given;
            self.given = by_then;
            // An LCG, Knuth's constants: the same for every client.
            self.state = self
                .state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let within = (self.state >> 33) as f64 / f64::from(1u32 << 31);
            let width = if self.part > TICK { self.part / 10 } else { self.part };
            self.next = self.part * self.parts as u32 + width.mul_f64(within);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_asked_for_and_not_in_step() {
        for rate in super::super::RATES {
            let mut schedule = Schedule::new(rate);
            let mut sent = schedule.due(Duration::ZERO);
            let mut pauses = Vec::new();
            let mut last = Duration::ZERO;
            while schedule.next() < Duration::from_secs(10) {
                let now = schedule.next();
                pauses.push(now - last);
                last = now;
                sent += schedule.due(now);
            }
            assert!(sent.abs_diff(10 * rate) <= rate / 10, "{rate}: {sent}");
            pauses.sort_unstable();
            pauses.dedup();
            assert!(pauses.len() > 50, "{rate}: {} pauses", pauses.len());
        }
    }
}
