//! Is a broker ready? Asked in Kafka's own words, by a client that knows two requests.
//!
//! An open port is not enough: a broker listens before it knows its controller and the others.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Metadata version 7: before the compact encoding, and in every release from 1.1 to 4.3.
const METADATA_V7: [u8; 4] = [0, 3, 0, 7];

/// ListOffsets version 1, the first that Kafka 4 has left.
const LIST_OFFSETS_V1: [u8; 4] = [0, 2, 0, 1];

/// An answer about brokers alone stays far below this.
const MAX_ANSWER: usize = 1 << 20;

const TIMEOUT: Duration = Duration::from_secs(2);

/// What one broker knows of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Ids of the brokers that are alive.
    pub brokers: Vec<i32>,
    /// The controller, or -1 while none is known.
    pub controller: i32,
}

/// One partition, as a broker knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Its number.
    pub index: i32,
    /// Its leader, or -1 while there is none.
    pub leader: i32,
    /// Brokers that are to have a copy.
    pub replicas: usize,
    /// Brokers whose copy is complete.
    pub in_sync: usize,
}

/// Asks the broker at `port` of 127.0.0.1 about its cluster.
pub fn view(port: u16) -> io::Result<View> {
    parse_view(&mut &ask(port, METADATA_V7, &metadata(&[])?)?[..]).ok_or_else(no_answer)
}

/// Asks the broker at `port` of 127.0.0.1 about topics: partitions by name, none for a topic that it
/// does not know.
pub fn topics(port: u16, names: &[&str]) -> io::Result<BTreeMap<String, Vec<Partition>>> {
    parse_topics(&mut &ask(port, METADATA_V7, &metadata(names)?)?[..]).ok_or_else(no_answer)
}

/// Whether the broker at `port` of 127.0.0.1 acts as the leader of these partitions. Metadata names
/// a leader before that broker has taken office: until then it refuses what is sent to it.
pub fn leads(port: u16, topics: &BTreeMap<String, Vec<i32>>) -> io::Result<bool> {
    // No replica, the topics, and of each partition the end.
    let mut body = (-1_i32).to_be_bytes().to_vec();
    count(&mut body, topics.len())?;
    for (topic, partitions) in topics {
        text(&mut body, topic)?;
        count(&mut body, partitions.len())?;
        for partition in partitions {
            body.extend(partition.to_be_bytes());
            body.extend((-1_i64).to_be_bytes());
        }
    }
    let answer = ask(port, LIST_OFFSETS_V1, &body)?;
    let errors = parse_errors(&mut &answer[..]).ok_or_else(no_answer)?;
    let asked: usize = topics.values().map(Vec::len).sum();
    Ok(errors.len() == asked && errors.into_iter().all(|error| error == 0))
}

/// Topics, no auto-creation.
fn metadata(topics: &[&str]) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    count(&mut body, topics.len())?;
    for topic in topics {
        text(&mut body, topic)?;
    }
    body.push(0);
    Ok(body)
}

fn count(request: &mut Vec<u8>, count: usize) -> io::Result<()> {
    request.extend(i32::try_from(count).map_err(io::Error::other)?.to_be_bytes());
    Ok(())
}

fn text(request: &mut Vec<u8>, text: &str) -> io::Result<()> {
    request.extend(i16::try_from(text.len()).map_err(io::Error::other)?.to_be_bytes());
    request.extend(text.as_bytes());
    Ok(())
}

fn ask(port: u16, key_and_version: [u8; 4], body: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // Header v1: key, version, correlation, client id.
    let mut request = key_and_version.to_vec();
    request.extend(1_i32.to_be_bytes());
    text(&mut request, "probe")?;
    request.extend(body);
    let length = u32::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &request[..]].concat())?;

    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_ANSWER {
        return Err(no_answer());
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a Kafka answer")
}

