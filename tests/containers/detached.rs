//! Containers in the background: how they are looked at, stopped, frozen, started again and changed.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::case;
use crate::harness::Case;
use crate::place::{IMAGE, Outcome, Place, STOPPED_BY_USR1, end, group_file, status, until};

pub fn cases() -> Vec<Case> {
    vec![
        case("detached::ls_shows_what_there_is", list),
        case("detached::logs_of_each_kind", logs),
        case("detached::attach_takes_part_until_the_end", attach),
        case("detached::a_paused_container_makes_no_progress", pause),
        case("detached::stop_uses_the_signal_of_the_image", stop_signal),
        case("detached::stop_kills_after_the_grace_time", stop_kills),
        case("detached::kill_sends_any_signal", kill),
        case("detached::restart_wait_and_rename", restart),
        case("detached::a_running_container_is_removed_by_force_alone", remove),
        case("detached::a_restart_policy_counts", policy),
        case("detached::health_comes_and_goes", health),
        case("detached::update_reaches_the_kernel", update),
        case("detached::top_and_stats_show_the_kernels_figures", top),
    ]
}

fn list() -> Outcome {
    let place = Place::new()?;
    let id = place.up("runs", &["-l", "a=b"], "sleep 1000")?;
    place.ok(&["create", "--network", "none", "--name", "made", IMAGE, "true"])?;
    assert_eq!(place.ok(&["ls", "--format", "{{.Names}} {{.State}} {{.Image}}"])?, format!("runs running {IMAGE}"));
    assert_eq!(place.ok(&["ls", "-a", "--format", "{{.Names}} {{.State}}"])?, "made created\nruns running");
    assert_eq!(place.ok(&["ls", "-q", "--no-trunc"])?, id);
    assert_eq!(place.ok(&["ls", "-aq", "--filter", "label=a=b"])?, id[..12]);
    assert_eq!(place.ok(&["ls", "-a", "--filter", "status=created", "--format", "{{.Names}}"])?, "made");
    assert_eq!(place.ok(&["prune", "-f"])?.lines().count(), 2);
    assert_eq!(place.ok(&["ls", "-a", "--format", "{{.Names}}"])?, "runs");
    Ok(())
}

fn logs() -> Outcome {
    let place = Place::new()?;
    let script = "for i in 1 2 3 4 5; do echo $i; done; while ! test -e /tmp/go; do sleep 0.02; done; \
                  echo wrong >&2; echo last";
    place.up("talks", &[], script)?;
    place.until(&["logs", "talks"], "1\n2\n3\n4\n5")?;
    assert_eq!(place.ok(&["logs", "--tail", "2", "talks"])?, "4\n5");
    let follow = place.command(&["logs", "-f", "--tail", "1", "talks"]).spawn()?;
    place.ok(&["exec", "talks", "touch", "/tmp/go"])?;
    let followed = end(follow)?;
    assert_eq!((followed.code, followed.stderr.as_str()), (Some(0), "wrong\n"));
    // It may have begun to look after the last line was written.
    assert!(["5\nlast", "last"].contains(&followed.text().as_str()), "{followed:?}");
    let all = place.say(&["logs", "talks"])?;
    assert_eq!((all.text().as_str(), all.stderr.as_str()), ("1\n2\n3\n4\n5\nlast", "wrong\n"));
    let stamped = place.ok(&["logs", "-t", "--tail", "all", "talks"])?;
    let (time, text) = stamped.lines().next().and_then(|line| line.split_once(' ')).ok_or("no line")?;
    let age = jiff::Timestamp::now().duration_since(time.parse()?);
    assert!(text == "1" && age.as_secs().unsigned_abs() < 60, "{stamped}");
    Ok(())
}

fn attach() -> Outcome {
    let place = Place::new()?;
    place.ok(&["run", "-d", "-i", "--network", "none", "--name", "shell", IMAGE, "sh"])?;
    let said = place.feed(&["attach", "shell"], b"echo pid $$; echo err >&2; exit 7\n".to_vec())?;
    assert_eq!((said.code, said.text().as_str(), said.stderr.as_str()), (Some(7), "pid 1", "err\n"));
    place.until(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "shell"], "exited 7")
}

