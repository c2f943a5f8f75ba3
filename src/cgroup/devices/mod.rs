//! Which device nodes may be read, written and made: a controller on v1, a BPF program on v2, one meaning.
//!
//! A [`Policy`] is a default and a list of rules; of the rules that speak of an access, the last decides. v1 keeps
//! less than that (a default and exceptions to it), so a rule that v1 would take and give another meaning is refused
//! there.

use std::fmt;

use super::{CgroupError, Controller, Hierarchy, Place};

pub mod program;
mod v1;
mod v2;

pub(super) use v1::write_default_rules;
pub(super) use v2::Attached;

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

/// What a program wants of a device. The bits are those of the v2 kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Block or character device.
    pub kind: Kind,
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
    /// [`MKNOD`], [`READ`], [`WRITE`], or several: opening for both reads and writes at once.
    pub bits: u32,
}

/// Making a node.
pub const MKNOD: u32 = 1;
/// Reading.
pub const READ: u32 = 2;
/// Writing.
pub const WRITE: u32 = 4;

impl Rule {
    /// What it is about, as [`Access`] has it.
    #[must_use]
    pub fn bits(&self) -> u32 {
        [(self.mknod, MKNOD), (self.read, READ), (self.write, WRITE)]
            .into_iter()
            .fold(0, |bits, (set, bit)| if set { bits | bit } else { bits })
    }

    fn is_for(&self, access: &Access) -> bool {
        self.kind == access.kind
            && self.major.is_none_or(|major| major == access.major)
            && self.minor.is_none_or(|minor| minor == access.minor)
    }

    fn same_devices(&self, other: &Rule) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    fn shares_devices(&self, other: &Rule) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meet(self.major, other.major) && meet(self.minor, other.minor)
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

/// What a group's processes may do with devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What holds where no rule speaks.
    pub allow_by_default: bool,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// Everything is forbidden but [`DEFAULT`].
    #[must_use]
    pub fn container() -> Self {
        Self { allow_by_default: false, rules: DEFAULT.to_vec() }
    }

    /// Everything is permitted.
    #[must_use]
    pub fn everything() -> Self {
        Self { allow_by_default: true, rules: Vec::new() }
    }

    /// Whether an access is permitted: for each of its bits, the last rule that speaks of it, else the default.
    #[must_use]
    pub fn permits(&self, access: &Access) -> bool {
        [MKNOD, READ, WRITE].into_iter().filter(|bit| access.bits & bit != 0).all(|bit| {
            let last = self.rules.iter().rev().find(|rule| rule.is_for(access) && rule.bits() & bit != 0);
            last.map_or(self.allow_by_default, |rule| rule.allow)
        })
    }
}

/// A group's policy, in force.
#[derive(Debug)]
pub(super) struct InForce {
    policy: Policy,
    program: Option<Attached>,
}

impl InForce {
    /// Puts the policy of a new group in force. A v1 group has it from its parent already.
    pub(super) fn begin(place: Option<&Place>, container_default: bool) -> Result<Self, CgroupError> {
        let policy = if container_default { Policy::container() } else { Policy::everything() };
        let program = match place {
            Some(place) if place.hierarchy == Hierarchy::V2 && container_default => {
                Some(Attached::new(&place.path, &policy)?)
            }
            _ => None,
        };
        Ok(Self { policy, program })
    }

    /// Puts the container policy in force in a group of its own.
    pub(super) fn confine(place: &Place) -> Result<Self, CgroupError> {
        let policy = Policy::container();
        let program = match place.hierarchy {
            Hierarchy::V1 => {
                write_default_rules(&place.path)?;
                None
            }
            Hierarchy::V2 => Some(Attached::new(&place.path, &policy)?),
        };
        Ok(Self { policy, program })
    }

    /// Adds rules. On v2 they all take effect in one step.
    ///
    /// # Errors
    /// EPERM when the parent group does not permit what a rule would; a rule that v1 cannot express.
    pub(super) fn add(&mut self, place: &Place, rules: &[Rule]) -> Result<(), CgroupError> {
        let mut policy = self.policy.clone();
        policy.rules.extend_from_slice(rules);
        match place.hierarchy {
            Hierarchy::V1 => {
                if let Some(rule) = v1::inexpressible(&self.policy, rules) {
                    return Err(CgroupError::DeviceRule { rule });
                }
                v1::apply(&place.path, rules)?;
            }
            Hierarchy::V2 => match &mut self.program {
                Some(program) => program.replace(&place.path, &policy)?,
                None => self.program = Some(Attached::new(&place.path, &policy)?),
            },
        }
        self.policy = policy;
        Ok(())
    }
}

/// The controller of this module, for its errors.
const CONTROLLER: Controller = Controller::Devices;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_the_kernel_writes_them() {
        assert_eq!(DEFAULT[0].to_string(), "c 1:3 rwm");
        assert_eq!(DEFAULT[8].to_string(), "c 136:* rwm");
        let block = Rule { kind: Kind::Block, major: Some(7), minor: Some(0), mknod: false, ..DEFAULT[0] };
        assert_eq!(block.to_string(), "b 7:0 rw");
    }

    #[test]
    fn the_last_word_decides_for_each_kind_of_access() {
        let rule = |allow, minor, read, write| Rule { allow, minor, read, write, mknod: false, ..DEFAULT[0] };
        let policy = Policy {
            allow_by_default: false,
            rules: vec![rule(true, None, true, true), rule(false, Some(3), false, true)],
        };
        let access = |minor, bits| Access { kind: Kind::Char, major: 1, minor, bits };
        assert!(policy.permits(&access(5, READ | WRITE)));
        assert!(policy.permits(&access(3, READ)));
        // Forbidding one half forbids the whole.
        assert!(!policy.permits(&access(3, READ | WRITE)));
        assert!(!policy.permits(&access(5, MKNOD)));
        assert!(!policy.permits(&Access { kind: Kind::Block, ..access(5, READ) }));
        assert!(Policy::everything().permits(&access(0, MKNOD)));
    }
}
