//! Changes of a configuration, written like lines of a Dockerfile: what `import --change` and `commit --change` take.

use std::str::FromStr;

use super::spec::{ContainerConfig, Empty};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// `CMD`.
    Cmd(Vec<String>),
    /// `ENTRYPOINT`.
    Entrypoint(Vec<String>),
    /// `ENV`: name and value each.
    Env(Vec<(String, String)>),
    /// `EXPOSE`: `port/protocol` each.
    Expose(Vec<String>),
    /// `LABEL`: name and value each.
    Label(Vec<(String, String)>),
    /// `STOPSIGNAL`.
    StopSignal(String),
    /// `USER`.
    User(String),
    /// `VOLUME`: paths.
    Volume(Vec<String>),
    /// `WORKDIR`.
    Workdir(String),
}

/// Why a text is no change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The first word.
    #[error(
        "`{0}` is no instruction; known are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR"
    )]
    Unknown(String),
    /// Nothing follows.
    #[error("{0} needs an argument")]
    Empty(String),
    /// A pair is none.
    #[error("`{0}` is not NAME=VALUE")]
    Pair(String),
    /// A quote is not closed.
    #[error("a quote is not closed in `{0}`")]
    Quote(String),
    /// Not a port.
    #[error("`{0}` is not PORT or PORT/PROTOCOL")]
    Port(String),
}

impl FromStr for Change {
    type Err = ChangeError;

    fn from_str(text: &str) -> Result<Self, ChangeError> {
        let (word, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
        let (word, rest) = (word.to_ascii_uppercase(), rest.trim());
        let one = || if rest.is_empty() { Err(ChangeError::Empty(word.clone())) } else { Ok(rest.to_owned()) };
        Ok(match word.as_str() {
            "CMD" => Self::Cmd(arguments(rest)),
            "ENTRYPOINT" => Self::Entrypoint(arguments(rest)),
            "ENV" => one().and_then(|_| pairs(rest)).map(Self::Env)?,
            "LABEL" => one().and_then(|_| pairs(rest)).map(Self::Label)?,
            "EXPOSE" => {
                one()?;
                Self::Expose(words(rest)?.iter().map(|port| self::port(port)).collect::<Result<_, _>>()?)
            }
            "STOPSIGNAL" => Self::StopSignal(one()?),
            "USER" => Self::User(one()?),
            "VOLUME" => {
                one()?;
                Self::Volume(json_list(rest).map_or_else(|| words(rest), Ok)?)
            }
            "WORKDIR" => Self::Workdir(one()?),
            _ => return Err(ChangeError::Unknown(word)),
        })
    }
}

fn json_list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// A JSON list, or a line for the shell.
fn arguments(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    json_list(text).unwrap_or_else(|| ["/bin/sh", "-c", text].map(str::to_owned).to_vec())
}

fn port(text: &str) -> Result<String, ChangeError> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let valid = number.parse::<u16>().is_ok_and(|port| port > 0) && matches!(protocol, "tcp" | "udp" | "sctp");
    if valid { Ok(format!("{number}/{protocol}")) } else { Err(ChangeError::Port(text.to_owned())) }
}

/// `NAME=VALUE …`, or the old form `NAME VALUE`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, ChangeError> {
    let words = words(text)?;
    if !words[0].contains('=') {
        let (name, value) = text.split_once(char::is_whitespace).ok_or_else(|| ChangeError::Pair(text.to_owned()))?;
        return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(ChangeError::Pair(word.clone())),
    };
    words.iter().map(pair).collect()
}

/// Words, with quotes and backslashes as a shell takes them.
fn words(text: &str) -> Result<Vec<String>, ChangeError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(characters.next()),
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(ChangeError::Quote(text.to_owned()));
    }
    words.extend(word);
    Ok(words)
}

impl Change {
    /// Makes changes, one after the other.
    pub fn apply_all(changes: &[Self], config: &mut ContainerConfig) {
        for (at, change) in changes.iter().enumerate() {
            change.apply(config);
            let given = changes[..at].iter().any(|before| matches!(before, Self::Cmd(_)));
            if matches!(change, Self::Entrypoint(_)) && !given {
                // The old arguments were another program's; those that came with the change are this one's.
                config.cmd.clear();
            }
        }
    }

    fn apply(&self, config: &mut ContainerConfig) {
        match self {
            Self::Cmd(arguments) => config.cmd.clone_from(arguments),
            Self::Entrypoint(arguments) => config.entrypoint.clone_from(arguments),
            Self::Env(pairs) => {
                for (name, value) in pairs {
                    let is_it = |variable: &String| variable.split('=').next() == Some(name);
                    config.env.retain(|variable| !is_it(variable));
                    config.env.push(format!("{name}={value}"));
                }
            }
            Self::Expose(ports) => config.exposed_ports.extend(ports.iter().map(|port| (port.clone(), Empty {}))),
            Self::Label(pairs) => config.labels.extend(pairs.iter().cloned()),
            Self::StopSignal(signal) => config.stop_signal = Some(signal.clone()),
            Self::User(user) => config.user.clone_from(user),
            Self::Volume(paths) => config.volumes.extend(paths.iter().map(|path| (path.clone(), Empty {}))),
            Self::Workdir(path) if path.starts_with('/') => config.working_dir.clone_from(path),
            Self::Workdir(path) => {
                let base = config.working_dir.trim_end_matches('/');
                config.working_dir = format!("{base}/{path}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(changes: &[&str]) -> ContainerConfig {
        let mut config = ContainerConfig { cmd: vec!["old".to_owned()], ..ContainerConfig::default() };
        let changes: Vec<Change> = changes.iter().map(|change| change.parse().unwrap()).collect();
        Change::apply_all(&changes, &mut config);
        config
    }

    #[test]
    fn lines_of_a_dockerfile() {
        let made = config(&[
            r#"CMD ["sh", "-c", "x"]"#,
            "env A=1 B=\"two words\"",
            "ENV A=3",
            "ENV OLD form here",
            "EXPOSE 80 53/udp",
            "LABEL a.b='c d'",
            "USER 1:2",
            "VOLUME /data /more",
            "WORKDIR /a",
            "WORKDIR b",
            "STOPSIGNAL SIGQUIT",
        ]);
        assert_eq!(made.cmd, ["sh", "-c", "x"]);
        assert_eq!(made.env, ["B=two words", "A=3", "OLD=form here"]);
        assert_eq!(made.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(made.labels["a.b"], "c d");
        assert_eq!(made.volumes.keys().collect::<Vec<_>>(), ["/data", "/more"]);
        assert_eq!((made.user.as_str(), made.working_dir.as_str()), ("1:2", "/a/b"));
        assert_eq!(made.stop_signal.as_deref(), Some("SIGQUIT"));
        assert_eq!(config(&["CMD echo $HOME"]).cmd, ["/bin/sh", "-c", "echo $HOME"]);
        assert!(config(&["ENTRYPOINT [\"/e\"]"]).cmd.is_empty(), "the image's");
        assert_eq!(config(&["CMD [\"x\"]", "ENTRYPOINT [\"/e\"]"]).cmd, ["x"], "given with it");
    }

    #[test]
    fn what_is_no_change_is_told() {
        for text in ["RUN x", "", "ENV", "ENV =x", "EXPOSE 0", "EXPOSE 80/icmp", "LABEL a=\"b", "ENV A"] {
            assert!(text.parse::<Change>().is_err(), "{text}");
        }
    }
}
