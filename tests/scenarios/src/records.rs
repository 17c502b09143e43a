//! Records as the interop tools of all languages exchange them, in a file of little-endian fields:
//!
//! ```text
//! record: partition i32 (-1: no choice) | offset i64 (-1: to be written)
//!         | bytes key | bytes value | count u32 | count x (u32 length, name | bytes value)
//! bytes:  length i32 (-1: null) | content
//! ```

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::{fs, io};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

/// One record, written or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// -1 where the writer may choose.
    pub partition: i32,
    /// -1 where it is not written yet.
    pub offset: i64,
    /// `None` is null.
    pub key: Option<Vec<u8>>,
    /// `None` is null.
    pub value: Option<Vec<u8>>,
    /// In order; names may repeat.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Row {
    /// A hash of everything but the place.
    pub fn content(&self) -> u64 {
        // Fixed keys: the same in every process of one build.
        let mut hasher = DefaultHasher::new();
        (&self.key, &self.value, &self.headers).hash(&mut hasher);
        hasher.finish()
    }

    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(n, v)| n.len() + len(v)).sum();
        len(&self.key) + len(&self.value) + headers
    }
}

/// `count` records: most under 1 kB, a tail to 100 kB, three of 1,000,000 bytes, null and empty
/// keys and values, headers with repeated names. The same for the same seed.
pub fn generate(count: usize, seed: u64) -> Vec<Row> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut rows: Vec<Row> = (0..count).map(|i| row(i, &mut rng)).collect();
    for share in [0.2, 0.5, 0.9] {
        let at = (count as f64 * share) as usize;
        if let Some(row) = rows.get_mut(at) {
            row.value = Some(payload(1_000_000, &mut rng));
        }
    }
    rows
}

fn row(index: usize, rng: &mut StdRng) -> Row {
    let value = match rng.random_range(0..1000) {
        0..20 => None,
        20..40 => Some(0),
        40..50 => Some(rng.random_range(1_000..8_000)),
        50 if rng.random_bool(0.2) => Some(rng.random_range(8_000..100_000)),
        _ => Some(rng.random_range(1..220)),
    };
    let key = match rng.random_range(0..10) {
        0..4 => None,
        4 => Some(Vec::new()),
        _ => Some(format!("key-{index}").into_bytes()),
    };
    let headers = match rng.random_range(0..10) {
        0 => vec![
            ("trace".to_owned(), Some(payload(16, rng))),
            ("again".to_owned(), Some(b"first".to_vec())),
            ("again".to_owned(), None),
            ("again".to_owned(), Some(Vec::new())),
        ],
        1 => vec![("one".to_owned(), Some(index.to_le_bytes().to_vec()))],
        _ => Vec::new(),
    };
    Row { partition: -1, offset: -1, key, value: value.map(|n| payload(n, rng)), headers }
}

/// Half noise, half repetition, so that a codec has something to do and something it cannot.
fn payload(len: usize, rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = vec![b'='; len];
    rng.fill_bytes(&mut bytes[..len.div_ceil(2)]);
    bytes
}

/// Writes a file of records.
///
/// # Errors
/// The system's.
pub fn save(path: &Path, rows: &[Row]) -> io::Result<()> {
    let mut out = Vec::with_capacity(rows.iter().map(|row| row.size() + 64).sum());
    let put = |out: &mut Vec<u8>, bytes: &Option<Vec<u8>>| match bytes {
        None => out.extend((-1i32).to_le_bytes()),
        Some(bytes) => {
            out.extend((bytes.len() as i32).to_le_bytes());
            out.extend(bytes);
        }
    };
    for row in rows {
        out.extend(row.partition.to_le_bytes());
        out.extend(row.offset.to_le_bytes());
        put(&mut out, &row.key);
        put(&mut out, &row.value);
        out.extend((row.headers.len() as u32).to_le_bytes());
        for (name, value) in &row.headers {
            out.extend((name.len() as u32).to_le_bytes());
            out.extend(name.as_bytes());
            put(&mut out, value);
        }
    }
    fs::write(path, out)
}

/// Reads a file of records.
///
/// # Errors
/// The system's; `InvalidData` where the file is not of this form.
pub fn load(path: &Path) -> io::Result<Vec<Row>> {
    let bytes = fs::read(path)?;
    let mut rest = &bytes[..];
    let mut rows = Vec::new();
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let row = parse(&mut rest).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: no record at byte {at}", path.display()),
            )
        })?;
        rows.push(row);
    }
    Ok(rows)
}

