//! The network workloads over a private pair of namespaces, judged by the kernel's own counters.
//!
//! This test program is the workload too: `main` dispatches it first, as the real binary does.

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isobench::sys::clock;
use isobench::sys::netns::NetNs;
use isobench::workload::arguments::{Arguments, Role};
use isobench::workload::{SUBCOMMAND, Test};

use crate::emulated::timed;
use crate::harness::Case;
use crate::pair::{Outcome, Pair, Program, SERVER_ADDRESS, client, ip, server, with_client};

pub fn cases() -> Vec<Case> {
    let ip = || which("ip");
    let netns = |name, body| Case::new(name, body).needs(ip(), "needs iproute2");
    vec![
        Case::new("workload::stamp_tells_its_entry_time", stamp_tells_its_entry_time),
        Case::new("workload::bad_arguments_end_with_code_2", bad_arguments_end_with_code_2),
        Case::new("workload::init_reaps_orphans", init_reaps_orphans).needs(which("unshare"), "needs util-linux"),
        netns("workload::tcp_stream_agrees_with_the_link", tcp_stream_agrees_with_the_link),
        netns("workload::udp_loss_agrees_with_the_kernel", udp_loss_agrees_with_the_kernel),
        netns("workload::request_histograms_hold_every_message", request_histograms_hold_every_message),
        netns("workload::crr_opens_as_many_connections_as_it_says", crr_opens_as_many_connections_as_it_says),
        netns("workload::parallel_flows_add_up", parallel_flows_add_up),
        netns("workload::a_killed_client_ends_the_server", a_killed_client_ends_the_server),
        netns("workload::a_killed_server_ends_the_client", a_killed_server_ends_the_client),
        netns("workload::absence_silence_and_taken_ports_are_told", absence_silence_and_taken_ports_are_told),
        netns("workload::pinning_holds_one_cpu", pinning_holds_one_cpu),
        netns("workload::the_parents_death_is_the_end", the_parents_death_is_the_end),
        timed(netns("workload::softirqs_are_where_the_accounting_says", softirqs_are_where_the_accounting_says)),
        timed(
            netns("workload::tcp_stream_beside_iperf3", tcp_stream_beside_iperf3)
                .needs(which("iperf3"), "needs iperf3"),
        ),
    ]
}

/// Whether a program is on the PATH.
fn which(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// What a link has sent: bytes and packets.
fn sent_by(namespace: &NetNs, link: &str) -> Result<(u64, u64), Box<dyn Error>> {
    let links: serde_json::Value = serde_json::from_str(&ip(namespace, &format!("-s -j link show {link}"))?)?;
    let tx = &links[0]["stats64"]["tx"];
    Ok((tx["bytes"].as_u64().ok_or("no bytes")?, tx["packets"].as_u64().ok_or("no packets")?))
}

/// A counter of /proc/net/snmp in a namespace.
fn counter(namespace: &NetNs, protocol: &str, name: &str) -> Result<u64, Box<dyn Error>> {
    let snmp = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = snmp.lines().filter(|line| line.starts_with(&format!("{protocol}:")));
    let position = lines.next().ok_or("no names")?.split_whitespace().position(|word| word == name);
    let value = lines.next().ok_or("no values")?.split_whitespace().nth(position.ok_or("no such counter")?);
    Ok(value.ok_or("no value")?.parse()?)
}

fn require(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what().into()) }
}

fn stamp_tells_its_entry_time() -> Outcome {
    let before = clock::now_ns();
    let output = Command::new("/proc/self/exe").args([SUBCOMMAND, "stamp"]).output()?;
    let after = clock::now_ns();
    let stamp = u64::from_le_bytes(output.stdout.as_slice().try_into()?);
    require(output.status.success() && before < stamp && stamp < after, || format!("{before} {stamp} {after}"))
}

