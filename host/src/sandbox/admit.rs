//! Rewrites a module as it is admitted, so that what must be the same everywhere is in the module itself and not in the
//! compiler's switches.
//!
//! ```text
//! checked module ─facts► call graph ─rewrite each function► module that meters itself
//! ```
//! - [`meter`]: fuel is a global that functions keep in a local while they loop, see there where they pay.
//! - [`stack`]: recursion takes from a second global; when that is spent, the task traps.
//! - [`nan`]: in the portable profile, the bits of a NaN are made canonical where they can be seen.
//! - [`function`]: writes one function with all three.
//!
//! What a guest can see does not change, but for the end that metering brings. A rewritten module exports its entry, its
//! memory and what is below under names of ours, and nothing else; its own names and custom sections are gone. One with steps
//! exports `step` and its mutable globals as well, for [`super::steps`].
//!
//! **Fuel comes in slices.** The global holds at most [`limits::FUEL_SLICE`], the rest is with the host. When a check finds
//! the global spent, it calls [`REFUEL`], which gives the next slice, or ends the task. That call is also where deadlines and
//! cancellations are noticed, so compiled code has no other interruption in it.
//!
//! The same bytes and profile give the same bytes on every machine; [`VERSION`] changes when they would not, and is part
//! of the engine's fingerprint.

mod function;
mod meter;
mod nan;
mod stack;

use guest_sdk::abi;
use registry::job::Profile;
use wasm_encoder::{
    BranchHints, CodeSection, ConstExpr, DataCountSection, DataSection, ElementSection, EntityType, ExportKind,
    ExportSection, FunctionSection, GlobalSection, GlobalType, ImportSection, MemorySection, Module, TableSection,
    TypeSection, reencode::Reencode,
};
use wasmparser::{
    CompositeInnerType, ElementItems, ExternalKind, FuncToValidate, FuncType, FuncValidatorAllocations, FunctionBody,
    Operator, Parser, Payload, TypeRef, Validator, ValidatorResources,
};

use self::stack::Facts;
use super::preflight::FEATURES;
use crate::limits;

/// Version of the rewriting: prices, places of checks, stack estimates, canonicalisation.
pub(super) const VERSION: u32 = 2;
/// Module of what a rewritten module imports.
pub(super) const MODULE: &str = "quorate";
/// `(debt: i64)`: the slice is spent; debt is what was charged for operators that are still to come.
pub(super) const REFUEL: &str = "refuel";
/// `()`: the counted stack is spent.
pub(super) const OVERFLOW: &str = "overflow";
/// The exported global with what is left of the slice.
pub(super) const FUEL: &str = "fuel";
/// The exported start function, where the module has one: to be called before the entry.
pub(super) const START: &str = "start";

/// The exported function that is called again and again, where the module has steps.
pub(super) const STEP: &str = abi::STEP;

/// What the guest's mutable global of this number is exported as, where the module has steps.
pub(super) fn global_name(number: usize) -> String {
    format!("global{number}")
}

/// Functions that are imported for the host's own use, after the guest's.
const OWN_IMPORTS: u32 = 2;

/// Why a checked module cannot be rewritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AdmitError {
    /// It does not parse or validate after all.
    #[error("{0}")]
    Invalid(String),
}

