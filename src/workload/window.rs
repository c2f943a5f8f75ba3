//! The measured window and what one thread notes at its edges: CPU time, and the state of its TCP connection.

use std::net::TcpStream;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use crate::sys::tcp_info::{self, TcpInfo};

/// The measured time on CLOCK_MONOTONIC, the same for both ends: `start_ns <= t < end_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// When it opens, in ns.
    pub start_ns: u64,
    /// When it closes, in ns.
    pub end_ns: u64,
}

impl Window {
    /// The window that opens once both ends have had `lead_ns` to get going and `warmup_ns` to warm up.
    #[must_use]
    pub fn after(now_ns: u64, lead_ns: u64, warmup_ns: u64, duration_ns: u64) -> Self {
        let start_ns = now_ns.saturating_add(lead_ns).saturating_add(warmup_ns);
        Self { start_ns, end_ns: start_ns.saturating_add(duration_ns) }
    }

    /// How long it is, in ns.
    #[must_use]
    pub fn elapsed_ns(self) -> u64 {
        self.end_ns.saturating_sub(self.start_ns)
    }

    /// Whether an instant lies inside.
    #[must_use]
    pub fn contains(self, at_ns: u64) -> bool {
        self.start_ns <= at_ns && at_ns < self.end_ns
    }
}

/// CPU time, split as the kernel splits it. The sum is exact to 1 µs a reading; the split is sampled.
///
/// The kernel takes the sum from the scheduler's clock and divides it in the proportion in which timer ticks (every
/// 1 to 10 ms) found the thread in user or system mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTime {
    /// In user mode, in ns.
    pub user_ns: u64,
    /// In the kernel, in ns.
    pub system_ns: u64,
}

impl CpuTime {
    /// What the calling thread has used since it began.
    #[must_use]
    pub fn of_thread() -> Self {
        // RUSAGE_THREAD with a valid buffer cannot fail.
        let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return Self::default() };
        let ns = |time: nix::sys::time::TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0) * 1000;
        Self { user_ns: ns(usage.user_time()), system_ns: ns(usage.system_time()) }
    }

    /// What was used from `earlier` to `self`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            system_ns: self.system_ns.saturating_sub(earlier.system_ns),
        }
    }

    /// User and system time together, in ns.
    #[must_use]
    pub fn total_ns(self) -> u64 {
        self.user_ns + self.system_ns
    }
}

impl std::ops::AddAssign for CpuTime {
    fn add_assign(&mut self, other: Self) {
        self.user_ns += other.user_ns;
        self.system_ns += other.system_ns;
    }
}

/// What a thread saw at an edge of the window.
#[derive(Debug, Clone, Copy, Default)]
struct Edge {
    cpu: CpuTime,
    tcp: Option<TcpInfo>,
}

/// Tells one thread whether an instant is inside the window, and notes its state at both edges.
///
/// A thread that is blocked across an edge notes it when it wakes; it used no CPU time meanwhile.
pub(super) struct Meter<'a> {
    window: Window,
    tcp: Option<&'a TcpStream>,
    next_edge_ns: u64,
    inside: bool,
    start: Option<Edge>,
    end: Option<Edge>,
}

/// What a thread's window cost it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub cpu: CpuTime,
    /// Segments sent again inside the window; absent without a connection to ask.
    pub retransmits: Option<u64>,
    /// The kernel's smoothed round-trip time at the window's end, in ns.
    pub tcp_rtt_ns: Option<u64>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(window: Window, tcp: Option<&'a TcpStream>) -> Self {
        Self { window, tcp, next_edge_ns: window.start_ns, inside: false, start: None, end: None }
    }

    /// Whether `now_ns` is inside. Instants must not go backwards.
    #[inline]
    pub(super) fn inside(&mut self, now_ns: u64) -> bool {
        if now_ns >= self.next_edge_ns {
            self.cross(now_ns);
        }
        self.inside
    }

    /// Whether the window has closed.
    #[inline]
    pub(super) fn over(&self) -> bool {
        self.end.is_some()
    }

    #[cold]
    fn cross(&mut self, now_ns: u64) {
        let edge = Edge { cpu: CpuTime::of_thread(), tcp: self.tcp.and_then(|socket| tcp_info::read(socket).ok()) };
        self.start.get_or_insert(edge);
        self.inside = now_ns < self.window.end_ns;
        self.next_edge_ns = self.window.end_ns;
        if !self.inside {
            self.end = Some(edge);
            self.next_edge_ns = u64::MAX;
        }
    }

    /// What the window cost; a window that never closed counts up to now, one that never opened costs nothing.
    pub(super) fn finish(mut self) -> Cost {
        if self.start.is_some() && self.end.is_none() {
            self.cross(u64::MAX);
        }
        let (Some(start), Some(end)) = (self.start, self.end) else { return Cost::default() };
        Cost {
            cpu: end.cpu.since(start.cpu),
            retransmits: start.tcp.zip(end.tcp).map(|(a, b)| u64::from(b.retransmits.wrapping_sub(a.retransmits))),
            tcp_rtt_ns: end.tcp.map(|info| info.rtt_ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn a_window_is_half_open() {
        let window = Window::after(1000, 5, 20, 100);
        assert_eq!(window, Window { start_ns: 1025, end_ns: 1125 });
        assert_eq!(window.elapsed_ns(), 100);
        assert!(!window.contains(1024) && window.contains(1025) && window.contains(1124) && !window.contains(1125));
        assert_eq!(Window::after(u64::MAX, 5, 20, 100).elapsed_ns(), 0, "no overflow");
    }

    #[test]
    fn the_meter_follows_the_window() {
        let mut meter = Meter::new(Window { start_ns: 10, end_ns: 20 }, None);
        let seen: Vec<bool> = [0, 9, 10, 19, 20, 30].into_iter().map(|at| meter.inside(at)).collect();
        assert_eq!(seen, [false, false, true, true, false, false]);
        assert!(meter.over());
    }

    #[test]
    fn a_skipped_window_is_over_and_free() {
        let mut meter = Meter::new(Window { start_ns: 10, end_ns: 20 }, None);
        assert!(!meter.inside(25));
        assert!(meter.over());
        assert_eq!(meter.finish(), Cost::default());
        assert_eq!(Meter::new(Window { start_ns: 10, end_ns: 20 }, None).finish(), Cost::default());
    }

    #[test]
    fn the_meter_counts_only_cpu_time_inside() {
        let burn = |ns: u64| {
            let start = clock::thread_cpu_ns();
            while clock::thread_cpu_ns() - start < ns {
                std::hint::spin_loop();
            }
        };
        let mut meter = Meter::new(Window { start_ns: 10, end_ns: 20 }, None);
        burn(3_000_000);
        meter.inside(5);
        let outer = clock::thread_cpu_ns();
        meter.inside(10);
        burn(5_000_000);
        meter.inside(20);
        let outer = clock::thread_cpu_ns() - outer;
        burn(3_000_000);
        let used = meter.finish().cpu.total_ns();
        // getrusage(2) cuts each of its four numbers to whole µs.
        assert!(used + 4000 >= 5_000_000 && used <= outer + 4000, "{used} of {outer}");
    }
}
