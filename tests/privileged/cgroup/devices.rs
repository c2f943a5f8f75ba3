//! Device permissions: every access to every device under every kind of rule, on v1 and v2 alike.

use std::error::Error;
use std::path::Path;

use isobench::cgroup::devices::{Kind, Rule};
use isobench::cgroup::{Controller, Hierarchy, Limits};
use isobench::container::Network;
use isobench::sys::launch::ExitStatus;

use super::{Held, Outcome, make};
use crate::shell::{spec, start};

/// The devices of the matrix: a permitted one, another, one that is not permitted by default, a block device.
const DEVICES: [(&str, Kind, u32, u32); 4] =
    [("null", Kind::Char, 1, 3), ("zero", Kind::Char, 1, 5), ("kmsg", Kind::Char, 1, 11), ("loop", Kind::Block, 7, 0)];

/// Directory with the nodes of [`DEVICES`] on a file system that lets them be opened.
fn nodes() -> Result<tempfile::TempDir, Box<dyn Error>> {
    let directory = tempfile::Builder::new().prefix("isobench-nodes-").tempdir_in("/dev")?;
    for (name, kind, major, minor) in DEVICES {
        let kind = if kind == Kind::Char { libc::S_IFCHR } else { libc::S_IFBLK };
        nix::sys::stat::mknod(
            &directory.path().join(name),
            nix::sys::stat::SFlag::from_bits_truncate(kind),
            nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR,
            nix::sys::stat::makedev(major.into(), minor.into()),
        )?;
    }
    Ok(directory)
}

/// Tries every access to every device, once for each line that it is sent, and tells in one word a device what was
/// not refused by EPERM: `r`, `w`, `b` for both in one open, `m` for making the node; `-` for what was.
fn prober(directory: &Path) -> String {
    let probes: Vec<String> = DEVICES
        .iter()
        .map(|(name, kind, major, minor)| {
            let letter = if *kind == Kind::Char { 'c' } else { 'b' };
            format!(
                "try r ': < {name}'; try w ': >> {name}'; try b ': <> {name}'; \
                 try m 'mknod made {letter} {major} {minor}'; rm -f made; printf ' '"
            )
        })
        .collect();
    format!(
        "cd {}; try() {{ case $(eval \"$2\" 2>&1) in *'not permitted'*) printf -- -;; *) printf $1;; esac; }}
         while :; do {}; echo; read line || exit; done",
        directory.display(),
        probes.join("; ")
    )
}

fn rule(allow: bool, kind: Kind, major: Option<u32>, minor: Option<u32>, letters: &str) -> Rule {
    let has = |letter| letters.contains(letter);
    Rule { allow, kind, major, minor, read: has('r'), write: has('w'), mknod: has('m') }
}

pub fn devices_by_every_rule() -> Outcome {
    let directory = nodes()?;
    let script = prober(directory.path());
    let char = |allow, minor, letters| rule(allow, Kind::Char, Some(1), minor, letters);
    let deny_all_blocks = rule(false, Kind::Block, None, None, "rwm");
    // By default or not, the rules on top, and what is permitted of null, zero, kmsg and the loop device then.
    let cases: [(bool, Vec<Rule>, &str); 9] = [
        (true, vec![], "rwbm rwbm ---- ----"),
        (false, vec![], "rwbm rwbm rwbm rwbm"),
        (false, vec![char(false, Some(11), "w")], "rwbm rwbm r--m rwbm"),
        (false, vec![char(false, Some(5), "r")], "rwbm -w-m rwbm rwbm"),
        (false, vec![char(false, Some(3), "m")], "rwb- rwbm rwbm rwbm"),
        (false, vec![deny_all_blocks], "rwbm rwbm rwbm ----"),
        (false, vec![char(false, None, "rw"), deny_all_blocks], "---m ---m ---m ----"),
        (false, vec![char(false, Some(11), "rwm"), char(true, Some(11), "r")], "rwbm rwbm r--- rwbm"),
        (true, vec![char(false, Some(3), "w")], "r--m rwbm ---- ----"),
    ];
    for (default, rules, expected) in cases {
        let mut held = Held::new(&script)?;
        let group = make(default)?;
        group.apply(&Limits { devices: rules.clone(), ..Limits::default() })?;
        group.attach(held.child.id())?;
        held.go()?;
        assert_eq!(held.line()?, expected, "default {default}, {rules:?}");
        held.end()?;
    }
    Ok(())
}

