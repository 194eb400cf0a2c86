use super::*;
use crate::sandbox::{CpuClass, nn::tract::Tract};

#[test]
fn try_it() {
    let found = find::find(find::Wanted::Library);
    println!("{found:?}");
    let ort = Onnxruntime::start(&found[0].path, &Provider::Cpu).unwrap();
    println!("{} {:?}", ort.version(), ort.device());
    println!("{:?}", crate::sandbox::nn::measure::measure(&ort));
    println!("{:?}", crate::sandbox::nn::measure::measure(&Tract { class: CpuClass::detect() }));
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    println!("{threads}");
}
