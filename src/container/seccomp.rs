//! The default seccomp filter, compiled once a process.
//!
//! It denies what could reach beyond a container: loading code into the kernel, mounting, namespaces, other
//! processes' memory, clocks, keys, swap, raw I/O ports.
//!
//! seccompiler compiles a list of calls to a chain of comparisons. When a filter is installed, the kernel walks it
//! once for every system call number there is, so a long chain costs each start some 0.1 ms. Hence the calls are
//! spread over several short chains behind a binary search, and the whole is shortened.

pub mod profile;
mod program;
mod shorten;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

use super::capabilities::CapabilitySet;

/// System calls that fail with EPERM, and the capability that opens them where there is one.
const DENIED: &[(i64, Option<&str>)] = &[
    (libc::SYS_acct, Some("SYS_PACCT")),
    (libc::SYS_add_key, None),
    (libc::SYS_adjtimex, Some("SYS_TIME")),
    (libc::SYS_bpf, Some("SYS_ADMIN")),
    (libc::SYS_clock_adjtime, Some("SYS_TIME")),
    (libc::SYS_clock_settime, Some("SYS_TIME")),
    (libc::SYS_delete_module, Some("SYS_MODULE")),
    (libc::SYS_fanotify_init, Some("SYS_ADMIN")),
    (libc::SYS_finit_module, Some("SYS_MODULE")),
    (libc::SYS_fsconfig, Some("SYS_ADMIN")),
    (libc::SYS_fsmount, Some("SYS_ADMIN")),
    (libc::SYS_fsopen, Some("SYS_ADMIN")),
    (libc::SYS_fspick, Some("SYS_ADMIN")),
    (libc::SYS_get_mempolicy, Some("SYS_NICE")),
    (libc::SYS_init_module, Some("SYS_MODULE")),
    (libc::SYS_io_uring_enter, None),
    (libc::SYS_io_uring_register, None),
    (libc::SYS_io_uring_setup, None),
    (libc::SYS_kcmp, Some("SYS_PTRACE")),
    (libc::SYS_kexec_file_load, Some("SYS_BOOT")),
    (libc::SYS_kexec_load, Some("SYS_BOOT")),
    (libc::SYS_keyctl, None),
    (libc::SYS_lookup_dcookie, Some("SYS_ADMIN")),
    (libc::SYS_mbind, Some("SYS_NICE")),
    (libc::SYS_migrate_pages, None),
    (libc::SYS_mount, Some("SYS_ADMIN")),
    (libc::SYS_mount_setattr, Some("SYS_ADMIN")),
    (libc::SYS_move_mount, Some("SYS_ADMIN")),
    (libc::SYS_move_pages, None),
    (libc::SYS_name_to_handle_at, Some("SYS_ADMIN")),
    (libc::SYS_nfsservctl, None),
    (libc::SYS_open_by_handle_at, Some("DAC_READ_SEARCH")),
    (libc::SYS_open_tree, Some("SYS_ADMIN")),
    (libc::SYS_perf_event_open, Some("PERFMON")),
    (libc::SYS_pidfd_getfd, Some("SYS_PTRACE")),
    (libc::SYS_pivot_root, None),
    (libc::SYS_process_vm_readv, Some("SYS_PTRACE")),
    (libc::SYS_process_vm_writev, Some("SYS_PTRACE")),
    (libc::SYS_ptrace, Some("SYS_PTRACE")),
    (libc::SYS_quotactl, Some("SYS_ADMIN")),
    (libc::SYS_reboot, Some("SYS_BOOT")),
    (libc::SYS_request_key, None),
    (libc::SYS_set_mempolicy, Some("SYS_NICE")),
    (libc::SYS_setdomainname, Some("SYS_ADMIN")),
    (libc::SYS_sethostname, Some("SYS_ADMIN")),
    (libc::SYS_setns, Some("SYS_ADMIN")),
    (libc::SYS_settimeofday, Some("SYS_TIME")),
    (libc::SYS_swapoff, None),
    (libc::SYS_swapon, None),
    (libc::SYS_syslog, Some("SYSLOG")),
    (libc::SYS_umount2, Some("SYS_ADMIN")),
    (libc::SYS_unshare, Some("SYS_ADMIN")),
    (libc::SYS_userfaultfd, None),
    (libc::SYS_vhangup, Some("SYS_TTY_CONFIG")),
];

