//! Checks a module before a compiler sees it: cheap, in one pass and a validation, over hostile bytes.
//!
//! Compiling hostile input is not bounded by the compiler. Counts refuse here what is over every budget; what is near is
//! stopped by the budget of the process that compiles, see `compile`. Imports are an allow-list with types, so that a
//! module which passes here links. Order: form, counts, memory, imports, exports, then full validation.

use guest_sdk::abi;
use registry::id::ModuleHash;
use serde::{Deserialize, Serialize};
use wasmparser::{
    ConstExpr, DataKind, ElementItems, ElementKind, ExternalKind, FuncType, MemoryType, Operator, Parser, Payload,
    TableInit, TypeRef, ValType, Validator, WasmFeatures,
};

use super::imports;
use crate::limits;

/// The one memory's page size in bytes.
pub const PAGE_BYTES: u64 = 65_536;

/// What the function is exported as that makes a module one with steps.
const STEP: &str = abi::STEP;
const STEP_TYPE: &str = "a function without parameters whose result is an i32";

/// The WebAssembly features that a module may use: all are deterministic.
pub(super) const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::EXTENDED_CONST);

/// What is known of a module that may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleInfo {
    /// Its name.
    pub hash: ModuleHash,
    /// Length in bytes.
    pub bytes: u64,
    /// Memory pages that it starts with.
    pub memory_pages_min: u64,
    /// Memory pages that it may grow to, if it says so.
    pub memory_pages_max: Option<u64>,
    /// Functions that it defines.
    pub functions: u32,
    /// Whether it exports `step`: see [`steps`](super::steps).
    pub steps: bool,
}

/// Why a module may not run here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Refusal {
    /// No binary module.
    #[error(
        "not a WebAssembly module: it does not start with `\\0asm`; build with `cargo build --target wasm32-wasip1`"
    )]
    NotWasm,
    /// The text format.
    #[error("this is WebAssembly text, not a module: convert it first, e.g. with `wasm-tools parse`")]
    Text,
    /// A component.
    #[error("this is a component, not a core module: build for `wasm32-wasip1` instead of `wasm32-wasip2`")]
    Component,
    /// Longer or more numerous than a module may be.
    #[error("{what} is {value}, over the bound of {bound}: make the module smaller")]
    TooLarge {
        /// What was counted.
        what: String,
        /// As found.
        value: u64,
        /// Largest allowed.
        bound: u64,
    },
    /// A memory of a kind that is not deterministic or not bounded here.
    #[error("memory is refused: {rule}; build for plain `wasm32-wasip1`")]
    Memory {
        /// The rule that it breaks.
        rule: String,
    },
    /// Imports something that is no function.
    #[error(
        "import `{module}.{name}` is no function: only functions may be imported; do not link with --import-memory or --import-table"
    )]
    ImportKind {
        /// Import module.
        module: String,
        /// Import name.
        name: String,
    },
    /// Imports a function that does not exist here.
    #[error(
        "import `{module}.{name}` is not offered: modules may import wasi_snapshot_preview1, wasi_ephemeral_nn and quorate_hash only"
    )]
    ImportUnknown {
        /// Import module.
        module: String,
        /// Import name.
        name: String,
    },
    /// Imports a known function with another type.
    #[error("import `{module}.{name}` has type {found}, it must be {expected}: rebuild against WASI preview 1")]
    ImportType {
        /// Import module.
        module: String,
        /// Import name.
        name: String,
        /// As imported.
        found: String,
        /// As offered.
        expected: String,
    },
    /// Lacks an export.
    #[error(
        "export `{name}` is missing: a task is a command with `_start` and `memory`, not a library; build a binary target"
    )]
    ExportMissing {
        /// The export.
        name: String,
    },
    /// Exports a name that means something here as something else.
    #[error("export `{name}` must be {expected}")]
    ExportType {
        /// The export.
        name: String,
        /// What it has to be.
        expected: String,
    },
    /// Exports `step`, and does what no state between two steps would tell.
    #[error(
        "a module that exports `step` must not {what}: that is no part of the state which is kept between its steps"
    )]
    Step {
        /// What it does.
        what: String,
    },
    /// Not valid, or uses a feature that is switched off.
    #[error("module is not valid here: {detail}")]
    Invalid {
        /// What the validator said.
        detail: String,
    },
}

impl Refusal {
    /// A stable word for metrics and the wire.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotWasm => "not_wasm",
            Self::Text => "text",
            Self::Component => "component",
            Self::TooLarge { .. } => "too_large",
            Self::Memory { .. } => "memory",
            Self::ImportKind { .. } => "import_kind",
            Self::ImportUnknown { .. } => "import_unknown",
            Self::ImportType { .. } => "import_type",
            Self::ExportMissing { .. } => "export_missing",
            Self::ExportType { .. } => "export_type",
            Self::Step { .. } => "step",
            Self::Invalid { .. } => "invalid",
        }
    }
}

