//! How docker writes what a container is and does: status, ports, command.

use jiff::Timestamp;

use super::super::columns;
use crate::container::config::{Config, NetworkMode};
use crate::container::state::{Health, State, Status};
use crate::network::PortMapping;

/// A state as it is now: a container whose first process has ended without anyone noting it has ended. Looked at once,
/// since each look reads of /proc.
pub(super) fn settled(state: State) -> State {
    if state.status.is_up() && !state.is_alive() {
        return State { status: Status::Exited, init: None, ..state };
    }
    state
}

/// A time of a state.
pub(super) fn time(text: Option<&str>) -> Option<Timestamp> {
    text.and_then(|text| text.parse().ok())
}

/// As in `Up 2 hours (healthy)` and `Exited (0) 3 minutes ago`.
pub(super) fn status_line(state: &State, now: Timestamp) -> String {
    let ago =
        |text: Option<&str>| time(text).map_or_else(|| "some time ago".to_owned(), |then| columns::since(then, now));
    let code = state.exit_code.unwrap_or(0);
    let up = || {
        let line = ago(state.started.as_deref());
        format!("Up {}", line.strip_suffix(" ago").unwrap_or(&line))
    };
    match state.status {
        _ if state.removing => "Removal In Progress".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Paused => format!("{} (Paused)", up()),
        Status::Restarting => format!("Restarting ({code}) {}", ago(state.finished.as_deref())),
        Status::Exited => format!("Exited ({code}) {}", ago(state.finished.as_deref())),
        Status::Running => match state.health {
            None => up(),
            Some(Health::Starting) => format!("{} (health: starting)", up()),
            Some(Health::Healthy) => format!("{} (healthy)", up()),
            Some(Health::Unhealthy) => format!("{} (unhealthy)", up()),
        },
    }
}

/// Docker's word for how well a container is.
pub(super) fn health(state: &State) -> &'static str {
    match state.health {
        None => "none",
        Some(Health::Starting) => "starting",
        Some(Health::Healthy) => "healthy",
        Some(Health::Unhealthy) => "unhealthy",
    }
}

/// The published ports of a container that is up. This and what follows is of a state that was [`settled`].
pub(super) fn published(state: &State) -> Vec<PortMapping> {
    let connection = state.connection.iter().filter(|_| state.status.is_up());
    let ports = connection.flat_map(|connection| &connection.ports);
    ports.filter_map(|port| port.parse().ok()).collect()
}

/// The host's end of a published port, as in `0.0.0.0:8080`.
pub(super) fn host_end(port: &PortMapping) -> String {
    let address = port.host_ip.map_or_else(|| "0.0.0.0".to_owned(), |address| address.to_string());
    format!("{address}:{}", port.host_port)
}

/// Ports of a container that is up: the published with where they are, the exposed without.
pub(super) fn ports(config: &Config, state: &State) -> String {
    if !state.status.is_up() {
        return String::new();
    }
    let published = published(state);
    let inside = |port: &PortMapping| format!("{}/{}", port.container_port, port.protocol);
    let mut lines: Vec<(u16, String)> =
        (published.iter()).map(|port| (port.container_port, format!("{}->{}", host_end(port), inside(port)))).collect();
    for exposed in &config.exposed {
        if !published.iter().any(|port| inside(port) == *exposed) {
            let number = exposed.split('/').next().and_then(|number| number.parse().ok());
            lines.push((number.unwrap_or(0), exposed.clone()));
        }
    }
    lines.sort();
    lines.into_iter().map(|(_, line)| line).collect::<Vec<_>>().join(", ")
}

/// The program and its arguments in quotes, shortened to 20 characters.
pub(super) fn command(config: &Config, whole: bool) -> String {
    const MOST: usize = 20;
    let mut text = config.arguments().join(" ");
    if !whole && text.chars().count() > MOST {
        text = text.chars().take(MOST - 1).chain(['…']).collect();
    }
    format!("{text:?}")
}

/// The network's name.
pub(super) fn network(config: &Config) -> &str {
    match &config.network {
        NetworkMode::None => "none",
        NetworkMode::Host => "host",
        NetworkMode::Bridge(name) => name,
        NetworkMode::Container(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::state::Process;

    #[test]
    fn status_lines_as_docker_writes_them() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let alive = Process::of(std::process::id());
        let started = Some("2026-01-01T00:55:00Z".to_owned());
        let up = State { status: Status::Running, init: alive, started, ..State::created(String::new()) };
        let line = |state: &State| status_line(state, now);
        assert_eq!(line(&State::created(String::new())), "Created");
        assert_eq!(line(&up), "Up 5 minutes");
        assert_eq!(line(&State { status: Status::Paused, ..up.clone() }), "Up 5 minutes (Paused)");
        assert_eq!(line(&State { health: Some(Health::Starting), ..up.clone() }), "Up 5 minutes (health: starting)");
        assert_eq!(line(&State { health: Some(Health::Unhealthy), ..up.clone() }), "Up 5 minutes (unhealthy)");
        let finished = Some("2026-01-01T00:59:00Z".to_owned());
        let ended = State { status: Status::Exited, init: None, finished, exit_code: Some(137), ..up.clone() };
        assert_eq!(line(&ended), "Exited (137) About a minute ago");
        assert_eq!(line(&State { status: Status::Restarting, ..ended }), "Restarting (137) About a minute ago");
        assert_eq!(line(&State { removing: true, ..up.clone() }), "Removal In Progress");
        // Its process ended and no one noted it.
        assert_eq!(settled(up.clone()), up);
        assert_eq!(settled(State { init: None, ..up }).status, Status::Exited);
    }
}