fn pause() -> Outcome {
    let place = Place::new()?;
    let host = tempfile::tempdir()?;
    let bind = format!("{}:/count", host.path().display());
    place.up(
        "counts",
        &["-v", &bind],
        "i=0; while :; do i=$((i+1)); echo $i > /count/new; mv /count/new /count/at; done",
    )?;
    let at = || -> Option<u64> { std::fs::read_to_string(host.path().join("at")).ok()?.trim().parse().ok() };
    until(|| Ok(at() > Some(10)))?;
    let pid = place.pid("counts")?;
    place.ok(&["pause", "counts"])?;
    let frozen = |expected: [&str; 2]| -> Outcome {
        let state = group_file(pid, "freezer", "freezer.state", "cgroup.freeze")?;
        assert!(expected.contains(&state.as_str()), "{state}");
        Ok(())
    };
    frozen(["FROZEN", "1"])?;
    let before = at();
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(at(), before);
    assert_eq!(place.ok(&["ls", "--format", "{{.State}}"])?, "paused");
    assert_ne!(place.say(&["exec", "counts", "true"])?.code, Some(0));
    place.ok(&["unpause", "counts"])?;
    frozen(["THAWED", "0"])?;
    until(|| Ok(at() > before))?;
    // A frozen one can be ended.
    place.ok(&["pause", "counts"])?;
    place.ok(&["kill", "counts"])?;
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}

/// A script that waits for signals, once it has said that it is ready.
fn trap(signal: &str, then: &str) -> String {
    format!("trap '{then}' {signal}; echo ready; while :; do sleep 0.02; done")
}

fn stop_signal() -> Outcome {
    let place = Place::new()?;
    let script = trap("USR1", "exit 5");
    let run = ["run", "-d", "--network", "none", "--name", "asked", STOPPED_BY_USR1, "sh", "-c", &script];
    place.ok(&run)?;
    place.until(&["logs", "asked"], "ready")?;
    place.ok(&["stop", "asked"])?;
    assert_eq!(place.shown("asked", "{{.State.ExitCode}}")?, "5");
    Ok(())
}

fn stop_kills() -> Outcome {
    let place = Place::new()?;
    place.up("deaf", &[], &trap("TERM", ""))?;
    place.until(&["logs", "deaf"], "ready")?;
    let pid = place.pid("deaf")?;
    let begun = Instant::now();
    place.ok(&["stop", "-t", "1", "deaf"])?;
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(8), "{took:?}");
    assert_eq!(place.shown("deaf", "{{.State.ExitCode}}")?, "137");
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    Ok(())
}

fn kill() -> Outcome {
    let place = Place::new()?;
    place.up("listens", &[], &trap("USR2", "echo heard; exit 9"))?;
    place.until(&["logs", "listens"], "ready")?;
    assert_eq!(place.say(&["kill", "-s", "NONE", "listens"])?.code, Some(125));
    place.ok(&["kill", "-s", "SIGUSR2", "listens"])?;
    assert_eq!(place.ok(&["wait", "listens"])?, "9");
    assert_eq!(place.ok(&["logs", "listens"])?, "ready\nheard");
    assert_eq!(place.say(&["kill", "listens"])?.code, Some(1));
    Ok(())
}

fn restart() -> Outcome {
    let place = Place::new()?;
    place.up("one", &[], &trap("TERM", "exit 3"))?;
    place.until(&["logs", "one"], "ready")?;
    let before = place.pid("one")?;
    place.ok(&["restart", "one"])?;
    let after = place.pid("one")?;
    assert_ne!(before, after);
    assert!(!Path::new(&format!("/proc/{before}")).exists());
    place.ok(&["rename", "one", "other"])?;
    assert_eq!(place.say(&["inspect", "one"])?.code, Some(1));
    assert_eq!(place.pid("other")?, after);
    place.until(&["logs", "other"], "ready\nready")?;
    let waits = place.command(&["wait", "other"]).spawn()?;
    place.ok(&["stop", "other"])?;
    assert_eq!(end(waits)?.text(), "3");
    Ok(())
}

