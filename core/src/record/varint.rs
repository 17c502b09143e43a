//! Zigzag variable-length integers, as protocol buffers define them and Kafka's records use them.

/// Longest encoding of a 64-bit value.
pub(crate) const MAX_LEN: usize = 10;

#[inline]
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Encoded length of `value`, in bytes: 1 to 10.
#[inline]
pub(crate) fn len(value: i64) -> usize {
    let rest = zigzag(value);
    // Nearly all are of these two lengths, and a branch guessed right is cheaper than counting.
    if rest < 0x80 {
        return 1;
    }
    if rest < 0x4000 {
        return 2;
    }
    // Seven bits a byte.
    (64 - rest.leading_zeros() as usize).div_ceil(7)
}

/// Writes `value` at `at` and returns the position behind it. The caller has sized `buf`.
#[inline]
pub(crate) fn put(buf: &mut [u8], at: usize, value: i64) -> usize {
    let rest = zigzag(value);
    if rest < 0x80 {
        buf[at] = rest as u8;
        return at + 1;
    }
    if rest < 0x4000 {
        buf[at..at + 2].copy_from_slice(&[rest as u8 | 0x80, (rest >> 7) as u8]);
        return at + 2;
    }
    put_long(buf, at, rest)
}

#[inline(never)]
fn put_long(buf: &mut [u8], mut at: usize, mut rest: u64) -> usize {
    while rest >= 0x80 {
        buf[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    buf[at] = rest as u8;
    at + 1
}

/// Reads a value off the front of `buf`; `None` if it is cut short or longer than 10 bytes.
///
/// Up to three bytes are read without a loop: lengths to 1 MiB, and the offset of every record in
/// a batch of a million.
#[inline]
pub(crate) fn take(buf: &mut &[u8]) -> Option<i64> {
    let (&first, rest) = buf.split_first()?;
    if first < 0x80 {
        *buf = rest;
        return Some(unzigzag(u64::from(first)));
    }
    let (value, rest) = match *rest {
        [b, ref rest @ ..] if b < 0x80 => (u64::from(b) << 7, rest),
        [b, c, ref rest @ ..] if c < 0x80 => (u64::from(b & 0x7f) << 7 | u64::from(c) << 14, rest),
        _ => return take_long(buf),
    };
    *buf = rest;
    Some(unzigzag(u64::from(first & 0x7f) | value))
}

/// The value at the low end of a register, in its zigzag form, and its length in bytes; `None` if that is more
/// than three.
#[inline]
pub(crate) fn short(bits: u64) -> Option<(u64, usize)> {
    let low = bits & 0x7f;
    if bits & 0x80 == 0 {
        return Some((low, 1));
    }
    let middle = low | bits >> 1 & 0x3f80;
    if bits & 0x8000 == 0 {
        return Some((middle, 2));
    }
    (bits & 0x80_0000 == 0).then_some((middle | bits >> 2 & 0x1f_c000, 3))
}

#[inline(never)]
fn take_long(buf: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (i, &byte) in buf.iter().take(MAX_LEN).enumerate() {
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit only; more is not a 64-bit value.
        if i == MAX_LEN - 1 && bits > 1 {
            return None;
        }
        value |= bits << (7 * i);
        if byte < 0x80 {
            *buf = &buf[i + 1..];
            return Some(unzigzag(value));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_encodings() {
        let known: [(i64, &[u8]); 8] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ];
        for (value, bytes) in known {
            let mut buf = [0; MAX_LEN];
            let end = put(&mut buf, 0, value);
            assert_eq!(&buf[..end], bytes, "{value}");
            assert_eq!(len(value), bytes.len(), "{value}");
            assert_eq!(take(&mut &bytes[..]), Some(value));
        }
    }

    /// Where one length ends and the next begins, and each of them cut short.
    #[test]
    fn boundaries() {
        for shift in 0..63 {
            for value in [(1i64 << shift) - 1, 1 << shift, -(1 << shift), -(1 << shift) - 1] {
                let mut buf = [0; MAX_LEN];
                let end = put(&mut buf, 0, value);
                assert_eq!(end, len(value), "{value}");
                assert_eq!(take(&mut &buf[..end]), Some(value));
                for cut in 0..end {
                    assert_eq!(take(&mut &buf[..cut]), None, "{value} cut at {cut}");
                }
                let mut more = &[&buf[..end], &[0xff; 3]].concat()[..];
                assert_eq!((take(&mut more), more), (Some(value), &[0xff; 3][..]));
            }
        }
    }

    #[test]
    fn every_length_is_what_is_written() {
        for bit in 0..64 {
            for value in [1u64 << bit, (1 << bit) - 1, u64::MAX >> bit] {
                let value = unzigzag(value);
                assert_eq!(put(&mut [0; MAX_LEN], 0, value), len(value), "{value}");
            }
        }
    }

    #[test]
    fn overlong_is_refused() {
        assert_eq!(take(&mut &[0xff; 11][..]), None);
        assert_eq!(
            take(&mut &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02][..]),
            None
        );
        assert_eq!(take(&mut &[0x80][..]), None);
        assert_eq!(take(&mut &[][..]), None);
    }

    proptest! {
        #[test]
        fn round_trip(value: i64) {
            let mut buf = [0; MAX_LEN];
            let end = put(&mut buf, 0, value);
            prop_assert_eq!(end, len(value));
            let mut rest = &buf[..end];
            prop_assert_eq!(take(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }
    }
}
