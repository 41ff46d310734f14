//! Time, and who spent it. Owns the clock that all programs of one machine share, a timer that wakes a poll to the
//! microsecond, and the CPU time of a process. It never sleeps.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// Nanoseconds of the machine's monotonic clock. Two programs read the same, so that a backend can stamp what a client reads.
pub(crate) fn now_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Nanoseconds of CPU that this process has used.
pub(crate) fn own_cpu_ns() -> u64 {
    nanoseconds(clock_gettime(ClockId::ProcessCPUTime))
}

/// Nanoseconds on a CPU of all threads that process `pid` has now, as its scheduler counts them
/// (`/proc/PID/task/*/schedstat`, first field). `None` where the process is gone.
pub(crate) fn cpu_ns_of(pid: u32) -> Option<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        // A thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
            continue;
        };
        total += text
            .split_whitespace()
            .next()
            .and_then(|field| field.parse::<u64>().ok())?;
    }
    Some(total)
}

fn nanoseconds(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Wakes a poll again and again. A poll's own timeout is rounded up to a millisecond, which is more than a call takes.
#[derive(Debug)]
pub(crate) struct Timer {
    descriptor: OwnedFd,
}

impl Timer {
    /// A timer that makes `token` readable every `period` from now on.
    pub(crate) fn every(period: Duration, registry: &Registry, token: Token) -> io::Result<Self> {
        let descriptor = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        // Zero would switch it off.
        let period = Timespec::try_from(period.max(Duration::from_nanos(1)))
            .map_err(|_| io::Error::other("a period too long for a timer"))?;
        let times = Itimerspec {
            it_interval: period,
            it_value: period,
        };
        timerfd_settime(&descriptor, TimerfdTimerFlags::empty(), &times)?;
        registry.register(
            &mut SourceFd(&descriptor.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        Ok(Self { descriptor })
    }

    /// Lets it wake again: it rests until it has been read.
    pub(crate) fn rearm(&self) {
        let mut expirations = [0; 8];
        // Nothing to read is as good: it has not expired since.
        let _ = rustix::io::read(&self.descriptor, &mut expirations);
    }
}
