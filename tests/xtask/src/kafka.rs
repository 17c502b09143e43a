//! `cargo xtask kafka`: real brokers for people.

use std::process::{Command, ExitStatus};

use ottla_test_kafka::{Cluster, DEFAULT_VERSION, Options, up};

/// What to do with a real cluster.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Action {
    /// Start a cluster that stays until `down`, and print its bootstrap string
    Up(Kind),
    /// End the cluster that `up` started
    Down,
    /// Run a command with a cluster of its own, named by OTTLA_KAFKA_BOOTSTRAP
    Run {
        #[command(flatten)]
        kind: Kind,
        /// The command and its arguments
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
}

/// Which cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Kind {
    /// How many brokers
    #[arg(long, default_value_t = 3)]
    brokers: u32,
    /// Kafka's version
    #[arg(long, default_value = DEFAULT_VERSION)]
    version: String,
    /// Use Java from the package registry, also where the machine has its own
    #[arg(long)]
    hermetic: bool,
}

impl Kind {
    fn options(self) -> Options {
        let default = Options::default();
        Options {
            brokers: self.brokers,
            version: self.version,
            hermetic: self.hermetic || default.hermetic,
            ..default
        }
    }
}

/// Does it; whether it went well.
pub(crate) fn run(action: Action) -> Result<bool, String> {
    match action {
        Action::Up(kind) => {
            let state = up::up(kind.options()).map_err(|e| e.to_string())?;
            println!("{}", state.bootstrap);
            Ok(true)
        }
        Action::Down => match up::down().map_err(|e| e.to_string())? {
            Some(state) => {
                println!("ended the cluster at {}", state.bootstrap);
                Ok(true)
            }
            None => {
                println!("no cluster is up");
                Ok(true)
            }
        },
        Action::Run { kind, command } => {
            let cluster = Cluster::start(kind.options()).map_err(|e| e.to_string())?;
            with(&cluster, &command).map(|status| status.success())
        }
    }
}

fn with(cluster: &Cluster, words: &[String]) -> Result<ExitStatus, String> {
    let (program, args) = words.split_first().ok_or("no command")?;
    let path = cluster.state().dir.join("state.json");
    cluster.state().write(&path).map_err(|e| e.to_string())?;
    Command::new(program)
        .args(args)
        .env(ottla_test_kafka::BOOTSTRAP_VAR, cluster.bootstrap())
        .env(ottla_test_kafka::STATE_VAR, path)
        .status()
        .map_err(|e| format!("cannot start {program}: {e}"))
}
