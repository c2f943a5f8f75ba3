//! One act on each of several things that are named on the command line.

use super::{CliError, Ended, complain};

/// Does something with each; goes on after one that cannot be done, and says so. Docker's commands end with 1 then.
pub(super) fn each(names: &[String], mut act: impl FnMut(&str) -> Result<(), CliError>) -> Result<Ended, CliError> {
    let mut ended = Ended::Pass;
    for name in names {
        match act(name) {
            Err(error) if error.is_broken_pipe() => return Err(error),
            Err(error) => {
                complain(&error);
                ended = Ended::Failed;
            }
            Ok(()) => {}
        }
    }
    Ok(ended)
}
