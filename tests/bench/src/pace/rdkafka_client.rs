//! librdkafka with settings that nobody has touched, through its Rust binding: callbacks on the thread that it
//! polls by itself.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use ottla_bench::TOPIC;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};

use super::{Driven, Reads};
use crate::broker::PARTITIONS;

/// Tells whoever waits for a record what became of it.
struct Tell;

impl ClientContext for Tell {}

impl ProducerContext for Tell {
    type DeliveryOpaque = Box<SyncSender<Result<(), String>>>;

    fn delivery(&self, result: &DeliveryResult<'_>, tell: Self::DeliveryOpaque) {
        let result = result.as_ref().map(|_| ()).map_err(|(e, _)| e.to_string());
        // Who does not wait does not care.
        let _ = tell.send(result);
    }
}

pub(super) struct Driver(ThreadedProducer<Tell>);

impl Driver {
    pub(super) fn connect(bootstrap: &str, at_once: bool) -> Result<Self, String> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        if at_once {
            config.set("linger.ms", "0");
        }
        config.create_with_context(Tell).map(Self).map_err(|e| e.to_string())
    }
}

impl Driven for Driver {
    type Handle = Receiver<Result<(), String>>;

    fn send(&self, value: &[u8]) -> Result<Self::Handle, String> {
        let (tx, rx) = sync_channel(1);
        let record = BaseRecord::<(), _, _>::with_opaque_to(TOPIC, Box::new(tx)).payload(value);
        self.0.send(record).map_err(|(e, _)| e.to_string())?;
        Ok(rx)
    }

    fn wait(handle: Self::Handle) -> Result<(), String> {
        handle.recv().map_err(|_| "the producer is gone".to_owned())?
    }

    fn flush(&self) -> Result<(), String> {
        self.0.flush(Duration::from_secs(60)).map_err(|e| e.to_string())
    }
}

pub(super) struct Reader(BaseConsumer);

impl Reader {
    pub(super) fn connect(bootstrap: &str) -> Result<Self, String> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap).set("group.id", "bench");
        config.set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().map_err(|e| e.to_string())?;
        let mut assigned = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            let added = assigned.add_partition_offset(TOPIC, partition, Offset::End);
            added.map_err(|e| e.to_string())?;
        }
        consumer.assign(&assigned).map_err(|e| e.to_string())?;
        Ok(Self(consumer))
    }
}

impl Reads for Reader {
    fn next(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        match self.0.poll(Duration::from_millis(100)) {
            None => Ok(()),
            Some(Ok(message)) => {
                message.payload().into_iter().for_each(each);
                Ok(())
            }
            Some(Err(e)) => Err(e.to_string()),
        }
    }
}
