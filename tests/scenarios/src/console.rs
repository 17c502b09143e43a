//! Kafka's own tools as writer and reader: what judges everybody else's rows.

use std::path::Path;

use ottla_test_kafka::Cluster;

use crate::interop::Result;
use crate::process;
use crate::records::Row;

// The console consumer prints bytes as they are when no deserializer is named. Between them stands
// what no record of the matrix holds.
const FIELD: &str = "<|ottla:field:7f3a|>";
const HEADER: &str = "<|ottla:header:7f3a|>";
const LINE: &str = "<|ottla:line:7f3a|>";
const NULL: &str = "<|ottla:null:7f3a|>";
const NO_HEADERS: &[u8] = b"NO_HEADERS";

/// Writes `count` records with `VerifiableProducer`: values "0", "1", ..., no keys, no headers.
///
/// # Errors
/// What the tool said.
pub fn write(cluster: &Cluster, topic: &str, count: usize, dir: &Path) -> Result<Vec<Row>> {
    let number = count.to_string();
    let args = ["--bootstrap-server", cluster.bootstrap(), "--topic", topic];
    let mut command = cluster.run_tool("org.apache.kafka.tools.VerifiableProducer", &args);
    command.args(["--max-messages", &number, "--acks", "-1"]);
    process::run(command, &dir.join("verifiable.out"))?;
    Ok((0..count)
        .map(|i| Row {
            partition: -1,
            offset: -1,
            key: None,
            value: Some(i.to_string().into_bytes()),
            headers: Vec::new(),
        })
        .collect())
}

/// Reads `count` records with `ConsoleConsumer`, bytes as they are.
///
/// # Errors
/// What the tool said, or where its output cannot be read.
pub fn read(cluster: &Cluster, topic: &str, count: usize, dir: &Path) -> Result<Vec<Row>> {
    let number = count.to_string();
    let args = ["--bootstrap-server", cluster.bootstrap(), "--topic", topic];
    let mut command = cluster.run_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &args);
    command.args(["--from-beginning", "--max-messages", &number, "--timeout-ms", "60000"]);
    for property in [
        "print.partition=true".to_owned(),
        "print.offset=true".to_owned(),
        "print.headers=true".to_owned(),
        "print.key=true".to_owned(),
        format!("key.separator={FIELD}"),
        format!("headers.separator={HEADER}"),
        format!("line.separator={LINE}"),
        format!("null.literal={NULL}"),
    ] {
        command.arg("--property").arg(property);
    }
    let out = dir.join("console.out");
    process::run(command, &out)?;
    let bytes = std::fs::read(&out).map_err(|e| e.to_string())?;
    let lines = split(skip_advice(&bytes), LINE);
    let (last, lines) = lines.split_last().ok_or("no output")?;
    if !last.is_empty() {
        return Err(format!("the output ends in the middle of a record: {} bytes", last.len()));
    }
    lines
        .iter()
        .map(|line| {
            parse(line).ok_or_else(|| {
                format!("not a record: {}", line[..line.len().min(200)].escape_ascii())
            })
        })
        .collect()
}

/// Releases from 4.2 on say on stdout that `--property` has a newer name, which older ones do not
/// know.
fn skip_advice(mut bytes: &[u8]) -> &[u8] {
    while bytes.starts_with(b"Option --")
        && let Some(end) = bytes.iter().position(|b| *b == b'\n')
    {
        bytes = &bytes[end + 1..];
    }
    bytes
}

fn parse(line: &[u8]) -> Option<Row> {
    let fields = split(line, FIELD);
    let [partition, offset, headers, key, value] = fields.as_slice() else { return None };
    let number = |field: &[u8], name: &str| {
        str::from_utf8(field.strip_prefix(name.as_bytes())?).ok()?.parse::<i64>().ok()
    };
    let headers = if *headers == NO_HEADERS {
        Vec::new()
    } else {
        split(headers, HEADER).into_iter().map(header).collect::<Option<_>>()?
    };
    Some(Row {
        partition: i32::try_from(number(partition, "Partition:")?).ok()?,
        offset: number(offset, "Offset:")?,
        key: nullable(key),
        value: nullable(value),
        headers,
    })
}

fn header(text: &[u8]) -> Option<(String, Option<Vec<u8>>)> {
    let colon = text.iter().position(|b| *b == b':')?;
    Some((String::from_utf8(text[..colon].to_vec()).ok()?, nullable(&text[colon + 1..])))
}

fn nullable(bytes: &[u8]) -> Option<Vec<u8>> {
    (bytes != NULL.as_bytes()).then(|| bytes.to_vec())
}

fn split<'a>(mut bytes: &'a [u8], separator: &str) -> Vec<&'a [u8]> {
    let separator = separator.as_bytes();
    let mut parts = Vec::new();
    let mut from = 0;
    while let Some(step) = bytes[from..].iter().position(|b| *b == separator[0]) {
        from += step;
        if bytes[from..].starts_with(separator) {
            parts.push(&bytes[..from]);
            bytes = &bytes[from + separator.len()..];
            from = 0;
        } else {
            from += 1;
        }
    }
    parts.push(bytes);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_console_consumer() {
        let line = [
            "Partition:3",
            FIELD,
            "Offset:12",
            FIELD,
            "a:x",
            HEADER,
            "a:",
            NULL,
            FIELD,
            NULL,
            FIELD,
        ]
        .concat();
        let row = parse(line.as_bytes()).unwrap();
        assert_eq!((row.partition, row.offset), (3, 12));
        assert_eq!((row.key, row.value), (None, Some(Vec::new())));
        assert_eq!(row.headers, [("a".into(), Some(b"x".to_vec())), ("a".into(), None)]);
        assert!(parse(b"Processed a total of 3 messages").is_none());
    }
}
