//! The processor: how much of it this process used, and which core it may use.

use std::time::Duration;

use rustix::thread::CpuSet;
use rustix::time::{ClockId, clock_gettime};

/// User and system time of all threads of this process so far: what `getrusage` says, in
/// nanoseconds instead of its microseconds.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // The clock starts at zero and only rises.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// The same of the calling thread alone.
pub fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// The same of another process; zero where the system does not tell.
pub fn cpu_time_of(process: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    // The first number is the time on a processor in nanoseconds.
    let time = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    Duration::from_nanos(threads.flatten().filter_map(time).sum())
}

/// Most memory this process had at one time, in bytes; 0 where the system does not tell.
pub fn peak_memory() -> u64 {
    status("VmHWM:")
}

/// Memory this process has now, in bytes; 0 where the system does not tell.
pub fn memory() -> u64 {
    status("VmRSS:")
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Keeps this process, and the threads it starts from now on, on one core. Says whether it could:
/// not with fewer cores, or where a container forbids it. A measurement without is noisier, not
/// wrong.
pub fn pin(core: usize) -> bool {
    let mut set = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return false;
    }
    set.set(core);
    rustix::thread::sched_setaffinity(None, &set).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_told() {
        assert!(memory() > 100_000 && peak_memory() >= memory());
    }

    #[test]
    fn work_takes_time() {
        let before = cpu_time();
        while cpu_time() == before {
            std::hint::spin_loop();
        }
        assert!(cpu_time() > before);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_time_of_another_process_is_told() {
        let before = cpu_time();
        let told = cpu_time_of(std::process::id());
        // Ended threads are in the one and not in the other.
        assert!(told > Duration::ZERO && told < before + Duration::from_secs(3600));
    }
}
