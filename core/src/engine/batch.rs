//! Batches as the skins read them, whether they come from a broker or from the echo.

use std::sync::Arc;

use super::echo::EchoBatch;
use super::pack::Cursor;

/// Records of one partition in offset order. Cheap to clone; clones share the bytes.
#[derive(Clone)]
pub struct Batch(Source);

#[derive(Clone)]
enum Source {
    Echo(Arc<EchoBatch>),
}

/// One record of a [`Batch`].
#[derive(Clone)]
pub struct RecordView<'a> {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970; -1 if it has none.
    pub timestamp_ms: i64,
    /// `None` is null.
    pub key: Option<&'a [u8]>,
    /// `None` is null.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: HeaderViews<'a>,
}

/// The headers of a [`RecordView`], in order.
#[derive(Clone)]
pub struct HeaderViews<'a>(HeaderSource<'a>);

#[derive(Clone)]
enum HeaderSource<'a> {
    Packed { cursor: Cursor<'a>, left: usize },
}

impl<'a> HeaderViews<'a> {
    pub(super) fn packed(cursor: Cursor<'a>, left: usize) -> Self {
        Self(HeaderSource::Packed { cursor, left })
    }
}

impl<'a> Iterator for HeaderViews<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            HeaderSource::Packed { cursor, left } => {
                *left = left.checked_sub(1)?;
                cursor.header().ok()
            }
        }
    }
}

impl Batch {
    pub(super) fn echo(batch: Arc<EchoBatch>) -> Self {
        Self(Source::Echo(batch))
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        match &self.0 {
            Source::Echo(b) => &b.topic,
        }
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        match &self.0 {
            Source::Echo(b) => b.partition,
        }
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        match &self.0 {
            Source::Echo(b) => b.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The offset to go on from after this batch.
    pub fn next_offset(&self) -> i64 {
        match &self.0 {
            Source::Echo(b) => b.next_offset(),
        }
    }

    /// The leader epoch under which it was written; -1 if unknown.
    pub fn leader_epoch(&self) -> i32 {
        match &self.0 {
            Source::Echo(_) => -1,
        }
    }

    /// Record number `i`, if there is one.
    pub fn get(&self, i: usize) -> Option<RecordView<'_>> {
        match &self.0 {
            Source::Echo(b) => b.get(i),
        }
    }

    /// All records in order, each given to `visit` until that says `false`.
    pub fn visit(&self, mut visit: impl FnMut(RecordView<'_>) -> bool) {
        match &self.0 {
            Source::Echo(b) => {
                let _ = (0..b.len()).map_while(|i| b.get(i)).all(&mut visit);
            }
        }
    }
}
