//! `isobench network inspect`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Map, Value, json};

use super::known::{self, Known};
use crate::cli::each::inspect_each;
use crate::cli::{CliError, Ended};
use crate::container::config::NetworkMode;
use crate::container::connect;
use crate::container::store::Store;
use crate::netlink::link::Link;
use crate::network::error::HostPort;
use crate::network::machine::{LINK, View};

/// The arguments of `isobench network inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Names or identifiers of networks
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
    /// `json`, or a template as in '{{.IPAM.Config}}'
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Accepted for docker's sake: all is shown anyway
    #[arg(short, long)]
    verbose: bool,
}

pub(super) fn run(args: &InspectArgs) -> Result<Ended, CliError> {
    let networks = known::all()?;
    inspect_each(&args.networks, args.format.as_deref(), |name| {
        let mut meant = networks.iter().filter(|network| network.is(name));
        let (Some(network), None) = (meant.next(), meant.next()) else {
            return Err(CliError::UnknownNetwork(name.to_owned()));
        };
        let shown = show(network)?;
        Ok(shown)
    })
}

/// All that is known of a network, under docker's names.
fn show(network: &Known) -> Result<Value, CliError> {
    let now = names_now()?;
    let mut shown = json!({
        "Name": network.name,
        "Id": network.id,
        "Created": network.created(),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv4": true,
        "EnableIPv6": false,
        "IPAM": {"Driver": "default", "Options": null, "Config": []},
        "Internal": false,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": false,
        "Containers": {},
        "Options": {},
        "Labels": {},
    });
    match &network.view {
        Some(view) => add_view(&mut shown, view, &now),
        None => {
            let members = now.iter().filter(|(_, (_, mode))| matches_mode(network.name, mode));
            let members = members.map(|(id, (name, _))| {
                (
                    id.clone(),
                    json!({"Name": name, "EndpointID": "", "MacAddress": "", "IPv4Address": "", "IPv6Address": ""}),
                )
            });
            shown["Containers"] = Value::Object(members.collect());
        }
    }
    Ok(shown)
}

fn matches_mode(name: &str, mode: &NetworkMode) -> bool {
    matches!((name, mode), ("host", NetworkMode::Host) | ("none", NetworkMode::None))
}

/// The containers that run, by identifier: the name, which may have changed since they joined, and the network mode.
fn names_now() -> Result<BTreeMap<String, (String, NetworkMode)>, CliError> {
    let store = Store::of_machine()?;
    let all = store.all()?.into_iter().flatten();
    let up = all.filter(|(stored, state)| connect::is_on(&stored.config, state, &stored.config.network));
    Ok(up.map(|(stored, _)| (stored.config.id, (stored.config.name, stored.config.network))).collect())
}

fn add_view(shown: &mut Value, view: &View, now: &BTreeMap<String, (String, NetworkMode)>) {
    let prefix = view.subnet.map_or(0, |(subnet, _)| subnet.prefix_len());
    if let Some((subnet, gateway)) = view.subnet {
        shown["IPAM"]["Config"] = json!([{"Subnet": subnet.to_string(), "Gateway": gateway.to_string()}]);
    }
    let mut members = Map::new();
    for member in &view.members {
        let name = now.get(&member.id).map_or(&member.name, |(name, _)| name);
        let member_shown = json!({
            "Name": name,
            "EndpointID": "",
            "MacAddress": member.mac.to_string(),
            "IPv4Address": format!("{}/{prefix}", member.address),
            "IPv6Address": "",
        });
        members.insert(member.id.clone(), member_shown);
    }
    shown["Containers"] = Value::Object(members);
    shown["Options"] = json!({
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.name": LINK,
    });
    // Beyond docker's: what the kernel has.
    shown["Ports"] = view.links.iter().map(port).collect();
    let published = view.published.iter().map(|(port, address)| {
        json!({"Host": HostPort(*port).to_string(), "Container": format!("{address}:{}", port.container_port)})
    });
    shown["Published"] = published.collect();
}

fn port(link: &Link) -> Value {
    json!({
        "Name": link.name,
        "Index": link.index,
        "Up": link.is_up(),
        "Carrier": link.operational,
        "MTU": link.mtu,
        "RxBytes": link.counters.rx_bytes,
        "TxBytes": link.counters.tx_bytes,
    })
}
