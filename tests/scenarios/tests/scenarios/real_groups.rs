//! Members of this client beside Java's in one group on real brokers: each leads once, members come, go and are killed,
//! and every record is handled, by one of them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::{Assignor, Client, NewTopic, Record};
use ottla_scenarios::wait::{until, within};
use ottla_test_kafka::{Cluster, Options};
use tokio::task::JoinHandle;

const PARTITIONS: i32 = 6;
/// Records of each partition that are written in about a second.
const RECENT: usize = 50;

/// Which protocol all speak.
#[derive(Clone, Copy)]
enum Kind {
    /// With an assignor, and Java's class of it.
    Classic(Assignor, &'static str),
    /// KIP-848, which ours find out by themselves.
    Next,
}

/// Who has handled each record, and how often.
type Handled = Arc<Mutex<BTreeMap<(i32, i64), Vec<&'static str>>>>;

/// Java's consumer, which says what it does.
struct Java {
    child: Child,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Java {
    fn join(cluster: &Cluster, topic: &str, kind: Kind, handled: &Handled) -> Self {
        let args =
            ["--bootstrap-server", cluster.bootstrap(), "--topic", topic, "--group-id", topic];
        let args = [&args[..], &["--reset-policy", "earliest"]].concat();
        let class = "org.apache.kafka.tools.VerifiableConsumer";
        let mut command: Command = match kind {
            Kind::Classic(_, strategy) => {
                let strategy = format!("org.apache.kafka.clients.consumer.{strategy}");
                let more = ["--session-timeout", "6000", "--group-protocol", "classic"];
                let by = ["--assignment-strategy", &strategy];
                cluster.run_tool(class, &[&args[..], &more, &by].concat())
            }
            Kind::Next => {
                cluster.run_tool(class, &[&args[..], &["--group-protocol", "consumer"]].concat())
            }
        };
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let handled = Arc::clone(handled);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
                if event["name"] != "records_consumed" {
                    continue;
                }
                for part in event["partitions"].as_array().unwrap() {
                    let number = |name: &str| part[name].as_i64().unwrap();
                    let partition = i32::try_from(number("partition")).unwrap();
                    let mut handled = handled.lock().unwrap();
                    for offset in number("minOffset")..=number("maxOffset") {
                        handled.entry((partition, offset)).or_default().push("java");
                    }
                }
            }
        });
        Self { child, reader: Some(reader) }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.wait();
    }

    /// It commits and leaves.
    fn close(mut self) {
        let id = i32::try_from(self.child.id()).unwrap();
        let done = Command::new("kill").args(["-TERM", &id.to_string()]).status().unwrap();
        assert!(done.success());
        self.wait();
    }

    fn wait(&mut self) {
        self.child.wait().unwrap();
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
    }
}

