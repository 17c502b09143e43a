//! Consumers of a binding.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::batch::Batch;
use super::echo::{Echo, EchoReader};
use super::group::{GroupEvent, not_a_member};
use super::handle::{Backend, HostClient};
use super::options::{ConsumerOptions, Subscription};
use super::ready::Ready;
use crate::TopicPartition;
use crate::config::Start;
use crate::consumer::{Consumer, ConsumerControl};
use crate::coop;
use crate::error::{Error, Result};

/// A consumer of a binding. Reads from several threads follow one another. What asks and steers (position, lag, seek,
/// pause, resume, assign, unassign, close) waits for none of them.
pub struct HostConsumer {
    pub(super) engine: HostClient,
    core: Arc<ConsumerCore>,
}

pub(super) struct ConsumerCore {
    ready: Arc<Ready>,
    closed: AtomicBool,
    /// Threads that wait for the next.
    waiting: Mutex<usize>,
    backend: ConsumerBackend,
}

enum ConsumerBackend {
    Echo(Arc<Echo>, EchoReader),
    Client {
        /// `None` once closed. Held while a batch is opened, which takes a while.
        reader: Mutex<Option<Box<Consumer>>>,
        control: ConsumerControl,
        /// Closed when a member of a group has left it.
        departure: Option<watch::Receiver<()>>,
    },
}

/// What a look for the next batch finds.
pub enum Next {
    /// A batch.
    Batch(Batch),
    /// Nothing now.
    Nothing,
    /// Each of the partitions that were named has reached its offset.
    Reached,
    /// The group says something.
    Event(GroupEvent),
}

/// Up to where is read; `None`: for ever, and what the group says is told.
type Ends<'a> = Option<&'a [(TopicPartition, i64)]>;

impl Next {
    /// The batch, if it is one.
    pub fn batch(self) -> Option<Batch> {
        match self {
            Next::Batch(batch) => Some(batch),
            Next::Nothing | Next::Reached | Next::Event(_) => None,
        }
    }

    fn fetched(batch: crate::consumer::Batch) -> Self {
        Next::Batch(Batch::fetched(batch))
    }

    fn found(self) -> Option<Self> {
        if let Next::Nothing = self { None } else { Some(self) }
    }
}

impl ConsumerCore {
    pub(super) fn new(
        engine: &HostClient,
        backend: Backend,
        options: &ConsumerOptions,
    ) -> Result<Arc<Self>> {
        let check = |start: Start| start.check();
        match &options.subscription {
            Subscription::Topics(_, start) => check(*start)?,
            Subscription::Partitions(list) => list.iter().try_for_each(|part| check(part.2))?,
        }
        let ready = Ready::new(engine.queue(), options.tag);
        let backend = match backend {
            Backend::Echo(_) if options.group.is_any() => {
                return Err(Error::config("the echo has no groups")
                    .advise("leave the group out, or use the embedded broker"));
            }
            Backend::Echo(echo) => {
                let reader = echo.reader(&options.subscription, &ready)?;
                ConsumerBackend::Echo(echo, reader)
            }
            Backend::Client(client) => {
                let consumer = options.apply(client.consumer()).build()?;
                let (control, departure) = (consumer.control(), consumer.departure());
                let reader = Mutex::new(Some(Box::new(consumer)));
                ConsumerBackend::Client { reader, control, departure }
            }
        };
        let (closed, waiting) = (AtomicBool::new(false), Mutex::default());
        Ok(Arc::new(Self { ready, closed, waiting, backend }))
    }

    pub(super) fn stop(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        if let ConsumerBackend::Client { control, .. } = &self.backend {
            // Refused only where it is another process's.
            let _ = control.close();
        }
        self.let_go();
        self.ready.fire();
    }