impl From<wasmparser::BinaryReaderError> for Refusal {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Invalid { detail: error.to_string().chars().take(200).collect() }
    }
}

/// Checks a module.
///
/// # Errors
/// Names the first rule that it breaks.
pub fn preflight(bytes: &[u8]) -> Result<ModuleInfo, Refusal> {
    check_form(bytes)?;
    let mut seen = Seen::default();
    for payload in Parser::new(0).parse_all(bytes) {
        seen.payload(payload?)?;
    }
    let memory = seen.check_memory()?;
    seen.check_start()?;
    seen.check_step()?;
    Validator::new_with_features(FEATURES).validate_all(bytes)?;
    Ok(ModuleInfo {
        hash: ModuleHash::of(bytes),
        bytes: bytes.len() as u64,
        memory_pages_min: memory.initial,
        memory_pages_max: memory.maximum,
        functions: seen.functions,
        steps: seen.step.is_some(),
    })
}

fn check_form(bytes: &[u8]) -> Result<(), Refusal> {
    bound("module length in bytes", bytes.len() as u64, limits::MODULE_BYTES_MAX)?;
    if Parser::is_component(bytes) {
        return Err(Refusal::Component);
    }
    if !Parser::is_core_wasm(bytes) {
        let text = bytes.trim_ascii_start();
        return Err(if text.starts_with(b"(") || text.starts_with(b";;") { Refusal::Text } else { Refusal::NotWasm });
    }
    Ok(())
}

fn bound(what: &str, value: u64, bound: u64) -> Result<(), Refusal> {
    if value <= bound { Ok(()) } else { Err(Refusal::TooLarge { what: what.to_owned(), value, bound }) }
}

/// What the one pass has met so far.
#[derive(Default)]
struct Seen {
    /// Function types; `None` where a type is no function.
    types: Vec<Option<FuncType>>,
    /// Type index of each function, imported ones first.
    function_types: Vec<u32>,
    functions: u32,
    /// Elements of all segments.
    elements: u64,
    /// See [`compile_work`].
    work: u64,
    memories: Vec<MemoryType>,
    memory_exported: bool,
    start: Option<u32>,
    step: Option<u32>,
    /// The first thing that a module with steps must not do.
    unkept: Option<&'static str>,
}

