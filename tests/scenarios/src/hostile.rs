//! A cluster behind a dialer that damages or rewrites answers: what a broken broker, a foreign server
//! or a bad proxy would send.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kafka_protocol::messages::FetchResponse;
use ottla::testing::{ApiKey, Cluster, PaceLimits};
use ottla::{
    BoxFuture, Client, ClientBuilder, Dialer, Endpoint, Environment, EnvironmentBuilder, Transport,
};
use rand::{Rng, RngExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Handle;

use crate::fewer;
use crate::virtual_cluster::WALL_CLOCK;

/// One way to damage a response. Frames begin with a length and a correlation id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// A correlation id that nobody sent.
    Correlation,
    /// The first half of the frame, then the end of the stream.
    Truncated,
    /// A length of 100 MiB, which is allowed, then the frame's bytes and the end of the stream.
    Promised,
    /// The first half of the body, as a frame that is whole.
    Short,
    /// More bytes than the message has.
    Long,
    /// A length of 2 GiB.
    HugeLength,
    /// A length below zero.
    NegativeLength,
    /// A frame too small for a correlation id.
    Tiny,
    /// The right correlation id before noise: counts and lengths of any size.
    Noise,
    /// The same response twice.
    Twice,
    /// Bytes from 0xff: counts and lengths below zero, or as large as they get.
    Ones,
    /// The first count of the message is as large as it can be.
    HugeCount,
    /// The first count of the message is -2 or, where counts have no sign, as large.
    NegativeCount,
    /// A well-formed answer that says nothing of a partition (Metadata: a topic) that was asked about.
    Fewer,
}

impl Damage {
    /// All that are no response to what was asked.
    pub const ALL: [Self; 13] = [
        Self::Correlation,
        Self::Truncated,
        Self::Promised,
        Self::Short,
        Self::Long,
        Self::HugeLength,
        Self::NegativeLength,
        Self::Tiny,
        Self::Noise,
        Self::Twice,
        Self::Ones,
        Self::HugeCount,
        Self::NegativeCount,
    ];

    /// One of them, [`Fewer`](Self::Fewer) included.
    pub fn draw(rng: &mut impl Rng) -> Self {
        Self::ALL.get(rng.random_range(0..=Self::ALL.len())).copied().unwrap_or(Self::Fewer)
    }

    /// What is sent for a frame, and whether the stream ends then.
    fn apply(self, asked: Asked, frame: &[u8]) -> (Vec<u8>, bool) {
        let body = &frame[4..];
        let framed = |body: &[u8]| {
            let mut out = (body.len() as u32).to_be_bytes().to_vec();
            out.extend(body);
            out
        };
        let half = &body[..4 + (body.len() - 4) / 2];
        match self {
            Self::Correlation => {
                let mut out = frame.to_vec();
                out[4] ^= 0x40;
                (out, false)
            }
            Self::Truncated => (frame[..frame.len() / 2].to_vec(), true),
            Self::Promised => ([&(100u32 << 20).to_be_bytes()[..], body].concat(), true),
            Self::Short => (framed(half), false),
            Self::Long => (framed(&[body, &[0; 9]].concat()), false),
            Self::HugeLength => ([&i32::MAX.to_be_bytes()[..], body].concat(), false),
            Self::NegativeLength => ([&(-7i32).to_be_bytes()[..], body].concat(), false),
            Self::Tiny => (framed(&body[..2]), false),
            Self::Noise => {
                let mut out = frame.to_vec();
                for (i, byte) in out[8..].iter_mut().enumerate() {
                    *byte = (i as u8).wrapping_mul(167).wrapping_add(59);
                }
                (out, false)
            }
            Self::Twice => ([frame, frame].concat(), false),
            Self::Ones => {
                let mut out = frame.to_vec();
                out[8..].fill(0xff);
                (out, false)
            }
            Self::HugeCount => (framed(&with_count(asked, body, i32::MAX)), false),
            Self::NegativeCount => (framed(&with_count(asked, body, -2)), false),
            Self::Fewer => (framed(&fewer::answer(asked.api, asked.version, body)), false),
        }
    }
}

/// What a response is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked {
    correlation: [u8; 4],
    api: ApiKey,
    version: i16,
}

