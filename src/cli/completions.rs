//! `isobench completions SHELL`.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, CliError, Ended, output};

/// The arguments of `isobench completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: CompletionsArgs) -> Result<Ended, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "isobench", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Ended::Pass)
}