fn parse(rest: &mut &[u8]) -> Option<Row> {
    let partition = i32::from_le_bytes(fixed(rest)?);
    let offset = i64::from_le_bytes(fixed(rest)?);
    let key = nullable(rest)?;
    let value = nullable(rest)?;
    let count = u32::from_le_bytes(fixed(rest)?);
    let mut headers = Vec::new();
    for _ in 0..count {
        let len = u32::from_le_bytes(fixed(rest)?) as usize;
        let name = String::from_utf8(rest.split_off(..len)?.to_vec()).ok()?;
        headers.push((name, nullable(rest)?));
    }
    Some(Row { partition, offset, key, value, headers })
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    rest.split_off(..N)?.try_into().ok()
}

#[allow(clippy::option_option, reason = "outside: the file ended; inside: null")]
fn nullable(rest: &mut &[u8]) -> Option<Option<Vec<u8>>> {
    match i32::from_le_bytes(fixed(rest)?) {
        -1 => Some(None),
        len => Some(Some(rest.split_off(..usize::try_from(len).ok()?)?.to_vec())),
    }
}

/// Compares what was read with what was written: every record once, every partition's offsets
/// without a gap from 0. Gives a sentence about the first difference.
///
/// # Errors
/// The sentence.
pub fn compare(written: &[Row], read: &[Row]) -> Result<(), String> {
    let mut left: HashMap<u64, i64> = HashMap::with_capacity(written.len());
    for row in written {
        *left.entry(row.content()).or_default() += 1;
    }
    for row in read {
        let count = left.entry(row.content()).or_default();
        *count -= 1;
        if *count < 0 {
            return Err(format!(
                "partition {} offset {}: never written, or read twice: {}",
                row.partition,
                row.offset,
                brief(row)
            ));
        }
    }
    if let Some(row) = written.iter().find(|row| left[&row.content()] > 0) {
        let missing = written.len() - read.len();
        return Err(format!("{missing} of {} are missing, such as {}", written.len(), brief(row)));
    }
    let mut places: Vec<_> = read.iter().map(|row| (row.partition, row.offset)).collect();
    places.sort_unstable();
    let mut expected = (i32::MIN, 0);
    for (partition, offset) in places {
        if partition != expected.0 {
            expected = (partition, 0);
        }
        if offset != expected.1 {
            return Err(format!(
                "partition {partition}: offset {offset} where {} is due",
                expected.1
            ));
        }
        expected.1 += 1;
    }
    Ok(())
}

fn brief(row: &Row) -> String {
    let show = |bytes: &Option<Vec<u8>>| match bytes {
        None => "null".to_owned(),
        Some(b) => {
            format!("{} bytes {:?}", b.len(), &b[..b.len().min(12)].escape_ascii().to_string())
        }
    };
    format!("key {}, value {}, {} headers", show(&row.key), show(&row.value), row.headers.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_what_was_saved() {
        let rows = generate(500, 1);
        let path = std::env::temp_dir().join(format!("ottla-records-{}", std::process::id()));
        save(&path, &rows).unwrap();
        let loaded = load(&path).unwrap();
        fs::write(&path, &fs::read(&path).unwrap()[..100]).unwrap();
        let cut = load(&path);
        fs::remove_file(&path).unwrap();
        assert!(loaded == rows);
        assert!(cut.unwrap_err().to_string().contains("no record at byte"));
    }

    #[test]
    fn a_difference_is_told() {
        let written = generate(300, 2);
        let mut read: Vec<Row> = written
            .iter()
            .enumerate()
            .map(|(i, row)| Row { partition: 0, offset: i as i64, ..row.clone() })
            .collect();
        compare(&written, &read).unwrap();
        let last = read.pop().unwrap();
        assert!(compare(&written, &read).unwrap_err().contains("1 of 300 are missing"));
        read.push(Row { offset: 300, ..last });
        assert!(compare(&written, &read).unwrap_err().contains("offset 300 where 299"));
        read[7].headers.push(("x".into(), None));
        assert!(compare(&written, &read).unwrap_err().contains("never written"));
    }

    #[test]
    fn the_sizes_are_as_told() {
        let rows = generate(100_000, 3);
        let sizes: Vec<usize> = rows.iter().map(|r| r.value.as_ref().map_or(0, Vec::len)).collect();
        assert_eq!(sizes.iter().filter(|s| **s == 1_000_000).count(), 3);
        assert!(sizes.iter().any(|s| (50_000..100_000).contains(s)));
        assert!(sizes.iter().filter(|s| **s < 1_000).count() > 97_000);
        assert!(rows.iter().any(|r| r.value.is_none() && r.key.is_none()));
        assert!(sizes.iter().sum::<usize>() < 25_000_000);
    }
}