/// The inner shell leaves a child to the first process; the outer one looks for zombies after its end.
fn init_reaps_orphans() -> Outcome {
    let script = "sh -c 'sleep 0.1 & echo $!'; sleep 0.6; cat /proc/[0-9]*/stat; exit 7";
    let init = std::env::current_exe()?;
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(init)
        .args(["__init", "--", "sh", "-c", script])
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let (orphan, stats) = text.split_once('\n').ok_or("no orphan")?;
    let holds = |what: &str| stats.lines().any(|line| line.contains(what));
    let fine = stats.lines().any(|line| line.starts_with("1 ")) && !holds(") Z ");
    let gone = !stats.lines().any(|line| line.starts_with(&format!("{orphan} ")));
    require(fine && gone && output.status.code() == Some(7), || format!("{:?} {text}", output.status))
}

fn bad_arguments_end_with_code_2() -> Outcome {
    for (words, message) in [
        (vec!["dance"], "unknown workload `dance`"),
        (vec!["tcp_rr", "server"], "tcp_rr server needs --bind ADDRESS:PORT"),
        (vec!["udp_rr", "client", "--connect", "10.9.0.2:1", "--message-size", "70000"], "1 to 65507 bytes, not 70000"),
    ] {
        let output = Command::new("/proc/self/exe").arg(SUBCOMMAND).args(&words).output()?;
        let text = String::from_utf8(output.stdout)?;
        require(output.status.code() == Some(2) && text.contains(message), || format!("{words:?}: {text}"))?;
    }
    Ok(())
}

/// The last of the three numbers of `tcp_rmem` or `tcp_wmem`, in bytes.
fn largest_buffer(name: &str) -> Result<u64, Box<dyn Error>> {
    let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"))?;
    Ok(text.split_whitespace().last().ok_or("an empty file")?.parse()?)
}

fn tcp_stream_agrees_with_the_link() -> Outcome {
    let pair = Pair::new()?;
    let (link_before, _) = sent_by(&pair.client, "va")?;
    let (client, server) = pair.run(server(Test::TcpStream), client(Test::TcpStream, 300))?;
    let link = sent_by(&pair.client, "va")?.0 - link_before;
    require(client.window == server.window && client.elapsed_ns == 300_000_000, || format!("{client:?} {server:?}"))?;
    require(client.total_bytes == server.total_bytes && server.bytes > 0, || format!("{client:?} {server:?}"))?;
    // What was written and not read yet at an edge lies in the two sockets' buffers, as large as the kernel lets them grow.
    let under_way = client.bytes.abs_diff(server.bytes);
    let room = largest_buffer("tcp_wmem")? + largest_buffer("tcp_rmem")?;
    require(under_way <= room, || format!("{under_way} bytes under way, {room} of buffers"))?;
    // Headers take less than a tenth, even if each segment were one Ethernet frame. Repeated segments take more.
    let repeated = counter(&pair.client, "Tcp", "RetransSegs")? * 65_536;
    let most = server.total_bytes + server.total_bytes / 10 + repeated + (1 << 20);
    require((server.total_bytes..=most).contains(&link), || format!("{} of {link} on the link", server.total_bytes))?;
    require(client.retransmits.is_some() && client.tcp_rtt_ns.is_some_and(|ns| ns > 0), || format!("{client:?}"))?;
    for cpu_ns in [client.cpu.total_ns(), server.cpu.total_ns()] {
        // One thread cannot use more than the window, but for the edges that it noted late.
        require(cpu_ns > 0 && cpu_ns < 2 * client.elapsed_ns, || format!("{cpu_ns} ns of CPU time"))?;
    }
    Ok(())
}

fn udp_loss_agrees_with_the_kernel() -> Outcome {
    let pair = Pair::new()?;
    let mut slow = server(Test::UdpStream);
    if let Role::Server(server) = &mut slow.role {
        // The kernel raises it to its least (about 2 KiB): room for one datagram, while the next is sent already.
        server.receive_buffer = Some(1);
    }
    let (client, server) = pair.run(slow, client(Test::UdpStream, 300))?;
    let dropped = counter(&pair.server, "Udp", "RcvbufErrors")?;
    let arrived = counter(&pair.server, "Udp", "InDatagrams")?;
    require(server.total_messages == arrived, || format!("{arrived} arrived, {server:?}"))?;
    require(client.total_messages == arrived + dropped, || format!("{arrived} + {dropped} of {client:?}"))?;
    require(dropped > 0 && server.messages > 0, || format!("{dropped} dropped, {server:?}"))?;
    require(server.sent == Some(client.messages), || format!("{client:?} {server:?}"))?;
    let lost = server.lost.ok_or("no loss")?;
    require(lost > 0 && lost <= dropped, || format!("{lost} lost, {dropped} dropped"))?;
    // Those that the kernel dropped outside of the window were sent outside of it.
    let outside = client.total_messages - client.messages;
    require(dropped - lost <= outside, || format!("{lost} lost, {dropped} dropped, {outside} sent outside"))
}

