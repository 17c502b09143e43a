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
    /// what is finished without a gap. When and where as with `Marks`.
    Acked,
    /// As with `Marks`, but nothing is committed except by
    /// [`Consumer::commit`](crate::Consumer::commit).
    Manual,
}

impl Commit {
    const ALL: [Self; 3] = [Self::Marks, Self::Acked, Self::Manual];

    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Marks => "marks",
            Self::Acked => "acked",
            Self::Manual => "manual",
        }
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
            Error::config(format!("commit is '{name}'; it is one of marks, acked and manual"))
        })
    }
}

/// What a member is made with.
#[derive(Clone, Debug)]
pub(crate) struct GroupConfig {
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) assignors: Vec<Assignor>,
    pub(crate) session_timeout: Duration,
    pub(crate) max_poll_interval: Duration,
    pub(crate) commit: Commit,
    pub(crate) commit_interval: Duration,
}

impl GroupConfig {
    pub(crate) fn new(id: String) -> Self {
        Self {
            id: Arc::from(id),
            instance_id: None,
            assignors: DEFAULT.to_vec(),
            session_timeout: Duration::from_secs(45),
            max_poll_interval: Duration::from_secs(300),
            commit: Commit::default(),
            commit_interval: Duration::from_secs(5),
        }
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
                "name the group, or leave out instance_id, session_timeout, max_poll_interval, \
                 assignors, commit and commit_interval",
            ));
        }
        range("session_timeout", self.session_timeout, second, day)?;
        range("max_poll_interval", self.max_poll_interval, second, day)?;
        range("commit_interval", self.commit_interval, Duration::from_millis(10), day)?;
        name("group", &self.id)?;
        self.instance_id.as_deref().map_or(Ok(()), |id| name("instance_id", id))?;
        if self.assignors.is_empty() {
            return Err(Error::config("assignors: none; name one, or leave the default"));
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
