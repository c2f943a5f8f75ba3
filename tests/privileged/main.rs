//! Tests against the real kernel: namespaces, cgroups, networks, containers. Each needs root and makes what it uses.
//!
//! Without the needed privilege a test is listed as ignored, with the reason in its name; it never counts as passed.

mod cgroup;
mod container;
mod escape;
mod harness;
mod shell;

fn main() {
    let mut tests = Vec::new();
    tests.extend(cgroup::cases());
    tests.extend(container::cases());
    tests.extend(escape::cases());
    let conclusion = harness::run(tests);
    shell::remove_layer();
    conclusion.exit()
}
