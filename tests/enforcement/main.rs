//! The enforcement and accounting experiments, on the true runtime and on runtimes that are wrong by design.
//!
//! What they judge is how the kernel shares a machine out, so each has the machine for itself: they run one by one.

mod accounting;
mod blkio;
mod cpu;
#[path = "../privileged/emulated.rs"]
mod emulated;
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

/// What is judged by counts, and by times only where any are right, so that it holds on an emulated processor too.
const COUNTED: [&str; 9] = [
    "blkio::bfq_gives_the_parts",
    "cpu::no_instruction_off_the_set",
    "cpu::nothing_stays_behind",
    "cpu::work_follows_the_weights",
    "enforcement::device_rules_",
    "enforcement::wrong_device_rules_",
    "freezer::",
    "memory::",
    "pids::",
];

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
    let counted = |case: &harness::Case| COUNTED.iter().any(|name| case.name.starts_with(name));
    let tests = tests.into_iter().map(|case| if counted(&case) { case } else { emulated::timed(case) }).collect();
    harness::run(tests, Some(1)).exit_code()
}
