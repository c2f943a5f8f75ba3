//! `isobench image ls`.

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::{CliError, Ended, output};
use super::columns;
use super::template::Format;
use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::reference::Reference;
use crate::image::store::Store;
use crate::image::store::records::Stored;

/// The arguments of `isobench image ls`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only images of this repository, or of this name
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
    /// Accepted for docker's sake: there are no intermediate images
    #[arg(short, long)]
    all: bool,
    /// Show the digests that registries know the images by
    #[arg(long)]
    digests: bool,
    /// Only images for which this holds: dangling=BOOL, label=NAME[=VALUE], before=IMAGE, since=IMAGE, reference=PATTERN
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// `json`, a template as in '{{.Repository}}:{{.Tag}}', or 'table TEMPLATE'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not shorten identifiers
    #[arg(long)]
    no_trunc: bool,
    /// Only identifiers
    #[arg(short, long)]
    quiet: bool,
}

const TABLE: &str = "table {{.Repository}}\\t{{.Tag}}\\t{{.ID}}\\t{{.CreatedSince}}\\t{{.Size}}";
const TABLE_WITH_DIGESTS: &str =
    "table {{.Repository}}\\t{{.Tag}}\\t{{.Digest}}\\t{{.ID}}\\t{{.CreatedSince}}\\t{{.Size}}";

pub(super) fn run(store: &Store, args: &ListArgs) -> Result<Ended, CliError> {
    let filters = args.filters.iter().map(|text| Filter::parse(text, store)).collect::<Result<Vec<_>, _>>()?;
    let format = match &args.format {
        Some(format) => Format::parse(format)?,
        None if args.digests => Format::parse(TABLE_WITH_DIGESTS)?,
        None => Format::parse(TABLE)?,
    };
    let images = images(store)?;
    let mut rows = Vec::new();
    for image in images.iter().filter(|image| filters.iter().all(|filter| filter.takes(image))) {
        rows.extend(
            names(image)
                .into_iter()
                .filter(|name| {
                    args.name.as_ref().is_none_or(|wanted| is_named(name, wanted))
                        && filters.iter().all(|filter| filter.takes_name(name))
                })
                .map(|name| (image, name)),
        );
    }
    if args.quiet {
        let mut ids: Vec<&Digest> = rows.iter().map(|(image, _)| &image.id).collect();
        ids.dedup();
        let line = |id: &Digest| if args.no_trunc { format!("{id}\n") } else { format!("{}\n", id.short()) };
        output::print(&ids.into_iter().map(line).collect::<String>())?;
        return Ok(Ended::Pass);
    }
    let now = Timestamp::now();
    let values: Vec<Value> = rows.iter().map(|(image, name)| row(image, name.as_ref(), args.no_trunc, now)).collect();
    output::print(&format.render(&values, &titles())?)?;
    Ok(Ended::Pass)
}

/// All images, the newest first.
pub(super) fn images(store: &Store) -> Result<Vec<Stored>, ImageError> {
    let mut images = Vec::new();
    for (id, record) in store.records()? {
        images.push(store.stored(id, record)?);
    }
    images.sort_by_key(|image| std::cmp::Reverse(created(image)));
    Ok(images)
}

/// When an image was made.
pub(super) fn created(image: &Stored) -> Option<Timestamp> {
    image.config.created.as_deref().and_then(|text| text.parse().ok())
}

/// Its names; one without a name is a row of its own.
fn names(image: &Stored) -> Vec<Option<Reference>> {
    let names: Vec<_> = image.record.names.iter().filter_map(|name| name.parse().ok().map(Some)).collect();
    if names.is_empty() { vec![None] } else { names }
}

fn is_named(name: &Option<Reference>, wanted: &str) -> bool {
    let (Some(name), Ok(wanted)) = (name, wanted.parse::<Reference>()) else { return false };
    name.registry() == wanted.registry()
        && name.repository() == wanted.repository()
        && (wanted.tag().is_none() || name.tag() == wanted.tag())
}

fn titles() -> Value {
    json!({
        "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "ID": "IMAGE ID", "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT", "Size": "SIZE", "VirtualSize": "SIZE", "Containers": "CONTAINERS",
        "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
    })
}

