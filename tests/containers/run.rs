//! `run` in the foreground: codes, streams, and what the options make of the container.

use crate::case;
use crate::harness::Case;
use crate::place::{IMAGE, Outcome, Place, group_file, status};

pub fn cases() -> Vec<Case> {
    vec![
        case("run::codes_are_those_of_docker", codes),
        case("run::the_two_outputs_stay_apart", streams),
        case("run::input_ends_where_it_ends", input),
        case("run::ten_megabytes_pass_unchanged", binary),
        case("run::variables_directory_and_user", who),
        case("run::a_read_only_root", read_only),
        case("run::binds_are_seen_on_both_sides", binds),
        case("run::a_named_volume_keeps_its_data", volume),
        case("run::a_tmpfs_has_its_size", tmpfs),
        case("run::the_kernel_ends_what_takes_too_much_memory", memory),
        case("run::tasks_are_counted", pids),
        case("run::capabilities_are_dropped", capabilities),
        case("run::the_host_name", hostname),
        case("run::a_removed_container_leaves_nothing", removed),
        case("run::root_in_a_user_namespace_is_nobody_outside", user_namespace),
    ]
}

fn codes() -> Outcome {
    let place = Place::new()?;
    let run = |words: &[&str]| place.say(&[&["run", "--rm", "--network", "none"], words].concat());
    assert_eq!(place.script(&[], "exit 7")?.code, Some(7));
    assert_eq!(run(&[IMAGE, "/no/such/program"])?.code, Some(127));
    assert_eq!(run(&[IMAGE, "none-such"])?.code, Some(127));
    assert_eq!(run(&[IMAGE, "/etc/plain"])?.code, Some(126));
    assert_eq!(run(&["--pull", "never", "none-such", "true"])?.code, Some(125));
    assert_eq!(run(&["-m", "lots", IMAGE, "true"])?.code, Some(125));
    assert_eq!(run(&["--no-such-option", IMAGE, "true"])?.code, Some(125));
    // PID 1 has no default actions, so that a child of the shell gets the signal, and the shell ends with its code.
    assert_eq!(place.script(&[], "sh -c 'kill -USR1 $$'; exit $?")?.code, Some(128 + 10));
    place.up("one", &[], "sleep 1000")?;
    place.ok(&["kill", "one"])?;
    assert_eq!(place.ok(&["wait", "one"])?, "137");
    Ok(())
}

fn streams() -> Outcome {
    let place = Place::new()?;
    let said = place.script(&[], "echo out; echo err >&2; echo more")?;
    assert_eq!((said.code, said.text().as_str(), said.stderr.as_str()), (Some(0), "out\nmore", "err\n"));
    Ok(())
}

fn input() -> Outcome {
    let place = Place::new()?;
    let said = place.feed(&["run", "--rm", "-i", "--network", "none", IMAGE, "cat"], b"hi\n".to_vec())?;
    assert_eq!((said.code, &said.stdout[..], said.stderr.as_str()), (Some(0), &b"hi\n"[..], ""));
    let unread = place.feed(&["run", "--rm", "--network", "none", IMAGE, "cat"], b"hi\n".to_vec())?;
    assert_eq!((unread.code, &unread.stdout[..]), (Some(0), &b""[..]));
    Ok(())
}

fn binary() -> Outcome {
    let place = Place::new()?;
    // Every byte value, in an order that no block size divides.
    let sent: Vec<u8> = (0..10_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8).collect();
    let said = place.feed(&["run", "--rm", "-i", "--network", "none", IMAGE, "cat"], sent.clone())?;
    assert_eq!((said.code, said.stdout.len()), (Some(0), sent.len()));
    assert!(said.stdout == sent, "what came back is not what was sent");
    Ok(())
}

fn who() -> Outcome {
    let place = Place::new()?;
    let said =
        place.script(&["-e", "A=b c", "-w", "/data/new", "-u", "app"], "echo $A; pwd; id -u; id -g; echo $HOME")?;
    assert_eq!(said.text(), "b c\n/data/new\n1234\n2345\n/data", "{said:?}");
    let by_number = place.script(&["-u", "77:88"], "id -u; id -g")?;
    assert_eq!(by_number.text(), "77\n88");
    let unknown = place.script(&["-u", "nobody-such"], "true")?;
    assert!(unknown.code == Some(125) && unknown.stderr.contains("nobody-such"), "{unknown:?}");
    Ok(())
}

fn read_only() -> Outcome {
    let place = Place::new()?;
    let said = place.script(&["--read-only", "--tmpfs", "/tmp"], "echo x > /data/x; echo y > /tmp/y && cat /tmp/y")?;
    assert_eq!(said.text(), "y");
    assert!(said.stderr.contains("Read-only file system"), "{said:?}");
    Ok(())
}

fn binds() -> Outcome {
    let place = Place::new()?;
    let host = tempfile::tempdir()?;
    std::fs::write(host.path().join("given"), "given\n")?;
    let bind = |how: &str| format!("{}:/mnt/deep{how}", host.path().display());
    let said = place.script(&["-v", &bind("")], "cat /mnt/deep/given; echo back > /mnt/deep/made")?;
    assert_eq!((said.code, said.text().as_str()), (Some(0), "given"), "{said:?}");
    assert_eq!(std::fs::read_to_string(host.path().join("made"))?, "back\n");
    let said = place.script(&["-v", &bind(":ro")], "cat /mnt/deep/given; echo x > /mnt/deep/refused")?;
    assert!(said.text() == "given" && said.stderr.contains("Read-only file system"), "{said:?}");
    assert!(!host.path().join("refused").exists());
    Ok(())
}

