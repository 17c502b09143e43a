//! A cluster of real brokers, and the faults a test can give it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::error::{Context, Error, Result};
use crate::node::{self, Node};
use crate::probe;
use crate::python::Python;
use crate::state::State;
use crate::supervisor::Supervisor;
use crate::{BOOTSTRAP_VAR, DEFAULT_VERSION, HERMETIC_VAR, STATE_VAR, jars, java};

/// Three brokers take some 12 s on two idle cores; the rest is for a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(180);

/// A broker that is told to end moves its leaders first.
const STOP_DEADLINE: Duration = Duration::from_secs(90);

/// Between the moment a port is found free and the broker's bind somebody else may take it.
const START_TRIES: u32 = 3;

/// What kind of cluster to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many brokers, from 1; each is a controller too. Default 3.
    pub brokers: u32,
    /// A release of [`jars::versions`]. Default [`DEFAULT_VERSION`].
    pub version: String,
    /// Java heap of each broker, in MiB. Default 512.
    pub heap_mib: u32,
    /// Java as in production, for figures of what a broker costs: it takes longer to start and to
    /// get warm, and more of the machine. Default: no.
    pub measured: bool,
    /// Use nothing of the machine but Python. Default: whether `OTTLA_HERMETIC` is 1.
    pub hermetic: bool,
    /// More lines for each broker's properties; they win over what stands there.
    pub properties: BTreeMap<String, String>,
    /// More arguments for `StorageTool format`, such as `--add-scram …`.
    pub format: Vec<String>,
    /// Ports of a relay on 127.0.0.1, one for each broker in order of id: each gets a second
    /// listener, whose clients are told these. Tools, other brokers and [`Cluster::bootstrap`]
    /// keep to the first. Default none.
    pub advertise: Vec<u16>,
    /// Name (capital letters) and protocol of more listeners of each broker, such as `SECURE` and
    /// `SASL_SSL`: see [`Cluster::listener`]. Their settings are properties. Default none.
    pub listeners: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            brokers: 3,
            version: DEFAULT_VERSION.to_owned(),
            heap_mib: 512,
            measured: false,
            hermetic: std::env::var(HERMETIC_VAR).is_ok_and(|v| v == "1"),
            properties: BTreeMap::new(),
            format: Vec::new(),
            advertise: Vec::new(),
            listeners: Vec::new(),
        }
    }
}

/// A running cluster. Dropping it ends its brokers and removes their data.
#[derive(Debug)]
pub struct Cluster {
    state: State,
    pids: Mutex<BTreeMap<u32, u32>>,
    // None for a cluster that somebody else started.
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    supervisor: Supervisor,
    nodes: Vec<Node>,
    flags: Vec<String>,
}

