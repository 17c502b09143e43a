//! Settings that are one of a few words, and what other clients call those.

use ottla::{
    Acks, ClusterChange, Commit, Compression, GroupProtocol, InDoubt, Isolation, Partitioner,
};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::convert;
use crate::errors::{self, OrRaise};
use crate::settings::Settings;

/// Numbers of Kafka, for `acks`.
const ACKS_ELSEWHERE: &[(&str, &str)] =
    &[("-1", "-1 is 'all'"), ("0", "0 is 'none'"), ("1", "1 is 'leader'")];

/// Names of librdkafka, for `partitioner`.
const PARTITIONERS_ELSEWHERE: &[(&str, &str)] = &[
    ("consistent", "CRC32 is not offered; Java's murmur2 is 'key_hash'"),
    ("consistent_random", "CRC32 is not offered; Java's murmur2 is 'key_hash'"),
    ("fnv1a", "FNV-1a is not offered; Java's murmur2 is 'key_hash'"),
    ("fnv1a_random", "FNV-1a is not offered; Java's murmur2 is 'key_hash'"),
    ("murmur2", "it is 'key_hash'"),
    ("murmur2_random", "it is 'key_hash'"),
    ("random", "'spread' is the nearest, by load"),
];

/// What other clients turn on and off, for `commit`.
const COMMIT_ELSEWHERE: &[(&str, &str)] =
    &[("True", "by itself is 'marks'"), ("False", "by hand is 'manual'")];

pub(crate) fn partitioner(settings: &mut Settings<'_>) -> PyResult<Option<Partitioner>> {
    let words = [("spread", Partitioner::Spread), ("key_hash", Partitioner::KeyHash)];
    choice(settings, "partitioner", &words, PARTITIONERS_ELSEWHERE)
}

pub(crate) fn acks(settings: &mut Settings<'_>) -> PyResult<Option<Acks>> {
    let words = [("all", Acks::All), ("leader", Acks::Leader), ("none", Acks::None)];
    choice(settings, "acks", &words, ACKS_ELSEWHERE)
}

pub(crate) fn cluster_change(settings: &mut Settings<'_>) -> PyResult<Option<ClusterChange>> {
    let words = [("fail", ClusterChange::Fail), ("accept", ClusterChange::Accept)];
    choice(settings, "on_cluster_change", &words, &[])
}

pub(crate) fn in_doubt(settings: &mut Settings<'_>) -> PyResult<Option<InDoubt>> {
    let words = [("wait", InDoubt::Wait), ("reroute", InDoubt::Reroute)];
    choice(settings, "in_doubt", &words, &[])
}

pub(crate) fn isolation(settings: &mut Settings<'_>) -> PyResult<Option<Isolation>> {
    let words = [
        ("read_uncommitted", Isolation::ReadUncommitted),
        ("read_committed", Isolation::ReadCommitted),
    ];
    choice(settings, "isolation", &words, &[])
}

pub(crate) fn commit(settings: &mut Settings<'_>) -> PyResult<Option<Commit>> {
    let words = [
        ("marks", Commit::Marks),
        ("acked", Commit::Acked),
        ("manual", Commit::Manual),
        ("manual_acked", Commit::ManualAcked),
    ];
    choice(settings, "commit", &words, COMMIT_ELSEWHERE)
}

pub(crate) fn group_protocol(settings: &mut Settings<'_>) -> PyResult<Option<GroupProtocol>> {
    use GroupProtocol::{Auto, Classic, Next};
    let words = [("auto", Auto), ("classic", Classic), ("next", Next)];
    let elsewhere = [("consumer", "Java's and librdkafka's consumer is next here")];
    choice(settings, "group_protocol", &words, &elsewhere)
}

fn choice<T: Copy>(
    settings: &mut Settings<'_>,
    name: &'static str,
    words: &[(&str, T)],
    elsewhere: &[(&str, &str)],
) -> PyResult<Option<T>> {
    let Some(value) = settings.take(name)? else { return Ok(None) };
    let text = value.str()?;
    let text = text.to_str()?;
    let is_word = value.is_instance_of::<PyString>();
    if is_word && let Some((_, choice)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(Some(*choice));
    }
    let all: Vec<String> = words.iter().map(|(word, _)| format!("'{word}'")).collect();
    let hint = elsewhere.iter().find(|(there, _)| *there == text);
    let hint = hint.map_or_else(String::new, |(_, hint)| format!(" ({hint})"));
    let all = all.join(" or ");
    Err(if is_word {
        errors::config(settings.py(), &format!("{name} is '{text}'; write {all}{hint}"))
    } else {
        let given = convert::type_name(&value);
        PyTypeError::new_err(format!("{name} must be {all}, not {given}{hint}"))
    })
}

/// `compression` and `compression_level`.
pub(crate) fn compression(settings: &mut Settings<'_>) -> PyResult<Option<Compression>> {
    let name = settings.string("compression")?;
    let level = settings.take("compression_level")?.map(|value| level(&value)).transpose()?;
    match (name, level) {
        (None, None) => Ok(None),
        (None, Some(level)) => Err(errors::config(
            settings.py(),
            &format!("compression_level is {level}; write compression='zstd' or 'gzip' with it"),
        )),
        (Some(name), level) => Compression::named(&name, level).or_raise(settings.py()).map(Some),
    }
}

/// `topic_compression`: a mapping from topics to codecs, "zstd" or ("zstd", 9).
pub(crate) fn topic_compression(
    settings: &mut Settings<'_>,
) -> PyResult<Vec<(String, Compression)>> {
    let Some(value) = settings.take("topic_compression")? else { return Ok(Vec::new()) };
    // A copy, which nobody changes meanwhile, of any mapping.
    let topics = value.py().get_type::<PyDict>().call1((&value,)).map_err(|_| {
        PyTypeError::new_err(format!(
            "topic_compression must be a dict of topics and codecs, not {}",
            convert::type_name(&value)
        ))
    })?;
    topics.cast_into::<PyDict>()?.iter().map(|(topic, codec)| of_topic(&topic, &codec)).collect()
}

fn of_topic(topic: &Bound<'_, PyAny>, codec: &Bound<'_, PyAny>) -> PyResult<(String, Compression)> {
    let wrong = || {
        PyTypeError::new_err(format!(
            "topic_compression must have a str and 'zstd' or ('zstd', 9), not {} and {}",
            convert::type_name(topic),
            convert::type_name(codec)
        ))
    };
    let topic = topic.cast::<PyString>().map_err(|_| wrong())?.to_str()?;
    let (name, level) = match codec.cast::<PyTuple>() {
        Ok(pair) if pair.len() == 2 => (pair.get_item(0)?, Some(level(&pair.get_item(1)?)?)),
        Ok(_) => return Err(wrong()),
        Err(_) => (codec.clone(), None),
    };
    let name = name.cast_into::<PyString>().map_err(|_| wrong())?;
    let codec = Compression::named(name.to_str()?, level).map_err(|error| {
        errors::config(codec.py(), &format!("topic '{topic}': {}", error.message()))
    })?;
    Ok((topic.to_owned(), codec))
}

fn level(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    if !convert::is_integer(value) {
        return Err(PyTypeError::new_err(format!(
            "a compression level must be an int, not {}",
            convert::type_name(value)
        )));
    }
    // No codec has a level that large: refused by the one that is chosen.
    Ok(value.extract().unwrap_or(i32::MAX))
}
