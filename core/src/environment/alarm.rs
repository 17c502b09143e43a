//! A timer finer than the runtime's, whose waits are whole milliseconds and end up to two of them too
//! late: much, of the five or so that records gather for. Where the system has none, and in virtual
//! time, the runtime's it is.

use tokio::time::Instant;

use super::{Environment, Runtime};

/// What is further away may be late.
#[cfg(target_os = "linux")]
const NEAR: std::time::Duration = std::time::Duration::from_millis(50);

/// See the module.
#[derive(Default)]
pub(crate) struct Alarm {
    #[cfg(target_os = "linux")]
    fine: Option<fine::Timer>,
}

impl Environment {
    /// One for a task of the engine. To be called on it.
    pub(crate) fn alarm(&self) -> Alarm {
        match &self.0.runtime {
            Runtime::Caller(_) => Alarm::default(),
            #[cfg(target_os = "linux")]
            Runtime::Own { .. } => Alarm { fine: fine::Timer::new().ok() },
            #[cfg(not(target_os = "linux"))]
            Runtime::Own { .. } => Alarm::default(),
        }
    }
}

impl Alarm {
    /// Waits until then.
    pub(crate) async fn until(&mut self, at: Instant) {
        #[cfg(target_os = "linux")]
        if let Some(fine) = &mut self.fine
            && at.saturating_duration_since(Instant::now()) < NEAR
            && fine.until(at).await.is_ok()
        {
            return;
        }
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(target_os = "linux")]
mod fine {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use tokio::time::{Duration, Instant};

    /// Zero would be none.
    const SHORTEST: Duration = Duration::from_nanos(1);

    pub(super) struct Timer {
        fd: AsyncFd<OwnedFd>,
        set: Option<Instant>,
    }

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            #[expect(
                deprecated,
                reason = "sound for what owns its descriptor; the other is unsafe"
            )]
            let fd = AsyncFd::with_interest(fd, Interest::READABLE)?;
            Ok(Self { fd, set: None })
        }

        pub(super) async fn until(&mut self, at: Instant) -> io::Result<()> {
            loop {
                let left = at.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(());
                }
                if self.set != Some(at) {
                    // Near, as it is.
                    let it_value =
                        Timespec::try_from(left.max(SHORTEST)).map_err(io::Error::other)?;
                    let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
                    let spec = Itimerspec { it_interval, it_value };
                    timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &spec)?;
                    self.set = Some(at);
                }
                let mut ready = self.fd.readable().await?;
                // It may be what was set before that; the next to be set makes it readable anew.
                ready.clear_ready();
                drop(ready);
                self.set = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Set again and again, earlier and later, for what is past and what is far away.
    #[test]
    fn it_rings_and_never_too_early() {
        let env = Environment::builder().build();
        let (tx, rx) = std::sync::mpsc::channel();
        let inner = env.clone();
        env.spawn(async move {
            let mut alarm = inner.alarm();
            for ms in [0, 3, 1, 60, 2, 0, 1] {
                let at = Instant::now() + Duration::from_millis(ms);
                // One that is not waited for to its end.
                let sooner = Instant::now() + Duration::from_micros(200);
                tokio::select! {
                    biased;
                    () = alarm.until(at) => {}
                    () = std::future::ready(()) => {}
                }
                alarm.until(sooner).await;
                alarm.until(at).await;
                let _ = tx.send(Instant::now() >= at);
            }
        });
        let rang: Vec<bool> = rx.iter().collect();
        assert_eq!(rang, [true; 7]);
    }

    #[tokio::test(start_paused = true)]
    async fn in_virtual_time_it_is_the_runtimes() {
        let handle = tokio::runtime::Handle::current();
        let env = Environment::builder().runtime(handle).build();
        let (mut alarm, at) = (env.alarm(), Instant::now() + Duration::from_millis(5));
        alarm.until(at).await;
        assert_eq!(Instant::now(), at);
    }
}
