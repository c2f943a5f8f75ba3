//! `__init -- PROGRAM ARGS...`: the first process of a container that is started with `--init`.
//!
//! It starts the program, passes on every signal that can be caught, and reaps whoever ends: the program, and orphans,
//! which the kernel gives to the first process. It ends with the program's code, or 128 and the number of the signal
//! that ended it; 127 when the program is not found, 126 when it cannot be executed. With its end the kernel ends the
//! rest of the pid namespace.
//!
//! Signals are blocked and read from a descriptor, so that none comes between two steps. The program gets the mask that its
//! init was started with, and [`std::process::Command`] undoes what Rust does to SIGPIPE.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgrp, setpgid, tcsetpgrp};

use crate::sys::fork::{fork, reap};
use crate::sys::launch::{pidfd_open, send_signal};

/// The first argument that makes the binary an init.
pub const SUBCOMMAND: &str = "__init";

/// Bad arguments.
const USAGE: u8 = 2;
/// Something else than the program failed, as docker has it.
const FAILED: u8 = 125;
/// The program is there, but cannot be executed.
const NOT_EXECUTABLE: i32 = 126;
/// The program is not there.
const NOT_FOUND: i32 = 127;

/// Runs the program that the words after `__init` name, to its end.
pub(super) fn run(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let (separator, program) = (words.next(), words.next());
    let Some(program) = program.filter(|_| separator.is_some_and(|word| word == "--")) else {
        eprintln!("isobench: {SUBCOMMAND} takes `-- PROGRAM ARGS...`");
        return ExitCode::from(USAGE);
    };
    match serve(&program, words.collect()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("isobench: the container's init failed: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn serve(program: &OsString, arguments: Vec<OsString>) -> io::Result<u8> {
    let all = SigSet::all();
    let before = all.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC)?;
    let child = fork(|| execute(program, &arguments, &before))?;
    // The child is not reaped before its end is seen below, so the pid is still its own.
    let pidfd = pidfd_open(child.as_raw().unsigned_abs())?;
    loop {
        let Some(signal) = signals.read_signal()? else { continue };
        if signal.ssi_signo != libc::SIGCHLD as u32 {
            pass_on(&pidfd, signal.ssi_signo)?;
        } else if let Some(code) = reap_all(child)? {
            return Ok(code);
        }
    }
}

fn pass_on(program: &OwnedFd, signal: u32) -> io::Result<()> {
    match i32::try_from(signal) {
        Ok(signal) => send_signal(program.as_fd(), signal),
        Err(_) => Ok(()),
    }
}

/// Reaps all that have ended; the program's code if it is among them. One SIGCHLD may stand for several ends.
fn reap_all(program: Pid) -> io::Result<Option<u8>> {
    let mut code = None;
    while let Some((pid, ended)) = reap()? {
        if pid == program {
            code = Some(ended);
        }
    }
    Ok(code)
}

/// The child's half: what it returns is its code, for on success the program has taken its place.
fn execute(program: &OsString, arguments: &[OsString], mask: &SigSet) -> i32 {
    // In a group of its own, and in the foreground where there is a terminal: else a key such as Ctrl-C would reach it
    // twice, once by the terminal and once by its init. SIGTTOU, which would stop it here, is blocked.
    let own = Pid::from_raw(0);
    if setpgid(own, own).is_ok() {
        // Without a terminal there is no foreground to take.
        let _ = tcsetpgrp(io::stdin(), getpgrp());
    }
    let error = match mask.thread_set_mask() {
        Ok(()) => Command::new(program).args(arguments).exec(),
        Err(errno) => errno.into(),
    };
    eprintln!("isobench: cannot execute `{}`: {error}", program.display());
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
}
