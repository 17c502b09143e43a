//! The frame reader, fed a stream in pieces.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};

use super::Verdict;
use crate::config::MAX_FRAME;
use crate::net::frames::FrameReader;
use crate::record::pool::ChunkPool;

/// What the stream goes on with after the bytes of the input. As a length it is beyond every limit.
const FILLER: u8 = b'A';

/// From here on, a byte of the input stands for so many MiB of filler more: a large frame.
const FILLER_FROM: u8 = 0xf0;

/// Reads frames until the stream ends or is refused: four bytes for the sizes of pieces in turn, a
/// byte for how much filler the stream ends with, and the stream.
///
/// # Panics
/// If the frames, or how the stream ends, are not those of a plain cut over all bytes at once.
pub fn frames(input: &[u8]) -> Verdict {
    let Some((&[a, b, c, d, filler], bytes)) = input.split_first_chunk() else {
        return Verdict::Unfit;
    };
    let len = bytes.len() + (usize::from(filler.saturating_sub(FILLER_FROM)) << 20);
    let mut stream = Stream { bytes, len, at: 0, pieces: [a, b, c, d], turn: 0 };
    let mut reader = FrameReader::new(ChunkPool::default());
    let mut cx = Context::from_waker(Waker::noop());
    let mut at = 0;
    loop {
        let expected = stream.cut(at);
        let got = loop {
            match reader.poll_frame(&mut stream, &mut cx) {
                Poll::Ready(got) => break got,
                // The stream has asked to be polled again.
                Poll::Pending => {}
            }
        };
        match (got, expected) {
            (Ok(frame), Ok(size)) => {
                assert_eq!(frame.len(), size, "the frame at {at}");
                assert!(stream.is_at(at + 4, &frame), "the frame at {at} has other bytes");
                at += 4 + size;
            }
            (Err(got), Err(expected)) => {
                assert_eq!(got.kind(), expected, "the end of the stream at {at}");
                let all = expected == io::ErrorKind::UnexpectedEof && at == len;
                return if all { Verdict::Taken } else { Verdict::Refused };
            }
            (got, expected) => panic!("at {at}: {got:?} where {expected:?} is due"),
        }
    }
}

struct Stream<'a> {
    bytes: &'a [u8],
    /// With filler.
    len: usize,
    at: usize,
    pieces: [u8; 4],
    turn: usize,
}

impl Stream<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(FILLER)
    }

    /// Size of the frame whose prefix is at this place, or how the stream ends there.
    fn cut(&self, at: usize) -> Result<usize, io::ErrorKind> {
        if self.len - at < 4 {
            return Err(io::ErrorKind::UnexpectedEof);
        }
        let prefix = [0, 1, 2, 3].map(|i| self.byte(at + i));
        let size = u32::from_be_bytes(prefix) as usize;
        if size > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData);
        }
        if self.len - at - 4 < size {
            return Err(io::ErrorKind::UnexpectedEof);
        }
        Ok(size)
    }

    fn is_at(&self, at: usize, frame: &[u8]) -> bool {
        let here = self.bytes.get(at..).unwrap_or_default();
        let (own, filler) = frame.split_at(here.len().min(frame.len()));
        own == &here[..own.len()] && filler.iter().all(|byte| *byte == FILLER)
    }
}

impl AsyncRead for Stream<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let piece = self.pieces[self.turn % 4];
        self.turn += 1;
        let most = match piece {
            // Filler comes as it is asked for: a million pieces of it would tell no more.
            _ if self.at >= self.bytes.len() => usize::MAX,
            // Nothing there yet; without a piece of another size it would never be.
            0 if self.pieces != [0; 4] => return Poll::Pending,
            0 => usize::MAX,
            1..128 => usize::from(piece),
            128.. => usize::from(piece - 127) * 1024,
        };
        let n = most.min(buf.remaining()).min(self.len - self.at);
        let from = self.at.min(self.bytes.len());
        let own = &self.bytes[from..self.bytes.len().min(from + n)];
        buf.put_slice(own);
        let filler = n - own.len();
        buf.initialize_unfilled_to(filler).fill(FILLER);
        buf.advance(filler);
        self.at += n;
        Poll::Ready(Ok(()))
    }
}
