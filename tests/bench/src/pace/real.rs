//! What many clients cost a real broker, in their default settings: `cargo xtask bench pace --real`. So many
//! processes of one client send so many records a second each; the time that the broker's process takes is
//! read while all of them are in their steady state. The clients take turns on one broker.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use ottla_bench::{TOPIC, machine};
use ottla_report::print;
use ottla_test_kafka::{Cluster, Options};

use super::{Paced, Task};
use crate::args::Args;
use crate::report::{hundredths, told};
use crate::worker::Client;

/// How many clients, and records a second of each.
const FLEETS: [(usize, u64); 2] = [(4, 1_000), (40, 100)];
/// For how long it is looked at when nobody asks.
const IDLE: Duration = Duration::from_secs(5);

/// What one client's processes came to.
struct Row {
    count: usize,
    rate: u64,
    client: Client,
    /// Processors that the broker kept busy.
    cores: f64,
    /// Of every process the median.
    paced: Paced,
}

pub(crate) fn measure(args: &Args, clients: &[Client]) -> Result<(), String> {
    let options = Options { brokers: 1, heap_mib: 1024, measured: true, ..Options::default() };
    let cluster = Cluster::start(options).map_err(|e| e.to_string())?;
    let topic = ["--create", "--topic", TOPIC, "--partitions", "12", "--replication-factor", "1"];
    let topic = [&["--bootstrap-server", cluster.bootstrap()][..], &topic].concat();
    let mut tool = cluster.run_tool("org.apache.kafka.tools.TopicCommand", &topic);
    let status = tool.stdout(Stdio::null()).status().map_err(|e| e.to_string())?;
    if !status.success() {
        return Err(format!("creating the topic ended with {status}"));
    }
    cluster.wait_in_sync(&[TOPIC]).map_err(|e| e.to_string())?;
    let broker = cluster.broker_pid(1).map_err(|e| e.to_string())?;
    // Java compiles what is asked for often.
    for client in clients {
        fleet(&cluster, broker, (4, 1_000), *client)?;
    }
    let (cpu, begun) = (machine::cpu_time_of(broker), Instant::now());
    std::thread::sleep(IDLE);
    let idle = (machine::cpu_time_of(broker) - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    let mut rows = Vec::new();
    for of in FLEETS {
        let mut all: Vec<Vec<Row>> = clients.iter().map(|_| Vec::new()).collect();
        for _ in 0..args.rounds() {
            for (client, all) in clients.iter().zip(&mut all) {
                all.push(fleet(&cluster, broker, of, *client)?);
            }
        }
        for mut all in all {
            all.sort_by(|a, b| a.cores.total_cmp(&b.cores));
            rows.push(all.swap_remove(all.len() / 2));
        }
    }
    report(args.json, idle, &rows)
}

fn fleet(
    cluster: &Cluster,
    broker: u32,
    (count, rate): (usize, u64),
    client: Client,
) -> Result<Row, String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find itself: {e}"))?;
    let mut processes: Vec<(Child, Lines<BufReader<ChildStdout>>)> = Vec::new();
    for _ in 0..count {
        let mut child = Command::new(&program)
            .args(["paced", &Task::Rate(rate).arg(), client.name(), cluster.bootstrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start its process: {e}"))?;
        let out = child.stdout.take().ok_or("its process has no output")?;
        processes.push((child, BufReader::new(out).lines()));
    }
    let line = |lines: &mut Lines<BufReader<ChildStdout>>| {
        let line = lines.next().ok_or("a process ended early")?;
        line.map_err(|e| e.to_string())
    };
    for (_, lines) in &mut processes {
        line(lines)?;
    }
    let (cpu, begun) = (machine::cpu_time_of(broker), Instant::now());
    let (mut all, mut cores) = (Vec::new(), None);
    for (_, lines) in &mut processes {
        let text = line(lines)?;
        // Until the first of them ends.
        cores.get_or_insert_with(|| {
            let used = machine::cpu_time_of(broker) - cpu;
            used.as_secs_f64() / begun.elapsed().as_secs_f64()
        });
        all.push(serde_json::from_str(&text).map_err(|_| format!("printed '{text}'"))?);
    }
    for (mut child, _) in processes {
        child.wait().map_err(|e| e.to_string())?;
    }
    let cores = cores.ok_or("there is no process")?;
    Ok(Row { count, rate, client, cores, paced: Paced::median(&all) })
}

fn report(json: bool, idle: f64, rows: &[Row]) -> Result<(), String> {
    if !json {
        println!("a broker that nobody asks keeps {idle:.3} processors busy");
        println!(
            "{:>8} {:>6}  {:<8} {:>7} {:>16} {:>16} {:>8} {:>8}",
            "clients",
            "each/s",
            "",
            "cores",
            "broker, us each",
            "client, us each",
            "p50, ms",
            "p99, ms"
        );
    }
    let mut text = String::new();
    for Row { count, rate, client, cores, paced } in rows {
        let broker_us = cores * 1e6 / (*count as f64 * *rate as f64);
        if json {
            let figures = [
                ("broker_cores", hundredths(*cores), "cores"),
                ("broker_us", broker_us.round(), "us"),
                ("cpu_us", paced.cpu_us.round(), "us"),
                ("ack_p50_us", paced.p50_us.round(), "us"),
                ("ack_p99_us", paced.p99_us.round(), "us"),
            ];
            for (name, value, unit) in figures {
                let name = format!("real_{count}_clients_{rate}_each_{name}");
                text += &told(name, *client, value, unit);
            }
        } else {
            text += &format!(
                "{count:>8} {rate:>6}  {:<8} {cores:>7.3} {broker_us:>16.1} {:>16.1} {:>8.2} {:>8.2}\n",
                client.name(),
                paced.cpu_us,
                paced.p50_us / 1_000.0,
                paced.p99_us / 1_000.0
            );
        }
    }
    print(&text)
}
