//! `isobench container exec`: the command itself joins the container, and the program has the command's own streams
//! where they are no terminals; so there is nothing between it and a pipe.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::session::{self, Input, Raw, Sink};
use super::{CommandError, Outcome};
use crate::container::client::settled;
use crate::container::exec::{self, Executed};
use crate::container::launch::Stdio;
use crate::container::make;
use crate::container::monitor::MonitorError;
use crate::container::state::Status;
use crate::container::store::Store;
use crate::sys::launch::{ExitStatus, pidfd_open};
use crate::sys::terminal::Master;

/// The arguments of `isobench container exec`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ExecArgs {
    /// Do not wait for it
    #[arg(short, long)]
    detach: bool,
    /// Pass input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// A variable of its environment; without a value, ours
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The directory that it starts in
    #[arg(short, long, value_name = "DIRECTORY")]
    workdir: Option<String>,
    /// Who it runs as: USER, UID, USER:GROUP or UID:GID
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Give it all rights
    #[arg(long)]
    privileged: bool,
    /// The keys by which one leaves without ending it
    #[arg(long, value_name = "KEYS", default_value = session::DETACH_KEYS, value_parser = session::detach_keys)]
    detach_keys: session::Keys,
    /// A name or an identifier
    container: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

pub(super) fn run(store: &Store, args: &ExecArgs) -> Result<Outcome, CommandError> {
    if args.tty && args.interactive && !args.detach && !io::stdin().is_terminal() {
        return Err(CommandError::NoTerminal);
    }
    let stored = store.find(&args.container)?;
    let state = settled(store, &stored)?;
    let init = match (state.status, state.init) {
        (Status::Running, Some(init)) => init,
        (Status::Paused, _) => {
            return Err(stored.refuse("run a program in", state.status, "; unpause it first").into());
        }
        (status, _) => return Err(stored.refuse("run a program in", status, "; start it first").into()),
    };
    let stopped = || stored.refuse("run a program in", Status::Exited, "");
    let pidfd = pidfd_open(init.pid).map_err(|_| stopped())?;
    // The pid was still its own after the pidfd was taken, so the pidfd is its own.
    if !init.is_alive() {
        return Err(stopped().into());
    }
    let wanted = make::Program {
        arguments: args.command.clone(),
        environment: args.env.iter().filter_map(|text| variable(text)).collect(),
        directory: args.workdir.clone(),
        user: args.user.clone(),
        privileged: args.privileged,
        terminal: args.tty,
    };
    let spec = make::program(&stored, init.pid, &wanted)?;
    let (v1, v2) = make::groups(&stored.config)?;
    // Nothing of this process may be reached from inside by /proc while the program is not executed yet.
    nix::sys::prctl::set_dumpable(false)
        .map_err(|errno| CommandError::system("hide from the container")(errno.into()))?;
    let signals = session::signals(true, args.tty).map_err(CommandError::system("take signals"))?;
    let (stdio, relays) = streams(args)?;
    let target = exec::Target { pidfd: pidfd.as_fd(), v1, v2 };
    let mut program = exec::start(&target, &spec, stdio).map_err(MonitorError::from)?;
    program.await_exec().map_err(MonitorError::from)?;
    if args.detach {
        program.leave();
        return Ok(Outcome::PASS);
    }
    let master = program.take_terminal();
    let _raw = match &master {
        Some(_) if args.interactive => Some(Raw::enter().map_err(CommandError::system("make the terminal raw"))?),
        _ => None,
    };
    let (left, leave) = io::pipe().map_err(CommandError::system("make a pipe"))?;
    let (finished, outputs) = mpsc::channel();
    match &master {
        Some(master) => at_terminal(master, args, leave, finished)?,
        None => relays.begin(finished),
    }
    let Some(code) = await_end(&mut program, &signals, master.as_ref(), &left)? else {
        // Its terminal closes with this process, which it hears of by SIGHUP.
        program.leave();
        return Ok(Outcome::PASS);
    };
    // What it wrote last may still be on its way; what it left running may keep its output open for ever.
    while outputs.recv_timeout(LAST_WORDS).is_ok() {}
    Ok(Outcome(code))
}

/// How long output may still come after a program has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A variable without a value is ours, if we have it.
fn variable(text: &str) -> Option<String> {
    if text.contains('=') {
        return Some(text.to_owned());
    }
    std::env::var(text).ok().map(|value| format!("{text}={value}"))
}

