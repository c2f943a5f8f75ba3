//! CPU time that a network test costs beside its two ends: the harness and the kernel's softirqs.
//!
//! # What is counted, and why
//!
//! `cpu_per_byte` and `cpu_per_message` divide this sum by what arrived inside the window:
//!
//! 1. **Both ends**, by each flow's thread at both edges of the window (getrusage, RUSAGE_THREAD). User and system
//!    time together are what the scheduler's clock gave to the thread, exact to a µs. On a kernel without
//!    CONFIG_IRQ_TIME_ACCOUNTING that includes every softirq that ran while the thread was current. On `lo`, veth and
//!    bridges that is nearly all of them: the sender's own system call raises NET_RX and runs it on its way out, all
//!    the way into the receiver's socket. (A privileged test shows it: the time of a thread that sends over `lo`
//!    and never sleeps is all of the clock's, though ticks find it in softirqs a good part of the time.)
//! 2. **The harness**: CPU time of this process between two readings at the edges.
//! 3. **Softirqs that no end was charged for**, which depends on the kernel ([`Softirqs`]):
//!    - where interrupt time is *not* accounted apart, they are what the ksoftirqd threads ran, from
//!      /proc/PID/schedstat, exact to a ns. The `softirq` column of /proc/stat must *not* be added: it samples
//!      softirqs at timer ticks whoever was current, so it would count the ends' time a second time (measured: by a
//!      quarter for `tcp_stream`, by two fifths for `tcp_rr`);
//!    - where it *is* accounted apart (`irqtime_account_irq` is in /proc/kallsyms), the kernel takes it out of the
//!      threads' time, and the `softirq` column holds all of it, ksoftirqd included. The file has it in ticks of
//!      USER_HZ, so each reading may be off by 10 ms.
//!
//! Left out on purpose: interrupts and softirqs that hit an idle CPU or another program. The virtual links have no
//! device that interrupts; a profile of the idle task during `udp_stream` and `tcp_rr` (kernel 6.18, two virtual CPUs)
//! showed halting and the idle loop's own bookkeeping, and no network code.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use procfs::CurrentSI;

use crate::sys::clock;

/// Nanoseconds of one tick of /proc/stat.
fn tick_ns() -> u64 {
    1_000_000_000 / procfs::ticks_per_second().max(1)
}

/// Where the time of softirqs is that no thread of ours was charged for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Softirqs {
    /// In the run time of these threads, as in `/proc/14/schedstat`.
    Threads(Vec<PathBuf>),
    /// In the `softirq` column of /proc/stat.
    Column,
}

/// Reads CPU time at the edges of a window.
#[derive(Debug)]
pub(super) struct CpuMeter {
    softirqs: Softirqs,
}

/// A reading, in ns since some fixed past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reading {
    harness_ns: u64,
    softirq_ns: u64,
}

impl Reading {
    /// What the harness and the uncharged softirqs used from `earlier` to `self`, in ns.
    pub(super) fn since(self, earlier: Self) -> u64 {
        self.harness_ns.saturating_sub(earlier.harness_ns) + self.softirq_ns.saturating_sub(earlier.softirq_ns)
    }
}

impl CpuMeter {
    /// Finds out how this kernel accounts softirqs; `None` where it cannot be told (a /proc that hides the kernel's
    /// threads, as inside a container), so that no CPU metric is given rather than a wrong one.
    pub(super) fn find() -> Option<Self> {
        // The kernel takes a good while to print its symbols, and they do not change.
        static APART: OnceLock<Option<bool>> = OnceLock::new();
        let symbols = || fs::read_to_string("/proc/kallsyms").ok();
        if (*APART.get_or_init(|| accounts_interrupts_apart(&symbols()?)))? {
            return Some(Self { softirqs: Softirqs::Column });
        }
        let threads = ksoftirqd_threads();
        (!threads.is_empty()).then_some(Self { softirqs: Softirqs::Threads(threads) })
    }

    /// Reads now; `None` when /proc does not answer.
    pub(super) fn read(&self) -> Option<Reading> {
        let softirq_ns = match &self.softirqs {
            Softirqs::Threads(threads) => {
                let mut sum = 0;
                for path in threads {
                    sum += run_time_ns(&fs::read_to_string(path).ok()?)?;
                }
                sum
            }
            Softirqs::Column => procfs::KernelStats::current().ok()?.total.softirq? * tick_ns(),
        };
        Some(Reading { harness_ns: clock::process_cpu_ns(), softirq_ns })
    }
}

/// Whether the kernel was built to account interrupt time apart; `None` when the symbols are no symbols.
///
/// The kernel may still have it switched off at boot (`tsc=noirqtime`); the `softirq` column then is sampled.
fn accounts_interrupts_apart(kallsyms: &str) -> Option<bool> {
    let mut names = kallsyms.lines().filter_map(|line| line.split_whitespace().nth(2)).peekable();
    names.peek()?;
    Some(names.any(|name| name == "irqtime_account_irq"))
}

/// The `schedstat` files of the threads that run softirqs which took too long elsewhere, one a CPU.
fn ksoftirqd_threads() -> Vec<PathBuf> {
    let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
    processes
        .flatten()
        .filter(|process| process.stat().is_ok_and(|stat| stat.comm.starts_with("ksoftirqd/")))
        .map(|process| PathBuf::from(format!("/proc/{}/schedstat", process.pid)))
        .collect()
}

/// The first field of a `schedstat`: time on a CPU, in ns.
fn run_time_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupt_accounting_shows_among_the_symbols() {
        let with = "0000000000000000 T irqtime_account_irq\n0000000000000000 T schedule\n";
        let without = "0000000000000000 T irqtime_account_process_tick_not\n0000000000000000 T schedule\n";
        assert_eq!(accounts_interrupts_apart(with), Some(true));
        assert_eq!(accounts_interrupts_apart(without), Some(false));
        assert_eq!(accounts_interrupts_apart(""), None);
    }

    #[test]
    fn schedstat_begins_with_run_time() {
        assert_eq!(run_time_ns("38323079 58159713 1111\n"), Some(38_323_079));
        assert_eq!(run_time_ns(""), None);
    }

    #[test]
    fn readings_subtract() {
        let (a, b) = (Reading { harness_ns: 5, softirq_ns: 100 }, Reading { harness_ns: 8, softirq_ns: 130 });
        assert_eq!(b.since(a), 33);
    }

    #[test]
    fn a_meter_counts_the_harness_and_the_threads() {
        let burn = |ns: u64| {
            let start = clock::thread_cpu_ns();
            while clock::thread_cpu_ns() - start < ns {
                std::hint::spin_loop();
            }
        };
        let column = CpuMeter { softirqs: Softirqs::Column };
        let threads = CpuMeter { softirqs: Softirqs::Threads(vec!["/proc/thread-self/schedstat".into()]) };
        let (first_column, first) = (column.read().unwrap(), threads.read().unwrap());
        burn(2_000_000);
        assert!(column.read().unwrap().since(first_column) >= 2_000_000, "the harness's own time is in it");
        assert!(threads.read().unwrap().since(first) >= 4_000_000, "and so is the thread's");
    }
}
