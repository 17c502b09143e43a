//! librdkafka through its Rust binding, in default settings, to be run beside.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Statistics};
use tokio::sync::oneshot;

use super::{Client, Fate, Place};

/// What a dropped producer waits for records that are left: none are, unless a run is given up.
const CLOSING: Duration = Duration::from_secs(5);

/// Where a delivery report goes, and what the library last said of itself.
#[derive(Clone, Debug, Default)]
struct Context(Arc<Mutex<Vec<(String, u64)>>>);

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let all = statistics.brokers.into_values();
        // Connection attempts, failed ones too, by `host:port/id`.
        let connects = all.map(|b| (b.name, u64::try_from(b.connects.unwrap_or(0)).unwrap_or(0)));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = connects.collect();
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<oneshot::Sender<Result<Place, String>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Self::DeliveryOpaque) {
        let fate = match result {
            Ok(m) => Ok(Place { partition: m.partition(), offset: m.offset() }),
            Err((e, _)) => Err(e.to_string()),
        };
        // Nobody waits any more.
        let _ = waiting.send(fate);
    }
}

/// A producer of librdkafka: a client in its words.
pub struct RdkafkaClient {
    producer: ThreadedProducer<Context>,
    context: Context,
}

impl RdkafkaClient {
    /// A client by that name, idempotent like the others are by default.
    ///
    /// # Errors
    /// The library's, in words.
    pub fn new(bootstrap: &str, id: &str) -> Result<Self, String> {
        let context = Context::default();
        let producer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("client.id", id)
            .set("enable.idempotence", "true")
            .set("statistics.interval.ms", "500")
            .create_with_context(context.clone())
            .map_err(|e| format!("{id}: {e}"))?;
        Ok(Self { producer, context })
    }

    /// Attempts to connect to a port since the client exists, as of the last half second.
    pub fn attempts(&self, port: u16) -> u64 {
        let all = self.context.0.lock().unwrap_or_else(PoisonError::into_inner);
        let named = format!(":{port}/");
        all.iter().filter(|(name, _)| name.contains(&named)).map(|(_, connects)| connects).sum()
    }
}

impl Client for RdkafkaClient {
    fn send(&self, topic: &str, value: &str) -> Fate {
        let (tx, rx) = oneshot::channel();
        let record: BaseRecord<'_, (), str, _> =
            BaseRecord::with_opaque_to(topic, Box::new(tx)).payload(value);
        let refused = self.producer.send(record).err().map(|(e, _)| e.to_string());
        Box::pin(async move {
            match refused {
                Some(words) => Err(words),
                None => rx.await.unwrap_or_else(|_| Err("its producer ended".to_owned())),
            }
        })
    }
}

impl Drop for RdkafkaClient {
    fn drop(&mut self) {
        let _ = self.producer.flush(CLOSING);
    }
}
