//! `kind = "devices"`: device × access, probed in one container a set of rules; rules can be added while it runs.
//!
//! A case is called `devices/<runtime>/<rules>`, where `<rules>` is `default` or the rules with `-` for their spaces
//! and `+` between them, and `/then-<rules>` is added where the file adds rules while the container runs.

use std::fmt;

use super::matrix::product;
use super::raw::Node;
use super::read::{self, Table, Wrong};
use super::source::suggest;
use super::{Case, CaseKind, RuntimeKind};

/// The keys, for `isobench list`: name, values or range, default.
pub(super) const KEYS: &[super::Key] = &[
    ("runtime", "builtin", "\"builtin\"", "what is put under test"),
    (
        "rules",
        "\"default\", or as in \"allow c 1:11 r, deny c 1:5 w\"",
        "\"default\"",
        "device rules on top of the default ones",
    ),
    ("then", "as `rules`", "none", "rules added while the container runs; it is probed again after them"),
    ("device", "names (see below), or as in \"c 240:7\"", "all names", "what is probed: opened, and made as a node"),
    ("access", "read, write, mknod", "all three", "how"),
];

/// A devices case yields enforcement rows and no metric.
pub(super) const METRICS: &[&str] = &[];

/// The devices that have a name here. Opening one of them for a moment does nothing.
const NAMED: &[(&str, DeviceKind, u32, u32)] = &[
    ("null", DeviceKind::Char, 1, 3),
    ("zero", DeviceKind::Char, 1, 5),
    ("full", DeviceKind::Char, 1, 7),
    ("random", DeviceKind::Char, 1, 8),
    ("urandom", DeviceKind::Char, 1, 9),
    ("tty", DeviceKind::Char, 5, 0),
    ("kmsg", DeviceKind::Char, 1, 11),
    ("mem", DeviceKind::Char, 1, 1),
    ("port", DeviceKind::Char, 1, 4),
    ("fuse", DeviceKind::Char, 10, 229),
    ("loop0", DeviceKind::Block, 7, 0),
];

/// The largest minor number; majors go to 4095.
const MAX_MINOR: u32 = (1 << 20) - 1;
const MAX_MAJOR: u32 = (1 << 12) - 1;

/// A case of the `devices` experiment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicesCase {
    /// The runtime under test.
    pub runtime: RuntimeKind,
    /// Rules on top of the default ones, in order.
    pub rules: Vec<DeviceRule>,
    /// Rules that are added while the container runs; none: it is probed once.
    pub then: Vec<DeviceRule>,
    /// What is probed.
    pub devices: Vec<Device>,
    /// How each is probed.
    pub accesses: Vec<DeviceAccess>,
}

named! {
    /// Block or character device.
    DeviceKind {
        /// A character device.
        Char = "c",
        /// A block device.
        Block = "b",
    }
}

named! {
    /// What a program tries with a device.
    DeviceAccess {
        /// Opening a node for reading.
        Read = "read",
        /// Opening a node for writing.
        Write = "write",
        /// Making a node.
        Mknod = "mknod",
    }
}

/// A device that is probed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// What people call it: `null`, or `c 240:7`.
    pub name: String,
    /// Block or character device.
    pub kind: DeviceKind,
    /// The major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
}

/// A rule of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether it permits or forbids.
    pub allow: bool,
    /// Block or character device.
    pub kind: DeviceKind,
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

impl fmt::Display for DeviceRule {
    /// As a scenario has it: `allow c 1:11 r`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let letters: String = [(self.read, 'r'), (self.write, 'w'), (self.mknod, 'm')]
            .into_iter()
            .filter_map(|(set, letter)| set.then_some(letter))
            .collect();
        let verb = if self.allow { "allow" } else { "deny" };
        write!(f, "{verb} {} {}:{} {letters}", self.kind, number(self.major), number(self.minor))
    }
}

/// Reads one `[[experiment]]` of this kind and expands it to its cases.
pub(super) fn expand(mut table: Table<'_, '_>) -> Vec<Case> {
    let runtimes = table.list("runtime", &[RuntimeKind::Builtin], read::grouped_runtime);
    let rules = table.list("rules", &[Vec::new()], read_rules);
    let then = table.list("then", &[Vec::new()], read_rules);
    let all: Vec<Device> = NAMED.iter().map(|&(name, kind, major, minor)| device(name, kind, major, minor)).collect();
    let devices = table.list("device", &all, read_device);
    let accesses = table.list("access", DeviceAccess::ALL, read::name("access", DeviceAccess::ALL));
    let devices: Vec<Device> = devices.iter().map(|(device, _)| device.clone()).collect();
    let accesses: Vec<DeviceAccess> = accesses.iter().map(|(access, _)| *access).collect();
    let cases = product([runtimes.len(), rules.len(), then.len()])
        .map(|[r, u, t]| {
            let case = DevicesCase {
                runtime: *runtimes.at(r),
                rules: rules.at(u).clone(),
                then: then.at(t).clone(),
                devices: devices.clone(),
                accesses: accesses.clone(),
            };
            let then = if case.then.is_empty() { String::new() } else { format!("/then-{}", id_part(&case.then)) };
            let id = format!("devices/{}/{}{then}", case.runtime, id_part(&case.rules));
            Case { id, baseline: None, kind: CaseKind::Devices(case) }
        })
        .collect();
    table.finish();
    cases
}

