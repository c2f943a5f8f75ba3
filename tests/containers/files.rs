//! The files of a container: `cp`, `diff`, `commit`, `export`.

use crate::case;
use crate::harness::Case;
use crate::place::{IMAGE, Outcome, Place};

pub fn cases() -> Vec<Case> {
    vec![
        case("files::cp_both_ways_of_what_runs_and_what_does_not", copy),
        case("files::diff_shows_what_changed", diff),
        case("files::what_is_committed_runs", commit),
        case("files::an_export_is_an_archive_of_the_root", export),
    ]
}

fn copy() -> Outcome {
    let place = Place::new()?;
    let host = tempfile::tempdir()?;
    let path = |name: &str| host.path().join(name).display().to_string();
    std::fs::create_dir_all(host.path().join("tree/sub"))?;
    std::fs::write(host.path().join("tree/sub/file"), "in\n")?;
    place.up("runs", &[], "echo out > /data/out; echo ready; sleep 1000")?;
    place.until(&["logs", "runs"], "ready")?;
    place.ok(&["create", "--network", "none", "--name", "made", IMAGE, "cat", "/data/tree/sub/file"])?;
    for name in ["runs", "made"] {
        place.ok(&["cp", "-q", &path("tree"), &format!("{name}:/data")])?;
        place.ok(&["cp", "-q", &format!("{name}:/data/tree"), &path(name)])?;
        assert_eq!(std::fs::read_to_string(host.path().join(name).join("sub/file"))?, "in\n", "{name}");
    }
    assert_eq!(place.ok(&["exec", "runs", "cat", "/data/tree/sub/file"])?, "in");
    assert_eq!(place.ok(&["start", "-a", "made"])?, "in");
    place.ok(&["cp", "-q", "runs:/data/out", &path("out")])?;
    assert_eq!(std::fs::read_to_string(host.path().join("out"))?, "out\n");
    assert_eq!(place.say(&["cp", "-q", "runs:/none", &path("none")])?.code, Some(1));
    Ok(())
}

fn diff() -> Outcome {
    let place = Place::new()?;
    place.say(&[
        "run",
        "--network",
        "none",
        "--name",
        "changed",
        IMAGE,
        "sh",
        "-c",
        "echo new > /data/new; echo more >> /etc/plain; rm /etc/group",
    ])?;
    let lines = place.ok(&["diff", "changed"])?;
    let mut lines: Vec<&str> = lines.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A /data/new", "C /data", "C /etc", "C /etc/plain", "D /etc/group"]);
    Ok(())
}

fn commit() -> Outcome {
    let place = Place::new()?;
    place.say(&[
        "run",
        "--network",
        "none",
        "--name",
        "changed",
        IMAGE,
        "sh",
        "-c",
        "echo kept > /data/x; rm /etc/plain",
    ])?;
    place.ok(&["commit", "-c", "CMD [\"cat\", \"/data/x\"]", "changed", "committed"])?;
    place.ok(&["rm", "changed"])?;
    assert_eq!(place.ok(&["run", "--rm", "--network", "none", "--pull", "never", "committed"])?, "kept");
    let gone = ["run", "--rm", "--network", "none", "--pull", "never", "committed", "test", "-e", "/etc/plain"];
    assert_eq!(place.say(&gone)?.code, Some(1));
    Ok(())
}

fn export() -> Outcome {
    let place = Place::new()?;
    let host = tempfile::tempdir()?;
    let archive = host.path().join("a.tar").display().to_string();
    place.say(&[
        "run",
        "--network",
        "none",
        "--name",
        "changed",
        IMAGE,
        "sh",
        "-c",
        "echo x > /data/x; chown app /data/x",
    ])?;
    place.ok(&["export", "-o", &archive, "changed"])?;
    let listed = std::process::Command::new("tar").args(["--numeric-owner", "-tvf", &archive]).output()?;
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout)?;
    let line = listed.lines().find(|line| line.ends_with(" data/x")).ok_or("not in the archive")?;
    assert!(line.starts_with("-rw-r--r-- 1234/0 "), "{line}");
    assert!(listed.lines().any(|line| line.ends_with(" bin/sh -> busybox")), "{listed}");
    Ok(())
}
