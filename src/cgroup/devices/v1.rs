//! The devices controller of cgroup v1: rules are written one by one, and kept as exceptions to a default.

use std::io;
use std::path::Path;

use cgroups_rs::devices::{DevicePermissions, DeviceType, DevicesController};

use super::{CONTROLLER, DEFAULT, Kind, Policy, Rule};
use crate::cgroup::{CgroupError, read, setting, write};

/// The file that lists the rules in force.
const LIST: &str = "devices.list";

/// Forbids everything and then permits [`DEFAULT`], unless that is what the group has already.
///
/// # Errors
/// When a rule cannot be written or is not kept.
pub(in crate::cgroup) fn write_default_rules(path: &Path) -> Result<(), CgroupError> {
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
        write_rule(&controller, rule).map_err(|error| refusal(path, rule, setting::io_error(error)))?;
    }
    let kept = read(path, LIST)?;
    // What a group that permits everything forbids is not shown.
    if kept.lines().any(|line| line == "a *:* rwm") {
        return Ok(());
    }
    for (index, rule) in rules.iter().enumerate() {
        let last_word = !rules[index + 1..].iter().any(|later| later.same_devices(rule));
        if rule.allow && last_word && !kept.lines().any(|line| covers(line, rule)) {
            return Err(CgroupError::ReadBack {
                controller: CONTROLLER,
                setting: LIST,
                requested: rule.to_string(),
                kept: kept.replace('\n', ", "),
                path: path.to_owned(),
            });
        }
    }
    Ok(())
}

/// Why the kernel did not take a rule. It knows EPERM for both: no right to write, and more than the group above has.
fn refusal(path: &Path, rule: &Rule, source: io::Error) -> CgroupError {
    if rule.allow && source.kind() == io::ErrorKind::PermissionDenied {
        return CgroupError::DeviceWidening { rule: *rule, path: path.to_owned(), source };
    }
    CgroupError::Write {
        controller: CONTROLLER,
        setting: if rule.allow { "devices.allow" } else { "devices.deny" },
        value: rule.to_string(),
        path: path.to_owned(),
        source,
    }
}

fn write_rule(controller: &DevicesController, rule: &Rule) -> cgroups_rs::error::Result<()> {
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
    write(controller, kind, number(rule.major), number(rule.minor), &permissions)
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

/// The first rule that v1 would take without giving it its meaning: one that takes back, for some of the devices of
/// an exception but not exactly for those, what the exception says. v1 removes an exception only for the very devices
/// that it was made for.
pub(super) fn inexpressible(policy: &Policy, rules: &[Rule]) -> Option<Rule> {
    let mut exceptions: Vec<(Rule, u32)> = Vec::new();
    for (index, rule) in policy.rules.iter().chain(rules).enumerate() {
        if rule.allow != policy.allow_by_default {
            exceptions.push((*rule, rule.bits()));
            continue;
        }
        for (exception, bits) in &mut exceptions {
            if exception.same_devices(rule) {
                *bits &= !rule.bits();
            } else if exception.shares_devices(rule) && *bits & rule.bits() != 0 && index >= policy.rules.len() {
                return Some(*rule);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_line_covers_what_it_permits() {
        let block = Rule { kind: Kind::Block, major: Some(7), minor: Some(0), mknod: false, ..DEFAULT[0] };
        assert!(covers("b 7:0 rwm", &block));
        assert!(!covers("b 7:0 r", &block));
    }

    #[test]
    fn a_hole_in_a_wider_rule_cannot_be_expressed() {
        let rule = |allow, minor| Rule { allow, minor, ..DEFAULT[0] };
        let everything = Policy::everything();
        assert_eq!(inexpressible(&everything, &[rule(false, Some(11))]), None);
        assert_eq!(inexpressible(&everything, &[rule(false, Some(11)), rule(true, Some(11))]), None);
        let hole = [rule(false, None), rule(true, Some(3))];
        assert_eq!(inexpressible(&everything, &hole), Some(hole[1]));
        let container = Policy::container();
        assert_eq!(inexpressible(&container, &[rule(false, Some(3))]), None);
        assert_eq!(inexpressible(&container, &[rule(false, Some(4))]), None);
        assert_eq!(inexpressible(&container, &[rule(false, None)]), Some(rule(false, None)));
        let terminal = Rule { allow: false, major: Some(136), minor: Some(0), ..DEFAULT[0] };
        assert_eq!(inexpressible(&container, &[terminal]), Some(terminal));
    }
}
