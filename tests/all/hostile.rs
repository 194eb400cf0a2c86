//! Fresh eyes on what was built.

use host::{clock::Stopwatch, sandbox::{Sandbox, SandboxOptions}};
use registry::id::ModuleHash;
use crate::bombs::{self, Bomb};

fn rss() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
#[ignore = "measure"]
fn measure() {
    let which = std::env::var("BOMB").unwrap();
    let n: usize = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let k: usize = std::env::var("K").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let b = Bomb::new();
    let bomb = match which.as_str() {
        "empty" => b.functions(n, 0, &[]),
        "locals" => b.functions(n, k as u64, &[]),
        "brtable" => b.functions(n, 0, &bombs::br_table(k)),
        "nested" => b.functions(n, 0, &bombs::nested(k)),
        "chain" => b.functions(n, 0, &bombs::chain(k)),
        "alive" => b.functions(n, 0, &bombs::alive(k)),
        "sigs" => b.signatures(n, k),
        "exports" => b.exports(n),
        "const" => { let mut g = vec![0x7f, 0]; g.extend(bombs::sum(k)); b.section(6, n, &g) },
        "data" => { let mut d = vec![0, 0x41, 0, 0x0b]; d.push(1); d.push(7); b.section(11, n, &d) },
        "passive" => b.section(11, n, &[1, 1, 7]),
        "elems" => { let mut e = vec![1, 0]; let mut v = k; while v >= 128 { e.push((v as u8 & 127) | 128); v >>= 7; } e.push(v as u8); e.extend(std::iter::repeat_n(0, k)); b.section(9, n, &e) },
        _ => panic!(),
    };
    let wasm = bomb.build();
    drop(bomb);
    let sandbox = Sandbox::new(SandboxOptions{slots_max: 1, ..SandboxOptions::default()}).unwrap();
    let r0 = rss();
    let w = Stopwatch::start();
    let pre = Sandbox::preflight(&wasm);
    let t1 = w.elapsed_ms();
    let r1 = rss();
    let w = Stopwatch::start();
    let hash = ModuleHash::of(&wasm);
    let loaded = sandbox.load_module(hash, &wasm);
    println!("BOMB {which} n={n} k={k} bytes={} preflight {} ms +{} MB; load {} ms +{} MB: {}", wasm.len(), t1, r1 - r0, w.elapsed_ms(), rss() - r1, match (pre, &loaded) { (Err(e), _) => e.to_string(), (_, Err(e)) => e.to_string(), _ => "ok".into() });
    if loaded.is_ok() {
        let w = Stopwatch::start();
        let r = sandbox.run(host::sandbox::Request::new(hash));
        println!("    run {} ms: {}", w.elapsed_ms(), match r { host::sandbox::Response::Done(d) => format!("{:?} fuel {}", d.outcome, d.fuel_used), host::sandbox::Response::Fault(f) => f.to_string() });
    }
}
