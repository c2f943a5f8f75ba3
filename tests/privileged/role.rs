//! What this program does when one of its own tests starts it: as a prisoner inside a container, or as a harness that is
//! to be killed.

use std::error::Error;
use std::process::ExitCode;

use crate::{escape, machine_network, orphans};

/// The first argument that gives it a role; the role's name follows.
pub const SUBCOMMAND: &str = "__role";

/// Plays the role that the arguments (those after argv\[0\]) ask for; `None` when they ask for none.
pub fn dispatch(mut arguments: impl Iterator<Item = String>) -> Option<ExitCode> {
    if arguments.next()? != SUBCOMMAND {
        return None;
    }
    let role = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let played: Result<(), Box<dyn Error>> = match (role.as_str(), &rest[..]) {
        ("trace", [pid]) => escape::trace(pid),
        ("launch", [kind]) => orphans::launch(kind),
        ("hold-address", [name, ports @ ..]) => machine_network::hold_address(name, ports),
        ("hold-for-another", [name, ports @ ..]) => machine_network::hold_for_another(name, ports),
        ("answer", []) => machine_network::answer_until_killed(),
        ("take-loop-devices", []) => orphans::take_loop_devices(),
        other => Err(format!("no such role: {other:?}").into()),
    };
    Some(match played {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{role}: {error}");
            ExitCode::FAILURE
        }
    })
}
