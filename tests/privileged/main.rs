//! Tests against the real kernel: namespaces, cgroups, networks, containers. Each needs root and makes what it uses.
//!
//! Without the needed privilege a test is listed as ignored, with the reason in its name; it never counts as passed.

mod cgroup;
mod container;
mod emulated;
mod escape;
mod harness;
mod machine_network;
mod modes;
mod mounts;
mod network;
mod orphans;
mod pair;
mod role;
mod shell;
mod traffic;
mod volumes;
mod workload;

use std::process::ExitCode;

use isobench::sys::clock;

fn main() -> ExitCode {
    // Containers and peers run this very program as their workload.
    let entry_ns = clock::now_ns();
    if let Some(code) = isobench::workload::dispatch(entry_ns, std::env::args_os().skip(1)) {
        return code;
    }
    if let Some(code) = role::dispatch(std::env::args().skip(1)) {
        return code;
    }
    let mut tests = Vec::new();
    tests.extend(cgroup::cases());
    tests.extend(container::cases());
    tests.extend(escape::cases());
    tests.extend(machine_network::cases());
    tests.extend(modes::cases());
    tests.extend(mounts::cases());
    tests.extend(network::cases());
    tests.extend(orphans::cases());
    tests.extend(workload::cases());
    tests.extend(traffic::cases());
    tests.extend(volumes::cases());
    let conclusion = harness::run(tests, None);
    shell::remove_layer();
    conclusion.exit_code()
}
