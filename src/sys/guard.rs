//! A stub between a container's child and its program, so that no program can come at the isobench binary.
//!
//! The image says what is executed, and it may say `/proc/self/exe`, or a script whose first line does: the kernel then
//! executes the binary of the process that calls execve, the host's isobench, inside the container, where root can
//! take hold of the file by `/proc/PID/exe` and write it once it is not busy (CVE-2019-5736). So the child first executes
//! a stub, and only that executes the program. `/proc/self/exe` is the stub then: a file in memory, sealed, the same
//! for all, with nothing in it but this page.
//!
//! The stub is 5 system calls in a static ELF file: it marks [`STATUS`] close-on-exec, executes its first argument with
//! the others, and writes what execve says to [`STATUS`] if it comes back.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

/// The descriptor on which the stub tells of a failed execve: 8 bytes, the negative errno. It closes when one succeeds.
pub(super) const STATUS: RawFd = 3;
/// The descriptor from which a child executes the stub.
pub(super) const STUB: RawFd = 4;
/// The first one above them.
pub const NEXT: RawFd = 5;

/// Whether there is a stub for this architecture.
pub const SUPPORTED: bool = cfg!(target_arch = "x86_64");

// Linux x86-64 ABI, as in `entry`. System calls: 72 fcntl(F_SETFD = 2, FD_CLOEXEC = 1), 59 execve, 1 write,
// 231 exit_group. On the stack: argc, the path, the program's argv, a null pointer, the environment.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .rodata.isobench_stub, \"a\", @progbits",
    ".globl isobench_stub",
    ".globl isobench_stub_end",
    "isobench_stub:",
    "mov edi, 3",
    "mov esi, 2",
    "mov edx, 1",
    "mov eax, 72",
    "syscall",
    "mov rcx, [rsp]",
    "mov rdi, [rsp + 8]",
    "lea rsi, [rsp + 16]",
    "lea rdx, [rsp + rcx * 8 + 16]",
    "mov eax, 59",
    "syscall",
    "push rax",
    "mov edi, 3",
    "mov rsi, rsp",
    "mov edx, 8",
    "mov eax, 1",
    "syscall",
    "mov edi, 127",
    "mov eax, 231",
    "syscall",
    "isobench_stub_end:",
    ".popsection",
);

#[cfg(target_arch = "x86_64")]
fn code() -> &'static [u8] {
    unsafe extern "C" {
        static isobench_stub: u8;
        static isobench_stub_end: u8;
    }
    // SAFETY: both symbols bound the bytes of the block above, which nothing changes.
    unsafe {
        let (begin, end) = (&raw const isobench_stub, &raw const isobench_stub_end);
        std::slice::from_raw_parts(begin, end as usize - begin as usize)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn code() -> &'static [u8] {
    &[]
}

/// An ELF64 file for x86-64 with one loaded, executable segment: the headers and the code.
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut file = Vec::with_capacity(size as usize);
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let half = |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    let word = |file: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    let long = |file: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    half(&mut file, &[2, 62]); // executable, x86-64
    word(&mut file, &[1]);
    long(&mut file, &[BASE + HEADERS, 64, 0]); // entry, program headers, no sections
    word(&mut file, &[0]);
    half(&mut file, &[64, 56, 1, 0, 0, 0]);
    word(&mut file, &[1, 5]); // loaded, readable and executable
    long(&mut file, &[0, BASE, BASE, size, size, 4096]);
    file.extend(code);
    file
}

/// The stub's file, made once a process.
///
/// # Errors
/// When the file cannot be made; ENOSYS on an architecture that has no stub.
pub fn stub() -> io::Result<RawFd> {
    static STUB: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(stub) = STUB.get() {
        return Ok(stub.as_raw_fd());
    }
    if !SUPPORTED {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    let mut file = memory_file()?;
    file.write_all(&elf(code()))?;
    const SEALS: i32 = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: plain numbers.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(STUB.get_or_init(|| file.into()).as_raw_fd())
}

fn memory_file() -> io::Result<File> {
    /// Since Linux 6.3, where machines can be set to refuse files that do not say whether they are programs.
    const MFD_EXEC: u32 = 0x10;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    for flags in [flags | MFD_EXEC, flags] {
        // SAFETY: the name is a C string; the kernel makes a new descriptor for us.
        let fd = unsafe { libc::memfd_create(c"isobench-stub".as_ptr(), flags) };
        if fd >= 0 {
            // SAFETY: as above.
            return Ok(unsafe { File::from_raw_fd(fd) });
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
    }
    Err(io::Error::from_raw_os_error(libc::EINVAL))
}

/// Where a parent hears of the stub's execve.
#[derive(Debug)]
pub struct Verdict {
    reader: io::PipeReader,
}

impl Verdict {
    /// A verdict, and the end that the child takes along by [`super::plan::Op::Guard`].
    ///
    /// # Errors
    /// When no pipe can be made.
    pub fn new() -> io::Result<(Self, io::PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        Ok((Self { reader }, writer))
    }

    /// Waits until the program has been executed or cannot be: its errno then. The parent's own end of the pipe must be
    /// closed by now. A child that ended before its stub tells nothing here.
    ///
    /// # Errors
    /// When the pipe cannot be read.
    pub fn wait(mut self) -> io::Result<Option<i32>> {
        let mut told = Vec::new();
        self.reader.read_to_end(&mut told)?;
        Ok(told.get(..8).and_then(|bytes| bytes.try_into().ok()).map(|bytes| -i64::from_ne_bytes(bytes) as i32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stub_cannot_be_written() {
        let stub = stub().unwrap();
        let error =
            File::options().write(true).open(format!("/proc/self/fd/{stub}")).and_then(|mut file| file.write(b"x"));
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}
