//! The one clock: CLOCK_MONOTONIC in nanoseconds, the same inside and outside of any container without a time
//! namespace of its own.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

/// Nanoseconds of CLOCK_MONOTONIC. Makes one vDSO call, allocates nothing, safe in a forked child.
#[must_use]
pub fn now_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread in nanoseconds.
#[must_use]
pub fn thread_cpu_ns() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of the calling process, all threads, in nanoseconds.
#[must_use]
pub fn process_cpu_ns() -> u64 {
    read(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// Sleeps until an instant of CLOCK_MONOTONIC; not at all when it has passed.
pub fn sleep_until(at_ns: u64) {
    let until = TimeSpec::from_duration(Duration::from_nanos(at_ns));
    // EINTR: a signal woke it. No other error is possible for this clock and a valid time.
    while let Err(Errno::EINTR) = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::TIMER_ABSTIME, &until)
    {
    }
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the duration of the call; the clocks above always exist on Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_advance() {
        let (wall, cpu) = (now_ns(), thread_cpu_ns());
        while thread_cpu_ns() - cpu < 1_000_000 {
            std::hint::spin_loop();
        }
        assert!(now_ns() - wall >= 1_000_000);
        assert!(process_cpu_ns() >= thread_cpu_ns() - cpu);
    }

    #[test]
    fn sleep_ends_after_its_instant_and_not_in_the_past() {
        let at = now_ns() + 2_000_000;
        sleep_until(at);
        assert!(now_ns() >= at);
        sleep_until(at);
        sleep_until(0);
    }
}
