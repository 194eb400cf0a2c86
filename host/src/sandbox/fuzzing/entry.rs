//! Makes a command of a generated module, one that shows what it computed.
//!
//! The entry calls the module's functions with arguments of the fuzzer's choice, and writes what they return into memory, and
//! last what the globals hold. Without it hardly anything that a generated module computes could be seen from outside.

use arbitrary::Unstructured;
use wasm_encoder::{
    AbstractHeapType, CodeSection, ExportKind, ExportSection, Function, FunctionSection, InstructionSink,
    MemorySection, MemoryType, TypeSection, ValType as Encoded,
    reencode::{self, Reencode},
};
use wasmparser::{CompositeInnerType, FuncType, Parser, Payload, TypeRef, ValType};

/// Calls that an entry makes.
const CALLS_MAX: usize = 8;
/// Bytes that each value is given in memory.
const CELL_BYTES: i32 = 16;
/// Memory in pages that a module may say it grows to.
const PAGES_MAX: u64 = 4;

/// Why there is no entry.
#[derive(Debug, thiserror::Error)]
pub(super) enum EntryError {
    #[error(transparent)]
    Arbitrary(#[from] arbitrary::Error),
    #[error("module cannot be rewritten: {0}")]
    Reencode(#[from] reencode::Error),
    #[error("module does not parse: {0}")]
    Parse(#[from] wasmparser::BinaryReaderError),
}

/// Adds an entry. The module has sections for types, functions, memories and exports.
pub(super) fn add(wasm: &[u8], u: &mut Unstructured<'_>) -> Result<Vec<u8>, EntryError> {
    let facts = Facts::of(wasm)?;
    let mut entry = Entry { body: body(&facts, u)?, types: facts.types.len() as u32, index: facts.all() };
    let mut module = wasm_encoder::Module::new();
    entry.parse_core_module(&mut module, Parser::new(0), wasm)?;
    Ok(module.finish())
}

/// What there is to call and to look at.
#[derive(Default)]
struct Facts {
    types: Vec<FuncType>,
    imported: u32,
    /// Types of the module's own functions.
    functions: Vec<u32>,
    globals: Vec<ValType>,
    tables: u32,
}

impl Facts {
    fn of(wasm: &[u8]) -> Result<Self, wasmparser::BinaryReaderError> {
        let mut facts = Self::default();
        for payload in Parser::new(0).parse_all(wasm) {
            match payload? {
                Payload::TypeSection(section) => {
                    for group in section {
                        for sub in group?.into_types() {
                            if let CompositeInnerType::Func(func) = sub.composite_type.inner {
                                facts.types.push(func);
                            }
                        }
                    }
                }
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        facts.imported += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                    }
                }
                Payload::FunctionSection(section) => {
                    facts.functions = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::TableSection(section) => facts.tables = section.count(),
                Payload::GlobalSection(section) => {
                    for global in section {
                        facts.globals.push(global?.ty.content_type);
                    }
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    /// Functions, imported ones among them: the index of the next.
    fn all(&self) -> u32 {
        self.imported + self.functions.len() as u32
    }
}

/// One local for each kind of value that is stored.
const LOCALS: [(u32, Encoded); 5] =
    [(1, Encoded::I32), (1, Encoded::I64), (1, Encoded::F32), (1, Encoded::F64), (1, Encoded::V128)];

fn body(facts: &Facts, u: &mut Unstructured<'_>) -> arbitrary::Result<Function> {
    let mut function = Function::new(LOCALS);
    let mut sink = function.instructions();
    let mut at = 0;
    let calls = facts.functions.len().clamp(1, CALLS_MAX);
    for call in 0..calls {
        let Some(own) = call.checked_rem(facts.functions.len()) else { break };
        let Some(ty) = facts.functions.get(own).and_then(|ty| facts.types.get(*ty as usize)) else { break };
        for param in ty.params() {
            argument(&mut sink, *param, u)?;
        }
        sink.call(facts.imported + own as u32);
        for result in ty.results().iter().rev() {
            store(&mut sink, *result, &mut at);
        }
    }
    for (index, global) in (0u32..).zip(&facts.globals) {
        sink.global_get(index);
        store(&mut sink, *global, &mut at);
    }
    for table in 0..facts.tables {
        sink.table_size(table);
        store(&mut sink, ValType::I32, &mut at);
    }
    sink.end();
    Ok(function)
}

/// Stores the value on top of the operands: of a reference, whether it is null.
fn store(sink: &mut InstructionSink<'_>, ty: ValType, at: &mut i32) {
    let arg = wasm_encoder::MemArg { offset: 0, align: 0, memory_index: 0 };
    let local = match ty {
        ValType::I32 => 0,
        ValType::I64 => 1,
        ValType::F32 => 2,
        ValType::F64 => 3,
        ValType::V128 => 4,
        ValType::Ref(_) => {
            sink.ref_is_null();
            0
        }
    };
    sink.local_set(local).i32_const(*at).local_get(local);
    match ty {
        ValType::I64 => sink.i64_store(arg),
        ValType::F32 => sink.f32_store(arg),
        ValType::F64 => sink.f64_store(arg),
        ValType::V128 => sink.v128_store(arg),
        ValType::I32 | ValType::Ref(_) => sink.i32_store(arg),
    };
    *at += CELL_BYTES;
}

/// Floats whose bits are worth following: zeros, infinities, canonical NaNs, NaNs with a payload, signalling ones.
const SINGLES: [u32; 8] =
    [0, 0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0xffc0_0001, 0x7fa0_1234, 0x3fc0_0000];
const DOUBLES: [u64; 8] = [
    0,
    0x8000_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_0001,
    0x7ff4_0000_1234_5678,
    0x3ff8_0000_0000_0000,
];

fn argument(sink: &mut InstructionSink<'_>, ty: ValType, u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let single = |u: &mut Unstructured<'_>| if u.arbitrary()? { u.choose(&SINGLES).copied() } else { u.arbitrary() };
    let double = |u: &mut Unstructured<'_>| if u.arbitrary()? { u.choose(&DOUBLES).copied() } else { u.arbitrary() };
    match ty {
        ValType::I32 => sink.i32_const(u.arbitrary()?),
        ValType::I64 => sink.i64_const(u.arbitrary()?),
        ValType::F32 => sink.f32_const(f32::from_bits(single(u)?).into()),
        ValType::F64 => sink.f64_const(f64::from_bits(double(u)?).into()),
        ValType::V128 => {
            let lanes = u128::from(double(u)?) << 64 | u128::from(single(u)?) << 32 | u128::from(single(u)?);
            sink.v128_const(lanes.cast_signed())
        }
        ValType::Ref(_) => sink.ref_null(wasm_encoder::HeapType::FUNC),
    };
    Ok(())
}

/// Puts the entry into each section.
struct Entry {
    body: Function,
    /// Types of the module: the index of the entry's.
    types: u32,
    index: u32,
}

impl Reencode for Entry {
    type Error = std::convert::Infallible;

    /// The generator knows references to the host's objects, which do not exist here. Taking all for references to functions
    /// keeps a module valid: nothing but null can be in them.
    fn abstract_heap_type(&mut self, ty: wasmparser::AbstractHeapType) -> Result<AbstractHeapType, reencode::Error> {
        Ok(match ty {
            wasmparser::AbstractHeapType::Extern => AbstractHeapType::Func,
            ty => ty.into(),
        })
    }

    fn parse_type_section(
        &mut self,
        types: &mut TypeSection,
        section: wasmparser::TypeSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        reencode::utils::parse_type_section(self, types, section)?;
        types.ty().function([], []);
        Ok(())
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: wasmparser::FunctionSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        reencode::utils::parse_function_section(self, functions, section)?;
        functions.function(self.types);
        Ok(())
    }

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        _: wasmparser::MemorySectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        memories.memory(MemoryType {
            minimum: 1,
            maximum: Some(PAGES_MAX),
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        Ok(())
    }

    fn parse_export_section(
        &mut self,
        exports: &mut ExportSection,
        _: wasmparser::ExportSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        exports.export("memory", ExportKind::Memory, 0).export("_start", ExportKind::Func, self.index);
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: wasmparser::CodeSectionReader<'_>,
    ) -> Result<(), reencode::Error> {
        reencode::utils::parse_code_section(self, code, section)?;
        code.function(&self.body);
        Ok(())
    }
}
