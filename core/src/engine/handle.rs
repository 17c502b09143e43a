//! The handles that a skin holds: one [`Engine`] per client, its producers and its consumers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use super::argument_error;
use super::batch::Batch;
use super::completion::{CompletionKind, Reply};
use super::echo::{Echo, EchoReader};
use super::options::{ClientOptions, ConsumerOptions, ProducerOptions, Start};
use super::pack::{Entry, Packed};
use super::queue::{CompletionQueue, MAX_UNDRAINED};
use super::ready::Ready;
use crate::error::{Error, ErrorKind, Result};

/// One client of a skin: a queue and what fills it. Cheap to clone; clones are the same client.
#[derive(Clone)]
pub struct Engine(Arc<Shared>);

struct Shared {
    queue: Arc<CompletionQueue>,
    backend: Backend,
    closed: AtomicBool,
    /// Consumers, whose waits a close ends.
    consumers: Mutex<Vec<Weak<Ready>>>,
    pid: u32,
}

enum Backend {
    Echo(Echo),
}

/// What became of a submission.
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

impl Shared {
    fn consumers(&self) -> MutexGuard<'_, Vec<Weak<Ready>>> {
        self.consumers.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Engine {
    /// An engine without a broker: every record is written at once, offsets count up from 0 in
    /// every partition, records without a partition go to partition 0, topics exist when used.
    pub fn echo() -> Result<Self> {
        Self::with(|_| Ok(Backend::Echo(Echo::default())))
    }

    /// A client of a cluster. Returns at once; a `Connected` completion with the options' tag tells
    /// whether a broker was reached. Handles may be made and used before it.
    pub fn connect(options: ClientOptions) -> Result<Self> {
        let _ = options;
        Err(Error::new(ErrorKind::Internal, "this build has no connections"))
    }

    /// The same for a thread that waits until a broker was reached, for at most the connect
    /// timeout. Leaves no completion.
    pub fn connect_wait(options: ClientOptions) -> Result<Self> {
        Self::connect(options)
    }

    fn with(backend: impl FnOnce(&Arc<CompletionQueue>) -> Result<Backend>) -> Result<Self> {
        let queue = CompletionQueue::new().map_err(|e| {
            Error::new(ErrorKind::Internal, format!("the wake-up descriptor was not made: {e}"))
        })?;
        let backend = backend(&queue)?;
        Ok(Self(Arc::new(Shared {
            queue,
            backend,
            closed: AtomicBool::new(false),
            consumers: Mutex::default(),
            pid: std::process::id(),
        })))
    }

    /// Where everything that finishes is found.
    pub fn queue(&self) -> &Arc<CompletionQueue> {
        &self.0.queue
    }

    /// Refuses what is asked of a closed engine, or of one inherited through a fork.
    fn check(&self, what: &str) -> Result<()> {
        if self.0.pid != std::process::id() {
            return Err(Error::new(
                ErrorKind::Forked,
                "this process is a fork of the one that made the client",
            ));
        }
        if self.0.closed.load(Ordering::Acquire) {
            return Err(Error::closed(what));
        }
        Ok(())
    }

    /// A producer.
    pub fn producer(&self, options: ProducerOptions) -> Result<EngineProducer> {
        self.check("client")?;
        let backend = match &self.0.backend {
            Backend::Echo(_) => ProducerBackend::Echo {
                max_record_size: options.max_record_size.unwrap_or(1 << 20),
            },
        };
        Ok(EngineProducer {
            engine: self.clone(),
            tag: options.tag,
            closed: AtomicBool::new(false),
            backend,
        })
    }

    /// A consumer.
    pub fn consumer(&self, options: ConsumerOptions) -> Result<EngineConsumer> {
        self.check("client")?;
        let ready = Ready::new(&self.0.queue, options.tag);
        let backend = match &self.0.backend {
            Backend::Echo(echo) => {
                ConsumerBackend::Echo(echo.reader(&options.subscription, &ready)?)
            }
        };
        let mut consumers = self.0.consumers();
        consumers.retain(|c| c.strong_count() > 0);
        consumers.push(Arc::downgrade(&ready));
        drop(consumers);
        Ok(EngineConsumer {
            engine: self.clone(),
            ready,
            closed: AtomicBool::new(false),
            backend: Mutex::new(backend),
        })
    }

    /// Creates a topic; ends in a `TopicCreated` completion, whatever comes of it. `partitions`
    /// and `replication` of -1 leave the choice to the cluster.
    pub fn create_topic(&self, tag: u64, topic: &str, partitions: i32, replication: i16) {
        let reply = Reply::queue(&self.0.queue, tag, CompletionKind::TopicCreated);
        self.create_topic_to(reply, topic, partitions, replication);
    }

    /// The same for a thread that waits.
    pub fn create_topic_wait(
        &self,
        topic: &str,
        partitions: i32,
        replication: i16,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let (reply, waiter) = Reply::waiter();
        self.create_topic_to(reply, topic, partitions, replication);
        waiter.wait("create_topic", timeout)
    }

    fn create_topic_to(&self, reply: Reply, topic: &str, partitions: i32, _replication: i16) {
        if let Err(error) = self.check("client") {
            return reply.resolve(Err(error));
        }
        match &self.0.backend {
            Backend::Echo(echo) => {
                reply.resolve(
                    echo.create_topic(topic, if partitions == -1 { 1 } else { partitions }),
                );
            }
        }
    }

    /// Closes the client at once: operations still outstanding end with [`ErrorKind::Closed`],
    /// which is found in the queue, and later calls are refused with it. Idempotent. To have
    /// records delivered first, close their producer first.
    pub fn close(&self) {
        if self.0.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        match &self.0.backend {
            Backend::Echo(_) => {}
        }
        let consumers = std::mem::take(&mut *self.0.consumers());
        consumers.iter().filter_map(Weak::upgrade).for_each(|ready| ready.fire());
        self.0.queue.end();
    }
}

/// A producer of a skin. Usable from many threads at once.
pub struct EngineProducer {
    engine: Engine,
    tag: u64,
    closed: AtomicBool,
    backend: ProducerBackend,
}

enum ProducerBackend {
    Echo { max_record_size: usize },
}

impl EngineProducer {
    fn check(&self) -> Result<()> {
        self.engine.check("client")?;
        if self.closed.load(Ordering::Acquire) {
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
        let queue = &self.engine.0.queue;
        if queue.overfull(self.tag) {
            return Submitted::nothing(Error::new(
                ErrorKind::BufferFull,
                format!("{MAX_UNDRAINED} completions wait to be drained; drain them, then send on"),
            ));
        }
        match (&self.backend, &self.engine.0.backend) {
            (ProducerBackend::Echo { max_record_size }, Backend::Echo(echo)) => {
                let (accepted, refused) = echo.append(queue, tag, topic, *max_record_size, entries);
                Submitted { accepted, refused }
            }
        }
    }

    /// Ends in a `Flushed` completion once everything accepted before is resolved.
    pub fn flush(&self, tag: u64) {
        self.flush_to(Reply::queue(&self.engine.0.queue, tag, CompletionKind::Flushed));
    }

    /// The same for a thread that waits.
    pub fn flush_wait(&self, timeout: Option<Duration>) -> Result<()> {
        let (reply, waiter) = Reply::waiter();
        self.flush_to(reply);
        waiter.wait("flush", timeout)
    }

    fn flush_to(&self, reply: Reply) {
        if let Err(error) = self.check() {
            return reply.resolve(Err(error));
        }
        match &self.backend {
            ProducerBackend::Echo { .. } => reply.resolve(Ok(())),
        }
    }

    /// Takes no more records, delivers what was accepted, for at most `timeout`; what is left
    /// then fails with [`ErrorKind::Closed`]. Ends in a `Closed` completion. Idempotent.
    pub fn close(&self, tag: u64, timeout: Duration) {
        self.close_to(Reply::queue(&self.engine.0.queue, tag, CompletionKind::Closed), timeout);
    }

    /// The same for a thread that waits.
    pub fn close_wait(&self, timeout: Duration) -> Result<()> {
        let (reply, waiter) = Reply::waiter();
        self.close_to(reply, timeout);
        // The close has its own deadline and always resolves.
        waiter.wait("close", None)
    }

    fn close_to(&self, reply: Reply, _timeout: Duration) {
        self.closed.store(true, Ordering::Release);
        match &self.backend {
            ProducerBackend::Echo { .. } => reply.resolve(Ok(())),
        }
    }
}

/// A consumer of a skin. Calls from several threads follow one another.
pub struct EngineConsumer {
    engine: Engine,
    ready: Arc<Ready>,
    closed: AtomicBool,
    backend: Mutex<ConsumerBackend>,
}

enum ConsumerBackend {
    Echo(EchoReader),
}

impl EngineConsumer {
    fn check(&self) -> Result<()> {
        self.engine.check("client")?;
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::closed("consumer"));
        }
        Ok(())
    }