fn request_histograms_hold_every_message() -> Outcome {
    for test in [Test::TcpRr, Test::TcpCrr, Test::UdpRr] {
        let pair = Pair::new()?;
        let (client, server) =
            pair.run(server(test), with_client(client(test, 200), |client| client.message_size = 64))?;
        let histogram = client.latency.as_ref().ok_or("no histogram")?.decode()?;
        require(client.messages > 0 && histogram.len() == client.messages, || format!("{test}: {client:?}"))?;
        require(client.bytes == 64 * client.messages, || format!("{test}: {client:?}"))?;
        require(client.total_messages == server.total_messages, || format!("{test}: {client:?} {server:?}"))?;
        // An exchange over an edge counts at one end and not at the other.
        require(client.messages.abs_diff(server.messages) <= 2, || format!("{test}: {client:?} {server:?}"))?;
        // One flow: the latencies follow each other without overlap.
        let sum = histogram.mean() * histogram.len() as f64;
        require(sum <= 1.001 * client.elapsed_ns as f64, || format!("{test}: {sum} ns of latencies"))?;
        let packets = sent_by(&pair.client, "va")?.1;
        require(packets >= client.total_messages, || format!("{test}: {packets} packets, {client:?}"))?;
    }
    Ok(())
}

fn crr_opens_as_many_connections_as_it_says() -> Outcome {
    let pair = Pair::new()?;
    let (client, _) = pair.run(server(Test::TcpCrr), client(Test::TcpCrr, 200))?;
    let accepted = counter(&pair.server, "Tcp", "PassiveOpens")?;
    require(accepted == client.total_messages + 1, || format!("{accepted} accepted, control is one, {client:?}"))?;
    // The server closed first: TIME_WAIT is on its side, but for the control connection.
    let waiting = |namespace: &NetNs| -> Result<usize, Box<dyn Error>> {
        let table = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/tcp"))??;
        Ok(table.lines().filter(|line| line.split_whitespace().nth(3) == Some("06")).count())
    };
    let (at_client, at_server) = (waiting(&pair.client)?, waiting(&pair.server)?);
    require(at_client <= 1 && at_server > 1, || format!("TIME_WAIT: {at_client} at the client, {at_server}"))
}

fn parallel_flows_add_up() -> Outcome {
    for &test in Test::ALL {
        let pair = Pair::new()?;
        let (client, server) = pair.run(server(test), with_client(client(test, 150), |client| client.streams = 3))?;
        require(client.messages > 0 && server.messages > 0, || format!("{test}: {client:?} {server:?}"))?;
        match test {
            Test::TcpStream => {
                let opened = counter(&pair.client, "Tcp", "ActiveOpens")?;
                require(opened == 4 && client.total_bytes == server.total_bytes, || format!("{opened}: {client:?}"))?;
            }
            Test::TcpRr | Test::TcpCrr => {
                require(client.total_messages == server.total_messages, || format!("{test}: {client:?} {server:?}"))?;
            }
            Test::UdpStream | Test::UdpRr => {
                let arrived = counter(&pair.server, "Udp", "InDatagrams")?;
                require(arrived == server.total_messages, || format!("{test}: {arrived} arrived, {server:?}"))?;
            }
        }
    }
    Ok(())
}

fn a_killed_client_ends_the_server() -> Outcome {
    for &test in Test::ALL {
        let pair = Pair::new()?;
        let (server, mut client) = pair.start(server(test), client(test, 60_000))?;
        client.window()?;
        drop(client);
        let message = server.complaint()?;
        require(message == "the client went away before the end of the test", || format!("{test}: {message}"))?;
    }
    Ok(())
}