/// The body of a response (from its correlation id) with another count in its first list; that of
/// InitProducerId, which has no list, with another count of tagged fields.
fn with_count(asked: Asked, body: &[u8], count: i32) -> Vec<u8> {
    // Where the count is behind the header, and the first version with compact counts.
    let v = asked.version;
    let (at, flexible) = match asked.api {
        ApiKey::PRODUCE => (0, 9),
        ApiKey::FETCH => (if v >= 7 { 10 } else { 4 }, 12),
        ApiKey::LIST_OFFSETS => (if v >= 2 { 4 } else { 0 }, 6),
        ApiKey::METADATA => (4, 9),
        ApiKey::DESCRIBE_PRODUCERS => (4, 0),
        ApiKey::API_VERSIONS => (2, 3),
        ApiKey::INIT_PRODUCER_ID => (16, 2),
        other => panic!("where answers to {other:?} have a list is not known here"),
    };
    let compact = v >= flexible;
    // The response to ApiVersions keeps the oldest header in every version.
    let header = if compact && asked.api != ApiKey::API_VERSIONS { 5 } else { 4 };
    let (before, rest) = body.split_at(header + at);
    if compact {
        let old = 1 + rest.iter().take_while(|byte| **byte >= 0x80).count();
        let sign = if count < 0 { 0x0f } else { 0x07 };
        let low = 0x80 | (count as u8 & 0x7f);
        [before, &[low, 0xff, 0xff, 0xff, sign], &rest[old..]].concat()
    } else {
        [before, &count.to_be_bytes(), &rest[4..]].concat()
    }
}

/// Makes another response from the version and the body (from its correlation id) of an honest one.
type Rewrite = Arc<dyn Fn(i16, &[u8]) -> Vec<u8> + Send + Sync>;

/// Which answers are damaged, and how.
#[derive(Default)]
struct Script {
    pending: VecDeque<(ApiKey, Damage)>,
    always: Option<(ApiKey, Damage)>,
    rewrite: Option<(ApiKey, Rewrite)>,
    done: usize,
    /// Who has asked what, by client id.
    asked_by: BTreeSet<(ApiKey, String)>,
    /// Requests of this kind are kept.
    watched: Option<ApiKey>,
    requests: Vec<(i16, Vec<u8>)>,
}

/// See the module. Cheap to clone; clones share the script.
#[derive(Clone)]
pub struct Hostile {
    cluster: Arc<Mutex<ottla::testing::Dialer>>,
    script: Arc<Mutex<Script>>,
}

impl Hostile {
    /// Nothing is damaged yet.
    pub fn new(cluster: &Cluster) -> Self {
        Self { cluster: Arc::new(Mutex::new(cluster.dialer())), script: Arc::default() }
    }

    /// Settings of a client that reaches `cluster` only this way.
    pub fn client(&self, cluster: &Cluster) -> ClientBuilder {
        self.client_drawing(cluster, 1)
    }

    /// The same; the client draws from `seed`.
    pub fn client_drawing(&self, cluster: &Cluster, seed: u64) -> ClientBuilder {
        let environment = self.environment(seed).build();
        Client::builder().bootstrap(cluster.bootstrap()).environment(environment)
    }

    /// The environment of such a client. With every other seed it has no requests saved up, so that what it
    /// sends is paced from the first record on.
    pub fn environment(&self, seed: u64) -> EnvironmentBuilder {
        let mut limits = PaceLimits::default();
        if seed.is_multiple_of(2) {
            limits.burst = 0.0;
        }
        let builder = Environment::builder().runtime(Handle::current()).pace(limits);
        builder.dialer(Arc::new(self.clone())).seed(seed).wall_clock(WALL_CLOCK)
    }

    /// Addresses belong to the brokers of another cluster from now on. Connections that are open stay.
    pub fn leads_to(&self, cluster: &Cluster) {
        *self.cluster.lock().unwrap_or_else(PoisonError::into_inner) = cluster.dialer();
    }

    /// Damages the next answer to a request of this kind, after those asked for earlier.
    pub fn next(&self, api: ApiKey, damage: Damage) {
        self.script().pending.push_back((api, damage));
    }

    /// Damages every response to requests of this kind, or none any more.
    pub fn always(&self, damage: Option<(ApiKey, Damage)>) {
        self.script().always = damage;
    }

    /// Rewrites every response to requests of this kind: from its version and its body, which begins
    /// with the correlation id, to another body.
    pub fn rewrite(
        &self,
        api: ApiKey,
        rewrite: impl Fn(i16, &[u8]) -> Vec<u8> + Send + Sync + 'static,
    ) {
        self.script().rewrite = Some((api, Arc::new(rewrite)));
    }

