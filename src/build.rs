//! Names the program's entry point to the linker, and tells the crate how it is built, for the host fingerprint:
//! `record::fingerprint` reads `ISOBENCH_BUILD`.

use std::env::var;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/build.rs");
    if var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        // See src/sys/entry.rs. The symbol lies in the library, from where the linker takes what it is asked for.
        println!("cargo::rustc-link-arg-bins=-Wl,-u,isobench_entry,-e,isobench_entry");
    }
    let rustc = var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version =
        Command::new(rustc).arg("--version").output().ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let features = var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let linking = if features.split(',').any(|feature| feature == "crt-static") { "static" } else { "dynamic" };
    let facts = [
        version.map(|version| version.trim().to_owned()),
        var("TARGET").ok(),
        var("PROFILE").ok(),
        var("OPT_LEVEL").ok().map(|level| format!("opt-level {level}")),
        Some(linking.to_owned()),
    ];
    println!("cargo::rustc-env=ISOBENCH_BUILD={}", facts.into_iter().flatten().collect::<Vec<_>>().join(", "));
}