/// Leaves `rest` at the topics.
fn parse_view(rest: &mut &[u8]) -> Option<View> {
    let _correlation = int(rest)?;
    let _throttle = int(rest)?;
    let mut brokers = Vec::new();
    for _ in 0..int(rest)? {
        brokers.push(int(rest)?);
        string(rest)?;
        let _port = int(rest)?;
        string(rest)?;
    }
    string(rest)?;
    Some(View { brokers, controller: int(rest)? })
}

fn parse_topics(rest: &mut &[u8]) -> Option<BTreeMap<String, Vec<Partition>>> {
    parse_view(rest)?;
    let mut topics = BTreeMap::new();
    for _ in 0..int(rest)? {
        let _error = bytes(rest, 2)?;
        let name = String::from_utf8(string(rest)?.to_vec()).ok()?;
        let _internal = bytes(rest, 1)?;
        let mut partitions = Vec::new();
        for _ in 0..int(rest)? {
            let _error = bytes(rest, 2)?;
            let index = int(rest)?;
            let leader = int(rest)?;
            let _epoch = int(rest)?;
            let (replicas, in_sync, _offline) = (ints(rest)?, ints(rest)?, ints(rest)?);
            partitions.push(Partition { index, leader, replicas, in_sync });
        }
        topics.insert(name, partitions);
    }
    Some(topics)
}

/// The error of each partition.
fn parse_errors(rest: &mut &[u8]) -> Option<Vec<i16>> {
    let _correlation = int(rest)?;
    let mut errors = Vec::new();
    for _ in 0..int(rest)? {
        string(rest)?;
        for _ in 0..int(rest)? {
            let _index = int(rest)?;
            errors.push(i16::from_be_bytes(bytes(rest, 2)?.try_into().ok()?));
            let _timestamp_and_offset = bytes(rest, 16)?;
        }
    }
    Some(errors)
}

fn int(rest: &mut &[u8]) -> Option<i32> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(i32::from_be_bytes(*head))
}

/// How many numbers a list has.
fn ints(rest: &mut &[u8]) -> Option<usize> {
    let count = usize::try_from(int(rest)?).ok()?;
    bytes(rest, count.checked_mul(4)?).map(|_| count)
}

/// A length of -1 is null: nothing follows.
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    bytes(rest, usize::try_from(i16::from_be_bytes(*head)).unwrap_or(0))
}

fn bytes<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(count)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_a_cut_one_refused() {
        let mut answer = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        answer.extend([0, 0, 0, 7, 0, 1, b'h', 0, 0, 0, 9, 0xff, 0xff]);
        answer.extend([0, 2, b'i', b'd', 0, 0, 0, 7, 0, 0, 0, 0]);
        assert_eq!(parse_view(&mut &answer[..]), Some(View { brokers: vec![7], controller: 7 }));
        for cut in 0..answer.len() - 4 {
            assert_eq!(parse_view(&mut &answer[..cut]), None, "cut at {cut}");
        }

        let mut answer = answer[..answer.len() - 4].to_vec();
        answer.extend([0, 0, 0, 2, 0, 3, 0, 1, b'u', 0, 0, 0, 0, 0, 0, 0, 0, 1, b't', 0]);
        answer.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1]);
        answer.extend([0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0]);
        let known = vec![Partition { index: 0, leader: 7, replicas: 2, in_sync: 1 }];
        let both = BTreeMap::from([("t".to_owned(), known), ("u".to_owned(), Vec::new())]);
        assert_eq!(parse_topics(&mut &answer[..]), Some(both));
        for cut in 0..answer.len() {
            assert_eq!(parse_topics(&mut &answer[..cut]), None, "cut at {cut}");
        }

        let mut answer = vec![0, 0, 0, 1, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2];
        answer.extend(
            [[0, 0, 0, 0, 0, 6], [0, 0, 0, 1, 0, 0]].map(|p| [&p[..], &[0; 16]].concat()).concat(),
        );
        assert_eq!(parse_errors(&mut &answer[..]), Some(vec![6, 0]));
        for cut in 0..answer.len() {
            assert_eq!(parse_errors(&mut &answer[..cut]), None, "cut at {cut}");
        }
    }
}
