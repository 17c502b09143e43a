//! Consumers of a binding.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::batch::Batch;
use super::echo::{Echo, EchoReader};
use super::handle::{Backend, HostClient};
use super::options::{ConsumerOptions, Subscription};
use super::ready::Ready;
use crate::config::Start;
use crate::consumer::{Consumer, ConsumerControl};
use crate::error::{Error, Result};

/// A consumer of a binding. Calls from several threads follow one another.
pub struct HostConsumer {
    engine: HostClient,
    core: Arc<ConsumerCore>,
}

pub(super) struct ConsumerCore {
    ready: Arc<Ready>,
    closed: AtomicBool,
    /// `None` once closed. Held while a batch is opened, which takes a while.
    backend: Mutex<Option<ConsumerBackend>>,
    /// Of a consumer of a client: what asks and steers it does not wait for who reads.
    control: Option<ConsumerControl>,
}

enum ConsumerBackend {
    Echo(Arc<Echo>, EchoReader),
    Client(Box<Consumer>),
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
        let (backend, control) = match backend {
            Backend::Echo(echo) => {
                let reader = echo.reader(&options.subscription, &ready)?;
                (ConsumerBackend::Echo(echo, reader), None)
            }
            Backend::Client(client) => {
                let consumer = options.apply(client.consumer()).build()?;
                let control = consumer.control();
                (ConsumerBackend::Client(Box::new(consumer)), Some(control))
            }
        };
        let backend = Mutex::new(Some(backend));
        Ok(Arc::new(Self { ready, closed: AtomicBool::new(false), backend, control }))
    }

    fn backend(&self) -> MutexGuard<'_, Option<ConsumerBackend>> {
        self.backend.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn stop(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            // A thread that is in a call finishes it first; none of them waits with the lock.
            let backend = self.backend().take();
            // The last handle of a pool, perhaps: its end is told to whoever listens.
            drop(backend);
            self.ready.fire();
        }
    }
}

impl HostConsumer {
    pub(super) fn new(engine: &HostClient, core: Arc<ConsumerCore>) -> Self {
        Self { engine: engine.clone(), core }
    }

    /// Refuses a consumer that was inherited through a fork.
    pub fn check_process(&self) -> Result<()> {
        self.engine.check_process()
    }

    fn check(&self) -> Result<()> {
        self.engine.check("client")?;
        if self.core.closed.load(Ordering::Acquire) {
            return Err(Error::closed("consumer"));
        }
        Ok(())
    }

    /// One look at a time. `ask`: for a completion, if there is nothing.
    fn look(&self, ask: bool) -> Result<Option<Batch>> {
        self.check()?;
        let mut backend = self.core.backend();
        let mut look = || match &mut *backend {
            None => Err(Error::closed("consumer")),
            Some(ConsumerBackend::Echo(echo, reader)) => Ok(reader.next(echo)),
            Some(ConsumerBackend::Client(consumer)) => {
                let waker = self.core.ready.waker();
                match consumer.poll_alone(&mut Context::from_waker(&waker)) {
                    Poll::Pending => Ok(None),
                    Poll::Ready(Some(next)) => next.map(|batch| Some(Batch::fetched(batch))),
                    Poll::Ready(None) => Err(Error::closed("consumer")),
                }
            }
        };
        if ask { self.core.ready.asking(look) } else { look() }
    }

    /// The next batch, if there is one now. If there is none, one `ConsumerReady` completion with
    /// this consumer's tag comes as soon as it is worth looking again: one for all threads that
    /// looked, so that whoever gets it looks until nothing is left. An error that is not fatal may
    /// be followed by batches.
    pub fn try_next(&self) -> Result<Option<Batch>> {
        self.look(true)
    }

    /// Waits for the next batch; `Ok(None)` after `timeout` (`None`: no limit). A close, from
    /// another thread, ends the wait with [`ErrorKind::Closed`](crate::ErrorKind::Closed).
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Batch>> {
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        loop {
            let seen = self.core.ready.seen();
            if let Some(batch) = self.look(false)? {
                return Ok(Some(batch));
            }
            if !self.core.ready.wait(seen, deadline) {
                return Ok(None);
            }
        }
    }

    /// The offset of the next record that will be handed out; `None` if it is not read here or
    /// not known yet.
    pub fn position(&self, topic: &str, partition: i32) -> Option<i64> {
        if self.engine.0.is_forked() {
            return None;
        }
        if let Some(control) = &self.core.control {
            return control.position(topic, partition).filter(|_| !control.is_closed());
        }
        match &*self.core.backend() {
            Some(ConsumerBackend::Echo(_, reader)) => reader.position(topic, partition),
            _ => None,
        }
    }

    /// Goes on at `to` in a partition that is read here.
    pub fn seek(&self, topic: &str, partition: i32, to: Start) -> Result<()> {
        self.check()?;
        to.check()?;
        if let Some(control) = &self.core.control {
            return control.seek(topic, partition, to);
        }
        match &mut *self.core.backend() {
            Some(ConsumerBackend::Echo(echo, reader)) => reader.seek(echo, topic, partition, to),
            _ => Err(Error::closed("consumer")),
        }
    }

    /// Stops fetching. Idempotent; later calls are refused.
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
