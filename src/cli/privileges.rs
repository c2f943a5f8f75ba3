//! What `run` needs before it begins: said at once, and not by the first system call that fails.

use nix::unistd::geteuid;
use procfs::process::Process;

use super::error::CliError;

/// CAP_SYS_ADMIN and CAP_NET_ADMIN, by their numbers in `linux/capability.h`.
const NEEDED: [(u32, &str); 2] = [(21, "CAP_SYS_ADMIN"), (12, "CAP_NET_ADMIN")];

/// Refuses where namespaces, cgroups and network devices cannot be made.
pub(super) fn require() -> Result<(), CliError> {
    let euid = geteuid();
    if !euid.is_root() {
        return Err(CliError::Privilege {
            what: format!(
                "not root (effective user id {euid}): containers, cgroups and network devices cannot be made"
            ),
            help: "run it as root, as in `sudo isobench run …`; --dry-run, validate, list and report need no root"
                .to_owned(),
        });
    }
    let effective = Process::myself().and_then(|process| process.status()).map_or(u64::MAX, |status| status.capeff);
    let missing = missing(effective);
    if missing.is_empty() {
        return Ok(());
    }
    Err(CliError::Privilege {
        what: format!("root without {}: namespaces and network devices cannot be made", missing.join(" and ")),
        help: "give these capabilities, or run outside of the container that took them away".to_owned(),
    })
}

fn missing(effective: u64) -> Vec<&'static str> {
    NEEDED.iter().filter(|(number, _)| effective & (1 << number) == 0).map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_capability_is_named() {
        assert!(missing(u64::MAX).is_empty());
        assert_eq!(missing(1 << 12), ["CAP_SYS_ADMIN"]);
        assert_eq!(missing(0), ["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    }
}
