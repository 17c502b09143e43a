//! The relay against a broker of a few lines, over real sockets.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ApiKey, ProduceResponse};
use kafka_protocol::protocol::{Decodable, Encodable};
use ottla_relay::{End, Event, Log, Relay, Target, What};

/// Longer than anything takes; what ends a test that would hang.
const SOON: Duration = Duration::from_secs(30);

const PRODUCE_VERSION: i16 = 8;

/// Whether the broker writes what it is sent.
#[derive(Clone, Copy)]
enum Mood {
    Writes,
    Refuses,
}

/// A relay in front of a broker, and the correlation ids that the broker gets to see.
fn start(mood: Mood) -> (Relay, Receiver<i32>) {
    let (to, seen) = broker(mood);
    (Relay::start(vec![target(1, to)]).unwrap(), seen)
}

/// The place in front of a broker.
fn target(broker: u32, to: SocketAddr) -> Target {
    Target { broker, listener: TcpListener::bind("127.0.0.1:0").unwrap(), to }
}

/// A broker: it says how long a Fetch request is and brings it back, leaves Metadata without a response,
/// hangs up on FindCoordinator, and says "pong" to what is no Produce request either.
fn broker(mood: Mood) -> (SocketAddr, Receiver<i32>) {
    let broker = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = broker.local_addr().unwrap();
    let (tx, seen) = channel();
    std::thread::spawn(move || {
        for stream in broker.incoming() {
            let (mut stream, tx) = (stream.unwrap(), tx.clone());
            std::thread::spawn(move || {
                while let Ok(request) = read(&mut stream) {
                    let correlation = i32::from_be_bytes(request[4..8].try_into().unwrap());
                    let api = i16::from_be_bytes([request[0], request[1]]);
                    // A test that has ended does not listen.
                    let _ = tx.send(correlation);
                    let body = match ApiKey::try_from(api) {
                        Ok(ApiKey::Produce) => produced(mood),
                        Ok(ApiKey::Fetch) => request.into(),
                        Ok(ApiKey::Metadata) => continue,
                        Ok(ApiKey::FindCoordinator) => break,
                        _ => Bytes::from_static(b"pong"),
                    };
                    let mut answer = correlation.to_be_bytes().to_vec();
                    answer.extend(body);
                    if write(&mut stream, &answer).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (to, seen)
}

fn produced(mood: Mood) -> Bytes {
    let mut partition = PartitionProduceResponse::default();
    partition.error_code = match mood {
        Mood::Writes => 0,
        Mood::Refuses => 6,
    };
    let topic = TopicProduceResponse::default().with_partition_responses(vec![partition]);
    let mut out = BytesMut::new();
    ProduceResponse::default()
        .with_responses(vec![topic])
        .encode(&mut out, PRODUCE_VERSION)
        .unwrap();
    out.freeze()
}

fn read(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame)?;
    Ok(frame)
}

fn write(stream: &mut TcpStream, frame: &[u8]) -> io::Result<()> {
    let length = (frame.len() as u32).to_be_bytes();
    stream.write_all(&[&length[..], frame].concat())
}

struct Client(TcpStream);

impl Client {
    fn connect(relay: &Relay) -> Self {
        Self::connect_to(relay, 1)
    }

    fn connect_to(relay: &Relay, broker: u32) -> Self {
        let stream = TcpStream::connect(relay.address(broker)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        Self(stream)
    }

    fn send(&mut self, api: ApiKey, version: i16, correlation: i32) {
        self.send_as("me", api, version, correlation, b"a body");
    }

    /// What was sent, without its length.
    fn send_as(
        &mut self,
        name: &str,
        api: ApiKey,
        version: i16,
        correlation: i32,
        body: &[u8],
    ) -> Bytes {
        let mut request = BytesMut::new();
        request.put_i16(api as i16);
        request.put_i16(version);
        request.put_i32(correlation);
        request.put_i16(name.len() as i16);
        request.put_slice(name.as_bytes());
        request.put_slice(body);
        write(&mut self.0, &request).unwrap();
        request.freeze()
    }

    fn ping(&mut self, correlation: i32) {
        self.send(ApiKey::ApiVersions, 0, correlation);
        self.pong(correlation);
    }

    fn pong(&mut self, correlation: i32) {
        let answer = read(&mut self.0).unwrap();
        assert_eq!(answer, [&correlation.to_be_bytes()[..], b"pong"].concat());
    }

    /// What the broker's response to a Produce request becomes on its way.
    fn produce(&mut self, correlation: i32) -> ProduceResponse {
        self.send(ApiKey::Produce, PRODUCE_VERSION, correlation);
        let answer = read(&mut self.0).unwrap();
        assert_eq!(answer[..4], correlation.to_be_bytes());
        ProduceResponse::decode(&mut &answer[4..], PRODUCE_VERSION).unwrap()
    }

    fn assert_reset(&mut self) {
        let end = read(&mut self.0).unwrap_err().kind();
        assert_eq!(end, io::ErrorKind::ConnectionReset);
    }
}

fn closed(log: &Log) -> Vec<End> {
    let end = |event: &Event| match event.what {
        What::Closed(end) => Some(end),
        _ => None,
    };
    log.events().iter().filter_map(end).collect()
}

fn wait_closed(relay: &Relay, wanted: &[End]) {
    let there = relay.wait(SOON, |log| (closed(log) == wanted).then_some(()));
    assert!(there.is_some(), "{:?}", closed(&relay.log()));
}

#[test]
fn frames_pass_both_ways_and_are_counted() {
    let (relay, seen) = start(Mood::Writes);
    let mut client = Client::connect(&relay);
    client.ping(1);
    client.ping(2);
    assert_eq!([seen.recv(), seen.recv()], [Ok(1), Ok(2)]);
    let log = relay.log();
    assert_eq!((log.connects(), log.requests(ApiKey::ApiVersions)), (1, 2));
    assert_eq!(log.requests_by_client(ApiKey::ApiVersions).get("me"), Some(&2));
    drop(client);
    wait_closed(&relay, &[End::Client]);
    assert_eq!(relay.log().resets(), 0, "clients leave by themselves");
}

#[test]
fn frames_of_any_size_pass_whole_and_in_order() {
    let (relay, _seen) = start(Mood::Writes);
    let mut client = Client::connect(&relay);
    // The largest does not fit into any socket's buffers.
    let sizes = [1, 70_000, 0, 3_000_001, 300_000];
    let mut sender = Client(client.0.try_clone().unwrap());
    let sent = std::thread::spawn(move || {
        let request = |(number, size): (i32, usize)| {
            let body: Vec<u8> = (0..size).map(|i| (i / 251 + i) as u8 ^ number as u8).collect();
            sender.send_as("me", ApiKey::Fetch, 0, number, &body)
        };
        (0..).zip(sizes).map(request).collect::<Vec<_>>()
    });
    let got: Vec<_> = sizes.iter().map(|_| read(&mut client.0).unwrap()).collect();
    for (number, (got, sent)) in (0i32..).zip(got.iter().zip(sent.join().unwrap())) {
        let whole = got[..4] == number.to_be_bytes() && got[4..] == sent;
        assert!(whole, "request {number} of {} bytes came as {}", sent.len(), got.len());
    }
}

#[test]
fn each_connection_and_each_name_counts_once() {
    let (relay, _seen) = start(Mood::Writes);
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(&relay)).collect();
    clients.iter_mut().for_each(|client| client.ping(1));
    // One connection that two clients use, as through a proxy.
    clients[2].send_as("another", ApiKey::ApiVersions, 0, 2, b"");
    clients[2].pong(2);
    let log = relay.log();
    assert_eq!(log.connects(), 3);
    let names = log.requests_by_client(ApiKey::ApiVersions);
    assert_eq!(names.into_iter().collect::<Vec<_>>(), [("another".into(), 1), ("me".into(), 3)]);
}

#[test]
fn what_has_ended_is_not_reset() {
    let (relay, _seen) = start(Mood::Writes);
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(&relay)).collect();
    clients.iter_mut().for_each(|client| client.ping(1));
    clients[0].send(ApiKey::FindCoordinator, 0, 2);
    wait_closed(&relay, &[End::Broker]);
    assert_eq!(relay.reset_all(), 2);
    wait_closed(&relay, &[End::Broker, End::Relay, End::Relay]);
    assert_eq!(relay.log().resets(), 2);
}

#[test]
fn what_is_refused_is_refused_by_the_kernel_and_what_is_open_is_reset() {
    let (relay, _) = start(Mood::Writes);
    let mut client = Client::connect(&relay);
    client.ping(1);
    relay.refuse(1);
    client.assert_reset();
    let refused = TcpStream::connect(relay.address(1)).unwrap_err().kind();
    assert_eq!(refused, io::ErrorKind::ConnectionRefused);
    wait_closed(&relay, &[End::Relay]);
    relay.heal(1);
    Client::connect(&relay).ping(2);
}

#[test]
fn nothing_leaves_a_black_hole_before_it_heals() {
    let (relay, seen) = start(Mood::Writes);
    let mut old = Client::connect(&relay);
    old.ping(1);
    assert_eq!(seen.recv(), Ok(1));
    relay.black_hole(1);
    let mut new = Client::connect(&relay);
    old.send(ApiKey::ApiVersions, 0, 2);
    new.send(ApiKey::ApiVersions, 0, 3);
    // One gives up: its request is on its way all the same.
    let mut impatient = Client::connect(&relay);
    impatient.send(ApiKey::ApiVersions, 0, 4);
    drop(impatient);
    let sent = |log: &Log| (log.requests(ApiKey::ApiVersions) == 4).then_some(());
    relay.wait(SOON, sent).expect("requests are taken");
    wait_closed(&relay, &[End::Client]);
    // The relay passes in turns: what passes at all has passed when it has done so much else.
    for _ in 0..100 {
        relay.black_hole(1);
    }
    assert!(seen.try_recv().is_err(), "a request came through");

    relay.heal(1);
    old.pong(2);
    new.pong(3);
    let mut late: Vec<_> = (0..3).map(|_| seen.recv_timeout(SOON).unwrap()).collect();
    late.sort_unstable();
    assert_eq!(late, [2, 3, 4]);
}

#[test]
fn all_connections_are_reset_at_once_and_new_ones_are_not() {
    let (relay, _) = start(Mood::Writes);
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(&relay)).collect();
    clients.iter_mut().for_each(|client| client.ping(1));
    assert_eq!(relay.reset_all(), 5);
    clients.iter_mut().for_each(Client::assert_reset);
    wait_closed(&relay, &[End::Relay; 5]);
    assert_eq!(relay.log().resets(), 5);
    Client::connect(&relay).ping(2);
}

#[test]
fn a_throttled_client_is_told_for_how_long() {
    let (relay, _) = start(Mood::Writes);
    let mut client = Client::connect(&relay);
    assert_eq!(client.produce(1).throttle_time_ms, 0);
    relay.throttle(1, SOON);
    let told = client.produce(2);
    assert!((1..=30_000).contains(&told.throttle_time_ms), "{told:?}");
    assert_eq!(told.responses.len(), 1);
    relay.throttle(1, Duration::ZERO);
    assert_eq!(client.produce(3).throttle_time_ms, 0);
    // It had been told and sent all the same.
    assert_eq!(relay.log().sent_while_throttled(Duration::ZERO), (1, 1));
}

#[test]
fn one_broker_asks_for_silence_and_in_no_other_response() {
    let (one, two) = (broker(Mood::Writes), broker(Mood::Writes));
    let relay = Relay::start(vec![target(1, one.0), target(2, two.0)]).unwrap();
    assert_eq!(relay.brokers(), [1, 2]);
    relay.throttle(1, SOON);
    let mut there = Client::connect_to(&relay, 1);
    // Has no response: what comes next is not taken for it.
    there.send(ApiKey::Metadata, 0, 1);
    assert!(there.produce(2).throttle_time_ms > 0);
    assert_eq!(Client::connect_to(&relay, 2).produce(3).throttle_time_ms, 0);
    let told = |event: &&Event| matches!(event.what, What::Throttled(_));
    assert_eq!(relay.log().events().iter().filter(told).count(), 1);
}

#[test]
fn nobody_is_dialled_through_a_black_hole() {
    let broker = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Relay::start(vec![target(1, broker.local_addr().unwrap())]).unwrap();
    relay.black_hole(1);
    let mut client = Client::connect(&relay);
    client.send(ApiKey::ApiVersions, 0, 1);
    let sent = |log: &Log| (log.requests(ApiKey::ApiVersions) == 1).then_some(());
    relay.wait(SOON, sent).expect("the request is taken");
    broker.set_nonblocking(true).unwrap();
    let dialled = broker.accept().map(drop).map_err(|e| e.kind());
    assert_eq!(dialled, Err(io::ErrorKind::WouldBlock));
    broker.set_nonblocking(false).unwrap();
    relay.heal(1);
    let request = read(&mut broker.accept().unwrap().0).unwrap();
    assert_eq!(request[4..8], 1i32.to_be_bytes());
}

/// Responses that are on their way when the path breaks wait for it as requests do.
#[test]
fn no_response_leaves_a_black_hole_before_it_heals() {
    let broker = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Relay::start(vec![target(1, broker.local_addr().unwrap())]).unwrap();
    let mut client = Client::connect(&relay);
    client.send(ApiKey::ApiVersions, 0, 1);
    let mut there = broker.accept().unwrap().0;
    read(&mut there).unwrap();
    relay.black_hole(1);
    write(&mut there, &[&1i32.to_be_bytes()[..], b"pong"].concat()).unwrap();
    // The relay passes in turns: what passes at all has passed when it has done so much else.
    for _ in 0..100 {
        relay.black_hole(1);
    }
    client.0.set_nonblocking(true).unwrap();
    let early = client.0.read(&mut [0; 1]).map_err(|e| e.kind());
    assert_eq!(early, Err(io::ErrorKind::WouldBlock));
    client.0.set_nonblocking(false).unwrap();
    relay.heal(1);
    client.pong(1);
}

#[test]
fn a_response_is_lost_only_once_the_records_are_written() {
    let (relay, seen) = start(Mood::Writes);
    relay.lose_responses(1, 1);
    let mut client = Client::connect(&relay);
    client.ping(1);
    client.send(ApiKey::Produce, PRODUCE_VERSION, 2);
    client.assert_reset();
    assert_eq!([seen.recv(), seen.recv()], [Ok(1), Ok(2)]);
    Client::connect(&relay).produce(3);

    let (relay, _) = start(Mood::Refuses);
    relay.lose_responses(1, 1);
    Client::connect(&relay).produce(1);
    assert!(relay.log().events().iter().all(|event| event.what != What::ResponseLost));
}

#[test]
fn what_is_no_kafka_and_what_has_no_broker_is_closed() {
    let (relay, seen) = start(Mood::Writes);
    let mut client = Client::connect(&relay);
    client.0.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    wait_closed(&relay, &[End::Relay]);
    drop(client);
    drop(seen);

    // Taken for as long as the test, and nobody listens.
    let nobody = tokio::net::TcpSocket::new_v4().unwrap();
    nobody.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let to = nobody.local_addr().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let relay = Relay::start(vec![Target { broker: 1, listener, to }]).unwrap();
    Client::connect(&relay).assert_reset();
    wait_closed(&relay, &[End::Broker]);
}
