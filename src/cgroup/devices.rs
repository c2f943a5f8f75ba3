//! The devices controller of cgroup v1: which device nodes may be read, written and made.

use std::fmt;
use std::path::Path;

use cgroups_rs::devices::{DevicePermissions, DeviceType, DevicesController};

use super::{CgroupError, Controller, read, write};

/// The file that lists the rules in force.
pub const LIST: &str = "devices.list";

/// Block or character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whether it permits or forbids.
    pub allow: bool,
    /// Block or character device.
    pub kind: Kind,
    /// The major number; `None` for every one.
    pub major: Option<u32>,
    /// The minor number; `None` for every one.
    pub minor: Option<u32>,
    /// Whether it is about reading.
    pub read: bool,
    /// Whether it is about writing.
    pub write: bool,
    /// Whether it is about making a node.
    pub mknod: bool,
}

impl fmt::Display for Rule {
    /// As `devices.list` has it: `c 1:3 rwm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let kind = if self.kind == Kind::Char { 'c' } else { 'b' };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        for (set, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            if set {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

const fn standard(major: u32, minor: Option<u32>) -> Rule {
    Rule { allow: true, kind: Kind::Char, major: Some(major), minor, read: true, write: true, mknod: true }
}

/// What a container may use by default: null, zero, full, random, urandom, tty, console, ptmx, and pseudo terminals.
/// Unlike docker's, it permits making no other node: there is nothing that a program could do with it.
pub const DEFAULT: [Rule; 9] = [
    standard(1, Some(3)),
    standard(1, Some(5)),
    standard(1, Some(7)),
    standard(1, Some(8)),
    standard(1, Some(9)),
    standard(5, Some(0)),
    standard(5, Some(1)),
    standard(5, Some(2)),
    standard(136, None),
];

/// Forbids everything and then permits [`DEFAULT`], unless that is what the group has already.
///
/// # Errors
/// When a rule cannot be written or is not kept.
pub(super) fn write_default_rules(path: &Path) -> Result<(), CgroupError> {
    let expected: Vec<String> = DEFAULT.iter().map(Rule::to_string).collect();
    if read(path, LIST)?.lines().eq(expected.iter().map(String::as_str)) {
        return Ok(());
    }
    write(path, "devices.deny", "a")?;
    apply(path, &DEFAULT)
}

/// Writes rules in order and makes sure that what they permit is listed afterwards.
///
/// # Errors
/// EPERM when the parent group does not permit what a rule would.
pub(super) fn apply(path: &Path, rules: &[Rule]) -> Result<(), CgroupError> {
    let controller = DevicesController::new(path.to_owned());
    for rule in rules {
        let kind = if rule.kind == Kind::Char { DeviceType::Char } else { DeviceType::Block };
        let number = |number: Option<u32>| number.map_or(-1, i64::from);
        let permissions: Vec<DevicePermissions> = [
            (rule.read, DevicePermissions::Read),
            (rule.write, DevicePermissions::Write),
            (rule.mknod, DevicePermissions::MkNod),
        ]
        .into_iter()
        .filter_map(|(set, permission)| set.then_some(permission))
        .collect();
        let write = if rule.allow { DevicesController::allow_device } else { DevicesController::deny_device };
        write(&controller, kind, number(rule.major), number(rule.minor), &permissions).map_err(|source| {
            CgroupError::Write {
                controller: Controller::Devices,
                setting: if rule.allow { "devices.allow" } else { "devices.deny" },
                value: rule.to_string(),
                path: path.to_owned(),
                source,
            }
        })?;
    }
    let kept = read(path, LIST)?;
    if kept.lines().any(|line| line == "a *:* rwm") {
        return Ok(());
    }
    for (index, rule) in rules.iter().enumerate() {
        // A later rule on the same device may have changed it; the last word counts.
        let last_word = rules[index + 1..].iter().all(|later| (later.major, later.minor) != (rule.major, rule.minor));
        if rule.allow && last_word && !kept.lines().any(|line| covers(line, rule)) {
            return Err(CgroupError::ReadBack {
                controller: Controller::Devices,
                setting: LIST,
                requested: rule.to_string(),
                kept: kept.replace('\n', ", "),
                path: path.to_owned(),
            });
        }
    }
    Ok(())
}

/// Whether a line of `devices.list` permits all that the rule asks for.
fn covers(line: &str, rule: &Rule) -> bool {
    let asked = rule.to_string();
    match (line.rsplit_once(' '), asked.rsplit_once(' ')) {
        (Some((device, kept)), Some((wanted, letters))) => {
            device == wanted && letters.chars().all(|letter| kept.contains(letter))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_the_kernel_writes_them() {
        assert_eq!(DEFAULT[0].to_string(), "c 1:3 rwm");
        assert_eq!(DEFAULT[8].to_string(), "c 136:* rwm");
        let block = Rule { kind: Kind::Block, major: Some(7), minor: Some(0), mknod: false, ..DEFAULT[0] };
        assert_eq!(block.to_string(), "b 7:0 rw");
        assert!(covers("b 7:0 rwm", &block));
        assert!(!covers("b 7:0 r", &block));
    }
}
