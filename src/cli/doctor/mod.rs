//! `isobench doctor`: what this host can do, by trying it, and what will be skipped because it cannot.
//!
//! Facts are read ([`host`]); abilities are tried ([`probe`]), each in a child process with namespaces of its own, so
//! that nothing of a probe outlives it.

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::output::{self, BOLD, DOUBT, Format, GOOD};
use super::{CliError, Ended};
use crate::record::Fingerprint;

mod host;
mod network;
mod probe;

/// The arguments of `isobench doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// For whom the result is
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Try one ability in this process, whose namespaces it changes
    #[arg(long, hide = true, value_name = "NAME")]
    probe: Option<String>,
}

/// One thing that the host can or cannot do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    /// What it belongs to, as in `namespaces`.
    area: &'static str,
    /// Its name, as in `pid`.
    name: String,
    /// Whether it works.
    works: bool,
    /// Where it is, or why it does not work.
    detail: String,
    /// What is skipped, or different, where it does not work.
    without: &'static str,
}

pub(super) fn run(args: DoctorArgs) -> Result<Ended, CliError> {
    if let Some(name) = args.probe {
        return probe::serve(&name);
    }
    let facts = Fingerprint::collect().facts;
    let mut findings = host::findings();
    findings.extend(probe::findings());
    let text = match args.format {
        Format::Json => format!("{:#}\n", json!({ "facts": facts, "findings": findings })),
        Format::Text => {
            let facts: String = facts.iter().map(|(name, value)| format!("  {name:<24} {value}\n")).collect();
            format!("{BOLD}This host{BOLD:#}\n{facts}{}{}", abilities(&findings), consequences(&findings))
        }
    };
    output::print(&text)?;
    Ok(Ended::Pass)
}

fn abilities(findings: &[Finding]) -> String {
    let mut text = String::new();
    for group in findings.chunk_by(|left, right| left.area == right.area) {
        text.push_str(&format!("\n{BOLD}{}{BOLD:#}\n", group[0].area));
        for Finding { name, works, detail, .. } in group {
            let (style, word) = if *works { (GOOD, "yes") } else { (DOUBT, "no") };
            let gap = if detail.is_empty() { 0 } else { 5 - word.len() };
            text.push_str(&format!("  {name:<16} {style}{word}{style:#}{:gap$}{detail}\n", ""));
        }
    }
    text
}

fn consequences(findings: &[Finding]) -> String {
    let missing: Vec<&Finding> = findings.iter().filter(|finding| !finding.works).collect();
    if missing.is_empty() {
        return format!("\n{GOOD}Nothing will be skipped.{GOOD:#}\n");
    }
    let mut text = format!("\n{BOLD}What will be skipped or different, and why{BOLD:#}\n");
    for Finding { area, name, detail, without, .. } in missing {
        text.push_str(&format!("  {without}\n    because {area}, {name}: {detail}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(name: &str, works: bool) -> Finding {
        let detail = if works { "" } else { "Operation not permitted" }.to_owned();
        Finding { area: "namespaces", name: name.to_owned(), works, detail, without: "no container can be started" }
    }

    #[test]
    fn what_is_missing_is_said_with_its_reason() {
        let text = consequences(&[finding("pid", true), finding("user", false)]);
        let plain = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            plain,
            "\nWhat will be skipped or different, and why\n  no container can be started\n    \
             because namespaces, user: Operation not permitted\n"
        );
        assert!(consequences(&[finding("pid", true)]).contains("Nothing will be skipped"));
    }
}
