//! Settings of a member, and how what is done is committed.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::assignors::{Assignor, DEFAULT};
use crate::error::{Error, Result};

/// When what a group's consumer has handed out counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Commit {
    /// Once the next batch is asked for. What is done is committed every 5 s, when partitions are given up, and by a
    /// close. An error, a panic or a drop leaves the batch in hand undone.
    #[default]
    Marks,
    /// Once the application says so, in any order ([`Batch::ack`](crate::Batch::ack)): what is committed is the end of
    /// what is finished without a gap. When and where as with `Marks`. Of a partition 10,000 batches, or parts of them, may
    /// be handed out and not finished: then nothing more of it comes until there are no more than 7,500.
    Acked,
    /// As with `Marks`, but nothing is committed except by
    /// [`Consumer::commit`](crate::Consumer::commit).
    Manual,
    /// As with `Acked`, but nothing is committed except by
    /// [`Consumer::commit`](crate::Consumer::commit).
    ManualAcked,
}

impl Commit {
    const ALL: [Self; 4] = [Self::Marks, Self::Acked, Self::Manual, Self::ManualAcked];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Marks => "marks",
            Self::Acked => "acked",
            Self::Manual => "manual",
            Self::ManualAcked => "manual_acked",
        }
    }

    /// Whether nothing is committed but what is asked for.
    pub(crate) fn is_by_hand(self) -> bool {
        matches!(self, Self::Manual | Self::ManualAcked)
    }

    /// Whether what was handed out is done once the next is asked for.
    pub(crate) fn is_by_asking(self) -> bool {
        matches!(self, Self::Marks | Self::Manual)
    }
}

impl FromStr for Commit {
    type Err = Error;

    /// By its name.
    ///
    /// # Errors
    /// `Config` for another word.
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|commit| commit.name() == name).ok_or_else(|| {
            let words =
                format!("commit is '{name}'; it is one of marks, acked, manual and manual_acked");
            Error::config(words)
        })
    }
}

/// Which of Kafka's two protocols a member speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupProtocol {
    /// The next generation where the cluster has it (Kafka 4.0 or newer), unless the group has classic members now, or
    /// something is set that only the classic protocol has (assignors, the session timeout). Looked up at the first join.
    #[default]
    Auto,
    /// That of every broker: one of the members assigns.
    Classic,
    /// KIP-848: the coordinator assigns, and each member moves by itself. Joining so converts a classic group for all of
    /// its members where the brokers allow it (`group.consumer.migration.policy`), which is the default there.
    Next,
}

impl GroupProtocol {
    const ALL: [Self; 3] = [Self::Auto, Self::Classic, Self::Next];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Classic => "classic",
            Self::Next => "next",
        }
    }
}

impl FromStr for GroupProtocol {
    type Err = Error;

    /// By its name.
    ///
    /// # Errors
    /// `Config` for another word.
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.name() == name).ok_or_else(|| {
            let words = format!("group_protocol is '{name}'; it is one of auto, classic and next");
            Error::config(words)
        })
    }
}

/// What a member is made with.
#[derive(Clone, Debug)]
pub(crate) struct GroupConfig {
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) protocol: GroupProtocol,
    /// Of the classic protocol; `None`: nothing was said.
    pub(crate) assignors: Option<Vec<Assignor>>,
    /// Of the classic protocol; `None`: nothing was said.
    pub(crate) session_timeout: Option<Duration>,
    /// Of the next generation: the assignor of the coordinator.
    pub(crate) remote_assignor: Option<Arc<str>>,
    pub(crate) max_poll_interval: Duration,
    pub(crate) commit: Commit,
    pub(crate) commit_interval: Duration,
}

impl GroupConfig {
    pub(crate) fn new(id: String) -> Self {
        Self {
            id: Arc::from(id),
            instance_id: None,
            protocol: GroupProtocol::default(),
            assignors: None,
            session_timeout: None,
            remote_assignor: None,
            max_poll_interval: Duration::from_secs(300),
            commit: Commit::default(),
            commit_interval: Duration::from_secs(5),
        }
    }

