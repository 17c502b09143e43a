//! What a pool logs, to `tracing` and to the readers of [`bindings::logs`](crate::bindings::logs). Every
//! event belongs to the pool's span, its target is the room of the crate that it is about
//! (`ottla::net`, `ottla::cluster`, `ottla::producer`, `ottla::consumer`), and no call site may flood:
//! see [`limited!`].
//!
//! A subscriber is foreign code: nobody logs while holding a lock.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::time::Instant;
use tracing::Span;

use crate::logs::{Log, LogLevel};
use crate::policy::log_limit::{Decision, LogLimit};

/// The pool's span and what each call site has said lately.
pub(crate) struct Logs {
    span: Span,
    /// Addresses of the bootstrap list: the span's words, for those who see no spans.
    bootstrap: String,
    /// By place in this crate's source: there are a few dozen.
    sites: Mutex<HashMap<&'static str, LogLimit>>,
}

impl Logs {
    pub(crate) fn new(span: Span, bootstrap: String) -> Self {
        Self { span, bootstrap, sites: Mutex::default() }
    }

    /// For lines that belong to no pool.
    pub(crate) fn none() -> Self {
        Self::new(Span::none(), String::new())
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Whether the call site may log now. For [`limited!`].
    pub(crate) fn decide(&self, site: &'static str) -> Decision {
        let mut sites = self.sites.lock().unwrap_or_else(|e| e.into_inner());
        sites.entry(site).or_default().decide(Instant::now())
    }
}

/// An event of the pool, as `tracing::event!` takes it: its target, its level, its fields and then
/// its text. `event!(logs, "ottla::net", WARN, broker = 3, "the broker is late")`.
macro_rules! event {
    ($logs:expr, $target:literal, $level:ident, $($event:tt)+) => {{
        let logs: &$crate::metrics::Logs = $logs;
        tracing::event!(
            target: $target, parent: logs.span(), tracing::Level::$level, $($event)+
        );
        let level = $crate::metrics::log_level!($level);
        if $crate::logs::wanted(level) {
            let mut line = $crate::logs::Log::new(level, $target);
            $crate::metrics::put_together!(line, $($event)+);
            if !logs.bootstrap().is_empty() {
                line.field("bootstrap", format_args!("{}", logs.bootstrap()));
            }
            $crate::logs::tell(line);
        }
    }};
}

/// The same unless this call site has said too much lately. The next one that passes carries
/// `suppressed`, the number of those that did not.
macro_rules! limited {
    ($logs:expr, $target:literal, $level:ident, $($event:tt)+) => {
        // Nothing is counted, and no lock taken, where nobody listens.
        if tracing::enabled!(target: $target, tracing::Level::$level)
            || $crate::logs::wanted($crate::metrics::log_level!($level))
        {
            use $crate::policy::log_limit::Decision;
            let logs: &$crate::metrics::Logs = $logs;
            match logs.decide(concat!(file!(), ":", line!())) {
                Decision::Pass { suppressed: 0 } => {
                    $crate::metrics::event!(logs, $target, $level, $($event)+);
                }
                Decision::Pass { suppressed } => {
                    $crate::metrics::event!(logs, $target, $level, suppressed, $($event)+);
                }
                Decision::Suppress => {}
            }
        }
    };
}

/// A warning that is told in any case: on the standard error stream, if the program listens to nothing.
/// For what is lost for good at the last moment at which anybody can say so.
macro_rules! loudly {
    ($logs:expr, $target:literal, $($event:tt)+) => {
        if $crate::metrics::somebody_listens() {
            $crate::metrics::event!($logs, $target, WARN, $($event)+);
        } else {
            use $crate::logs::{Log, LogLevel};
            let mut line = Log::new(LogLevel::Warn, $target);
            $crate::metrics::put_together!(line, $($event)+);
            $crate::metrics::say_aloud(&line);
        }
    };
}

/// Whether there is a subscriber of `tracing`, or a reader of [`bindings::logs`](crate::bindings::logs).
pub(crate) fn somebody_listens() -> bool {
    tracing::dispatcher::has_been_set() || crate::logs::wanted(LogLevel::Warn)
}

pub(crate) fn say_aloud(line: &Log) {
    use std::io::Write;
    // Nobody is left to tell that it could not be told.
    let _ = writeln!(std::io::stderr(), "ottla: {line}");
}

/// `tracing`'s name of a level as ours.
macro_rules! log_level {
    (ERROR) => {
        $crate::logs::LogLevel::Error
    };
    (WARN) => {
        $crate::logs::LogLevel::Warn
    };
    (INFO) => {
        $crate::logs::LogLevel::Info
    };
    (DEBUG) => {
        $crate::logs::LogLevel::Debug
    };
    (TRACE) => {
        $crate::logs::LogLevel::Trace
    };
}

/// Fields and text, as `tracing` writes them, into a [`Log`].
macro_rules! put_together {
    ($line:ident, $name:ident = %$value:expr, $($rest:tt)+) => {
        $line.field(stringify!($name), format_args!("{}", $value));
        $crate::metrics::put_together!($line, $($rest)+);
    };
    ($line:ident, $name:ident = ?$value:expr, $($rest:tt)+) => {
        $line.field(stringify!($name), format_args!("{:?}", $value));
        $crate::metrics::put_together!($line, $($rest)+);
    };
    ($line:ident, $name:ident = $value:expr, $($rest:tt)+) => {
        $line.field(stringify!($name), format_args!("{}", $value));
        $crate::metrics::put_together!($line, $($rest)+);
    };
    ($line:ident, %$name:ident, $($rest:tt)+) => {
        $crate::metrics::put_together!($line, $name = %$name, $($rest)+);
    };
    ($line:ident, ?$name:ident, $($rest:tt)+) => {
        $crate::metrics::put_together!($line, $name = ?$name, $($rest)+);
    };
    ($line:ident, $name:ident, $($rest:tt)+) => {
        $crate::metrics::put_together!($line, $name = %$name, $($rest)+);
    };
    ($line:ident, $($text:tt)+) => {
        $line.say(format_args!($($text)+));
    };
}

pub(crate) use {event, limited, log_level, loudly, put_together};

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Debug;
    use std::sync::Arc;
    use std::time::Duration;

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata};

    use crate::metrics::Metrics;

    /// Every event as its fields in one line, with the span that it names as its parent.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            self.0 += &format!(" {}={value:?}", field.name());
        }
    }

    impl tracing::Subscriber for Lines {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            *metadata.level() <= tracing::Level::INFO
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(42)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let parent = event.parent().map_or(0, Id::into_u64);
            let mut line = Line(format!("{} in {parent}:", event.metadata().level()));
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    /// What is logged while `work` runs.
    fn lines(work: impl FnOnce()) -> Vec<String> {
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), work);
        std::mem::take(&mut *lines.0.lock().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_a_few_lines_in_the_pools_span() {
        let metrics = Lines::default();
        let metrics = tracing::subscriber::with_default(metrics, || {
            Metrics::new(tracing::info_span!(parent: None, "pool"), String::new())
        });
        let broker = metrics.broker(3);
        let throttled = || broker.throttled(crate::metrics::Api::Fetch, Duration::from_secs(1));
        let line = "WARN in 42: message=throttled by the broker's quota broker=3 \
                    request=\"Fetch\" pause=1s";
        let flood = lines(|| (0..1_000).for_each(|_| throttled()));
        assert_eq!(flood, [line; 5]);
        // Another line has an allowance of its own, and so has another pool.
        let other = lines(|| broker.ejected(Duration::from_secs(30)));
        assert_eq!(other, ["WARN in 42: message=broker ejected broker=3 pause=30s"]);
        let elsewhere = Metrics::default();
        let theirs = lines(|| elsewhere.broker(3).ejected(Duration::from_secs(30)));
        assert_eq!(theirs, ["WARN in 0: message=broker ejected broker=3 pause=30s"]);

        tokio::time::advance(Duration::from_secs(10)).await;
        let next = lines(|| (0..3).for_each(|_| throttled()));
        assert_eq!(next.len(), 1, "{next:?}");
        assert!(next[0].contains(" suppressed=995"), "{next:?}");
        assert_eq!(metrics.snapshot().bad_stuff.throttled, 1_003, "all are counted");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_listens_to_is_not_counted_as_said() {
        let metrics = Metrics::default();
        let broker = metrics.broker(1);
        // The subscriber takes INFO and above: probes are DEBUG.
        assert!(lines(|| (0..100).for_each(|_| broker.probe())).is_empty());
        assert!(metrics.logs().sites.lock().unwrap().is_empty());
    }
}
