//! A client that does nothing on its own: one request out, one response in.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    FetchRequest, ProduceRequest, RequestHeader, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use ottla_test_broker::{Builder, Cluster, SourceBatch};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything a test waits for: in paused time it costs nothing, in real time it is when
/// a test that hangs fails.
pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) const TOPIC: &str = "topic";

/// A cluster in memory and in the test's own time.
pub(crate) fn start(describe: impl FnOnce(Builder) -> Builder) -> Cluster {
    describe(Cluster::builder().tcp(false)).start_on_current_runtime().expect("a cluster")
}

pub(crate) struct Client<S = DuplexStream> {
    stream: S,
    next_id: i32,
}

impl Client {
    /// Through memory.
    pub(crate) fn new(cluster: &Cluster, broker: i32) -> Self {
        Self::over(cluster.connect_in_memory(broker).expect("a connection"))
    }
}

impl Client<TcpStream> {
    pub(crate) async fn tcp(cluster: &Cluster, broker: i32) -> io::Result<Self> {
        let address = cluster.address(broker).expect("a known broker");
        let stream = timeout(LONG, TcpStream::connect(address)).await??;
        Ok(Self::over(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn over(stream: S) -> Self {
        Self { stream, next_id: 1 }
    }

    /// Sends a request and returns its correlation id.
    pub(crate) async fn send<R: Request>(&mut self, version: i16, body: &R) -> io::Result<i32> {
        let mut encoded = BytesMut::new();
        body.encode(&mut encoded, version).map_err(io::Error::other)?;
        self.send_raw(R::KEY, version, R::header_version(version), &encoded).await
    }

    pub(crate) async fn send_raw(
        &mut self,
        api: i16,
        version: i16,
        header_version: i16,
        body: &[u8],
    ) -> io::Result<i32> {
        let id = self.next_id;
        self.next_id += 1;
        let mut frame = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(api)
            .with_request_api_version(version)
            .with_correlation_id(id)
            .with_client_id(Some(StrBytes::from_static_str("raw")))
            .encode(&mut frame, header_version)
            .map_err(io::Error::other)?;
        frame.put_slice(body);
        self.send_frame(&frame).await?;
        Ok(id)
    }

    pub(crate) async fn send_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        self.stream.write_all(&(frame.len() as u32).to_be_bytes()).await?;
        self.stream.write_all(frame).await?;
        self.stream.flush().await
    }

    /// The next response, from its correlation id on. An error when the connection ends.
    pub(crate) async fn receive(&mut self) -> io::Result<Bytes> {
        timeout(LONG, async {
            let len = self.stream.read_u32().await?;
            let mut frame = vec![0; len as usize];
            self.stream.read_exact(&mut frame).await?;
            Ok(Bytes::from(frame))
        })
        .await?
    }

    /// The response to request `id`, decoded.
    pub(crate) async fn answer<R: Request>(
        &mut self,
        id: i32,
        version: i16,
    ) -> io::Result<R::Response> {
        let mut frame = self.receive().await?;
        assert_eq!(frame.get_i32(), id, "answers come in the order of their requests");
        if R::Response::header_version(version) >= 1 {
            assert_eq!(frame.get_u8(), 0, "no tags in the header");
        }
        let response = R::Response::decode(&mut frame, version).map_err(io::Error::other)?;
        assert!(frame.is_empty(), "{} bytes follow the answer", frame.len());
        Ok(response)
    }

    pub(crate) async fn ask<R: Request>(
        &mut self,
        version: i16,
        body: &R,
    ) -> io::Result<R::Response> {
        let id = self.send(version, body).await?;
        self.answer::<R>(id, version).await
    }

    /// Waits until the broker has closed the connection; anything it sends before is a failure.
    pub(crate) async fn closed(&mut self) {
        let mut byte = [0; 1];
        match timeout(LONG, self.stream.read(&mut byte)).await {
            Ok(Ok(0) | Err(_)) => {}
            Ok(Ok(_)) => panic!("an answer where the connection should be cut"),
            Err(_) => panic!("the connection is still open after {LONG:?}"),
        }
    }

    /// Waits for what must not come: a response, or the end of the connection.
    pub(crate) async fn silent_for(&mut self, time: Duration) {
        let mut byte = [0; 1];
        if let Ok(read) = timeout(time, self.stream.read(&mut byte)).await {
            panic!("silence was expected, not {read:?}");
        }
    }

    /// Produces to one partition and returns its part of the response.
    pub(crate) async fn produce(
        &mut self,
        partition: i32,
        acks: i16,
        batch: &SourceBatch,
    ) -> io::Result<PartitionProduceResponse> {
        let response = self.ask(PRODUCE_VERSION, &produce(partition, acks, batch)).await?;
        Ok(response.responses[0].partition_responses[0].clone())
    }

    /// Fetches from one partition without waiting.
    pub(crate) async fn fetch(&mut self, partition: i32, offset: i64) -> io::Result<PartitionData> {
        let response = self.ask(FETCH_VERSION, &fetch(partition, offset)).await?;
        Ok(response.responses[0].partitions[0].clone())
    }
}

/// Last version that names topics by name, and one that hints at leaders (KIP-951).
pub(crate) const PRODUCE_VERSION: i16 = 12;
/// Last version that names topics by name.
pub(crate) const FETCH_VERSION: i16 = 12;

pub(crate) fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

/// A batch of so many records of a hundred bytes.
pub(crate) fn batch(records: usize) -> SourceBatch {
    SourceBatch::new((0..records).map(|_| [b'x'; 100]))
}

pub(crate) fn produce(partition: i32, acks: i16, batch: &SourceBatch) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch.bytes().clone()));
    ProduceRequest::default()
        .with_transactional_id(None::<TransactionalId>)
        .with_acks(acks)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![
            TopicProduceData::default().with_name(topic()).with_partition_data(vec![data]),
        ])
}

/// A fetch of one partition that does not wait.
pub(crate) fn fetch(partition: i32, offset: i64) -> FetchRequest {
    let wanted = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(offset)
        .with_partition_max_bytes(1 << 20);
    FetchRequest::default()
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_topics(vec![FetchTopic::default().with_topic(topic()).with_partitions(vec![wanted])])
}

/// Base offsets of the whole batches in a fetch response.
pub(crate) fn base_offsets(data: &PartitionData) -> Vec<i64> {
    let mut rest = data.records.clone().unwrap_or_default();
    let mut offsets = Vec::new();
    while rest.len() >= 12 {
        let offset = rest.get_i64();
        let len = rest.get_i32() as usize;
        if len > rest.len() {
            break;
        }
        rest.advance(len);
        offsets.push(offset);
    }
    offsets
}
