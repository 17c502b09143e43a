//! The network by itself, with a broker that echoes.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::{Endpoint, Transport};
use ottla_fleet::lab::virtual_time;
use ottla_fleet::net::{ACCEPT_EVERY_MS, Api, BACKLOG, Host, Link, Network, Outcome, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// Brokers that answer with what they were told.
#[derive(Clone, Default)]
struct Echo {
    down: Arc<Mutex<BTreeSet<i32>>>,
}

impl Host for Echo {
    fn listens(&self, broker: i32) -> bool {
        !self.down.lock().unwrap().contains(&broker)
    }

    fn accept(&self, _: i32, stream: Stream) -> io::Result<()> {
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        });
        Ok(())
    }
}

fn network(link: Link) -> (Network, Echo) {
    let echo = Echo::default();
    (Network::new(2, link, echo.clone()), echo)
}

fn at(broker: i32) -> Endpoint {
    Endpoint { host: format!("broker-{broker}"), port: 9092 }
}

async fn dial(network: &Network, client: u32, broker: i32) -> io::Result<Box<dyn Transport>> {
    network.dialer(client).dial(&at(broker)).await
}

async fn echoed(stream: &mut Box<dyn Transport>, bytes: usize) -> Duration {
    let began = Instant::now();
    stream.write_all(&vec![7; bytes]).await.expect("an open connection");
    stream.read_exact(&mut vec![0; bytes]).await.expect("an echo");
    began.elapsed()
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn a_round_trip_takes_twice_the_delay_and_bandwidth_its_time() {
    virtual_time(async {
        let link = Link { delay: ms(5), bandwidth: Some(1_000_000) };
        let (network, _) = network(link);
        let began = Instant::now();
        let mut stream = dial(&network, 0, 1).await.expect("a connection");
        assert_eq!(began.elapsed(), ms(10));
        // Accepted by now, so that what follows is the link alone.
        tokio::time::sleep(ms(100)).await;
        // 10 ms to send, as long to answer, each way's delay: pieces are echoed as they come.
        assert_eq!(echoed(&mut stream, 10_000).await, ms(30));
        network.set_link(1, Link { delay: ms(1), bandwidth: None });
        assert_eq!(echoed(&mut stream, 10_000).await, ms(2));
    });
}

#[test]
fn bytes_arrive_whole_and_in_order_through_a_full_window() {
    virtual_time(async {
        let (network, _) = network(Link::default());
        let stream = dial(&network, 0, 1).await.expect("a connection");
        let bytes: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
        let (mut read, mut write) = tokio::io::split(stream);
        let sent = bytes.clone();
        tokio::spawn(async move {
            write.write_all(&sent).await.expect("an open connection");
            write.shutdown().await.expect("an open connection");
        });
        let mut got = Vec::new();
        read.read_to_end(&mut got).await.expect("an echo to the end");
        assert!(got == bytes, "{} bytes of {}", got.len(), bytes.len());
    });
}

#[test]
fn what_does_not_fit_the_backlog_waits_for_its_next_syn() {
    virtual_time(async {
        let (network, _) = network(Link::default());
        let began = Instant::now();
        let dials: Vec<_> = (0..BACKLOG as u32 + 30)
            .map(|client| {
                let network = network.clone();
                tokio::spawn(async move {
                    dial(&network, client, 1).await.expect("a connection");
                    began.elapsed()
                })
            })
            .collect();
        let mut took = Vec::new();
        for dial in dials {
            took.push(dial.await.expect("no panic"));
        }
        assert_eq!(took.iter().filter(|took| **took == ms(2)).count(), BACKLOG);
        assert_eq!(took.iter().filter(|took| **took == ms(1002)).count(), 30);
        network.log(|log| {
            assert_eq!(log.overflows(0, 10_000), 30);
            assert_eq!(log.peak_per_10ms(0, 10_000), BACKLOG as u32 + 30);
            assert!(log.dials().iter().all(|dial| dial.outcome == Outcome::Connected));
        });
    });
}

#[test]
fn a_broker_takes_what_waits_every_ten_milliseconds() {
    virtual_time(async {
        let (network, _) = network(Link::default());
        tokio::time::sleep(ms(ACCEPT_EVERY_MS * 3 + 1)).await;
        let mut stream = dial(&network, 0, 1).await.expect("a connection");
        // Connected at 33 ms, written at once, accepted at 40, echoed at 41.
        assert_eq!(echoed(&mut stream, 1).await, ms(8));
    });
}

/// What arrives in the very millisecond is taken with the rest.
#[test]
fn a_broker_takes_what_comes_at_that_moment() {
    virtual_time(async {
        let (network, _) = network(Link::default());
        tokio::time::sleep(ms(32)).await;
        let _first = dial(&network, 0, 1).await.expect("a connection");
        tokio::time::sleep(ms(5)).await;
        // Sent at 39 ms, there at 40, when the first is accepted.
        let mut second = dial(&network, 1, 1).await.expect("a connection");
        assert_eq!(echoed(&mut second, 1).await, ms(2));
    });
}

#[test]
fn nobody_listens() {
    virtual_time(async {
        let (network, echo) = network(Link::default());
        echo.down.lock().unwrap().insert(1);
        let began = Instant::now();
        let refused = dial(&network, 3, 1).await.err().expect("refused");
        assert_eq!((refused.kind(), began.elapsed()), (io::ErrorKind::ConnectionRefused, ms(2)));
        dial(&network, 3, 2).await.expect("the other is there");
        let unknown = dial(&network, 3, 9).await.err().expect("unknown");
        assert_eq!(unknown.kind(), io::ErrorKind::NotFound);
        let outcomes = network.log(|log| log.dials().iter().map(|d| d.outcome).collect::<Vec<_>>());
        assert_eq!(outcomes, [Outcome::Refused, Outcome::Connected]);
    });
}

#[test]
fn a_reset_is_seen_at_once_and_a_hang_up_after_the_delay() {
    virtual_time(async {
        let (network, _) = network(Link { delay: ms(5), bandwidth: None });
        let mut one = dial(&network, 0, 1).await.expect("a connection");
        let mut two = dial(&network, 0, 2).await.expect("a connection");
        echoed(&mut one, 1).await;
        echoed(&mut two, 1).await;
        assert_eq!(network.open_of(0), [1, 2]);
        let began = Instant::now();
        assert_eq!(network.reset(&[1]), 1);
        let end = one.read_u8().await.expect_err("reset");
        assert_eq!((end.kind(), began.elapsed()), (io::ErrorKind::ConnectionReset, ms(0)));
        assert_eq!(network.hang_up(2), 1);
        let end = two.read_u8().await.expect_err("closed");
        assert_eq!((end.kind(), began.elapsed()), (io::ErrorKind::UnexpectedEof, ms(5)));
        assert!(network.open_of(0).is_empty());
        // What is written to an end that is gone comes back as a reset.
        two.write_all(&[1]).await.expect("the kernel takes it");
        assert_eq!(two.read(&mut [0]).await.expect("the end, again"), 0);
        tokio::time::sleep(ms(11)).await;
        let end = two.write_all(&[1]).await.expect_err("reset");
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_black_hole_swallows_and_a_retransmission_brings_it_back() {
    virtual_time(async {
        let (network, _) = network(Link::default());
        let mut open = dial(&network, 0, 1).await.expect("a connection");
        echoed(&mut open, 1).await;
        network.black_hole(1);
        let lost_at = Instant::now() + ms(1);
        open.write_all(&[5]).await.expect("the kernel takes it");
        let hangs = tokio::time::timeout(ms(2000), dial(&network, 1, 1)).await;
        assert!(hangs.is_err(), "dialled through a black hole");
        tokio::time::sleep(ms(28_000)).await;
        network.heal(1);
        // Sent again after 0.2, 0.6, 1.4 ... 25.4 and then 51 seconds.
        let echo = tokio::time::timeout(ms(3_600_000), open.read_u8()).await;
        assert_eq!(echo.expect("nothing is lost in it").expect("an echo"), 5);
        assert_eq!(lost_at.elapsed(), ms(51_001));
        network.log(|log| assert_eq!(log.dials()[1].outcome, Outcome::GivenUp));
    });
}

#[test]
fn requests_are_counted_by_client_broker_and_second() {
    virtual_time(async {
        let (network, _) = network(Link::default());
        let mut stream = dial(&network, 4, 2).await.expect("a connection");
        let metadata = [0, 0, 0, 4, 0, 3, 0, 9];
        stream.write_all(&metadata).await.expect("an open connection");
        tokio::time::sleep(ms(1500)).await;
        stream.write_all(&[metadata, metadata].concat()).await.expect("an open connection");
        network.log(|log| {
            let api = Api::Metadata as usize;
            assert_eq!(log.by_client()[4][api], 3);
            assert_eq!(log.by_broker()[1][api], 3);
            assert_eq!((log.by_second()[0][api], log.by_second()[1][api]), (1, 2));
            assert_eq!(log.bytes_to_broker(), [0, 24]);
        });
        // Produce requests, of which those to one broker are looked at closely from some time on.
        let produce = [0, 0, 0, 4, 0, 0, 0, 9];
        network.watch(2);
        stream.write_all(&produce).await.expect("an open connection");
        network.watch(2);
        let mut other = dial(&network, 5, 1).await.expect("a connection");
        other.write_all(&produce).await.expect("an open connection");
        tokio::time::sleep(ms(1000)).await;
        stream.write_all(&produce).await.expect("an open connection");
        network.log(|log| {
            assert_eq!(log.seen().iter().map(|seen| seen.1).collect::<Vec<_>>(), [4]);
            let by_second =
                |broker| [1, 2, 3].map(|second| log.produce_to(broker, second, second + 1));
            assert_eq!((by_second(1), by_second(2)), ([1, 0, 0], [1, 1, 0]));
            assert_eq!((log.produce_to(2, 0, 2), log.produce_to(2, 0, 3)), (1, 2));
        });
    });
}

#[test]
fn dials_are_counted_in_their_time_and_where_they_went() {
    virtual_time(async {
        let (network, _) = network(Link::default());
        let mut open = Vec::new();
        for (client, broker) in [(0, 1), (0, 2), (1, 1)] {
            open.push(dial(&network, client, broker).await.expect("a connection"));
            tokio::time::sleep(ms(98)).await;
        }
        network.log(|log| {
            let at: Vec<_> =
                log.dials().iter().map(|dial| (dial.at_ms, dial.client, dial.broker)).collect();
            assert_eq!(at, [(0, 0, 1), (100, 0, 2), (200, 1, 1)]);
            let within = |from, to| log.dials_in(from, to).len();
            assert_eq!(
                [within(0, 100), within(0, 101), within(1, 201), within(201, 300)],
                [1, 2, 2, 0]
            );
            assert_eq!(log.peak_per_10ms(0, 300), 1);
        });
        // At one time to two brokers: a peak is one broker's.
        let both = tokio::join!(dial(&network, 2, 1), dial(&network, 3, 2), dial(&network, 4, 2));
        assert_eq!(network.log(|log| log.peak_per_10ms(300, 400)), 2);
        assert_eq!((network.open_at(1), network.open_at(2)), (3, 3));
        drop((both, open));
        tokio::time::sleep(ms(100)).await;
        assert_eq!((network.open_at(1), network.open_at(2)), (0, 0));
    });
}

#[test]
fn two_runs_are_the_same_only_if_each_client_did_the_same_at_the_same_times() {
    let digests = |wait: u64, bytes: u8| {
        virtual_time(async move {
            let (network, _) = network(Link::default());
            let mut stream = dial(&network, 0, 1).await.expect("a connection");
            tokio::time::sleep(ms(wait)).await;
            let request = [&[0, 0, 0, 4 + bytes, 0, 3, 0, 9][..], &vec![0; bytes.into()]].concat();
            stream.write_all(&request).await.expect("an open connection");
            network.log(|log| log.digests().to_vec())
        })
    };
    assert_eq!(digests(5, 0), digests(5, 0));
    assert_ne!(digests(5, 0), digests(6, 0));
    assert_ne!(digests(5, 0), digests(5, 1));
}

#[test]
fn who_gives_up_leaves_no_connection_behind() {
    virtual_time(async {
        let (network, _) = network(Link { delay: ms(5), bandwidth: None });
        let given_up = tokio::time::timeout(ms(7), dial(&network, 0, 1)).await;
        assert!(given_up.is_err());
        // The broker has it in its backlog until the response has come back to nobody.
        tokio::time::sleep(ms(50)).await;
        assert_eq!(network.open_at(1), 0);
        network.log(|log| assert_eq!(log.dials()[0].outcome, Outcome::GivenUp));
    });
}

#[test]
fn what_was_not_read_before_a_reset_is_lost() {
    virtual_time(async {
        let (network, _) = network(Link::default());
        let mut stream = dial(&network, 0, 1).await.expect("a connection");
        stream.write_all(&[1, 2, 3]).await.expect("an open connection");
        tokio::time::sleep(ms(50)).await;
        network.reset(&[1]);
        let end = stream.read(&mut [0; 3]).await.expect_err("reset");
        assert_eq!(end.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_write_of_many_slices_loses_none() {
    virtual_time(async {
        let (network, _) = network(Link::default());
        let mut stream = dial(&network, 0, 1).await.expect("a connection");
        let pieces: Vec<Vec<u8>> = (0..20u8).map(|i| vec![i; 1000]).collect();
        let slices: Vec<_> = pieces.iter().map(|piece| io::IoSlice::new(piece)).collect();
        let written = stream.write_vectored(&slices).await.expect("an open connection");
        assert_eq!(written, 20_000, "there is room for all");
        let mut got = vec![0; written];
        stream.read_exact(&mut got).await.expect("an echo");
        assert!(got == pieces.concat());
    });
}
