//! What no client sends: a broker may hang up on it, and on nobody else.

use std::time::Duration;

use kafka_protocol::messages::{ApiKey as KafkaApi, ApiVersionsRequest};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::client::{Client, LONG, TOPIC, start};
use crate::requests::samples;
use crate::versions::target;

#[derive(Debug, Clone)]
enum Edit {
    Set(u8),
    Insert(u8),
    Remove,
    LargestCount,
    LargestCompactCount,
    Cut,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        any::<u8>().prop_map(Edit::Set),
        any::<u8>().prop_map(Edit::Insert),
        Just(Edit::Remove),
        Just(Edit::LargestCount),
        Just(Edit::LargestCompactCount),
        Just(Edit::Cut),
    ]
}

fn apply(edit: &Edit, at: usize, frame: &mut Vec<u8>) {
    let mut write = |bytes: &[u8]| {
        frame.iter_mut().skip(at).zip(bytes).for_each(|(old, new)| *old = *new);
    };
    match edit {
        Edit::Set(byte) => write(&[*byte]),
        Edit::LargestCount => write(&[0x7f, 0xff, 0xff, 0xff]),
        Edit::LargestCompactCount => write(&[0xff, 0xff, 0xff, 0xff, 0x0f]),
        Edit::Insert(byte) => frame.insert(at, *byte),
        Edit::Remove => drop(frame.remove(at)),
        Edit::Cut => frame.truncate(at.max(1)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// Twenty damaged frames, each on its own connection: all connections end once their client
    /// leaves, none is left behind, and the broker serves the next client.
    #[test]
    fn damaged_requests_harm_only_their_connection(
        rounds in prop::collection::vec(
            (
                any::<prop::sample::Index>(),
                prop::collection::vec((any::<prop::sample::Index>(), edit()), 1..5),
            ),
            20,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let cluster = start(|builder| builder.topic(TOPIC, 2, 1).auto_create_topics(3));
            let samples = samples(&target(&cluster));
            for (which, edits) in &rounds {
                let sample = which.get(&samples);
                let api = KafkaApi::try_from(sample.api).expect("a known api");
                let mut frame = Vec::new();
                frame.extend(sample.api.to_be_bytes());
                frame.extend(sample.version.to_be_bytes());
                frame.extend([0, 0, 0, 1, 0, 1, b'c']);
                if api.request_header_version(sample.version) >= 2 {
                    frame.push(0);
                }
                frame.extend(&sample.body);
                for (at, edit) in edits {
                    let at = at.index(frame.len());
                    apply(edit, at, &mut frame);
                    if frame.is_empty() {
                        frame.push(0);
                    }
                }
                let mut stream = cluster.connect_in_memory(1).expect("a connection");
                stream.write_all(&(frame.len() as u32).to_be_bytes()).await.expect("sent");
                // The broker may hang up before it has read everything.
                let _ = stream.write_all(&frame).await;
                let _ = stream.shutdown().await;
                let mut answer = Vec::new();
                // A damaged timeout may be any time, but a client that leaves ends the wait.
                let ended = timeout(LONG, stream.read_to_end(&mut answer)).await;
                assert!(ended.is_ok(), "the connection outlives its client: {frame:02x?}");
            }
            let mut client = Client::new(&cluster, 1);
            let response = client.ask(0, &ApiVersionsRequest::default()).await.expect("an answer");
            assert_eq!(response.error_code, 0);
            assert_eq!(cluster.stats().connections_open(), 1);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_of_impossible_length_closes_the_connection() {
    let cluster = start(|builder| builder);
    for len in [i32::MAX, -1, i32::MIN, (128 << 20) + 1] {
        let mut stream = cluster.connect_in_memory(1).expect("a connection");
        stream.write_all(&len.to_be_bytes()).await.expect("sent");
        let read = timeout(LONG, stream.read(&mut [0; 1])).await.expect("an end").expect("an end");
        assert_eq!(read, 0, "length {len}");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_without_a_request_close_the_connection() {
    let cluster = start(|builder| builder);
    for frame in [
        &[][..],
        &[0, 18],
        &[0, 18, 0, 3, 0, 0, 0, 1],                   // no client id
        &[0, 18, 0, 3, 0, 0, 0, 1, 0x7f, 0xff, b'c'], // a client id that is not there
        &[0, 18, 0, 3, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f], // tags that are not there
        &[0, 99, 0, 0, 0, 0, 0, 1, 0, 0],             // an unknown api
        &[0, 3, 0, 8, 0, 0, 0, 1, 0, 0, 0x7f, 0xff, 0xff, 0xff], // topics that are not there
        b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
    ] {
        let mut client = Client::new(&cluster, 1);
        client.send_frame(frame).await.expect("sent");
        client.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn http_without_a_frame_is_closed_too() {
    let cluster = start(|builder| builder);
    let mut stream = cluster.connect_in_memory(1).expect("a connection");
    // "GET " read as a length is over the limit.
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("sent");
    let read = timeout(LONG, stream.read(&mut [0; 1])).await.expect("an end").expect("an end");
    assert_eq!(read, 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_in_the_middle_leaves_nothing_behind() {
    let cluster = start(|builder| builder);
    let mut stream = cluster.connect_in_memory(1).expect("a connection");
    stream.write_all(&[0, 0, 1, 0, 0, 18]).await.expect("sent");
    drop(stream);
    let gone = timeout(LONG, async {
        while cluster.stats().connections_open() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    gone.await.expect("the broker notices");
    assert_eq!(cluster.stats().connections_accepted(), 1);
}
