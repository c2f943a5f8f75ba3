//! `serve`: a program with an orderly end. It tells that it is there, and ends with code 0 on SIGTERM, which does
//! nothing to the first process of a pid namespace unless that asks for it. The `lifecycle` experiment runs it.

use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};

/// Blocks SIGTERM, writes the entry time (ns of CLOCK_MONOTONIC) to `stdout` as 8 bytes, little-endian, and waits for
/// the signal. One that comes right after the write is therefore never lost.
///
/// Returns 1 when the write or the wait failed.
pub(super) fn run(entry_ns: u64, stdout: impl AsFd) -> ExitCode {
    let mut awaited = SigSet::empty();
    awaited.add(Signal::SIGTERM);
    let told = awaited.thread_block().is_ok() && nix::unistd::write(stdout, &entry_ns.to_le_bytes()) == Ok(8);
    match told.then(|| awaited.wait()) {
        Some(Ok(_)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
