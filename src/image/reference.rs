//! References: `[registry/]repository[:tag][@digest]` by the grammar of the distribution project, with docker's
//! defaults: the registry `docker.io`, its directory `library`, the tag `latest`.

use std::fmt;
use std::str::FromStr;

use super::digest::{Digest, DigestError};

/// The registry of a name that gives none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// The directory of a name without a slash in the default registry.
const LIBRARY: &str = "library/";

/// The tag of a name that gives neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

/// What identifiers begin with.
const DIGESTS: &str = "sha256";

/// A validated reference.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing, or a part of nothing.
    #[error("`{0}` names no repository")]
    Empty(String),
    /// The repository breaks the grammar.
    #[error(
        "`{0}` is no repository name: parts are lower-case letters and digits, joined by one `.`, one or two `_`, or `-`s"
    )]
    Repository(String),
    /// The registry breaks the grammar.
    #[error("`{0}` is no registry: a host name or an address, and a port where there is one")]
    Registry(String),
    /// The tag breaks the grammar.
    #[error("`{0}` is no tag: a letter, digit or `_`, then at most 127 of these and `.` and `-`")]
    Tag(String),
    /// The name is longer than 255 bytes.
    #[error("the name `{0}` is longer than 255 bytes")]
    TooLong(String),
    /// 64 hexadecimal digits would be taken for an image's identifier.
    #[error("`{0}` cannot be a name, since it looks like an identifier")]
    LooksLikeId(String),
    /// A digest says what an image is, so it is no name that could be given to another.
    #[error("`{0}` cannot be a name, since it holds a digest")]
    Pinned(String),
    /// `sha256:` begins identifiers.
    #[error("`{0}` cannot be a name, since `sha256:` begins identifiers")]
    LooksLikeDigest(String),
    /// What follows the `@`.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// The registry's host and port, as in `docker.io` or `127.0.0.1:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path in the registry, as in `library/busybox`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, where one was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where one was given.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// With the tag `latest` where neither tag nor digest was given.
    #[must_use]
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        self
    }

    /// As an image can be called: with the tag `latest` where it has none.
    ///
    /// # Errors
    /// When it holds a digest, or begins as identifiers do: a name is free to go from one image to another, and what
    /// stands for one content must not.
    pub fn as_name(&self) -> Result<Self, ReferenceError> {
        if self.digest.is_some() {
            return Err(ReferenceError::Pinned(self.familiar()));
        }
        if self.familiar_repository() == DIGESTS {
            return Err(ReferenceError::LooksLikeDigest(self.familiar()));
        }
        Ok(self.clone().or_latest())
    }

    /// The same repository by digest, without a tag.
    #[must_use]
    pub fn at_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Without its digest: what an image pulled by tag and digest is called.
    #[must_use]
    pub fn without_digest(&self) -> Self {
        Self { digest: None, ..self.clone() }
    }

    /// The repository as people write it: without the default registry and its `library/`, where what is left still
    /// means the same. It would not of `library/a/b`, nor of `docker.io/a.b/c`.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        let is_this = |read: Self| read.registry == self.registry && read.repository == self.repository;
        let same = |short: &&str| short.parse().is_ok_and(is_this);
        let short = [self.repository.strip_prefix(LIBRARY), Some(self.repository.as_str())].into_iter().flatten();
        let short = short.filter(|_| self.registry == DEFAULT_REGISTRY).find(same);
        short.map_or_else(|| format!("{}/{}", self.registry, self.repository), str::to_owned)
    }

    /// The reference as people write it, as in `busybox:latest`.
    #[must_use]
    pub fn familiar(&self) -> String {
        format!("{}{}", self.familiar_repository(), self.suffix())
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map_or(String::new(), |tag| format!(":{tag}"));
        let digest = self.digest.as_ref().map_or(String::new(), |digest| format!("@{digest}"));
        tag + &digest
    }
}

impl fmt::Display for Reference {
    /// The whole reference, as in `docker.io/library/busybox:latest`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse()?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before a slash is a port's.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if name.is_empty() {
            return Err(ReferenceError::Empty(text.to_owned()));
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag(tag.to_owned()));
        }
        if name.len() == 64 && name.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(ReferenceError::LooksLikeId(name.to_owned()));
        }
        let (registry, repository) = split_registry(name);
        if !is_registry(&registry) {
            return Err(ReferenceError::Registry(registry));
        }
        if repository.is_empty() {
            return Err(ReferenceError::Empty(text.to_owned()));
        }
        if !repository.split('/').all(is_component) {
            return Err(ReferenceError::Repository(repository));
        }
        if registry.len() + 1 + repository.len() > 255 {
            return Err(ReferenceError::TooLong(name.to_owned()));
        }
        Ok(Self { registry, repository, tag: tag.map(str::to_owned), digest })
    }
}

