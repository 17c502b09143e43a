//! What each broker is told: `node.properties`, and how its Java is started.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, Result};

/// Largest record batch brokers take: 15 MB records with room for headers and framing.
pub const MAX_MESSAGE_BYTES: u32 = 20 * 1024 * 1024;

/// Ports are taken below the ranges from which systems hand out ports to connecting sockets
/// (32768 on Linux), so that no client's own end can land on one before the broker listens.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A listener behind a relay: clients are told the relay's port, the relay connects to this one.
#[derive(Debug, Clone, Copy)]
pub struct Relayed {
    /// Where the broker listens, on 127.0.0.1.
    pub port: u16,
    /// Where the relay listens.
    pub advertised: u16,
}

/// One more listener for clients.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name, of capital letters: `listener.name.NAME.` begins its properties, in small ones.
    pub name: String,
    /// Kafka's name for what is spoken there: `SASL_SSL`.
    pub protocol: String,
    /// Where it is, on 127.0.0.1.
    pub port: u16,
}

/// One broker, which is a controller too.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its id, from 1.
    pub id: u32,
    /// Where clients connect, on 127.0.0.1.
    pub port: u16,
    /// Where controllers talk to each other.
    pub controller_port: u16,
    /// A second listener for clients that come through a relay.
    pub relayed: Option<Relayed>,
    /// Listeners beside these.
    pub listeners: Vec<Listener>,
    /// Its folder: properties, logs and data.
    pub dir: PathBuf,
}

impl Node {
    /// The configuration file.
    pub fn properties_path(&self) -> PathBuf {
        self.dir.join("node.properties")
    }