pub fn device_rules_change_while_running() -> Outcome {
    let directory = nodes()?;
    let mut held = Held::new(&prober(directory.path()))?;
    let group = make(false)?;
    group.attach(held.child.id())?;
    let mut change = |rules: &[Rule], expected: &str| -> Outcome {
        group.apply(&Limits { devices: rules.to_vec(), ..Limits::default() })?;
        held.go()?;
        assert_eq!(held.line()?, expected, "{rules:?}");
        Ok(())
    };
    let kmsg = |allow, letters| rule(allow, Kind::Char, Some(1), Some(11), letters);
    change(&[], "rwbm rwbm rwbm rwbm")?;
    change(&[kmsg(false, "rwm")], "rwbm rwbm ---- rwbm")?;
    change(&[kmsg(true, "r")], "rwbm rwbm r--- rwbm")?;
    change(&[kmsg(true, "wm")], "rwbm rwbm rwbm rwbm")?;
    // A hole in a wider rule: v2 has it, v1 would not and says so.
    let wide = rule(false, Kind::Char, Some(1), None, "rwm");
    let hole = rule(true, Kind::Char, Some(1), Some(3), "rwm");
    match group.place(Controller::Devices).ok_or("no devices")?.hierarchy {
        Hierarchy::V2 => change(&[wide, hole], "rwbm ---- ---- rwbm")?,
        Hierarchy::V1 => {
            let error = group.apply(&Limits { devices: vec![wide, hole], ..Limits::default() }).err().ok_or("taken")?;
            assert_eq!(error.to_string(), "cgroup v1 cannot permit `c 1:3 rwm`: it would make a hole in a wider rule");
            change(&[], "rwbm rwbm rwbm rwbm")?;
        }
    }
    held.end()
}

/// Making the container's own nodes does not need what its rules permit: 50 starts, none of which may make a node.
pub fn nodes_come_before_the_rules() -> Outcome {
    let forbidden = [3, 5, 7, 8, 9].map(|minor| rule(false, Kind::Char, Some(1), Some(minor), "m"));
    let limits = Limits { devices: forbidden.to_vec(), ..Limits::default() };
    for _ in 0..50 {
        let script = "echo >/dev/null && head -c 1 /dev/zero >/dev/null && ! mknod /tmp/made c 1 3 2>/dev/null";
        let mut spec = spec(script)?;
        spec.limits = Some(limits.clone());
        let outcome = start(&spec, &Network::None)?.finish()?;
        assert_eq!(outcome.status, ExitStatus::Code(0), "{}", outcome.stderr);
    }
    Ok(())
}

/// What a v1 container with the default rules inherits, it cannot be given more of; one with a rule of its own can.
pub fn device_rules_are_widened_or_the_reason_is_told() -> Outcome {
    let kmsg = Limits { devices: vec![rule(true, Kind::Char, Some(1), Some(11), "r")], ..Limits::default() };
    let group = make(true)?;
    match group.place(Controller::Devices).ok_or("no devices")?.hierarchy {
        Hierarchy::V2 => drop(group.apply(&kmsg)?),
        Hierarchy::V1 => {
            let error = group.apply(&kmsg).err().ok_or("it was widened")?.to_string();
            assert!(error.starts_with("cgroup v1 cannot permit `c 1:11 r` in "), "{error}");
            assert!(error.contains("has to be started with a device rule of its own"), "{error}");
        }
    }
    let group = make(false)?;
    group.confine_devices()?;
    group.apply(&kmsg)?;
    Ok(())
}

/// A program that the verifier refuses (it returns without an answer) comes back with the verifier's reason.
pub fn v2_the_verifiers_words_are_told() -> Outcome {
    use isobench::sys::bpf::{Instruction, load_device_program};
    let exit = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };
    let error = load_device_program(&[exit]).err().ok_or("it was taken")?;
    assert!(error.log.contains("R0 !read_ok"), "{error:?}");
    Ok(())
}