    /// Gives every fetched batch to `change`, which says what is there instead.
    pub fn change_batches(&self, change: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) {
        self.rewrite(ApiKey::FETCH, move |version, body| {
            fewer::changed(version, body, |answer: &mut FetchResponse| {
                for partition in answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions)
                {
                    let Some(mut rest) = partition.records.take() else { continue };
                    let mut records = Vec::new();
                    while let Some(length) = rest.get(8..12) {
                        let length = length.try_into().map_or(0, u32::from_be_bytes) as usize;
                        records.extend(change(rest.split_to(12 + length).to_vec()));
                    }
                    partition.records = Some(records.into());
                }
            })
        });
    }

    /// Rewrites nothing any more.
    pub fn rewrite_nothing(&self) {
        self.script().rewrite = None;
    }

    /// How many responses were damaged or rewritten.
    pub fn done(&self) -> usize {
        self.script().done
    }

    /// The client ids in the headers of requests of this kind so far.
    pub fn asked_by(&self, api: ApiKey) -> Vec<String> {
        let script = self.script();
        script.asked_by.iter().filter(|(of, _)| *of == api).map(|(_, id)| id.clone()).collect()
    }

    /// Keeps requests of this kind from now on, and none of any other.
    pub fn watch(&self, api: ApiKey) {
        let mut script = self.script();
        script.watched = Some(api);
        script.requests.clear();
    }

    /// Those that came since the last call: their version, and their bytes from the header on.
    pub fn requests(&self) -> Vec<(i16, Vec<u8>)> {
        std::mem::take(&mut self.script().requests)
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, request: Asked, client_id: String, bytes: &[u8]) {
        let mut script = self.script();
        script.asked_by.insert((request.api, client_id));
        if script.watched == Some(request.api) {
            script.requests.push((request.version, bytes.to_vec()));
        }
    }

    /// What is sent for a response, and whether the stream ends then.
    fn answer(&self, asked: Asked, frame: Vec<u8>) -> (Vec<u8>, bool) {
        let mut script = self.script();
        let next = script.pending.front().filter(|(wanted, _)| *wanted == asked.api).copied();
        if next.is_some() {
            script.pending.pop_front();
        }
        let damage = next.or(script.always.filter(|(wanted, _)| *wanted == asked.api));
        let rewrite = script.rewrite.clone().filter(|(wanted, _)| *wanted == asked.api);
        script.done += usize::from(damage.is_some() || rewrite.is_some());
        drop(script);
        match (damage, rewrite) {
            (Some((_, damage)), _) => damage.apply(asked, &frame),
            (None, Some((_, rewrite))) => {
                let body = rewrite(asked.version, &frame[4..]);
                ([&(body.len() as u32).to_be_bytes()[..], &body].concat(), false)
            }
            (None, None) => (frame, false),
        }
    }

    async fn serve(self, client: DuplexStream, broker: DuplexStream) -> io::Result<()> {
        let (mut from_client, mut to_client) = tokio::io::split(client);
        let (mut from_broker, mut to_broker) = tokio::io::split(broker);
        let asked: Mutex<VecDeque<Asked>> = Mutex::default();
        let requests = async {
            loop {
                let frame = frame(&mut from_client).await?;
                let request = Asked {
                    correlation: [frame[8], frame[9], frame[10], frame[11]],
                    api: ApiKey(i16::from_be_bytes([frame[4], frame[5]])),
                    version: i16::from_be_bytes([frame[6], frame[7]]),
                };
                let id = usize::from(u16::from_be_bytes([frame[12], frame[13]]));
                let id = String::from_utf8_lossy(&frame[14..14 + id]).into_owned();
                self.note(request, id, &frame[4..]);
                asked.lock().unwrap_or_else(PoisonError::into_inner).push_back(request);
                to_broker.write_all(&frame).await?;
            }
        };
        let answers = async {
            loop {
                let frame = frame(&mut from_broker).await?;
                // The broker answers in order, but not everything: faults leave answers out.
                let request = {
                    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
                    let to = asked.iter().position(|asked| frame[4..8] == asked.correlation);
                    to.and_then(|to| asked.drain(..=to).next_back())
                };
                let (bytes, ends) = match request {
                    Some(request) => self.answer(request, frame),
                    None => (frame, false),
                };
                to_client.write_all(&bytes).await?;
                if ends {
                    return Ok(());
                }
            }
        };
        // Either end closing ends both, as with a connection.
        tokio::select! {
            end = requests => end,
            end = answers => end,
        }
    }
}

impl Dialer for Hostile {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        Box::pin(async move {
            let cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let broker = cluster.dial(&to.host, to.port)?;
            let (near, far) = tokio::io::duplex(64 << 10);
            // Ends with its streams.
            drop(tokio::spawn(self.clone().serve(far, broker)));
            Ok(Box::new(near) as Box<dyn Transport>)
        })
    }
}

/// A frame with its length in front.
async fn frame(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).await?;
    let len = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    frame.resize(4 + len, 0);
    from.read_exact(&mut frame[4..]).await?;
    Ok(frame)
}