    pub(crate) fn assignors(&self) -> &[Assignor] {
        self.assignors.as_deref().unwrap_or(&DEFAULT)
    }

    pub(crate) fn session_timeout(&self) -> Duration {
        self.session_timeout.unwrap_or(Duration::from_secs(45))
    }

    /// Something was set that only the classic protocol has.
    pub(crate) fn is_classic_only(&self) -> bool {
        self.assignors.is_some() || self.session_timeout.is_some()
    }

    pub(crate) fn check(&self) -> Result<()> {
        let range = |name: &str, value: Duration, least: Duration, most: Duration| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err(Error::config(format!("{name} is {value:?}; it must be {least:?} to {most:?}")))
        };
        let (second, day) = (Duration::from_secs(1), Duration::from_secs(86_400));
        if self.id.is_empty() {
            return Err(Error::config("settings of a member of a group, and no group").advise(
                "name the group, or leave out instance_id, group_protocol, session_timeout, \
                 max_poll_interval, assignors, remote_assignor, commit and commit_interval",
            ));
        }
        range("session_timeout", self.session_timeout(), second, day)?;
        range("max_poll_interval", self.max_poll_interval, second, day)?;
        range("commit_interval", self.commit_interval, Duration::from_millis(10), day)?;
        name("group", &self.id)?;
        self.instance_id.as_deref().map_or(Ok(()), |id| name("instance_id", id))?;
        self.remote_assignor.as_deref().map_or(Ok(()), |of| name("remote_assignor", of))?;
        if self.assignors().is_empty() {
            return Err(Error::config("assignors: none; name one, or leave the default"));
        }
        if self.protocol == GroupProtocol::Next && self.is_classic_only() {
            let words = "assignors and session_timeout are the classic protocol's, and group_protocol is next";
            return Err(Error::config(words).advise(
                "leave them out: the group's settings on the brokers decide \
                 (group.consumer.session.timeout.ms), and remote_assignor names who assigns",
            ));
        }
        if self.remote_assignor.is_some()
            && (self.protocol == GroupProtocol::Classic || self.is_classic_only())
        {
            let words =
                "remote_assignor is of the next generation, and this member is a classic one";
            return Err(Error::config(words)
                .advise("set group_protocol to next without assignors and session_timeout"));
        }
        Ok(())
    }
}

/// What brokers take as a group's or an instance's name.
fn name(what: &str, name: &str) -> Result<()> {
    const MOST: usize = 249;
    if name.is_empty() || name.len() > MOST {
        let words = format!("{what} '{name}' has {} bytes; 1 to {MOST} are taken", name.len());
        return Err(Error::config(words));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_protocol_is_refused_with_the_other() {
        let of = |change: fn(&mut GroupConfig)| {
            let mut config = GroupConfig::new("g".to_owned());
            change(&mut config);
            config.check().map_err(|error| error.to_string())
        };
        assert_eq!(of(|_| {}), Ok(()));
        assert_eq!(of(|c| c.assignors = Some(vec![Assignor::Sticky])), Ok(()));
        assert_eq!(of(|c| c.remote_assignor = Some(Arc::from("range"))), Ok(()));
        let next = of(|c| {
            c.protocol = GroupProtocol::Next;
            c.session_timeout = Some(Duration::from_secs(9));
        });
        assert!(next.unwrap_err().contains("session_timeout are the classic protocol's"));
        for both in [
            of(|c| {
                c.protocol = GroupProtocol::Classic;
                c.remote_assignor = Some(Arc::from("uniform"));
            }),
            of(|c| {
                c.assignors = Some(vec![Assignor::Range]);
                c.remote_assignor = Some(Arc::from("uniform"));
            }),
        ] {
            assert!(both.unwrap_err().contains("remote_assignor is of the next generation"));
        }
    }

    #[test]
    fn protocols_have_names() {
        for protocol in GroupProtocol::ALL {
            assert_eq!(protocol.name().parse::<GroupProtocol>().unwrap(), protocol);
        }
        let error = "consumer".parse::<GroupProtocol>().unwrap_err().to_string();
        assert!(error.contains("auto, classic and next"), "{error}");
    }
}