impl Seen {
    fn payload(&mut self, payload: Payload<'_>) -> Result<(), Refusal> {
        match payload {
            Payload::TypeSection(section) => {
                bound("number of types", section.count().into(), limits::MODULE_TYPES_MAX.into())?;
                for group in section {
                    for sub in group?.into_types() {
                        self.types.push(match sub.composite_type.inner {
                            wasmparser::CompositeInnerType::Func(func) => Some(func),
                            _ => None,
                        });
                        let func = self.types.last().and_then(Option::as_ref);
                        let values = func.map_or(0, |func| func.params().len() + func.results().len()) as u64;
                        bound("parameters and results of a type", values, limits::TYPE_VALUES_MAX.into())?;
                        bound("number of types", self.types.len() as u64, limits::MODULE_TYPES_MAX.into())?;
                    }
                }
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.import(&import?)?;
                    bound("number of imports", self.function_types.len() as u64, limits::MODULE_IMPORTS_MAX.into())?;
                }
            }
            Payload::FunctionSection(section) => {
                bound("number of functions", section.count().into(), limits::MODULE_FUNCTIONS_MAX.into())?;
                self.functions = section.count();
                for index in section {
                    self.function_types.push(index?);
                }
            }
            Payload::TableSection(section) => {
                bound("number of tables", section.count().into(), limits::MODULE_TABLES_MAX.into())?;
                for table in section {
                    let table = table?;
                    bound("elements of a table", table.ty.initial, limits::TABLE_ELEMENTS_MAX.into())?;
                    if let TableInit::Expr(initial) = &table.init {
                        check_initial(initial)?;
                    }
                }
            }
            Payload::MemorySection(section) => {
                bound("number of memories", section.count().into(), 1)?;
                for memory in section {
                    self.memories.push(memory?);
                }
            }
            Payload::GlobalSection(section) => {
                bound("number of globals", section.count().into(), limits::MODULE_GLOBALS_MAX.into())?;
                for global in section {
                    let global = global?;
                    check_initial(&global.init_expr)?;
                    let is_number =
                        matches!(global.ty.content_type, ValType::I32 | ValType::I64 | ValType::F32 | ValType::F64);
                    if global.ty.mutable && !is_number {
                        self.unkept.get_or_insert("have a mutable global that is a vector or a reference");
                    }
                }
            }
            Payload::ExportSection(section) => {
                bound("number of exports", section.count().into(), limits::MODULE_EXPORTS_MAX.into())?;
                for export in section {
                    self.export(&export?)?;
                }
            }
            Payload::ElementSection(section) => {
                bound("number of element segments", section.count().into(), limits::MODULE_SEGMENTS_MAX.into())?;
                for segment in section {
                    self.elements(segment?)?;
                }
            }
            Payload::DataSection(section) => {
                bound("number of data segments", section.count().into(), limits::MODULE_SEGMENTS_MAX.into())?;
                for segment in section {
                    if let DataKind::Active { offset_expr, .. } = &segment?.kind {
                        check_initial(offset_expr)?;
                    }
                }
            }
            Payload::CodeSectionStart { size, .. } => {
                bound("length of all functions in bytes", size.into(), limits::MODULE_CODE_BYTES_MAX.into())?;
            }
            Payload::CodeSectionEntry(body) => {
                let (work, unkept) = check_body(&body)?;
                self.unkept = self.unkept.or(unkept);
                self.work = self.work.saturating_add(work);
                bound("work of compiling in units", self.work, limits::MODULE_WORK_MAX)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn elements(&mut self, segment: wasmparser::Element<'_>) -> Result<(), Refusal> {
        if let ElementKind::Active { offset_expr, .. } = &segment.kind {
            check_initial(offset_expr)?;
        }
        let count = match segment.items {
            ElementItems::Functions(items) => items.count(),
            ElementItems::Expressions(_, items) => {
                let count = items.count();
                for item in items {
                    check_initial(&item?)?;
                }
                count
            }
        };
        self.elements += u64::from(count);
        bound("elements of all segments", self.elements, limits::MODULE_ELEMENTS_MAX.into())
    }

    fn import(&mut self, import: &wasmparser::Import<'_>) -> Result<(), Refusal> {
        let (module, name) = (shown(import.module), shown(import.name));
        let TypeRef::Func(index) = import.ty else { return Err(Refusal::ImportKind { module, name }) };
        let Some(expected) = imports::signature(import.module, import.name) else {
            return Err(Refusal::ImportUnknown { module, name });
        };
        let found = self.function_type(index).map_or_else(|| "unknown".to_owned(), signature);
        if found != expected {
            return Err(Refusal::ImportType { module, name, found, expected: expected.to_owned() });
        }
        self.function_types.push(index);
        Ok(())
    }

    fn export(&mut self, export: &wasmparser::Export<'_>) -> Result<(), Refusal> {
        let wrong =
            |expected: &str| Err(Refusal::ExportType { name: shown(export.name), expected: expected.to_owned() });
        match (export.name, export.kind) {
            ("_start", ExternalKind::Func) => self.start = Some(export.index),
            ("_start", _) => return wrong("a function without parameters and results"),
            (STEP, ExternalKind::Func) => self.step = Some(export.index),
            (STEP, _) => return wrong(STEP_TYPE),
            ("memory", ExternalKind::Memory) => self.memory_exported = true,
            ("memory", _) => return wrong("the module's memory"),
            _ => {}
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<MemoryType, Refusal> {
        let refused = |rule: &str| Err(Refusal::Memory { rule: rule.to_owned() });
        let missing = || Refusal::ExportMissing { name: "memory".to_owned() };
        let memory = self.memories.first().copied().ok_or_else(missing)?;
        match memory {
            MemoryType { memory64: true, .. } => return refused("64-bit addresses are not allowed"),
            MemoryType { shared: true, .. } => return refused("shared memory is not allowed, there are no threads"),
            MemoryType { page_size_log2: Some(_), .. } => return refused("custom page sizes are not allowed"),
            _ => {}
        }
        bound("initial memory in bytes", memory.initial.saturating_mul(PAGE_BYTES), limits::MEMORY_BYTES_MAX)?;
        if self.memory_exported { Ok(memory) } else { Err(missing()) }
    }

    fn check_start(&self) -> Result<(), Refusal> {
        let name = || "_start".to_owned();
        let Some(start) = self.start else { return Err(Refusal::ExportMissing { name: name() }) };
        let index = usize::try_from(start).ok().and_then(|start| self.function_types.get(start));
        match index.and_then(|index| self.function_type(*index)) {
            Some(ty) if ty.params().is_empty() && ty.results().is_empty() => Ok(()),
            _ => Err(Refusal::ExportType {
                name: name(),
                expected: "a function without parameters and results".to_owned(),
            }),
        }
    }

    /// A module with steps keeps everything where it can be found between them.
    fn check_step(&self) -> Result<(), Refusal> {
        let Some(step) = self.step else { return Ok(()) };
        let index = usize::try_from(step).ok().and_then(|step| self.function_types.get(step));
        match index.and_then(|index| self.function_type(*index)) {
            Some(ty) if ty.params().is_empty() && ty.results() == [ValType::I32] => {}
            _ => return Err(Refusal::ExportType { name: STEP.to_owned(), expected: STEP_TYPE.to_owned() }),
        }
        match self.unkept {
            Some(what) => Err(Refusal::Step { what: what.to_owned() }),
            None => Ok(()),
        }
    }

    fn function_type(&self, index: u32) -> Option<&FuncType> {
        self.types.get(usize::try_from(index).ok()?)?.as_ref()
    }
}

/// Initial values are computed by an interpreter that neither fuel nor deadline stops.
fn check_initial(initial: &ConstExpr<'_>) -> Result<(), Refusal> {
    let bytes = initial.get_binary_reader().bytes_remaining() as u64;
    bound("length of an initial value in bytes", bytes, limits::MODULE_INITIAL_BYTES_MAX.into())
}

/// Bounds one function; gives the work of compiling it, and what it does that a module with steps must not.
fn check_body(body: &wasmparser::FunctionBody<'_>) -> Result<(u64, Option<&'static str>), Refusal> {
    let range = body.range();
    let length = (range.end as u64).saturating_sub(range.start as u64);
    bound("length of a function in bytes", length, limits::MODULE_FUNCTION_BYTES_MAX.into())?;
    let mut locals = 0u64;
    for group in body.get_locals_reader()? {
        locals = locals.saturating_add(group?.0.into());
    }
    bound("locals of a function", locals, limits::MODULE_FUNCTION_LOCALS_MAX.into())?;
    let (mut branches, mut depths, mut loops, mut all_loops) = (0u64, 0u64, 0u64, 0u64);
    let (mut open, mut unkept) = (Vec::new(), None);
    for operator in body.get_operators_reader()? {
        let operator = operator?;
        unkept = unkept.or_else(|| changes(&operator));
        match operator {
            Operator::Block { .. } | Operator::If { .. } => {
                branches += 1;
                open.push(0);
            }
            Operator::Loop { .. } => {
                branches += 1;
                open.push(1);
                (loops, all_loops) = (loops + 1, all_loops + 1);
                depths += loops;
            }
            Operator::End => loops -= open.pop().unwrap_or(0),
            Operator::BrIf { .. } => branches += 1,
            Operator::BrTable { targets } => branches += 1 + u64::from(targets.len()) / 16,
            _ => {}
        }
    }
    Ok((compile_work(length, branches, depths, all_loops * locals), unkept))
}

/// What an operator changes beside memory and globals.
fn changes(operator: &Operator<'_>) -> Option<&'static str> {
    match operator {
        Operator::TableSet { .. }
        | Operator::TableGrow { .. }
        | Operator::TableFill { .. }
        | Operator::TableCopy { .. }
        | Operator::TableInit { .. } => Some("change a table"),
        Operator::ElemDrop { .. } | Operator::DataDrop { .. } => Some("drop a segment"),
        _ => None,
    }
}

/// About the microseconds that a compiler takes for a function, as measured with the optimizing one: it has a fixed share,
/// grows with the length, with the square of the branches, among which a register allocator searches, and with how deep
/// its loops are nested. A local in a loop is a value that the loop hands to itself.
fn compile_work(length: u64, branches: u64, loop_depths: u64, looped_locals: u64) -> u64 {
    const FUNCTION: u64 = 130;
    const BRANCH: u64 = 18;
    const BRANCH_PAIRS: u64 = 350;
    const LOOP_DEPTH: u64 = 5;
    const LOOPED_LOCALS: u64 = 16;
    let branches = BRANCH * branches + branches.saturating_mul(branches) / BRANCH_PAIRS;
    FUNCTION + length + branches + LOOP_DEPTH * loop_depths + looped_locals / LOOPED_LOCALS
}

/// The type in the notation of [`imports`]; a type that no import has gets a letter that no import has.
fn signature(ty: &FuncType) -> String {
    let letter = |ty: &ValType| match ty {
        ValType::I32 => 'i',
        ValType::I64 => 'I',
        ValType::F32 => 'f',
        ValType::F64 => 'F',
        _ => '?',
    };
    ty.params().iter().map(letter).chain(['>']).chain(ty.results().iter().map(letter)).collect()
}

/// A name from a hostile module, for one line of a message.
fn shown(name: &str) -> String {
    name.chars().take(80).flat_map(char::escape_default).collect()
}