    /// What the broker prints.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    /// Its configuration among `all`; `extra` has the last word.
    pub fn properties(&self, all: &[Node], extra: &BTreeMap<String, String>) -> String {
        let replicas = all.len().min(3);
        let min_isr = replicas.saturating_sub(1).max(1);
        let voters: Vec<String> = all
            .iter()
            .map(|node| format!("{}@127.0.0.1:{}", node.id, node.controller_port))
            .collect();
        let (port, controller) = (self.port, self.controller_port);
        let mut set: BTreeMap<String, String> = BTreeMap::new();
        let mut put = |name: &str, value: String| {
            set.insert(name.to_owned(), value);
        };
        put("process.roles", "broker,controller".into());
        put("node.id", self.id.to_string());
        put("controller.quorum.voters", voters.join(","));
        let mut listeners = format!("PLAIN://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
        let mut advertised = format!("PLAIN://127.0.0.1:{port}");
        let mut protocols = "PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
        if let Some(relayed) = self.relayed {
            listeners += &format!(",RELAYED://127.0.0.1:{}", relayed.port);
            advertised += &format!(",RELAYED://127.0.0.1:{}", relayed.advertised);
            protocols += ",RELAYED:PLAINTEXT";
        }
        for Listener { name, protocol, port } in &self.listeners {
            listeners += &format!(",{name}://127.0.0.1:{port}");
            advertised += &format!(",{name}://127.0.0.1:{port}");
            protocols += &format!(",{name}:{protocol}");
        }
        put("listeners", listeners);
        put("advertised.listeners", advertised);
        put("listener.security.protocol.map", protocols);
        put("inter.broker.listener.name", "PLAIN".into());
        put("controller.listener.names", "CONTROLLER".into());
        put("log.dirs", self.dir.join("data").display().to_string());
        put("broker.rack", format!("rack-{}", self.id));

        put("default.replication.factor", replicas.to_string());
        put("min.insync.replicas", min_isr.to_string());
        put("auto.create.topics.enable", "false".into());
        put("message.max.bytes", MAX_MESSAGE_BYTES.to_string());
        put("replica.fetch.max.bytes", MAX_MESSAGE_BYTES.to_string());

        for topic in ["offsets.topic", "transaction.state.log", "share.coordinator.state.topic"] {
            put(&format!("{topic}.replication.factor"), replicas.to_string());
            put(&format!("{topic}.num.partitions"), "8".into());
        }
        put("transaction.state.log.min.isr", min_isr.to_string());
        put("share.coordinator.state.topic.min.isr", min_isr.to_string());

        // A killed broker is fenced when its session ends: sooner than the default 9 s, yet longer
        // than a busy machine may keep a healthy broker from its heartbeat.
        put("broker.heartbeat.interval.ms", "1000".into());
        put("broker.session.timeout.ms", "6000".into());

        // Groups settle within a test.
        put("group.initial.rebalance.delay.ms", "0".into());
        put("group.min.session.timeout.ms", "1000".into());
        put("group.consumer.min.session.timeout.ms", "1000".into());
        put("group.consumer.session.timeout.ms", "6000".into());
        put("group.consumer.min.heartbeat.interval.ms", "200".into());
        put("group.consumer.heartbeat.interval.ms", "500".into());

        // Three brokers share a small machine with the tests.
        put("num.network.threads", "2".into());
        put("num.io.threads", "4".into());
        put("num.recovery.threads.per.data.dir", "1".into());
        put("log.cleaner.dedupe.buffer.size", (4 * 1024 * 1024).to_string());

        for (name, value) in extra {
            set.insert(name.clone(), value.clone());
        }
        set.iter().fold(String::new(), |mut text, (name, value)| {
            let _infallible = writeln!(text, "{name}={value}");
            text
        })
    }
}

/// Options of every JVM here: what is short-lived starts fast, what stays takes little. One that is
/// to be measured has the compilers and the collector that a broker has in production, as
/// `kafka-server-start.sh` sets them.
pub fn java_flags(version: &str, heap_mib: u32, measured: bool) -> Vec<String> {
    let mut flags =
        vec![format!("-Xmx{heap_mib}m"), "-Xshare:auto".into(), "-Djava.awt.headless=true".into()];
    flags.extend(match measured {
        false => ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"].map(str::to_owned),
        true => ["-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"].map(str::to_owned),
    });
    if version.starts_with("3.") {
        // 3.9 brings reload4j, which looks for a file on the class path.
        flags.push("-Dlog4j.configuration=log4j.properties".into());
    } else {
        flags.push("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".into());
        flags.push("-Dorg.slf4j.simpleLogger.showDateTime=true".into());
        flags.push("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS".into());
    }
    flags
}

/// For reload4j: warnings to standard error.
pub const LOG4J_PROPERTIES: &str = "log4j.rootLogger=WARN, stderr\n\
    log4j.appender.stderr=org.apache.log4j.ConsoleAppender\n\
    log4j.appender.stderr.target=System.err\n\
    log4j.appender.stderr.layout=org.apache.log4j.PatternLayout\n\
    log4j.appender.stderr.layout.ConversionPattern=%d{HH:mm:ss.SSS} %p %c: %m%n\n";

/// Lays out `count` nodes below `dir`, on ports that are free now. `advertise` names the ports of
/// relays, one for each node, or none; `listeners` name and protocol of more listeners.
pub fn lay_out(
    dir: &Path,
    count: u32,
    seed: u32,
    advertise: &[u16],
    listeners: &[(String, String)],
) -> Result<Vec<Node>> {
    if !advertise.is_empty() && advertise.len() != count as usize {
        return Err(Error::new(format!(
            "{count} brokers and {} ports of relays; give each broker one, or none at all",
            advertise.len()
        )));
    }
    let first = if advertise.is_empty() { 2 } else { 3 };
    let each = first + listeners.len();
    // Let go of before the brokers start, all at once: a port must not be found twice.
    let ports = numbers(&hold_ports(count as usize * each, seed)?)?;
    Ok((1..=count)
        .zip(ports.chunks_exact(each))
        .enumerate()
        .map(|(i, (id, ports))| Node {
            id,
            port: ports[0],
            controller_port: ports[1],
            relayed: advertise.get(i).map(|&advertised| Relayed { port: ports[2], advertised }),
            listeners: listeners
                .iter()
                .zip(&ports[first..])
                .map(|((name, protocol), &port)| Listener {
                    name: name.clone(),
                    protocol: protocol.clone(),
                    port,
                })
                .collect(),
            dir: dir.join(format!("node-{id}")),
        })
        .collect())
}

/// `wanted` listening sockets on 127.0.0.1 whose ports no connecting socket is given. Different
/// seeds begin at different places, so that two runs that start at the same moment do not reach for
/// the same ones.
pub fn hold_ports(wanted: usize, seed: u32) -> Result<Vec<TcpListener>> {
    let width = u32::from(PORTS.end - PORTS.start);
    let begin = seed.wrapping_mul(0x9E37_79B1) % width;
    let mut held = Vec::new();
    for step in 0..width {
        let offset = u16::try_from((begin + step) % width).expect("below the width of a u16 range");
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", PORTS.start + offset)) {
            held.push(listener);
            if held.len() == wanted {
                return Ok(held);
            }
        }
    }
    Err(Error::new(format!("no {wanted} free ports on 127.0.0.1 in {PORTS:?}")))
}

