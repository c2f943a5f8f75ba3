//! Docker's seccomp profiles: a JSON text and a container's capabilities become a filter.
//!
//! Names of system calls that this machine's architecture has not are passed over: profiles name those of all
//! architectures and of later kernels. A call that a profile does not name gets the default action; one that is newer
//! than all that it names answers ENOSYS where the default forbids, so that C libraries fall back to an older call.
//!
//! Where rules of one call contradict each other the stricter one holds, in whichever order they stand. So a filter is
//! never more permissive than libseccomp's for the same profile.

use std::collections::BTreeMap;
use std::sync::Arc;

use seccompiler::sock_filter;
use serde::{Deserialize, Deserializer};

use self::arch::Arch;
use super::super::capabilities::{CapabilitySet, NAMES};
use super::program::{Answers, Condition, Decision, Operator, Program, Rule, Verdict};

mod arch;

/// The kernel's most errno.
const MOST_ERRNO: u16 = 4095;

/// Why a profile is none.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Not JSON of that form.
    #[error("the seccomp profile cannot be understood")]
    Form(#[source] serde_json::Error),
    /// An action that there is not, or that nothing here can serve.
    #[error(
        "the seccomp profile's action `{0}` is not known; there are SCMP_ACT_ALLOW, _ERRNO, _KILL, _KILL_THREAD, _KILL_PROCESS, _TRAP, _TRACE and _LOG"
    )]
    Action(String),
    /// A comparison that there is not.
    #[error(
        "the seccomp profile's comparison `{0}` is not known; there are SCMP_CMP_NE, _LT, _LE, _EQ, _GE, _GT and _MASKED_EQ"
    )]
    Operator(String),
    /// System calls have six arguments.
    #[error("the seccomp profile compares argument {0}; system calls have arguments 0 to 5")]
    Argument(u32),
    /// An errno that there is not.
    #[error("the seccomp profile's errno {0} is none; they go from 0 to {MOST_ERRNO}")]
    Errno(u32),
    /// A kernel's version is not `major.minor`.
    #[error("the seccomp profile's kernel version `{0}` is not of the form 4.8")]
    Kernel(String),
    /// An architecture is not one of libseccomp's.
    #[error("the seccomp profile's architecture `{0}` is not known; they are written as in SCMP_ARCH_X86_64")]
    Arch(String),
    /// Two keys that exclude each other.
    #[error("the seccomp profile has both `{0}` and `{1}`; it may have one of them")]
    Both(&'static str, &'static str),
    /// Something that nothing here can serve.
    #[error("the seccomp profile asks for {0}, which is not supported")]
    Unsupported(&'static str),
    /// More instructions than the kernel takes.
    #[error("the seccomp profile makes a filter of {0} instructions; the kernel takes 4096")]
    TooLong(usize),
    /// No filter can be made for this architecture.
    #[error("there are no seccomp filters for the architecture {0}")]
    Machine(&'static str),
}

/// A profile as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    arch_map: Vec<Family>,
    #[serde(default, deserialize_with = "nullable")]
    syscalls: Vec<Calls>,
    #[serde(default, deserialize_with = "nullable")]
    listener_path: String,
}

/// An architecture and those that its processes can be of too.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Family {
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    sub_architectures: Vec<String>,
}

/// System calls that get one answer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    #[serde(default, deserialize_with = "nullable")]
    names: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    name: String,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "nullable")]
    args: Vec<Arg>,
    #[serde(default, deserialize_with = "nullable")]
    includes: When,
    #[serde(default, deserialize_with = "nullable")]
    excludes: When,
}

/// A condition on an argument.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u32,
    #[serde(default)]
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Where system calls are listed for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct When {
    #[serde(default, deserialize_with = "nullable")]
    arches: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    min_kernel: String,
}

/// Reads `null` as nothing, as Go writes it.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Compiles a profile for a container with these capabilities, on this machine and its kernel.
///
/// # Errors
/// What is wrong with the profile.
pub fn compile(text: &str, capabilities: CapabilitySet) -> Result<Arc<[sock_filter]>, ProfileError> {
    Ok(compile_for(text, capabilities, kernel())?.code()?.into())
}

