//! A token in a file: Kubernetes projects those of service accounts so, and renews them. The file may lie where nobody
//! answers (a mount whose server is gone): it is read on a thread beside the engine's, and never on two.

use std::fmt;
use std::path::{Path, PathBuf};

use tokio::sync::Mutex;
use tokio::sync::oneshot::{self, Receiver, error::TryRecvError};

use super::token::Token;
use crate::environment::Environment;
use crate::security::place::shown;

/// More than any file with a token in it has.
const MAX_BYTES: u64 = 256 << 10;

/// A token, or what is wrong.
type Found = Result<Token, String>;

/// Where the file is.
pub(super) struct TokenFile {
    path: PathBuf,
    /// The reading that is under way. Whoever comes meanwhile waits for that one.
    reading: Mutex<Option<Receiver<Found>>>,
    read: fn(&Path) -> Found,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, reading: Mutex::default(), read }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How errors call it.
    pub(super) fn name(&self) -> String {
        name(&self.path)
    }

    /// What it has now. Whoever gives up waiting leaves the reading to the next.
    pub(super) async fn token(&self, env: &Environment) -> Found {
        let mut reading = self.reading.lock().await;
        // What was read while nobody waited is old.
        let under_way = reading
            .take()
            .and_then(|mut rx| matches!(rx.try_recv(), Err(TryRecvError::Empty)).then_some(rx));
        let rx = under_way.unwrap_or_else(|| {
            let (tx, rx) = oneshot::channel();
            let (path, read) = (self.path.clone(), self.read);
            env.spawn_blocking(move || drop(tx.send(read(&path))));
            rx
        });
        let read = (&mut *reading.insert(rx)).await;
        *reading = None;
        read.unwrap_or_else(|_| Err(format!("{}: it was not read", self.name())))
    }
}

fn name(path: &Path) -> String {
    format!("token file {}", shown(path))
}

/// Keeps a thread waiting.
fn read(path: &Path) -> Found {
    let refuse = |words: &dyn fmt::Display| format!("{}: {words}", name(path));
    let found = std::fs::metadata(path).map_err(|e| refuse(&e))?;
    // To open a pipe waits for who writes to it.
    if !found.is_file() {
        return Err(refuse(&"it is no file, but a folder, a pipe or a device"));
    }
    if found.len() > MAX_BYTES {
        return Err(refuse(&format_args!("{} bytes are too many", found.len())));
    }
    let bytes = zeroize::Zeroizing::new(std::fs::read(path).map_err(|e| refuse(&e))?);
    let token = Token::new(bytes.trim_ascii().to_vec());
    token.check().map_err(|why| refuse(&why)).map(|()| token)
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
    fn read_from_a_dead_mount(_: &Path) -> Found {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        let answers = ANSWERS.lock().unwrap();
        drop(ANSWERED.wait_while(answers, |answers| !*answers).unwrap());
        Ok(Token::new("t"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_cannot_be_read_to_its_end_takes_one_thread() {
        let env = Environment::builder().runtime(tokio::runtime::Handle::current()).build();
        let file = TokenFile { read: read_from_a_dead_mount, ..TokenFile::new("/mnt/t".into()) };
        let file = Arc::new(file);
        for _ in 0..5 {
            let (file, env) = (Arc::clone(&file), env.clone());
            let attempt = tokio::spawn(async move {
                env.within(Duration::from_secs(10), file.token(&env)).await.is_none()
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
        assert_eq!(file.token(&env).await.unwrap().text.expose(), b"t");
        assert!(file.reading.lock().await.is_none());
        // What that reading found is taken, unless it was there before anybody waited for it.
        let begun = BEGUN.load(Ordering::SeqCst);
        assert!(begun <= 2, "{begun}");
        assert!(file.token(&env).await.is_ok());
        assert_eq!(BEGUN.load(Ordering::SeqCst), begun + 1, "and then it is read anew");
    }
}
