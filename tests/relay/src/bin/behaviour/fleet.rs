//! The clients of an experiment, of either library.

use std::sync::Arc;
use std::time::Instant;

use ottla_relay::load::{Client, Dials, OttlaClient};

/// Whose clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    Ottla,
    #[cfg(feature = "rdkafka")]
    Rdkafka,
}

impl Library {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ottla => "ottla",
            #[cfg(feature = "rdkafka")]
            Self::Rdkafka => "rdkafka",
        }
    }
}

/// Clients that were started together.
pub(crate) struct Fleet {
    pub(crate) clients: Vec<Arc<dyn Client>>,
    attempts: Attempts,
}

enum Attempts {
    Dials(Dials),
    #[cfg(feature = "rdkafka")]
    Statistics(Vec<Arc<ottla_relay::load::RdkafkaClient>>),
}

impl Fleet {
    /// Starts clients named `prefix0`, `prefix1`, ….
    pub(crate) async fn start(
        library: Library,
        bootstrap: &str,
        prefix: &str,
        count: usize,
    ) -> Result<Self, String> {
        match library {
            Library::Ottla => {
                let dials = Dials::default();
                let all = OttlaClient::connect_many(bootstrap, prefix, count, &dials).await?;
                let clients = all.into_iter().map(|c| Arc::new(c) as Arc<dyn Client>).collect();
                Ok(Self { clients, attempts: Attempts::Dials(dials) })
            }
            #[cfg(feature = "rdkafka")]
            Library::Rdkafka => {
                let mut all = Vec::with_capacity(count);
                for i in 0..count {
                    let client =
                        ottla_relay::load::RdkafkaClient::new(bootstrap, &format!("{prefix}{i}"))?;
                    all.push(Arc::new(client));
                }
                let clients = all.iter().map(|c| Arc::clone(c) as Arc<dyn Client>).collect();
                Ok(Self { clients, attempts: Attempts::Statistics(all) })
            }
        }
    }

    pub(crate) fn len(&self) -> f64 {
        self.clients.len() as f64
    }

    /// Counts attempts to connect to a port from now on.
    pub(crate) fn count_attempts(&self, port: u16) -> Box<dyn Fn() -> usize> {
        let since = Instant::now();
        match &self.attempts {
            Attempts::Dials(dials) => {
                let dials = dials.clone();
                Box::new(move || dials.to(port, since))
            }
            #[cfg(feature = "rdkafka")]
            Attempts::Statistics(all) => {
                let all = all.clone();
                let sum = move || all.iter().map(|c| c.attempts(port)).sum::<u64>() as usize;
                let before = sum();
                Box::new(move || sum().saturating_sub(before))
            }
        }
    }
}