/// The version of the kernel that runs.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // Where it is not told, nothing that depends on it is permitted.
    version(release.trim()).unwrap_or((0, 0))
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn compile_for(text: &str, capabilities: CapabilitySet, kernel: (u32, u32)) -> Result<Program, ProfileError> {
    let profile: Profile = serde_json::from_str(text).map_err(ProfileError::Form)?;
    if !profile.listener_path.is_empty() {
        return Err(ProfileError::Unsupported("a listener"));
    }
    let default = verdict(&profile.default_action, profile.default_errno_ret)?;
    let mut applying = Vec::new();
    for calls in &profile.syscalls {
        // What is wrong is told, whether or not it applies here.
        let checked = Checked::new(calls)?;
        if holds(calls, capabilities, kernel)? {
            applying.push(checked);
        }
    }
    let arches = arches(&profile)?;
    Ok(Program { arches: arches.into_iter().map(|arch| answers(arch, &applying, default)).collect() })
}

/// The architectures that a filter has to know: this machine's, and of those that its processes can be of too the ones
/// that the profile lists.
fn arches(profile: &Profile) -> Result<Vec<&'static Arch>, ProfileError> {
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err(ProfileError::Both("architectures", "archMap"));
    }
    let [native, others @ ..] = arch::HERE else { return Err(ProfileError::Machine(std::env::consts::ARCH)) };
    let mut listed: Vec<&str> = profile.architectures.iter().map(String::as_str).collect();
    for family in &profile.arch_map {
        let all = std::iter::once(&family.architecture).chain(&family.sub_architectures);
        for name in all.clone() {
            arch::check(name)?;
        }
        if family.architecture == native.name {
            listed.extend(all.map(String::as_str));
        }
    }
    for name in &listed {
        arch::check(name)?;
    }
    let wanted = others.iter().filter(|other| listed.contains(&other.name));
    Ok(std::iter::once(native).chain(wanted).collect())
}

/// Whether an entry applies: nothing that excludes it, and all that it asks for.
fn holds(calls: &Calls, capabilities: CapabilitySet, kernel: (u32, u32)) -> Result<bool, ProfileError> {
    let native = arch::HERE.first().map_or("", |arch| arch.go_name);
    let has = |name: &String| {
        let name = name.to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name);
        NAMES.contains(&name) && capabilities.has(name)
    };
    let since = |when: &When| match when.min_kernel.as_str() {
        "" => Ok(None),
        text => match version(text) {
            Some(least) if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => Ok(Some(kernel >= least)),
            _ => Err(ProfileError::Kernel(text.to_owned())),
        },
    };
    let (includes, excludes) = (&calls.includes, &calls.excludes);
    let here = |when: &When| when.arches.iter().any(|arch| arch == native);
    let included = (includes.arches.is_empty() || here(includes)) && includes.caps.iter().all(has);
    let excluded = here(excludes) || excludes.caps.iter().any(has);
    let (old_enough, too_new) = (since(includes)?.unwrap_or(true), since(excludes)?.unwrap_or(false));
    Ok(included && !excluded && old_enough && !too_new)
}

/// An entry without mistakes.
struct Checked<'a> {
    names: Vec<&'a str>,
    verdict: Verdict,
    /// Alternatives; none: always.
    rules: Vec<Rule>,
}

impl<'a> Checked<'a> {
    fn new(calls: &'a Calls) -> Result<Self, ProfileError> {
        if !calls.name.is_empty() && !calls.names.is_empty() {
            return Err(ProfileError::Both("name", "names"));
        }
        let alone = Some(calls.name.as_str()).filter(|name| !name.is_empty());
        let conditions: Vec<Condition> = calls.args.iter().map(condition).collect::<Result<_, _>>()?;
        let repeats =
            |condition: &Condition| conditions.iter().filter(|other| other.index == condition.index).count() > 1;
        let rules = if conditions.is_empty() {
            Vec::new()
        } else if conditions.iter().any(repeats) {
            // As runc has it: conditions on one argument are alternatives, and then all of the entry's are.
            conditions.iter().map(|condition| Rule { conditions: vec![*condition] }).collect()
        } else {
            vec![Rule { conditions }]
        };
        let names = calls.names.iter().map(String::as_str).chain(alone).collect();
        Ok(Self { names, verdict: verdict(&calls.action, calls.errno_ret)?, rules })
    }
}