    fn look(&self) -> Result<Option<Batch>> {
        self.check()?;
        let mut backend = self.backend.lock().unwrap_or_else(|e| e.into_inner());
        match (&mut *backend, &self.engine.0.backend) {
            (ConsumerBackend::Echo(reader), Backend::Echo(echo)) => Ok(reader.next(echo)),
        }
    }

    /// The next batch, if there is one now. If there is none, one `ConsumerReady` completion with
    /// this consumer's tag comes as soon as it is worth looking again. An error that is not fatal
    /// may be followed by batches.
    pub fn try_next(&self) -> Result<Option<Batch>> {
        self.ready.ask();
        let found = self.look();
        if !matches!(found, Ok(None)) {
            self.ready.take_back();
        }
        found
    }

    /// Waits for the next batch; `Ok(None)` after `timeout` (`None`: no limit). A close, from
    /// another thread, ends the wait with [`ErrorKind::Closed`].
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Batch>> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        loop {
            let seen = self.ready.seen();
            if let Some(batch) = self.look()? {
                return Ok(Some(batch));
            }
            if !self.ready.wait(seen, deadline) {
                return Ok(None);
            }
        }
    }

    /// The offset of the next record that will be handed out; `None` if it is not read here or
    /// not known yet.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        match &*self.backend.lock().unwrap_or_else(|e| e.into_inner()) {
            ConsumerBackend::Echo(reader) => reader.position(topic, partition),
        }
    }

    /// Goes on at `to` in a partition that is read here.
    pub fn seek(&self, topic: &str, partition: i32, to: Start) -> Result<()> {
        self.check()?;
        if let Start::Offset(offset) = to
            && offset < 0
        {
            return Err(argument_error(format!("offset is {offset}; 0 at least")));
        }
        let mut backend = self.backend.lock().unwrap_or_else(|e| e.into_inner());
        match (&mut *backend, &self.engine.0.backend) {
            (ConsumerBackend::Echo(reader), Backend::Echo(echo)) => {
                reader.seek(echo, topic, partition, to)
            }
        }
    }

    /// Stops fetching. Idempotent; later calls are refused.
    pub fn close(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.ready.fire();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Completion, Subscription, pack};

    fn all(topic: &str) -> ConsumerOptions {
        ConsumerOptions::new(Subscription::Topics(vec![topic.into()], Start::Earliest))
    }

    fn drain(engine: &Engine) -> Vec<Completion> {
        let mut out = Vec::new();
        engine.queue().drain(&mut out, usize::MAX);
        out
    }

    fn value(v: &[u8]) -> Entry<'_> {
        Entry { value: Some(v), ..Entry::default() }
    }

    #[test]
    fn an_echo_round_trip() {
        let engine = Engine::echo().unwrap();
        let producer = engine.producer(ProducerOptions::default()).unwrap();
        let consumer = engine.consumer(ConsumerOptions { tag: 5, ..all("t") }).unwrap();
        assert!(consumer.try_next().unwrap().is_none());

        let headers: [(&str, Option<&[u8]>); 2] = [("a", Some(b"1")), ("a", None)];
        let mut bytes = Vec::new();
        let first =
            Entry { key: Some(b"k"), timestamp_ms: Some(77), headers: &headers, ..value(b"x") };
        pack(&mut bytes, &first);
        pack(&mut bytes, &Entry::default());
        pack(&mut bytes, &Entry { partition: Some(3), ..value(b"z") });
        let done = producer.submit_packed(9, "t", &bytes, 3);
        assert_eq!(done.accepted, 3);
        assert!(done.refused.is_none());

        let told = drain(&engine);
        let brief: Vec<_> =
            told.iter().map(|c| (c.kind, c.tag, c.first, c.count, c.partition, c.offset)).collect();
        assert_eq!(
            brief,
            [
                (CompletionKind::Delivery, 9, 0, 2, 0, 0),
                (CompletionKind::Delivery, 9, 2, 1, 3, 0),
                (CompletionKind::ConsumerReady, 5, 0, 0, -1, -1),
            ]
        );
        let batch = consumer.try_next().unwrap().expect("two records");
        assert_eq!((batch.topic(), batch.partition(), batch.len()), ("t", 0, 2));
        let record = batch.get(0).unwrap();
        assert_eq!((record.key, record.value), (Some(&b"k"[..]), Some(&b"x"[..])));
        assert_eq!((record.offset, record.timestamp_ms), (0, 77));
        assert_eq!(record.headers.collect::<Vec<_>>(), headers);
        assert_eq!(batch.get(1).unwrap().value, None);
        assert!(batch.get(2).is_none());
        let batch = consumer.next(None).unwrap().expect("one record");
        assert_eq!((batch.partition(), batch.get(0).unwrap().value), (3, Some(&b"z"[..])));
        assert_eq!(consumer.position("t", 0), Some(2));
        assert!(consumer.next(Some(Duration::ZERO)).unwrap().is_none());
        consumer.seek("t", 0, Start::Offset(1)).unwrap();
        assert_eq!(consumer.try_next().unwrap().unwrap().get(0).unwrap().offset, 1);
    }

    #[test]
    fn a_record_too_large_ends_the_call_and_the_rest_is_kept() {
        let engine = Engine::echo().unwrap();
        let options = ProducerOptions { max_record_size: Some(4), ..Default::default() };
        let producer = engine.producer(options).unwrap();
        let done = producer.submit(1, "t", [value(b"1234"), value(b"12345")].into_iter());
        assert_eq!(done.accepted, 1);
        assert_eq!(done.refused.unwrap().kind(), ErrorKind::RecordTooLarge);
        assert_eq!(drain(&engine).len(), 1);
    }

    #[test]
    fn closed_handles_refuse_and_every_operation_still_ends() {
        let engine = Engine::echo().unwrap();
        let producer = engine.producer(ProducerOptions::default()).unwrap();
        let consumer = engine.consumer(all("t")).unwrap();
        producer.close_wait(Duration::ZERO).unwrap();
        producer.close(1, Duration::ZERO);
        let refused = producer.submit(2, "t", [value(b"v")].into_iter()).refused.unwrap();
        assert_eq!(refused.kind(), ErrorKind::Closed);
        producer.flush(3);
        engine.create_topic(4, "made", 2, 1);
        engine.create_topic(5, "made", 2, 1);
        std::thread::scope(|scope| {
            scope.spawn(|| engine.close());
            let ended = consumer.next(None);
            assert_eq!(ended.err().expect("closed").kind(), ErrorKind::Closed);
        });
        engine.close();
        engine.create_topic(6, "more", 2, 1);
        let told: Vec<_> =
            drain(&engine).into_iter().map(|c| (c.tag, c.error.map(|e| e.kind()))).collect();
        assert_eq!(
            told,
            [
                (1, None),
                (3, Some(ErrorKind::Closed)),
                (4, None),
                (5, Some(ErrorKind::TopicExists)),
                (6, Some(ErrorKind::Closed)),
            ]
        );
        assert_eq!(engine.consumer(all("t")).err().unwrap().kind(), ErrorKind::Closed);
    }
}
