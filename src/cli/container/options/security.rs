//! Who a container runs as and what it may do.

use clap::Args;

use super::values::{OptionsError, boolean, chain, file, wrong};
use crate::container::capabilities::{CapabilitySet, NAMES};
use crate::container::config::{NetworkMode, SeccompChoice, Security};
use crate::container::{seccomp, subid};

/// Options about rights.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Rights")]
pub(super) struct SecurityOptions {
    /// Who it runs as: a user, user:group, uid or uid:gid; names are the image's
    #[arg(short, long, value_name = "USER")]
    pub(super) user: Option<String>,
    /// A further group, by name or number
    #[arg(long = "group-add", value_name = "GROUP")]
    pub(super) groups: Vec<String>,
    /// Its own users: host for none, START:COUNT, or a name in /etc/subuid
    #[arg(long, value_name = "RANGE")]
    userns: Option<String>,
    /// A further capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// A capability that it does not get, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// seccomp=FILE, seccomp=unconfined, no-new-privileges
    #[arg(long = "security-opt", value_name = "OPTION")]
    options: Vec<String>,
    /// All that root of the host may, and all devices
    #[arg(long)]
    privileged: bool,
}

impl SecurityOptions {
    pub(super) fn security(&self) -> Result<Security, OptionsError> {
        let mut security = Security {
            privileged: self.privileged,
            cap_add: capabilities("--cap-add", &self.cap_add)?,
            cap_drop: capabilities("--cap-drop", &self.cap_drop)?,
            ..Security::default()
        };
        for text in &self.options {
            option(text, &mut security)?;
        }
        Ok(security)
    }

    pub(super) fn user_namespace(&self, network: &NetworkMode) -> Result<Option<(u32, u32)>, OptionsError> {
        let Some(text) = self.userns.as_deref().filter(|text| !matches!(*text, "" | "host")) else { return Ok(None) };
        let excluded = [("--privileged", self.privileged), ("--network host", *network == NetworkMode::Host)];
        if let Some((other, _)) = excluded.iter().find(|(_, given)| *given) {
            return Err(OptionsError::Conflict(format!(
                "{other} cannot be used with users of its own; add --userns host"
            )));
        }
        range(text).map(Some)
    }
}

fn capabilities(flag: &'static str, texts: &[String]) -> Result<Vec<String>, OptionsError> {
    let one = |text: &String| {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" || NAMES.contains(&name) {
            return Ok(name.to_owned());
        }
        let nearest = NAMES.iter().min_by_key(|known| strsim::levenshtein(known, name)).unwrap_or(&"ALL");
        Err(wrong(flag, text, format!("there is no such capability; the nearest name is {nearest}, and ALL is all")))
    };
    texts.iter().map(one).collect()
}

fn option(text: &str, security: &mut Security) -> Result<(), OptionsError> {
    const FLAG: &str = "--security-opt";
    let (key, value) = match text.split_once(['=', ':']) {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    match (key, value) {
        ("no-new-privileges", value) => {
            security.no_new_privileges = value.map_or(Ok(true), |value| boolean(FLAG, value))?;
        }
        ("seccomp", Some("unconfined")) => security.seccomp = SeccompChoice::Unconfined,
        ("seccomp", Some("builtin")) => security.seccomp = SeccompChoice::Default,
        ("seccomp", Some(path)) if !path.is_empty() => {
            let profile = file("--security-opt seccomp", path)?;
            check_profile(text, &profile)?;
            security.seccomp = SeccompChoice::Profile(profile);
        }
        _ => {
            let expected = "write seccomp=FILE, seccomp=unconfined, no-new-privileges or no-new-privileges=false";
            return Err(wrong(FLAG, text, expected));
        }
    }
    Ok(())
}

/// What is wrong with a profile is told when the container is made, not when it starts.
fn check_profile(text: &str, profile: &str) -> Result<(), OptionsError> {
    match seccomp::profile::compile(profile, CapabilitySet::docker_default()) {
        Ok(_) => Ok(()),
        Err(error) => Err(wrong("--security-opt", text, chain(&error))),
    }
}

/// A range of the host's ids for a user namespace.
fn range(text: &str) -> Result<(u32, u32), OptionsError> {
    subid::range(text).map_err(|error| wrong("--userns", text, chain(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(options: &[&str]) -> SecurityOptions {
        SecurityOptions {
            options: options.iter().map(|text| (*text).to_owned()).collect(),
            ..SecurityOptions::default()
        }
    }

    #[test]
    fn capabilities_by_any_name() {
        let texts = ["net_admin", "CAP_SYS_TIME", "all"].map(str::to_owned);
        assert_eq!(capabilities("--cap-add", &texts).unwrap(), ["NET_ADMIN", "SYS_TIME", "ALL"]);
        let told = capabilities("--cap-drop", &["NET_ADMN".to_owned()]).unwrap_err().to_string();
        expect_test::expect!["--cap-drop cannot be `NET_ADMN`: there is no such capability; the nearest name is NET_ADMIN, and ALL is all"]
            .assert_eq(&told);
    }

    #[test]
    fn security_options() {
        assert_eq!(options(&[]).security().unwrap(), Security::default());
        let made = options(&["no-new-privileges", "seccomp=unconfined"]).security().unwrap();
        assert!(made.no_new_privileges && made.seccomp == SeccompChoice::Unconfined);
        assert!(!options(&["no-new-privileges:false"]).security().unwrap().no_new_privileges);
        let profile = tempfile::NamedTempFile::new().unwrap();
        let named = format!("seccomp={}", profile.path().display());
        assert!(
            options(&[&named]).security().unwrap_err().to_string().contains("the seccomp profile cannot be understood")
        );
        std::fs::write(&profile, r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
        assert!(matches!(options(&[&named]).security().unwrap().seccomp, SeccompChoice::Profile(_)));
        for bad in ["seccomp", "seccomp=", "apparmor=x", "no-new-privileges=maybe", "seccomp=/none/such"] {
            assert!(options(&[bad]).security().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_of_ids() {
        assert_eq!(range("100000:65536").unwrap(), (100_000, 65_536));
        for bad in ["0:5", "5:0", "1:4294967295", "a:b", "1:", "+1:5", "no such user"] {
            assert!(range(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn users_of_its_own_exclude_the_hosts_rights() {
        let own = SecurityOptions { userns: Some("100000:10".to_owned()), ..SecurityOptions::default() };
        assert_eq!(own.user_namespace(&NetworkMode::None).unwrap(), Some((100_000, 10)));
        assert!(own.user_namespace(&NetworkMode::Host).is_err());
        let privileged = SecurityOptions { privileged: true, ..own };
        assert!(privileged.user_namespace(&NetworkMode::None).is_err());
        let host = SecurityOptions { userns: Some("host".to_owned()), ..privileged };
        assert_eq!(host.user_namespace(&NetworkMode::Host).unwrap(), None);
    }
}
