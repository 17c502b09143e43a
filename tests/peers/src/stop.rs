//! SIGTERM and SIGINT, which end a driver cleanly.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;

use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::sync::watch;

/// True once the program was told to end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// From now on these signals end nothing by themselves.
    ///
    /// # Errors
    /// The system's.
    pub fn on_signals() -> io::Result<Self> {
        let (mut read, write) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGTERM, write.try_clone()?)?;
        signal_hook::low_level::pipe::register(SIGINT, write)?;
        let (tell, told) = watch::channel(false);
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut byte = [0];
            while read.read_exact(&mut byte).is_ok() && tell.send(true).is_ok() {}
        })?;
        Ok(Self(told))
    }

    /// Whether it was told to.
    pub fn is_told(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when it is.
    pub async fn told(&mut self) {
        // Its thread ends with the process: there is always somebody who could tell.
        if self.0.wait_for(|told| *told).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
