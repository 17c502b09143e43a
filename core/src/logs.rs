//! Log lines for hosts that have no `tracing` subscriber: a bounded queue that a thread of the host drains into its own
//! logging. Rust programs use `tracing` and do not need this.
//!
//! ```text
//! engine ── event ──┬──> tracing, if a subscriber wants it
//!                   └──> LogReader's queue, if one wants the level ── next() ──> the host's thread
//! ```
//!
//! As everywhere at this border the host pulls. What is said is put together before the queue's
//! lock is taken, and nobody ever waits to say something: a queue that is full counts what it loses.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard, TryLockError, Weak,
};
use std::time::{Duration, Instant, SystemTime};

use crate::error::{Error, ErrorKind, Result};
use crate::wake::Wake;

/// Lines that may wait to be drained. Those that come then are lost, and counted: the first ones
/// are about the cause.
pub const MAX_QUEUED_LOGS: usize = 1 << 10;

/// Longer texts are cut: one may quote what a broker sent. With [`MAX_QUEUED_LOGS`] it bounds what
/// lies about.
const MAX_TEXT: usize = 2 << 10;

/// Readers a process may have open at once: each makes every line dearer.
const MAX_READERS: usize = 16;

/// How important a line is; the numbers are those of the C interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(i32)]
pub enum LogLevel {
    /// Something is broken and stays so.
    Error = 1,
    /// Something is wrong: a broker that cannot be reached, records that are lost. Told once while
    /// it lasts.
    Warn = 2,
    /// Worth knowing, but no trouble: a connection was lost.
    Info = 3,
    /// Details that help to find a fault.
    Debug = 4,
    /// Every batch.
    Trace = 5,
}

impl LogLevel {
    /// Its name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The level of a number, if it has one.
    pub const fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::Error,
            2 => Self::Warn,
            3 => Self::Info,
            4 => Self::Debug,
            5 => Self::Trace,
            _ => return None,
        })
    }
}

/// One line.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Log {
    /// How important it is.
    pub level: LogLevel,
    /// Who says it: `ottla::net`, `ottla::cluster`, `ottla::producer`, `ottla::consumer`.
    pub target: &'static str,
    /// When it was said.
    pub time: SystemTime,
    /// The text, without its fields.
    pub message: String,
    /// Names and values, in the order that they are best read in.
    pub fields: Vec<(&'static str, String)>,
    /// Lines lost between the one before and this one, because the queue was full.
    pub dropped: u64,
}

impl Log {
    pub(crate) fn new(level: LogLevel, target: &'static str) -> Self {
        Self {
            level,
            target,
            time: SystemTime::now(),
            message: String::new(),
            fields: Vec::new(),
            dropped: 0,
        }
    }

    pub(crate) fn field(&mut self, name: &'static str, value: fmt::Arguments<'_>) {
        self.fields.push((name, cut(value.to_string())));
    }

    pub(crate) fn say(&mut self, text: fmt::Arguments<'_>) {
        self.message = cut(text.to_string());
    }
}

/// The text and then its fields: `broker late broker=3 silent=250ms`.
impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.fields.iter().try_for_each(|(name, value)| write!(f, " {name}={value}"))
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let mut end = MAX_TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A queue of lines, from [`open`](Self::open) until it is dropped. For one thread that drains it;
/// more than one share the lines between them.
pub struct LogReader(Arc<Queue>);

struct Queue {
    least: LogLevel,
    pid: u32,
    wake: Wake,
    filled: Condvar,
    state: Mutex<State>,
    dropped: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Log>,
    /// Lost since the last line that was taken in.
    lost: u64,
    closed: bool,
}

impl LogReader {
    /// Every line of the process from now on that is as important as `least`, or more so.
    pub fn open(least: LogLevel) -> Result<Self> {
        let wake = Wake::new().map_err(|e| {
            Error::new(
                ErrorKind::OutOfResources,
                format!("no descriptor to wake the host with: {e}"),
            )
        })?;
        let queue = Arc::new(Queue {
            least,
            pid: std::process::id(),
            wake,
            filled: Condvar::new(),
            state: Mutex::default(),
            dropped: AtomicU64::new(0),
        });
        let mut readers = readers().ok_or_else(|| {
            Error::new(ErrorKind::Forked, "another thread was opening a log reader during the fork")
                .advise("fork before log readers are opened")
        })?;
        enlist(&mut readers, &queue)?;
        set_level(&readers);
        Ok(Self(queue))
    }

