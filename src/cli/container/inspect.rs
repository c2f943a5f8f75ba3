//! `isobench container inspect`: everything under docker's names.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::each::inspect_each;
use super::super::{CliError, Ended};
use super::{list, shown};
use crate::container::config::{Config, Mount, MountSource, NetworkMode, RestartPolicy, SeccompChoice};
use crate::container::state::{State, Status};
use crate::container::store::{Store, Stored};
use crate::network::PortMapping;

/// The arguments of `isobench container inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Names or identifiers of containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
    /// `json`, or a template as in '{{.State.Status}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show how large they are
    #[arg(short, long)]
    size: bool,
}

pub(super) fn run(store: &Store, args: &InspectArgs) -> Result<Ended, CliError> {
    inspect_each(&args.containers, args.format.as_deref(), |name| {
        let stored = store.find(name)?;
        let mut container = document(store, &stored, &shown::settled(stored.state()?));
        if args.size {
            let own = list::written(&stored.upper());
            container["SizeRw"] = json!(own);
        }
        Ok(container)
    })
}

/// All that is known of a container.
fn document(store: &Store, stored: &Stored, state: &State) -> Value {
    let config = &stored.config;
    let file = |name: &str| stored.directory.join(name).display().to_string();
    let arguments = config.arguments();
    json!({
        "Id": config.id,
        "Created": config.created,
        "Path": arguments.first().cloned().unwrap_or_default(),
        "Args": arguments.get(1..).unwrap_or_default(),
        "State": state_of(state),
        "Image": config.image_id.as_ref().unwrap_or(&config.image),
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": if config.log.kept { stored.log().display().to_string() } else { String::new() },
        "Name": format!("/{}", config.name),
        "RestartCount": state.restarts,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": Value::Null,
        "HostConfig": host_config(config),
        "GraphDriver": {"Name": "overlay", "Data": {"UpperDir": file("upper"), "WorkDir": file("work")}},
        "Mounts": config.mounts.iter().map(|mount| mount_of(store, mount)).collect::<Vec<_>>(),
        "Config": config_of(config),
        "NetworkSettings": network_settings(config, state),
    })
}

/// What Go writes for a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

fn state_of(state: &State) -> Value {
    let status = state.status;
    let up = status.is_up();
    let mut shown = json!({
        "Status": if state.removing { "removing" } else { status.as_str() },
        "Running": up,
        "Paused": status == Status::Paused,
        "Restarting": status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": false,
        "Pid": state.init.filter(|_| up).map_or(0, |init| init.pid),
        "ExitCode": if up { 0 } else { state.exit_code.unwrap_or(0) },
        "Error": state.error,
        "StartedAt": state.started.as_deref().unwrap_or(NEVER),
        "FinishedAt": state.finished.as_deref().unwrap_or(NEVER),
    });
    if state.health.is_some() {
        let log: Vec<Value> = (state.probes.iter())
            .map(|probe| {
                json!({"Start": probe.start, "End": probe.end, "ExitCode": probe.exit_code, "Output": probe.output})
            })
            .collect();
        shown["Health"] = json!({"Status": shown::health(state), "FailingStreak": state.failing_streak, "Log": log});
    }
    shown
}

fn host_config(config: &Config) -> Value {
    let (policy, most) = match config.restart {
        RestartPolicy::No => ("no", 0),
        RestartPolicy::OnFailure(most) => ("on-failure", most),
        RestartPolicy::Always => ("always", 0),
        RestartPolicy::UnlessStopped => ("unless-stopped", 0),
    };
    let mut shown = json!({
        "Binds": binds(config),
        "ContainerIDFile": "",
        "LogConfig": log_config(config),
        "NetworkMode": network_mode(config),
        "PortBindings": bindings(&asked_ports(config)),
        "RestartPolicy": {"Name": policy, "MaximumRetryCount": most},
        "AutoRemove": config.auto_remove,
        "CapAdd": config.security.cap_add,
        "CapDrop": config.security.cap_drop,
        "CgroupnsMode": "private",
        "Dns": config.dns,
        "DnsSearch": config.dns_search,
        "ExtraHosts": config.extra_hosts,
        "GroupAdd": config.groups,
        "IpcMode": "private",
        "PidMode": "",
        "Privileged": config.security.privileged,
        "PublishAllPorts": config.publish_all,
        "ReadonlyRootfs": config.read_only,
        "SecurityOpt": security_options(config),
        "Tmpfs": tmpfs(config),
        "UTSMode": "",
        "UsernsMode": config.user_namespace.map(|(first, count)| format!("{first}:{count}")).unwrap_or_default(),
        "Init": config.init,
    });
    if let (Value::Object(shown), Value::Object(limits)) = (&mut shown, limits_of(config)) {
        shown.extend(limits);
    }
    shown
}

