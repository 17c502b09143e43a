//! Mistakes that everybody makes once: each gives a typed error that says what to do, in time. Time is
//! virtual, but where names and ports are the system's.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ottla::testing::Cluster;
use ottla::{
    BoxFuture, Client, Dialer, Endpoint, Environment, Error, ErrorKind, NewTopic, Record, Start,
    Transport,
};
use ottla_scenarios::steps::connect;
use ottla_scenarios::virtual_cluster;
use ottla_scenarios::wait::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Handle;

/// What a test gives `connect_timeout`; [`within`] bounds the whole.
const PATIENCE: Duration = Duration::from_secs(2);

async fn connect_error(bootstrap: &str) -> Error {
    let connecting = Client::builder().bootstrap(bootstrap).connect_timeout(PATIENCE).connect();
    match within("connect", connecting).await {
        Ok(_) => panic!("there is no broker at {bootstrap}"),
        Err(e) => e,
    }
}

/// Every error names what it is about and what to do.
fn readable(error: &Error, about: &str) {
    let text = error.to_string();
    assert!(text.contains(about), "{about:?} is not in: {text}");
    assert!(!error.advice().is_empty() && text.contains(error.advice()), "{text}");
}

fn cluster(brokers: i32, topics: &[(&str, i32)]) -> Cluster {
    let builder = Cluster::builder().brokers(brokers).tcp(false);
    let builder =
        topics.iter().fold(builder, |b, (name, partitions)| b.topic(*name, *partitions, 1));
    builder.start_on_current_runtime().unwrap()
}

async fn open(cluster: &Cluster) -> Client {
    connect(virtual_cluster::client(cluster, 1)).await
}

#[tokio::test]
async fn nothing_listens_at_the_address() {
    // Taken for as long as the test: a port that was only free a moment ago may be somebody's.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let error = connect_error(&address).await;
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.is_retriable());
    readable(&error, &address);
}

#[tokio::test]
async fn a_wrong_host_name() {
    // RFC 6761: `.invalid` never resolves.
    let error = connect_error("broker.invalid:9092").await;
    assert_eq!(error.kind(), ErrorKind::Resolve, "{error}");
    readable(&error, "broker.invalid:9092");
}

#[tokio::test]
async fn one_right_address_among_wrong_ones_will_do() {
    let cluster = Cluster::builder().start().unwrap();
    let list = format!("broker.invalid:9092,{}", cluster.bootstrap());
    within("connect", Client::connect(list)).await.unwrap();
}

/// A server behind every address, which does `serve` with each connection.
struct Server<F>(F);

impl<F, S> Dialer for Server<F>
where
    F: Fn(DuplexStream) -> S + Send + Sync,
    S: Future<Output = ()> + Send + 'static,
{
    fn dial<'a>(&'a self, _: &'a Endpoint) -> BoxFuture<'a, io::Result<Box<dyn Transport>>> {
        let (near, far) = tokio::io::duplex(64 << 10);
        drop(tokio::spawn((self.0)(far)));
        Box::pin(async move { Ok(Box::new(near) as Box<dyn Transport>) })
    }
}

/// Why a client gives up on such a server, after all the time that it has.
async fn server_error<S: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(DuplexStream) -> S + Send + Sync + 'static,
) -> Error {
    let environment = Environment::builder().runtime(Handle::current()).seed(1);
    let environment = environment.dialer(Arc::new(Server(serve))).build();
    let client = Client::builder().bootstrap(SERVER).environment(environment);
    let begun = tokio::time::Instant::now();
    let connecting = client.connect_timeout(PATIENCE).connect();
    let error = within("connect", connecting).await.err().expect("there is no broker");
    assert!(begun.elapsed() <= PATIENCE + Duration::from_millis(10), "{:?}", begun.elapsed());
    readable(&error, SERVER);
    error
}

const SERVER: &str = "server:9092";

