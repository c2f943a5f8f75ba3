//! Published ports, with a lab's host in the machine's place.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use isobench::lab::Lab;
use isobench::network::machine::MachineNetworks;
use isobench::sys::netns::NetNs;

use crate::case;
use crate::harness::Case;
use crate::place::{IMAGE, Outcome, Place, Said, end, until};

pub fn cases() -> Vec<Case> {
    vec![case("ports::reached_from_outside_refused_when_taken_freed_on_stop", published)]
}

/// Runs a command on the lab's host.
fn on(host: &NetNs, place: &Place, arguments: &[&str]) -> Outcome<Said> {
    let mut command = place.command(arguments);
    end(host.enter(|| command.spawn())??)
}

/// The first line of the answer to a request for a page.
fn fetch(from: &NetNs, address: Ipv4Addr, port: u16) -> std::io::Result<String> {
    let patience = Duration::from_secs(5);
    let mut stream = from.enter(|| TcpStream::connect_timeout(&SocketAddr::from((address, port)), patience))??;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().last().unwrap_or_default().to_owned())
}

fn published() -> Outcome {
    let place = Place::new()?;
    let lab = Lab::new()?;
    let host = lab.host().netns();
    let serve = ["httpd", "-f", "-p", "80", "-h", "/etc"];
    let run = |name: &str, port: &str| {
        on(host, &place, &[&["run", "-d", "--name", name, "--hostname", name, "-p", port, IMAGE], &serve[..]].concat())
    };
    let web = run("web", "8080:80")?;
    assert_eq!(web.code, Some(0), "{web:?}");
    let answers = |name: &str| until(|| Ok(fetch(lab.peer(), lab.host_address(), 8080).is_ok_and(|page| page == name)));
    answers("web")?;
    assert_eq!(on(host, &place, &["port", "web"])?.text(), "80/tcp -> 0.0.0.0:8080");
    let refused = run("other", "8080:80")?;
    assert!(refused.code == Some(125), "{refused:?}");
    assert!(refused.stderr.contains("8080/tcp is taken by container web ("), "{refused:?}");
    on(host, &place, &["rm", "-f", "other"])?;
    assert_eq!(on(host, &place, &["stop", "-t", "0", "web"])?.code, Some(0));
    let error = fetch(lab.peer(), lab.host_address(), 8080).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let other = run("other", "8080:80")?;
    assert_eq!(other.code, Some(0), "{other:?}");
    answers("other")?;
    assert_eq!(on(host, &place, &["rm", "-f", "web", "other"])?.code, Some(0));
    MachineNetworks::open(host.clone())?.remove_unused()?;
    Ok(())
}
