//! What admission makes of a module, held against wasmtime's own switches for fuel and NaNs.
//!
//! ```text
//! module ─start exported► wasmtime with consume_fuel (and canonical NaNs) ─► stock
//! module ─admit► the sandbox's engine, optimising ─► fast, must equal stock by `against_stock`
//!              └► the sandbox's engine, not optimising ─► plain, must equal fast in everything
//! ```
//! Compared is how it ended, the fuel that it used, and all of its memory; an entry made by [`super::entry`] writes there
//! what functions return and what globals hold. In the portable profile stock makes NaNs canonical. In the native one
//! it does not, and the module has to hide the bits of NaNs itself: they are the compiler's choice there.
//!
//! **What may differ, by design:**
//! - Fuel after a trap: operators are paid ahead, and a trap leaves some of them undone.
//! - Places of checks. Stock looks at the fuel in each function and at each loop; a rewritten function that neither loops
//!   nor calls does not look, and a bulk operation of constant length does. So near the limit one may stop for fuel where the
//!   other ends, and `settle` runs both again with more fuel than there is between two checks. What a task
//!   uses decides alone: more than the limit is always out of fuel, less never is, and what uses the limit exactly is out
//!   of fuel if it looks once more.
//! - Stack. Recursion is counted, so it ends where the count says and not where the native stack does, which is later.
//! - What instantiation costs: stock charges for segments, for which preflight has bounds. It is left out of the sum.

use std::collections::BTreeMap;

use registry::{
    id::ModuleHash,
    job::{Limits, Profile},
};
use wasm_encoder::{
    ExportKind, ExportSection, RawSection,
    reencode::{self, Reencode},
};
use wasmparser::{Parser, Validator};
use wasmtime::{Engine, Instance, Linker, Module, Store, Trap};

use super::super::{
    CpuClass, Optimisation, Request, SandboxOptions, admit, engine,
    fuel::{self, Fuel},
    nn::{Inferences, record::Recorder},
    preflight::{FEATURES, PAGE_BYTES, preflight},
    state::{State, Stop, Watch},
};
use crate::limits;

/// More fuel than any generated or hand-written function spends between two checks.
const MARGIN: u64 = 100_000;
/// Memory in pages that a module may grow to.
const PAGES_MAX: u64 = 16;

/// One module, and how it is run.
#[derive(Clone, PartialEq, Eq)]
pub struct Case {
    /// A command.
    pub wasm: Vec<u8>,
    /// What its results may depend on.
    pub profile: Profile,
    /// What it may use.
    pub fuel_max: u64,
    /// In what portions it gets that.
    pub slice_max: u64,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { wasm, profile, fuel_max, slice_max } = self;
        write!(f, "{} bytes, {}, fuel {fuel_max} in slices of {slice_max}", wasm.len(), profile.word())
    }
}

/// What two runs of a module must agree on.
#[derive(Clone, PartialEq, Eq)]
struct Run {
    end: End,
    /// All of the limit, if that is how it ended.
    fuel_used: u64,
    /// None, if it was not instantiated.
    memory: Vec<u8>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Ok,
    Trap(Trap),
    Fuel,
    /// The counted stack was spent.
    Counted,
    /// The native stack was.
    Native,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { end, fuel_used, memory } = self;
        write!(f, "{end:?} with fuel {fuel_used} and {} bytes of memory", memory.len())
    }
}

/// How a case ended that was judged: what a campaign counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// To its end: fuel and memory were compared.
    Ok,
    /// By a trap: memory was compared.
    Trap,
    /// Out of fuel.
    Fuel,
    /// Out of stack.
    Stack,
}

/// One engine with what it links.
struct Side {
    engine: Engine,
    linker: Linker<State>,
}

/// All engines.
pub struct Differential {
    /// Wasmtime's own fuel.
    stock: Side,
    /// The same with canonical NaNs.
    stock_canonical: Side,
    fast: Side,
    plain: Side,
}

