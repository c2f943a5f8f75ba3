//! bpf(2), as far as device permissions of cgroup v2 need it: load a program, attach it to a group, ask which are
//! attached.
//!
//! `cgroup::devices` makes the instructions; here they only become numbers. The attributes are structs of our own
//! with the fields that are used: the kernel takes a shorter attribute than its own and reads the rest as zero.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const PROG_QUERY: u32 = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// The kernel wants one; no function that it keeps for the GPL is called.
const LICENSE: &CStr = c"MIT";

/// One instruction, as the kernel's `struct bpf_insn` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Class, source and operation.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub registers: u8,
    /// Jump distance or memory offset.
    pub offset: i16,
    /// The constant.
    pub immediate: i32,
}

/// A program that the kernel did not take.
#[derive(Debug)]
pub struct LoadError {
    /// What bpf(2) said.
    pub source: io::Error,
    /// What the verifier said; empty when it was not asked, as without privilege.
    pub log: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kernel did not take the BPF program")
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[repr(C)]
#[derive(Default)]
struct LoadAttribute {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct AttachAttribute {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttribute {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttribute {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The first fields of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
}

/// # Safety
/// Every address in the attribute must be valid for what the command does with it.
unsafe fn bpf<T>(command: u32, attribute: &mut T) -> io::Result<i64> {
    // SAFETY: the attribute is a live repr(C) struct of the given size; its addresses are the caller's promise.
    let returned = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// Loads a program that decides about devices. The descriptor keeps it; so does each group that it is attached to.
///
/// # Errors
/// EPERM without CAP_BPF or CAP_SYS_ADMIN; what the verifier refuses, with its log.
pub fn load_device_program(instructions: &[Instruction]) -> Result<OwnedFd, LoadError> {
    load(instructions, &mut []).or_else(|source| {
        // The log costs the kernel time, so it is asked for only when there is something to tell.
        let mut log = vec![0; 65_536];
        load(instructions, &mut log).map_err(|_| {
            let text = CStr::from_bytes_until_nul(&log).map(CStr::to_string_lossy).unwrap_or_default();
            LoadError { source, log: text.trim().to_owned() }
        })
    })
}

fn load(instructions: &[Instruction], log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..16 - 1].copy_from_slice(b"isobench_device");
    let mut attribute = LoadAttribute {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log_buf: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        prog_name: name,
        ..LoadAttribute::default()
    };
    // SAFETY: instructions, license and log outlive the call and are as long as the attribute says.
    let fd = unsafe { bpf(PROG_LOAD, &mut attribute) }?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Attaches a device program to a group beside what others attached, or, in one step, in the place of an earlier one
/// of ours.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN, or when another program there forbids more; ENOENT when `replaced` is not attached.
pub fn attach_device_program(
    group: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attribute = AttachAttribute {
        target_fd: group.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: CGROUP_DEVICE,
        attach_flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replace_bpf_fd: replaced.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    // SAFETY: the attribute holds no address.
    unsafe { bpf(PROG_ATTACH, &mut attribute) }.map(drop)
}

/// The ids of the device programs that are attached to a group itself, at most 64.
///
/// # Errors
/// EPERM without privilege.
pub fn attached_device_programs(group: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; 64];
    let mut attribute = QueryAttribute {
        target_fd: group.as_raw_fd() as u32,
        attach_type: CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..QueryAttribute::default()
    };
    // SAFETY: `ids` outlives the call and has room for as many ids as the attribute says.
    unsafe { bpf(PROG_QUERY, &mut attribute) }?;
    Ok(ids[..attribute.prog_cnt.min(64) as usize].to_vec())
}

/// The id of a loaded program.
///
/// # Errors
/// EBADF for another kind of descriptor.
pub fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = ProgramInfo::default();
    let mut attribute = InfoAttribute {
        bpf_fd: program.as_raw_fd() as u32,
        info_len: size_of::<ProgramInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` outlives the call and is as long as the attribute says.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attribute) }?;
    Ok(info.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_have_the_kernels_size() {
        assert_eq!(size_of::<Instruction>(), 8);
    }
}
