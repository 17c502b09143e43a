//! Batches as the bindings read them, whether they come from a broker or from the echo.

use std::sync::atomic::{AtomicI64, AtomicU32};
use std::sync::{Arc, OnceLock};

use super::echo::EchoBatch;
use super::pack::Cursor;
use crate::consumer::{self, Claim, Marks, Span, Standing};
use crate::error::Result;
use crate::fork::{self, Origin};
use crate::record::{Headers, RecordPosition, RecordRef};

/// Records of one partition in offset order. Cheap to clone; clones share the bytes.
#[derive(Clone)]
pub struct Batch(Source);

#[derive(Clone)]
enum Source {
    Echo(Arc<EchoBatch>, Arc<Claim>),
    Fetched(Arc<FetchedBatch>),
}

/// What can be said and asked of a batch without its records, for hosts that copy them out and let the batch go: whether they
/// are still wanted, and what of them is done.
#[derive(Clone)]
pub struct Wanted {
    claim: Arc<Claim>,
    /// Of a group's consumer, and the offset behind the batch's last record.
    span: Option<(Span, i64)>,
    origin: Origin,
}

/// Memory for hosts that hand records on one by one and may not call for each.
pub struct Words<'a> {
    /// 0 while the records are wanted, 1 while their partition is paused, more once they are left.
    pub standing: &'a AtomicU32,
    /// Of a group's consumer: where the host writes the offset of the record that the application has in hand
    /// ([`consumer::Batch::reached`]).
    pub reached: Option<&'a AtomicI64>,
    /// The same, if that says nothing of the records before it ([`consumer::Batch::hands_on`]).
    pub handed_on: Option<&'a AtomicI64>,
}

fn check(origin: Origin) -> Result<()> {
    if origin.is_here() { Ok(()) } else { Err(fork::forked()) }
}

impl Wanted {
    /// See [`consumer::Batch::standing`].
    pub fn standing(&self) -> Standing {
        self.claim.standing()
    }

    /// See [`consumer::Batch::ack_before`].
    pub fn ack_before(&self, offset: i64) {
        if let (Some(marks), Some((span, end))) = (self.claim.marks(), &self.span) {
            // Behind its last record there may be offsets that hold nothing.
            marks.done(span, if offset >= *end { span.next } else { offset });
        }
    }

    /// Nobody has the records from this offset on in hand, or somebody has again. See [`consumer::Batch::put_aside`].
    pub fn put_aside(&self, first: i64, aside: bool) {
        if let (Some(marks), Some((span, _))) = (self.claim.marks(), &self.span) {
            marks.put_aside(span, first, aside);
        }
    }

    /// Words of memory that last as long as this does.
    pub fn words(&self) -> Words<'_> {
        Words {
            standing: self.claim.word(),
            reached: self.span.as_ref().map(|(span, _)| span.reached_word()),
            handed_on: self.claim.marks().map(Marks::handed_on_word),
        }
    }

    /// Refuses a batch that was inherited through a fork.
    pub fn check_process(&self) -> Result<()> {
        check(self.origin)
    }
}

/// A batch, and where its records start, once somebody asks for one by its number: hosts walk a
/// batch by number, and each step must not walk it again.
struct FetchedBatch {
    batch: consumer::Batch,
    origin: Origin,
    starts: OnceLock<Vec<RecordPosition>>,
}

impl FetchedBatch {
    fn starts(&self) -> &[RecordPosition] {
        self.starts.get_or_init(|| {
            let mut starts = Vec::with_capacity(self.batch.len());
            let mut records = self.batch.iter();
            loop {
                let start = records.position();
                match records.next() {
                    Some(_) => starts.push(start),
                    None => return starts,
                }
            }
        })
    }

    fn get(&self, i: usize) -> Option<RecordRef<'_>> {
        self.batch.iter_from(*self.starts().get(i)?).next()
    }
}

#[inline(always)]
fn view(r: RecordRef<'_>) -> RecordView<'_> {
    RecordView {
        offset: r.offset(),
        timestamp_ms: r.timestamp_ms(),
        key: r.key(),
        value: r.value(),
        headers: HeaderViews(HeaderSource::FetchedBatch(r.headers())),
    }
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

/// The headers of a [`RecordView`], in order. Names are bytes: other clients may have written
/// anything.
#[derive(Clone)]
pub struct HeaderViews<'a>(HeaderSource<'a>);

#[derive(Clone)]
enum HeaderSource<'a> {
    Packed { cursor: Cursor<'a>, left: usize },
    FetchedBatch(Headers<'a>),
}

impl<'a> HeaderViews<'a> {
    /// How many there are.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            HeaderSource::Packed { left, .. } => *left,
            HeaderSource::FetchedBatch(headers) => headers.len(),
        }
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn packed(cursor: Cursor<'a>, left: usize) -> Self {
        Self(HeaderSource::Packed { cursor, left })
    }
}

impl<'a> Iterator for HeaderViews<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            HeaderSource::Packed { cursor, left } => {
                *left = left.checked_sub(1)?;
                cursor.header().ok().map(|(name, value)| (name.as_bytes(), value))
            }
            HeaderSource::FetchedBatch(headers) => headers.next(),
        }
    }
}