impl Differential {
    /// Builds the engines.
    ///
    /// # Errors
    /// When one does not start.
    pub fn new() -> Result<Self, String> {
        let stock = |nan: bool| {
            let mut config = engine::config(&options(Optimisation::Speed), CpuClass::detect()).map_err(text)?;
            config.consume_fuel(true).cranelift_nan_canonicalization(nan);
            Side::new(Engine::new(&config).map_err(text)?)
        };
        let ours = |optimisation| Side::new(engine::build(&options(optimisation), CpuClass::detect()).map_err(text)?);
        Ok(Self {
            stock: stock(false)?,
            stock_canonical: stock(true)?,
            fast: ours(Optimisation::Speed)?,
            plain: ours(Optimisation::None)?,
        })
    }

    /// Judges one case.
    ///
    /// # Errors
    /// Says what differs that must not.
    pub fn judge(&self, case: &Case) -> Result<Seen, String> {
        let Case { wasm, profile, fuel_max, slice_max } = case;
        preflight(wasm).map_err(|refusal| format!("preflight refuses: {refusal}"))?;
        let admitted = admit::admit(wasm, *profile).map_err(|error| format!("admission fails: {error}"))?;
        Validator::new_with_features(FEATURES)
            .validate_all(&admitted)
            .map_err(|error| format!("admission makes an invalid module: {error}"))?;
        let stock = match profile {
            Profile::Native => &self.stock,
            Profile::Portable => &self.stock_canonical,
        };
        let runs = Runs {
            stock: stock.load(&start_exported(wasm).map_err(text)?)?,
            fast: self.fast.load(&admitted)?,
            plain: self.plain.load(&admitted)?,
            slice_max: *slice_max,
        };
        let fast = runs.settle(*fuel_max)?;
        if fast.end == End::Ok {
            runs.boundaries(&fast)?;
        }
        Ok(match fast.end {
            End::Ok => Seen::Ok,
            End::Trap(_) => Seen::Trap,
            End::Fuel => Seen::Fuel,
            End::Counted | End::Native => Seen::Stack,
        })
    }
}

/// One module in all engines.
struct Runs<'a> {
    stock: Loaded<'a>,
    fast: Loaded<'a>,
    plain: Loaded<'a>,
    slice_max: u64,
}

impl Runs<'_> {
    /// Runs all with this much fuel and compares; gives what the sandbox would do.
    fn settle(&self, fuel_max: u64) -> Result<Run, String> {
        let (stock, fast) = (self.stock.stock(fuel_max)?, self.ours(fuel_max)?);
        if stock.end == End::Fuel && fast.end == End::Fuel || fast.end == End::Counted {
            return Ok(fast);
        }
        if stock.end != End::Fuel && fast.end != End::Fuel {
            against_stock(&stock, &fast)?;
            return Ok(fast);
        }
        // One was out of fuel and one was not.
        let (more_stock, more_fast) = (self.stock.stock(fuel_max + MARGIN)?, self.ours(fuel_max + MARGIN)?);
        against_stock(&more_stock, &more_fast)?;
        if fast.end == End::Ok && more_fast.fuel_used != fuel_max
            || stock.end == End::Ok && more_fast.fuel_used < fuel_max
        {
            return Err(format!("with fuel {fuel_max} stock is {stock:?}, ours {fast:?}, and with more {more_fast:?}"));
        }
        Ok(fast)
    }

    /// The sandbox's, which must not depend on optimisation.
    fn ours(&self, fuel_max: u64) -> Result<Run, String> {
        let fast = self.fast.ours(fuel_max, self.slice_max)?;
        let plain = self.plain.ours(fuel_max, self.slice_max)?;
        if fast == plain { Ok(fast) } else { Err(differ("optimised", &fast, "not optimised", &plain)) }
    }

    /// What a run used is what decides whether its fuel was enough, in whatever slices it comes.
    fn boundaries(&self, done: &Run) -> Result<(), String> {
        let used = done.fuel_used;
        for slice_max in [self.slice_max, limits::FUEL_SLICE] {
            let enough = self.fast.ours(used + 1, slice_max)?;
            if enough != *done {
                return Err(differ("first", done, "with just enough fuel", &enough));
            }
            for short in [used.saturating_sub(1), used / 2] {
                let end = self.fast.ours(short, slice_max)?.end;
                if end != End::Fuel {
                    return Err(format!("uses {used}, and with {short} in slices of {slice_max} it ends as {end:?}"));
                }
            }
        }
        Ok(())
    }
}

