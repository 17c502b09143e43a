//! Is a broker ready? Asked in Kafka's own words, by a client that knows one request.
//!
//! An open port is not enough: a broker listens before it knows its controller and the others.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Metadata version 7: before the compact encoding, and in every release from 1.1 to 4.3.
const METADATA_V7: [u8; 4] = [0, 3, 0, 7];

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

/// Asks the broker at `port` of 127.0.0.1.
pub fn view(port: u16) -> io::Result<View> {
    let mut stream =
        TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // Header v1: key, version, correlation, client id. Body: no topics, no auto-creation.
    let mut request = METADATA_V7.to_vec();
    request.extend(1_i32.to_be_bytes());
    request.extend(5_i16.to_be_bytes());
    request.extend(b"probe");
    request.extend(0_i32.to_be_bytes());
    request.push(0);
    let length = u32::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], &request[..]].concat())?;

    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_ANSWER {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a Kafka answer"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a Kafka answer"))
}

fn parse(answer: &[u8]) -> Option<View> {
    let mut rest = answer;
    let _correlation = int(&mut rest)?;
    let _throttle = int(&mut rest)?;
    let mut brokers = Vec::new();
    for _ in 0..int(&mut rest)? {
        brokers.push(int(&mut rest)?);
        skip_string(&mut rest)?;
        let _port = int(&mut rest)?;
        skip_string(&mut rest)?;
    }
    skip_string(&mut rest)?;
    Some(View { brokers, controller: int(&mut rest)? })
}

fn int(rest: &mut &[u8]) -> Option<i32> {
    let (head, tail) = rest.split_first_chunk()?;
    *rest = tail;
    Some(i32::from_be_bytes(*head))
}

/// A length of -1 is null: nothing follows.
fn skip_string(rest: &mut &[u8]) -> Option<()> {
    let (head, tail) = rest.split_first_chunk()?;
    let length = usize::try_from(i16::from_be_bytes(*head)).unwrap_or(0);
    *rest = tail.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_a_cut_one_refused() {
        let mut answer = vec![0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
        answer.extend([0, 0, 0, 7, 0, 1, b'h', 0, 0, 0, 9, 0xff, 0xff]);
        answer.extend([0, 2, b'i', b'd', 0, 0, 0, 7, 0, 0, 0, 0]);
        assert_eq!(parse(&answer), Some(View { brokers: vec![7], controller: 7 }));
        for cut in 0..answer.len() - 4 {
            assert_eq!(parse(&answer[..cut]), None, "cut at {cut}");
        }
    }
}
