//! The netlink client by itself, below the drivers.

use isobench::netlink::{Batch, Protocol, Socket, link};
use isobench::sys::netns::NetNs;

use super::tools::*;

pub fn refusals_are_explained() -> Result {
    let ns = NetNs::new()?;
    let mut socket = Socket::open_in(&ns, Protocol::Route)?;
    let error = link::by_name(&mut socket, "nothing").unwrap_err();
    assert_eq!(error.errno(), Some(nix::errno::Errno::ENODEV as i32));
    assert!(error.to_string().starts_with("cannot find link nothing"), "{error}");
    // The first refusal of a batch is the one that is told, and the socket is good for the next batch.
    let mut batch = Batch::new();
    link::set_mtu(&mut batch, 1, u32::MAX);
    link::set_up(&mut batch, 99);
    let error = socket.run(batch).unwrap_err();
    assert!(error.to_string().starts_with("cannot set the mtu of link 1 (kernel: "), "{error}");
    assert!(!link::by_name(&mut socket, "lo")?.is_up());
    Ok(())
}

pub fn links_are_changed() -> Result {
    let ns = NetNs::new()?;
    let mut socket = Socket::open_in(&ns, Protocol::Route)?;
    let mut batch = Batch::new();
    link::add_bridge(&mut batch, "br0", link::Mac([2, 0, 0, 0, 0, 9]), None);
    let end = |name| link::VethEnd { name, mac: None };
    link::add_veth(&mut batch, end("a"), end("b"), &ns, link::VethOptions::default());
    socket.run(batch)?;
    let (bridge, a) = (link::by_name(&mut socket, "br0")?, link::by_name(&mut socket, "a")?);
    assert_eq!((bridge.kind.as_deref(), a.kind.as_deref()), (Some("bridge"), Some("veth")));
    let mut batch = Batch::new();
    link::rename(&mut batch, a.index, "near");
    link::set_mtu(&mut batch, a.index, 1280);
    link::set_master(&mut batch, a.index, Some(bridge.index));
    link::set_up(&mut batch, a.index);
    socket.run(batch)?;
    let near = &json(&ns, "ip -j link show near")?[0];
    assert_eq!((&near["mtu"], &near["master"]), (&1280.into(), &"br0".into()));
    assert!(link::by_name(&mut socket, "near")?.is_up());
    let mut batch = Batch::new();
    link::set_down(&mut batch, a.index);
    link::set_master(&mut batch, a.index, None);
    socket.run(batch)?;
    let listed = link::list(&mut socket)?;
    let near = listed.iter().find(|link| link.name == "near").ok_or("not listed")?;
    assert!(!near.is_up() && near.master.is_none());
    let mut batch = Batch::new();
    link::delete(&mut batch, "b");
    link::delete(&mut batch, "br0");
    socket.run(batch)?;
    assert_eq!(names(&json(&ns, "ip -j link")?), ["lo"]);
    Ok(())
}