/// Pipes in the place of our streams that are terminals: a program in a container must not get hold of one that is not
/// its own.
#[derive(Default)]
struct Relays {
    input: Option<File>,
    output: Option<File>,
    error: Option<File>,
}

impl Relays {
    /// Copies from now on; the sender is dropped by who has copied all.
    fn begin(self, finished: Sender<()>) {
        if let Some(mut input) = self.input {
            std::thread::spawn(move || session::read_keys(&[], |bytes| input.write_all(bytes)));
        }
        if let Some(output) = self.output {
            copy(output, Sink::new(io::stdout().as_fd()), finished.clone());
        }
        if let Some(error) = self.error {
            copy(error, Sink::new(io::stderr().as_fd()), finished.clone());
        }
    }
}

fn copy(mut from: File, mut to: Sink, finished: Sender<()>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        // A terminal whose program has ended says EIO.
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            to.write(&buffer[..count]);
        }
        drop(finished);
    });
}

/// The program's streams, and what is between them and ours.
fn streams(args: &ExecArgs) -> Result<(Stdio, Relays), CommandError> {
    let (mut stdio, mut relays) = (Stdio::default(), Relays::default());
    if args.tty || args.detach {
        return Ok((stdio, relays));
    }
    let pipe = || io::pipe().map_err(CommandError::system("make a pipe"));
    let own =
        |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(CommandError::system("pass a stream on"));
    if args.interactive && io::stdin().is_terminal() {
        let (reader, writer) = pipe()?;
        (stdio.stdin, relays.input) = (Some(reader.into()), Some(OwnedFd::from(writer).into()));
    } else if args.interactive {
        stdio.stdin = Some(own(io::stdin().as_fd())?);
    }
    if io::stdout().is_terminal() {
        let (reader, writer) = pipe()?;
        (stdio.stdout, relays.output) = (Some(writer.into()), Some(OwnedFd::from(reader).into()));
    } else {
        stdio.stdout = Some(own(io::stdout().as_fd())?);
    }
    if io::stderr().is_terminal() {
        let (reader, writer) = pipe()?;
        (stdio.stderr, relays.error) = (Some(writer.into()), Some(OwnedFd::from(reader).into()));
    } else {
        stdio.stderr = Some(own(io::stderr().as_fd())?);
    }
    Ok((stdio, relays))
}

/// Between our terminal and the program's.
fn at_terminal(
    master: &Master,
    args: &ExecArgs,
    mut leave: io::PipeWriter,
    finished: Sender<()>,
) -> Result<(), CommandError> {
    let clone = || master.0.try_clone().map_err(CommandError::system("pass the terminal on"));
    if let Some(size) = session::size() {
        master.resize(size).map_err(CommandError::system("set the terminal's size"))?;
    }
    if args.interactive {
        let (mut input, keys) = (clone()?, args.detach_keys.0.clone());
        std::thread::spawn(move || {
            if session::read_keys(&keys, |bytes| input.write_all(bytes)) == Input::Detached {
                // The reader is there as long as the process is.
                let _ = leave.write_all(b"x");
            }
        });
    }
    copy(clone()?, Sink::new(io::stdout().as_fd()), finished);
    Ok(())
}

/// The program's code; `None` when the detach keys came first.
fn await_end(
    program: &mut Executed,
    signals: &SignalFd,
    master: Option<&Master>,
    left: &io::PipeReader,
) -> Result<Option<i32>, CommandError> {
    loop {
        let mut fds = [program.as_fd(), signals.as_fd(), left.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(CommandError::system("wait for the program")(errno.into())),
        }
        let ended = fds[0].revents().is_some_and(|flags| !flags.is_empty());
        if fds[2].revents().is_some_and(|flags| flags.contains(PollFlags::POLLIN)) {
            return Ok(None);
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            match (signal.ssi_signo as i32, master) {
                (libc::SIGWINCH, Some(master)) => {
                    // A terminal whose program has just ended has no size.
                    let _ = session::size().map(|size| master.resize(size));
                }
                (number, _) => program.signal(number)?,
            }
        }
        if ended {
            let reaped = program.wait()?;
            return Ok(Some(match reaped.status {
                ExitStatus::Code(code) => code,
                ExitStatus::Signal(signal) => 128 + signal,
            }));
        }
    }
}