    /// The next line. Waits for one for `timeout` (`None`: as long as it takes); `Ok(None)`: none
    /// came until then. After [`close`](Self::close), once all are taken, an error of kind
    /// [`ErrorKind::Closed`]; in a fork one of kind [`ErrorKind::Forked`].
    pub fn next(&self, timeout: Option<Duration>) -> Result<Option<Log>> {
        if !self.0.is_here() {
            return Err(Error::new(
                ErrorKind::Forked,
                "this process is a fork of the one that opened the log reader",
            ));
        }
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let mut state = self.0.lock();
        loop {
            if let Some(line) = state.lines.pop_front() {
                if state.lines.is_empty() && !state.closed {
                    self.0.wake.clear();
                }
                return Ok(Some(line));
            }
            if state.closed {
                return Err(Error::closed("log reader"));
            }
            state = match deadline {
                None => self.0.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(at) => {
                    let left = at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let waited = self.0.filled.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Lines lost so far because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Takes no more lines and wakes who waits for one; what is there can still be taken.
    pub fn close(&self) {
        if self.0.is_here() {
            self.0.lock().closed = true;
            // Readable from now on: who polls finds the end.
            self.0.wake.signal();
            self.0.filled.notify_all();
            self.forget();
        }
    }

    /// The descriptor to poll for reading: readable while a line waits, or after the end.
    #[cfg(unix)]
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.wake.fd()
    }

    fn forget(&self) {
        // If not: the next one that is opened does.
        if let Some(mut readers) = readers() {
            readers.retain(|reader| !std::ptr::eq(reader.as_ptr(), Arc::as_ptr(&self.0)));
            set_level(&readers);
        }
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        if self.0.is_here() {
            self.forget();
        }
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this is the process that opened it: in another one nobody drains it, and its lock may
    /// be held by a thread that does not exist there.
    fn is_here(&self) -> bool {
        self.pid == std::process::id()
    }

    fn push(&self, mut line: Log) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if state.lines.len() >= MAX_QUEUED_LOGS {
            state.lost += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        line.dropped = std::mem::take(&mut state.lost);
        state.lines.push_back(line);
        if state.lines.len() == 1 {
            self.wake.signal();
        }
        drop(state);
        self.filled.notify_one();
    }
}

static READERS: RwLock<Vec<Weak<Queue>>> = RwLock::new(Vec::new());

/// The least important level that any reader wants; 0: there is none.
static LEVEL: AtomicU8 = AtomicU8::new(0);

/// To add or to take away. `None` in a child that was forked while another thread held the list:
/// nobody there may wait for it.
fn readers() -> Option<RwLockWriteGuard<'static, Vec<Weak<Queue>>>> {
    for _ in 0..1_000 {
        match READERS.try_write() {
            Ok(readers) => return Some(readers),
            Err(TryLockError::Poisoned(e)) => return Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
    None
}

/// One more, if there are not [`MAX_READERS`] already.
fn enlist(readers: &mut Vec<Weak<Queue>>, queue: &Arc<Queue>) -> Result<()> {
    readers.retain(|reader| reader.upgrade().is_some_and(|queue| queue.is_here()));
    if readers.len() >= MAX_READERS {
        return Err(Error::argument(format!(
            "{MAX_READERS} log readers are open, and no more may be"
        ))
        .advise("close one before another is opened"));
    }
    readers.push(Arc::downgrade(queue));
    Ok(())
}

fn set_level(readers: &[Weak<Queue>]) {
    let levels = readers.iter().filter_map(Weak::upgrade).map(|queue| queue.least as u8);
    LEVEL.store(levels.max().unwrap_or(0), Ordering::Relaxed);
}

/// Whether any reader wants a line of this level: looked at before one is put together.
pub(crate) fn wanted(level: LogLevel) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Who reads now. While one comes or goes this waits for a moment, but never for a thread that did not
/// survive a fork: then nobody does.
fn listening() -> Option<Vec<Arc<Queue>>> {
    for _ in 0..100 {
        match READERS.try_read() {
            Ok(readers) => return Some(readers.iter().filter_map(Weak::upgrade).collect()),
            Err(TryLockError::Poisoned(e)) => {
                return Some(e.get_ref().iter().filter_map(Weak::upgrade).collect());
            }
            Err(TryLockError::WouldBlock) => std::thread::yield_now(),
        }
    }
    None
}

/// Hands a line to every reader that wants it.
pub(crate) fn tell(line: Log) {
    let Some(readers) = listening() else { return };
    for queue in readers.iter().filter(|queue| line.level <= queue.least && queue.is_here()) {
        queue.push(line.clone());
    }
}

#[cfg(test)]
mod tests;
