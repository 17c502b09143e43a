//! What was acknowledged, compared with what can be read.

use std::collections::HashMap;

use ottla::OffsetSpec;

use super::Outcome;

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its content.
    pub value: String,
    /// Where it was.
    pub partition: i32,
    /// See `partition`.
    pub offset: i64,
}

/// What a comparison found. Anything but `acked` should be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Records that were acknowledged.
    pub acked: usize,
    /// Records that failed.
    pub failed: usize,
    /// Acknowledged, and nowhere to be read.
    pub lost: usize,
    /// Acknowledged, and to be read elsewhere than was said.
    pub misplaced: usize,
    /// Copies beyond the first.
    pub duplicated: usize,
    /// Records of one client behind a later one of it in the same partition.
    pub out_of_order: usize,
}

impl Verdict {
    /// Whether every record that was sent can be read once.
    pub fn is_clean(&self) -> bool {
        *self == Self { acked: self.acked, ..Self::default() }
    }
}

/// Everything that a topic holds.
///
/// # Errors
/// The client's, in words.
pub async fn read_back(bootstrap: &str, topic: &str) -> Result<Vec<Row>, String> {
    let words = |e: ottla::Error| format!("reading {topic} back: {e}");
    let client = ottla::Client::connect(bootstrap).await.map_err(words)?;
    let partitions = client.admin().partitions(topic).await.map_err(words)?;
    let ends = (0..partitions as i32).map(|p| (topic, p, OffsetSpec::Latest));
    let mut left = 0;
    for (_, end) in client.admin().list_offsets(ends).await.map_err(words)? {
        left += end.map_err(words)?;
    }
    let mut consumer = client.consumer().topics([topic]).build().map_err(words)?;
    let mut rows = Vec::new();
    while (rows.len() as i64) < left {
        let batch = consumer.next().await.ok_or("the consumer ended")?.map_err(words)?;
        for record in &batch {
            let value = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
            rows.push(Row { value, partition: batch.partition(), offset: record.offset() });
        }
    }
    Ok(rows)
}

/// Compares; `rows` may hold records of others, which are not looked at. Values are as
/// [`Load`](super::Load) makes them.
pub fn check(outcomes: &[Outcome], rows: &[Row]) -> Verdict {
    let mut places: HashMap<&str, Vec<(i32, i64)>> = HashMap::new();
    for row in rows {
        places.entry(&row.value).or_default().push((row.partition, row.offset));
    }
    let mut verdict = Verdict::default();
    for outcome in outcomes {
        let found = places.get(&*outcome.value).map_or(&[][..], Vec::as_slice);
        verdict.duplicated += found.len().saturating_sub(1);
        match &outcome.fate {
            Err(_) => verdict.failed += 1,
            Ok(at) => {
                verdict.acked += 1;
                let there = |(partition, offset): &(i32, i64)| {
                    *partition == at.partition && (at.offset < 0 || *offset == at.offset)
                };
                verdict.lost += usize::from(found.is_empty());
                verdict.misplaced += usize::from(!found.is_empty() && !found.iter().any(there));
            }
        }
    }
    verdict.out_of_order = disorder(outcomes, rows);
    verdict
}

fn disorder(outcomes: &[Outcome], rows: &[Row]) -> usize {
    let ours: std::collections::HashSet<&str> = outcomes.iter().map(|o| &*o.value).collect();
    let mut by_partition: HashMap<i32, Vec<&Row>> = HashMap::new();
    for row in rows.iter().filter(|row| ours.contains(&*row.value)) {
        by_partition.entry(row.partition).or_default().push(row);
    }
    let mut out = 0;
    for rows in by_partition.values_mut() {
        rows.sort_unstable_by_key(|row| row.offset);
        let mut last: HashMap<&str, u64> = HashMap::new();
        for row in rows {
            let Some((client, number)) = row.value.rsplit_once('/') else { continue };
            let number = number.parse().unwrap_or(0);
            let before = last.entry(client).or_insert(number);
            out += usize::from(number < *before);
            *before = number.max(*before);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::Place;
    use super::*;

    fn sent(value: &str, fate: Result<(i32, i64), &str>) -> Outcome {
        let now = Instant::now();
        let fate = fate.map(|(partition, offset)| Place { partition, offset });
        let fate = fate.map_err(str::to_owned);
        Outcome { value: value.into(), client: 0, sent: now, resolved: now, fate }
    }

    fn row(value: &str, partition: i32, offset: i64) -> Row {
        Row { value: value.into(), partition, offset }
    }

    #[test]
    fn a_clean_run_is_clean_whatever_others_wrote() {
        let outcomes = [sent("a/0/0", Ok((1, 0))), sent("a/0/1", Ok((1, -1)))];
        let rows = [row("b/9/9", 1, 2), row("a/0/1", 1, 1), row("a/0/0", 1, 0), row("b/9/9", 1, 3)];
        let verdict = check(&outcomes, &rows);
        assert_eq!(verdict, Verdict { acked: 2, ..Verdict::default() });
        assert!(verdict.is_clean());
    }

    #[test]
    fn each_kind_of_damage_is_counted() {
        let outcomes = [
            sent("a/0/0", Ok((1, 0))),
            sent("a/0/1", Ok((1, 5))),
            sent("a/0/2", Ok((2, 0))),
            sent("a/0/3", Err("timed out")),
        ];
        // 0 is gone; 1 is elsewhere than said; 2 is there twice, once behind 3.
        let rows = [row("a/0/1", 1, 4), row("a/0/2", 2, 0), row("a/0/3", 2, 1), row("a/0/2", 2, 2)];
        let verdict = check(&outcomes, &rows);
        let wanted =
            Verdict { acked: 3, failed: 1, lost: 1, misplaced: 1, duplicated: 1, out_of_order: 1 };
        assert_eq!(verdict, wanted);
        assert!(!verdict.is_clean());
    }

    #[test]
    fn no_damage_makes_up_for_another() {
        let verdict = |outcomes: &[Outcome], rows: &[Row]| {
            let found = check(outcomes, rows);
            assert!(!found.is_clean(), "{found:?}");
            found
        };
        let (failed, acked) = (sent("a/0/0", Err("timed out")), sent("a/0/1", Ok((1, 5))));
        // A failure is none of being clean, and copies of what failed are copies.
        let found = verdict(std::slice::from_ref(&failed), &[]);
        assert_eq!(found, Verdict { failed: 1, ..Verdict::default() });
        let rows = [row("a/0/0", 1, 0), row("a/0/0", 1, 1), row("a/0/0", 1, 2)];
        assert_eq!(verdict(&[failed], &rows).duplicated, 2);
        // The offset that was said, in another partition; no offset said, in another partition.
        let rows = [row("a/0/1", 2, 5)];
        assert_eq!(verdict(&[acked], &rows).misplaced, 1);
        assert_eq!(verdict(&[sent("a/0/1", Ok((1, -1)))], &rows).misplaced, 1);
        // Two clients' records lie between each other; one of the first is behind two later ones.
        let values = ["a/0/5", "a/1/0", "a/0/6", "a/0/3", "a/0/4"];
        let rows: Vec<_> = (0..).zip(values).map(|(at, value)| row(value, 0, at)).collect();
        let outcomes: Vec<_> =
            (0..).zip(values).map(|(at, value)| sent(value, Ok((0, at)))).collect();
        assert_eq!(verdict(&outcomes, &rows).out_of_order, 2);
    }
}
