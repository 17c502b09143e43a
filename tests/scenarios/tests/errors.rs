//! Mistakes that everybody makes once: each gives a typed error that says what to do, in time.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use ottla::testing::Cluster;
use ottla::{Client, Error, ErrorKind, NewTopic, Record, Start};
use ottla_scenarios::wait::within;

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

async fn open(cluster: &Cluster) -> Client {
    within("connect", Client::connect(cluster.bootstrap())).await.unwrap()
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

/// A server on a port of its own that hands each connection to `serve`; ends with the process.
fn server(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(stream);
        }
    });
    address
}

#[tokio::test]
async fn a_port_that_speaks_http() {
    let address = server(|mut stream| {
        // What an HTTP server says to bytes that are no request line.
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n",
        );
    });
    let error = connect_error(&address).await;
    assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
    readable(&error, &address);
    readable(&error, "HTTP");
}

#[tokio::test]
async fn a_port_that_hangs_up() {
    let address = server(|mut stream| {
        // Read first: closing with bytes unread is a reset, and this is about a clean end.
        let _ = stream.read(&mut [0; 1024]);
    });
    let error = connect_error(&address).await;
    assert_eq!(error.kind(), ErrorKind::NotKafka, "{error}");
    readable(&error, &address);
}

#[tokio::test]
async fn a_port_that_says_nothing() {
    let kept = Mutex::new(Vec::new());
    let address = server(move |stream| kept.lock().unwrap().push(stream));
    let error = connect_error(&address).await;
    assert!(matches!(error.kind(), ErrorKind::Connect | ErrorKind::Timeout), "{error}");
    readable(&error, &address);
}

#[tokio::test]
async fn a_topic_that_does_not_exist() {
    let cluster = Cluster::builder().brokers(3).start().unwrap();
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

#[tokio::test]
async fn a_topic_created_after_it_was_missed() {
    let cluster = Cluster::builder().start().unwrap();
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

#[tokio::test]
async fn a_record_larger_than_the_client_takes() {
    let cluster = Cluster::builder().topic("t", 1, 1).start().unwrap();
    let producer = open(&cluster).await.producer().max_record_size(1_000).build().unwrap();
    let error =
        within("send", producer.send(Record::to("t").value(&[0; 1_001]))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RecordTooLarge);
    readable(&error, "1001 bytes");
    // Exactly at the limit, and the producer goes on.
    let record = Record::to("t").value(&[0; 1_000]);
    within("ack", within("send", producer.send(record)).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_record_larger_than_the_broker_takes() {
    let cluster = Cluster::builder().topic("t", 1, 1).max_message_bytes(2_000).start().unwrap();
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

#[tokio::test]
async fn a_partition_that_does_not_exist() {
    let cluster = Cluster::builder().topic("t", 2, 1).start().unwrap();
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

#[tokio::test]
async fn use_after_close() {
    let cluster = Cluster::builder().topic("t", 1, 1).start().unwrap();
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
