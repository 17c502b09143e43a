//! Ottla with settings that nobody has touched.

use std::time::Duration;

use ottla::blocking::{Client, Consumer, Producer};
use ottla::{Delivery, Record, Start};
use ottla_bench::TOPIC;

use super::{Driven, Reads};

pub(super) struct Driver {
    producer: Producer,
    _client: Client,
}

impl Driver {
    pub(super) fn connect(bootstrap: &str, at_once: bool) -> Result<Self, String> {
        let client = Client::connect(bootstrap).map_err(|e| e.to_string())?;
        let producer = client.producer(|b| if at_once { b.linger(Duration::ZERO) } else { b });
        Ok(Self { producer: producer.map_err(|e| e.to_string())?, _client: client })
    }
}

impl Driven for Driver {
    type Handle = Delivery;

    fn send(&self, value: &[u8]) -> Result<Delivery, String> {
        self.producer.send(Record::to(TOPIC).value(value)).map_err(|e| e.to_string())
    }

    fn wait(mut handle: Delivery) -> Result<(), String> {
        handle.wait(None).map(|_| ()).map_err(|e| e.to_string())
    }

    fn flush(&self) -> Result<(), String> {
        self.producer.flush(None).map_err(|e| e.to_string())
    }
}

pub(super) struct Reader {
    consumer: Consumer,
    _client: Client,
}

impl Reader {
    pub(super) fn connect(bootstrap: &str) -> Result<Self, String> {
        let client = Client::connect(bootstrap).map_err(|e| e.to_string())?;
        let consumer = client.consumer(|b| b.topics([TOPIC]).start(Start::Latest));
        Ok(Self { consumer: consumer.map_err(|e| e.to_string())?, _client: client })
    }
}

impl Reads for Reader {
    fn next(&mut self, each: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        let next = self.consumer.next_timeout(Duration::from_millis(100));
        let batch = next.map_err(|e| e.to_string())?;
        let values = batch.iter().flatten().filter_map(|record| record.value());
        values.for_each(each);
        Ok(())
    }
}