impl Cluster {
    /// Starts a cluster and waits until every broker knows all others and the controller.
    ///
    /// A first call fetches Kafka (56 MB), and Java (35 MB) where the machine has none. Whatever
    /// happens to this process, the brokers end with it.
    pub fn start(options: Options) -> Result<Self> {
        if options.brokers == 0 {
            return Err(Error::new("a cluster needs at least one broker"));
        }
        let python = Python::find()?;
        let libs = jars::provide(&python, &options.version)?;
        let java = java::find(&python, options.hermetic)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let started = Self::start_once(&python, &libs, &java, &options);
            match started {
                Err(e) if tries < START_TRIES && e.to_string().contains("BindException") => {}
                other => return other,
            }
        }
    }

    /// The cluster of the whole test run where there is one (`OTTLA_KAFKA_BOOTSTRAP`), else a new
    /// one with default [`Options`]. It cannot be told to break brokers: other tests use it too.
    pub fn shared() -> Result<Self> {
        let Ok(bootstrap) = std::env::var(BOOTSTRAP_VAR) else {
            return Self::start(Options::default());
        };
        let state = match std::env::var_os(STATE_VAR) {
            Some(path) => State::read(Path::new(&path))?,
            None => {
                // Somebody's own cluster, known by address alone: its tools come from here.
                let options = Options::default();
                let python = Python::find()?;
                State {
                    bootstrap: String::new(),
                    libs: jars::provide(&python, &options.version)?,
                    java: java::find(&python, options.hermetic)?,
                    version: options.version,
                    dir: PathBuf::new(),
                    pids: BTreeMap::new(),
                    supervisor: 0,
                }
            }
        };
        let pids = Mutex::new(state.pids.clone());
        Ok(Self { state: State { bootstrap, ..state }, pids, own: None })
    }

    fn start_once(python: &Python, libs: &Path, java: &Path, options: &Options) -> Result<Self> {
        let seed = fresh_seed();
        let dir =
            std::env::temp_dir().join(format!("ottla-kafka-{}-{seed:08x}", std::process::id()));
        fs::create_dir(&dir).context(format!("creating {}", dir.display()))?;
        // From here on the folder is removed with the supervisor.
        let supervisor = Supervisor::start(python, &dir)?;
        let nodes =
            node::lay_out(&dir, options.brokers, seed, &options.advertise, &options.listeners)?;
        for node in &nodes {
            fs::create_dir(&node.dir).context("creating a node's folder")?;
            fs::write(node.properties_path(), node.properties(&nodes, &options.properties))
                .context("writing node.properties")?;
        }
        fs::write(dir.join("log4j.properties"), node::LOG4J_PROPERTIES).context("writing")?;
        let mut state = State {
            bootstrap: String::new(),
            version: options.version.clone(),
            java: java.to_owned(),
            libs: libs.to_owned(),
            dir,
            pids: BTreeMap::new(),
            supervisor: supervisor.pid(),
        };
        let addresses: Vec<_> = nodes.iter().map(|n| format!("127.0.0.1:{}", n.port)).collect();
        state.bootstrap = addresses.join(",");
        format_storage(&state, &nodes, &options.format)?;

        let flags = node::java_flags(&options.version, options.heap_mib, options.measured);
        let own = Own { supervisor, nodes, flags };
        let mut cluster = Self { state, pids: Mutex::default(), own: Some(own) };
        let ids: Vec<u32> = (1..=options.brokers).collect();
        // All before waiting for any: a quorum needs more than one of them.
        for &id in &ids {
            cluster.launch(id)?;
        }
        cluster.wait_ready(&ids, ids.len())?;
        let pids = cluster.lock_pids().clone();
        cluster.state.pids = pids;
        Ok(cluster)
    }

    /// `host:port` of each broker, with commas.
    pub fn bootstrap(&self) -> &str {
        &self.state.bootstrap
    }

    /// What another process needs to use this cluster through `OTTLA_KAFKA_STATE`.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Ids of the brokers of a cluster started here, running or not.
    pub fn ids(&self) -> Vec<u32> {
        self.own.iter().flat_map(|own| own.nodes.iter().map(|node| node.id)).collect()
    }

    /// `host:port` of one broker.
    pub fn address(&self, id: u32) -> Result<String> {
        Ok(format!("127.0.0.1:{}", self.node(id)?.port))
    }

    /// `host:port` of a listener of [`Options::listeners`].
    pub fn listener(&self, id: u32, name: &str) -> Result<String> {
        let listener = self.node(id)?.listeners.iter().find(|listener| listener.name == name);
        let listener =
            listener.ok_or_else(|| Error::new(format!("no listener is named {name}")))?;
        Ok(format!("127.0.0.1:{}", listener.port))
    }

    /// `host:port` that a relay in front of a broker connects to.
    pub fn behind_relay(&self, id: u32) -> Result<String> {
        let relayed = self.node(id)?.relayed.ok_or_else(|| {
            Error::new("this cluster knows of no relay; name its ports in Options::advertise")
        })?;
        Ok(format!("127.0.0.1:{}", relayed.port))
    }

    /// Process id of a broker; of its last process when it does not run.
    pub fn broker_pid(&self, id: u32) -> Result<u32> {
        self.lock_pids().get(&id).copied().ok_or_else(|| no_such_broker(id))
    }

    /// SIGKILL: it is gone at once, as by a power cut of one machine.
    pub fn kill(&self, id: u32) -> Result<()> {
        self.own()?.supervisor.signal(id, "SIGKILL")?;
        self.wait_exit(id)
    }

    /// SIGTERM: a clean shutdown, which moves its leaders first. Returns when it has ended.
    pub fn stop(&self, id: u32) -> Result<()> {
        self.own()?.supervisor.signal(id, "SIGTERM")?;
        self.wait_exit(id)
    }

    /// SIGSTOP: connections stay open and connects succeed, but nothing answers. Returns when all of
    /// its threads have stopped: the signal is on its way when it is sent, and until it has reached
    /// every one of them the broker still answers.
    pub fn pause(&self, id: u32) -> Result<()> {
        self.own()?.supervisor.signal(id, "SIGSTOP")?;
        let tasks = PathBuf::from(format!("/proc/{}/task", self.broker_pid(id)?));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !all_stopped(&tasks) {
            if Instant::now() >= deadline {
                return Err(Error::new(format!("broker {id} goes on after SIGSTOP")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// SIGCONT: the end of [`Self::pause`].
    pub fn resume(&self, id: u32) -> Result<()> {
        self.own()?.supervisor.signal(id, "SIGCONT")
    }

    /// Starts a broker that was killed or stopped, on its own address and data, and waits for it.
    pub fn restart(&self, id: u32) -> Result<()> {
        self.launch(id)?;
        self.wait_ready(&[id], 1)
    }

    /// The same for all brokers at once, none of which runs: one alone has no quorum.
    pub fn restart_all(&self) -> Result<()> {
        let ids = self.ids();
        for &id in &ids {
            self.launch(id)?;
        }
        self.wait_ready(&ids, ids.len())
    }

    /// The partitions of a topic, as the first broker that answers knows them.
    pub fn partitions(&self, topic: &str) -> Result<Vec<probe::Partition>> {
        let mut last = Error::new("the cluster has no broker");
        for id in self.ids() {
            match probe::topics(self.node(id)?.port, &[topic]) {
                Ok(mut topics) => return Ok(topics.remove(topic).unwrap_or_default()),
                Err(e) => last = Error::new(format!("broker {id}: {e}")),
            }
        }
        Err(last)
    }

    /// Waits until every broker that runs knows a leader for each partition of these topics and all
    /// copies complete, and leads those that are its own: after a topic was made, or a broker has come back.
    pub fn wait_in_sync(&self, topics: &[&str]) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        for id in self.ids() {
            let port = self.node(id)?.port;
            loop {
                let whole = |p: &probe::Partition| p.leader >= 0 && p.in_sync == p.replicas;
                let known = probe::topics(port, topics);
                let known_whole = |topics: &BTreeMap<_, Vec<probe::Partition>>| {
                    topics.values().all(|all| !all.is_empty() && all.iter().all(whole))
                };
                if let Ok(topics) = &known
                    && known_whole(topics)
                    && probe::leads(port, &led_by(id, topics)).unwrap_or(false)
                {
                    break;
                }
                if self.own()?.supervisor.wait(id, Duration::from_millis(100))?.is_some() {
                    break;
                }
                if Instant::now() >= deadline {
                    let log = self.logs_tail(25);
                    return Err(Error::new(format!("broker {id} has {known:?}\n{log}")));
                }
            }
        }
        Ok(())
    }

    /// A command that runs a class of Kafka's tools, such as
    /// `org.apache.kafka.tools.VerifiableProducer`. The caller adds streams and runs it.
    pub fn run_tool(&self, class: &str, args: &[&str]) -> Command {
        self.state.tool(class, args)
    }

    /// The last `lines` of what each broker logged: what a failing test prints.
    pub fn logs_tail(&self, lines: usize) -> String {
        let Ok(own) = self.own() else { return String::new() };
        own.nodes.iter().map(|node| tail(&node.log_path(), lines)).collect()
    }

    /// Lets the brokers live until [`crate::supervisor::shutdown`] with this socket.
    pub fn detach(mut self, socket: &Path) -> Result<State> {
        match self.own.take() {
            Some(own) => own.supervisor.detach(socket).map(|()| self.state),
            None => Err(not_ours()),
        }
    }

    fn launch(&self, id: u32) -> Result<()> {
        let own = self.own()?;
        let node = self.node(id)?;
        let mut argv = vec![self.state.java.display().to_string()];
        argv.extend(own.flags.iter().cloned());
        argv.extend(["-cp".into(), self.state.class_path(), "kafka.Kafka".into()]);
        argv.push(node.properties_path().display().to_string());
        let pid = own.supervisor.spawn(id, &argv, &node.log_path())?;
        self.lock_pids().insert(id, pid);
        Ok(())
    }

    /// Until each of `ids` sees at least `brokers` brokers, itself among them, and a controller.
    fn wait_ready(&self, ids: &[u32], brokers: usize) -> Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        for &id in ids {
            let port = self.node(id)?.port;
            let mut last = String::new();
            loop {
                match probe::view(port) {
                    Ok(view)
                        if view.controller >= 0
                            && view.brokers.len() >= brokers
                            && view.brokers.iter().any(|&b| u32::try_from(b) == Ok(id)) =>
                    {
                        break;
                    }
                    Ok(view) => last = format!("it sees {view:?}"),
                    Err(e) => last = if last.is_empty() { e.to_string() } else { last },
                }
                let exit = self.own()?.supervisor.wait(id, Duration::from_millis(100))?;
                if exit.is_some() || Instant::now() >= deadline {
                    let how = exit.map_or(last, |code| format!("it ended with {code}"));
                    let log = self.logs_tail(25);
                    return Err(Error::new(format!("broker {id} is not ready: {how}\n{log}")));
                }
            }
        }
        Ok(())
    }

    fn wait_exit(&self, id: u32) -> Result<()> {
        match self.own()?.supervisor.wait(id, STOP_DEADLINE)? {
            Some(_) => Ok(()),
            None => Err(Error::new(format!(
                "broker {id} still runs {} s after it was told to end\n{}",
                STOP_DEADLINE.as_secs(),
                self.logs_tail(25)
            ))),
        }
    }

    fn own(&self) -> Result<&Own> {
        self.own.as_ref().ok_or_else(not_ours)
    }

    fn node(&self, id: u32) -> Result<&Node> {
        self.own()?.nodes.iter().find(|node| node.id == id).ok_or_else(|| no_such_broker(id))
    }

    fn lock_pids(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, u32>> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those of the partitions that this broker leads.
fn led_by(id: u32, topics: &BTreeMap<String, Vec<probe::Partition>>) -> BTreeMap<String, Vec<i32>> {
    let own = |all: &Vec<probe::Partition>| {
        all.iter().filter(|p| i64::from(p.leader) == i64::from(id)).map(|p| p.index).collect()
    };
    topics.iter().map(|(name, all)| (name.clone(), own(all))).collect()
}

fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    let last = all[all.len().saturating_sub(lines)..].join("\n");
    format!("--- {}\n{last}\n", path.display())
}

fn format_storage(state: &State, nodes: &[Node], more: &[String]) -> Result<()> {
    // Any 16 bytes in unpadded url-safe base64; the same for every node of a cluster.
    let id = format!("ottla{:017}", u64::from(fresh_seed()));
    let mut running = Vec::new();
    for node in nodes {
        let mut command = state.tool("kafka.tools.StorageTool", &["format", "-t", &id, "-c"]);
        command.arg(node.properties_path());
        if state.version.starts_with("4.1.") || state.version.starts_with("4.2.") {
            // Share groups are there but off by default in these two.
            command.args(["--feature", "share.version=1"]);
        }
        command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
        running.push(command.spawn().context(format!("starting {}", state.java.display()))?);
    }
    for child in running {
        let out = child.wait_with_output().context("formatting storage")?;
        if !out.status.success() {
            return Err(Error::new(format!(
                "formatting storage ended with {}:\n{}{}",
                out.status,
                String::from_utf8_lossy(&out.stdout),
                String::from_utf8_lossy(&out.stderr)
            )));
        }
    }
    Ok(())
}

fn fresh_seed() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.subsec_nanos() ^ std::process::id().rotate_left(16)
}

fn no_such_broker(id: u32) -> Error {
    Error::new(format!("the cluster has no broker {id}"))
}

fn not_ours() -> Error {
    Error::new("this cluster is shared with other tests; break one of your own: Cluster::start")
}

/// Whether every thread of a process is stopped, as Linux tells it; where nobody tells, what was sent
/// is believed.
fn all_stopped(tasks: &Path) -> bool {
    let Ok(tasks) = std::fs::read_dir(tasks) else { return true };
    tasks.flatten().all(|task| {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else { return true };
        // "pid (name) state ...", and a name may hold anything.
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 't']))
    })
}