    /// Lets go of the consumer once it is closed. A thread that has it, opening a batch, is not waited for: it lets go of it
    /// itself behind that.
    fn let_go(&self) {
        // Pairs with that of the other side: of one that closes and one that gives the lock back, one at least sees what
        // the other did.
        fence(Ordering::SeqCst);
        if !self.closed.load(Ordering::Acquire) {
            return;
        }
        let ConsumerBackend::Client { reader, .. } = &self.backend else { return };
        let consumer = match reader.try_lock() {
            Ok(mut reader) => reader.take(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
            Err(TryLockError::WouldBlock) => None,
        };
        // The last handle of a pool, perhaps: its end is told to whoever listens.
        drop(consumer);
    }

    fn waiting(&self) -> MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn waits_no_more(&self) {
        if let ConsumerBackend::Client { control, .. } = &self.backend {
            control.waits_no_more();
        }
    }

    /// `ends`: up to where; `None`: with what the group says.
    fn look(&self, ends: Ends<'_>) -> Result<Next> {
        let (reader, control) = match &self.backend {
            ConsumerBackend::Echo(echo, reader) => {
                return Ok(reader.next(echo, ends.unwrap_or_default()));
            }
            ConsumerBackend::Client { reader, control, .. } => (reader, control),
        };
        let found = {
            let mut reader = reader.lock().unwrap_or_else(|e| e.into_inner());
            let Some(consumer) = &mut *reader else { return Err(Error::closed("consumer")) };
            let waker = self.ready.waker();
            let cx = &mut Context::from_waker(&waker);
            match ends {
                None => coop::alone(|| consumer.poll_next_event(cx)).map_ok(Next::from),
                Some(ends) => consumer.poll_alone(ends, cx).map_ok(Next::fetched),
            }
        };
        self.let_go();
        match found {
            Poll::Pending => Ok(Next::Nothing),
            Poll::Ready(Some(next)) => next,
            Poll::Ready(None) if reached(control, ends.unwrap_or_default()) => Ok(Next::Reached),
            Poll::Ready(None) => Err(Error::closed("consumer")),
        }
    }
}

/// Whether a consumer that gave `None` did so as each of these partitions is where it was to come to, and not because it is
/// at its end.
pub fn reached(control: &ConsumerControl, ends: &[(TopicPartition, i64)]) -> bool {
    if ends.is_empty() || control.is_closed() {
        return false;
    }
    let is_there = |(part, end): &(TopicPartition, i64)| {
        control.position(&part.topic, part.partition).is_some_and(|at| at >= *end)
    };
    !control.is_over() || ends.iter().all(is_there)
}

impl HostConsumer {
    pub(super) fn new(engine: &HostClient, core: Arc<ConsumerCore>) -> Self {
        Self { engine: engine.clone(), core }
    }

    /// Refuses a consumer that was inherited through a fork.
    pub fn check_process(&self) -> Result<()> {
        self.engine.check_process()
    }

    pub(super) fn check(&self) -> Result<()> {
        self.engine.check("client")?;
        if self.core.closed.load(Ordering::Acquire) {
            return Err(Error::closed("consumer"));
        }
        Ok(())
    }

    /// The next batch, if there is one now. If there is none, one `ConsumerReady` completion with
    /// this consumer's tag comes as soon as it is worth looking again: one for all threads that
    /// looked, so that whoever gets it looks until nothing is left. An error that is not fatal may
    /// be followed by batches. A member of a group counts as waiting then, until it is given something; see
    /// [`waits_no_more`](Self::waits_no_more).
    pub fn try_next(&self) -> Result<Option<Batch>> {
        self.try_next_until(&[]).map(Next::batch)
    }

    /// The same, of whatever partition, until each of these partitions has reached an offset, if any is named. See
    /// [`Consumer::next_until`].
    pub fn try_next_until(&self, ends: &[(TopicPartition, i64)]) -> Result<Next> {
        self.try_look(Some(ends))
    }

    pub(super) fn try_look(&self, ends: Ends<'_>) -> Result<Next> {
        self.check()?;
        let found = self.core.ready.asking(|| self.core.look(ends).map(Next::found))?;
        Ok(found.unwrap_or(Next::Nothing))
    }

    /// Waits for the next batch; `Ok(None)` after `timeout` (`None`: no limit). A close, from
    /// another thread, ends the wait with [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Batch>> {
        self.next_until(&[], timeout).map(Next::batch)
    }