fn limits_of(config: &Config) -> Value {
    let limits = &config.limits;
    let rates = |rates: &[(String, u64)]| -> Vec<Value> {
        rates.iter().map(|(path, rate)| json!({"Path": path, "Rate": rate})).collect()
    };
    let devices: Vec<Value> = (config.devices.iter())
        .map(|device| {
            json!({"PathOnHost": device.host, "PathInContainer": device.container, "CgroupPermissions": device.access})
        })
        .collect();
    let ulimits: Vec<Value> =
        config.ulimits.iter().map(|(name, soft, hard)| json!({"Name": name, "Soft": soft, "Hard": hard})).collect();
    json!({
        "Memory": limits.memory.unwrap_or(0),
        "MemorySwap": limits.memory_swap.unwrap_or(0),
        "MemoryReservation": limits.memory_reservation.unwrap_or(0),
        "OomKillDisable": limits.oom_kill_disable,
        "CpuShares": limits.cpu_shares.unwrap_or(0),
        "CpuPeriod": limits.cpu_period_us.unwrap_or(0),
        "CpuQuota": limits.cpu_quota_us.unwrap_or(0),
        "CpusetCpus": limits.cpuset_cpus.as_deref().unwrap_or(""),
        "CpusetMems": limits.cpuset_mems.as_deref().unwrap_or(""),
        "BlkioWeight": limits.blkio_weight.unwrap_or(0),
        "BlkioDeviceReadBps": rates(&limits.device_read_bps),
        "BlkioDeviceWriteBps": rates(&limits.device_write_bps),
        "BlkioDeviceReadIOps": rates(&limits.device_read_iops),
        "BlkioDeviceWriteIOps": rates(&limits.device_write_iops),
        "PidsLimit": limits.pids,
        "Devices": devices,
        "DeviceCgroupRules": config.device_rules,
        "Ulimits": ulimits,
    })
}

fn binds(config: &Config) -> Vec<String> {
    let bind = |mount: &Mount| {
        let source = match &mount.source {
            MountSource::Bind { path, .. } => path,
            MountSource::Volume { name, anonymous: false } => name,
            MountSource::Volume { .. } | MountSource::Tmpfs { .. } => return None,
        };
        Some(format!("{source}:{}:{}", mount.target, if mount.read_only { "ro" } else { "rw" }))
    };
    config.mounts.iter().filter_map(bind).collect()
}

fn tmpfs(config: &Config) -> Map<String, Value> {
    let one = |mount: &Mount| match &mount.source {
        MountSource::Tmpfs { options } => Some((mount.target.clone(), json!(options))),
        MountSource::Bind { .. } | MountSource::Volume { .. } => None,
    };
    config.mounts.iter().filter_map(one).collect()
}

fn log_config(config: &Config) -> Value {
    let mut options = Map::new();
    if let Some(size) = config.log.max_size {
        options.insert("max-size".to_owned(), json!(size.to_string()));
    }
    if config.log.max_files != 1 {
        options.insert("max-file".to_owned(), json!(config.log.max_files.to_string()));
    }
    json!({"Type": if config.log.kept { "json-file" } else { "none" }, "Config": options})
}

fn security_options(config: &Config) -> Vec<String> {
    let mut options = Vec::new();
    if config.security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    match &config.security.seccomp {
        SeccompChoice::Default => {}
        SeccompChoice::Unconfined => options.push("seccomp=unconfined".to_owned()),
        SeccompChoice::Profile(text) => options.push(format!("seccomp={text}")),
    }
    options
}

fn network_mode(config: &Config) -> String {
    match &config.network {
        NetworkMode::Container(other) => format!("container:{other}"),
        _ => shown::network(config).to_owned(),
    }
}

