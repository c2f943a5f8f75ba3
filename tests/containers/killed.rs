//! Whatever is killed, nothing is lost: monitors and containers that end without a word.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::case;
use crate::harness::Case;
use crate::place::{Outcome, Place, status, until};

pub fn cases() -> Vec<Case> {
    let learnt = kernel_tells_exit_codes();
    vec![
        case("killed::a_container_outlives_its_monitor", monitor),
        case("killed::an_exit_code_is_learnt_without_a_monitor", code)
            .needs(learnt, "needs Linux 6.15, whose pidfds tell the code of who is no child"),
        case("killed::everything_at_once", everything),
    ]
}

fn kernel_tells_exit_codes() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(15))
}

/// Who looks after a container, as the kernel has it: its first process's parent, which must be this program.
fn monitor_of(init: u32) -> Outcome<u32> {
    let parent: u32 = status(init, "PPid")?.parse()?;
    let program = std::fs::read_link(format!("/proc/{parent}/exe"))?;
    if program != Path::new(env!("CARGO_BIN_EXE_isobench")) {
        return Err(format!("the parent of {init} is {}", program.display()).into());
    }
    Ok(parent)
}

fn end(pid: u32) -> Outcome {
    kill(Pid::from_raw(pid.try_into()?), Signal::SIGKILL)?;
    until(|| {
        let state = std::fs::read_to_string(format!("/proc/{pid}/status"));
        Ok(state.map_or(true, |text| text.contains("\nState:\tZ") || text.contains("\nState:\tX")))
    })
}

const WAITS: &str = "echo one; while ! test -e /tmp/go; do sleep 0.02; done; echo two; exit 7";

fn monitor() -> Outcome {
    let place = Place::new()?;
    place.up("orphan", &["-m", "64m"], WAITS)?;
    place.until(&["logs", "orphan"], "one")?;
    let init = place.pid("orphan")?;
    end(monitor_of(init)?)?;
    assert_eq!(place.ok(&["ls", "--format", "{{.Names}} {{.State}}"])?, "orphan running");
    assert_eq!(place.pid("orphan")?, init);
    assert_eq!(place.ok(&["exec", "orphan", "sh", "-c", "echo $((6 * 7))"])?, "42");
    place.ok(&["exec", "orphan", "touch", "/tmp/go"])?;
    place.until(&["logs", "orphan"], "one\ntwo")?;
    place.until(&["inspect", "-f", "{{.State.Status}}", "orphan"], "exited")?;
    place.ok(&["rm", "orphan"])?;
    Ok(())
}

fn code() -> Outcome {
    let place = Place::new()?;
    place.up("orphan", &[], WAITS)?;
    place.until(&["logs", "orphan"], "one")?;
    end(monitor_of(place.pid("orphan")?)?)?;
    assert_eq!(place.ok(&["ls", "--format", "{{.State}}"])?, "running");
    place.ok(&["exec", "orphan", "touch", "/tmp/go"])?;
    assert_eq!(place.ok(&["wait", "orphan"])?, "7");
    assert_eq!(place.shown("orphan", "{{.State.ExitCode}}")?, "7");
    Ok(())
}

fn everything() -> Outcome {
    let place = Place::new()?;
    let id = place.up("lost", &["-m", "64m"], "echo begun; sleep 1000")?;
    place.until(&["logs", "lost"], "begun")?;
    let init = place.pid("lost")?;
    let monitor = monitor_of(init)?;
    end(monitor)?;
    end(init)?;
    let listed = place.ok(&["ls", "-a", "--format", "{{.Names}} {{.Status}}"])?;
    assert!(listed.starts_with("lost Exited ("), "{listed}");
    assert_eq!(place.ok(&["start", "lost"])?, "lost");
    place.until(&["logs", "lost"], "begun\nbegun")?;
    assert_ne!(place.pid("lost")?, init);
    place.ok(&["rm", "-f", "lost"])?;
    assert_eq!(place.left(&[id])?, [""; 0]);
    Ok(())
}
