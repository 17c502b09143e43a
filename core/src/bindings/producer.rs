//! Producers of a binding.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::completion::{Completion, CompletionKind, Reply};
use super::deliveries::Deliveries;
use super::echo::Echo;
use super::handle::{Backend, HostClient};
use super::options::ProducerOptions;
use super::pack::{Entry, Packed};
use super::queue::{CompletionQueue, MAX_UNDRAINED};
use crate::caught::caught;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::park::block_on;
use crate::producer::{Producer, Record, RunSink};

/// The immediate result of a submission.
#[derive(Debug)]
pub struct Submitted {
    /// This many records, from the first on, were accepted: each of them is part of exactly one
    /// `Delivery` completion.
    pub accepted: usize,
    /// Why the next record was not accepted. [`ErrorKind::BufferFull`]: submit the rest after a
    /// `Space` completion with the producer's tag.
    pub refused: Option<Error>,
}

impl Submitted {
    fn nothing(error: Error) -> Self {
        Self { accepted: 0, refused: Some(error) }
    }
}

/// A producer of a binding. Usable from many threads at once. What one is given one submission after the
/// other is in that order within a partition, whichever threads submit it; see [`Producer`].
pub struct HostProducer {
    engine: HostClient,
    core: Arc<ProducerCore>,
}

pub(super) struct ProducerCore {
    tag: u64,
    closed: AtomicBool,
    /// Read-locked during a submission: when [`ProducerCore::stop`] has written `None`, no
    /// submission is under way and none will be.
    backend: RwLock<Option<ProducerBackend>>,
    deliveries: Arc<Deliveries>,
    space: Arc<Space>,
    /// `true` once a close is through.
    ended: watch::Sender<bool>,
}

#[derive(Clone)]
enum ProducerBackend {
    Echo { echo: Arc<Echo>, max_record_size: usize },
    Client(Producer),
}

impl ProducerCore {
    pub(super) fn new(
        engine: &HostClient,
        backend: Backend,
        options: &ProducerOptions,
    ) -> Result<Arc<Self>> {
        let backend = match backend {
            Backend::Echo(echo) => ProducerBackend::Echo {
                echo,
                max_record_size: options.max_record_size.unwrap_or(1 << 20),
            },
            Backend::Client(client) => {
                ProducerBackend::Client(options.apply(client.producer()).build()?)
            }
        };
        let queue = engine.queue();
        Ok(Arc::new(Self {
            tag: options.tag,
            closed: AtomicBool::new(false),
            backend: RwLock::new(Some(backend)),
            deliveries: Deliveries::new(queue),
            space: Arc::new(Space {
                tag: options.tag,
                queue: Arc::clone(queue),
                asked: AtomicBool::new(false),
            }),
            ended: watch::Sender::new(false),
        }))
    }

    pub(super) fn deliveries(&self) -> &Arc<Deliveries> {
        &self.deliveries
    }

    /// Takes no more records. Waits for submissions that are under way, which do not wait for
    /// anything themselves.
    pub(super) fn stop(&self) {
        self.closed.store(true, Ordering::Release);
        let backend = self.backend.write().unwrap_or_else(|e| e.into_inner()).take();
        // The last handle of a pool, perhaps: its end is told to whoever listens.
        drop(backend);
    }

