//! The architectures that processes of this machine can be of, with their system calls by name. Called by [`super`].

use std::str::FromStr;

use super::ProfileError;

/// An architecture.
pub(super) struct Arch {
    /// Libseccomp's name.
    pub(super) name: &'static str,
    /// Go's name, by which `arches` of a profile go.
    pub(super) go_name: &'static str,
    /// AUDIT_ARCH_*: what the kernel tells a filter.
    pub(super) audit: u32,
    /// Whether numbers from 2³⁰ on are another architecture's, which is x32.
    pub(super) has_x32: bool,
    /// The number of a system call.
    pub(super) number: fn(&str) -> Option<u32>,
}

/// The numbers of a table of the crate `syscalls`.
macro_rules! table {
    ($table:ident) => {
        |name| syscalls::$table::Sysno::from_str(name).ok().map(|call| call.id().cast_unsigned())
    };
}

/// This machine's own, and the 32-bit one beside it.
#[cfg(target_arch = "x86_64")]
pub(super) const HERE: &[Arch] = &[
    Arch { name: "SCMP_ARCH_X86_64", go_name: "amd64", audit: 0xc000_003e, has_x32: true, number: table!(x86_64) },
    Arch { name: "SCMP_ARCH_X86", go_name: "x86", audit: 0x4000_0003, has_x32: false, number: table!(x86) },
];
/// This machine's own, and the 32-bit one beside it.
#[cfg(target_arch = "aarch64")]
pub(super) const HERE: &[Arch] = &[
    Arch { name: "SCMP_ARCH_AARCH64", go_name: "arm64", audit: 0xc000_00b7, has_x32: false, number: table!(aarch64) },
    Arch { name: "SCMP_ARCH_ARM", go_name: "arm", audit: 0x4000_0028, has_x32: false, number: table!(arm) },
];
/// This machine's own.
#[cfg(target_arch = "riscv64")]
pub(super) const HERE: &[Arch] = &[Arch {
    name: "SCMP_ARCH_RISCV64",
    go_name: "riscv64",
    audit: 0xc000_00f3,
    has_x32: false,
    number: table!(riscv64),
}];
/// None is known.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
pub(super) const HERE: &[Arch] = &[];

/// Libseccomp's names.
const KNOWN: [&str; 22] = [
    "NATIVE",
    "X86",
    "X86_64",
    "X32",
    "ARM",
    "AARCH64",
    "MIPS",
    "MIPS64",
    "MIPS64N32",
    "MIPSEL",
    "MIPSEL64",
    "MIPSEL64N32",
    "PPC",
    "PPC64",
    "PPC64LE",
    "S390",
    "S390X",
    "PARISC",
    "PARISC64",
    "RISCV64",
    "LOONGARCH64",
    "M68K",
];

/// Whether an architecture's name is one.
pub(super) fn check(name: &str) -> Result<(), ProfileError> {
    let known = name.strip_prefix("SCMP_ARCH_").is_some_and(|name| KNOWN.contains(&name));
    if known { Ok(()) } else { Err(ProfileError::Arch(name.to_owned())) }
}
