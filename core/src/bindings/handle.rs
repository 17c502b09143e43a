//! The handle that a binding holds for a client; its producers and consumers are made by it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use super::completion::{CompletionKind, Reply};
use super::consumer::{ConsumerCore, HostConsumer};
use super::deliveries::Deliveries;
use super::echo::Echo;
use super::operations::Operations;
use super::options::{ClientOptions, ConsumerOptions, ProducerOptions};
use super::producer::{HostProducer, ProducerCore};
use super::queue::CompletionQueue;
use crate::admin::NewTopic;
use crate::client::Client;
use crate::cluster::ClusterView;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::fork::{self, Origin};
use crate::metrics::Stats;

/// One client of a host: its queue of completions, and the client that fills it. Cheap to clone; clones are the same
/// client.
#[derive(Clone)]
pub struct HostClient(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) queue: Arc<CompletionQueue>,
    pub(super) operations: Arc<Operations>,
    pub(super) env: Environment,
    parts: Mutex<Parts>,
    closed: AtomicBool,
    origin: Origin,
}

/// The parts that a close ends.
struct Parts {
    /// `None` once closed.
    backend: Option<Backend>,
    producers: Vec<Weak<ProducerCore>>,
    /// Of producers that may be freed already: their records are still on their way.
    deliveries: Vec<Weak<Deliveries>>,
    consumers: Vec<Weak<ConsumerCore>>,
}

#[derive(Clone)]
pub(super) enum Backend {
    Echo(Arc<Echo>),
    Client(Client),
}

impl Shared {
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether this process is a fork of the one that made the client: its locks may be held for
    /// ever, by threads that do not exist here.
    pub(super) fn is_forked(&self) -> bool {
        !self.origin.is_here()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.is_forked() {
            let parts = self.parts.get_mut().unwrap_or_else(|e| e.into_inner());
            std::mem::forget(parts.backend.take());
            std::mem::forget((Arc::clone(&self.queue), Arc::clone(&self.operations)));
        }
    }
}

fn add<T>(list: &mut Vec<Weak<T>>, item: &Arc<T>) {
    list.retain(|i| i.strong_count() > 0);
    list.push(Arc::downgrade(item));
}

impl HostClient {
    /// An engine without a broker: every record is written at once, offsets count up from 0 in
    /// every partition, records without a partition go to partition 0, topics exist when used.
    pub fn echo() -> Result<Self> {
        Self::with(Backend::Echo(Arc::default()))
    }

    /// A client of a cluster. Returns at once; a `Connected` completion with the options' tag tells
    /// whether a broker was reached. Handles may be made and used before it.
    pub fn connect(options: ClientOptions) -> Result<Self> {
        let (client, reached) = options.builder().build_and_reach()?;
        let engine = Self::with(Backend::Client(client))?;
        let reply = Reply::queue(&engine.0.queue, options.tag, CompletionKind::Connected);
        engine.0.operations.start(&engine.0.env, reply, reached);
        Ok(engine)
    }

    /// The same for a thread that waits until a broker was reached, for at most the connect
    /// timeout. Leaves no completion.
    pub fn connect_wait(options: ClientOptions) -> Result<Self> {
        let (client, reached) = options.builder().build_and_reach()?;
        let engine = Self::with(Backend::Client(client))?;
        let (reply, waiter) = Reply::waiter();
        engine.0.operations.start(&engine.0.env, reply, reached);
        // Reaching a broker has its own deadline.
        waiter.wait("connect", None).inspect_err(|_| engine.close())?;
        Ok(engine)
    }

    fn with(backend: Backend) -> Result<Self> {
        let queue = CompletionQueue::new().map_err(|e| {
            Error::new(
                ErrorKind::OutOfResources,
                format!("no descriptor to wake the host with: {e}"),
            )
        })?;
        Ok(Self(Arc::new(Shared {
            queue,
            operations: Arc::default(),
            env: Environment::process(),
            parts: Mutex::new(Parts {
                backend: Some(backend),
                producers: Vec::new(),
                deliveries: Vec::new(),
                consumers: Vec::new(),
            }),
            closed: AtomicBool::new(false),
            origin: Origin::here(),
        })))
    }

    /// Where everything that finishes is found.
    pub fn queue(&self) -> &Arc<CompletionQueue> {
        &self.0.queue
    }

    /// Refuses a client that was inherited through a fork.
    pub fn check_process(&self) -> Result<()> {
        if self.0.is_forked() { Err(fork::forked()) } else { Ok(()) }
    }

    /// Refuses what is asked of a closed engine, or of one inherited through a fork.
    pub(super) fn check(&self, what: &str) -> Result<()> {
        self.check_process()?;
        if self.0.closed.load(Ordering::Acquire) {
            return Err(Error::closed(what));
        }
        Ok(())
    }

