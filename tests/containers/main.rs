//! Containers by hand: the real program with a store of its own, judged by the kernel's files, by exit codes and by what
//! busybox says inside.
//!
//! Without the needed privilege or tool a test is listed as ignored, with the reason in its name.

mod detached;
mod escapes;
mod executed;
mod files;
#[path = "../privileged/harness.rs"]
mod harness;
mod killed;
mod many;
mod place;
mod ports;
mod run;
mod terminals;

use std::process::ExitCode;

use harness::{Body, Case};

/// A test that takes busybox.
fn case(name: &'static str, body: Body) -> Case {
    Case::new(name, body).needs(place::busybox().is_some(), "needs busybox-static")
}

fn main() -> ExitCode {
    let mut tests = Vec::new();
    tests.extend(run::cases());
    tests.extend(detached::cases());
    tests.extend(executed::cases());
    tests.extend(escapes::cases());
    tests.extend(files::cases());
    tests.extend(terminals::cases());
    tests.extend(killed::cases());
    tests.extend(many::cases());
    tests.extend(ports::cases());
    let conclusion = harness::run(tests, None);
    place::remove_images();
    conclusion.exit_code()
}
