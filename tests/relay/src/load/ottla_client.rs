//! Ottla's own clients, each as if it was a process of its own, with every dial counted: one that a
//! kernel refuses is seen by nobody else.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ottla::{BoxFuture, Dialer, Endpoint, Environment, Producer, Record, TcpDialer, Transport};
use tokio::runtime::Handle;

use super::{Client, Fate, Place};

/// One attempt to connect.
#[derive(Clone, Copy, Debug)]
pub struct Dial {
    /// When it began.
    pub at: Instant,
    /// To which port.
    pub port: u16,
    /// Whether it became a connection; not so if it was given up.
    pub connected: bool,
}

/// Attempts of clients that share this value, in the order they ended.
#[derive(Clone, Debug, Default)]
pub struct Dials(Arc<Mutex<Vec<Dial>>>);

impl Dials {
    /// All of them.
    pub fn all(&self) -> Vec<Dial> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Attempts to one port since a moment.
    pub fn to(&self, port: u16, since: Instant) -> usize {
        self.all().iter().filter(|dial| dial.port == port && dial.at >= since).count()
    }
}

/// Written down when it ends, however that is: a dial that is given up is dropped.
struct Attempt<'a> {
    dials: &'a Dials,
    dial: Dial,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.dials.0.lock().unwrap_or_else(PoisonError::into_inner).push(self.dial);
    }
}

impl Dialer for Dials {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        Box::pin(async move {
            let dial = Dial { at: Instant::now(), port: to.port, connected: false };
            let mut attempt = Attempt { dials: self, dial };
            let result = TcpDialer.dial(to).await;
            attempt.dial.connected = result.is_ok();
            result
        })
    }
}

/// A client and its producer, in default settings.
pub struct OttlaClient {
    /// For what it counts.
    pub client: ottla::Client,
    producer: Producer,
}

impl OttlaClient {
    /// A client with an environment of its own on the runtime of the caller.
    ///
    /// # Errors
    /// The client's, in words.
    pub async fn connect(bootstrap: &str, id: &str, dials: &Dials) -> Result<Self, String> {
        let environment =
            Environment::builder().runtime(Handle::current()).dialer(Arc::new(dials.clone()));
        let client = ottla::Client::builder()
            .bootstrap(bootstrap)
            .client_id(id)
            .environment(environment.build())
            .connect_timeout(Duration::from_secs(60))
            .connect()
            .await
            .map_err(|e| format!("{id}: {e}"))?;
        let producer = client.producer().build().map_err(|e| format!("{id}: {e}"))?;
        Ok(Self { client, producer })
    }

    /// So many clients at once, named `prefix0`, `prefix1`, ….
    ///
    /// # Errors
    /// The first client's that could not connect.
    pub async fn connect_many(
        bootstrap: &str,
        prefix: &str,
        count: usize,
        dials: &Dials,
    ) -> Result<Vec<Self>, String> {
        let tasks: Vec<_> = (0..count)
            .map(|i| {
                let (bootstrap, dials) = (bootstrap.to_owned(), dials.clone());
                let id = format!("{prefix}{i}");
                tokio::spawn(async move { Self::connect(&bootstrap, &id, &dials).await })
            })
            .collect();
        let mut all = Vec::with_capacity(count);
        for task in tasks {
            all.push(task.await.map_err(|e| e.to_string())??);
        }
        Ok(all)
    }
}

impl Client for OttlaClient {
    fn send(&self, topic: &str, value: &str) -> Fate {
        match self.producer.try_send(Record::to(topic).value(value)) {
            Ok(delivery) => Box::pin(async move {
                let at = delivery.await.map_err(|e| e.to_string())?;
                Ok(Place { partition: at.partition, offset: at.offset })
            }),
            Err(e) => {
                let words = e.to_string();
                Box::pin(async move { Err(words) })
            }
        }
    }
}
