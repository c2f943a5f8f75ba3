//! Which images an OCI layout holds: its index, the indexes within, and the platforms among which to choose.

use super::{Candidate, Found, IMAGE_NAME, REF_NAME, Selection, wanted};
use crate::image::error::ImageError;
use crate::image::reference::Reference;
use crate::image::spec::{Descriptor, Index, Platform, media};
use crate::image::store::records::parse;
use crate::image::store::{MAX_DOCUMENT, Store};

/// What an index has for manifests that run nowhere, as those that only tell of others.
const NO_PLATFORM: &str = "unknown";

/// The images of an OCI layout. Their manifests are in the store after.
pub(super) fn candidates(
    store: &Store,
    found: &Found,
    index: &[u8],
    selection: &Selection,
) -> Result<Vec<Candidate>, ImageError> {
    let index: Index = parse(index, || format!("index.json of {}", found.what()))?;
    let mut candidates: Vec<Candidate> = Vec::new();
    for entry in of_platform(index.manifests, &selection.platform, &found.what())? {
        let texts = names(&entry);
        // A bare tag is no name of an image.
        let names: Vec<Reference> = (texts.iter().take(1))
            .filter(|text| text.contains([':', '/']))
            .filter_map(|text| text.parse::<Reference>().ok())
            .map(|name| name.as_name())
            .collect::<Result<_, _>>()?;
        if !wanted(selection, &names, &texts) {
            continue;
        }
        let manifest = choose(store, found, entry, &selection.platform, 0)?;
        if !media::is_config(&store.manifest(&manifest.digest)?.config.media_type) {
            continue;
        }
        match candidates.iter_mut().find(|known| known.manifest.digest == manifest.digest) {
            Some(known) => known.names.extend(names),
            None => candidates.push(Candidate { manifest, names }),
        }
    }
    Ok(candidates)
}

/// How the layout calls an entry, the most that it says first.
fn names(entry: &Descriptor) -> Vec<String> {
    [IMAGE_NAME, REF_NAME].iter().filter_map(|name| entry.annotations.get(*name).cloned()).collect()
}

/// The entries of an index without those of a name that are for other platforms. What has no platform, or its name for
/// itself, is taken as it is: someone asked for it by that name.
fn of_platform(entries: Vec<Descriptor>, platform: &Platform, what: &str) -> Result<Vec<Descriptor>, ImageError> {
    let mut taken: Vec<Descriptor> = Vec::new();
    let runs = |entry: &Descriptor| entry.platform.as_ref().is_none_or(|platform| platform.os != NO_PLATFORM);
    let mut rest: Vec<Descriptor> = entries.into_iter().filter(runs).collect();
    while let Some(first) = rest.first() {
        let name = names(first);
        let (same, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|entry| names(entry) == name);
        rest = others;
        if same.len() == 1 || same.iter().any(|entry| entry.platform.is_none()) {
            taken.extend(same);
            continue;
        }
        let has = listed(&same);
        let Some(best) = same.iter().filter_map(|entry| suits(entry, platform)).max() else {
            let wanted = told(platform);
            return Err(ImageError::Platform { what: what.to_owned(), wanted, has });
        };
        let suiting = same.into_iter().filter(|entry| suits(entry, platform) == Some(best));
        // Those of one name are one image's variants; those of none are images of their own.
        let most = if name.is_empty() { usize::MAX } else { 1 };
        taken.extend(suiting.take(most));
    }
    Ok(taken)
}

/// Follows an index to the manifest of a platform. The documents are in the store after.
fn choose(
    store: &Store,
    found: &Found,
    entry: Descriptor,
    platform: &Platform,
    depth: u32,
) -> Result<Descriptor, ImageError> {
    if entry.size > MAX_DOCUMENT {
        let what = format!("the manifest {} of {}", entry.digest, found.what());
        return Err(ImageError::TooLarge { what, size: entry.size, limit: MAX_DOCUMENT });
    }
    found.blob(store, &entry)?;
    if !media::is_index(&entry.media_type) {
        return Ok(entry);
    }
    if depth > 2 {
        return Err(ImageError::invalid(found.what(), "its indexes lie too deep within each other"));
    }
    let what = format!("the index {} of {}", entry.digest, found.what());
    let index: Index = parse(&store.read_document(&entry.digest)?, || what.clone())?;
    choose(store, found, select(index, platform, &what)?, platform, depth + 1)
}

/// The manifest of a platform.
pub(in crate::image) fn select(index: Index, platform: &Platform, what: &str) -> Result<Descriptor, ImageError> {
    let mut manifests = index.manifests;
    // Without platforms there is no choice to make.
    let at = if manifests.len() == 1 && manifests[0].platform.is_none() {
        Some(0)
    } else {
        let suiting = manifests.iter().enumerate().filter_map(|(at, entry)| Some((at, suits(entry, platform)?)));
        // Of several that suit alike, the first.
        suiting.min_by_key(|(_, how)| std::cmp::Reverse(*how)).map(|(at, _)| at)
    };
    match at {
        Some(at) => Ok(manifests.swap_remove(at)),
        None => {
            let (wanted, has) = (told(platform), listed(&manifests));
            Err(ImageError::Platform { what: what.to_owned(), wanted, has })
        }
    }
}