impl From<wasmparser::BinaryReaderError> for AdmitError {
    fn from(error: wasmparser::BinaryReaderError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<wasm_encoder::reencode::Error> for AdmitError {
    fn from(error: wasm_encoder::reencode::Error) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Rewrites a module that passed preflight.
///
/// # Errors
/// When it is not valid after all.
pub(super) fn admit(bytes: &[u8], profile: Profile) -> Result<Vec<u8>, AdmitError> {
    let mut parts = Parts::default();
    let mut validator = Validator::new_with_features(FEATURES);
    let mut bodies = Vec::new();
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload?;
        if let wasmparser::ValidPayload::Func(function, body) = validator.payload(&payload)? {
            bodies.push((function, body));
        } else {
            parts.payload(payload)?;
        }
    }
    let facts = facts(&mut parts, &bodies)?;
    let frames = stack::counted(&facts, &parts.type_numbers, &parts.reachable());
    drop(facts);
    let mut code = CodeSection::new();
    let mut hints = BranchHints::new();
    let first = parts.imported + OWN_IMPORTS;
    let mut context = function::Context::new(&parts, profile);
    for (((validator, body), frame), index) in bodies.into_iter().zip(frames).zip(first..) {
        let written = function::rewrite(&mut context, validator, &body, frame)?;
        if !written.unlikely.is_empty() {
            hints.function_hints(index, written.unlikely.iter().copied());
        }
        code.raw(&written.bytes);
    }
    let added = context.added_types();
    Ok(parts.assemble(added, &hints, &code))
}

/// What each function calls and how much stack it takes.
fn facts(
    parts: &mut Parts,
    bodies: &[(FuncToValidate<ValidatorResources>, FunctionBody<'_>)],
) -> Result<Vec<Facts>, AdmitError> {
    let mut all = Vec::with_capacity(bodies.len());
    let mut allocations = FuncValidatorAllocations::default();
    for (validator, body) in bodies {
        let mut validator = again(validator).into_validator(allocations);
        let mut reader = body.get_binary_reader();
        validator.read_locals(&mut reader)?;
        let mut operators = wasmparser::OperatorsReader::new(reader);
        let (mut facts, mut height_max) = (Facts::default(), 0);
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            validator.op(offset, &operator)?;
            height_max = height_max.max(validator.operand_stack_height());
            match operator {
                Operator::Call { function_index } if function_index >= parts.imported => {
                    facts.calls.push(function_index - parts.imported);
                }
                Operator::CallIndirect { type_index, .. } => {
                    facts.indirect.extend(parts.type_number(type_index));
                }
                Operator::RefFunc { function_index } => parts.referenced.push(function_index),
                _ => {}
            }
        }
        facts.calls.sort_unstable();
        facts.calls.dedup();
        facts.indirect.sort_unstable();
        facts.indirect.dedup();
        let slots = u64::from(validator.len_locals()) + u64::from(height_max);
        facts.frame_bytes = stack::frame_bytes(slots, body.range().len() as u64);
        allocations = validator.into_allocations();
        all.push(facts);
    }
    Ok(all)
}

/// The same function, to be validated once more.
fn again(function: &FuncToValidate<ValidatorResources>) -> FuncToValidate<ValidatorResources> {
    let FuncToValidate { resources, index, ty, features } = function;
    FuncToValidate { resources: resources.clone(), index: *index, ty: *ty, features: *features }
}

/// Everything of a module but its code, on the way from the old to the new one.
#[derive(Default)]
struct Parts {
    /// Function types; `None` for types of other kinds, which preflight lets no module have.
    types: Vec<Option<FuncType>>,
    type_numbers: stack::Types,
    /// Functions that are imported by the guest.
    imported: u32,
    /// Type of each function, imported ones first.
    function_types: Vec<u32>,
    /// Functions that a table or a reference can hold.
    referenced: Vec<u32>,
    globals_count: u32,
    /// Those that can change.
    mutable_globals: Vec<u32>,
    entry: Option<u32>,
    start: Option<u32>,
    step: Option<u32>,
    type_section: TypeSection,
    imports: ImportSection,
    functions: FunctionSection,
    tables: TableSection,
    memories: MemorySection,
    globals: GlobalSection,
    elements: ElementSection,
    data_count: Option<u32>,
    data: DataSection,
}

/// Moves the indices of functions that the module defines.
struct Shift {
    imported: u32,
}

impl Reencode for Shift {
    type Error = std::convert::Infallible;

    fn function_index(&mut self, function: u32) -> Result<u32, wasm_encoder::reencode::Error<Self::Error>> {
        Ok(shifted(function, self.imported))
    }
}

/// The new index of a function.
fn shifted(function: u32, imported: u32) -> u32 {
    if function < imported { function } else { function + OWN_IMPORTS }
}

impl Parts {
    fn payload(&mut self, payload: Payload<'_>) -> Result<(), AdmitError> {
        let mut shift = Shift { imported: self.imported };
        match payload {
            Payload::TypeSection(section) => {
                for group in section.clone() {
                    for sub in group?.into_types() {
                        self.types.push(match sub.composite_type.inner {
                            CompositeInnerType::Func(func) => Some(func),
                            _ => None,
                        });
                    }
                }
                shift.parse_type_section(&mut self.type_section, section)?;
            }
            Payload::ImportSection(section) => {
                for import in section.clone().into_imports() {
                    if let TypeRef::Func(ty) = import?.ty {
                        self.function_types.push(ty);
                        self.imported += 1;
                    }
                }
                shift.parse_import_section(&mut self.imports, section)?;
            }
            Payload::FunctionSection(section) => {
                for ty in section.clone() {
                    self.function_types.push(ty?);
                }
                shift.parse_function_section(&mut self.functions, section)?;
            }
            Payload::TableSection(section) => {
                for table in section.clone() {
                    if let wasmparser::TableInit::Expr(initial) = table?.init {
                        self.reference(initial)?;
                    }
                }
                shift.parse_table_section(&mut self.tables, section)?;
            }
            Payload::MemorySection(section) => shift.parse_memory_section(&mut self.memories, section)?,
            Payload::GlobalSection(section) => {
                self.globals_count = section.count();
                for (index, global) in (0..).zip(section.clone()) {
                    let global = global?;
                    if global.ty.mutable {
                        self.mutable_globals.push(index);
                    }
                    self.reference(global.init_expr)?;
                }
                shift.parse_global_section(&mut self.globals, section)?;
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    match (export.kind, export.name) {
                        (ExternalKind::Func, "_start") => self.entry = Some(export.index),
                        (ExternalKind::Func, STEP) => self.step = Some(export.index),
                        _ => {}
                    }
                }
            }
            Payload::StartSection { func, .. } => self.start = Some(func),
            Payload::ElementSection(section) => {
                for element in section.clone() {
                    match element?.items {
                        ElementItems::Functions(items) => {
                            for item in items {
                                self.referenced.push(item?);
                            }
                        }
                        ElementItems::Expressions(_, items) => {
                            for item in items {
                                self.reference(item?)?;
                            }
                        }
                    }
                }
                shift.parse_element_section(&mut self.elements, section)?;
            }
            Payload::DataCountSection { count, .. } => self.data_count = Some(count),
            Payload::DataSection(section) => shift.parse_data_section(&mut self.data, section)?,
            _ => {}
        }
        Ok(())
    }

    /// Notes the functions that an initial value refers to.
    fn reference(&mut self, initial: wasmparser::ConstExpr<'_>) -> Result<(), AdmitError> {
        for operator in initial.get_operators_reader() {
            if let Operator::RefFunc { function_index } = operator? {
                self.referenced.push(function_index);
            }
        }
        Ok(())
    }

    fn type_at(&self, index: u32) -> Option<&FuncType> {
        self.types.get(index as usize)?.as_ref()
    }

    fn type_number(&mut self, index: u32) -> Option<u32> {
        let ty = self.types.get(index as usize)?.as_ref()?;
        Some(self.type_numbers.number(ty))
    }

    /// Functions of the module that a table or a reference can hold, with the numbers of their types.
    fn reachable(&self) -> Vec<(u32, u32)> {
        let mut referenced = self.referenced.clone();
        referenced.sort_unstable();
        referenced.dedup();
        let number = |function: u32| {
            let ty = self.type_at(*self.function_types.get(function as usize)?)?;
            // A type that nothing calls through a table has no number.
            Some((function.checked_sub(self.imported)?, self.type_numbers.get(ty)?))
        };
        referenced.into_iter().filter_map(number).collect()
    }

    fn assemble(mut self, added: Vec<FuncType>, hints: &BranchHints, code: &CodeSection) -> Vec<u8> {
        let first_type = self.types.len() as u32 + added.len() as u32;
        for ty in added {
            // Types of functions translate without fail.
            let encode = |values: &[wasmparser::ValType]| -> Vec<wasm_encoder::ValType> {
                values.iter().filter_map(|value| Shift { imported: 0 }.val_type(*value).ok()).collect()
            };
            self.type_section.ty().function(encode(ty.params()), encode(ty.results()));
        }
        self.type_section.ty().function([wasm_encoder::ValType::I64], []);
        self.type_section.ty().function([], []);
        self.imports.import(MODULE, REFUEL, EntityType::Function(first_type));
        self.imports.import(MODULE, OVERFLOW, EntityType::Function(first_type + 1));
        let global = |val_type| GlobalType { val_type, mutable: true, shared: false };
        self.globals.global(global(wasm_encoder::ValType::I64), &ConstExpr::i64_const(0));
        let stack = i32::try_from(limits::STACK_BYTES_MAX).unwrap_or(i32::MAX);
        self.globals.global(global(wasm_encoder::ValType::I32), &ConstExpr::i32_const(stack));
        let mut exports = ExportSection::new();
        exports.export("memory", ExportKind::Memory, 0).export(FUEL, ExportKind::Global, self.globals_count);
        for (name, function) in [("_start", self.entry), (START, self.start), (STEP, self.step)] {
            if let Some(function) = function {
                exports.export(name, ExportKind::Func, shifted(function, self.imported));
            }
        }
        if self.step.is_some() {
            for (number, global) in self.mutable_globals.iter().enumerate() {
                exports.export(&global_name(number), ExportKind::Global, *global);
            }
        }
        let mut module = Module::new();
        module.section(&self.type_section).section(&self.imports).section(&self.functions);
        if !self.tables.is_empty() {
            module.section(&self.tables);
        }
        module.section(&self.memories).section(&self.globals).section(&exports);
        if !self.elements.is_empty() {
            module.section(&self.elements);
        }
        if let Some(count) = self.data_count {
            module.section(&DataCountSection { count });
        }
        module.section(hints).section(code);
        if !self.data.is_empty() {
            module.section(&self.data);
        }
        module.finish()
    }
}
