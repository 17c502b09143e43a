//! Writers and readers of the interop matrix.

use std::path::Path;
use std::process::Command;

use ottla::{Client, Compression, NewTopic, Record};

use crate::process;
use crate::records::{self, Row};

/// What went wrong, in words.
pub type Result<T> = std::result::Result<T, String>;

fn words(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Creates a topic.
///
/// # Errors
/// The client's.
pub async fn create_topic(bootstrap: &str, name: &str, partitions: i32) -> Result<()> {
    let client = Client::connect(bootstrap).await.map_err(words)?;
    client.admin().create_topic(NewTopic::new(name, partitions, 3)).await.map_err(words)
}

/// Writes records with Ottla and waits until each is acknowledged.
///
/// # Errors
/// The client's.
pub async fn write(bootstrap: &str, topic: &str, rows: &[Row], codec: Compression) -> Result<()> {
    let client = Client::connect(bootstrap).await.map_err(words)?;
    let producer = client.producer().compression(codec).build().map_err(words)?;
    let mut deliveries = Vec::with_capacity(rows.len());
    for row in rows {
        let headers: Vec<(&str, Option<&[u8]>)> =
            row.headers.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
        let mut record = Record::to(topic)
            .key_opt(row.key.as_deref())
            .value_opt(row.value.as_deref())
            .headers(&headers);
        if row.partition >= 0 {
            record = record.partition(row.partition);
        }
        deliveries.push(producer.send(record).await.map_err(words)?);
    }
    for delivery in deliveries {
        delivery.await.map_err(words)?;
    }
    producer.close(process::DEADLINE).await.map_err(words)
}

/// Reads `count` records with Ottla, from the start of every partition.
///
/// # Errors
/// The client's.
pub async fn read(bootstrap: &str, topic: &str, count: usize) -> Result<Vec<Row>> {
    let client = Client::connect(bootstrap).await.map_err(words)?;
    let mut consumer = client.consumer().topics([topic]).build().map_err(words)?;
    let mut rows = Vec::with_capacity(count);
    while rows.len() < count {
        let batch = consumer.next().await.ok_or("the consumer ended")?.map_err(words)?;
        for record in &batch {
            let mut headers = Vec::new();
            for (name, value) in record.headers().strings() {
                headers.push((name.map_err(words)?.to_owned(), value.map(<[u8]>::to_vec)));
            }
            rows.push(Row {
                partition: batch.partition(),
                offset: record.offset(),
                key: record.key().map(<[u8]>::to_vec),
                value: record.value().map(<[u8]>::to_vec),
                headers,
            });
        }
    }
    Ok(rows)
}

/// An interop tool of another language: `X write BOOTSTRAP TOPIC FILE CODEC` and
/// `X read BOOTSTRAP TOPIC COUNT FILE`.
#[derive(Clone, Debug)]
pub struct Tool {
    argv: Vec<String>,
}

impl Tool {
    /// A tool by its command line, split at white space.
    pub fn new(command_line: &str) -> Option<Self> {
        let argv: Vec<String> = command_line.split_whitespace().map(str::to_owned).collect();
        (!argv.is_empty()).then_some(Self { argv })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).args(args);
        command
    }

    /// Writes records, by way of a file in `dir`.
    ///
    /// # Errors
    /// What the tool said.
    pub fn write(
        &self,
        bootstrap: &str,
        topic: &str,
        rows: &[Row],
        codec: &str,
        dir: &Path,
    ) -> Result<()> {
        let file = dir.join("write.records");
        records::save(&file, rows).map_err(words)?;
        let file = file.display().to_string();
        process::run(
            self.command(&["write", bootstrap, topic, &file, codec]),
            &dir.join("write.out"),
        )
    }

    /// Reads records, by way of a file in `dir`.
    ///
    /// # Errors
    /// What the tool said.
    pub fn read(&self, bootstrap: &str, topic: &str, count: usize, dir: &Path) -> Result<Vec<Row>> {
        let file = dir.join("read.records");
        // What an earlier tool left must not pass for this one's.
        let _ = std::fs::remove_file(&file);
        let (count, name) = (count.to_string(), file.display().to_string());
        process::run(
            self.command(&["read", bootstrap, topic, &count, &name]),
            &dir.join("read.out"),
        )?;
        records::load(&file).map_err(words)
    }
}
