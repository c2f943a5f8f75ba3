//! Tests against the real kernel: namespaces, cgroups, networks, containers. Each needs root and makes what it uses.
//!
//! Without the needed privilege a test is listed as ignored, with the reason in its name; it never counts as passed.

mod harness;
mod network;

fn main() {
    let mut tests = Vec::new();
    tests.extend(network::cases());
    harness::run(tests)
}
