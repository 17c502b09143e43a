//! What a consumer gives: batches, and records that read the fetched bytes when they are asked.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use ottla::bindings::{self, Hold};
use ottla::{RecordPosition, RecordRef, Standing, TopicPartition};
use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyCapsule, PyList, PySlice, PyString, PyTuple};

use crate::columns;
use crate::convert;
use crate::fork::Here;
use crate::guard::guarded;

/// A fetched batch, shared by everything that reads it.
pub(crate) struct Page {
    batch: ottla::Batch,
    topic: PyOnceLock<Py<PyString>>,
    /// Of a record that was detached from its batch: what says that it is done, if that is asked for.
    alone: Option<Option<Hold>>,
}

/// Reading one in a forked child does no harm; giving its buffer back there would.
pub(crate) type SharedPage = Arc<Here<Page>>;

impl Page {
    /// What belongs to the record at a position: the offsets from it on to the next record, and at the batch's ends those
    /// that hold nothing.
    fn offsets(&self, position: RecordPosition) -> (i64, i64) {
        let mut records = self.batch.iter_from(position);
        let first = records.next().map_or(i64::MAX, |record| record.offset());
        (first, records.next().map_or(i64::MAX, |record| record.offset()))
    }
}

/// Where reading goes on.
pub(crate) struct Cursor {
    page: SharedPage,
    next: RecordPosition,
    left: usize,
    /// The record that was taken last.
    last: RecordPosition,
    /// What is left waits, in nobody's hand.
    aside: bool,
}

impl Cursor {
    pub(crate) fn new(batch: ottla::Batch) -> Self {
        let next = batch.iter().position();
        let left = batch.len();
        let page = Page { batch, topic: PyOnceLock::new(), alone: None };
        Self { page: Arc::new(Here::new(page)), next, left, last: next, aside: false }
    }

    /// The next record.
    #[inline]
    pub(crate) fn advance(&mut self) -> Option<Record> {
        self.advance_with(|_, _| ())
    }

    #[inline]
    fn advance_with(&mut self, tell: impl FnOnce(&ottla::Batch, i64)) -> Option<Record> {
        let here = self.next;
        let batch = &self.page.read().batch;
        let mut records = batch.iter_from(here);
        tell(batch, records.next()?.offset());
        self.next = records.position();
        self.left = self.left.saturating_sub(1);
        self.last = here;
        Some(Record { page: Arc::clone(&self.page), position: here })
    }

    /// The same for a consumer that is asked for records: its group hears that somebody is there.
    #[inline]
    pub(crate) fn hand_on(&mut self) -> Option<Record> {
        self.advance_with(ottla::Batch::hands_on)
    }

    /// The same for who reads alone of a group's partition: those before it are finished.
    #[inline]
    pub(crate) fn hand_on_alone(&mut self) -> Option<Record> {
        self.advance_with(ottla::Batch::reached)
    }

    /// The same for who is not alone: the record is finished by itself.
    pub(crate) fn hand_on_apart(&mut self, holder: &Weak<()>) -> Option<(Record, Option<Hold>)> {
        Some((self.hand_on()?, self.hold_last(holder)))
    }

    /// The record that was handed on last is finished. Of those before it the core knows as much: which were reached, and
    /// which somebody else holds.
    pub(crate) fn finish(&self) {
        let page = self.page.read();
        let (first, next) = page.offsets(self.last);
        page.batch.ack_range(first, next);
    }

    /// The same record, to be finished by itself.
    pub(crate) fn hold_last(&self, holder: &Weak<()>) -> Option<Hold> {
        let page = self.page.read();
        let (first, next) = page.offsets(self.last);
        Hold::new(&page.batch, first, next, holder)
    }