impl Drop for Java {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

/// One of ours, until it is told to close.
fn ours(
    client: &Client,
    topic: &str,
    kind: Kind,
    who: &'static str,
    handled: &Handled,
) -> (Arc<AtomicBool>, JoinHandle<()>) {
    let builder = client.consumer().group(topic).topics([topic]);
    let builder = match kind {
        Kind::Classic(assignor, _) => {
            builder.assignors([assignor]).session_timeout(Duration::from_secs(6))
        }
        Kind::Next => builder,
    };
    let mut consumer = builder.build().unwrap();
    let (stop, handled) = (Arc::new(AtomicBool::new(false)), Arc::clone(handled));
    let is_stopped = Arc::clone(&stop);
    let task = tokio::spawn(async move {
        while !is_stopped.load(Ordering::Relaxed) {
            // A wait that is given up loses nothing.
            let next = tokio::time::timeout(Duration::from_millis(100), consumer.next()).await;
            let Ok(next) = next else { continue };
            let batch = next.expect("it is open").expect("no error");
            let mut handled = handled.lock().unwrap();
            for record in &batch {
                handled.entry((batch.partition(), record.offset())).or_default().push(who);
            }
        }
        // What is in hand is finished: it says so by asking once more.
        let _ = consumer.try_next();
        consumer.close().await.unwrap();
    });
    (stop, task)
}

/// Partitions of which somebody has handled one of the last records.
fn reads(handled: &Handled, who: &str, since: usize) -> usize {
    let handled = handled.lock().unwrap();
    let mut of: Vec<i32> = Vec::new();
    for ((partition, offset), by) in handled.iter() {
        if *offset >= since as i64 && by.contains(&who) {
            of.push(*partition);
        }
    }
    of.dedup();
    of.len()
}

/// Writes to all partitions in turn until it is stopped. Gives how many each has.
struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(client: &Client, topic: &str) -> Self {
        let producer = client.producer().build().unwrap();
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
        let (is_stopped, count, topic) =
            (Arc::clone(&stop), Arc::clone(&written), topic.to_owned());
        let task = tokio::spawn(async move {
            while !is_stopped.load(Ordering::Relaxed) {
                let mut sent = Vec::new();
                for partition in 0..PARTITIONS {
                    let record = Record::to(topic.as_str()).partition(partition).value("x");
                    sent.push(producer.send(record).await.unwrap());
                }
                for ack in sent {
                    ack.await.unwrap();
                }
                *count.lock().unwrap() += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { stop, written, task }
    }

    fn count(&self) -> usize {
        *self.written.lock().unwrap()
    }

    async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let written = self.written.lock().unwrap();
        *written
    }
}

async fn share(cluster: &Cluster, topic: &str, kind: Kind) {
    let client = Client::connect(cluster.bootstrap()).await.unwrap();
    client.admin().create_topic(NewTopic::new(topic, PARTITIONS, 3)).await.unwrap();
    let handled = Handled::default();
    let writer = Writer::start(&client, topic);
    // Of the last second: who has other partitions now has still read of those that it had.
    let (writes, reads_now) = (&writer, &handled);
    let part = |who: &'static str, count: usize| async move {
        let what = format!("{who} reads {count} partitions");
        let recent = || writes.count().saturating_sub(RECENT);
        until(&what, || reads(reads_now, who, recent()) == count).await;
    };
    // Java leads, ours come.
    let java = Java::join(cluster, topic, kind, &handled);
    part("java", 6).await;
    let (stop_a, a) = ours(&client, topic, kind, "a", &handled);
    part("a", 3).await;
    let (stop_b, b) = ours(&client, topic, kind, "b", &handled);
    part("b", 2).await;
    part("java", 2).await;
    // Its partitions are read by ours once its session is over; what it had not committed is read again.
    java.kill();
    part("a", 3).await;
    part("b", 3).await;
    // Ours lead, Java comes; one of ours goes.
    let java = Java::join(cluster, topic, kind, &handled);
    part("java", 2).await;
    stop_a.store(true, Ordering::Relaxed);
    within("a close", a).await.unwrap();
    part("java", 3).await;
    part("b", 3).await;
    let written = writer.stop().await;
    until("all is handled", || handled.lock().unwrap().len() == written * PARTITIONS as usize)
        .await;
    stop_b.store(true, Ordering::Relaxed);
    within("a close", b).await.unwrap();
    let twice: Vec<_> = {
        let handled = handled.lock().unwrap();
        let twice = handled.iter().filter(|(_, by)| by.len() > 1);
        twice.map(|(at, by)| (*at, by.clone())).collect()
    };
    // Only what the killed one had not committed (it commits behind each poll), or was told of and lost.
    assert!(twice.len() < 200, "{} of {written}: {:?}", twice.len(), &twice[..5]);
    assert!(twice.iter().all(|(_, by)| by.contains(&"java")), "{twice:?}");
    java.close();
    let args = ["--bootstrap-server", cluster.bootstrap(), "--describe", "--group", topic];
    let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    let told = cluster.run_tool(class, &args).output().unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let lags: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with(topic))
        .map(|line| line.split_whitespace().nth(5).unwrap())
        .collect();
    assert_eq!(lags, ["0"; PARTITIONS as usize], "{told}");
}

fn run(kind: Kind, topic: &str) {
    let cluster = Cluster::start(Options::default()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(share(&cluster, topic, kind));
}

#[test]
fn real_groups_with_java_cooperative() {
    run(Kind::Classic(Assignor::CooperativeSticky, "CooperativeStickyAssignor"), "cooperative");
}

#[test]
fn real_groups_with_java_eager() {
    run(Kind::Classic(Assignor::Range, "RangeAssignor"), "range");
}

#[test]
fn real_groups_with_java_next() {
    run(Kind::Next, "next");
}
