//! Cuts the byte stream into frames. Small responses are copied out of the bytes that were read ahead; large
//! ones (fetched batches) are read straight into a pooled buffer that the records borrow from: fresh pages for
//! every fetch were most of the cost of consuming elsewhere.
//!
//! Bytes that are read ahead land on the stack, and move to the heap only if they are more than one frame, or
//! less than one: a connection that waits for a response holds no buffer.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use crate::config::MAX_FRAME;
use crate::record::pool::{COPIED, Chunk, ChunkPool};

const READ_AHEAD: usize = COPIED;

/// A large frame's buffer grows as bytes arrive, by this and as much as there are: a peer that announces
/// 100 MiB and sends ten bytes takes one step of memory.
const GROWTH: usize = 4 << 20;

pub(crate) struct FrameReader {
    /// Bytes read and not cut yet; nothing, and no memory, while the connection is quiet.
    ahead: Vec<u8>,
    start: usize,
    /// A large frame under way and its announced size.
    large: Option<(Chunk, usize)>,
    /// The size of the largest frame that is taken.
    limit: usize,
    pool: ChunkPool,
}

/// The beginning of the bytes at hand.
enum Cut {
    /// A whole frame, and the bytes it took with its prefix.
    Frame(Bytes, usize),
    /// A frame of this size that gets a buffer of its own.
    Large(usize),
    /// Less than a frame.
    More,
}

impl FrameReader {
    pub(crate) fn new(pool: ChunkPool) -> Self {
        Self { ahead: Vec::new(), start: 0, large: None, limit: MAX_FRAME, pool }
    }