impl Batch {
    pub(super) fn echo(batch: Arc<EchoBatch>, claim: Arc<Claim>) -> Self {
        Self(Source::Echo(batch, claim))
    }

    pub(super) fn fetched(batch: consumer::Batch) -> Self {
        Self(Source::Fetched(Arc::new(FetchedBatch {
            batch,
            origin: Origin::here(),
            starts: OnceLock::new(),
        })))
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        match &self.0 {
            Source::Echo(b, _) => &b.topic,
            Source::Fetched(f) => f.batch.topic(),
        }
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        match &self.0 {
            Source::Echo(b, _) => b.partition,
            Source::Fetched(f) => f.batch.partition(),
        }
    }

    /// How many records it has.
    pub fn len(&self) -> usize {
        match &self.0 {
            Source::Echo(b, _) => b.len(),
            Source::Fetched(f) => f.batch.len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The offset to go on from after this batch.
    pub fn next_offset(&self) -> i64 {
        match &self.0 {
            Source::Echo(b, _) => b.next_offset(),
            Source::Fetched(f) => f.batch.next_offset(),
        }
    }

    /// The leader epoch under which it was written; -1 if unknown.
    pub fn leader_epoch(&self) -> i32 {
        match &self.0 {
            Source::Echo(..) => -1,
            Source::Fetched(f) => f.batch.leader_epoch(),
        }
    }

    /// The same in memory of its own. See [`consumer::Batch::detach`].
    pub fn detach(&self) -> Self {
        match &self.0 {
            Source::Echo(..) => self.clone(),
            Source::Fetched(f) => Self(Source::Fetched(Arc::new(FetchedBatch {
                batch: f.batch.detach(),
                origin: f.origin,
                starts: OnceLock::new(),
            }))),
        }
    }

    /// Whether its records are still wanted. See [`consumer::Batch::standing`].
    pub fn standing(&self) -> Standing {
        self.wanted().standing()
    }

    /// See [`consumer::Batch::ack`].
    pub fn ack(&self) {
        self.ack_before(i64::MAX);
    }

    /// See [`consumer::Batch::ack_before`].
    pub fn ack_before(&self, offset: i64) {
        if let Source::Fetched(f) = &self.0 {
            f.batch.ack_before(offset);
        }
    }

    /// Refuses a batch that was inherited through a fork: to say what is done of it takes locks that a thread of the parent may
    /// have had. Reading it does no harm.
    pub fn check_process(&self) -> Result<()> {
        match &self.0 {
            Source::Echo(..) => Ok(()),
            Source::Fetched(f) => check(f.origin),
        }
    }

    /// See [`consumer::Batch::reached`].
    pub fn reached(&self, offset: i64) {
        if let Source::Fetched(f) = &self.0 {
            f.batch.reached(offset);
        }
    }

    /// Tells the same when the batch is gone.
    pub fn wanted(&self) -> Wanted {
        match &self.0 {
            Source::Echo(_, claim) => {
                Wanted { claim: Arc::clone(claim), span: None, origin: Origin::here() }
            }
            Source::Fetched(f) => Wanted {
                claim: Arc::clone(&f.batch.claim),
                span: f.batch.span.clone().map(|span| (span, f.batch.next_offset())),
                origin: f.origin,
            },
        }
    }

    /// Record number `i`, if there is one.
    pub fn get(&self, i: usize) -> Option<RecordView<'_>> {
        match &self.0 {
            Source::Echo(b, _) => b.get(i),
            Source::Fetched(f) => f.get(i).map(view),
        }
    }

    /// The bytes in which all keys and values lie that [`visit`](Self::visit) gives, for hosts that copy them in one go. `None` if
    /// they do not lie in one piece.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Source::Echo(..) => None,
            Source::Fetched(f) => Some(f.batch.iter().bytes()),
        }
    }

    /// How many headers its records have together, and how many bytes of names and values: at most, and known without a look
    /// at them if [`bytes`](Self::bytes) are.
    pub fn headers(&self) -> (usize, usize) {
        match &self.0 {
            Source::Echo(b, _) => {
                let records = (0..b.len()).filter_map(|i| b.get(i));
                let headers = records.flat_map(|r| r.headers);
                headers.fold((0, 0), |(n, bytes), (name, value)| {
                    (n + 1, bytes + name.len() + value.map_or(0, <[u8]>::len))
                })
            }
            Source::Fetched(f) => f.batch.records.headers(),
        }
    }

    /// All records in order, each given to `visit` until that says `false`.
    #[inline]
    pub fn visit(&self, visit: impl FnMut(RecordView<'_>) -> bool) {
        self.visit_from(0, visit);
    }

    /// The same from record number `first` on.
    #[inline]
    pub fn visit_from(&self, first: usize, mut visit: impl FnMut(RecordView<'_>) -> bool) {
        match &self.0 {
            Source::Echo(b, _) => {
                let _ = (first..b.len()).map_while(|i| b.get(i)).all(&mut visit);
            }
            Source::Fetched(f) => {
                let records = match first {
                    0 => f.batch.iter(),
                    _ => match f.starts().get(first) {
                        Some(start) => f.batch.iter_from(*start),
                        None => return,
                    },
                };
                // A loop of its own: a record need not pass through memory, nor be looked at where nobody does.
                for record in records {
                    if !visit(view(record)) {
                        return;
                    }
                }
            }
        }
    }
}
