//! The quick way of reading a record against the one that takes any.

use proptest::prelude::*;

use super::*;

type Headers = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A record to be written: the bytes of its key and value, its deltas, its headers.
#[derive(Clone, Debug)]
struct Written {
    timestamp_delta: i64,
    offset_delta: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Headers,
}

fn put(out: &mut Vec<u8>, value: i64) {
    let mut buf = [0; varint::MAX_LEN];
    let end = varint::put(&mut buf, 0, value);
    out.extend(&buf[..end]);
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend(bytes.unwrap_or(&[]));
}

fn write(out: &mut Vec<u8>, record: &Written) {
    let mut body = vec![0];
    put(&mut body, record.timestamp_delta);
    put(&mut body, record.offset_delta);
    put_bytes(&mut body, record.key.as_deref());
    put_bytes(&mut body, record.value.as_deref());
    put(&mut body, record.headers.len() as i64);
    for (name, value) in &record.headers {
        put_bytes(&mut body, Some(name));
        put_bytes(&mut body, value.as_deref());
    }
    put(out, body.len() as i64);
    out.extend(body);
}

/// A usual record: a value of this length, and nothing else.
fn usual(offset_delta: i64, len: usize) -> Written {
    let value = Some(vec![b'v'; len]);
    Written { timestamp_delta: 3, offset_delta, key: None, value, headers: vec![] }
}

