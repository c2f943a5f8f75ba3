//! The `isobench` program: takes the time, serves as a workload when it is started inside a container, and otherwise
//! does what the command line asks.

use std::process::ExitCode;

use isobench::sys::clock;
use isobench::{cli, workload};

fn main() -> ExitCode {
    // The first thing that a program in a container does is to take the time: nothing may come before it.
    let entry_ns = clock::now_ns();
    if let Some(code) = workload::dispatch(entry_ns, std::env::args_os().skip(1)) {
        return code;
    }
    match cli::run() {
        Ok(ended) => ended.into(),
        // `isobench list | head` is no error.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            cli::complain(&error);
            cli::Ended::Error.into()
        }
    }
}
