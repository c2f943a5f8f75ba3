//! The `--filter` of the list of containers: values of one name are alternatives, names add up, labels all hold.

use super::super::CliError;
use super::super::filter::Label;
use super::shown;
use crate::container::config::{Config, MountSource};
use crate::container::state::{State, Status};
use crate::container::store::{Store, Stored};
use crate::image::reference::Reference;

/// All filters of a list.
#[derive(Debug, Default)]
pub(super) struct Filters {
    labels: Vec<Label>,
    ids: Vec<String>,
    names: Vec<String>,
    exited: Vec<i32>,
    statuses: Vec<String>,
    ancestors: Vec<Ancestor>,
    /// Times of making, by RFC 3339.
    before: Option<String>,
    since: Option<String>,
    volumes: Vec<String>,
    networks: Vec<String>,
    published: Vec<Port>,
    exposed: Vec<Port>,
    health: Vec<String>,
}

/// An image that a container is made of.
#[derive(Debug)]
struct Ancestor {
    name: String,
    id: Option<String>,
}

/// Ports from the first to the last, of a protocol.
#[derive(Debug, PartialEq, Eq)]
struct Port {
    first: u16,
    last: u16,
    protocol: String,
}

impl Port {
    /// Reads `PORT[-PORT][/PROTOCOL]`.
    fn parse(text: &str) -> Option<Self> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        Some(Self { first: first.parse().ok()?, last: last.parse().ok()?, protocol: protocol.to_owned() })
    }

    fn has(&self, port: u16, protocol: &str) -> bool {
        (self.first..=self.last).contains(&port) && self.protocol == protocol
    }
}

const STATUSES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTH: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

impl Filters {
    /// Reads filters; `before` and `since` name a container of the store.
    pub(super) fn parse(texts: &[String], store: &Store) -> Result<Self, CliError> {
        let mut filters = Self::default();
        for text in texts {
            let wrong = || CliError::Filter(text.clone());
            let (name, value) = text.split_once('=').ok_or_else(wrong)?;
            let owned = value.to_owned();
            match name {
                "id" => filters.ids.push(owned),
                "name" => filters.names.push(owned),
                "label" => filters.labels.push(Label::parse(value)),
                "exited" => filters.exited.push(value.parse().map_err(|_| wrong())?),
                "status" if STATUSES.contains(&value) => filters.statuses.push(owned),
                "ancestor" => filters.ancestors.push(ancestor(value)),
                "before" => filters.before = Some(store.find(value)?.config.created),
                "since" => filters.since = Some(store.find(value)?.config.created),
                "volume" => filters.volumes.push(owned),
                "network" => filters.networks.push(owned),
                "publish" => filters.published.push(Port::parse(value).ok_or_else(wrong)?),
                "expose" => filters.exposed.push(Port::parse(value).ok_or_else(wrong)?),
                "health" if HEALTH.contains(&value) => filters.health.push(owned),
                _ => return Err(wrong()),
            }
        }
        Ok(filters)
    }

    /// Whether they ask for containers that do not run.
    pub(super) fn want_all(&self) -> bool {
        !self.statuses.is_empty()
    }

    /// Whether all of them hold.
    pub(super) fn take(&self, Stored { config, .. }: &Stored, state: &State) -> bool {
        let ended = state.status == Status::Exited;
        any(&self.ids, |id| config.id.contains(id.as_str()))
            && any(&self.names, |name| is_named(&config.name, name))
            && self.labels.iter().all(|label| label.is_on(&config.labels))
            && any(&self.exited, |code| ended && state.exit_code.unwrap_or(0) == *code)
            && any(&self.statuses, |status| is_status(state, status))
            && any(&self.ancestors, |ancestor| is_of(config, ancestor))
            && self.before.as_ref().is_none_or(|time| earlier(&config.created, time))
            && self.since.as_ref().is_none_or(|time| earlier(time, &config.created))
            && any(&self.volumes, |volume| has_volume(config, volume))
            && any(&self.networks, |network| shown::network(config) == network)
            && any(&self.published, |port| {
                let mut all = shown::published(state).into_iter();
                all.any(|published| port.has(published.container_port, &published.protocol.to_string()))
            })
            && any(&self.exposed, |port| {
                config.exposed.iter().any(|exposed| {
                    Port::parse(exposed).is_some_and(|exposed| port.has(exposed.first, &exposed.protocol))
                })
            })
            && any(&self.health, |health| shown::health(state) == health)
    }
}

/// Whether there is no alternative, or one that holds.
fn any<T>(alternatives: &[T], holds: impl Fn(&T) -> bool) -> bool {
    alternatives.is_empty() || alternatives.iter().any(holds)
}

/// A part of a name; `^` and `$` tie it to the beginning and the end.
fn is_named(name: &str, pattern: &str) -> bool {
    let (begins, pattern) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (ends, pattern) = pattern.strip_suffix('$').map_or((false, pattern), |rest| (true, rest));
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    match (begins, ends) {
        (true, true) => name == pattern,
        (true, false) => name.starts_with(pattern),
        (false, true) => name.ends_with(pattern),
        (false, false) => name.contains(pattern),
    }
}

fn is_status(state: &State, wanted: &str) -> bool {
    if state.removing { wanted == "removing" } else { state.status.as_str() == wanted }
}

/// An image by its name, its identifier, or the name that it has in the store.
fn ancestor(text: &str) -> Ancestor {
    let store = crate::image::Store::existing().ok().flatten();
    let id = store.and_then(|store| store.find(text).ok()).map(|id| id.to_string());
    let name = text.parse::<Reference>().map_or_else(|_| text.to_owned(), |name| name.or_latest().to_string());
    Ancestor { name, id }
}

fn is_of(config: &Config, ancestor: &Ancestor) -> bool {
    let named = config.image.parse::<Reference>().map(|name| name.or_latest().to_string());
    (ancestor.id.is_some() && config.image_id == ancestor.id) || named.is_ok_and(|name| name == ancestor.name)
}

fn has_volume(config: &Config, wanted: &str) -> bool {
    config.mounts.iter().any(|mount| {
        mount.target == wanted
            || match &mount.source {
                MountSource::Volume { name, .. } => name == wanted,
                MountSource::Bind { path, .. } => path == wanted,
                MountSource::Tmpfs { .. } => false,
            }
    })
}

/// Whether a time comes before another.
fn earlier(a: &str, b: &str) -> bool {
    match (shown::time(Some(a)), shown::time(Some(b))) {
        (Some(a), Some(b)) => a < b,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_a_part_or_tied() {
        for (pattern, fits) in [
            ("we", true),
            ("^we", true),
            ("eb1$", true),
            ("^web1$", true),
            ("^/web1$", true),
            ("^eb", false),
            ("x", false),
        ] {
            assert_eq!(is_named("web1", pattern), fits, "{pattern}");
        }
    }

    #[test]
    fn ports_and_ranges() {
        let range = Port::parse("80-90/udp").unwrap();
        assert!(range.has(85, "udp") && !range.has(85, "tcp") && !range.has(91, "udp"));
        assert!(Port::parse("80").unwrap().has(80, "tcp"));
        assert_eq!(Port::parse("x"), None);
    }

    #[test]
    fn what_is_no_filter_is_told() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        for text in ["status=nonsense", "exited=x", "health=x", "x=y", "name", "publish=x", "before=none"] {
            assert!(Filters::parse(&[text.to_owned()], &store).is_err(), "{text}");
        }
        let filters = ["name=a", "status=exited", "label=a=b"].map(str::to_owned);
        assert!(Filters::parse(&filters, &store).unwrap().want_all());
    }
}
