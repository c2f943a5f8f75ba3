//! The enforcement and accounting experiments, on the true runtime and on runtimes that are wrong by design.
//!
//! What they judge is how the kernel shares a machine out, so each has the machine for itself: they run one by one.

mod accounting;
mod blkio;
mod cpu;
mod faulty;
mod freezer;
#[path = "../privileged/harness.rs"]
mod harness;
mod judge;
mod memory;
mod pids;
mod rules;

use std::process::ExitCode;

use isobench::sys::clock;

fn main() -> ExitCode {
    // Containers run this very program as their workload.
    let entry_ns = clock::now_ns();
    if let Some(code) = isobench::workload::dispatch(entry_ns, std::env::args_os().skip(1)) {
        return code;
    }
    let mut tests = Vec::new();
    tests.extend(rules::cases());
    tests.extend(memory::cases());
    tests.extend(pids::cases());
    tests.extend(freezer::cases());
    tests.extend(cpu::cases());
    tests.extend(blkio::cases());
    tests.extend(accounting::cases());
    harness::run_one_by_one(tests).exit_code()
}