/// How well an entry runs on a platform, more being better; `None` where it does not.
fn suits(entry: &Descriptor, platform: &Platform) -> Option<u32> {
    let has = entry.platform.as_ref()?;
    if (&has.os, &has.architecture) != (&platform.os, &platform.architecture) {
        return None;
    }
    let version = |platform: &Platform, unsaid: u32| match &platform.variant {
        None => Some(unsaid),
        Some(variant) => variant.strip_prefix('v')?.parse().ok(),
    };
    match platform.architecture.as_str() {
        // A processor runs what older ones do. Those that say nothing are of the common kind.
        "arm" => version(has, 7).filter(|has| version(platform, 7).is_some_and(|most| *has <= most)),
        "arm64" => version(has, 8).filter(|has| version(platform, 8).is_some_and(|most| *has <= most)),
        _ => match &platform.variant {
            None => Some(u32::from(has.variant.is_none())),
            wanted => (has.variant == *wanted).then_some(0),
        },
    }
}

fn told(platform: &Platform) -> String {
    match &platform.variant {
        Some(variant) => format!("{}/{}/{variant}", platform.os, platform.architecture),
        None => format!("{}/{}", platform.os, platform.architecture),
    }
}

fn listed(entries: &[Descriptor]) -> String {
    entries.iter().filter_map(|entry| entry.platform.as_ref()).map(told).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::digest::Digest;

    fn entry(content: &str, architecture: Option<&str>, name: Option<&str>) -> Descriptor {
        let mut entry = Descriptor::new(media::OCI_MANIFEST, Digest::of(content.as_bytes()), 1);
        entry.platform = architecture.map(|architecture| Platform {
            architecture: architecture.to_owned(),
            os: if architecture == NO_PLATFORM { NO_PLATFORM.to_owned() } else { "linux".to_owned() },
            variant: None,
        });
        entry.annotations.extend(name.map(|name| (REF_NAME.to_owned(), name.to_owned())));
        entry
    }

    fn taken(entries: Vec<Descriptor>, architecture: &str) -> Result<Vec<Digest>, ImageError> {
        let platform = Platform { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None };
        Ok(of_platform(entries, &platform, "a layout")?.iter().map(|entry| entry.digest).collect())
    }

    #[test]
    fn of_one_names_platforms_one_is_taken() {
        let both = |name| vec![entry("a", Some("amd64"), name), entry("b", Some("s390x"), name)];
        for name in [Some("example.org/a:1"), None] {
            assert_eq!(taken(both(name), "s390x").unwrap(), [Digest::of(b"b")]);
            assert!(
                matches!(taken(both(name), "riscv64"), Err(ImageError::Platform { has, .. }) if has == "linux/amd64, linux/s390x")
            );
        }
    }

    #[test]
    fn of_variants_the_best_that_runs_is_taken() {
        let platform = |architecture: &str, variant: &str| Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: Some(variant.to_owned()).filter(|variant| !variant.is_empty()),
        };
        let chosen = |architecture: &str, has: &[&str], wanted: &str| {
            let manifests = has.iter().map(|variant| Descriptor {
                platform: Some(platform(architecture, variant)),
                ..entry(variant, None, None)
            });
            let index = Index { schema_version: 2, media_type: None, manifests: manifests.collect() };
            let chosen = select(index, &platform(architecture, wanted), "an index").ok()?;
            chosen.platform.map(|platform| platform.variant.unwrap_or_default())
        };
        for (architecture, has, wanted, best) in [
            ("arm", &["v5", "v7", "v6"][..], "", Some("v7")),
            ("arm", &["v5", "v6", "v7"], "v6", Some("v6")),
            ("arm", &["v7"], "v6", None),
            ("arm64", &["v8"], "", Some("v8")),
            ("arm64", &[""], "v8", Some("")),
            ("arm64", &["v9"], "", None),
            ("amd64", &["v3", ""], "", Some("")),
            ("amd64", &["", "v3"], "v3", Some("v3")),
            ("amd64", &[""], "v3", None),
        ] {
            assert_eq!(chosen(architecture, has, wanted).as_deref(), best, "{architecture} {has:?} {wanted}");
        }
    }

    #[test]
    fn what_has_its_name_for_itself_is_taken_as_it_is() {
        let entries = vec![
            entry("a", Some("amd64"), Some("a:1")),
            entry("b", Some("s390x"), Some("b:1")),
            entry("c", None, None),
            entry("d", None, None),
            entry("e", Some(NO_PLATFORM), Some("a:1")),
        ];
        let all = [b"a", b"b", b"c", b"d"].map(|content| Digest::of(content));
        assert_eq!(taken(entries, "amd64").unwrap(), all);
    }
}
