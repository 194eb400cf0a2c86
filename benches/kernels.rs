//! What does metered, deterministic execution cost, and how far is the sandbox from native code?
//!
//! Each kernel of `tasks::kernels` runs natively, in wasmtime without any switch, under each of wasmtime's own switches,
//! and through `Sandbox::run` under each engine profile. One source, one module. Every round runs all of them in turn and
//! takes the processor time of the thread; a ratio is the median of the rounds' own ratios, so that a machine that drifts
//! drifts for both sides. All must give the same checksum, or the bench fails.
//!
//! Names of kernels on the command line leave the others out:
//! `cargo bench -p quorate-benches --bench kernels -- nbody sort`.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

use std::{error::Error, hint::black_box, time::Duration};

use benches::{
    stock::{Stock, Switches, thread_time},
    table,
};
use host::sandbox::{Finished, Request, Response, Sandbox, SandboxOptions};
use registry::{
    id::ModuleHash,
    job::{Limits, Profile},
    receipt::Outcome,
};
use tasks::kernels::{self, Kernel};

const ROUNDS: usize = 7;
/// One more than the kernels' own: first runs are left out.
const WARM_ROUNDS: usize = 1;

/// Wasmtime under its own switches; the first is what all others are held against.
const STOCK: [(&str, Switches); 5] = [
    ("bare", Switches { fuel: false, epoch: false, nan: false }),
    ("fuel", Switches { fuel: true, epoch: false, nan: false }),
    ("fuel+epoch", Switches { fuel: true, epoch: true, nan: false }),
    ("nan", Switches { fuel: false, epoch: false, nan: true }),
    ("fuel+epoch+nan", Switches { fuel: true, epoch: true, nan: true }),
];

/// What is known of a kernel in the end.
struct Measured {
    kernel: &'static Kernel,
    /// What it is billed.
    fuel: u64,
    /// The time of every way, for each round.
    rounds: Vec<Vec<Duration>>,
}

/// One way to run a kernel: gives its time and its checksum.
type Way<'a> = Box<dyn Fn(u32, &Kernel) -> Result<(Duration, u64), Box<dyn Error>> + 'a>;

fn native(_: u32, kernel: &Kernel) -> Result<(Duration, u64), Box<dyn Error>> {
    let before = thread_time();
    let checksum = black_box((kernel.run)(black_box(kernel.size)));
    Ok((thread_time().saturating_sub(before), checksum))
}

/// Runs a kernel as a task.
fn sandboxed(sandbox: &Sandbox, kernel: &Kernel) -> Result<(Duration, Finished), Box<dyn Error>> {
    let request = Request {
        args: vec![kernel.name.to_owned(), kernel.size.to_string()],
        limits: Limits { fuel_max: u64::MAX / 2, ..Limits::default() },
        ..Request::new(ModuleHash::of(tasks::KERNEL.wasm))
    };
    let before = thread_time();
    let response = sandbox.run(request);
    let time = thread_time().saturating_sub(before);
    let Response::Done(finished) = response else { return Err(format!("{}: {response:?}", kernel.name).into()) };
    if finished.outcome != Outcome::Ok {
        return Err(format!("{}: {finished:?}", kernel.name).into());
    }
    Ok((time, finished))
}

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo adds `--bench`.
    let asked: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let Some(unknown) = asked.iter().find(|name| kernels::by_name(name).is_none()) {
        let known: Vec<&str> = kernels::ALL.iter().map(|kernel| kernel.name).collect();
        return Err(format!("no kernel `{unknown}`; there are {}", known.join(", ")).into());
    }
    let mut profiles = Vec::new();
    for profile in [Profile::Native, Profile::Portable] {
        let sandbox = Sandbox::new(SandboxOptions { profile, ..SandboxOptions::default() })?;
        sandbox.load_module(ModuleHash::of(tasks::KERNEL.wasm), tasks::KERNEL.wasm)?;
        profiles.push((profile, sandbox));
    }
    let mut ways: Vec<(&str, Way<'_>)> = vec![("native code", Box::new(native))];
    for (name, switches) in STOCK {
        let stock = Stock::new(tasks::KERNEL.wasm, switches)?;
        ways.push((name, Box::new(move |position, kernel| stock.time(position, kernel.size))));
    }
    for (profile, sandbox) in &profiles {
        let ours = move |_: u32, kernel: &Kernel| -> Result<(Duration, u64), Box<dyn Error>> {
            let (time, finished) = sandboxed(sandbox, kernel)?;
            Ok((time, u64::from_str_radix(std::str::from_utf8(&finished.stdout)?.trim_end(), 16)?))
        };
        ways.push((profile.word(), Box::new(ours)));
    }

    let mut measured = Vec::new();
    for (position, kernel) in (0..).zip(&kernels::ALL) {
        if asked.is_empty() || asked.iter().any(|name| name == kernel.name) {
            let fuel = sandboxed(&profiles[0].1, kernel)?.1.fuel_used;
            measured.push(Measured { kernel, fuel, rounds: measure(&ways, position, kernel)? });
        }
    }
    let names: Vec<&str> = ways.iter().map(|(name, _)| *name).collect();
    println!("{ROUNDS} rounds each, interleaved; x bare where nothing else is said\n");
    table(&rows(&names, &measured));
    Ok(())
}

