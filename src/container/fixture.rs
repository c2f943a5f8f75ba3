//! A configuration for tests, in its written form: what a later version adds to it must have a value here.

use super::config::Config;

/// A container of an image `image` that runs `true` on the default network.
pub(super) fn config() -> Config {
    let text = r#"{
        "schema": 1, "id": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "name": "fixture",
        "created": "2026-01-31T12:00:00Z", "image": "image", "image_id": null, "entrypoint": [], "command": ["true"],
        "environment": [], "working_directory": "/", "user": "", "groups": [], "hostname": "0123456789ab",
        "domainname": null, "labels": {}, "network": {"bridge": "bridge"}, "ports": [], "exposed": [],
        "publish_all": false, "extra_hosts": [], "dns": [], "dns_search": [], "open_stdin": false,
        "stdin_once": false, "tty": false, "mounts": [], "read_only": false, "user_namespace": null, "limits": {},
        "devices": [], "device_rules": [], "ulimits": [], "security": {}, "init": false, "auto_remove": false,
        "restart": "no", "stop_signal": 15, "stop_timeout": {"secs": 10, "nanos": 0}, "health": null,
        "log": {"kept": true, "max_size": null, "max_files": 1}
    }"#;
    serde_json::from_str(text).unwrap()
}
