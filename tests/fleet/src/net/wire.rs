//! What a client asks, read off the wire: the head of each frame it sends.

use std::fmt;

/// Kinds of request that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Api {
    /// Produce
    Produce,
    /// Fetch
    Fetch,
    /// ListOffsets
    ListOffsets,
    /// Metadata
    Metadata,
    /// ApiVersions: the first request of every connection.
    ApiVersions,
    /// InitProducerId
    InitProducerId,
    /// FindCoordinator
    FindCoordinator,
    /// JoinGroup
    JoinGroup,
    /// Heartbeat, and ConsumerGroupHeartbeat.
    Heartbeat,
    /// OffsetCommit
    OffsetCommit,
    /// OffsetFetch
    OffsetFetch,
    /// Anything else.
    Other,
}

impl Api {
    /// How many there are.
    pub const COUNT: usize = 12;

    fn of(key: i16) -> Self {
        match key {
            0 => Self::Produce,
            1 => Self::Fetch,
            2 => Self::ListOffsets,
            3 => Self::Metadata,
            18 => Self::ApiVersions,
            22 => Self::InitProducerId,
            10 => Self::FindCoordinator,
            11 => Self::JoinGroup,
            12 | 68 => Self::Heartbeat,
            8 => Self::OffsetCommit,
            9 => Self::OffsetFetch,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A request on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its kind.
    pub api: Api,
    /// Bytes of its frame, the length in front included.
    pub bytes: u32,
}

/// Length and api key.
const HEAD: usize = 6;

/// Finds the frames in the bytes that a client writes, in whatever pieces it writes them.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// Bytes of the frame under way that are still to come.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
}

impl Frames {
    /// The requests whose heads are complete with these bytes.
    pub(crate) fn heads(&mut self, mut bytes: &[u8]) -> Vec<Seen> {
        let mut seen = Vec::new();
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let take = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have < HEAD {
                continue;
            }
            self.have = 0;
            let [a, b, c, d, key @ ..] = self.head;
            let len = u32::from_be_bytes([a, b, c, d]);
            self.skip = (len as usize + 4).saturating_sub(HEAD);
            seen.push(Seen { api: Api::of(i16::from_be_bytes(key)), bytes: len + 4 });
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_in_pieces_of_every_size() {
        let mut bytes = Vec::new();
        for (key, body) in [(18i16, 0), (3, 40), (0, 1000), (99, 7)] {
            bytes.extend((body as u32 + 2).to_be_bytes());
            bytes.extend(key.to_be_bytes());
            bytes.extend(std::iter::repeat_n(0xff, body));
        }
        let want = [
            Seen { api: Api::ApiVersions, bytes: 6 },
            Seen { api: Api::Metadata, bytes: 46 },
            Seen { api: Api::Produce, bytes: 1006 },
            Seen { api: Api::Other, bytes: 13 },
        ];
        for size in [1, 2, 5, 6, 7, 300, 5000] {
            let mut frames = Frames::default();
            let seen: Vec<_> = bytes.chunks(size).flat_map(|piece| frames.heads(piece)).collect();
            assert_eq!(seen, want, "in pieces of {size}");
        }
    }
}