    /// From the record that was handed on last on it is in one thread's hand.
    pub(crate) fn held_by(&self, holder: &Weak<()>) {
        let page = self.page.read();
        let _ = Hold::new(&page.batch, page.offsets(self.last).0, i64::MAX, holder);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Nobody has in hand what is left of it while its partition is paused; or somebody has.
    pub(crate) fn put_aside(&mut self, aside: bool) {
        if std::mem::replace(&mut self.aside, aside) != aside {
            let page = self.page.read();
            page.batch.put_aside(page.offsets(self.next).0, aside);
        }
    }

    /// What is left as a batch; `None` if nothing is.
    pub(crate) fn into_batch(self) -> Option<Batch> {
        let Self { page, next: first, left: len, .. } = self;
        (len > 0).then(|| Batch { page, first, len, positions: OnceLock::new() })
    }

    /// Whether what is left is wanted.
    #[inline]
    pub(crate) fn standing(&self) -> Standing {
        self.page.read().batch.standing()
    }

    /// Whether what is left of this partition is before an offset.
    pub(crate) fn is_short_of(&self, of: &TopicPartition, end: i64) -> bool {
        let batch = &self.page.read().batch;
        let is_of = batch.partition() == of.partition && batch.topic() == &*of.topic;
        let first = || batch.iter_from(self.next).next().map(|record| record.offset());
        is_of && self.left > 0 && first().is_some_and(|first| first < end)
    }
}

fn topic_of<'py>(py: Python<'py>, page: &Page) -> Bound<'py, PyString> {
    let topic = page.topic.get_or_init(py, || PyString::new(py, page.batch.topic()).unbind());
    topic.bind(py).clone()
}

/// Consecutive records of one partition, as they were written together. A sequence of records.
///
/// It holds the fetched bytes; so does every record taken from it.
#[pyclass(module = "ottla", frozen, sequence, weakref)]
#[derive(Clone)]
pub(crate) struct Batch {
    page: SharedPage,
    first: RecordPosition,
    len: usize,
    /// Where each record starts; made when the first is asked for by index.
    positions: OnceLock<Vec<RecordPosition>>,
}

impl Batch {
    /// To be finished when its reader says so.
    pub(crate) fn hold(&self, holder: &Weak<()>) -> Option<Hold> {
        let page = self.page.read();
        Hold::new(&page.batch, page.offsets(self.first).0, i64::MAX, holder)
    }

    fn cursor(&self) -> Cursor {
        let (page, next) = (Arc::clone(&self.page), self.first);
        Cursor { page, next, left: self.len, last: next, aside: false }
    }

    fn records(&self) -> impl Iterator<Item = Record> {
        let mut cursor = self.cursor();
        std::iter::from_fn(move || cursor.advance())
    }

    /// The records as the core has them.
    fn refs(&self) -> impl Iterator<Item = RecordRef<'_>> + Clone + Send {
        self.page.read().batch.iter_from(self.first).take(self.len)
    }

    fn at(&self, index: usize) -> Option<Record> {
        let positions = self.positions.get_or_init(|| {
            let mut records = self.page.read().batch.iter_from(self.first);
            let mut positions = Vec::with_capacity(self.len);
            loop {
                let position = records.position();
                if records.next().is_none() {
                    return positions;
                }
                positions.push(position);
            }
        });
        let position = *positions.get(index)?;
        Some(Record { page: Arc::clone(&self.page), position })
    }
}