    fn backend(&self) -> Option<ProducerBackend> {
        self.backend.read().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

/// Tells a producer that was refused for lack of space that there is some.
struct Space {
    tag: u64,
    queue: Arc<CompletionQueue>,
    /// A task waits for space: one completion for all refusals until then.
    asked: AtomicBool,
}

impl Space {
    /// `before`: releases of memory before the refusal.
    fn ask(self: &Arc<Self>, env: &Environment, producer: &Producer, bytes: usize, before: u64) {
        if self.asked.swap(true, Ordering::AcqRel) {
            return;
        }
        let free = producer.space_free(bytes, before);
        let this = Arc::clone(self);
        env.spawn(async move {
            // Told in any case: who hears of space that is not there is refused once more.
            let _ = caught(free).await;
            // In this order: a refusal between the two asks anew, and is told twice.
            this.asked.store(false, Ordering::Release);
            this.tell();
        });
    }

    fn tell(&self) {
        if !self.queue.ended() {
            self.queue.push(Completion::operation(self.tag, CompletionKind::Space, None));
        }
    }
}

impl HostProducer {
    pub(super) fn new(engine: &HostClient, core: Arc<ProducerCore>) -> Self {
        Self { engine: engine.clone(), core }
    }

    /// Refuses a producer that was inherited through a fork.
    pub fn check_process(&self) -> Result<()> {
        self.engine.check_process()
    }

    fn check(&self) -> Result<()> {
        self.engine.check("client")?;
        if self.core.closed.load(Ordering::Acquire) {
            return Err(Error::closed("producer"));
        }
        Ok(())
    }

    /// Submits records in the packed form (see [`Packed`]): all of `bytes`, which hold `count`.
    pub fn submit_packed(&self, tag: u64, topic: &str, bytes: &[u8], count: usize) -> Submitted {
        match Packed::parse(bytes, count) {
            Ok(packed) => self.submit(tag, topic, packed.entries()),
            Err(error) => Submitted::nothing(error),
        }
    }

    /// Submits records in order, without waiting; stops at the first that is not accepted. At
    /// most `u32::MAX` records.
    pub fn submit<'r>(
        &self,
        tag: u64,
        topic: &str,
        entries: impl Iterator<Item = Entry<'r>>,
    ) -> Submitted {
        if let Err(error) = self.check() {
            return Submitted::nothing(error);
        }
        let queue = self.engine.queue();
        if queue.overfull(self.core.tag) {
            let words = format!("{MAX_UNDRAINED} completions wait to be drained");
            let error = Error::new(ErrorKind::BufferFull, words);
            return Submitted::nothing(error.advise("drain them, then send on"));
        }
        let backend = self.core.backend.read().unwrap_or_else(|e| e.into_inner());
        match &*backend {
            None => Submitted::nothing(Error::closed("producer")),
            Some(ProducerBackend::Echo { echo, max_record_size }) => {
                let (accepted, refused) = echo.append(queue, tag, topic, *max_record_size, entries);
                Submitted { accepted, refused }
            }
            Some(ProducerBackend::Client(producer)) => {
                self.submit_to(producer, tag, topic, entries)
            }
        }
    }

    fn submit_to<'r>(
        &self,
        producer: &Producer,
        tag: u64,
        topic: &str,
        entries: impl Iterator<Item = Entry<'r>>,
    ) -> Submitted {
        let sink: Arc<dyn RunSink> = Arc::clone(&self.core.deliveries) as _;
        // What the record that is refused, the last that is looked at, would take.
        let wanted = Cell::new(0);
        let records = entries.map(|entry| {
            wanted.set(entry.footprint());
            record(topic, &entry)
        });
        let id = self.core.deliveries.begin(tag);
        let before = producer.releases();
        let (accepted, refused) = producer.submit_run(&sink, id, records);
        // Callers give at most `u32::MAX` records.
        self.core.deliveries.accepted(id, u32::try_from(accepted).unwrap_or(u32::MAX));
        if refused.as_ref().is_some_and(|e| e.kind() == ErrorKind::BufferFull) {
            self.core.space.ask(&self.engine.0.env, producer, wanted.get(), before);
        }
        Submitted { accepted, refused }
    }

    /// Ends in a `Flushed` completion once everything accepted before is resolved. What failed is in the
    /// queue before it.
    pub fn flush(&self, tag: u64) {
        self.flush_to(Reply::queue(self.engine.queue(), tag, CompletionKind::Flushed));
    }

    /// The same for a thread that waits. Fails with [`ErrorKind::Undelivered`] if records failed since
    /// the last report whose completions nobody has drained.
    pub fn flush_wait(&self, timeout: Option<Duration>) -> Result<()> {
        let (reply, waiter) = Reply::waiter();
        self.flush_to(reply);
        let begun = Instant::now();
        waiter.wait("flush", timeout).map_err(|error| match self.core.backend() {
            Some(ProducerBackend::Client(producer)) if error.kind() == ErrorKind::Timeout => {
                producer.explain(error)
            }
            _ => error,
        })?;
        let left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        self.report(left)
    }

    /// The outcome of a wait for all records: what failed, and lies in the queue. Who drains has a moment to
    /// look at it first, as far as there is time for that; without it is told all the same.
    fn report(&self, timeout: Option<Duration>) -> Result<()> {
        let unread = Arc::clone(self.core.deliveries.unread());
        let report = unread.report(&self.engine.0.env);
        block_on(report, timeout)
            .unwrap_or_else(|| unread.take().map_or(Ok(()), |lost| Err(lost.into())))
    }

    fn flush_to(&self, reply: Reply) {
        if let Err(error) = self.check() {
            return reply.resolve(Err(error));
        }
        match self.core.backend() {
            None => reply.resolve(Err(Error::closed("producer"))),
            Some(ProducerBackend::Echo { .. }) => reply.resolve(Ok(())),
            Some(ProducerBackend::Client(producer)) => {
                let shared = &self.engine.0;
                shared.operations.start(&shared.env, reply, async move { producer.flush().await });
            }
        }
    }

    /// Takes no more records, delivers what was accepted, for at most `timeout`; what is left then
    /// fails, and so does the close, with [`ErrorKind::Timeout`]. Ends in a `Closed` completion.
    /// Closing again ends when the first close has.
    pub fn close(&self, tag: u64, timeout: Duration) {
        self.close_to(Reply::queue(self.engine.queue(), tag, CompletionKind::Closed), timeout);
    }

