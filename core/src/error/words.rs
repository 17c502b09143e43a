//! Every error that can be reached from here, in one table, to be read by a person: what it says, what
//! it advises, and what programs are told. Print it with
//! `cargo nextest run -p ottla --lib error::words --no-capture`.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla_test_broker::{ApiKey, Cluster, Fault};

use super::*;
use crate::record::reader::RecordError;
use crate::{
    Client, Compression, NewTopic, OffsetSpec, Pem, Producer, ProducerBuilder, Record, Sasl, Start,
    Tls,
};

/// Where it comes from, and the error.
type Row = (String, Error);

fn kinds() -> Vec<Row> {
    let kind = |kind: ErrorKind| (format!("kind {kind}"), Error::new(kind, "what happened"));
    ErrorKind::ALL.iter().copied().map(kind).collect()
}

fn codes() -> Vec<Row> {
    let codes = (-1..200).filter(|code| *code != 0);
    codes
        .filter(|code| describe(*code).name != "UNKNOWN_CODE" || *code == 199)
        .map(|code| (format!("code {code}"), Error::broker(code, "topic 't' partition 3", None)))
        .collect()
}

/// Errors in settings and arguments, found before any broker is asked.
fn settings() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |from: &str, error: Option<Error>| {
        rows.push((from.to_owned(), error.unwrap_or_else(|| panic!("{from} is taken"))));
    };
    for list in ["", "kafka://a:1", "a:b", "[::1", ":1", "::1:9092", "a:1:2", "u:hunter2@a:1"] {
        let client = Client::builder().bootstrap(list).build();
        row(&format!("bootstrap '{list}'"), client.err());
    }
    let client = || Client::builder().bootstrap("localhost:1");
    row("connect_timeout", client().connect_timeout(Duration::ZERO).build().err());
    row("request_timeout", client().request_timeout(Duration::ZERO).build().err());
    row("idle_timeout", client().idle_timeout(Duration::ZERO).build().err());
    row("ordinal", client().ordinal(3, 3).build().err());
    row("client_id", client().client_id("x".repeat(250)).build().err());
    row("user", client().sasl(Sasl::plain("", "p")).build().err());
    row("password", client().sasl(Sasl::plain("u", "")).build().err());
    row("name of SCRAM", client().sasl(Sasl::scram_sha_256("ü", "p")).build().err());
    row("no CA", client().tls(Tls::system().ca("/no/such/file")).build().err());
    row("no PEM", client().tls(Tls::system().ca(Pem::text("x"))).build().err());
    row("server_name", client().tls(Tls::system().server_name("a b")).build().err());
    for (name, value) in [
        ("security.protocol", "TLS"),
        ("ssl.key.password", "hunter2"),
        ("no.such.setting", "1"),
        ("request.timeout.ms", "soon"),
        ("group.id", "g"),
    ] {
        let client = client().from_properties([(name, value)]).build();
        if let Err(error) = client {
            row(&format!("property {name}={value}"), Some(error));
        }
    }
    let client = client().build().unwrap();
    let producer = |set: fn(ProducerBuilder) -> ProducerBuilder| set(client.producer()).build();
    row("linger", producer(|p| p.linger(Duration::from_secs(61))).err());
    row("batch_size", producer(|p| p.batch_size(1)).err());
    row("buffer_memory", producer(|p| p.buffer_memory(1)).err());
    row("delivery_timeout", producer(|p| p.delivery_timeout(Duration::ZERO)).err());
    row("codec", Compression::named("lzma", None).err());
    row("level of none", Compression::named("lz4", Some(3)).err());
    row("level of gzip", Compression::named("gzip", Some(30)).err());
    row("level", "gzip:fast".parse::<Compression>().err());
    row("no topics", client.consumer().build().err());
    row("topic name", client.consumer().topics(["a b"]).build().err());
    row("start offset", client.consumer().topics(["t"]).start(Start::Offset(-1)).build().err());
    row("start time", client.consumer().topics(["t"]).start(Start::Timestamp(-5)).build().err());
    row("partition", client.consumer().assign([("t", -1, Start::Earliest)]).build().err());
    rows
}

fn records() -> Vec<Row> {
    let base_offset = 70;
    [
        RecordError::Magic { base_offset, magic: 3 },
        RecordError::Header { base_offset, what: "its length" },
        RecordError::Checksum { base_offset, expected: 1, actual: 2 },
        RecordError::UnsupportedCompression { base_offset, codec: "zstd" },
        RecordError::OverLimit { base_offset, limit: 1 << 30 },
        RecordError::Decompress { base_offset },
        RecordError::Record { base_offset, index: 4 },
    ]
    .map(|e| ("fetched".to_owned(), e.error("topic 't' partition 3")))
    .into()
}