#[pymethods]
impl Batch {
    /// The topic.
    #[getter]
    fn topic<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        topic_of(py, self.page.read())
    }

    /// The partition.
    #[getter]
    fn partition(&self) -> i32 {
        self.page.read().batch.partition()
    }

    /// Offset of the first record the batch was written with. Compaction may have removed it.
    #[getter]
    fn base_offset(&self) -> i64 {
        self.page.read().batch.base_offset()
    }

    /// Offset at which reading goes on after this batch.
    #[getter]
    fn next_offset(&self) -> i64 {
        self.page.read().batch.next_offset()
    }

    /// It is finished: what the group's consumer commits of its partition may lie behind it, once all before
    /// it is finished too. For commit="acked", in any order, from any thread; otherwise asking for
    /// the next batch does it. Twice is fine; without a group it does nothing.
    fn ack(&self, py: Python<'_>) -> PyResult<()> {
        let page = self.page.get(py, "batch")?;
        guarded(py, || {
            page.batch.ack_range(page.offsets(self.first).0, i64::MAX);
            Ok(())
        })
    }

    /// The same batch in memory of its own. Without it a batch, and each record of it, holds all the bytes that its broker sent with it,
    /// and the consumer has so much less of its buffer_memory: for batches that are kept. It can be acked as this one.
    fn detach(&self, py: Python<'_>) -> Self {
        let page = self.page.read();
        let topic = PyOnceLock::new();
        if let Some(text) = page.topic.get(py) {
            let _ = topic.set(py, text.clone_ref(py));
        }
        let detached = Page { batch: page.batch.detach(), topic, alone: None };
        let page = Arc::new(self.page.with(detached));
        Self { page, first: self.first, len: self.len, positions: OnceLock::new() }
    }

    /// The records as a table of topic, partition, offset, timestamp, key, value and headers, for polars, pyarrow, pandas and
    /// DuckDB: see Columns. Those that do not look for a sequence first read the batch itself.
    fn to_arrow<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("ottla._columns")?.call_method1("Columns", (slf,))
    }

    /// Arrow PyCapsule interface: what the columns are.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        columns::schema(py)
    }

    /// Arrow PyCapsule interface: the records as structs. Another schema than the own one is not made.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let _ = requested_schema;
        let batch = &self.page.read().batch;
        columns::array(py, batch.topic(), batch.partition(), self.refs())
    }

    /// Arrow PyCapsule interface: the same as a stream.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        let batch = &self.page.read().batch;
        columns::stream(py, batch.topic(), batch.partition(), self.refs())
    }

    fn __len__(&self) -> usize {
        self.len
    }

    fn __getitem__<'py>(&self, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = index.py();
        if let Ok(slice) = index.cast::<PySlice>() {
            let indices = slice.indices(self.len as isize)?;
            let records = PyList::empty(py);
            let mut at = indices.start;
            for _ in 0..indices.slicelength {
                let record = usize::try_from(at).ok().and_then(|at| self.at(at));
                records.append(record.ok_or_else(out_of_range)?)?;
                at += indices.step;
            }
            return Ok(records.into_any());
        }
        if !convert::is_integer(index) {
            return Err(PyTypeError::new_err(format!(
                "an index must be int or slice, not {}",
                convert::type_name(index)
            )));
        }
        let index: isize = index.extract().map_err(|_| out_of_range())?;
        let index = if index < 0 { index + self.len as isize } else { index };
        let record = usize::try_from(index).ok().and_then(|index| self.at(index));
        Ok(Bound::new(py, record.ok_or_else(out_of_range)?)?.into_any())
    }

    fn __iter__(&self) -> BatchIterator {
        BatchIterator(std::sync::Mutex::new(self.cursor()))
    }

    fn __reversed__(&self) -> BackwardsIterator {
        BackwardsIterator { batch: self.clone(), left: AtomicUsize::new(self.len) }
    }

    fn __contains__(&self, value: &Bound<'_, PyAny>) -> bool {
        match value.cast::<Record>() {
            Ok(record) => self.records().any(|own| own == *record.get()),
            Err(_) => false,
        }
    }

    /// The first index of a record. Raises ValueError if it is not there.
    #[pyo3(signature = (value, start=0, stop=None))]
    fn index(
        &self,
        value: &Bound<'_, PyAny>,
        start: isize,
        stop: Option<isize>,
    ) -> PyResult<usize> {
        // Negative ones count from the end, as in a slice.
        let bound = |at: isize| match at < 0 {
            true => self.len.saturating_sub(at.unsigned_abs()),
            false => at.unsigned_abs().min(self.len),
        };
        let (start, stop) = (bound(start), stop.map_or(self.len, bound));
        let found = value.cast::<Record>().ok().and_then(|record| {
            let mut records = self.records().enumerate().take(stop).skip(start);
            records.find(|(_, own)| own == record.get()).map(|(at, _)| at)
        });
        found.ok_or_else(|| PyValueError::new_err("the record is not in the batch"))
    }

    /// How often a record is in the batch: once or not at all.
    fn count(&self, value: &Bound<'_, PyAny>) -> usize {
        match value.cast::<Record>() {
            Ok(record) => self.records().filter(|own| own == record.get()).count(),
            Err(_) => 0,
        }
    }

    fn __repr__(&self) -> String {
        let batch = &self.page.read().batch;
        format!(
            "<ottla.Batch {}[{}] of {} records before offset {}>",
            batch.topic(),
            batch.partition(),
            self.len,
            batch.next_offset()
        )
    }
}

fn out_of_range() -> PyErr {
    PyIndexError::new_err("the batch has no record of this index")
}

/// Iterates over a batch.
#[pyclass(module = "ottla", frozen)]
pub(crate) struct BatchIterator(std::sync::Mutex<Cursor>);

#[pymethods]
impl BatchIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self) -> Option<Record> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).advance()
    }
}

/// Goes through a batch from its end.
#[pyclass(module = "ottla", frozen)]
pub(crate) struct BackwardsIterator {
    batch: Batch,
    left: AtomicUsize,
}