/// Times of one kernel: a list of rounds, each with the time of every way.
fn measure(ways: &[(&str, Way<'_>)], position: u32, kernel: &Kernel) -> Result<Vec<Vec<Duration>>, Box<dyn Error>> {
    let mut expected = None;
    let mut rounds = Vec::new();
    for _ in 0..WARM_ROUNDS + ROUNDS {
        let mut times = Vec::new();
        for (name, way) in ways {
            let (time, checksum) = way(position, kernel)?;
            let expected = *expected.get_or_insert(checksum);
            if checksum != expected {
                return Err(format!("{} by {name} gives {checksum:016x}, not {expected:016x}", kernel.name).into());
            }
            times.push(time);
        }
        rounds.push(times);
    }
    Ok(rounds.split_off(WARM_ROUNDS))
}

/// Median over the rounds of one way's time against another's.
fn ratio(rounds: &[Vec<Duration>], way: usize, against: usize) -> f64 {
    let mut ratios: Vec<f64> =
        rounds.iter().map(|times| times[way].as_secs_f64() / times[against].as_secs_f64()).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    ratios[ratios.len() / 2]
}

fn median(rounds: &[Vec<Duration>], way: usize) -> Duration {
    let mut times: Vec<Duration> = rounds.iter().map(|times| times[way]).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// The table: milliseconds of native code and of bare wasm, then what each way adds; geometric means and worst at the end.
fn rows(names: &[&str], measured: &[Measured]) -> Vec<Vec<String>> {
    const NATIVE: usize = 0;
    const BARE: usize = 1;
    // Each column of ratios: its heading, the way, what it is held against.
    let mut columns = vec![(String::from("bare x native"), BARE, NATIVE)];
    columns.extend((BARE + 1..names.len()).map(|way| (names[way].to_owned(), way, BARE)));
    for (profile, way) in [("native", names.len() - 2), ("portable", names.len() - 1)] {
        columns.push((format!("{profile} x native code"), way, NATIVE));
    }

    let mut heading: Vec<String> = ["kernel", "fuel a bare ns", "native ms", "bare ms"].map(str::to_owned).into();
    heading.extend(columns.iter().map(|(heading, ..)| heading.clone()));
    let mut rows = vec![heading];
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    for Measured { kernel, fuel, rounds } in measured {
        let bare = median(rounds, BARE);
        let density = format!("{:.1}", *fuel as f64 / bare.as_secs_f64() / 1e9);
        let mut row = vec![kernel.name.to_owned(), density, ms(median(rounds, NATIVE)), ms(bare)];
        row.extend(columns.iter().map(|(_, way, against)| format!("{:.2}", ratio(rounds, *way, *against))));
        rows.push(row);
    }
    type Over = fn(&[f64]) -> f64;
    let geometric: Over = |ratios| (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    let largest: Over = |ratios| ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for (name, over) in [("geometric mean", geometric), ("largest", largest)] {
        let mut row = vec![name.to_owned(), String::new(), String::new(), String::new()];
        for (_, way, against) in &columns {
            let ratios: Vec<f64> = measured.iter().map(|measured| ratio(&measured.rounds, *way, *against)).collect();
            row.push(format!("{:.2}", over(&ratios)));
        }
        rows.push(row);
    }
    rows
}
