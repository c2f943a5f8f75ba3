//! clone3(2): a child with a copy of the parent's memory, or one that shares it until its exec.
//!
//! A copy costs what the parent is large: its page tables are copied, and each page that either side writes
//! afterwards is a fault and, in a parent with threads, an interrupt to the other CPUs. A child that shares the memory
//! (CLONE_VM) costs none of it. It runs on a stack of its own, makes system calls without the C library (see
//! [`super::raw`]) and writes nothing but its stack and the clock page.
//!
//! Two things that belong to the memory and not to the process set the bounds; `container` chooses by them:
//!
//! - the kernel's OOM killer ends every process that shares its victim's memory. A child that may hit a memory limit
//!   before its exec must not share the harness's;
//! - a change of user makes the shared memory undumpable for both.

use std::ffi::c_void;
use std::io;
use std::ptr::null_mut;

/// `struct clone_args` up to the fields that this program uses.
#[repr(C)]
#[derive(Default)]
pub(super) struct CloneArgs {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
}

/// Whose memory a child runs its plan in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// A copy of the parent's, as fork(2) makes it.
    Copied,
    /// The parent's own, until the exec; a copy on architectures that [`CAN_SHARE`] excludes.
    Shared,
}

/// Whether this architecture's child can share memory: whether [`super::raw`] works without the C library.
pub const CAN_SHARE: bool = cfg!(target_arch = "x86_64");

/// What a child runs: it gets the pointer that [`clone3`] was given, and never returns.
pub(super) type Body = unsafe extern "C" fn(*const c_void) -> !;

/// Clones; returns the child's pid to the parent, and the stack that the child runs on if it shares memory: it must
/// live until the child has executed a program or ended.
///
/// # Safety
/// `body` must be safe to run with `argument` in the child: nothing allocated, no lock taken, no use of the C library's
/// state; and what `argument` points to must live until the child has executed a program or ended.
///
/// # Errors
/// What clone3 says; ENOMEM when there is no room for a stack.
pub(super) unsafe fn clone3(
    arguments: &mut CloneArgs,
    memory: Memory,
    body: Body,
    argument: *const c_void,
) -> io::Result<(u32, Option<Stack>)> {
    let (returned, stack) = match memory {
        Memory::Shared if CAN_SHARE => {
            let stack = Stack::new()?;
            arguments.flags |= libc::CLONE_VM as u64;
            arguments.stack = stack.base as u64;
            arguments.stack_size = Stack::SIZE as u64;
            // SAFETY: the stack is new; the rest is the caller's promise.
            (unsafe { on_stack(arguments, body, argument) }, Some(stack))
        }
        Memory::Copied | Memory::Shared => {
            // SAFETY: without CLONE_VM the child goes on here with its own copy of everything; the arguments are a valid
            // struct of the size given.
            let returned = unsafe { libc::syscall(libc::SYS_clone3, &raw const *arguments, size_of::<CloneArgs>()) };
            if returned == 0 {
                // SAFETY: the caller's promise.
                unsafe { body(argument) }
            }
            let failed = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            (if returned < 0 { -i64::from(failed) } else { returned }, None)
        }
    };
    match u32::try_from(returned) {
        Ok(pid) => Ok((pid, stack)),
        Err(_) => Err(io::Error::from_raw_os_error(-returned as i32)),
    }
}

/// The child of this clone3 never comes back into compiled code: it begins on the new stack with a call of `body`.
#[cfg(target_arch = "x86_64")]
unsafe fn on_stack(arguments: &CloneArgs, body: Body, argument: *const c_void) -> i64 {
    let returned: i64;
    // SAFETY: the caller's. The kernel starts the child with the same registers but rax and rsp; the call leaves the
    // stack aligned as a function expects it.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => returned,
            in("rdi") &raw const *arguments,
            in("rsi") size_of::<CloneArgs>(),
            in("r8") body,
            in("r9") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    returned
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn on_stack(_: &CloneArgs, _: Body, _: *const c_void) -> i64 {
    -i64::from(libc::ENOSYS)
}

/// A child's stack, with a page below it that cannot be touched.
#[derive(Debug)]
pub(super) struct Stack {
    mapping: *mut c_void,
    base: *mut c_void,
}

// SAFETY: the value is the only owner of its mapping, and nothing in this process reads or writes it.
unsafe impl Send for Stack {}
// SAFETY: as above.
unsafe impl Sync for Stack {}

impl Stack {
    /// The interpreter needs less than a tenth of it.
    const SIZE: usize = 64 * 1024;
    const GUARD: usize = 4096;

    fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no existing memory; the guard
        // is its first page.
        unsafe {
            let mapping = libc::mmap(null_mut(), Self::GUARD + Self::SIZE, rights, flags, -1, 0);
            if mapping == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let stack = Self { mapping, base: mapping.byte_add(Self::GUARD) };
            if libc::mprotect(mapping, Self::GUARD, libc::PROT_NONE) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(stack)
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this size; its owner waited for the child.
        unsafe { libc::munmap(self.mapping, Self::GUARD + Self::SIZE) };
    }
}
