//! Known ways out of containers, each by the name under which it became known, tried on the command itself.

use std::path::Path;
use std::process::Command;

use crate::harness::Case;
use crate::place::{IMAGE, Outcome, Place};

pub fn cases() -> Vec<Case> {
    vec![
        crate::case("escapes::cve_2019_5736_no_program_reaches_the_binary", no_program_reaches_the_binary),
        crate::case("escapes::cve_2024_21626_no_directory_leads_to_the_host", no_directory_leads_to_the_host),
    ]
}

/// A script whose interpreter is whoever executes it: the kernel then executes the launcher's own file inside.
fn no_program_reaches_the_binary() -> Outcome {
    let program = Path::new(env!("CARGO_BIN_EXE_isobench"));
    let before = std::fs::read(program)?;
    let place = Place::new()?;
    place.up("victim", &[], "printf '#!/proc/self/exe\\n' > /evil; chmod +x /evil; touch /made; sleep 1000")?;
    place.until(&["exec", "victim", "ls", "/made"], "/made")?;
    let mut attack = place.command(&["exec", "victim", "/evil"]).spawn()?;
    // It executes itself for ever, and always what is looked at is the stub.
    let files = "for p in /proc/[0-9]*; do readlink $p/exe; done | sort -u";
    crate::place::until(|| Ok(place.ok(&["exec", "victim", "sh", "-c", files])?.contains("isobench-stub")))?;
    let seen = place.ok(&["exec", "victim", "sh", "-c", files])?;
    assert!(!seen.contains(program.to_str().ok_or("no text")?), "{seen}");
    let write = "for p in /proc/[0-9]*; do (printf x > $p/exe) 2>/dev/null && echo $p; done; echo done";
    assert_eq!(place.ok(&["exec", "victim", "sh", "-c", write])?, "done");
    attack.kill()?;
    attack.wait()?;
    assert!(std::fs::read(program)? == before, "the program on the host has changed");
    Ok(())
}

/// A working directory by way of what the launcher has open.
fn no_directory_leads_to_the_host() -> Outcome {
    const NAME: &str = "isobench-escaped";
    let place = Place::new()?;
    place.up("target", &[], "sleep 1000")?;
    for descriptor in 0..32 {
        for directory in [format!("/proc/self/fd/{descriptor}"), format!("/proc/self/fd/{descriptor}/{NAME}")] {
            let run = place.say(&["run", "--rm", "--network", "none", "-w", &directory, IMAGE, "pwd"])?;
            assert_ne!(run.code, Some(0), "{directory}: {run:?}");
            let exec = place.say(&["exec", "-w", &directory, "target", "pwd"])?;
            assert_ne!(exec.code, Some(0), "{directory}: {exec:?}");
        }
    }
    let mut find = Command::new("find");
    find.args(["/sys/fs/cgroup", "/run/isobench", "/var/lib/isobench", "."]).arg(place.root());
    // Some of them need not be there.
    let found = find.args(["-maxdepth", "4", "-name", NAME]).output()?;
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    Ok(())
}