fn a_killed_server_ends_the_client() -> Outcome {
    for &test in Test::ALL {
        let pair = Pair::new()?;
        // A request over UDP without a server gets an ICMP error back; one without an answer costs 200 ms.
        let (server, mut client) = pair.start(server(test), client(test, 60_000))?;
        client.window()?;
        drop(server);
        let message = client.complaint()?;
        let expected = message == "the server went away before the end of the test"
            || (test == Test::TcpCrr && message.contains("Connection refused"));
        require(expected, || format!("{test}: {message}"))?;
    }
    Ok(())
}

fn absence_silence_and_taken_ports_are_told() -> Outcome {
    let pair = Pair::new()?;
    let message = Program::start(&pair.client, &client(Test::TcpRr, 100).to_words())?.complaint()?;
    require(message == "cannot connect to 10.9.0.2:1: Connection refused (os error 111)", || message.clone())?;

    let mut waiting = server(Test::TcpRr);
    waiting.timeout = Duration::from_millis(100);
    let mut program = Program::start(&pair.server, &waiting.to_words())?;
    program.ready()?;
    let message = program.complaint()?;
    require(message == "cannot accept a client: nothing happened for 100 ms", || message.clone())?;

    for test in [Test::TcpRr, Test::UdpRr] {
        let mut first = Program::start(&pair.server, &server(test).to_words())?;
        let bound = first.ready()?;
        let second = Program::start(&pair.server, &Arguments::server(test, bound).to_words())?;
        let message = second.complaint()?;
        let expected = format!("cannot bind TCP {bound}: Address already in use (os error 98)");
        require(message == expected, || message.clone())?;
    }

    let mut server = Program::start(&pair.server, &server(Test::TcpRr).to_words())?;
    let other = with_client(client(Test::UdpRr, 100), |_| {});
    let bound = server.ready()?;
    let other = Program::start(&pair.client, &with_client(other, |client| client.connect = bound).to_words())?;
    let message = server.complaint()?;
    require(message.contains("where hello of the same test was due"), || message.clone())?;
    let message = other.complaint()?;
    require(message == "the server went away before the end of the test", || message.clone())
}

fn pinning_holds_one_cpu() -> Outcome {
    let own = std::fs::read_to_string("/proc/self/status")?;
    let allowed = |status: &str| -> Option<String> {
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).map(|list| list.trim().to_owned())
    };
    let list = allowed(&own).ok_or("no Cpus_allowed_list")?;
    let last: u32 = list.rsplit([',', '-']).next().ok_or("no CPU")?.parse()?;
    let pair = Pair::new()?;
    let mut pinned = server(Test::UdpRr);
    pinned.cpu = Some(last);
    let mut program = Program::start(&pair.server, &pinned.to_words())?;
    program.ready()?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.child.id()))?;
    let now = allowed(&status).ok_or("no Cpus_allowed_list")?;
    require(now == last.to_string(), || format!("may run on {now}, not only on {last}"))?;

    pinned.cpu = Some(100_000);
    let message = Program::start(&pair.server, &pinned.to_words())?.complaint()?;
    require(message == "cannot run on CPU 100000: Invalid argument (os error 22)", || message.clone())
}

fn the_parents_death_is_the_end() -> Outcome {
    let pair = Pair::new()?;
    // A shell starts the server as its child, tells its process id, and waits for us to kill it.
    let words = server(Test::TcpRr).to_words().join(" ");
    let script = format!("/proc/{}/exe {SUBCOMMAND} {words} --parent-death $$ & echo $!; wait", std::process::id());
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut shell = pair.server.enter(|| command.spawn())??;
    let mut lines = BufReader::new(shell.stdout.take().ok_or("no stdout")?).lines();
    let (mut pid, mut ready) = (None, false);
    while pid.is_none() || !ready {
        let line = lines.next().ok_or("the shell ended")??;
        match line.parse::<u32>() {
            Ok(number) => pid = Some(number),
            Err(_) if line.contains("\"ready\"") => ready = true,
            Err(_) => return Err(line.into()),
        }
    }
    shell.kill()?;
    shell.wait()?;
    // The server holds the other end of the pipe: it closes when the server is gone.
    let rest: Vec<String> = lines.collect::<Result<_, _>>()?;
    require(rest.is_empty(), || format!("the server of pid {pid:?} said {rest:?}"))?;

    let mut wrong = server(Test::TcpRr);
    wrong.parent_death = Some(1);
    let (line, code) = Program::start(&pair.server, &wrong.to_words())?.end()?;
    require(code == 2, || format!("{line:?}"))
}

