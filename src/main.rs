//! temporary
use isobench::sys::clock;
fn main() {
    let entry = clock::now_ns();
    let a: Vec<String> = std::env::args().collect();
    if a.get(1).map(String::as_str) == Some("__workload") {
        use std::io::Write;
        let _ = std::io::stdout().write_all(&entry.to_le_bytes());
        return;
    }
    use isobench::runtime::*;
    let n: usize = a[1].parse().unwrap();
    if let Some(c) = a.get(2) {
        let c: usize = c.parse().unwrap();
        let rt = by_kind(if a.len()>3 {isobench::scenario::RuntimeKind::Floor} else {isobench::scenario::RuntimeKind::Builtin}).unwrap();
        let t = clock::now_ns();
        let c0 = clock::process_cpu_ns();
        std::thread::scope(|s| { for _ in 0..c { s.spawn(|| for _ in 0..n { 
            let mut i = rt.start(StartRequest{ workload: vec!["stamp".into()], network: Network::None, stdout: None, requested_ns: clock::now_ns() }).unwrap();
            i.wait().unwrap(); i.remove().unwrap(); }); } });
        let d = (clock::now_ns()-t) as f64/1e9;
        println!("{:.0}/s  parent cpu {:.0} us each", (n*c) as f64/d, (clock::process_cpu_ns()-c0) as f64/1e3/(n*c) as f64);
        isobench::container::gc::collect().unwrap();
        return;
    }
    let rts = [by_kind(isobench::scenario::RuntimeKind::Floor).unwrap(), by_kind(isobench::scenario::RuntimeKind::Builtin).unwrap()];
    let mut res: Vec<Vec<(u64,u64,u64)>> = vec![vec![];2];
    let mut last = vec![];
    let mut ph: std::collections::BTreeMap<&str, Vec<u64>> = Default::default();
    let mut order: Vec<&str> = vec![];
    for _ in 0..n {
        for (k, rt) in rts.iter().enumerate() {
            let (r, w) = std::io::pipe().unwrap();
            let t0 = clock::now_ns();
            let mut i = rt.start(StartRequest{ workload: vec!["stamp".into()], network: Network::None, stdout: Some(w.into()), requested_ns: t0 }).unwrap();
            let e = i.wait().map_err(|e| { let mut s=String::new(); let mut c: Option<&dyn std::error::Error>=Some(&e); while let Some(x)=c { s+=&format!("{x}: "); c=x.source(); } s}).unwrap();
            let mut b=[0u8;8]; use std::io::Read; let mut r=r; r.read_exact(&mut b).unwrap();
            let ready=u64::from_le_bytes(b);
            let p = i.phases();
            if k==1 { let mut le=0; for x in &p { if !ph.contains_key(x.name) {order.push(x.name);} ph.entry(x.name).or_default().push(x.end_ns-x.start_ns); le=x.end_ns;} 
              ph.entry("to_ready").or_default().push(ready-le); ph.entry("to_reaped").or_default().push(e.at_ns-ready);}
            last=p;
            i.remove().unwrap();
            res[k].push((ready-t0,e.at_ns-t0,clock::now_ns()-e.at_ns));
        }
    }
    let _=last;
    let m=|v: &mut Vec<u64>| { v.sort(); v[v.len()/2] as f64/1e3 };
    for k in 0..2 {
        println!("{} ready {:.0} exit {:.0} teardown {:.0} us", ["floor","builtin"][k], m(&mut res[k].iter().map(|x|x.0).collect()), m(&mut res[k].iter().map(|x|x.1).collect()), m(&mut res[k].iter().map(|x|x.2).collect()));
    }
    order.push("to_ready"); order.push("to_reaped");
    for o in order { println!("{o:14} {:.1}", m(ph.get_mut(o).unwrap())); }
    isobench::container::gc::collect().unwrap();
}
