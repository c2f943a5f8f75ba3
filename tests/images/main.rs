//! Images against programs that are not ours: skopeo, umoci, GNU tar, Debian's docker-registry. Each test makes what it
//! uses, in directories and on ports of its own, on this machine's loopback only.

mod archives;
mod commands;
mod containers;
#[path = "../privileged/harness.rs"]
mod harness;
mod registry;
mod server;
mod tar;
mod tools;
mod tree;

use std::process::ExitCode;

use isobench::sys::clock;

fn main() -> ExitCode {
    // Containers run this very program as their workload.
    let entry_ns = clock::now_ns();
    if let Some(code) = isobench::workload::dispatch(entry_ns, std::env::args_os().skip(1)) {
        return code;
    }
    let mut tests = Vec::new();
    tests.extend(archives::cases());
    tests.extend(commands::cases());
    tests.extend(containers::cases());
    tests.extend(registry::cases());
    tests.extend(tar::cases());
    harness::run(tests, None).exit_code()
}
