//! `isobench image ls`.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::filter::{self, Label};
use super::super::template::Format;
use super::super::{CliError, Ended, columns, output};
use crate::image::digest::Digest;
use crate::image::error::ImageError;
use crate::image::reference::Reference;
use crate::image::spec::ImageConfig;
use crate::image::store::Store;
use crate::image::store::records::Record;

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
    // A collection between the records and the documents would look like damage.
    let share = store.share()?;
    let filters = Filters::parse(&args.filters, |text| Filter::parse(text, store))?;
    let images = images(store)?;
    // Given back before the output, which may wait for its reader.
    drop(share);
    let format = match &args.format {
        Some(format) => Format::parse(format)?,
        None if args.digests => Format::parse(TABLE_WITH_DIGESTS)?,
        None => Format::parse(TABLE)?,
    };
    let mut rows = Vec::new();
    for image in images.iter().filter(|image| filters.take(image)) {
        rows.extend(
            names(&image.record)
                .into_iter()
                .filter(|name| {
                    args.name.as_ref().is_none_or(|wanted| is_named(name, wanted)) && filters.take_name(name)
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

/// An image of the list.
#[derive(Debug)]
pub(super) struct Listed {
    id: Digest,
    record: Record,
    /// What its documents say; none where they are damaged.
    config: Option<ImageConfig>,
}

impl Listed {
    /// An image of the store, which the caller shares.
    pub(super) fn of(store: &Store, id: Digest, record: Record) -> Result<Self, ImageError> {
        match store.stored(id, record.clone()) {
            Ok(image) => Ok(Self { id, record, config: Some(image.config) }),
            // The others can be listed all the same, and this one be named to remove it.
            Err(error) if error.is_damage() => Ok(Self { id, record, config: None }),
            Err(error) => Err(error),
        }
    }

    /// When it was made; for a damaged one, when it came into the store.
    fn created(&self) -> Option<Timestamp> {
        match &self.config {
            Some(config) => created(config),
            None => self.record.added.parse().ok(),
        }
    }
}

/// All images, the newest first.
fn images(store: &Store) -> Result<Vec<Listed>, ImageError> {
    let records = store.records()?.into_iter();
    let mut images = records.map(|(id, record)| Listed::of(store, id, record)).collect::<Result<Vec<_>, _>>()?;
    images.sort_by_key(|image| std::cmp::Reverse(image.created()));
    Ok(images)
}

fn created(config: &ImageConfig) -> Option<Timestamp> {
    config.created.as_deref().and_then(|text| text.parse().ok())
}

/// Its names; one without a name is a row of its own.
fn names(record: &Record) -> Vec<Option<Reference>> {
    let names: Vec<_> = record.names.iter().filter_map(|name| name.parse().ok().map(Some)).collect();
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

/// What stands in the place of what only the documents tell.
const DAMAGED: &str = "<damaged>";

fn row(image: &Listed, name: Option<&Reference>, whole: bool, now: Timestamp) -> Value {
    let none = || "<none>".to_owned();
    let repository = name.map_or_else(none, Reference::familiar_repository);
    let tag = name.and_then(Reference::tag).map_or_else(none, str::to_owned);
    let digest = image.record.repo_digests.iter().filter_map(|text| text.parse::<Reference>().ok());
    let mut digest = digest.filter(|digest| name.is_some_and(|name| name.repository() == digest.repository()));
    let digest = digest.next().and_then(|reference| reference.digest().map(ToString::to_string));
    let size = columns::size(image.record.bytes);
    let time = |show: &dyn Fn(Timestamp) -> String| match &image.config {
        None => DAMAGED.to_owned(),
        Some(config) => created(config).map_or_else(|| "N/A".to_owned(), show),
    };
    json!({
        "Repository": repository,
        "Tag": tag,
        "Digest": digest.unwrap_or_else(none),
        "ID": if whole { image.id.to_string() } else { image.id.short() },
        "CreatedSince": time(&|then| columns::since(then, now)),
        "CreatedAt": time(&columns::at),
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
    Label(Label),
    Before(Option<Timestamp>),
    Since(Option<Timestamp>),
    Until(Timestamp),
    Reference(String),
}

impl Filter {
    /// Of a list, of which `before` and `since` name an image.
    fn parse(text: &str, store: &Store) -> Result<Self, CliError> {
        let made = |name: &str| Ok::<_, CliError>(created(&store.image(name)?.config));
        match text.split_once('=') {
            Some(("before", name)) => Ok(Self::Before(made(name)?)),
            Some(("since", name)) => Ok(Self::Since(made(name)?)),
            Some(("reference", pattern)) => Ok(Self::Reference(pattern.to_owned())),
            _ => Self::parse_prune(text),
        }
    }

    /// Of what is to be removed: docker knows fewer filters there. One that is not known must be an error, since what it
    /// was to spare would be removed.
    pub(super) fn parse_prune(text: &str) -> Result<Self, CliError> {
        let wrong = || CliError::Filter(text.to_owned());
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        Ok(match name {
            "dangling" => Self::Dangling(filter::truth(value).ok_or_else(wrong)?),
            "label" => Self::Label(Label::parse(value)),
            "until" => Self::Until(filter::until(value).ok_or_else(wrong)?),
            _ => return Err(wrong()),
        })
    }

    fn takes(&self, image: &Listed) -> bool {
        match self {
            Self::Dangling(dangling) => image.record.names.is_empty() == *dangling,
            Self::Label(label) => image.config.as_ref().is_some_and(|config| label.is_on(&config.config.labels)),
            Self::Before(time) => image.created() < *time,
            Self::Since(time) => image.created() > *time,
            Self::Until(time) => image.created().is_none_or(|then| then < *time),
            Self::Reference(_) => true,
        }
    }
}

/// All filters of a command.
#[derive(Debug)]
pub(super) struct Filters(Vec<Filter>);

impl Filters {
    pub(super) fn parse(texts: &[String], parse: impl Fn(&str) -> Result<Filter, CliError>) -> Result<Self, CliError> {
        texts.iter().map(|text| parse(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether all of them hold for an image.
    pub(super) fn take(&self, image: &Listed) -> bool {
        self.0.iter().all(|filter| filter.takes(image))
    }

    /// Whether one of the patterns fits a name, where there are any.
    fn take_name(&self, name: &Option<Reference>) -> bool {
        let mut patterns = self.0.iter().filter_map(|filter| match filter {
            Filter::Reference(pattern) => Some(pattern),
            _ => None,
        });
        let fits = |pattern: &String| {
            name.as_ref().is_some_and(|name| {
                let texts = [name.familiar(), name.familiar_repository(), name.to_string()];
                texts.iter().any(|text| filter::matches(pattern.as_bytes(), text.as_bytes()))
            })
        };
        match patterns.next() {
            Some(first) => fits(first) || patterns.any(fits),
            None => true,
        }
    }

    /// Whether images with a name are to be removed too, where a filter says so.
    pub(super) fn with_names(&self) -> Option<bool> {
        self.0.iter().find_map(|filter| match filter {
            Filter::Dangling(dangling) => Some(!dangling),
            _ => None,
        })
    }

    /// Whether all of them but `dangling` hold for an image: to a prune that one says which images it is of.
    pub(super) fn take_pruned(&self, image: &Listed) -> bool {
        self.0.iter().filter(|filter| !matches!(filter, Filter::Dangling(_))).all(|filter| filter.takes(image))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prune_knows_its_own_filters_only() {
        for text in ["until=24h", "label=a", "label=a=b", "dangling=true", "dangling=0"] {
            assert!(Filter::parse_prune(text).is_ok(), "{text}");
        }
        for text in ["reference=a*", "before=a", "since=a", "dangling=maybe", "dangling", "until=nonsense", "x=y", ""] {
            assert!(matches!(Filter::parse_prune(text), Err(CliError::Filter(_))), "{text}");
        }
        let filters = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            Filters::parse(&texts, Filter::parse_prune).unwrap()
        };
        assert_eq!(filters(&["dangling=false"]).with_names(), Some(true), "all that is not used");
        assert_eq!(filters(&["label=a", "dangling=true"]).with_names(), Some(false), "only what has no name");
        assert_eq!(filters(&["label=a"]).with_names(), None);
    }

    #[test]
    fn one_of_several_patterns_is_enough() {
        let patterns = ["a:*", "b:*"].map(|text| Filter::Reference(text.to_owned()));
        let filters = Filters(patterns.into());
        for (name, taken) in [("a:1", true), ("b:1", true), ("c:1", false)] {
            assert_eq!(filters.take_name(&Some(name.parse().unwrap())), taken, "{name}");
        }
        assert!(!filters.take_name(&None) && Filters(Vec::new()).take_name(&None));
    }
}