/// Those that only x86 has.
#[cfg(target_arch = "x86_64")]
const DENIED_HERE: &[(i64, Option<&str>)] = &[
    (libc::SYS_ioperm, Some("SYS_RAWIO")),
    (libc::SYS_iopl, Some("SYS_RAWIO")),
    (libc::SYS_modify_ldt, None),
    (libc::SYS__sysctl, None),
    (libc::SYS_uselib, None),
    (libc::SYS_ustat, None),
    (libc::SYS_sysfs, None),
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_HERE: &[(i64, Option<&str>)] = &[];

/// The highest system call number that was known when the list above was made. Later ones answer ENOSYS, as on an
/// older kernel, until someone has judged them; so do the x32 numbers of x86, which lie far above.
const LAST_KNOWN: u32 = libc::SYS_mseal as u32;

/// Why a filter could not be compiled.
#[derive(Debug, thiserror::Error)]
#[error("cannot compile the seccomp filter")]
pub struct SeccompError(#[from] seccompiler::Error);

/// The default filter for a container with these capabilities. Compiled once for each set.
///
/// # Errors
/// When seccompiler knows no filter for this architecture.
pub fn default_filter(capabilities: CapabilitySet) -> Result<Arc<[sock_filter]>, SeccompError> {
    static COMPILED: OnceLock<(CapabilitySet, Arc<[sock_filter]>)> = OnceLock::new();
    if let Some((set, filter)) = COMPILED.get()
        && *set == capabilities
    {
        return Ok(filter.clone());
    }
    let filter: Arc<[sock_filter]> = compile(capabilities)?.into();
    // Another set may have been first; then this one is compiled at each use, which is rare.
    let _ = COMPILED.set((capabilities, filter.clone()));
    Ok(filter)
}

/// How many denied calls one compiled program holds; the search for the right one comes before it.
const CALLS_A_PROGRAM: usize = 12;

fn compile(capabilities: CapabilitySet) -> Result<BpfProgram, SeccompError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (number, opened_by) in DENIED.iter().chain(DENIED_HERE) {
        if !opened_by.is_some_and(|name| capabilities.has(name)) {
            rules.insert(*number, Vec::new());
        }
    }
    if !capabilities.has("SYS_ADMIN") {
        rules.insert(libc::SYS_clone, new_namespace_rules()?);
    }
    let rules: Vec<(i64, Vec<SeccompRule>)> = rules.into_iter().collect();
    let mut parts = Vec::new();
    for chunk in rules.chunks(CALLS_A_PROGRAM) {
        parts.push((chunk[0].0 as u32, program(chunk.iter().cloned().collect())?));
    }
    Ok(shorten::shorten(&assemble(parts, !capabilities.has("SYS_ADMIN"))))
}

/// One program that denies these calls and permits the rest.
fn program(rules: BTreeMap<i64, Vec<SeccompRule>>) -> Result<BpfProgram, SeccompError> {
    let arch = std::env::consts::ARCH.try_into().map_err(seccompiler::Error::from)?;
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch).map_err(seccompiler::Error::from)?;
    Ok(filter.try_into().map_err(seccompiler::Error::from)?)
}

/// One rule for each namespace flag of clone(2): rules of one call are alternatives.
fn new_namespace_rules() -> Result<Vec<SeccompRule>, SeccompError> {
    const FLAGS: [i32; 7] = [
        libc::CLONE_NEWNS,
        libc::CLONE_NEWUTS,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWCGROUP,
    ];
    let rule = |flag: i32| {
        let flag = flag as u32 as u64;
        let set = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
        SeccompRule::new(vec![set])
    };
    FLAGS.into_iter().map(rule).collect::<Result<_, _>>().map_err(|error| seccompiler::Error::from(error).into())
}

const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
const SECCOMP_RET_ERRNO: u32 = 0x0005_0000;
const OFFSET_OF_NUMBER: u32 = 0;