    pub(super) fn backend(&self) -> Result<Backend> {
        self.check("client")?;
        self.0.parts().backend.clone().ok_or_else(|| Error::closed("client"))
    }

    /// What the pool of the client has done so far; nothing for an echo.
    pub fn stats(&self) -> Result<Stats> {
        Ok(match self.backend()? {
            Backend::Echo(_) => Stats::default(),
            Backend::Client(client) => client.stats(),
        })
    }

    /// What the client knows of the cluster now; nothing for an echo. No broker is asked.
    pub fn cluster(&self) -> Result<ClusterView> {
        Ok(match self.backend()? {
            Backend::Echo(_) => ClusterView::default(),
            Backend::Client(client) => client.cluster(),
        })
    }

    /// What is in the way of reaching brokers now, in words, for hosts that end waits themselves; `None` if nothing is that is
    /// known.
    pub fn in_the_way(&self) -> Result<Option<String>> {
        Ok(match self.backend()? {
            Backend::Echo(_) => None,
            Backend::Client(client) => client.in_the_way(),
        })
    }

    /// A producer.
    pub fn producer(&self, options: ProducerOptions) -> Result<HostProducer> {
        let core = ProducerCore::new(self, self.backend()?, &options)?;
        let mut parts = self.0.parts();
        if parts.backend.is_none() {
            return Err(Error::closed("client"));
        }
        add(&mut parts.producers, &core);
        add(&mut parts.deliveries, core.deliveries());
        Ok(HostProducer::new(self, core))
    }

    /// A consumer.
    pub fn consumer(&self, options: ConsumerOptions) -> Result<HostConsumer> {
        let core = ConsumerCore::new(self, self.backend()?, &options)?;
        let mut parts = self.0.parts();
        if parts.backend.is_none() {
            return Err(Error::closed("client"));
        }
        add(&mut parts.consumers, &core);
        Ok(HostConsumer::new(self, core))
    }

    /// Creates a topic; ends in a `TopicCreated` completion, whatever comes of it. `partitions`
    /// and `replication` of -1 leave the choice to the cluster.
    pub fn create_topic(&self, tag: u64, topic: &str, partitions: i32, replication: i16) {
        let reply = Reply::queue(&self.0.queue, tag, CompletionKind::TopicCreated);
        self.create_topic_to(reply, topic, partitions, replication);
    }

    /// The same for a thread that waits. After `timeout` (`None`: the request's own), the topic may
    /// still be created.
    pub fn create_topic_wait(
        &self,
        topic: &str,
        partitions: i32,
        replication: i16,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let (reply, waiter) = Reply::waiter();
        self.create_topic_to(reply, topic, partitions, replication);
        waiter.wait("create_topic", timeout).map_err(|error| match self.backend() {
            Ok(Backend::Client(client)) if error.kind() == ErrorKind::Timeout => {
                client.explain(error)
            }
            _ => error,
        })
    }

    fn create_topic_to(&self, reply: Reply, topic: &str, partitions: i32, replication: i16) {
        match self.backend() {
            Err(error) => reply.resolve(Err(error)),
            Ok(Backend::Echo(echo)) => {
                let partitions = if partitions == -1 { 1 } else { partitions };
                reply.resolve(echo.create_topic(topic, partitions));
            }
            Ok(Backend::Client(client)) => {
                let admin = client.admin();
                let topic = NewTopic::new(topic, partitions, replication);
                let work = async move { admin.create_topic(topic).await };
                self.0.operations.start(&self.0.env, reply, work);
            }
        }
    }

    /// Closes the client at once: records and operations still outstanding end with
    /// [`ErrorKind::Closed`], which is found in the queue when this returns, and later calls are
    /// refused with it. Such records may still be written. Idempotent. To have records delivered
    /// first, close their producer first.
    pub fn close(&self) {
        if self.0.is_forked() || self.0.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let (backend, producers, deliveries, consumers) = {
            let mut parts = self.0.parts();
            (
                parts.backend.take(),
                std::mem::take(&mut parts.producers),
                std::mem::take(&mut parts.deliveries),
                std::mem::take(&mut parts.consumers),
            )
        };
        // Producers first: none is in a submission after this, so that none comes after the end.
        producers.iter().filter_map(Weak::upgrade).for_each(|producer| producer.stop());
        let error = Error::closed("client").with_maybe_written(true);
        deliveries.iter().filter_map(Weak::upgrade).for_each(|d| d.fail_all(&error));
        consumers.iter().filter_map(Weak::upgrade).for_each(|consumer| consumer.stop());
        self.0.operations.close();
        drop(backend);
        self.0.queue.end();
    }
}