    /// The same for a thread that waits. Fails with [`ErrorKind::Undelivered`] as
    /// [`flush_wait`](Self::flush_wait) does.
    pub fn close_wait(&self, timeout: Duration) -> Result<()> {
        let (reply, waiter) = Reply::waiter();
        self.close_to(reply, timeout);
        // The close has its own deadline and always resolves.
        let closed = waiter.wait("close", None);
        let undelivered = if self.engine.0.is_forked() { Ok(()) } else { self.report(None) };
        match (closed, undelivered) {
            (Err(e), Err(lost)) => Err(e.with_undelivered(lost.undelivered().cloned())),
            (closed, undelivered) => closed.and(undelivered),
        }
    }

    fn close_to(&self, reply: Reply, timeout: Duration) {
        if self.engine.0.is_forked() {
            let error = self.check().err().unwrap_or_else(|| Error::closed("client"));
            return reply.resolve(Err(error));
        }
        let again = self.core.closed.swap(true, Ordering::AcqRel);
        let shared = &self.engine.0;
        let core = Arc::clone(&self.core);
        match self.core.backend() {
            // Closed before, or with the client, which has told what became of its records.
            None => reply.resolve(Ok(())),
            Some(ProducerBackend::Echo { .. }) => {
                self.core.stop();
                reply.resolve(Ok(()));
            }
            Some(ProducerBackend::Client(_)) if again => {
                let mut ended = self.core.ended.subscribe();
                shared.operations.start(&shared.env, reply, async move {
                    // Fails only when the sender is gone, which `core` keeps.
                    let _ = ended.wait_for(|ended| *ended).await;
                    drop(core);
                    Ok(())
                });
            }
            Some(ProducerBackend::Client(producer)) => {
                let ending = CloseGuard(core);
                shared.operations.start(&shared.env, reply, async move {
                    let outcome = producer.close(timeout).await;
                    drop(producer);
                    drop(ending);
                    outcome
                });
            }
        }
    }
}

/// A close that is under way; when it is through, or cut short, the producer lets go of its client.
struct CloseGuard(Arc<ProducerCore>);

impl Drop for CloseGuard {
    fn drop(&mut self) {
        self.0.stop();
        self.0.ended.send_replace(true);
    }
}

impl Drop for HostProducer {
    fn drop(&mut self) {
        if self.engine.0.is_forked() {
            // Nothing of it may be touched here, not even to drop it.
            std::mem::forget(Arc::clone(&self.core));
        }
    }
}

fn record<'a>(topic: &'a str, entry: &Entry<'a>) -> Record<'a> {
    let mut record =
        Record::to(topic).key_opt(entry.key).value_opt(entry.value).headers(entry.headers);
    if let Some(partition) = entry.partition {
        record = record.partition(partition);
    }
    if let Some(ms) = entry.timestamp_ms {
        record = record.timestamp_ms(ms);
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;

    /// One task and one completion for all refusals until there is space; then as for the first.
    #[test]
    fn refusals_wait_for_space_together() {
        let client = Client::builder().bootstrap("localhost:1").build().unwrap();
        let producer = client.producer().build().unwrap();
        let queue = CompletionQueue::new().unwrap();
        let env = Environment::builder().build();
        let space = || {
            let (queue, asked) = (Arc::clone(&queue), AtomicBool::new(false));
            Arc::new(Space { tag: 8, queue, asked })
        };
        let now = producer.releases();
        let waited_for = space();
        for _ in 0..3 {
            waited_for.ask(&env, &producer, 1, now);
        }
        assert_eq!(Arc::strong_count(&waited_for), 2, "this test and one task");
        let there = space();
        for _ in 0..2 {
            // Of a moment that is over: something was given back since.
            there.ask(&env, &producer, 1, now + 1);
            assert!(queue.wait(Some(Duration::from_secs(20))), "nobody tells of the space");
            let mut told = Vec::new();
            queue.drain(&mut told, usize::MAX);
            let told: Vec<_> = told.iter().map(|c| (c.kind, c.tag)).collect();
            assert_eq!(told, [(CompletionKind::Space, 8)]);
        }
    }

    /// From the moment of the close on, while what was accepted before is still delivered.
    #[test]
    fn a_producer_that_closes_takes_no_more() {
        let engine = HostClient::echo().unwrap();
        let producer = engine.producer(ProducerOptions::default()).unwrap();
        producer.core.closed.store(true, Ordering::Release);
        let done = producer.submit(1, "t", std::iter::once(Entry::default()));
        assert_eq!(done.refused.expect("a refusal").kind(), ErrorKind::Closed);
        assert_eq!(producer.flush_wait(None).unwrap_err().kind(), ErrorKind::Closed);
    }
}
