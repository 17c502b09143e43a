//! Ottla with settings that nobody has touched.

use std::time::Duration;

use ottla::blocking::{Client, Producer};
use ottla::{Delivery, Record};
use ottla_bench::TOPIC;

use super::Driven;

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