/// The rules, for two runs with fuel enough.
fn against_stock(stock: &Run, ours: &Run) -> Result<(), String> {
    let agree = match (stock.end, ours.end) {
        (End::Ok, End::Ok) => stock == ours,
        (End::Trap(trap), End::Trap(same)) => trap == same && stock.memory == ours.memory,
        (End::Fuel, End::Fuel) => true,
        // Counted stack is spent long before the native one.
        (_, End::Counted) => true,
        _ => false,
    };
    if agree { Ok(()) } else { Err(differ("stock", stock, "ours", ours)) }
}

fn differ(one: &str, a: &Run, other: &str, b: &Run) -> String {
    let at = a.memory.iter().zip(&b.memory).position(|(a, b)| a != b);
    let memory = at.map_or_else(String::new, |at| {
        let shown = |run: &Run| format!("{:02x?}", run.memory.iter().skip(at & !15).take(32).collect::<Vec<_>>());
        format!("; memory differs at {at}: {} and {}", shown(a), shown(b))
    });
    format!("{one} is {a:?}, {other} is {b:?}{memory}")
}

/// A module that an engine has compiled.
struct Loaded<'a> {
    side: &'a Side,
    module: Module,
}

impl Side {
    fn new(engine: Engine) -> Result<Self, String> {
        let mut linker = Linker::new(&engine);
        fuel::link(&mut linker).map_err(text)?;
        for (module, name, signature) in STUBS {
            let linked = match signature {
                ">i" => linker.func_wrap(module, name, || 52u32),
                "i>i" => linker.func_wrap(module, name, |a: u32| a.rotate_left(7)),
                _ => linker.func_wrap(module, name, |a: u32, b: u32| a.rotate_left(7) ^ b),
            };
            linked.map_err(text)?;
        }
        Ok(Self { engine, linker })
    }

    fn load(&self, wasm: &[u8]) -> Result<Loaded<'_>, String> {
        let module = Module::from_binary(&self.engine, wasm);
        let module = module.map_err(|error| format!("what preflight takes does not compile: {error:#}"))?;
        Ok(Loaded { side: self, module })
    }
}

/// Functions of the allow-list that generated modules may import, with their types as there. What they do here is
/// arithmetic: only how they are called is compared, and calls of the host cost nothing.
pub(super) const STUBS: [(&str, &str, &str); 3] = [
    ("wasi_snapshot_preview1", "sched_yield", ">i"),
    ("wasi_snapshot_preview1", "fd_close", "i>i"),
    ("wasi_snapshot_preview1", "random_get", "ii>i"),
];

impl Loaded<'_> {
    fn stock(&self, fuel_max: u64) -> Result<Run, String> {
        let mut store = store(&self.side.engine, Fuel::new(fuel_max));
        store.set_fuel(u64::MAX).map_err(text)?;
        let instance = match self.side.linker.instantiate(&mut store, &self.module) {
            Ok(instance) => instance,
            Err(error) => return Ok(Run { end: end(&error)?, fuel_used: 0, memory: Vec::new() }),
        };
        store.set_fuel(fuel_max).map_err(text)?;
        let end = match call(&mut store, instance) {
            Ok(()) => End::Ok,
            Err(error) => end(&error)?,
        };
        let left = store.get_fuel().map_err(text)?;
        Ok(Run { end, fuel_used: fuel_max - left, memory: memory(&mut store, instance) })
    }

    /// As [`super::super::run`] does it.
    fn ours(&self, fuel_max: u64, slice_max: u64) -> Result<Run, String> {
        let mut store = store(&self.side.engine, Fuel::new(fuel_max).in_slices_of(slice_max));
        let instance = match self.side.linker.instantiate(&mut store, &self.module) {
            Ok(instance) => instance,
            Err(error) => return Ok(Run { end: end(&error)?, fuel_used: 0, memory: Vec::new() }),
        };
        let fuel = instance.get_global(&mut store, admit::FUEL).ok_or("no global for fuel")?;
        Fuel::start(&mut store, fuel).map_err(text)?;
        let ended = call(&mut store, instance);
        let fuel = store.data().fuel;
        let end = match ended {
            Ok(()) if fuel.balance(&mut store) < 0 => End::Fuel,
            Ok(()) => End::Ok,
            Err(error) => end(&error)?,
        };
        let left = if end == End::Fuel { 0 } else { fuel::left(fuel.balance(&mut store)) };
        Ok(Run { end, fuel_used: fuel_max.saturating_sub(left), memory: memory(&mut store, instance) })
    }
}

