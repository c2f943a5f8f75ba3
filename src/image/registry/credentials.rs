//! Who we are to a registry, as docker's configuration says: in the file itself or by its credential helpers.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::fs::{FileError, read_text};
use crate::image::reference::DEFAULT_REGISTRY;

/// Under which name docker keeps the credentials of its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Who we are to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user and a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that stands for both.
    Token(String),
    /// None, whatever docker's configuration says.
    Nobody,
}

impl fmt::Debug for Credentials {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => write!(f, "Password({user}, …)"),
            Self::Token(_) => f.write_str("Token(…)"),
            Self::Nobody => f.write_str("Nobody"),
        }
    }
}

/// Why the credentials cannot be found out.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The configuration cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It cannot be understood.
    #[error("cannot understand {}", .0.display())]
    Json(PathBuf, #[source] serde_json::Error),
    /// What it has for a registry is not what it should be.
    #[error("{} has credentials for {registry} that are not `user:password` in base64", path.display())]
    Malformed {
        /// The configuration.
        path: PathBuf,
        /// The registry.
        registry: String,
    },
    /// A helper failed.
    #[error("the credential helper {helper} failed: {message}")]
    Helper {
        /// Its program.
        helper: String,
        /// What it said.
        message: String,
    },
}

/// What is read of docker's configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Configuration {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    identitytoken: String,
}

/// A helper's answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Credentials {
    /// What docker's configuration (`$DOCKER_CONFIG` or `~/.docker`) has for a registry.
    ///
    /// # Errors
    /// When the configuration cannot be understood or its helper fails.
    pub fn of_docker(registry: &str) -> Result<Option<Self>, CredentialsError> {
        let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
        match directory.or_else(home) {
            Some(directory) => Self::of_file(&directory.join("config.json"), registry),
            None => Ok(None),
        }
    }

    /// What a configuration file has for a registry.
    ///
    /// # Errors
    /// As [`Credentials::of_docker`].
    pub fn of_file(path: &Path, registry: &str) -> Result<Option<Self>, CredentialsError> {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let configuration: Configuration =
            serde_json::from_str(&text).map_err(|error| CredentialsError::Json(path.to_owned(), error))?;
        let key = if registry == DEFAULT_REGISTRY { DOCKER_HUB } else { registry };
        // Docker has its own registry under the whole address there too; others write its name.
        let helpers = &configuration.cred_helpers;
        let helper = helpers.get(key).or_else(|| helpers.get(registry)).or(configuration.creds_store.as_ref());
        if let Some(helper) = helper {
            return ask_helper(helper, key);
        }
        let host = |key: &str| {
            let key = key.trim_start_matches("https://").trim_start_matches("http://");
            key.split('/').next().unwrap_or_default().to_owned()
        };
        let entries = &configuration.auths;
        let entry = entries.get(key).or_else(|| {
            let wanted = host(key);
            entries.iter().find(|(known, _)| host(known) == wanted).map(|(_, entry)| entry)
        });
        let Some(entry) = entry else { return Ok(None) };
        if !entry.identitytoken.is_empty() {
            return Ok(Some(Self::Token(entry.identitytoken.clone())));
        }
        if entry.auth.is_empty() {
            return Ok(None);
        }
        let malformed = || CredentialsError::Malformed { path: path.to_owned(), registry: registry.to_owned() };
        let decoded = STANDARD.decode(&entry.auth).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.ok_or_else(malformed)?;
        let (user, password) = decoded.split_once(':').ok_or_else(malformed)?;
        let password = password.trim_end_matches('\0').to_owned();
        Ok(Some(Self::Password { user: user.to_owned(), password }))
    }
}

/// Runs `docker-credential-HELPER get`.
fn ask_helper(helper: &str, key: &str) -> Result<Option<Credentials>, CredentialsError> {
    let program = format!("docker-credential-{helper}");
    let failed = |message: String| CredentialsError::Helper { helper: program.clone(), message };
    if helper.contains('/') {
        return Err(failed("its name holds a slash".to_owned()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(key.as_bytes()).map_err(|error| failed(error.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        // This text is part of the helpers' protocol.
        return if said == "credentials not found in native keychain" { Ok(None) } else { Err(failed(said)) };
    }
    let answer: Answer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer is not understood".to_owned()))?;
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credentials::Token(answer.secret),
        _ => Credentials::Password { user: answer.username, password: answer.secret },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, registry: &str) -> Result<Option<Credentials>, CredentialsError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        Credentials::of_file(&path, registry)
    }

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn entries_of_dockers_configuration() {
        let text = r#"{"auths": {
            "127.0.0.1:5000": {"auth": "dXNlcjpwYTpzcw=="},
            "https://index.docker.io/v1/": {"auth": "aHViOng="},
            "https://r.example/v2/": {"identitytoken": "t"},
            "empty.example": {}
        }, "HttpHeaders": {}}"#;
        assert_eq!(of(text, "127.0.0.1:5000").unwrap(), password("user", "pa:ss"));
        assert_eq!(of(text, "docker.io").unwrap(), password("hub", "x"));
        assert_eq!(of(text, "r.example").unwrap(), Some(Credentials::Token("t".to_owned())));
        for registry in ["127.0.0.1:5001", "empty.example", "127.0.0.1"] {
            assert_eq!(of(text, registry).unwrap(), None, "{registry}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        let error = of(r#"{"auths": {"r.example": {"auth": "c2VjcmV0"}}}"#, "r.example").unwrap_err();
        assert!(error.to_string().contains("r.example") && !error.to_string().contains("secret"), "{error}");
        assert!(matches!(of("{", "r.example"), Err(CredentialsError::Json(..))));
        for text in [DOCKER_HUB, "docker.io"] {
            let text = format!(r#"{{"credHelpers": {{"{text}": "isobench-has-none"}}}}"#);
            assert!(matches!(of(&text, "docker.io"), Err(CredentialsError::Helper { .. })), "{text}");
        }
        let error = of(r#"{"credsStore": "isobench-has-none"}"#, "r.example").unwrap_err();
        assert!(error.to_string().starts_with("the credential helper docker-credential-isobench-has-none failed"));
    }
}