    /// The same as [`try_next_until`](Self::try_next_until), and waits as [`next`](Self::next) does.
    pub fn next_until(
        &self,
        ends: &[(TopicPartition, i64)],
        timeout: Option<Duration>,
    ) -> Result<Next> {
        self.wait_look(Some(ends), timeout)
    }

    pub(super) fn wait_look(&self, ends: Ends<'_>, timeout: Option<Duration>) -> Result<Next> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        *self.core.waiting() += 1;
        let found = loop {
            let seen = self.core.ready.seen();
            match self.check().and_then(|()| self.core.look(ends)) {
                Ok(Next::Nothing) if self.core.ready.wait(seen, deadline) => {}
                found => break found,
            }
        };
        // Locked until it is said: who begins to wait meanwhile asks behind that.
        let mut waiting = self.core.waiting();
        *waiting -= 1;
        if *waiting == 0 && matches!(found, Ok(Next::Nothing)) {
            self.core.waits_no_more();
        }
        drop(waiting);
        found
    }

    /// Nobody waits for the next any more, of those who have looked for it and found nothing: a member of a group has to come back
    /// within the max poll interval. Without this who has looked once counts as waiting until it is given something. (Waits with
    /// a timeout say it by themselves.)
    pub fn waits_no_more(&self) {
        if self.engine.0.is_forked() {
            return;
        }
        let waiting = self.core.waiting();
        if *waiting == 0 {
            self.core.waits_no_more();
        }
    }

    /// The offset behind what was handed out or passed over; before the first record where reading begins, once that is
    /// known. `None` until then, if it is not read here, and once it is closed.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        self.check().ok()?;
        match &self.core.backend {
            ConsumerBackend::Echo(_, reader) => reader.position(topic, partition),
            ConsumerBackend::Client { control, .. } => control.position(topic, partition),
        }
    }

    /// How many offsets lie between that and the partition's end, as its leader told it last: nobody is asked. `None` where
    /// one of the two is not known.
    pub fn lag(&self, topic: &str, partition: i32) -> Option<i64> {
        self.check().ok()?;
        match &self.core.backend {
            ConsumerBackend::Echo(echo, reader) => reader.lag(echo, topic, partition),
            ConsumerBackend::Client { control, .. } => control.lag(topic, partition),
        }
    }

    /// Goes on at `to` in a partition that is read here.
    pub fn seek(&self, topic: &str, partition: i32, to: Start) -> Result<()> {
        self.check()?;
        to.check()?;
        match &self.core.backend {
            ConsumerBackend::Echo(echo, reader) => {
                self.steered(reader.seek(echo, topic, partition, to))
            }
            ConsumerBackend::Client { control, .. } => control.seek(topic, partition, to),
        }
    }

    /// See [`Consumer::pause`].
    pub fn pause(&self, partitions: &[(&str, i32)]) -> Result<()> {
        self.check()?;
        match &self.core.backend {
            ConsumerBackend::Echo(_, reader) => reader.pause(partitions, true),
            ConsumerBackend::Client { control, .. } => control.pause(partitions.iter().copied()),
        }
    }

    /// See [`Consumer::resume`].
    pub fn resume(&self, partitions: &[(&str, i32)]) -> Result<()> {
        self.check()?;
        match &self.core.backend {
            ConsumerBackend::Echo(_, reader) => self.steered(reader.pause(partitions, false)),
            ConsumerBackend::Client { control, .. } => control.resume(partitions.iter().copied()),
        }
    }

    /// See [`Consumer::paused`].
    pub fn paused(&self) -> Result<Vec<TopicPartition>> {
        self.check()?;
        Ok(match &self.core.backend {
            ConsumerBackend::Echo(_, reader) => reader.paused(),
            ConsumerBackend::Client { control, .. } => control.paused(),
        })
    }

    /// See [`Consumer::assign`].
    pub fn assign(&self, partitions: &[(&str, i32, Start)]) -> Result<()> {
        self.check()?;
        match &self.core.backend {
            ConsumerBackend::Echo(echo, reader) => self.steered(reader.assign(echo, partitions)),
            ConsumerBackend::Client { control, .. } => control.assign(partitions.iter().copied()),
        }
    }

    /// See [`Consumer::unassign`].
    pub fn unassign(&self, partitions: &[(&str, i32)]) -> Result<()> {
        self.check()?;
        match &self.core.backend {
            ConsumerBackend::Echo(_, reader) => reader.unassign(partitions),
            ConsumerBackend::Client { control, .. } => control.unassign(partitions.iter().copied()),
        }
    }

    /// See [`Consumer::assignment`].
    pub fn assignment(&self) -> Result<Vec<TopicPartition>> {
        self.check()?;
        Ok(match &self.core.backend {
            ConsumerBackend::Echo(echo, reader) => reader.assignment(echo),
            ConsumerBackend::Client { control, .. } => control.assignment(),
        })
    }

    /// The echo has no engine that would wake who waits.
    fn steered(&self, done: Result<()>) -> Result<()> {
        if done.is_ok() {
            self.core.ready.fire();
        }
        done
    }

    /// What asks and steers a consumer of a cluster.
    pub(super) fn control(&self) -> Result<&ConsumerControl> {
        match &self.core.backend {
            ConsumerBackend::Echo(..) => Err(not_a_member()),
            ConsumerBackend::Client { control, .. } => Ok(control),
        }
    }

    pub(super) fn departure(&self) -> Option<watch::Receiver<()>> {
        match &self.core.backend {
            ConsumerBackend::Echo(..) => None,
            ConsumerBackend::Client { departure, .. } => departure.clone(),
        }
    }

    /// Stops fetching, without a wait for a thread that reads; a member of a group commits what is done and leaves it in the
    /// background. Idempotent; later calls are refused.
    pub fn close(&self) {
        if !self.engine.0.is_forked() {
            self.core.stop();
        }
    }
}

