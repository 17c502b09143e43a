//! What a pool logs. Every event belongs to the pool's span, and no call site may flood: see
//! [`limited!`].

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::time::Instant;
use tracing::Span;

use crate::policy::log_limit::{Decision, LogLimit};

/// The pool's span and what each call site has said lately.
pub(crate) struct Logs {
    span: Span,
    sites: Mutex<HashMap<&'static str, LogLimit>>,
}

impl Logs {
    pub(crate) fn new(span: Span) -> Self {
        Self { span, sites: Mutex::default() }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Whether the call site may log now. For [`limited!`].
    pub(crate) fn decide(&self, site: &'static str) -> Decision {
        let mut sites = self.sites.lock().unwrap_or_else(|e| e.into_inner());
        sites.entry(site).or_default().decide(Instant::now())
    }
}

/// An event of the pool, as `tracing::event!` takes it, unless this line has said too much lately:
/// `limited!(logs, WARN, broker = 3, "the broker is late")`. The next one that passes carries
/// `suppressed`, the number of those that did not.
macro_rules! limited {
    ($logs:expr, $level:ident, $($event:tt)+) => {
        // Nothing is counted, and no lock taken, where nobody listens.
        if tracing::enabled!(tracing::Level::$level) {
            use $crate::policy::log_limit::Decision;
            let logs: &$crate::metrics::Logs = $logs;
            match logs.decide(concat!(file!(), ":", line!())) {
                Decision::Pass { suppressed: 0 } => {
                    tracing::event!(parent: logs.span(), tracing::Level::$level, $($event)+);
                }
                Decision::Pass { suppressed } => {
                    tracing::event!(
                        parent: logs.span(), tracing::Level::$level, suppressed, $($event)+
                    );
                }
                Decision::Suppress => {}
            }
        }
    };
}
pub(crate) use limited;