fn asked_ports(config: &Config) -> Vec<PortMapping> {
    config.ports.iter().filter_map(|port| port.parse().ok()).collect()
}

/// Docker's map of ports: what is published of each.
fn bindings(ports: &[PortMapping]) -> BTreeMap<String, Vec<Value>> {
    let mut map: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in ports {
        let address = port.host_ip.map(|address| address.to_string()).unwrap_or_default();
        let number = if port.host_port == 0 { String::new() } else { port.host_port.to_string() };
        let inside = format!("{}/{}", port.container_port, port.protocol);
        map.entry(inside).or_default().push(json!({"HostIp": address, "HostPort": number}));
    }
    map
}

fn mount_of(store: &Store, mount: &Mount) -> Value {
    let (kind, name, source) = match &mount.source {
        MountSource::Bind { path, .. } => ("bind", None, path.clone()),
        MountSource::Volume { name, .. } => {
            ("volume", Some(name), store.volumes().join(name).join("_data").display().to_string())
        }
        MountSource::Tmpfs { .. } => ("tmpfs", None, String::new()),
    };
    let propagation = match (&mount.source, mount.propagation.as_str()) {
        (MountSource::Bind { .. }, "") => "rprivate",
        (_, propagation) => propagation,
    };
    let mut shown = json!({
        "Type": kind,
        "Source": source,
        "Destination": mount.target,
        "Mode": if mount.read_only { "ro" } else { "" },
        "RW": !mount.read_only,
        "Propagation": propagation,
    });
    if let Some(name) = name {
        shown["Name"] = json!(name);
        shown["Driver"] = json!("local");
    }
    shown
}

fn config_of(config: &Config) -> Value {
    let set = |names: &mut dyn Iterator<Item = &String>| -> Map<String, Value> {
        names.map(|name| (name.clone(), json!({}))).collect()
    };
    let exposed: Vec<String> = asked_ports(config)
        .iter()
        .map(|port| format!("{}/{}", port.container_port, port.protocol))
        .chain(config.exposed.iter().cloned())
        .collect();
    let volumes =
        config.mounts.iter().filter(|mount| matches!(mount.source, MountSource::Volume { anonymous: true, .. }));
    let or_null = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
    json!({
        "Hostname": config.hostname,
        "Domainname": config.domainname.as_deref().unwrap_or(""),
        "User": config.user,
        "ExposedPorts": set(&mut exposed.iter()),
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "Env": config.environment,
        "Cmd": or_null(&config.command),
        "Healthcheck": config.health,
        "Image": config.image,
        "Volumes": set(&mut volumes.map(|mount| &mount.target)),
        "WorkingDir": config.working_directory,
        "Entrypoint": or_null(&config.entrypoint),
        "Labels": config.labels,
        "StopSignal": signal_name(config.stop_signal),
        "StopTimeout": config.stop_timeout.as_secs(),
    })
}

fn signal_name(number: i32) -> String {
    match nix::sys::signal::Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        // Signals of real time have no name of their own.
        Err(_) => number.to_string(),
    }
}

fn network_settings(config: &Config, state: &State) -> Value {
    let up = state.status.is_up();
    let connection = state.connection.clone().filter(|_| up).unwrap_or_default();
    let mut ports: Map<String, Value> = Map::new();
    if up {
        ports.extend(config.exposed.iter().map(|port| (port.clone(), Value::Null)));
        ports.extend(bindings(&shown::published(state)).into_iter().map(|(port, ends)| (port, json!(ends))));
    }
    let key = state.init.filter(|_| up).map(|init| format!("/proc/{}/ns/net", init.pid));
    let mut networks = Map::new();
    let network = shown::network(config);
    if !network.is_empty() {
        let place = json!({
            "IPAddress": connection.address, "IPPrefixLen": connection.prefix_len, "Gateway": connection.gateway,
            "MacAddress": connection.mac,
        });
        networks.insert(network.to_owned(), place);
    }
    json!({
        "SandboxKey": key.unwrap_or_default(),
        "Ports": ports,
        "IPAddress": connection.address,
        "IPPrefixLen": connection.prefix_len,
        "Gateway": connection.gateway,
        "MacAddress": connection.mac,
        "Networks": networks,
    })
}
