//! One act on each of several things that are named on the command line.

use serde_json::Value;

use super::template::Template;
use super::{CliError, Ended, complain, output};

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

/// Shows what is known of each, as docker's `inspect` does: one JSON list of all, on one line where `json` is asked for;
/// or a template's text of each.
pub(super) fn inspect_each(
    names: &[String],
    format: Option<&str>,
    mut document: impl FnMut(&str) -> Result<Value, CliError>,
) -> Result<Ended, CliError> {
    let template = match format {
        None | Some("json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let mut found = Vec::new();
    let ended = each(names, |name| {
        let shown = document(name)?;
        match &template {
            Some(template) => output::print(&(template.render(&shown)? + "\n")),
            None => {
                found.push(shown);
                Ok(())
            }
        }
    })?;
    if template.is_none() {
        let all = Value::Array(found);
        let text = if format.is_some() { all.to_string() } else { format!("{all:#}") };
        output::print(&(text + "\n"))?;
    }
    Ok(ended)
}
