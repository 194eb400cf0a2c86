use super::*;
use crate::clock::Stopwatch;
fn percentiles(name: &str, mut body: impl FnMut()) {
    for _ in 0..2000 { body(); }
    let mut t: Vec<u128> = (0..20000).map(|_| { let w = Stopwatch::start(); body(); w.elapsed().as_nanos() }).collect();
    t.sort();
    eprintln!("{name}: p50 {} p90 {} p99 {} ns", t[10000], t[18000], t[19800]);
}
#[test]
fn cost() {
    let sandbox = sandbox();
    let noop = wat::parse_str(r#"(module (memory (export "memory") 17) (data (i32.const 1048576) "hello") (func (export "_start")))"#).unwrap();
    let say = module("(data (i32.const 0) \"hello\")", "(call $say (i32.const 1) (i32.const 0) (i32.const 5))");
    for round in 0..3 {
        let engine = &sandbox.shared.engine;
        let m = wasmtime::Module::from_binary(engine, &noop).unwrap();
        let pre = wasmtime::Linker::<()>::new(engine).instantiate_pre(&m).unwrap();
        percentiles(&format!("{round} raw"), || {
            let mut store = wasmtime::Store::new(engine, ());
            store.set_fuel(1 << 40).unwrap();
            store.set_epoch_deadline(1 << 40);
            let i = pre.instantiate(&mut store).unwrap();
            i.get_typed_func::<(), ()>(&mut store, "_start").unwrap().call(&mut store, ()).unwrap();
        });
        let r = request(&noop);
        percentiles(&format!("{round} run noop"), || { assert!(matches!(sandbox.run(r.clone()), Response::Done(_))); });
        let r = request(&say);
        percentiles(&format!("{round} run say"), || { assert!(matches!(sandbox.run(r.clone()), Response::Done(_))); });
    }
    if let Ok(bytes) = std::fs::read("/tmp/rs/hello.wasm") {
        let mut r = request(&bytes); r.stdin = "x".into();
        percentiles("rust println", || { assert!(matches!(sandbox.run(r.clone()), Response::Done(_))); });
    }
}
