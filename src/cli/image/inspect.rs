//! `isobench image inspect` and `history`.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::each::inspect_each;
use super::super::template::Format;
use super::super::{CliError, Ended, columns, output};
use crate::image::error::ImageError;
use crate::image::history::{self, Step};
use crate::image::reference::Reference;
use crate::image::store::Store;

/// The arguments of `isobench image inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Names or identifiers of images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// `json`, or a template as in '{{.Config.Cmd}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

/// The arguments of `isobench image history`.
#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// A name or identifier of an image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// `json`, a template as in '{{.CreatedBy}}', or 'table TEMPLATE'
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show sizes and times for people
    #[arg(short = 'H', long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    human: bool,
    /// Do not shorten identifiers and commands
    #[arg(long)]
    no_trunc: bool,
    /// Only identifiers
    #[arg(short, long)]
    quiet: bool,
}

pub(super) fn run(store: &Store, args: &InspectArgs) -> Result<Ended, CliError> {
    inspect_each(&args.images, args.format.as_deref(), |name| {
        let image = inspect(store, name)?;
        Ok(image)
    })
}

/// All that is known of an image, under docker's names.
fn inspect(store: &Store, name: &str) -> Result<Value, ImageError> {
    let _share = store.share()?;
    let image = store.image(name)?;
    // The configuration as it is, with what isobench does not read of it.
    let config: Value = serde_json::from_slice(&store.read_document(&image.id)?)
        .map_err(|source| ImageError::Json { what: format!("the configuration {}", image.id), source })?;
    let text = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let familiar = |names: &mut dyn Iterator<Item = &String>| -> Vec<String> {
        names.filter_map(|name| name.parse::<Reference>().ok()).map(|name| name.familiar()).collect()
    };
    let last = config.get("history").and_then(Value::as_array).and_then(|history| history.last());
    let comment = last.and_then(|entry| entry.get("comment")).cloned().unwrap_or_else(|| json!(""));
    let layers: Vec<String> = image.config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": familiar(&mut image.record.names.iter()),
        "RepoDigests": familiar(&mut image.record.repo_digests.iter()),
        "Parent": "",
        "Comment": comment,
        "Created": text("created"),
        "Author": text("author"),
        "Config": config.get("config").cloned().unwrap_or(Value::Null),
        "Architecture": text("architecture"),
        "Variant": text("variant"),
        "Os": text("os"),
        "Size": image.record.bytes,
        "RootFS": {"Type": "layers", "Layers": layers},
        "Metadata": {"LastTagTime": image.record.added},
        "Descriptor": {
            "mediaType": image.record.manifest.media_type,
            "digest": image.record.manifest.digest.to_string(),
            "size": image.record.manifest.size,
        },
    }))
}

const TABLE: &str = "table {{.ID}}\\t{{.CreatedSince}}\\t{{.CreatedBy}}\\t{{.Size}}\\t{{.Comment}}";
const TABLE_NOT_HUMAN: &str = "table {{.ID}}\\t{{.CreatedAt}}\\t{{.CreatedBy}}\\t{{.Size}}\\t{{.Comment}}";

pub(super) fn history(store: &Store, args: &HistoryArgs) -> Result<Ended, CliError> {
    // Given back before the output, which may wait for its reader.
    let share = store.share()?;
    let steps = history::steps(store, &store.image(&args.image)?)?;
    drop(share);
    let format = match &args.format {
        Some(format) => Format::parse(format)?,
        None if args.quiet => Format::parse("{{.ID}}")?,
        None if args.human => Format::parse(TABLE)?,
        None => Format::parse(TABLE_NOT_HUMAN)?,
    };
    let titles = json!({
        "ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "CreatedBy": "CREATED BY", "Size": "SIZE",
        "Comment": "COMMENT",
    });
    let now = Timestamp::now();
    let values: Vec<Value> = steps.iter().map(|step| row(step, args, now)).collect();
    output::print(&format.render(&values, &titles)?)?;
    Ok(Ended::Pass)
}

fn row(step: &Step, args: &HistoryArgs, now: Timestamp) -> Value {
    let id = match step.id {
        Some(id) if args.no_trunc => id.to_string(),
        Some(id) => id.short(),
        None => "<missing>".to_owned(),
    };
    let created = step.entry.created.as_deref();
    let then: Option<Timestamp> = created.and_then(|text| text.parse().ok());
    let by = step.entry.created_by.as_deref().unwrap_or_default().replace('\t', " ");
    json!({
        "ID": id,
        "CreatedSince": then.map_or_else(|| "N/A".to_owned(), |then| columns::since(then, now)),
        "CreatedAt": created.unwrap_or("N/A"),
        "CreatedBy": if args.no_trunc { by } else { shorten(&by) },
        "Size": if args.human { columns::size(step.bytes) } else { step.bytes.to_string() },
        "Comment": step.entry.comment.as_deref().unwrap_or_default(),
    })
}

/// To 45 characters, as docker does.
fn shorten(text: &str) -> String {
    const MOST: usize = 45;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST - 1).chain(['…']).collect()
}