fn condition(arg: &Arg) -> Result<Condition, ProfileError> {
    let operator = match arg.op.as_str() {
        "SCMP_CMP_NE" => Operator::NotEqual,
        "SCMP_CMP_LT" => Operator::Less,
        "SCMP_CMP_LE" => Operator::LessOrEqual,
        "SCMP_CMP_EQ" => Operator::Equal,
        "SCMP_CMP_GE" => Operator::GreaterOrEqual,
        "SCMP_CMP_GT" => Operator::Greater,
        "SCMP_CMP_MASKED_EQ" => Operator::Masked(arg.value),
        other => return Err(ProfileError::Operator(other.to_owned())),
    };
    let index = u8::try_from(arg.index).ok().filter(|index| *index < 6).ok_or(ProfileError::Argument(arg.index))?;
    let value = if let Operator::Masked(_) = operator { arg.value_two } else { arg.value };
    Ok(Condition { index, operator, value })
}

fn verdict(action: &str, errno: Option<u32>) -> Result<Verdict, ProfileError> {
    let data = |default: i32| {
        let errno = errno.unwrap_or(default.cast_unsigned());
        let known = u16::try_from(errno).ok().filter(|errno| *errno <= MOST_ERRNO);
        known.ok_or(ProfileError::Errno(errno))
    };
    Ok(match action {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Verdict::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Verdict::KillProcess,
        "SCMP_ACT_TRAP" => Verdict::Trap,
        "SCMP_ACT_ERRNO" => Verdict::Errno(data(libc::EPERM)?),
        "SCMP_ACT_TRACE" => Verdict::Trace(data(libc::EPERM)?),
        "SCMP_ACT_LOG" => Verdict::Log,
        "SCMP_ACT_ALLOW" => Verdict::Allow,
        "SCMP_ACT_NOTIFY" => return Err(ProfileError::Unsupported("the action SCMP_ACT_NOTIFY")),
        other => return Err(ProfileError::Action(other.to_owned())),
    })
}

/// What every call of an architecture gets.
fn answers(arch: &Arch, entries: &[Checked<'_>], default: Verdict) -> Answers {
    let mut calls: BTreeMap<u32, Vec<&Checked<'_>>> = BTreeMap::new();
    for entry in entries {
        for number in entry.names.iter().filter_map(|name| (arch.number)(name)) {
            calls.entry(number).or_default().push(entry);
        }
    }
    let forbids = !matches!(default, Verdict::Allow | Verdict::Log | Verdict::Trace(_));
    let last = calls.last_key_value().map(|(number, _)| *number);
    let decisions = calls.into_iter().map(|(number, entries)| (number, decide(&entries, default))).collect();
    Answers { audit: arch.audit, has_x32: arch.has_x32, decisions, default, last_known: last.filter(|_| forbids) }
}

/// One call's rules, the strictest first, and what it gets where none holds.
fn decide(entries: &[&Checked<'_>], default: Verdict) -> Decision {
    let always = entries.iter().filter(|entry| entry.rules.is_empty()).map(|entry| entry.verdict);
    let always = always.min_by_key(|verdict| verdict.rank());
    let mut rules: Vec<(Verdict, Rule)> = (entries.iter())
        .filter(|entry| always.is_none_or(|always| entry.verdict.rank() < always.rank()))
        .flat_map(|entry| entry.rules.iter().map(|rule| (entry.verdict, rule.clone())))
        .collect();
    rules.sort_by_key(|(verdict, _)| verdict.rank());
    Decision { rules, otherwise: always.unwrap_or(default) }
}

#[cfg(test)]
mod tests;