/// What `walk_checked` decides, by the way that takes any record.
fn walk_slowly(bytes: &[u8], count: i32, last_delta: i64) -> Result<(), i32> {
    let mut rest = bytes;
    for index in 0..count {
        let ok = take_record(&mut rest).is_some_and(|record| {
            (0..=last_delta).contains(&record.offset_delta) && record.headers_are_sound()
        });
        if !ok {
            return Err(index);
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(count) }
}

/// Both ways decide the same, and give the same records, up to the first that is none.
fn compare(bytes: &[u8], count: i32, last_delta: i64) -> Result<(), TestCaseError> {
    let slowly = walk_slowly(bytes, count, last_delta);
    prop_assert_eq!(walk_checked(bytes, count, last_delta).map(|_| ()), slowly);
    let mut starts = vec![Layout::NONE];
    starts.extend(walk_checked(bytes, count, last_delta).map(|walked| walked.layout));
    for layout in starts {
        let (mut walk, mut rest) = (Walk::new(bytes, layout), bytes);
        while let Some(one) = take_record(&mut rest) {
            let Some(other) = walk.take() else { panic!("one record less") };
            prop_assert_eq!(one.timestamp_delta, other.timestamp_delta);
            prop_assert_eq!(one.offset_delta, other.offset_delta);
            prop_assert_eq!((one.key, one.value), (other.key, other.value));
            prop_assert_eq!((one.header_count, one.headers), (other.header_count, other.headers));
            prop_assert_eq!(rest, walk.rest());
        }
        prop_assert!(walk.take().is_none());
    }
    Ok(())
}

/// Lengths around every change of a number's length, mostly the same.
fn len() -> impl Strategy<Value = usize> {
    prop_oneof![12 => Just(100usize), 4 => 0usize..300, 2 => 60usize..68, 1 => 8185usize..8200]
}

fn record() -> impl Strategy<Value = (Written, i64)> {
    let key =
        prop_oneof![6 => Just(None), 3 => Just(Some(16usize)), 2 => (0usize..80).prop_map(Some)];
    let value = prop_oneof![12 => len().prop_map(Some), 1 => Just(None)];
    let headers = prop_oneof![12 => Just(0usize), 1 => 1usize..3];
    let time = prop_oneof![6 => 0i64..5, 3 => -70i64..9000, 1 => any::<i64>()];
    let gap = prop_oneof![20 => Just(1i64), 1 => 1i64..70, 1 => 1i64..9000];
    (key, value, headers, time, gap).prop_map(|(key, value, headers, timestamp_delta, gap)| {
        let bytes = |len: usize| vec![len as u8; len];
        let headers = (0..headers).map(|i| (bytes(i), (i > 0).then(|| bytes(i)))).collect();
        let (key, value) = (key.map(bytes), value.map(bytes));
        (Written { timestamp_delta, offset_delta: 0, key, value, headers }, gap)
    })
}

/// Bytes that are other ones, and where the batch is cut.
type Damage = (Vec<(prop::sample::Index, u8)>, Option<prop::sample::Index>);

fn damage() -> impl Strategy<Value = Damage> {
    let byte = prop_oneof![Just(0u8), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    let bytes = proptest::collection::vec((any::<prop::sample::Index>(), byte), 0..3);
    (bytes, proptest::option::weighted(0.2, any::<prop::sample::Index>()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn fast_equals_slow(
        records in proptest::collection::vec(record(), 1..40),
        base in prop_oneof![3 => Just(0i64), 1 => 0i64..9000],
        (bytes, cut) in damage(),
        beyond in -2i64..3,
        counted in -1i32..2,
    ) {
        let mut out = Vec::new();
        let mut offset_delta = base;
        let count = records.len() as i32;
        for (mut record, gap) in records {
            record.offset_delta = offset_delta;
            write(&mut out, &record);
            offset_delta += gap;
        }
        for (at, byte) in bytes {
            let at = at.index(out.len());
            out[at] = byte;
        }
        if let Some(cut) = cut {
            out.truncate(cut.index(out.len()));
        }
        // The header may end before the last record, behind it, or know of more or fewer.
        compare(&out, (count + counted).max(0), offset_delta - 1 + beyond)?;
    }
}

/// Every byte of three records, as every other byte.
#[test]
fn each_byte_as_every_other() {
    let key = Some(b"key".to_vec());
    for (key, len) in [(None, 3), (key.clone(), 3), (key, 70), (None, 70)] {
        let mut good = Vec::new();
        for i in 0..3 {
            write(&mut good, &Written { key: key.clone(), ..usual(i + 62, len) });
        }
        for at in 0..good.len() {
            if good[at] == b'v' {
                continue;
            }
            for byte in 0..=255 {
                let mut bytes = good.clone();
                bytes[at] = byte;
                compare(&bytes, 3, 64).unwrap();
            }
        }
    }
}

/// Those that can be read by their layout are, or all of this proves nothing.
#[test]
fn neighbours_are_alike() {
    let pair = |one: &Written, other: &Written| {
        let mut bytes = Vec::new();
        write(&mut bytes, one);
        let second = bytes.len();
        write(&mut bytes, other);
        // Something behind it: registers are read whole.
        bytes.extend([0; 8]);
        Layout::of(&bytes).is_some_and(|layout| layout.take(&bytes[second..]).is_some())
    };
    let key = |len: usize| Some(vec![b'k'; len]);
    assert!(pair(&usual(0, 100), &usual(1, 100)));
    assert!(pair(&usual(0, 100), &usual(63, 4000)));
    assert!(pair(&usual(100, 100), &usual(8191, 100)));
    assert!(pair(&usual(0, 1), &usual(1, 0)));
    for len in [0, 16, 63, 64, 300] {
        let keyed = |offset| Written { key: key(len), ..usual(offset, 200) };
        assert!(pair(&keyed(0), &keyed(1)), "{len}");
        assert!(!pair(&keyed(0), &usual(1, 200)), "{len}");
        assert!(!pair(&usual(0, 200), &keyed(1)), "{len}");
    }
    // A number is longer.
    assert!(!pair(&usual(0, 100), &usual(64, 100)));
    assert!(!pair(&usual(0, 100), &usual(1, 63)));
    assert!(!pair(&usual(0, 100), &Written { timestamp_delta: 64, ..usual(1, 100) }));
    // Not by registers: numbers of three bytes, headers, a null.
    assert!(!pair(&usual(8192, 100), &usual(8193, 100)));
    assert!(!pair(&usual(0, 9000), &usual(1, 9000)));
    let null = Written { value: None, ..usual(0, 0) };
    assert!(!pair(&null, &null));
    let headed = Written { headers: vec![(b"h".to_vec(), None)], ..usual(0, 100) };
    assert!(!pair(&headed, &headed) && !pair(&usual(0, 100), &headed));
}

/// So a caller may allocate by the number of headers.
#[test]
fn there_are_no_more_headers_than_the_record_has_room_for() {
    // Attributes, deltas, no key, no value, then the count and the headers.
    for (count, headers, sound) in [(0, 0, true), (2, 4, true), (3, 4, false), (50, 4, false)] {
        let mut record = vec![(6 + headers) * 2, 0, 0, 0, 1, 1, count * 2];
        record.extend([0, 1].repeat(usize::from(headers) / 2));
        let mut rest = &record[..];
        assert_eq!(take_record(&mut rest).is_some(), sound, "{count} in {headers} bytes");
    }
}
