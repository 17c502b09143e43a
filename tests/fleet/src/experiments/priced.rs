//! What experiments have in common whose brokers have a price: fleets that differ in how they gather, how
//! a small fleet stands for a large one, and what is seen of a stretch of time.
//!
//! A client uses six brokers of however many there are. So six brokers see of N clients what each of
//! twenty sees of 3,000, if the fleet is of 10,000: only that 3,000 is N. A broker here has a single
//! request thread, and a request takes as much longer as there are fewer clients for each thread of a
//! broker that has all of its own. Clients, their links and what they make of them are as they are. What
//! is not: a broker that works on one thing at a time, for longer, lets things wait for longer, the more
//! so the smaller the fleet is: a millisecond or two where nearly all of its time is used.

use std::time::Duration;

use ottla::testing::PaceLimits;
use ottla_test_broker::Price;

use super::{Options, highest, since};
use crate::client::Load;
use crate::lab::{Lab, Setup, TOPIC};
use crate::net::Api;

/// Brokers of the lab.
pub(super) const BROKERS: i32 = 6;
/// The fleet that a small one stands for, and those of it that send to each of twenty brokers.
pub(super) const CLIENTS: f64 = 10_000.0;
const CLIENTS_OF_A_BROKER: f64 = CLIENTS * 6.0 / 20.0;
/// What each client of those sends in a second.
pub(super) const RATE: f64 = 1_000.0;

/// No bucket and nothing that brokers feel: batches gather for their linger and go.
const UNPACED: PaceLimits =
    PaceLimits { per_second: 0.0, burst: 0.0, least: 0.0, longest: Duration::ZERO };

/// Requests that a client in default settings saves up.
const SAVED_UP: f64 = 20.0;

/// A client keeps to a partition until it has had a batch's worth. Where few clients send to a broker,
/// half as many again may do so at one time, which in a large fleet hardly happens. With small
/// batches they part sooner than that is felt; none of the fleets fills one while brokers keep up.
const BATCH: usize = 4 << 10;

/// Clients that differ in how long they gather records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fleet {
    /// Default settings, in the long run: what a client saves up while it sends little lasts a fleet for
    /// ten seconds or more, in which it is one that gathers nothing. Here as much is saved up as evens
    /// out what comes at random.
    Ours,
    /// For so many milliseconds, whatever is felt.
    Fixed(u64),
}

impl Fleet {
    /// Those that are compared.
    pub const ALL: [Self; 4] = [Self::Ours, Self::Fixed(0), Self::Fixed(5), Self::Fixed(10)];

    /// What it is called.
    pub fn name(self) -> String {
        match self {
            Self::Ours => "defaults".to_owned(),
            Self::Fixed(ms) => format!("linger {ms} ms"),
        }
    }

    pub(super) fn load(self) -> Load {
        let (linger, pace) = match self {
            Self::Ours => (None, PaceLimits { burst: SAVED_UP, ..PaceLimits::default() }),
            Self::Fixed(ms) => (Some(Duration::from_millis(ms)), UNPACED),
        };
        let load = Load { every: Some(every(RATE)), at_random: true, ..Load::of(TOPIC) };
        Load { linger, pace, batch: Some(BATCH), ..load }
    }

    /// A lab with so many of its clients, all connected.
    pub(super) async fn open(self, clients: u32, price: Price, seed: u64) -> Lab {
        let setup = Setup { brokers: BROKERS, price: Some(price), ..Setup::new(seed) };
        let mut lab = Lab::open(&setup);
        lab.add_producers(clients, Duration::from_secs(2), &self.load());
        lab.all_connected().await;
        lab
    }
}

/// The fleets side by side, each in a thread of its own.
pub(super) fn each<T: Send>(run: impl Fn(Fleet) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let run = &run;
        let threads = Fleet::ALL.map(|fleet| scope.spawn(move || run(fleet)));
        threads.map(|thread| thread.join().expect("it has said why")).into()
    })
}