impl Drop for HostConsumer {
    fn drop(&mut self) {
        if self.engine.0.is_forked() {
            // Nothing of it may be touched here, not even to drop it.
            std::mem::forget(Arc::clone(&self.core));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::options::ClientOptions;
    use super::*;

    /// Somebody has the reader, as while a batch is decompressed. What asks and steers goes by, a close too, and the
    /// consumer is let go of by who has it.
    #[test]
    fn nobody_who_steers_waits_for_who_reads() {
        let options = ClientOptions { bootstrap: "a:1".into(), ..Default::default() };
        let client = HostClient::connect(options).unwrap();
        let of = Subscription::Partitions(vec![("t".into(), 0, Start::Offset(5))]);
        let consumer = Arc::new(client.consumer(ConsumerOptions::new(of)).unwrap());
        let core = Arc::clone(&consumer.core);
        let ConsumerBackend::Client { reader, .. } = &core.backend else { unreachable!() };
        let mut held = reader.lock().unwrap();
        let (told, done) = mpsc::channel();
        let steers = std::thread::spawn({
            let consumer = Arc::clone(&consumer);
            move || {
                let parts = [("t", 0)];
                consumer.assign(&[("t", 1, Start::Offset(7))]).unwrap();
                consumer.pause(&parts).unwrap();
                assert_eq!(consumer.paused().unwrap().len(), 1);
                consumer.resume(&parts).unwrap();
                consumer.seek("t", 0, Start::Offset(6)).unwrap();
                let positions = [0, 1].map(|part| consumer.position("t", part));
                assert_eq!((positions, consumer.lag("t", 0)), ([Some(6), Some(7)], None));
                consumer.unassign(&parts).unwrap();
                assert_eq!(consumer.assignment().unwrap().len(), 1);
                consumer.close();
                told.send(()).unwrap();
            }
        });
        let patience = Duration::from_secs(60);
        assert_eq!(done.recv_timeout(patience), Ok(()), "it waits for the reader");
        steers.join().unwrap();
        assert!(held.is_some());
        let waker = core.ready.waker();
        let look = held.as_mut().unwrap().poll_alone(&[], &mut Context::from_waker(&waker));
        assert!(matches!(look, Poll::Ready(None)));
        drop(held);
        core.let_go();
        assert!(reader.lock().unwrap().is_none());
        client.close();
    }
}
