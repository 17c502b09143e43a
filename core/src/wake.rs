//! The one descriptor that says "the queue is not empty".

#[cfg(unix)]
pub(crate) use unix::Wake;

#[cfg(not(unix))]
pub(crate) use elsewhere::Wake;

#[cfg(unix)]
mod unix {
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    /// An eventfd on Linux, a non-blocking pipe elsewhere. Both ends never block: an eventfd
    /// counter or a pipe that is full is already readable, which is all that is wanted.
    pub(crate) struct Wake {
        read: OwnedFd,
        #[cfg(not(target_os = "linux"))]
        write: OwnedFd,
    }

    impl Wake {
        #[cfg(target_os = "linux")]
        pub(crate) fn new() -> io::Result<Self> {
            use rustix::event::{EventfdFlags, eventfd};
            Ok(Self { read: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)? })
        }

        #[cfg(not(target_os = "linux"))]
        pub(crate) fn new() -> io::Result<Self> {
            let (read, write) = rustix::pipe::pipe()?;
            for end in [&read, &write] {
                rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
                // Through the standard library: `fcntl_setfl` would need another feature.
                rustix::io::ioctl_fionbio(end, true)?;
            }
            Ok(Self { read, write })
        }

        /// Makes the descriptor readable.
        pub(crate) fn signal(&self) {
            #[cfg(target_os = "linux")]
            let end = &self.read;
            #[cfg(not(target_os = "linux"))]
            let end = &self.write;
            // Eight bytes are what an eventfd takes; a pipe takes them too.
            while rustix::io::write(end, &1u64.to_ne_bytes()) == Err(rustix::io::Errno::INTR) {}
        }

        /// Makes it not readable. The host may have read it empty itself: that is no error.
        pub(crate) fn clear(&self) {
            let mut bytes = [0u8; 64];
            loop {
                match rustix::io::read(&self.read, &mut bytes) {
                    // One read empties an eventfd, and a pipe that holds less than the buffer.
                    Ok(n) if n == bytes.len() => {}
                    Err(rustix::io::Errno::INTR) => {}
                    _ => return,
                }
            }
        }

        pub(crate) fn fd(&self) -> BorrowedFd<'_> {
            self.read.as_fd()
        }
    }
}

#[cfg(not(unix))]
mod elsewhere {
    /// No descriptor here: hosts wait in `CompletionQueue::wait`.
    pub(crate) struct Wake;

    impl Wake {
        pub(crate) fn new() -> std::io::Result<Self> {
            Ok(Self)
        }

        pub(crate) fn signal(&self) {}

        pub(crate) fn clear(&self) {}
    }
}