/// A fortieth of the fleet, and enough to stand for a large one.
pub(super) fn size(options: &Options) -> u32 {
    (options.clients / 40).max(50)
}

/// The time from one record to the next.
pub(super) fn every(rate: f64) -> Duration {
    Duration::from_secs_f64(1.0 / rate)
}

/// A broker with one thread that is as busy with so many clients as one at this price with 3,000.
pub(super) fn scaled(price: Price, clients: u32) -> Price {
    let times = CLIENTS_OF_A_BROKER / f64::from(clients) / price.threads as f64;
    Price { threads: 1, ..price.times(times) }
}

/// Request threads that each of twenty brokers needs for 10,000 clients, if so many keep one busy for
/// such a part of its time here.
pub(super) fn threads_there(busy: f64, clients: u32) -> f64 {
    busy * CLIENTS_OF_A_BROKER / f64::from(clients)
}

/// What is seen of a stretch of time; how long its records took is known when all of them have resolved.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    phase: String,
    /// Produce requests a second.
    pub(super) requests: f64,
    /// The share of its time that the busiest broker worked.
    pub(super) busiest: f64,
    /// The same of all brokers together.
    pub(super) used: f64,
}

impl Seen {
    /// Lets a stretch of time pass.
    pub(super) async fn of(lab: &mut Lab, phase: &str, time: Duration) -> Self {
        let produced = |lab: &Lab| -> u64 {
            let requests = |log: &crate::net::Log| {
                log.by_broker().iter().map(|requests| requests[Api::Produce as usize]).sum()
            };
            lab.network.log(requests)
        };
        let worked = |lab: &Lab| -> Vec<u64> {
            lab.worked().iter().map(|worked| worked.as_micros() as u64).collect()
        };
        lab.phase(phase);
        let before = (produced(lab), worked(lab));
        lab.pass(time).await;
        let worked = since(&worked(lab), &before.1);
        let all: u64 = worked.iter().sum();
        let micros = time.as_micros() as f64;
        Self {
            phase: phase.to_owned(),
            requests: (produced(lab) - before.0) as f64 / time.as_secs_f64(),
            busiest: highest(&worked) / micros,
            used: all as f64 / micros / worked.len() as f64,
        }
    }

    /// Milliseconds within which this share (0 to 1) of the records was acknowledged that were sent in it.
    pub(super) fn quantile(&self, lab: &Lab, share: f64) -> f64 {
        lab.ledger.of(&self.phase).quantile(share)
    }
}

/// After how many seconds no second is worse any more than this, of what was measured second by second.
pub(super) fn back_after(seconds: &[f64], bound: f64) -> f64 {
    match seconds.iter().rposition(|p99| *p99 > bound) {
        None => 0.0,
        Some(last) if last + 1 < seconds.len() => (last + 1) as f64,
        Some(_) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_back_when_it_stays_back() {
        assert_eq!(back_after(&[3.0, 4.0, 5.0], 5.0), 0.0);
        assert_eq!(back_after(&[90.0, 4.0, 6.0, 5.0, 5.0], 5.0), 3.0);
        assert!(back_after(&[90.0, 4.0, 6.0], 5.0).is_nan(), "it is not back yet");
    }

    #[test]
    fn a_thread_here_has_the_load_of_a_thread_there() {
        let price = Price {
            threads: 8,
            request: Duration::from_micros(40),
            batch: Duration::from_micros(8),
            record: Duration::from_nanos(800),
            kib: Duration::from_micros(1),
        };
        let small = scaled(price, 30);
        assert_eq!((small.threads, small.request), (1, Duration::from_micros(500)));
        assert_eq!(
            (small.batch, small.record),
            (Duration::from_micros(100), Duration::from_micros(10))
        );
        assert_eq!(
            scaled(price, 3_000).request * 8,
            price.request,
            "the same fleet, one fast thread"
        );
    }
}
