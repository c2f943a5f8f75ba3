//! Programs of one system call, made byte by byte, for calls that no tool makes as plainly: they end with the errno, or
//! with 0 when the call succeeded.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Whether they run here.
pub const RUNS: bool = cfg!(target_arch = "x86_64");

const BASE: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// Writes a static ELF program that makes the call with up to three arguments.
pub fn write(path: &Path, number: u32, arguments: [i32; 3]) -> std::io::Result<()> {
    let mut code = vec![0xb8]; // mov eax, number
    code.extend(number.to_le_bytes());
    // mov rdi / rsi / rdx, a number extended by its sign
    for (prefix, argument) in [[0x48, 0xc7, 0xc7], [0x48, 0xc7, 0xc6], [0x48, 0xc7, 0xc2]].into_iter().zip(arguments) {
        code.extend(prefix);
        code.extend(argument.to_le_bytes());
    }
    code.extend([0x45, 0x31, 0xd2, 0x45, 0x31, 0xc0]); // xor r10d, r10d; xor r8d, r8d
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0x85, 0xc0, 0x79, 0x04, 0xf7, 0xd8, 0xeb, 0x02, 0x31, 0xc0]); // eax = eax < 0 ? -eax : 0
    code.extend([0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]); // exit(eax)
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |program: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| program.extend(v.to_le_bytes()));
    let word = |program: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| program.extend(v.to_le_bytes()));
    let long = |program: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| program.extend(v.to_le_bytes()));
    half(&mut program, &[2, 62]); // executable, x86-64
    word(&mut program, &[1]);
    long(&mut program, &[BASE + HEADERS, 64, 0]); // entry, program headers, no section headers
    word(&mut program, &[0]);
    half(&mut program, &[64, 56, 1, 0, 0, 0]);
    word(&mut program, &[1, 5]); // load, readable and executable
    let length = HEADERS + code.len() as u64;
    long(&mut program, &[0, BASE, BASE, length, length, 0x1000]);
    program.extend(code);
    fs::write(path, program)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o755))
}
