//! What the measurements share: the records they move, and how the processor is read and split.

pub mod machine;

/// The topic of every measurement.
pub const TOPIC: &str = "bench";

/// Topics of the long tail, and partitions of each.
pub const TAIL_TOPICS: usize = 1000;
/// See [`TAIL_TOPICS`].
pub const TAIL_PARTITIONS: i32 = 4;

/// The name of one of them.
pub fn tail_topic(number: usize) -> String {
    format!("tail-{number}")
}

/// Bytes of a value.
pub const VALUE_LEN: usize = 100;

/// `count` values of [`VALUE_LEN`] bytes as an application would write them: JSON with repeated names
/// and changing fields, which lz4 makes about a quarter of. The same every time.
pub fn values(count: usize) -> Vec<[u8; VALUE_LEN]> {
    const PAGES: [&str; 5] = ["/", "/cart", "/search", "/account", "/product"];
    // An LCG, Knuth's constants: no two runs may measure different bytes.
    let mut state = 0x5eed_u64;
    let mut draw = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    (0..count)
        .map(|i| {
            let text = format!(
                r#"{{"id":{},"user":{},"event":"page_view","page":"{}","took_ms":{},"ok":true,"pad":""#,
                1_000_000 + i,
                10_000 + draw() % 90_000,
                PAGES[draw() % PAGES.len()],
                100 + draw() % 900,
            );
            let mut value = [b' '; VALUE_LEN];
            value[..text.len()].copy_from_slice(text.as_bytes());
            value[VALUE_LEN - 2..].copy_from_slice(b"\"}");
            value
        })
        .collect()
}

/// The sum of a value's bytes: what a reader of values is measured by has looked at every one. Pieces of 256 fit
/// their sum into 16 bits, so that the processor adds eight at a time; adding to 64 bits took longer than reading
/// the record.
#[inline]
pub fn sum(value: &[u8]) -> u64 {
    let piece = |bytes: &[u8]| bytes.iter().map(|byte| u16::from(*byte)).sum::<u16>();
    value.chunks(256).map(|bytes| u64::from(piece(bytes))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_json_and_repeat() {
        let values = values(100_000);
        for value in [&values[0], &values[99_999]] {
            let parsed: serde_json::Value = serde_json::from_slice(value).unwrap();
            assert_eq!(parsed["event"], "page_view");
        }
        assert_eq!(values[7], super::values(8)[7]);
    }

    #[test]
    fn a_sum_has_every_byte() {
        for len in [0, 1, 100, 255, 256, 257, 10_000] {
            assert_eq!(sum(&vec![255; len]), 255 * len as u64);
        }
        assert_eq!(sum(&[1, 2, 3]), 6);
    }
}
