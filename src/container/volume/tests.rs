//! Volumes, and the containers of the store that name them.

use std::fs;
use std::time::Duration;

use super::super::config::{Limits, LogConfig, Mount, NetworkMode, RestartPolicy, SCHEMA, Security};
use super::*;

/// A container that names these volumes.
fn config(mounts: Vec<Mount>) -> Config {
    Config {
        schema: SCHEMA,
        id: "0123456789abcdef".repeat(4),
        name: "user".to_owned(),
        created: "2025-01-01T00:00:00Z".to_owned(),
        image: "self".to_owned(),
        image_id: None,
        entrypoint: Vec::new(),
        command: Vec::new(),
        environment: Vec::new(),
        working_directory: "/".to_owned(),
        user: String::new(),
        groups: Vec::new(),
        hostname: "user".to_owned(),
        domainname: None,
        labels: Default::default(),
        network: NetworkMode::None,
        ports: Vec::new(),
        exposed: Vec::new(),
        publish_all: false,
        extra_hosts: Vec::new(),
        dns: Vec::new(),
        dns_search: Vec::new(),
        open_stdin: false,
        stdin_once: false,
        tty: false,
        mounts,
        read_only: false,
        user_namespace: None,
        limits: Limits::default(),
        devices: Vec::new(),
        device_rules: Vec::new(),
        ulimits: Vec::new(),
        security: Security::default(),
        init: false,
        auto_remove: false,
        restart: RestartPolicy::No,
        stop_signal: 15,
        stop_timeout: Duration::from_secs(10),
        health: None,
        log: LogConfig::default(),
    }
}

fn store() -> (tempfile::TempDir, Store, Volumes) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let volumes = Volumes::of(&store);
    (directory, store, volumes)
}

#[test]
fn a_volume_is_made_once_and_stays_while_a_container_names_it() {
    let (_directory, store, volumes) = store();
    let locked = volumes.lock().unwrap();
    let data = locked.ensure("data", false, None).unwrap();
    fs::write(data.join("kept"), "x").unwrap();
    assert_eq!(locked.ensure("data", true, None).unwrap(), data);
    assert!(data.join("kept").exists());
    let fresh = fresh_name().unwrap();
    assert_eq!(fresh.len(), 64);
    locked.ensure(&fresh, true, None).unwrap();
    let mounts = [("data", false), (fresh.as_str(), true)]
        .map(|(name, anonymous)| Mount {
            source: MountSource::Volume { name: name.to_owned(), anonymous },
            target: format!("/{name}"),
            read_only: false,
            propagation: String::new(),
        })
        .to_vec();
    let stored = store.create(config(mounts)).unwrap();
    let error = locked.remove("data").unwrap_err().to_string();
    assert_eq!(error, format!("volume data is in use by container {}", stored.config.short_id()));
    assert_eq!(locked.prune(true).unwrap(), [""; 0]);
    store.hide(&stored).unwrap().purge().unwrap();
    locked.remove_anonymous_of(&stored.config).unwrap();
    let left: Vec<String> = volumes.list().unwrap().into_iter().map(|volume| volume.name).collect();
    assert_eq!(left, ["data"]);
    assert_eq!(locked.prune(false).unwrap(), [""; 0]);
    assert_eq!(locked.prune(true).unwrap(), ["data"]);
    assert!(matches!(locked.remove("data"), Err(VolumeError::NotFound(_))));
    for name in ["a", "../x", ".hidden", "a/b", ""] {
        assert!(matches!(locked.ensure(name, false, None), Err(VolumeError::Name(_))), "{name}");
    }
}

#[test]
fn what_a_killed_process_left_is_swept() {
    let (_directory, store, volumes) = store();
    let left = store.volumes().join(".half");
    fs::create_dir_all(left.join("_data/x")).unwrap();
    let locked = volumes.lock().unwrap();
    locked.ensure("half", false, None).unwrap();
    fs::create_dir_all(store.volumes().join(".removed-half/_data")).unwrap();
    assert_eq!(locked.prune(true).unwrap(), ["half"]);
    let names: Vec<_> = fs::read_dir(store.volumes()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [".lock"]);
}