#[tokio::test(start_paused = true)]
async fn a_port_that_speaks_http() {
    let error = server_error(|mut stream| async move {
        // What an HTTP server says to bytes that are no request line.
        let _ = stream.read(&mut [0; 64]).await;
        let words =
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(words.as_bytes()).await;
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
    readable(&error, "HTTP");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_hangs_up() {
    let error = server_error(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_says_nothing() {
    let error = server_error(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    assert!(matches!(error.kind(), ErrorKind::Connect | ErrorKind::Timeout), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_does_not_exist() {
    let cluster = cluster(3, &[]);
    missing_topic(&open(&cluster).await, "nowhere").await;
    assert!(cluster.topics().is_empty(), "asking for a topic created it");
}

#[tokio::test]
async fn real_a_topic_that_does_not_exist() {
    let cluster = ottla_test_kafka::Cluster::shared().unwrap();
    let client = within("connect", Client::connect(cluster.bootstrap())).await.unwrap();
    missing_topic(&client, &format!("nowhere-{}", std::process::id())).await;
}

async fn missing_topic(client: &Client, name: &str) {
    let producer = client.producer().build().unwrap();
    let error = match within("send", producer.send(Record::to(name).value("x"))).await {
        Ok(delivery) => within("the refusal", delivery).await.unwrap_err(),
        Err(e) => e,
    };
    assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
    assert!(!error.maybe_written());
    readable(&error, name);

    let mut consumer = client.consumer().topics([name]).build().unwrap();
    let error = within("the refusal", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
    readable(&error, name);

    let error = within("partitions", client.admin().partitions(name)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_topic_created_after_it_was_missed() {
    let cluster = cluster(1, &[]);
    let client = open(&cluster).await;
    missing_topic(&client, "late").await;
    within("create", client.admin().create_topic(NewTopic::new("late", 1, 1))).await.unwrap();
    let producer = client.producer().build().unwrap();
    let at = within("ack", async {
        loop {
            // Refused at once for a moment after the miss.
            let sent = match producer.send(Record::to("late").value("x")).await {
                Ok(delivery) => delivery.await,
                Err(e) => Err(e),
            };
            match sent {
                Ok(at) => return at,
                Err(e) => assert_eq!(e.kind(), ErrorKind::UnknownTopic, "{e}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(at.offset, 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_larger_than_the_client_takes() {
    let cluster = cluster(1, &[("t", 1)]);
    let producer = open(&cluster).await.producer().max_record_size(1_000).build().unwrap();
    let error =
        within("send", producer.send(Record::to("t").value(&[0; 1_001]))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge);
    readable(&error, "1001 bytes");
    // Exactly at the limit, and the producer goes on.
    let record = Record::to("t").value(&[0; 1_000]);
    within("ack", within("send", producer.send(record)).await.unwrap()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_record_larger_than_the_broker_takes() {
    let cluster = Cluster::builder()
        .tcp(false)
        .topic("t", 1, 1)
        .max_message_bytes(2_000)
        .start_on_current_runtime()
        .unwrap();
    let producer =
        open(&cluster).await.producer().compression(ottla::Compression::None).build().unwrap();
    let large = within("send", producer.send(Record::to("t").value(&[7; 3_000]))).await.unwrap();
    let error = within("the refusal", large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge, "{error}");
    assert_eq!(error.broker_code(), Some(10));
    assert!(!error.maybe_written());
    readable(&error, "'t'");
    let small = within("send", producer.send(Record::to("t").value("x"))).await.unwrap();
    assert_eq!(within("ack", small).await.unwrap().offset, 0);
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_does_not_exist() {
    let cluster = cluster(1, &[("t", 2)]);
    let client = open(&cluster).await;
    let producer = client.producer().build().unwrap();
    for partition in [2, -1, i32::MAX] {
        let record = Record::to("t").partition(partition).value("x");
        let error = match within("send", producer.send(record)).await {
            Ok(delivery) => within("the refusal", delivery).await.unwrap_err(),
            Err(e) => e,
        };
        assert_eq!(error.kind(), ErrorKind::UnknownPartition, "{error}");
        readable(&error, &partition.to_string());
    }
    let mut consumer = client.consumer().assign([("t", 2, Start::Earliest)]).build().unwrap();
    let error = within("the refusal", consumer.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPartition, "{error}");
}

#[tokio::test(start_paused = true)]
async fn use_after_close() {
    let cluster = cluster(1, &[("t", 1)]);
    let client = open(&cluster).await;
    let producer = client.producer().build().unwrap();
    let before = producer.send(Record::to("t").value("x")).await.unwrap();
    within("close", producer.close(Duration::from_secs(30))).await.unwrap();
    assert!(before.is_done(), "close waits for what was taken");
    within("close again", producer.close(Duration::ZERO)).await.unwrap();
    let after = [
        within("send", producer.send(Record::to("t").value("x"))).await.unwrap_err(),
        producer.try_send(Record::to("t").value("x")).unwrap_err(),
        within("send_batch", producer.send_batch("t", ["x"])).await.unwrap_err(),
        within("flush", producer.flush()).await.unwrap_err(),
    ];
    for error in after {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        readable(&error, "producer");
    }
    let mut consumer = client.consumer().topics(["t"]).build().unwrap();
    within("first", consumer.next()).await.unwrap().unwrap();
    within("close", consumer.close()).await.unwrap();
    within("close again", consumer.close()).await.unwrap();
    assert!(within("next", consumer.next()).await.is_none());
    assert!(consumer.try_next().is_none());
    // One handle closed, the client and its other handles go on.
    let other = client.producer().build().unwrap();
    within("ack", other.send(Record::to("t").value("y")).await.unwrap()).await.unwrap();
}