/// The registry and the repository of a name. The first part is a registry if it could be no directory.
fn split_registry(name: &str) -> (String, String) {
    let is_host = |first: &str| {
        first.contains(['.', ':']) || first == "localhost" || first.chars().any(|c| c.is_ascii_uppercase())
    };
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest),
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !repository.contains('/') && !repository.is_empty() {
        return (registry.to_owned(), format!("{LIBRARY}{repository}"));
    }
    (registry.to_owned(), repository.to_owned())
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, after)) = rest.split_once(']') else { return false };
            if address.is_empty() || !address.bytes().all(|c| c.is_ascii_hexdigit() || c == b':') {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if after.is_empty() => (None, None),
                None => return false,
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.is_none_or(|host| host.split('.').all(is_label))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit()))
}

/// Runs of lower-case letters and digits, joined by one `.`, one or two `_`, or any number of `-`.
fn is_component(text: &str) -> bool {
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(is_alphanumeric) || !text.ends_with(is_alphanumeric) {
        return false;
    }
    let mut separators = text.split(is_alphanumeric).filter(|between| !between.is_empty());
    separators.all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|c| c == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let mut bytes = text.bytes();
    text.len() <= 128 && bytes.next().is_some_and(is_word) && bytes.all(|c| is_word(c) || c == b'.' || c == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn parse(text: &str) -> Result<Reference, ReferenceError> {
        text.parse()
    }

    #[test]
    fn short_names_get_dockers_defaults() {
        for (short, whole) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/a/b:t", "localhost:5000/a/b:t"),
            ("127.0.0.1:5000/app", "127.0.0.1:5000/app:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("Host/app", "Host/app:latest"),
            ("a-b--c__d/e.f_g", "docker.io/a-b--c__d/e.f_g:latest"),
        ] {
            let reference = parse(short).unwrap().or_latest();
            assert_eq!(reference.to_string(), whole, "{short}");
            assert_eq!(parse(whole).unwrap(), reference, "{short}");
        }
    }

    #[test]
    fn a_digest_needs_no_tag() {
        let text = format!("busybox@sha256:{HEX}");
        let reference = parse(&text).unwrap().or_latest();
        assert_eq!((reference.tag(), reference.familiar()), (None, text));
        let both = parse(&format!("busybox:1@sha256:{HEX}")).unwrap();
        assert_eq!(both.without_digest().familiar(), "busybox:1");
    }

    #[test]
    fn a_familiar_name_means_the_same() {
        for (whole, familiar) in [
            ("docker.io/library/busybox", "busybox"),
            ("library/a/b:1", "library/a/b:1"),
            ("docker.io/a.b/c", "docker.io/a.b/c"),
            ("docker.io/localhost/c", "docker.io/localhost/c"),
            (&format!("library/{HEX}"), &format!("library/{HEX}")),
        ] {
            let reference = parse(whole).unwrap();
            assert_eq!(reference.familiar(), familiar);
            assert_eq!(parse(familiar).unwrap(), reference);
        }
    }

    #[test]
    fn what_stands_for_content_is_no_name() {
        for text in [&format!("a@sha256:{HEX}"), &format!("a:1@sha256:{HEX}")] {
            assert!(matches!(parse(text).unwrap().as_name(), Err(ReferenceError::Pinned(_))), "{text}");
        }
        for text in ["sha256", "sha256:1", &format!("sha256:{HEX}"), "docker.io/library/sha256"] {
            assert!(matches!(parse(text).unwrap().as_name(), Err(ReferenceError::LooksLikeDigest(_))), "{text}");
        }
        for (text, name) in [("a", "a:latest"), ("example.org/sha256:1", "example.org/sha256:1")] {
            assert_eq!(parse(text).unwrap().as_name().unwrap().familiar(), name);
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_told_apart() {
        use ReferenceError as E;
        let is = |text: &str, right: fn(&E) -> bool| assert!(right(&parse(text).unwrap_err()), "{text}");
        for text in ["", ":tag", "localhost:5000/", "a.b/"] {
            is(text, |error| matches!(error, E::Empty(_)));
        }
        for text in ["Busybox", "a/../b", "a//b", "-a", "a-", "a___b", "a..b", "a/b/", "a b", "é"] {
            is(text, |error| matches!(error, E::Repository(_)));
        }
        for text in ["a:", "a:-x", "a:.x", "a:b c", "a:b@", &format!("a:{}", "x".repeat(129))] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["a_b.c/x", "-a.b/x", "a.b:x/y", "[::1/x.y", "a..b/x"] {
            is(text, |error| matches!(error, E::Registry(_)));
        }
        is(HEX, |error| matches!(error, E::LooksLikeId(_)));
        is(&format!("a/{}", "b".repeat(256)), |error| matches!(error, E::TooLong(_)));
        is("a@md5:00", |error| matches!(error, E::Digest(_)));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_read_back_the_same(text in "[a-zA-Z0-9._:/@-]{0,40}") {
            if let Ok(reference) = parse(&text) {
                prop_assert_eq!(parse(&reference.to_string()).unwrap(), reference.clone());
                prop_assert_eq!(parse(&reference.familiar()).unwrap(), reference);
            }
        }
    }
}
