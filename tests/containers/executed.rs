//! `exec`: a further program in a container that runs.

use crate::case;
use crate::harness::Case;
use crate::place::{IMAGE, Outcome, Place};

pub fn cases() -> Vec<Case> {
    vec![
        case("exec::codes_streams_and_input", streams),
        case("exec::variables_directory_and_user", who),
        case("exec::joins_every_namespace_and_group", joins),
        case("exec::in_the_background", background),
        case("exec::what_does_not_run_refuses", refused),
    ]
}

fn streams() -> Outcome {
    let place = Place::new()?;
    place.up("one", &[], "sleep 1000")?;
    let pid = place.pid("one")?;
    let said = place.say(&["exec", "one", "sh", "-c", "echo out; echo err >&2; exit 7"])?;
    assert_eq!((said.code, said.text().as_str(), said.stderr.as_str()), (Some(7), "out", "err\n"));
    assert_eq!(place.say(&["exec", "one", "none-such"])?.code, Some(127));
    assert_eq!(place.say(&["exec", "one", "/etc/plain"])?.code, Some(126));
    assert_eq!(place.say(&["exec", "one", "sh", "-c", "kill -KILL $$"])?.code, Some(137));
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
    let said = place.feed(&["exec", "-i", "one", "cat"], sent.clone())?;
    assert!(said.code == Some(0) && said.stdout == sent, "{} bytes came back", said.stdout.len());
    // Leaving it leaves the container running.
    assert_eq!(place.pid("one")?, pid);
    Ok(())
}

fn who() -> Outcome {
    let place = Place::new()?;
    place.up("one", &["-e", "A=image", "-e", "B=kept", "-w", "/data", "-u", "app"], "sleep 1000")?;
    let script = "echo $A $B; pwd; id -u; id -g";
    assert_eq!(place.ok(&["exec", "one", "sh", "-c", script])?, "image kept\n/data\n1234\n2345");
    let other = ["exec", "-e", "A=mine", "-w", "/etc", "-u", "root", "one", "sh", "-c", script];
    assert_eq!(place.ok(&other)?, "mine kept\n/etc\n0\n0");
    Ok(())
}

fn joins() -> Outcome {
    let place = Place::new()?;
    for (name, options) in [("plain", &[][..]), ("mapped", &["--userns", "100000:65536"])] {
        place.up(name, &[options, &["-m", "64m"]].concat(), "sleep 1000")?;
        let pid = place.pid(name)?;
        let seen = place.ok(&["exec", name, "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline"])?;
        assert_eq!(seen, "sleep 1000", "{name}");
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            let inside = place.ok(&["exec", name, "readlink", &format!("/proc/self/ns/{kind}")])?;
            let outside = std::fs::read_link(format!("/proc/{pid}/ns/{kind}"))?;
            assert_eq!(inside, outside.display().to_string(), "{name} {kind}");
        }
        // The groups, the rights and the filter of system calls are those of the container.
        let same = "cmp /proc/1/cgroup /proc/self/cgroup && \
                    grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Groups)' /proc/1/status > /tmp/1 && \
                    grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Groups)' /proc/self/status | cmp - /tmp/1 && echo same";
        assert_eq!(place.ok(&["exec", name, "sh", "-c", same])?, "same", "{name}");
    }
    Ok(())
}

fn background() -> Outcome {
    let place = Place::new()?;
    place.up("one", &[], "sleep 1000")?;
    assert_eq!(place.ok(&["exec", "-d", "one", "sh", "-c", "echo here > /tmp/mark; sleep 1000"])?, "");
    place.until(&["exec", "one", "cat", "/tmp/mark"], "here")?;
    let running = "for p in /proc/[0-9]*; do cat $p/comm; done 2> /dev/null | grep -c '^sleep$'";
    place.until(&["exec", "one", "sh", "-c", running], "2")?;
    Ok(())
}

fn refused() -> Outcome {
    let place = Place::new()?;
    place.ok(&["create", "--network", "none", "--name", "made", IMAGE, "true"])?;
    assert_eq!(place.say(&["exec", "made", "true"])?.code, Some(1));
    assert_eq!(place.say(&["exec", "none-such", "true"])?.code, Some(1));
    Ok(())
}