/// The dimensions of a case beside runtime and network, as text.
pub(super) fn parameters(case: &DevicesCase) -> Vec<(&'static str, String)> {
    let rules = |rules: &[DeviceRule]| match rules {
        [] => "default".to_owned(),
        rules => rules.iter().map(DeviceRule::to_string).collect::<Vec<_>>().join(", "),
    };
    let mut parameters = vec![("rules", rules(&case.rules))];
    if !case.then.is_empty() {
        parameters.push(("then", rules(&case.then)));
    }
    parameters.push(("devices", case.devices.iter().map(|device| device.name.as_str()).collect::<Vec<_>>().join(", ")));
    parameters
}

fn device(name: &str, kind: DeviceKind, major: u32, minor: u32) -> Device {
    Device { name: name.to_owned(), kind, major, minor }
}

fn id_part(rules: &[DeviceRule]) -> String {
    match rules {
        [] => "default".to_owned(),
        rules => rules.iter().map(|rule| rule.to_string().replace(' ', "-")).collect::<Vec<_>>().join("+"),
    }
}

fn read_rules(node: &Node) -> Result<Vec<DeviceRule>, Wrong> {
    let text = read::text(node)?;
    if text.trim() == "default" {
        return Ok(Vec::new());
    }
    text.split(',').map(|rule| read_rule(rule.trim())).collect()
}

fn read_rule(text: &str) -> Result<DeviceRule, Wrong> {
    let wrong = || {
        Wrong::new(format!("`{text}` is not a device rule"), "write it as in \"allow c 1:11 r\" or \"deny b 7:* rwm\"")
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let &[verb, kind, numbers, letters] = words.as_slice() else { return Err(wrong()) };
    let allow = match verb {
        "allow" => true,
        "deny" => false,
        _ => return Err(wrong()),
    };
    let kind = kind_of(kind).ok_or_else(wrong)?;
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str, high: u32| match text {
        "*" => Ok(None),
        text => text.parse::<u32>().ok().filter(|number| *number <= high).map(Some).ok_or_else(wrong),
    };
    let has = |letter| letters.contains(letter);
    if letters.is_empty() || letters.chars().any(|letter| !"rwm".contains(letter)) {
        return Err(wrong());
    }
    Ok(DeviceRule {
        allow,
        kind,
        major: number(major, MAX_MAJOR)?,
        minor: number(minor, MAX_MINOR)?,
        read: has('r'),
        write: has('w'),
        mknod: has('m'),
    })
}

fn kind_of(text: &str) -> Option<DeviceKind> {
    DeviceKind::ALL.iter().copied().find(|kind| kind.as_str() == text)
}

fn read_device(node: &Node) -> Result<Device, Wrong> {
    let text = &read::text(node)?;
    if let Some(&(name, kind, major, minor)) = NAMED.iter().find(|known| known.0 == text) {
        return Ok(device(name, kind, major, minor));
    }
    let by_number = || {
        let (kind, numbers) = text.split_once(' ')?;
        let (major, minor) = numbers.split_once(':')?;
        let number = |text: &str, high: u32| text.parse::<u32>().ok().filter(|number| *number <= high);
        Some(device(text, kind_of(kind)?, number(major, MAX_MAJOR)?, number(minor, MAX_MINOR)?))
    };
    by_number().ok_or_else(|| {
        let names: Vec<&str> = NAMED.iter().map(|known| known.0).collect();
        let help = format!("{}, or its numbers, as in \"c 240:7\"", suggest(text, &names));
        Wrong::new(format!("unknown device `{text}`"), help)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Options, Scenario};
    use super::*;

    fn parse(keys: &str) -> Result<Scenario, String> {
        let text = format!("[scenario]\nname = \"t\"\nquestion = \"?\"\n[[experiment]]\nkind = \"devices\"\n{keys}\n");
        Scenario::parse(&text, "t.toml", &Options::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_make_the_cases() {
        let scenario =
            parse("rules = [\"default\", \"allow c 1:11 r, deny b 7:* rw\"]\nthen = \"allow c 1:1 w\"").unwrap();
        let ids: Vec<&str> = scenario.cases.iter().map(|case| case.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "devices/builtin/default/then-allow-c-1:1-w",
                "devices/builtin/allow-c-1:11-r+deny-b-7:*-rw/then-allow-c-1:1-w"
            ]
        );
        let CaseKind::Devices(case) = &scenario.cases[1].kind else { panic!("another kind") };
        assert_eq!(case.devices.len(), NAMED.len());
        assert_eq!(case.rules[1].to_string(), "deny b 7:* rw");
        assert_eq!(scenario.unenforced, Vec::<String>::new());
    }

    #[test]
    fn wrong_values_say_what_would_be_right() {
        for (keys, told) in [
            ("rules = \"permit c 1:1 r\"", "is not a device rule"),
            ("rules = \"allow c 1:1 x\"", "is not a device rule"),
            ("rules = \"allow c 5000:1 r\"", "is not a device rule"),
            ("device = \"nul\"", "unknown device `nul`"),
            ("device = [\"c 240:x\"]", "unknown device"),
            ("device = 5", "expected a string"),
            ("runtime = \"floor\"", "no control groups"),
        ] {
            let error = parse(keys).unwrap_err();
            assert!(error.contains(told), "{keys}: {error}");
        }
    }

    #[test]
    fn enforcement_can_be_left_out_of_the_judgement() {
        let scenario = parse("enforce = false").unwrap();
        assert_eq!(scenario.unenforced, ["devices/builtin/default"]);
    }
}