/// Errors that come from a cluster's responses, or from waiting for them in vain.
async fn conversations() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |from: &str, error: Error| rows.push((from.to_owned(), error));
    let cluster = Cluster::builder().topic("t", 2, 1).start().unwrap();
    let client = Client::connect(cluster.bootstrap()).await.unwrap();
    let producer = client.producer().build().unwrap();
    async fn fate(producer: &Producer, record: Record<'_>) -> Error {
        match producer.send(record).await {
            Err(error) => error,
            Ok(delivery) => delivery.await.expect_err("it is not good"),
        }
    }
    let to = || Record::to("t").value("x");
    producer.send(to()).await.unwrap().await.unwrap();
    row("pinned", fate(&producer, to().partition(7)).await);
    row("timestamp", fate(&producer, to().timestamp_ms(-1)).await);
    row("large", fate(&producer, Record::to("t").value(&[0; 2 << 20])).await);
    row("no topic", fate(&producer, Record::to("nowhere").value("x")).await);
    row("odd topic", fate(&producer, Record::to("a b").value("x")).await);
    for code in [10, 29, 32, 87] {
        cluster.faults().on(None, ApiKey::PRODUCE, Fault::Error(code), 1);
        row(&format!("produce {code}"), fate(&producer, to()).await);
    }
    let consumer = client.consumer().topics(["t"]).build().unwrap();
    row("seek", consumer.seek("t", 9, Start::Earliest).unwrap_err());
    row("seek below 0", consumer.seek("t", 0, Start::Offset(-3)).unwrap_err());
    let mut strays = client.consumer().assign([("t", 9, Start::Earliest)]).build().unwrap();
    row("assign", strays.next().await.unwrap().unwrap_err());
    let mut past = client.consumer().assign([("t", 0, Start::Offset(99))]).build().unwrap();
    row("offset", past.next().await.unwrap().unwrap_err());
    let admin = client.admin();
    row("create again", admin.create_topic(NewTopic::new("t", 1, 1)).await.unwrap_err());
    row("create none", admin.create_topic(NewTopic::new("u", 0, 1)).await.unwrap_err());
    row("partitions", admin.partitions("nowhere").await.unwrap_err());
    let offsets = admin.list_offsets([("t", 9, OffsetSpec::Latest)]).await.unwrap();
    offsets.into_iter().for_each(|(_, e)| row("offsets", e.unwrap_err()));
    let offsets = admin.list_offsets([("t", 0, OffsetSpec::Timestamp(-1))]).await;
    row("offsets at a time", offsets.unwrap_err());
    producer.close(Duration::from_secs(10)).await.unwrap();
    row("closed", fate(&producer, to()).await);
    cluster.stop_broker(1, ottla_test_broker::Leaders::Keep).unwrap();
    let patient = || Client::builder().connect_timeout(Duration::from_millis(50));
    row("refused", patient().bootstrap("127.0.0.1:1").connect().await.err().unwrap());
    let late = client.producer().build().unwrap();
    let _left = late.send(to()).await.unwrap();
    row("close", late.close(Duration::from_millis(1)).await.unwrap_err());
    rows
}

/// Words of a message, and words that are no advice for it.
const UNFIT: [(&str, &str); 10] = [
    ("decompresses to more", "disk"),
    ("record format", "disk"),
    ("codec", "build with"),
    ("UNSUPPORTED_COMPRESSION_TYPE", "build with"),
    ("before 1970", "Kafka 3.9"),
    ("negative", "Kafka 3.9"),
    ("UNSUPPORTED_VERSION", "Kafka 3.9"),
    ("is not read by this consumer", "none at all"),
    ("does not exist", "none at all"),
    ("malformed", "port"),
];

#[tokio::test]
async fn each_is_followed_by_advice_that_fits_it() {
    let mut rows = [kinds(), codes(), settings(), records()].concat();
    rows.extend(conversations().await);
    let mut advice_of: BTreeMap<String, usize> = BTreeMap::new();
    for (from, error) in &rows {
        let (message, advice) = (error.message(), error.advice());
        let flags = match (error.is_retriable(), error.is_fatal()) {
            (true, false) => "retriable",
            (false, true) => "fatal",
            (false, false) => "",
            (true, true) => panic!("{from} is retriable and fatal: {error:?}"),
        };
        println!("{from:28} | {:19} | {flags:9} | {message} | {advice}", error.kind().as_str());
        assert!(!message.is_empty() && !advice.is_empty(), "{from}");
        assert!(!message.ends_with('.') && !advice.ends_with('.'), "{from}: {error}");
        assert!(!message.contains(advice), "{from} says it twice: {error}");
        let first = advice.chars().next().unwrap();
        assert!(first.is_lowercase(), "{from}: advice goes on behind the message: {advice}");
        for (words, unfit) in UNFIT {
            assert!(!(message.contains(words) && advice.contains(unfit)), "{from}: {error}");
        }
        if error.is_retriable() {
            assert!(!advice.starts_with("correct"), "{from} passes by itself: {error}");
        }
        *advice_of.entry(advice.to_owned()).or_default() += 1;
    }
    println!("{} errors, {} pieces of advice", rows.len(), advice_of.len());
    assert!(rows.len() > 200, "{} rows", rows.len());
}