    /// The same, that takes no frame larger than this.
    pub(crate) fn at_most(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// The next frame without its size prefix; `UnexpectedEof` when the peer closed.
    pub(crate) fn poll_frame<S>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>>
    where
        S: AsyncRead + Unpin + ?Sized,
    {
        loop {
            if let Some((chunk, size)) = &mut self.large {
                if chunk.len() == *size {
                    let (chunk, _) = self.large.take().expect("checked above");
                    return Poll::Ready(Ok(chunk.freeze()));
                }
                if chunk.capacity() == chunk.len() {
                    chunk.grow((*size).min(chunk.len() * 2 + GROWTH));
                }
                let missing = *size - chunk.len();
                let room = chunk.room();
                let take = room.len().min(missing);
                let n = ready!(read(stream, cx, &mut ReadBuf::new(&mut room[..take])))?;
                chunk.advance(n);
                continue;
            }
            if !self.ahead.is_empty() {
                match cut(&self.ahead[self.start..], self.limit)? {
                    Cut::Frame(frame, used) => {
                        self.start += used;
                        if self.start == self.ahead.len() {
                            self.forget();
                        }
                        return Poll::Ready(Ok(frame));
                    }
                    Cut::Large(size) => {
                        let ahead = std::mem::take(&mut self.ahead);
                        self.begin_large(&ahead[self.start..], size);
                        self.start = 0;
                        continue;
                    }
                    Cut::More => {}
                }
            }
            let mut bytes = [MaybeUninit::uninit(); READ_AHEAD];
            let mut buf = ReadBuf::uninit(&mut bytes);
            ready!(read(stream, cx, &mut buf))?;
            let got = buf.filled();
            if self.ahead.is_empty() {
                // Most responses come alone and whole.
                match cut(got, self.limit)? {
                    Cut::Frame(frame, used) => {
                        self.ahead.extend_from_slice(&got[used..]);
                        return Poll::Ready(Ok(frame));
                    }
                    Cut::Large(size) => self.begin_large(got, size),
                    Cut::More => self.ahead.extend_from_slice(got),
                }
            } else {
                self.ahead.drain(..self.start);
                self.start = 0;
                self.ahead.extend_from_slice(got);
            }
        }
    }

    /// Whether nothing of a frame has come.
    pub(crate) fn is_between_frames(&self) -> bool {
        self.ahead.is_empty() && self.large.is_none()
    }

    /// `have` is the prefix and the frame's first bytes; it holds no other frame's, being shorter.
    fn begin_large(&mut self, have: &[u8], size: usize) {
        // A buffer that lies idle takes no memory, however little of the frame comes.
        let warm = self.pool.warm(size);
        let mut chunk = warm.unwrap_or_else(|| self.pool.get(size.min(GROWTH)));
        chunk.push(&have[4..]);
        self.large = Some((chunk, size));
    }

    fn forget(&mut self) {
        self.ahead = Vec::new();
        self.start = 0;
    }
}

fn cut(have: &[u8], limit: usize) -> io::Result<Cut> {
    let Some(prefix) = have.first_chunk::<4>() else { return Ok(Cut::More) };
    let size = frame_size(*prefix, limit)?;
    Ok(match have.get(4..4 + size) {
        Some(frame) => Cut::Frame(Bytes::copy_from_slice(frame), 4 + size),
        None if 4 + size > READ_AHEAD => Cut::Large(size),
        None => Cut::More,
    })
}

fn read<S>(stream: &mut S, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<usize>>
where
    S: AsyncRead + Unpin + ?Sized,
{
    ready!(Pin::new(stream).poll_read(cx, into))?;
    match into.filled().len() {
        0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        n => Poll::Ready(Ok(n)),
    }
}

/// Checks a size prefix; the error says what the peer seems to speak instead.
fn frame_size(prefix: [u8; 4], limit: usize) -> io::Result<usize> {
    let size = i32::from_be_bytes(prefix);
    let guess = match prefix {
        [b'H', b'T', b'T', b'P'] => "the peer answered in HTTP",
        [b'<', b'!' | b'h' | b'H', _, _] => "the peer answered with an HTML page",
        [0x15 | 0x16, 0x03, _, _] => "the peer speaks TLS",
        [b'S', b'S', b'H', b'-'] => "the peer is an SSH server",
        _ => "",
    };
    match usize::try_from(size) {
        Ok(n) if n <= limit && guess.is_empty() => Ok(n),
        _ if !guess.is_empty() => Err(io::Error::new(io::ErrorKind::InvalidData, guess)),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the peer announced a frame of {size} bytes ({limit} at most)"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::AsyncWriteExt;

    async fn frames(bytes: Vec<u8>, pieces: usize) -> (Vec<Bytes>, io::Error) {
        let (mut a, mut b) = tokio::io::duplex(pieces);
        let writer = tokio::spawn(async move { a.write_all(&bytes).await });
        let mut reader = FrameReader::new(ChunkPool::default());
        let mut got = Vec::new();
        loop {
            match poll_fn(|cx| reader.poll_frame(&mut b, cx)).await {
                Ok(frame) => got.push(frame),
                Err(e) => {
                    drop(b);
                    let _ = writer.await;
                    return (got, e);
                }
            }
        }
    }

    #[tokio::test]
    async fn frames_of_every_size_in_pieces_of_every_size() {
        for pieces in [1, 7, 4096, 1 << 20] {
            let sizes = [0usize, 1, 5, READ_AHEAD - 4, READ_AHEAD - 3, READ_AHEAD, 100_000];
            let mut bytes = Vec::new();
            for (i, size) in sizes.iter().enumerate() {
                bytes.extend((*size as u32).to_be_bytes());
                bytes.extend(std::iter::repeat_n(i as u8, *size));
            }
            let (got, end) = frames(bytes, pieces).await;
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(got.iter().map(Bytes::len).collect::<Vec<_>>(), sizes);
            for (i, frame) in got.iter().enumerate() {
                assert!(frame.iter().all(|b| *b == i as u8));
            }
        }
    }

    #[tokio::test]
    async fn a_quiet_connection_holds_no_buffer() {
        let (mut a, mut b) = tokio::io::duplex(1 << 20);
        let mut reader = FrameReader::new(ChunkPool::default());
        a.write_all(&[0, 0, 0, 1, 7, 0, 0, 0, 1, 8, 0, 0]).await.unwrap();
        for want in [7, 8] {
            let frame = poll_fn(|cx| reader.poll_frame(&mut b, cx)).await.unwrap();
            assert_eq!(frame[..], [want]);
        }
        a.write_all(&[0, 1, 9]).await.unwrap();
        let frame = poll_fn(|cx| reader.poll_frame(&mut b, cx)).await.unwrap();
        assert_eq!(frame[..], [9]);
        let poll = poll_fn(|cx| Poll::Ready(reader.poll_frame(&mut b, cx))).await;
        assert!(poll.is_pending());
        assert_eq!(reader.ahead.capacity(), 0);
    }

    #[tokio::test]
    async fn other_protocols_are_named() {
        for (bytes, words) in [
            (b"HTTP/1.1 400 Bad Request".to_vec(), "HTTP"),
            (b"<!DOCTYPE HTML>".to_vec(), "HTML"),
            (vec![0x15, 3, 3, 0, 2, 2, 70], "TLS"),
            (vec![0xff, 0xff, 0xff, 0xff], "-1 bytes"),
            (vec![0x7f, 0, 0, 0], "2130706432 bytes"),
        ] {
            let (got, end) = frames(bytes, 64).await;
            assert!(got.is_empty());
            assert!(end.to_string().contains(words), "{end}");
        }
    }

    #[tokio::test]
    async fn a_limit_holds_until_it_is_lifted() {
        let (mut a, mut b) = tokio::io::duplex(1 << 20);
        for (limit, size, taken) in [(100, 100, true), (100, 101, false), (1 << 17, 1 << 17, true)]
        {
            a.write_all(&(size as u32).to_be_bytes()).await.unwrap();
            let mut reader = FrameReader::new(ChunkPool::default()).at_most(limit);
            let poll = poll_fn(|cx| Poll::Ready(reader.poll_frame(&mut b, cx))).await;
            assert_eq!(poll.is_pending(), taken, "{size} of {limit}");
        }
    }

    #[tokio::test]
    async fn an_announced_giant_takes_memory_only_as_it_arrives() {
        let (mut a, mut b) = tokio::io::duplex(16 << 20);
        a.write_all(&(MAX_FRAME as u32).to_be_bytes()).await.unwrap();
        let mut reader = FrameReader::new(ChunkPool::default());
        // In the first step of memory, and in the second.
        let first = reader.pool.get(GROWTH).capacity();
        reader.pool.trim();
        reader.pool.trim();
        for (arrived, most) in [(100_000, first), (first + 1, 3 * first)] {
            let has = reader.large.as_ref().map_or(0, |(chunk, _)| chunk.len());
            a.write_all(&vec![1; arrived - has]).await.unwrap();
            let poll = poll_fn(|cx| Poll::Ready(reader.poll_frame(&mut b, cx))).await;
            assert!(poll.is_pending());
            let (chunk, size) = reader.large.as_ref().unwrap();
            assert_eq!((*size, chunk.len()), (MAX_FRAME, arrived));
            assert!(chunk.capacity() <= most, "{} for {arrived}", chunk.capacity());
        }
    }

    /// What is kept of a response is its buffer: what that has beyond the bytes is waste.
    #[tokio::test]
    async fn s28_a_frame_takes_little_more_than_its_bytes() {
        for size in [20_000, 300_000, (1 << 20) + 500, (2 << 20) + 500, 5 << 20, 9 << 20, 15 << 20]
        {
            let (mut a, mut b) = tokio::io::duplex(16 << 20);
            a.write_all(&(size as u32).to_be_bytes()).await.unwrap();
            a.write_all(&vec![1; size - 1]).await.unwrap();
            let mut reader = FrameReader::new(ChunkPool::default());
            let poll = poll_fn(|cx| Poll::Ready(reader.poll_frame(&mut b, cx))).await;
            assert!(poll.is_pending());
            let capacity = reader.large.as_ref().unwrap().0.capacity();
            assert!(capacity < size * 4 / 3 + (160 << 10), "{capacity} for {size}");
        }
    }

    /// A frame that is larger than the first step is read into one buffer, not copied into a second one.
    #[tokio::test]
    async fn a_frame_goes_into_an_idle_buffer_at_once() {
        let (mut a, mut b) = tokio::io::duplex(16 << 20);
        let pool = ChunkPool::default();
        let mut reader = FrameReader::new(pool.clone());
        for _ in 0..2 {
            a.write_all(&(6u32 << 20).to_be_bytes()).await.unwrap();
            a.write_all(&vec![1; 6 << 20]).await.unwrap();
            let frame = poll_fn(|cx| reader.poll_frame(&mut b, cx)).await.unwrap();
            assert!(frame.len() == 6 << 20 && frame.iter().all(|b| *b == 1));
        }
        let idle = pool.idle_bytes();
        assert!(idle >= 6 << 20);
        a.write_all(&(6u32 << 20).to_be_bytes()).await.unwrap();
        a.write_all(&vec![1; READ_AHEAD]).await.unwrap();
        let poll = poll_fn(|cx| Poll::Ready(reader.poll_frame(&mut b, cx))).await;
        assert!(poll.is_pending());
        assert_eq!(pool.idle_bytes(), 0, "it is in use");
        assert_eq!(reader.large.as_ref().unwrap().0.capacity(), idle);
    }
}
