//! What each language writes, each reads, on real brokers, equal to the byte.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ottla_scenarios::interop::{self, Tool};
use ottla_scenarios::records::{self, Row};
use ottla_scenarios::{console, process};
use ottla_test_kafka::Cluster;
use tokio::runtime::Runtime;

const RECORDS: usize = 100_000;
const PARTITIONS: i32 = 6;
/// Each writer writes a part of its records in each.
const CODECS: [&str; 5] = ["none", "lz4", "snappy", "gzip", "zstd"];

/// Languages whose tools are built elsewhere, and who says where they are.
const TOOLS: [(&str, &str); 3] =
    [("python", "OTTLA_INTEROP_PYTHON"), ("go", "OTTLA_INTEROP_GO"), ("c", "OTTLA_INTEROP_C")];

enum Side {
    Rust,
    Tool(Tool),
    Kafka,
}

struct Matrix {
    cluster: Cluster,
    runtime: Runtime,
    dir: PathBuf,
    sides: Vec<(&'static str, Side)>,
}

struct Cell {
    writer: &'static str,
    reader: &'static str,
    records: usize,
    seconds: f64,
    outcome: Result<(), String>,
}

#[test]
fn real_interop_matrix() {
    let mut sides = vec![("rust", Side::Rust)];
    let mut absent = Vec::new();
    for (name, variable) in TOOLS {
        match std::env::var(variable).ok().and_then(|line| Tool::new(&line)) {
            Some(tool) => sides.push((name, Side::Tool(tool))),
            None => absent.push(format!("{name} ({variable} is not set)")),
        }
    }
    let all = ["CI", "OTTLA_INTEROP_ALL"]
        .iter()
        .any(|v| std::env::var(v).is_ok_and(|set| set == "true" || set == "1"));
    assert!(!all || absent.is_empty(), "the matrix is not whole; absent: {}", absent.join(", "));
    sides.push(("kafka", Side::Kafka));

    let cluster = Cluster::shared().unwrap();
    let dir = std::env::temp_dir().join(format!("ottla-interop-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let runtime = Runtime::new().unwrap();
    let matrix = Matrix { cluster, runtime, dir, sides };
    let (writes, cells) = matrix.run();
    let _ = std::fs::remove_dir_all(&matrix.dir);
    println!("{}", table(&writes, &cells));
    for name in &absent {
        println!("absent: {name}");
    }
    let bad: Vec<String> = cells
        .iter()
        .filter_map(|c| {
            Some(format!("{} -> {}: {}", c.writer, c.reader, c.outcome.as_ref().err()?))
        })
        .collect();
    assert!(bad.is_empty(), "{}\n{}", bad.join("\n"), matrix.cluster.logs_tail(5));
}

impl Matrix {
    fn run(&self) -> (Vec<(&'static str, usize, f64)>, Vec<Cell>) {
        let (mut writes, mut cells) = (Vec::new(), Vec::new());
        for (number, (writer, side)) in self.sides.iter().enumerate() {
            let topic = format!("interop-{writer}-{}", std::process::id());
            let created = interop::create_topic(self.cluster.bootstrap(), &topic, PARTITIONS);
            self.runtime.block_on(created).unwrap();
            let begun = Instant::now();
            let written = match self.write(side, &topic, number as u64) {
                Ok(written) => written,
                Err(words) => {
                    let seconds = begun.elapsed().as_secs_f64();
                    let outcome = Err(format!("writing: {words}"));
                    cells.push(Cell { writer, reader: "-", records: 0, seconds, outcome });
                    continue;
                }
            };
            let bytes = written.iter().map(Row::size).sum();
            writes.push((*writer, bytes, begun.elapsed().as_secs_f64()));
            for (reader, other) in &self.sides {
                let begun = Instant::now();
                let read = self.read(other, &topic);
                let seconds = begun.elapsed().as_secs_f64();
                let records = read.as_ref().map_or(0, Vec::len);
                let outcome = read.and_then(|rows| records::compare(&written, &rows));
                cells.push(Cell { writer, reader, records, seconds, outcome });
            }
        }
        (writes, cells)
    }

    /// As many records with each codec; the bindings have two. Kafka's own producer writes numbers,
    /// plain.
    fn write(&self, side: &Side, topic: &str, seed: u64) -> interop::Result<Vec<Row>> {
        if matches!(side, Side::Kafka) {
            return console::write(&self.cluster, topic, RECORDS, &self.dir);
        }
        let rows = records::generate(RECORDS, seed);
        for (part, codec) in rows.chunks(RECORDS / CODECS.len()).zip(CODECS) {
            let bootstrap = self.cluster.bootstrap();
            match side {
                Side::Tool(tool) => tool.write(bootstrap, topic, part, codec, &self.dir)?,
                _ => {
                    let codec = codec.parse().map_err(|e: ottla::Error| e.to_string())?;
                    let write = interop::write(bootstrap, topic, part, codec);
                    self.within("writing", write)?;
                }
            }
        }
        Ok(rows)
    }

    fn read(&self, side: &Side, topic: &str) -> interop::Result<Vec<Row>> {
        let (bootstrap, dir): (&str, &Path) = (self.cluster.bootstrap(), &self.dir);
        match side {
            Side::Kafka => console::read(&self.cluster, topic, RECORDS, dir),
            Side::Tool(tool) => tool.read(bootstrap, topic, RECORDS, dir),
            Side::Rust => self.within("reading", interop::read(bootstrap, topic, RECORDS)),
        }
    }

    fn within<T>(
        &self,
        what: &str,
        future: impl Future<Output = interop::Result<T>>,
    ) -> interop::Result<T> {
        self.runtime.block_on(async {
            tokio::time::timeout(process::DEADLINE, future)
                .await
                .unwrap_or_else(|_| Err(format!("{what}: not done in {:?}", process::DEADLINE)))
        })
    }
}

fn table(writes: &[(&str, usize, f64)], cells: &[Cell]) -> String {
    let mut out = String::from("\n| writer | reader |  records | result | seconds |\n");
    out.push_str("|--------|--------|---------:|--------|--------:|\n");
    for cell in cells {
        let Cell { writer, reader, records, seconds, outcome } = cell;
        let result = if outcome.is_ok() { "equal" } else { "DIFFERS" };
        let _ =
            writeln!(out, "| {writer:6} | {reader:6} | {records:8} | {result:7}| {seconds:7.1} |");
    }
    for (writer, bytes, seconds) in writes {
        let mb = *bytes as f64 / 1e6;
        let _ = writeln!(out, "{writer} wrote {RECORDS} records, {mb:.1} MB, in {seconds:.1} s");
    }
    out
}
