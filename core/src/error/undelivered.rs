//! The report on records that failed and whose deliveries nobody looked at.

use std::fmt;
use std::sync::Arc;

use super::{Error, ErrorKind, Inner};

/// Records that failed since the last report, and whose handles nobody has read. Told by
/// [`Producer::flush`](crate::Producer::flush) and [`Producer::close`](crate::Producer::close); a record
/// that was told of is not told again, nor is one whose failure was read.
#[derive(Clone, Debug)]
pub struct Undelivered {
    pub(crate) records: usize,
    pub(crate) first: Error,
    pub(crate) topics: Vec<Arc<str>>,
    pub(crate) more_topics: bool,
    pub(crate) retriable: bool,
    pub(crate) maybe_written: bool,
}

impl Undelivered {
    /// Topics that are named at most.
    pub(crate) const MOST_TOPICS: usize = 16;

    /// How many records failed.
    pub fn records(&self) -> usize {
        self.records
    }

    /// The error of the record that failed first.
    pub fn first_error(&self) -> &Error {
        &self.first
    }

    /// The topics they were for, 16 at most.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(|topic| &**topic)
    }

    /// Whether there are topics that [`topics`](Self::topics) does not name.
    pub fn has_more_topics(&self) -> bool {
        self.more_topics
    }
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n, s) = (self.records, if self.records == 1 { "" } else { "s" });
        write!(f, "{n} record{s} failed and nobody had looked at the outcome, in topic")?;
        f.write_str(if self.topics.len() == 1 && !self.more_topics { " " } else { "s " })?;
        for (i, topic) in self.topics.iter().enumerate() {
            write!(f, "{}'{topic}'", if i == 0 { "" } else { ", " })?;
        }
        if self.more_topics {
            f.write_str(" and others")?;
        }
        write!(f, "; the first: {}", self.first.message())
    }
}

impl From<Undelivered> for Error {
    /// As an error of its own: retriable, or perhaps written, if any of the records is.
    fn from(lost: Undelivered) -> Self {
        let inner = Inner {
            kind: ErrorKind::Undelivered,
            message: lost.to_string(),
            broker_code: lost.first.broker_code(),
            retriable: lost.retriable,
            fatal: false,
            advice: None,
            maybe_written: lost.maybe_written,
            undelivered: Some(Box::new(lost)),
            unreadable: None,
        };
        Self(Arc::new(inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_many_is_what_any_of_them_is() {
        for (retriable, maybe_written, more_topics) in
            [(false, false, false), (true, false, true), (false, true, true), (true, true, false)]
        {
            let first = Error::new(ErrorKind::RecordTooLarge, "one was too large");
            let topics = vec![Arc::from("a")];
            let lost =
                Undelivered { records: 3, first, topics, more_topics, retriable, maybe_written };
            let error = Error::from(lost);
            assert_eq!((error.is_retriable(), error.maybe_written()), (retriable, maybe_written));
            assert_eq!(error.message().contains("'a' and others"), more_topics, "{error}");
            assert!(error.message().contains("3 records failed"), "{error}");
        }
    }
}
