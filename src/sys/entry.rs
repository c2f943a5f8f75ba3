//! The program's entry point, before the C library: where `__workload stamp` is answered.
//!
//! `stamp` tells when a container's program runs. Started the usual way it would first pay for what a C library and a
//! language's runtime do at their start: a static glibc asks the processor for its features (each CPUID leaves a
//! virtual machine, 0.3 ms in all where it was measured), relocates the binary page by page and installs handlers.
//! None of this is isolation, and all of it would be in every figure of a start. So the ELF entry of the binary
//! (`src/build.rs` names it to the linker) looks at the arguments: `__workload stamp` alone is answered here, with three
//! system calls; everything else goes on to `_start` with registers and stack as the kernel left them.
//!
//! On other architectures, and in the tests' own binaries, [`crate::workload`] answers it with the same bytes.

// Linux x86-64 ABI: at entry the stack holds argc, then the argument pointers; `rdx` belongs to `_start`.
// System calls: 228 clock_gettime(CLOCK_MONOTONIC = 1), 1 write(stdout), 231 exit_group. The code holds no absolute
// address: it runs before a static position-independent binary has been relocated.
#[cfg(target_arch = "x86_64")]
std::arch::global_asm!(
    ".pushsection .text.isobench_entry, \"ax\", @progbits",
    ".globl isobench_entry",
    ".type isobench_entry, @function",
    "isobench_entry:",
    "endbr64",
    "cmp qword ptr [rsp], 3",
    "jne 2f",
    "mov rsi, [rsp + 16]",
    "lea rdi, [rip + 3f]",
    "mov ecx, 11",
    "repe cmpsb",
    "jne 2f",
    "mov rsi, [rsp + 24]",
    "lea rdi, [rip + 4f]",
    "mov ecx, 6",
    "repe cmpsb",
    "jne 2f",
    "sub rsp, 32",
    "mov eax, 228",
    "mov edi, 1",
    "mov rsi, rsp",
    "syscall",
    "imul rax, [rsp], 1000000000",
    "add rax, [rsp + 8]",
    "mov [rsp], rax",
    "mov eax, 1",
    "mov edi, 1",
    "mov rsi, rsp",
    "mov edx, 8",
    "syscall",
    "xor edi, edi",
    "cmp rax, 8",
    "setne dil",
    "mov eax, 231",
    "syscall",
    "2:",
    "jmp {start}",
    "3: .asciz \"__workload\"",
    "4: .asciz \"stamp\"",
    ".size isobench_entry, . - isobench_entry",
    ".popsection",
    start = sym _start,
);

#[cfg(target_arch = "x86_64")]
unsafe extern "C" {
    /// The C library's entry.
    fn _start();
}