fn volume() -> Outcome {
    let place = Place::new()?;
    assert_eq!(place.script(&["-v", "kept:/data"], "echo still > /data/here")?.code, Some(0));
    assert_eq!(place.script(&["-v", "kept:/elsewhere"], "cat /elsewhere/here")?.text(), "still");
    assert_eq!(place.script(&["-v", "kept:/elsewhere:ro"], "rm /elsewhere/here")?.code, Some(1));
    Ok(())
}

fn tmpfs() -> Outcome {
    let place = Place::new()?;
    let said = place.script(
        &["--tmpfs", "/run/x:size=64k"],
        "grep ' /run/x ' /proc/mounts; head -c 100000 /dev/zero > /run/x/a; wc -c < /run/x/a",
    )?;
    let text = said.text();
    assert!(text.contains(" /run/x tmpfs ") && text.contains("size=64k"), "{said:?}");
    assert!(text.ends_with("65536"), "{said:?}");
    Ok(())
}

fn memory() -> Outcome {
    let place = Place::new()?;
    let script = "x=0123456789; while :; do x=$x$x; done";
    let said = place.say(&["run", "--name", "hog", "--network", "none", "-m", "16m", IMAGE, "sh", "-c", script])?;
    assert_eq!(said.code, Some(137), "{said:?}");
    assert_eq!(place.shown("hog", "{{.State.OOMKilled}} {{.State.ExitCode}}")?, "true 137");
    place.up("modest", &["-m", "16m"], "sleep 1000")?;
    let limit = group_file(place.pid("modest")?, "memory", "memory.limit_in_bytes", "memory.max")?;
    assert_eq!(limit, (16 << 20).to_string());
    place.ok(&["kill", "modest"])?;
    assert_eq!(place.shown("modest", "{{.State.OOMKilled}} {{.State.ExitCode}}")?, "false 137");
    Ok(())
}

fn pids() -> Outcome {
    let place = Place::new()?;
    place.up("few", &["--pids-limit", "5"], "sleep 1000")?;
    assert_eq!(group_file(place.pid("few")?, "pids", "pids.max", "pids.max")?, "5");
    let said = place.script(&["--pids-limit", "5"], "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all")?;
    assert!(said.text().is_empty() && said.stderr.contains("can't fork"), "{said:?}");
    Ok(())
}

fn capabilities() -> Outcome {
    let place = Place::new()?;
    let effective = "grep CapEff /proc/self/status | cut -f 2";
    assert_eq!(place.script(&["--cap-drop", "ALL"], effective)?.text(), "0000000000000000");
    assert_eq!(place.script(&["--cap-drop", "ALL", "--cap-add", "CHOWN"], effective)?.text(), "0000000000000001");
    let all = u64::from_str_radix(&place.script(&[], effective)?.text(), 16)?;
    let without = u64::from_str_radix(&place.script(&["--cap-drop", "NET_RAW"], effective)?.text(), 16)?;
    assert_eq!(all ^ without, 1 << 13);
    Ok(())
}

fn hostname() -> Outcome {
    let place = Place::new()?;
    let said =
        place.script(&["--hostname", "elsewhere"], "hostname; cat /etc/hostname; grep -c elsewhere /etc/hosts")?;
    assert_eq!(said.text().lines().take(2).collect::<Vec<_>>(), ["elsewhere", "elsewhere"], "{said:?}");
    Ok(())
}

fn removed() -> Outcome {
    let place = Place::new()?;
    let cid = place.ok(&["create", "--rm", "--network", "none", "-m", "64m", "-v", "/data", IMAGE, "echo", "x"])?;
    assert_eq!(place.ok(&["start", "-a", &cid])?, "x");
    crate::place::until(|| Ok(place.left(std::slice::from_ref(&cid))?.is_empty()))
        .map_err(|error| format!("{error}: {:?}", place.left(std::slice::from_ref(&cid))))?;
    let mut volumes = Vec::new();
    for entry in std::fs::read_dir(place.root().join("volumes"))? {
        volumes.push(entry?.file_name());
    }
    volumes.retain(|name| name != ".lock");
    assert!(volumes.is_empty(), "{volumes:?}");
    Ok(())
}

fn user_namespace() -> Outcome {
    let place = Place::new()?;
    place.up("mapped", &["--userns", "100000:65536"], "id -u; touch /data/mine; sleep 1000")?;
    place.until(&["logs", "mapped"], "0")?;
    let pid = place.pid("mapped")?;
    assert_eq!(status(pid, "Uid")?.split_whitespace().collect::<Vec<_>>(), ["100000"; 4]);
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    // What the image's root owns is root's inside.
    assert_eq!(place.ok(&["exec", "mapped", "stat", "-c", "%u", "/bin/busybox", "/data/mine"])?, "0\n0");
    Ok(())
}
