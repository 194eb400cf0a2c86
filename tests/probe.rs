//! Tries, with native code, what a task must never get to do: the inner layer, WebAssembly, is switched off here.
//!
//! `quorate-probe LAYER ATTEMPT KEY=VALUE..` enters a jail of that one layer and makes that one attempt. It says `done` or
//! `stopped`, or is killed. `quorate-probe host PROGRAM` is a host with a busy sandbox process, to be killed. `quorate-probe
//! infer CLASS` says the engine of that class and the hash of what a model with every kind of function in it answers.
#![allow(unsafe_code, reason = "what escaped code does has no safe form")]
#![allow(clippy::unwrap_used, reason = "a probe that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    net::{TcpStream, UdpSocket},
    os::{
        linux::net::SocketAddrExt,
        unix::{net::SocketAddr, net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::Command,
};

use guest_sdk::abi::nn::TensorType;
use host::sandbox::{
    BackendOptions, CpuClass, Isolation, Request, Sandbox, SandboxOptions,
    direct::{DirectInputs, DirectModel},
    jail::{self, Drivers, Jail, Layer, Layers},
    onnx::{FLOAT, Model, f32s},
};
use registry::id::{BlobHash, ModuleHash};

fn main() {
    let mut args = std::env::args().skip(1);
    let (first, second) = (args.next().unwrap(), args.next().unwrap());
    if first == "host" {
        return host(second);
    }
    if first == "infer" {
        return infer(&second);
    }
    let given: Given =
        args.map(|arg| arg.split_once('=').map(|(key, value)| (key.into(), value.into())).unwrap()).collect();
    let layers = match first.as_str() {
        "none" => Layers::NONE,
        "all" | "driver" => Layers::ALL,
        word => Layers::only(Layer::ALL.into_iter().find(|layer| layer.word() == word).unwrap()),
    };
    let (_, attempt) = ATTEMPTS.iter().find(|(name, _)| *name == second).unwrap();
    let jail = Jail {
        layers,
        cpu_s_max: Some(1),
        data_bytes_max: Some(256 << 20),
        address_bytes_max: None,
        file_bytes_max: 1 << 20,
        descriptors_max: 64,
        own_dir: PathBuf::from(&given["own"]),
        dies_with_parent: true,
        // Some library that every system has, and a device that is none of a GPU.
        drivers: (first == "driver")
            .then(|| Drivers { readable: vec!["/usr/lib".into()], devices: vec!["/dev/null".into()] }),
    };
    let gaps = jail::enter(&jail).unwrap();
    assert!(gaps.is_empty(), "this kernel lacks what is to be tested: {gaps:?}");
    match attempt(&given) {
        Ok(()) => println!("done"),
        Err(error) => println!("stopped: {error}"),
    }
}

/// Infers with tract's own kernels of a class.
fn infer(class: &str) {
    let class = [CpuClass::Generic, CpuClass::Avx2].into_iter().find(|known| known.word() == class).unwrap();
    let options = SandboxOptions { cpu_class: Some(class), slots_max: 1, ..SandboxOptions::default() };
    let engine = Sandbox::description_of(&options).unwrap().fingerprint();
    // Sides that no kernel divides.
    let (rows, inner, columns) = (37u32, 101u32, 29u32);
    let number = |at: u32| (f64::from(at.wrapping_mul(2_654_435_761) >> 8) / f64::from(1u32 << 23) - 1.0) as f32;
    let numbers = |count: u32| f32s(&(0..count).map(number).collect::<Vec<_>>());
    let mut model = Model::new()
        .input("x", FLOAT, &[-1, inner.into()])
        .constant("w", FLOAT, &[inner.into(), columns.into()], &numbers(inner * columns))
        .node("MatMul", &["x", "w"], &["sums"], &[]);
    let functions = ["Sigmoid", "Tanh", "Exp", "Erf", "Sin", "Cos", "Softplus", "Softmax", "Sqrt", "Neg"];
    for function in functions {
        model = model.node(function, &["sums"], &[function], &[]).output(function, FLOAT, &[]);
    }
    let direct = DirectModel::load(BackendOptions::Tract, Some(class), &model.bytes()).unwrap();
    let inputs = DirectInputs::new([(TensorType::F32, vec![rows, inner], numbers(rows * inner))]);
    direct.open(&inputs).unwrap();
    let outputs = direct.run(&inputs).unwrap();
    assert_eq!(outputs.len(), functions.len());
    println!("{engine} {}", BlobHash::of(&outputs.concat()));
}

/// What an attempt is given.
type Given = HashMap<String, String>;
type Attempt = fn(&Given) -> io::Result<()>;

const ATTEMPTS: &[(&str, Attempt)] = &[
    ("descriptor", |given| {
        let mut byte = 0u8;
        // SAFETY: one byte is read into one byte.
        let read = unsafe { libc::read(given["descriptor"].parse().unwrap(), (&raw mut byte).cast(), 1) };
        checked(read).map(drop)
    }),
    ("read", |given| fs::read(&given["file"]).map(drop)),
    ("library", |_| fs::read_dir("/usr/lib").map(drop)),
    ("device", |_| File::options().read(true).write(true).open("/dev/null").map(drop)),
    ("stat", |given| fs::metadata(&given["file"]).map(drop)),
    ("write", |given| fs::write(format!("{}.new", given["file"]), "mine")),
    ("fill", |_| {
        let mut file = File::create("own")?;
        (0..8).try_for_each(|_| file.write_all(&vec![0; 1 << 20]))
    }),
    ("tcp", |given| TcpStream::connect(&given["tcp"]).map(drop)),
    ("udp", |given| UdpSocket::bind("127.0.0.1:0")?.send_to(b"hello", &given["udp"]).map(drop)),
    ("abstract", |given| UnixStream::connect_addr(&SocketAddr::from_abstract_name(&given["abstract"])?).map(drop)),
    ("fork", |_| {
        // SAFETY: the new process does nothing but end.
        match unsafe { libc::fork() } {
            0 => unsafe { libc::_exit(0) },
            process => checked(process as isize).map(drop),
        }
    }),
    ("exec", |_| Err(Command::new("/bin/echo").arg("done").exec())),
    ("allocate", |_| Vec::<u8>::new().try_reserve_exact(1 << 30).map_err(io::Error::other)),
    ("share", |_| {
        let (read_write, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: nothing is there that this could replace.
        checked(unsafe { libc::mmap(std::ptr::null_mut(), 1 << 30, read_write, shared, -1, 0) } as isize).map(drop)
    }),
    ("open", |_| {
        // SAFETY: standard output is open.
        (0..10_000).try_for_each(|_| checked(unsafe { libc::dup(1) } as isize).map(drop))
    }),
    ("spin", |_| {
        let used_ms = || {
            let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
            used.tv_sec * 1000 + used.tv_nsec / 1_000_000
        };
        while used_ms() < 2_500 {}
        Ok(())
    }),
    ("kill", |given| {
        // SAFETY: no memory is involved.
        checked(unsafe { libc::kill(given["victim"].parse().unwrap(), libc::SIGURG) } as isize).map(drop)
    }),
    ("trace", |given| {
        let victim: libc::pid_t = given["victim"].parse().unwrap();
        // SAFETY: no memory of this process is involved; the victim is let go when it ends.
        checked(unsafe { libc::ptrace(libc::PTRACE_SEIZE, victim, 0, 0) } as isize).map(drop)
    }),
    ("mount", |_| {
        // SAFETY: strings end, and what changes is a copy that only this process sees.
        unsafe {
            checked(libc::unshare(libc::CLONE_NEWNS) as isize)?;
            let (root, none) = (c"/".as_ptr(), std::ptr::null());
            let flags = libc::MS_REC | libc::MS_PRIVATE;
            checked(libc::mount(none, root, none, flags, none.cast()) as isize).map(drop)
        }
    }),
    ("raise", |_| {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both calls read or write this one value.
        unsafe {
            checked(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) as isize)?;
            limit.rlim_max += 1;
            checked(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) as isize).map(drop)
        }
    }),
];

fn checked(result: isize) -> io::Result<isize> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Runs an endless task in a sandbox process, whose number it says.
fn host(program: String) {
    let options = SandboxOptions {
        isolation: Isolation::Process,
        program: Some(program.into()),
        slots_max: 1,
        ..SandboxOptions::default()
    };
    let sandbox = Sandbox::new(options).unwrap();
    let module =
        wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))"#).unwrap();
    let hash = ModuleHash::of(&module);
    sandbox.load_module(hash, &module).unwrap();
    println!("{}", sandbox.process_ids()[0]);
    let mut request = Request::new(hash);
    request.limits.fuel_max = u64::MAX;
    let ended = sandbox.run(request);
    panic!("an endless task ended: {ended:?}");
}