/// The ports of listening sockets.
pub fn numbers(held: &[TcpListener]) -> Result<Vec<u16>> {
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
    held.iter().map(port).collect::<std::io::Result<_>>().context("asking for a port")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(brokers: u32) -> String {
        let nodes = lay_out(Path::new("/d"), brokers, 7, &[], &[]).unwrap();
        let extra = BTreeMap::from([("broker.rack".to_owned(), "mine".to_owned())]);
        nodes[0].properties(&nodes, &extra)
    }

    #[test]
    fn three_brokers_replicate_and_one_stands_alone() {
        let three = properties(3);
        assert!(three.contains("\ndefault.replication.factor=3\n"));
        assert!(three.contains("\nmin.insync.replicas=2\n"));
        let one = properties(1);
        assert!(one.contains("\ndefault.replication.factor=1\n"));
        assert!(one.contains("\ntransaction.state.log.min.isr=1\n"));
    }

    #[test]
    fn extra_properties_have_the_last_word() {
        let text = properties(1);
        assert!(text.contains("\nbroker.rack=mine\n"));
        assert_eq!(text.matches("broker.rack").count(), 1);
    }

    #[test]
    fn clients_behind_a_relay_are_told_its_port_and_brokers_are_not() {
        let nodes = lay_out(Path::new("/d"), 2, 7, &[11, 12], &[]).unwrap();
        let text = nodes[1].properties(&nodes, &BTreeMap::new());
        let (plain, behind) = (nodes[1].port, nodes[1].relayed.unwrap().port);
        let advertised = format!("PLAIN://127.0.0.1:{plain},RELAYED://127.0.0.1:12");
        assert!(text.contains(&format!("advertised.listeners={advertised}\n")), "{text}");
        assert!(text.contains(&format!(",RELAYED://127.0.0.1:{behind}\n")), "{text}");
        assert!(text.contains("\ninter.broker.listener.name=PLAIN\n"));
        let error = lay_out(Path::new("/d"), 2, 7, &[11], &[]).unwrap_err().to_string();
        assert!(error.contains("2 brokers and 1 ports"), "{error}");
    }

    #[test]
    fn each_broker_has_the_listeners_that_are_asked_for() {
        let more = [("SECURE".to_owned(), "SASL_SSL".to_owned())];
        let nodes = lay_out(Path::new("/d"), 2, 7, &[], &more).unwrap();
        let text = nodes[1].properties(&nodes, &BTreeMap::new());
        let secure = format!(",SECURE://127.0.0.1:{}", nodes[1].listeners[0].port);
        assert_eq!(text.matches(&secure).count(), 2, "it listens there, and says so: {text}");
        assert!(text.contains(",SECURE:SASL_SSL\n"), "{text}");
        assert_ne!(nodes[0].listeners[0].port, nodes[1].listeners[0].port);
    }

    #[test]
    fn ports_are_all_different() {
        let mut ports = numbers(&hold_ports(12, 3).unwrap()).unwrap();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 12);
    }
}
