//! Why a command could not do what it was asked, and the one place that says so.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;

use super::output::{BOLD, ERROR};
use crate::fs::FileError;
use crate::record::directory::RecordError;
use crate::report::ReportError;
use crate::scenario::ScenarioError;

/// Why a command could not do what it was asked. Each ends the process with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A scenario cannot be read or is not valid.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// Some of several scenarios are not valid; what is wrong with each has been said.
    #[error("{0} of the scenarios cannot be run, so nothing is run")]
    Scenarios(usize),
    /// A file or directory cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The output directory holds something else.
    #[error("{} is not empty and is no run directory; name another with --out", .0.display())]
    Occupied(PathBuf),
    /// A privilege is missing.
    #[error("{what}\n  = {help}")]
    Privilege {
        /// What is missing, and what it is needed for.
        what: String,
        /// What would be right.
        help: String,
    },
    /// There is nothing to report on.
    #[error("no case of {0} could be measured; each is skipped with its reason")]
    NothingMeasured(String),
    /// A run directory cannot be written or read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The charts or the report cannot be made or written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// What a killed run left cannot be taken away.
    #[error("cannot take away what was left behind")]
    Collect(#[source] Box<dyn Error + Send + Sync>),
    /// `doctor --probe` of something unknown.
    #[error("there is no probe called `{0}`")]
    UnknownProbe(String),
    /// The signal handlers cannot be installed.
    #[error("cannot listen for Ctrl-C")]
    Signals(#[source] io::Error),
    /// Something cannot be done with an image.
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
    /// Something cannot be done with a network.
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
    /// There is no such network.
    #[error("network {0} not found")]
    UnknownNetwork(String),
    /// This process's network namespace cannot be opened.
    #[error("cannot open the network namespace of this process")]
    Namespace(#[source] io::Error),
    /// A container cannot be found, or not be kept.
    #[error(transparent)]
    Container(#[from] crate::container::store::StoreError),
    /// A container's files cannot be read or changed.
    #[error(transparent)]
    Files(#[from] crate::container::files::FilesError),
    /// What a container uses cannot be read, or its processes not be frozen.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
    /// A container is not running.
    #[error("container {0} is not running")]
    NotRunning(String),
    /// A port of a container is not published.
    #[error("no public port '{port}' published for {container}")]
    Unpublished {
        /// The port.
        port: String,
        /// The container, as it was asked for.
        container: String,
    },
    /// Columns of processes that are not known.
    #[error("`{0}` is no column of processes that is known")]
    Column(String),
    /// A platform is none.
    #[error("{0}")]
    Platform(String),
    /// A `--format` cannot be used.
    #[error(transparent)]
    Template(#[from] super::template::TemplateError),
    /// A `--filter` that is not known.
    #[error("`{0}` is no filter that this list knows, or its value is none")]
    Filter(String),
    /// An archive would go to a terminal.
    #[error("an archive is not for a terminal; name a file with -o or redirect the output")]
    Terminal,
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

impl CliError {
    /// Whether the reader of standard output has gone away, as `head` does; that is no error of ours.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Says on standard error what went wrong: the error and its causes, once.
pub fn complain(error: &dyn Error) {
    let mut text = format!("{ERROR}error{ERROR:#}: {}", plain(error));
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!("\n  {BOLD}because{BOLD:#}: {}", plain(cause)));
        source = cause.source();
    }
    // Where standard error is closed there is no one left to tell.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// An error's text without what would steer the terminal: names of images and files in archives, and what a registry
/// says, come from others.
fn plain(error: &dyn Error) -> String {
    error.to_string().chars().filter(|c| !c.is_control() || *c == '\n').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_does_not_steer_the_terminal() {
        let error = CliError::Filter("a\x1b]0;title\x07\r\u{9b}2J\nb".to_owned());
        assert_eq!(plain(&error), "`a]0;title2J\nb` is no filter that this list knows, or its value is none");
    }
}
