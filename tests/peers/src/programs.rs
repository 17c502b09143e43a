//! How a member of each client is started: a process with the arguments of Kafka's `VerifiableConsumer`.

use std::path::{Path, PathBuf};
use std::process::Command;

use ottla_test_kafka::State;

/// Whose member it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// This client.
    Ours,
    /// Kafka's own.
    Java,
    /// librdkafka, through Python.
    Librdkafka,
    /// franz-go.
    FranzGo,
    /// sarama.
    Sarama,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Ours, Self::Java, Self::Librdkafka, Self::FranzGo, Self::Sarama];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Java => "java",
            Self::Librdkafka => "librdkafka",
            Self::FranzGo => "franz-go",
            Self::Sarama => "sarama",
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The variable with the command of a client that is not written in Rust.
    fn variable(self) -> Option<&'static str> {
        match self {
            Self::Ours | Self::Java => None,
            Self::Librdkafka => Some("OTTLA_PEER_LIBRDKAFKA"),
            Self::FranzGo => Some("OTTLA_PEER_FRANZ_GO"),
            Self::Sarama => Some("OTTLA_PEER_SARAMA"),
        }
    }
}

/// What all members of a group speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Classic and eager.
    Range,
    /// Classic and cooperative.
    Cooperative,
    /// KIP-848.
    Next,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Range, Self::Cooperative, Self::Next];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Range => "range",
            Self::Cooperative => "cooperative-sticky",
            Self::Next => "next",
        }
    }

    /// By its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name)
    }

    /// Whether who stays keeps what it has as far as that goes.
    pub fn is_sticky(self) -> bool {
        self != Self::Range
    }

    /// Its arguments.
    fn args(self, kind: Kind) -> Vec<String> {
        let (name, class) = match self {
            Self::Range => ("range", "RangeAssignor"),
            Self::Cooperative => ("cooperative-sticky", "CooperativeStickyAssignor"),
            Self::Next => return vec!["--group-protocol".into(), "consumer".into()],
        };
        let strategy = match kind {
            Kind::Java | Kind::Ours => format!("org.apache.kafka.clients.consumer.{class}"),
            _ => name.to_owned(),
        };
        let timeout = SESSION.as_millis().to_string();
        let args = ["--session-timeout", &timeout, "--assignment-strategy", &strategy];
        args.map(str::to_owned).to_vec()
    }
}

/// Of classic members; brokers of these tests have the same for those of the next generation.
pub const SESSION: std::time::Duration = std::time::Duration::from_secs(6);

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Folder of this package's own.
    own: PathBuf,
    /// What runs Kafka's tools, where there are real brokers.
    kafka: Option<State>,
}

/// What a member is started with.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The brokers.
    pub bootstrap: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// The group.
    pub group: &'a str,
    /// The protocol.
    pub protocol: Protocol,
}

impl Programs {
    /// With this package's own in the folder of one of them.
    pub fn beside(one: &Path, kafka: Option<State>) -> Self {
        Self { own: one.parent().unwrap_or(one).to_owned(), kafka }
    }

    /// The kinds of which there is a program here.
    pub fn kinds(&self) -> Vec<Kind> {
        let there = |kind: &Kind| match kind.variable() {
            Some(variable) => std::env::var_os(variable).is_some(),
            None => *kind == Kind::Ours || self.kafka.is_some(),
        };
        Kind::ALL.into_iter().filter(there).collect()
    }

    /// The command of a member.
    ///
    /// # Errors
    /// There is no such program here.
    pub fn member(
        &self,
        kind: Kind,
        place: &Place<'_>,
        instance: Option<&str>,
    ) -> Result<Command, String> {
        let args = ["--bootstrap-server", place.bootstrap, "--topic", place.topic];
        let mut args =
            [&args[..], &["--group-id", place.group, "--reset-policy", "earliest"]].concat();
        if let Some(id) = instance {
            args.extend(["--group-instance-id", id]);
        }
        let of_protocol = place.protocol.args(kind);
        args.extend(of_protocol.iter().map(String::as_str));
        match (kind, kind.variable()) {
            (Kind::Java, _) => {
                let kafka = self.kafka.as_ref().ok_or("there is no Java without real brokers")?;
                Ok(kafka.tool("org.apache.kafka.tools.VerifiableConsumer", &args))
            }
            (_, Some(variable)) => {
                let line = std::env::var(variable).map_err(|_| {
                    format!("{variable} names no command of a member: `cargo xtask` sets it")
                })?;
                let mut words = line.split_whitespace();
                let mut command = Command::new(words.next().unwrap_or_default());
                command.args(words).args(args);
                Ok(command)
            }
            (_, None) => {
                let mut command = Command::new(self.own.join("verifiable-consumer"));
                command.args(args);
                Ok(command)
            }
        }
    }

    /// The command of who writes: growing numbers to all partitions, so many a second.
    pub fn producer(&self, bootstrap: &str, topic: &str, rate: u32) -> Command {
        let mut command = Command::new(self.own.join("verifiable-producer"));
        command.args(["--bootstrap-server", bootstrap, "--topic", topic]);
        // Keys go where their hash says: each partition has its share.
        command.args(["--throughput", &rate.to_string(), "--repeating-keys", "997"]);
        command
    }

    /// Kafka's tool that describes groups, where there are real brokers.
    pub fn describe(&self, bootstrap: &str, group: &str) -> Option<Command> {
        let args = ["--bootstrap-server", bootstrap, "--describe", "--group", group];
        let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        self.kafka.as_ref().map(|kafka| kafka.tool(class, &args))
    }
}
