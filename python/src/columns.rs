//! A batch as columns, by Arrow's PyCapsule interface: for pyarrow, polars, pandas and DuckDB, none of which is imported for that. Keys,
//! values and headers are gathered, once: Kafka has the parts of a record one behind the other.

use std::sync::{Arc, LazyLock};

use arrow_array::builder::LargeBinaryBuilder;
use arrow_array::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use arrow_array::ffi_stream::FFI_ArrowArrayStream;
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, Int64Array, ListArray, RecordBatch,
    RecordBatchIterator, StringArray, StructArray, TimestampMillisecondArray,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use ottla::RecordRef;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyTuple};

use crate::ending;
use crate::errors;
use crate::guard::guarded;

/// The parts of a header. A name that is not UTF-8 has U+FFFD for what is not.
static HEADER: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("value", DataType::LargeBinary, true),
    ])
});

/// The columns of a batch, by the names that the parts of a record have.
static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let topic = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let header = Field::new("item", DataType::Struct(HEADER.clone()), false);
    Arc::new(Schema::new(vec![
        Field::new("topic", topic, false),
        Field::new("partition", DataType::Int32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new(
            "timestamp",
            DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            true,
        ),
        Field::new("key", DataType::LargeBinary, true),
        Field::new("value", DataType::LargeBinary, true),
        Field::new("headers", DataType::List(Arc::new(header)), false),
    ]))
});

fn raise(py: Python<'_>, error: &ArrowError) -> PyErr {
    errors::argument(py, &format!("the batch does not go into columns: {error}"))
}

/// Gathers the records of one partition.
fn columns<'a>(
    topic: &str,
    partition: i32,
    records: impl Iterator<Item = RecordRef<'a>> + Clone,
) -> Result<RecordBatch, ArrowError> {
    // Once through for the sizes, so that nothing is copied twice.
    let (mut len, mut keys, mut values, mut headers, mut header_bytes) = (0, 0, 0, 0, 0);
    for record in records.clone() {
        len += 1;
        keys += record.key().map_or(0, <[u8]>::len);
        values += record.value().map_or(0, <[u8]>::len);
        for (_, value) in record.headers() {
            headers += 1;
            header_bytes += value.map_or(0, <[u8]>::len);
        }
    }
    let (mut offsets, mut timestamps) = (Vec::with_capacity(len), Vec::with_capacity(len));
    let mut key_column = LargeBinaryBuilder::with_capacity(len, keys);
    let mut value_column = LargeBinaryBuilder::with_capacity(len, values);
    let mut header_counts = Vec::with_capacity(len);
    let mut header_names = Vec::with_capacity(headers);
    let mut header_values = LargeBinaryBuilder::with_capacity(headers, header_bytes);
    for record in records {
        offsets.push(record.offset());
        timestamps.push(Some(record.timestamp_ms()).filter(|at| *at >= 0));
        key_column.append_option(record.key());
        value_column.append_option(record.value());
        let before = header_names.len();
        for (name, value) in record.headers() {
            header_names.push(String::from_utf8_lossy(name));
            header_values.append_option(value);
        }
        header_counts.push(header_names.len() - before);
    }
    let topics = DictionaryArray::<Int32Type>::try_new(
        Int32Array::from(vec![0; len]),
        Arc::new(StringArray::from(vec![topic])),
    )?;
    let header_columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(header_names)),
        Arc::new(header_values.finish()),
    ];
    let header_structs = StructArray::try_new(HEADER.clone(), header_columns, None)?;
    let DataType::List(header) = SCHEMA.field(6).data_type() else { unreachable!("it is a list") };
    let header_lists = ListArray::try_new(
        Arc::clone(header),
        OffsetBuffer::from_lengths(header_counts),
        Arc::new(header_structs),
        None,
    )?;
    RecordBatch::try_new(
        Arc::clone(&SCHEMA),
        vec![
            Arc::new(topics),
            Arc::new(Int32Array::from(vec![partition; len])),
            Arc::new(Int64Array::from(offsets)),
            Arc::new(TimestampMillisecondArray::from(timestamps).with_timezone("UTC")),
            Arc::new(key_column.finish()),
            Arc::new(value_column.finish()),
            Arc::new(header_lists),
        ],
    )
}

/// The same, while others have the interpreter.
fn gathered<'a, R>(py: Python<'_>, topic: &str, partition: i32, records: R) -> PyResult<RecordBatch>
where
    R: Iterator<Item = RecordRef<'a>> + Clone + Send,
{
    guarded(py, || {
        let made = ending::detach(py, || columns(topic, partition, records));
        made.map_err(|error| raise(py, &error))
    })
}

/// The schema of every batch.
pub(crate) fn schema(py: Python<'_>) -> PyResult<Bound<'_, PyCapsule>> {
    let schema = FFI_ArrowSchema::try_from(&**SCHEMA).map_err(|error| raise(py, &error))?;
    PyCapsule::new_with_value(py, schema, c"arrow_schema")
}

/// Schema and array of these records: a struct for each.
pub(crate) fn array<'py, 'a, R>(
    py: Python<'py>,
    topic: &str,
    partition: i32,
    records: R,
) -> PyResult<Bound<'py, PyTuple>>
where
    R: Iterator<Item = RecordRef<'a>> + Clone + Send,
{
    let structs = StructArray::from(gathered(py, topic, partition, records)?);
    let array = FFI_ArrowArray::new(&structs.to_data());
    let array = PyCapsule::new_with_value(py, array, c"arrow_array")?;
    PyTuple::new(py, [schema(py)?, array])
}

/// A stream of one array: some readers take nothing else.
pub(crate) fn stream<'py, 'a, R>(
    py: Python<'py>,
    topic: &str,
    partition: i32,
    records: R,
) -> PyResult<Bound<'py, PyCapsule>>
where
    R: Iterator<Item = RecordRef<'a>> + Clone + Send,
{
    let columns = gathered(py, topic, partition, records)?;
    let reader = RecordBatchIterator::new([Ok(columns)], Arc::clone(&SCHEMA));
    let stream = FFI_ArrowArrayStream::new(Box::new(reader));
    PyCapsule::new_with_value(py, stream, c"arrow_array_stream")
}
