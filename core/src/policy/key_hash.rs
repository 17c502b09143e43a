//! Where Java's client puts a record with a key: murmur2 of the key, its sign bit cleared, modulo
//! the number of partitions. Equal to the bit, so that programs in both languages agree on the
//! partition of a key in a compacted topic.

/// The seed of Kafka's `Utils.murmur2`.
const SEED: u32 = 0x9747_b28c;
const M: u32 = 0x5bd1_e995;

/// Kafka's variant of the 32-bit MurmurHash2, as Java prints it: signed.
pub(crate) fn murmur2(key: &[u8]) -> i32 {
    let (words, tail) = key.as_chunks::<4>();
    // Java's arrays end at 2^31 bytes, and so does a record.
    let mut hash = SEED ^ key.len() as u32;
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut last = [0; 4];
        last[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u32::from_le_bytes(last)).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}

/// The partition of a key in a topic of `partitions`, which is above 0.
pub(crate) fn partition(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & i32::MAX) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of `UtilsTest.testMurmur2` in apache/kafka.
    #[test]
    fn hashes_as_java_does() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    /// Every length of the part behind the last word, none included.
    #[test]
    fn every_tail() {
        for (key, hash) in [
            ("1", -1_993_445_489),
            ("12", 126_087_238),
            ("123", -267_702_483),
            ("1234", -1_614_185_708),
            ("12345", -1_188_365_604),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_negative_hash_is_made_positive_by_its_sign_bit_alone() {
        // Java's toPositive, and not the absolute value: 1,173,551,340 and not 973,932,308.
        assert_eq!(partition(b"21", i32::MAX), 1_173_551_340);
        assert_eq!(partition(b"21", 100), 40);
        assert_eq!(partition(b"abc", 100), 7);
        assert_eq!(partition(b"abc", 1), 0);
    }
}