fn row(image: &Stored, name: Option<&Reference>, whole: bool, now: Timestamp) -> Value {
    let none = || "<none>".to_owned();
    let repository = name.map_or_else(none, Reference::familiar_repository);
    let tag = name.and_then(Reference::tag).map_or_else(none, str::to_owned);
    let digest = image.record.repo_digests.iter().filter_map(|text| text.parse::<Reference>().ok());
    let mut digest = digest.filter(|digest| name.is_some_and(|name| name.repository() == digest.repository()));
    let digest = digest.next().and_then(|reference| reference.digest().map(ToString::to_string));
    let size = columns::size(image.record.bytes);
    json!({
        "Repository": repository,
        "Tag": tag,
        "Digest": digest.unwrap_or_else(none),
        "ID": if whole { image.id.to_string() } else { image.id.short() },
        "CreatedSince": created(image).map_or_else(|| "N/A".to_owned(), |then| columns::since(then, now)),
        "CreatedAt": created(image).map_or_else(|| "N/A".to_owned(), columns::at),
        "Size": size,
        "VirtualSize": size,
        "Containers": "N/A",
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
    })
}

/// A `--filter`.
#[derive(Debug)]
pub(super) enum Filter {
    Dangling(bool),
    Label(String, Option<String>),
    Before(Option<Timestamp>),
    Since(Option<Timestamp>),
    Until(Timestamp),
    Reference(String),
}

impl Filter {
    pub(super) fn parse(text: &str, store: &Store) -> Result<Self, CliError> {
        let wrong = || CliError::Filter(text.to_owned());
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        Ok(match name {
            "dangling" => Self::Dangling(match value {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Err(wrong()),
            }),
            "label" => match value.split_once('=') {
                Some((label, value)) => Self::Label(label.to_owned(), Some(value.to_owned())),
                None => Self::Label(value.to_owned(), None),
            },
            "before" => Self::Before(created(&store.image(value)?)),
            "since" => Self::Since(created(&store.image(value)?)),
            "until" => Self::Until(until(value).ok_or_else(wrong)?),
            "reference" => Self::Reference(value.to_owned()),
            _ => return Err(wrong()),
        })
    }

    pub(super) fn takes(&self, image: &Stored) -> bool {
        match self {
            Self::Dangling(dangling) => image.record.names.is_empty() == *dangling,
            Self::Label(name, value) => {
                let label = image.config.config.labels.get(name);
                label.is_some_and(|has| value.as_ref().is_none_or(|value| value == has))
            }
            Self::Before(time) => created(image) < *time,
            Self::Since(time) => created(image) > *time,
            Self::Until(time) => created(image).is_none_or(|then| then < *time),
            Self::Reference(_) => true,
        }
    }

    fn takes_name(&self, name: &Option<Reference>) -> bool {
        let Self::Reference(pattern) = self else { return true };
        name.as_ref().is_some_and(|name| {
            let texts = [name.familiar(), name.familiar_repository(), name.to_string()];
            texts.iter().any(|text| matches(pattern.as_bytes(), text.as_bytes()))
        })
    }
}

/// A time, or how long before now, as in `24h` or `2026-01-31T12:00:00Z`.
fn until(text: &str) -> Option<Timestamp> {
    if let Ok(span) = text.parse::<SignedDuration>() {
        return Timestamp::now().checked_sub(span).ok();
    }
    text.parse::<i64>().ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).or_else(|| text.parse().ok())
}

/// A shell's pattern, where `*` and `?` do not match a slash.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            matches(rest, text) || (!text.is_empty() && text[0] != b'/' && matches(pattern, &text[1..]))
        }
        ([b'?', pattern @ ..], [c, text @ ..]) => *c != b'/' && matches(pattern, text),
        ([a, pattern @ ..], [b, text @ ..]) => a == b && matches(pattern, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("*box:1.?", "busybox:1.3", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("b", "bb", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn times_to_prune_by() {
        assert!(until("24h").unwrap() < Timestamp::now());
        assert_eq!(until("0"), Some(Timestamp::UNIX_EPOCH));
        assert_eq!(until("nonsense"), None);
    }
}