#[pymethods]
impl BackwardsIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self) -> Option<Record> {
        let down = |left: usize| left.checked_sub(1);
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, down).ok()?;
        self.batch.at(left - 1)
    }
}

/// A record that was read. Its parts are made when they are asked for. Two are equal if everything
/// that can be read of them is.
#[pyclass(module = "ottla", frozen, weakref, eq, hash)]
pub(crate) struct Record {
    page: SharedPage,
    position: RecordPosition,
}

impl Record {
    #[inline]
    fn read(&self) -> RecordRef<'_> {
        let found = self.page.read().batch.iter_from(self.position).next();
        found.expect("the position is one that this batch gave, and its bytes do not change")
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        let (page, other_page) = (self.page.read(), other.page.read());
        if page.batch.partition() != other_page.batch.partition()
            || page.batch.topic() != other_page.batch.topic()
        {
            return false;
        }
        let (own, others) = (self.read(), other.read());
        own.offset() == others.offset()
            && own.timestamp_ms() == others.timestamp_ms()
            && own.key() == others.key()
            && own.value() == others.value()
            && own.headers().eq(others.headers())
    }
}

impl Eq for Record {}

/// By its place: what is elsewhere is not equal.
impl Hash for Record {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let batch = &self.page.read().batch;
        (batch.topic(), batch.partition(), self.read().offset()).hash(state);
    }
}

#[pymethods]
impl Record {
    /// The value, or None if it is null (a tombstone in a compacted topic).
    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.read().value().map(|value| PyBytes::new(py, value))
    }

    /// The key, or None.
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.read().key().map(|key| PyBytes::new(py, key))
    }

    /// (name, value) tuples in the order written; names may repeat, values may be None. A name
    /// that is not UTF-8 is decoded with "surrogateescape", as send() takes it back.
    #[getter]
    fn headers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let mut headers = Vec::new();
        for (name, value) in self.read().headers() {
            let name = PyString::from_encoded_object(
                &PyBytes::new(py, name),
                Some(c"utf-8"),
                Some(c"surrogateescape"),
            )?;
            headers.push((name, value.map(|value| PyBytes::new(py, value))));
        }
        PyTuple::new(py, headers)
    }

    /// Position in the partition.
    #[getter]
    fn offset(&self) -> i64 {
        self.read().offset()
    }

    /// Milliseconds since 1970 (UTC); -1 if the producer gave none.
    #[getter]
    fn timestamp(&self) -> i64 {
        self.read().timestamp_ms()
    }

    /// The partition.
    #[getter]
    fn partition(&self) -> i32 {
        self.page.read().batch.partition()
    }

    /// The topic.
    #[getter]
    fn topic<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        topic_of(py, self.page.read())
    }

    /// It is finished: what the group's consumer commits of its partition may lie behind it, once all before
    /// it is finished too. For commit="acked", in any order, from any thread; otherwise asking for
    /// the next record does it. Twice is fine; without a group it does nothing.
    fn ack(&self, py: Python<'_>) -> PyResult<()> {
        let page = self.page.get(py, "record")?;
        guarded(py, || {
            if let Some(hold) = &page.alone {
                hold.iter().for_each(Hold::done);
                return Ok(());
            }
            let (first, next) = page.offsets(self.position);
            page.batch.ack_range(first, next);
            Ok(())
        })
    }

    /// The same record in memory of its own. Without it a record holds its batch, and all the bytes that its broker sent with that, and the
    /// consumer has so much less of its buffer_memory: for few of many records that are kept. It can be acked as this one.
    fn detach(&self) -> Self {
        let page = self.page.read();
        let (batch, position) = bindings::detach_record(&page.batch, self.position);
        let alone = match &page.alone {
            Some(hold) => hold.clone(),
            None => {
                let (first, next) = page.offsets(self.position);
                Hold::apart(&page.batch, first, next)
            }
        };
        let detached = Page { batch, topic: PyOnceLock::new(), alone: Some(alone) };
        Self { page: Arc::new(self.page.with(detached)), position }
    }

    fn __repr__(&self) -> String {
        let batch = &self.page.read().batch;
        let record = self.read();
        let size = |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => format!("{} bytes", bytes.len()),
            None => "null".to_owned(),
        };
        format!(
            "<ottla.Record {}[{}] offset {}, key {}, value {}>",
            batch.topic(),
            batch.partition(),
            record.offset(),
            size(record.key()),
            size(record.value())
        )
    }
}