/// Joins programs, each responsible for the numbers from its first one up to the next program's, behind a search.
///
/// Unknown numbers answer ENOSYS first, and so does clone3, whose flags a filter cannot see behind its pointer; every
/// C library falls back to clone then. Each program checks the architecture itself.
fn assemble(parts: Vec<(u32, BpfProgram)>, refuse_clone3: bool) -> BpfProgram {
    // Jumps count the instructions that they pass over: to the return that follows, or past it.
    let clone3 = if refuse_clone3 { libc::SYS_clone3 as u32 } else { u32::MAX };
    let mut whole = vec![
        sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: OFFSET_OF_NUMBER },
        sock_filter { code: JUMP_IF_GREATER, jt: 1, jf: 0, k: LAST_KNOWN },
        sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: 1, k: clone3 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: SECCOMP_RET_ERRNO | libc::ENOSYS as u32 },
    ];
    whole.extend(search(&parts));
    whole
}

/// A binary search for the part of a number: the parts' programs are its leaves.
fn search(parts: &[(u32, BpfProgram)]) -> BpfProgram {
    match parts {
        [] => Vec::new(),
        [(_, program)] => program.clone(),
        _ => {
            let (lower, upper) = parts.split_at(parts.len() / 2);
            let (low, high) = (search(lower), search(upper));
            // Conditional jumps reach 255 instructions only, so the far one is taken by an unconditional jump.
            let mut code = vec![
                sock_filter { code: JUMP_IF_GREATER_OR_EQUAL, jt: 0, jf: 1, k: upper[0].0 },
                sock_filter { code: JUMP, jt: 0, jf: 0, k: low.len() as u32 },
            ];
            code.extend(low);
            code.extend(high);
            code
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_opens_its_calls() {
        let confined = compile(CapabilitySet::docker_default()).unwrap();
        let administrator = compile(CapabilitySet(u64::MAX)).unwrap();
        let names = |program: &BpfProgram, number: i64| program.iter().any(|step| i64::from(step.k) == number);
        assert!(names(&confined, libc::SYS_mount) && !names(&administrator, libc::SYS_mount));
        assert!(names(&confined, libc::SYS_keyctl) && names(&administrator, libc::SYS_keyctl));
        assert!(administrator.len() < confined.len());
    }

    /// Runs a filter as the kernel would, on the instructions that occur.
    fn run(program: &[sock_filter], number: u32, argument: u64) -> u32 {
        let arch = 0xc000_003e_u32;
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&number.to_le_bytes());
        data[4..8].copy_from_slice(&arch.to_le_bytes());
        data[16..24].copy_from_slice(&argument.to_le_bytes());
        let (mut at, mut register) = (0, 0u32);
        loop {
            let step = &program[at];
            at += 1;
            let jump = |holds: bool| usize::from(if holds { step.jt } else { step.jf });
            match step.code {
                LOAD_WORD => {
                    let bytes = &data[step.k as usize..][..4];
                    register = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
                JUMP => at += step.k as usize,
                JUMP_IF_EQUAL => at += jump(register == step.k),
                JUMP_IF_GREATER => at += jump(register > step.k),
                JUMP_IF_GREATER_OR_EQUAL => at += jump(register >= step.k),
                0x54 => register &= step.k,
                RETURN => return step.k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn every_number_gets_its_answer() {
        const ALLOW: u32 = 0x7fff_0000;
        let (eperm, enosys) = (SECCOMP_RET_ERRNO | libc::EPERM as u32, SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        let filter = compile(CapabilitySet::docker_default()).unwrap();
        let denied: Vec<u32> = DENIED.iter().chain(DENIED_HERE).map(|(number, _)| *number as u32).collect();
        for number in 0..LAST_KNOWN + 200 {
            let expected = match number {
                number if denied.contains(&number) => eperm,
                number if number == libc::SYS_clone3 as u32 || number > LAST_KNOWN => enosys,
                _ => ALLOW,
            };
            assert_eq!(run(&filter, number, 0), expected, "{number}");
        }
        let x32_mount = 0x4000_0000 | libc::SYS_mount as u32;
        assert_eq!(run(&filter, x32_mount, 0), enosys);
        let clone = libc::SYS_clone as u32;
        assert_eq!(run(&filter, clone, libc::CLONE_NEWUSER as u64), eperm);
        assert_eq!(run(&filter, clone, (libc::CLONE_VM | libc::CLONE_THREAD) as u64), ALLOW);
    }

    #[test]
    fn it_is_compiled_once() {
        let set = CapabilitySet::docker_default();
        assert!(Arc::ptr_eq(&default_filter(set).unwrap(), &default_filter(set).unwrap()));
    }
}