/// The CPU metrics' definition rests on this: without interrupt accounting the sender's own time holds the softirqs that
/// its sends raise; with it, they are missing there.
fn softirqs_are_where_the_accounting_says() -> Outcome {
    let symbols = std::fs::read_to_string("/proc/kallsyms")?;
    let apart = symbols.lines().any(|line| line.split_whitespace().nth(2) == Some("irqtime_account_irq"));
    let namespace = NetNs::new()?;
    ip(&namespace, "link set lo up")?;
    let (sender, receiver) = namespace.enter(|| -> std::io::Result<_> {
        let receiver = UdpSocket::bind("127.0.0.1:0")?;
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        sender.connect(receiver.local_addr()?)?;
        Ok((sender, receiver))
    })??;
    // Running and waiting for a CPU, in ns; a sender over `lo` never sleeps, so that the two make up all of its time.
    let used = || -> Result<u64, Box<dyn Error>> {
        let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat")?;
        let fields: Vec<u64> = schedstat.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        Ok(fields[0] + fields[1])
    };
    // A hypervisor that takes the CPU away is not interrupt time; ticks of 10 ms.
    let stolen_ns = || -> Result<u64, Box<dyn Error>> {
        let stat = std::fs::read_to_string("/proc/stat")?;
        let ticks = stat.lines().next().and_then(|line| line.split_whitespace().nth(8)).ok_or("no steal column")?;
        Ok(ticks.parse::<u64>()? * 10_000_000)
    };
    let (began, before, stolen) = (Instant::now(), used()?, stolen_ns()?);
    while began.elapsed() < Duration::from_millis(300) {
        sender.send(&[0; 1000])?;
    }
    let (elapsed, used) = (began.elapsed().as_nanos() as f64, (used()? - before + stolen_ns()? - stolen) as f64);
    drop(receiver);
    let share = used / elapsed;
    println!("a UDP sender's own time is {:.1} % of the clock's; interrupts accounted apart: {apart}", share * 100.0);
    require(apart == (share < 0.9), || format!("share {share}, interrupts accounted apart: {apart}"))
}

/// Prints both figures, alternated; a bench judges them.
fn tcp_stream_beside_iperf3() -> Outcome {
    const PORT: &str = "5300";
    let pair = Pair::new()?;
    let mut figures = Vec::new();
    for _ in 0..3 {
        let (client, server) = pair.run(server(Test::TcpStream), client(Test::TcpStream, 1000))?;
        let ours = server.bytes as f64 * 8.0 / client.elapsed_ns as f64;

        let mut command = Command::new("iperf3");
        command.args(["-s", "-1", "-p", PORT, "--forceflush"]).stdout(Stdio::piped());
        let mut listener = pair.server.enter(|| command.spawn())??;
        let mut said = BufReader::new(listener.stdout.take().ok_or("no stdout")?);
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            require(said.read_line(&mut line)? > 0, || "iperf3 does not listen".to_owned())?;
        }
        let mut command = Command::new("iperf3");
        command.args(["-c", SERVER_ADDRESS, "-p", PORT, "-t", "1", "-J"]);
        let output = pair.client.enter(|| command.output())??;
        said.read_to_string(&mut String::new())?;
        listener.wait()?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let theirs = report["end"]["sum_received"]["bits_per_second"].as_f64().ok_or("no figure")? / 1e9;
        figures.push(format!("{ours:.2} beside {theirs:.2}"));
    }
    println!("tcp_stream beside iperf3, Gbit/s: {}", figures.join(", "));
    Ok(())
}