fn remove() -> Outcome {
    let place = Place::new()?;
    let id = place.up("runs", &[], "sleep 1000")?;
    let pid = place.pid("runs")?;
    assert_eq!(place.say(&["rm", "runs"])?.code, Some(1));
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    place.ok(&["rm", "-f", "runs"])?;
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(place.left(&[id])?, [""; 0]);
    Ok(())
}

fn policy() -> Outcome {
    let place = Place::new()?;
    let host = tempfile::tempdir()?;
    let bind = format!("{}:/runs", host.path().display());
    place.up("fails", &["--restart", "on-failure:2", "-v", &bind], "echo x >> /runs/all; exit 4")?;
    place
        .until(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.RestartCount}}", "fails"], "exited 4 2")?;
    assert_eq!(std::fs::read_to_string(host.path().join("all"))?, "x\nx\nx\n");
    place.up("succeeds", &["--restart", "on-failure:2", "-v", &bind], "echo y >> /runs/good")?;
    assert_eq!(place.ok(&["wait", "succeeds"])?, "0");
    assert_eq!(std::fs::read_to_string(host.path().join("good"))?, "y\n");
    Ok(())
}

fn health() -> Outcome {
    let place = Place::new()?;
    let checked = ["--health-cmd", "test -e /tmp/ok", "--health-interval", "50ms", "--health-retries", "2"];
    place.up("checked", &checked, "sleep 1000")?;
    let state = ["inspect", "-f", "{{.State.Health.Status}}", "checked"];
    place.until(&state, "unhealthy")?;
    place.ok(&["exec", "checked", "touch", "/tmp/ok"])?;
    place.until(&state, "healthy")?;
    place.ok(&["exec", "checked", "rm", "/tmp/ok"])?;
    place.until(&state, "unhealthy")
}

fn update() -> Outcome {
    let place = Place::new()?;
    place.up("grows", &["-m", "32m"], "sleep 1000")?;
    let pid = place.pid("grows")?;
    let limit = || group_file(pid, "memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(limit()?, (32 << 20).to_string());
    place.ok(&["update", "-m", "48m", "--memory-swap", "96m", "grows"])?;
    assert_eq!(limit()?, (48 << 20).to_string());
    assert_eq!(place.pid("grows")?, pid);
    // What was changed holds after the next start.
    place.ok(&["restart", "-t", "0", "grows"])?;
    let limit = group_file(place.pid("grows")?, "memory", "memory.limit_in_bytes", "memory.max")?;
    assert_eq!(limit, (48 << 20).to_string());
    Ok(())
}

fn top() -> Outcome {
    let place = Place::new()?;
    place.up("busy", &["-m", "64m"], "sleep 1000 & sleep 2000 & echo ready; wait")?;
    place.until(&["logs", "busy"], "ready")?;
    let init = place.pid("busy")?;
    let listed = place.ok(&["top", "busy", "-o", "pid,args"])?;
    let mut found = Vec::new();
    for line in listed.lines().skip(1) {
        let (pid, arguments) = line.trim().split_once(' ').ok_or("no columns")?;
        let pid: u32 = pid.parse()?;
        let inside = status(pid, "NSpid")?;
        found.push((pid == init || status(pid, "PPid")? == init.to_string(), arguments.trim().to_owned(), inside));
    }
    assert!(found.len() == 3 && found.iter().all(|(related, ..)| *related), "{listed}");
    assert!(found.iter().any(|(_, arguments, _)| arguments == "sleep 2000"), "{listed}");
    let figures = place.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "busy"])?;
    assert!(figures.starts_with("busy 3 ") && figures.ends_with("/ 64MiB"), "{figures}");
    Ok(())
}
