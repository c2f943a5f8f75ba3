//! Known ways out of containers, each by the name under which it became known, tried for real: the attack runs inside a
//! container, and the host is looked at afterwards.
//!
//! Without the needed privilege or tool a test is listed as ignored, with the reason in its name.

mod exhaustion;
mod files;
#[path = "../privileged/harness.rs"]
mod harness;
mod kernel_files;
mod mount_races;
mod program;
mod rights;
#[path = "../privileged/shell.rs"]
mod shell;

use std::process::ExitCode;

use isobench::sys::clock;

/// The first argument that makes this program an attacker inside a container.
const ROLE: &str = "__attack";

fn main() -> ExitCode {
    let entry_ns = clock::now_ns();
    if let Some(code) = isobench::workload::dispatch(entry_ns, std::env::args_os().skip(1)) {
        return code;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, rest @ ..] = &arguments[..]
        && role == ROLE
    {
        return attack(rest);
    }
    let mut tests = Vec::new();
    tests.extend(exhaustion::cases());
    tests.extend(files::cases());
    tests.extend(kernel_files::cases());
    tests.extend(mount_races::cases());
    tests.extend(rights::cases());
    let conclusion = harness::run(tests, None);
    shell::remove_layer();
    conclusion.exit_code()
}

fn attack(arguments: &[String]) -> ExitCode {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["swap", one, other] => mount_races::swap(one, other),
        ["new-namespaces", script] => rights::new_namespaces(script),
        ["set-groups", group] => rights::set_groups(group),
        _ => Err(format!("no such attack: {arguments:?}").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