fn options(optimisation: Optimisation) -> SandboxOptions {
    SandboxOptions { slots_max: 8, memory_bytes_max: PAGES_MAX * PAGE_BYTES, optimisation, ..SandboxOptions::default() }
}

fn store(engine: &Engine, fuel: Fuel) -> Store<State> {
    let mut request = Request::new(ModuleHash::of(b""));
    request.limits =
        Limits { memory_bytes_max: PAGES_MAX * PAGE_BYTES, wall_ms_max: limits::WALL_MS_MAX, ..Limits::default() };
    let mut state = State::new(request, Inferences::new(BTreeMap::new(), None, Recorder::default()), Watch::forever());
    state.fuel = fuel;
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store
}

fn call(store: &mut Store<State>, instance: Instance) -> wasmtime::Result<()> {
    stacker::maybe_grow(limits::TASK_STACK_BYTES, limits::TASK_STACK_BYTES, || {
        if let Some(start) = instance.get_func(&mut *store, admit::START) {
            start.typed::<(), ()>(&store)?.call(&mut *store, ())?;
        }
        instance.get_typed_func::<(), ()>(&mut *store, "_start")?.call(&mut *store, ())
    })
}

fn memory(store: &mut Store<State>, instance: Instance) -> Vec<u8> {
    instance.get_memory(&mut *store, "memory").map_or_else(Vec::new, |memory| memory.data(&store).to_vec())
}

fn end(error: &wasmtime::Error) -> Result<End, String> {
    match error.downcast_ref::<Stop>() {
        Some(Stop::Fuel) => return Ok(End::Fuel),
        Some(Stop::Stack) => return Ok(End::Counted),
        Some(stop) => return Err(format!("stopped: {stop}")),
        None => {}
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => Ok(End::Fuel),
        Some(Trap::StackOverflow) => Ok(End::Native),
        Some(trap) => Ok(End::Trap(*trap)),
        None => Err(format!("fails without a trap: {error:#}")),
    }
}

/// The module as stock gets it: its start function is not called while it is instantiated, but exported, as in a
/// rewritten module, so that the fuel of both is counted from the same point.
fn start_exported(wasm: &[u8]) -> Result<Vec<u8>, reencode::Error> {
    let mut exported = StartExported { start: None };
    for payload in Parser::new(0).parse_all(wasm) {
        if let wasmparser::Payload::StartSection { func, .. } = payload? {
            exported.start = Some(func);
        }
    }
    let mut module = wasm_encoder::Module::new();
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload?;
        let Some((id, range)) = payload.as_section() else { continue };
        let data = wasm.get(range).unwrap_or_default();
        match payload {
            wasmparser::Payload::StartSection { .. } => {}
            wasmparser::Payload::ExportSection(section) => {
                let mut exports = ExportSection::new();
                exported.parse_export_section(&mut exports, section)?;
                module.section(&exports);
            }
            _ => {
                module.section(&RawSection { id, data });
            }
        }
    }
    Ok(module.finish())
}

struct StartExported {
    start: Option<u32>,
}

impl Reencode for StartExported {
    type Error = std::convert::Infallible;

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        section: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        for export in section {
            let export = export?;
            if export.name != admit::START {
                self.parse_export(exports, export)?;
            }
        }
        if let Some(start) = self.start {
            exports.export(admit::START, ExportKind::Func, start);
        }
        Ok(())
    }
}

fn text(error: impl std::fmt::Display) -> String {
    format!("{error:#}")
}
