//! A token, or another secret, in a file: Kubernetes projects those of service accounts so, and renews them. The file may lie
//! where nobody answers (a mount whose server is gone): it is read on a thread beside the engine's, and never on two.

use std::fmt;
use std::path::{Path, PathBuf};

use tokio::sync::Mutex;
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};

use super::token::Token;
use crate::environment::Environment;
use crate::security::Secret;
use crate::security::place::shown;

/// More than any file with a token in it has.
const MAX_BYTES: u64 = 256 << 10;

/// What it has, without the space around it; or what is wrong.
type Found = Result<Secret, String>;

/// What a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Token,
    ClientSecret,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Token => "token file",
            Self::ClientSecret => "client secret file",
        }
    }

    /// Whether it can be that.
    fn check(self, text: &Secret) -> Result<(), &'static str> {
        match self {
            Self::Token => Token::new(text.clone()).check(),
            Self::ClientSecret if text.is_empty() => Err("it is empty"),
            Self::ClientSecret if std::str::from_utf8(text.expose()).is_err() => {
                Err("it is not UTF-8")
            }
            Self::ClientSecret => Ok(()),
        }
    }
}

/// Where the file is.
pub(super) struct TextFile {
    kind: Kind,
    path: PathBuf,
    /// The reading that is under way. Whoever comes meanwhile waits for that one.
    reading: Mutex<Option<Receiver<Found>>>,
    read: fn(Kind, &Path) -> Found,
}

impl TextFile {
    pub(super) fn new(kind: Kind, path: PathBuf) -> Self {
        Self { kind, path, reading: Mutex::default(), read }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How errors call it.
    pub(super) fn name(&self) -> String {
        name(self.kind, &self.path)
    }

    /// What it has now. Whoever gives up waiting leaves the reading to the next.
    pub(super) async fn text(&self, env: &Environment) -> Found {
        let mut reading = self.reading.lock().await;
        // What was read while nobody waited is old.
        let under_way = reading
            .take()
            .and_then(|mut rx| matches!(rx.try_recv(), Err(TryRecvError::Empty)).then_some(rx));
        let rx = under_way.unwrap_or_else(|| {
            let (tx, rx) = oneshot::channel();
            let (kind, path, read) = (self.kind, self.path.clone(), self.read);
            env.spawn_blocking(move || drop(tx.send(read(kind, &path))));
            rx
        });
        let read = (&mut *reading.insert(rx)).await;
        *reading = None;
        read.unwrap_or_else(|_| Err(format!("{}: it was not read", self.name())))
    }
}

fn name(kind: Kind, path: &Path) -> String {
    format!("{} {}", kind.name(), shown(path))
}

/// Keeps a thread waiting.
fn read(kind: Kind, path: &Path) -> Found {
    let refuse = |words: &dyn fmt::Display| format!("{}: {words}", name(kind, path));
    let found = std::fs::metadata(path).map_err(|e| refuse(&e))?;
    // To open a pipe waits for who writes to it.
    if !found.is_file() {
        return Err(refuse(&"it is no file, but a folder, a pipe or a device"));
    }
    if found.len() > MAX_BYTES {
        return Err(refuse(&format_args!("{} bytes are too many", found.len())));
    }
    let bytes = zeroize::Zeroizing::new(std::fs::read(path).map_err(|e| refuse(&e))?);
    let text = Secret::from(bytes.trim_ascii().to_vec());
    kind.check(&text).map_err(|why| refuse(&why)).map(|()| text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    static BEGUN: AtomicUsize = AtomicUsize::new(0);
    static ANSWERS: std::sync::Mutex<bool> = std::sync::Mutex::new(false);
    static ANSWERED: std::sync::Condvar = std::sync::Condvar::new();

    /// A mount whose server is gone, until it comes back.
    fn read_from_a_dead_mount(_: Kind, _: &Path) -> Found {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        let answers = ANSWERS.lock().unwrap();
        drop(ANSWERED.wait_while(answers, |answers| !*answers).unwrap());
        Ok(Secret::from("t"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_read_to_its_end_takes_one_thread() {
        let env = Environment::builder().runtime(tokio::runtime::Handle::current()).build();
        let file = TextFile {
            read: read_from_a_dead_mount,
            ..TextFile::new(Kind::Token, "/mnt/t".into())
        };
        let file = Arc::new(file);
        for _ in 0..5 {
            let (file, env) = (Arc::clone(&file), env.clone());
            let attempt = tokio::spawn(async move {
                env.within(Duration::from_secs(10), file.text(&env)).await.is_none()
            });
            tokio::task::yield_now().await;
            // Time does not pass by itself while a thread is at work.
            tokio::time::advance(Duration::from_millis(10_001)).await;
            assert!(attempt.await.unwrap());
        }
        while BEGUN.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(BEGUN.load(Ordering::SeqCst), 1);
        *ANSWERS.lock().unwrap() = true;
        ANSWERED.notify_all();
        assert_eq!(file.text(&env).await.unwrap().expose(), b"t");
        assert!(file.reading.lock().await.is_none());
        // What that reading found is taken, unless it was there before anybody waited for it.
        let begun = BEGUN.load(Ordering::SeqCst);
        assert!(begun <= 2, "{begun}");
        assert!(file.text(&env).await.is_ok());
        assert_eq!(BEGUN.load(Ordering::SeqCst), begun + 1, "and then it is read anew");
    }
}
