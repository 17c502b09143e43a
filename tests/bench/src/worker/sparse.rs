//! Whether one set of settings, the default, does for a record a second and for as many as go: what an
//! acknowledgement takes longer than a round trip, and then how full batches are.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ottla::{Client, Producer, Record};
use ottla_bench::{TOPIC, VALUE_LEN, values};
use serde::{Deserialize, Serialize};

use super::Measured;

/// Records at one a second.
const FEW: usize = 20;
/// Records at a thousand a second.
const MANY: usize = 5_000;
/// And then.
const SATURATING: usize = 4_000_000;
/// Handles kept meanwhile.
const OUTSTANDING: usize = 50_000;
/// The default of `batch_size`.
const BATCH_SIZE: f64 = (256 << 10) as f64;
/// What a record is in a batch: its value, and what frames that.
const RECORD_LEN: f64 = VALUE_LEN as f64 + 10.0;

/// What it yielded.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sparse {
    /// Median, in microseconds: an ApiVersions request on a socket of its own.
    pub(crate) round_trip_us: f64,
    /// The 99th percentile of an acknowledgement minus that, at one record a second and at a
    /// thousand; in microseconds.
    pub(crate) one_us: f64,
    pub(crate) thousand_us: f64,
    /// How much of a full batch the batches of the saturated producer hold, 0 to 1.
    pub(crate) fill: f64,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub(super) async fn measure(bootstrap: &str) -> Result<Measured> {
    let client = Client::connect(bootstrap).await?;
    let producer = client.producer().build()?;
    let values = values(1);
    let mut pings = Pings::connect(bootstrap)?;
    // Connections and metadata are not what is measured.
    producer.send(Record::to(TOPIC).value(&values[0])).await?.await?;
    let one = paced(&producer, &values[0], FEW, Duration::from_secs(1), &mut pings).await?;
    let pause = Duration::from_millis(1);
    let thousand = paced(&producer, &values[0], MANY, pause, &mut pings).await?;
    let before = client.stats();
    saturate(&producer, &values[0]).await?;
    let batches = client.stats().produce_batches - before.produce_batches;
    let round_trip_us = percentile(&mut pings.took, 0.5);
    let sparse = Sparse {
        round_trip_us,
        one_us: one - round_trip_us,
        thousand_us: thousand - round_trip_us,
        fill: SATURATING as f64 * RECORD_LEN / batches as f64 / BATCH_SIZE,
    };
    Ok(Measured { sparse: Some(sparse), ..Measured::default() })
}

/// The 99th percentile of what acknowledgements take, in microseconds.
async fn paced(
    producer: &Producer,
    value: &[u8],
    records: usize,
    every: Duration,
    pings: &mut Pings,
) -> Result<f64> {
    let mut took = Vec::with_capacity(records);
    let mut due = tokio::time::interval(every);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for _ in 0..records {
        due.tick().await;
        // Between records, so that it delays none.
        if took.len() * 10 % records == 0 || every >= Duration::from_secs(1) {
            pings.ping()?;
        }
        let sent = Instant::now();
        producer.send(Record::to(TOPIC).value(value)).await?.await?;
        took.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    Ok(percentile(&mut took, 0.99))
}

async fn saturate(producer: &Producer, value: &[u8]) -> ottla::Result<()> {
    let mut kept = VecDeque::with_capacity(OUTSTANDING);
    for _ in 0..SATURATING {
        if kept.len() == OUTSTANDING
            && let Some::<ottla::Delivery>(oldest) = kept.pop_front()
        {
            oldest.await?;
        }
        kept.push_back(producer.send(Record::to(TOPIC).value(value)).await?);
    }
    for handle in kept {
        handle.await?;
    }
    Ok(())
}

fn percentile(of: &mut [f64], share: f64) -> f64 {
    of.sort_by(f64::total_cmp);
    of[((of.len() - 1) as f64 * share).ceil() as usize]
}

/// Round trips on a socket that nothing else uses.
struct Pings {
    socket: TcpStream,
    took: Vec<f64>,
}

impl Pings {
    fn connect(bootstrap: &str) -> std::io::Result<Self> {
        let address = bootstrap.split(',').next().unwrap_or_default();
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, took: Vec::new() })
    }

    fn ping(&mut self) -> std::io::Result<()> {
        // ApiVersions, version 0, correlation 7, a client id of null.
        const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
        let sent = Instant::now();
        self.socket.write_all(&REQUEST)?;
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.socket.read_exact(&mut answer)?;
        self.took.push(sent.elapsed().as_secs_f64() * 1e6);
        Ok(())
    }
}
