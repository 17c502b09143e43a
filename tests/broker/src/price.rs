//! What work costs a broker, and the queue before its request threads.
//!
//! Without a price a broker answers at once, however much is asked of it: nobody pays for requests,
//! and no client learns that there are too many. With one, every request takes its turn at one of
//! the broker's request threads (`num.io.threads`) and its answer goes out when the work is done:
//!
//! ```text
//! connections ──one request each──> queue ──in order──> k threads ──cost of the request──> answers
//! ```
//!
//! A request takes effect when it arrives, as one in a real broker's queue does whether or not its
//! sender still waits; what it pays is time. Waiting for replicas or for data occupies no thread, as
//! in Kafka's purgatory. Followers ask for nothing here: what replication costs has to be in the price.
//!
//! Nothing grows: a queue is one moment for each thread, and a connection has one request in it, whose
//! answer is out before the next is read. So answers of a connection come in order however many threads
//! there are.
//!
//! # What a real broker takes
//!
//! `cargo xtask bench broker-price` reads the processor's time of Kafka 4.3 (one node, no followers, Java
//! as in production) while 40 connections ask, acks=all and up to five in flight, and takes off what
//! it takes when nobody asks. On two cores, together with who asked and with other work that kept both
//! busy, 10 s each:
//!
//! | Produce requests/s | of them answered | cores | us a request |
//! |---|---|---|---|
//! | 0 | | 0.07 | |
//! | 1,000 (a record of 100 bytes each) | 1,000 | 0.27 | 196 |
//! | 10,000 | 10,059 | 0.81 | 74 |
//! | 50,000 | 14,855 | 0.88 | 54 |
//! | 2,000 | 2,000 | 0.38 | 156 |
//! | 2,000 of 10,000 bytes | 2,000 | 0.55 | 238 |
//! | 2,000 of 93 records of 100 bytes | 2,000 | 0.50 | 215 |
//!
//! A broker that has little to do pays mostly for waking its threads up, so a price that is the same
//! for every request is that of a busy one: 54 us for all that a small request brings
//! ([`Price::MEASURED`]). 50,000 a second could not be reached there. By the last three lines 1,024 bytes
//! are 6 to 8 us where little is done, and 92 records more than their bytes are nothing that can be told
//! from chance; what a batch more costs was not found, since the broker could not keep up with requests of
//! six. These three parts are estimates.

use std::time::Duration;

/// What requests cost a broker in time of one of its request threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Request threads: so many requests are worked on at the same time. At least 1.
    pub threads: usize,
    /// For a request of any kind.
    pub request: Duration,
    /// For each batch of records that a Produce request holds.
    pub batch: Duration,
    /// For each record in them.
    pub record: Duration,
    /// For 1,024 bytes of a request, or of the batches in the answer to a Fetch.
    pub kib: Duration,
}

impl Price {
    /// About what Kafka 4.3 takes where it is busy, on a machine with as many cores as it has request
    /// threads by default. A small request is measured, how it is made up is estimated: see the module.
    pub const MEASURED: Self = Self {
        threads: 8,
        request: Duration::from_micros(48),
        batch: Duration::from_micros(5),
        record: Duration::from_nanos(100),
        kib: Duration::from_micros(5),
    };

    /// The same broker with so many times the time for each piece of work: with 4, a fourth of the
    /// clients are the same load to it.
    #[must_use]
    pub fn times(self, times: f64) -> Self {
        Self {
            threads: self.threads,
            request: self.request.mul_f64(times),
            batch: self.batch.mul_f64(times),
            record: self.record.mul_f64(times),
            kib: self.kib.mul_f64(times),
        }
    }

    /// What so much work costs.
    pub fn of(&self, work: Work) -> Duration {
        let times = |each: Duration, count: u64| each.as_nanos() * u128::from(count);
        let nanos = times(self.request, work.requests)
            + times(self.batch, work.batches)
            + times(self.record, work.records)
            + times(self.kib, work.bytes) / 1024;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Work that a broker is asked to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Requests.
    pub requests: u64,
    /// Batches of records to append.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of the requests, and of batches in answers.
    pub bytes: u64,
}

/// The threads and what waits for them. Times are since any moment that stays the same.
#[derive(Debug)]
pub(crate) struct Queue {
    /// When each thread has done what it was given so far.
    free_at: Vec<Duration>,
    /// Time of all threads that was given away so far.
    given: Duration,
    longest_wait: Duration,
}

impl Queue {
    pub(crate) fn new(threads: usize) -> Self {
        let free_at = vec![Duration::ZERO; threads.max(1)];
        Self { free_at, given: Duration::ZERO, longest_wait: Duration::ZERO }
    }

    /// Work arrives; gives when it is done. Who comes first is served first, by the thread that is
    /// free first.
    pub(crate) fn take(&mut self, now: Duration, cost: Duration) -> Duration {
        let thread = self.free_at.iter_mut().min().expect("at least one thread");
        let start = now.max(*thread);
        *thread = start + cost;
        self.given += cost;
        self.longest_wait = self.longest_wait.max(start - now);
        *thread
    }

    /// Time that the threads have worked until now. What they have been given and not done lies
    /// ahead of them without a gap: they are idle only before what they have.
    pub(crate) fn worked(&self, now: Duration) -> Duration {
        let ahead: Duration = self.free_at.iter().map(|at| at.saturating_sub(now)).sum();
        self.given - ahead
    }

    /// The longest that anything has waited for a thread.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.longest_wait
    }
}

#[cfg(test)]
mod tests;
