//! The portable profile: which values are made canonical, and where.
//!
//! Arithmetic on floats may give a NaN whose bits differ between processors. Those bits show only where a value stops being
//! a float among floats: stored, reinterpreted, given to another function, its sign copied, its lanes read as integers.
//! Making every result canonical costs most where it is never seen, in chains of arithmetic and in what a loop
//! accumulates. So a result of arithmetic may stay *raw* as long as every use of it is arithmetic or comparison, or a local
//! of its own kind, and the first other use makes it canonical, once, right behind the operator that it comes from.
//!
//! A local is raw when all that is ever put into it is raw, or a constant without NaN. A value that was loaded is not raw: its
//! bits are the same everywhere, and WebAssembly promises that copying keeps them.
//!
//! What can be seen equals what canonicalisation at each operator gives, bit for bit.

use wasm_encoder::{InstructionSink, ValType};
use wasmparser::{
    FuncToValidate, FuncValidator, FuncValidatorAllocations, FunctionBody, Operator, OperatorsReader,
    ValidatorResources,
};

use super::AdmitError;

/// A value to be made canonical, by its type and lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Canon {
    F32,
    F64,
    F32x4,
    F64x2,
}

const NAN32: u32 = 0x7fc0_0000;
const NAN64: u64 = 0x7ff8_0000_0000_0000;

impl Canon {
    pub(super) fn val_type(self) -> ValType {
        match self {
            Self::F32 => ValType::F32,
            Self::F64 => ValType::F64,
            Self::F32x4 | Self::F64x2 => ValType::V128,
        }
    }

    /// Makes the value on top of the operands canonical.
    pub(super) fn write(self, sink: &mut InstructionSink<'_>, local: u32) {
        let lanes32 = u128::from(NAN32) * 0x1_0000_0001_0000_0001_0000_0001;
        let lanes64 = u128::from(NAN64) * 0x1_0000_0000_0000_0001;
        sink.local_tee(local);
        match self {
            Self::F32 => {
                sink.f32_const(f32::from_bits(NAN32).into()).local_get(local).local_get(local).f32_eq().select()
            }
            Self::F64 => {
                sink.f64_const(f64::from_bits(NAN64).into()).local_get(local).local_get(local).f64_eq().select()
            }
            Self::F32x4 => {
                sink.v128_const(lanes32.cast_signed()).local_get(local).local_get(local).f32x4_eq().v128_bitselect()
            }
            Self::F64x2 => {
                sink.v128_const(lanes64.cast_signed()).local_get(local).local_get(local).f64x2_eq().v128_bitselect()
            }
        };
    }
}

/// What an operator does with floats.
enum Role {
    /// Takes operands of one kind in any bits, gives a raw result of that or another kind.
    Arithmetic {
        takes: Canon,
        gives: Canon,
    },
    /// Takes operands of one kind in any bits, gives no float.
    Compares(Canon),
    /// Anything in, nothing out.
    Drops,
    Get(u32),
    Set(u32),
    Tee(u32),
    /// A constant in which no lane of either width is a NaN.
    Number,
    /// Everything else may look at bits.
    Looks,
}

fn role(operator: &Operator<'_>) -> Role {
    use Canon::{F32, F32x4, F64, F64x2};
    use Operator as O;
    let arithmetic = |kind| Role::Arithmetic { takes: kind, gives: kind };
    match operator {
        O::F32Add
        | O::F32Sub
        | O::F32Mul
        | O::F32Div
        | O::F32Min
        | O::F32Max
        | O::F32Sqrt
        | O::F32Ceil
        | O::F32Floor
        | O::F32Trunc
        | O::F32Nearest => arithmetic(F32),
        O::F64Add
        | O::F64Sub
        | O::F64Mul
        | O::F64Div
        | O::F64Min
        | O::F64Max
        | O::F64Sqrt
        | O::F64Ceil
        | O::F64Floor
        | O::F64Trunc
        | O::F64Nearest => arithmetic(F64),
        O::F32x4Add
        | O::F32x4Sub
        | O::F32x4Mul
        | O::F32x4Div
        | O::F32x4Min
        | O::F32x4Max
        | O::F32x4Sqrt
        | O::F32x4Ceil
        | O::F32x4Floor
        | O::F32x4Trunc
        | O::F32x4Nearest => arithmetic(F32x4),
        O::F64x2Add
        | O::F64x2Sub
        | O::F64x2Mul
        | O::F64x2Div
        | O::F64x2Min
        | O::F64x2Max
        | O::F64x2Sqrt
        | O::F64x2Ceil
        | O::F64x2Floor
        | O::F64x2Trunc
        | O::F64x2Nearest => arithmetic(F64x2),
        O::F32DemoteF64 => Role::Arithmetic { takes: F64, gives: F32 },
        O::F64PromoteF32 => Role::Arithmetic { takes: F32, gives: F64 },
        O::F32x4DemoteF64x2Zero => Role::Arithmetic { takes: F64x2, gives: F32x4 },
        O::F64x2PromoteLowF32x4 => Role::Arithmetic { takes: F32x4, gives: F64x2 },
        O::F32Eq
        | O::F32Ne
        | O::F32Lt
        | O::F32Gt
        | O::F32Le
        | O::F32Ge
        | O::I32TruncF32S
        | O::I32TruncF32U
        | O::I64TruncF32S
        | O::I64TruncF32U
        | O::I32TruncSatF32S
        | O::I32TruncSatF32U
        | O::I64TruncSatF32S
        | O::I64TruncSatF32U => Role::Compares(F32),
        O::F64Eq
        | O::F64Ne
        | O::F64Lt
        | O::F64Gt
        | O::F64Le
        | O::F64Ge
        | O::I32TruncF64S
        | O::I32TruncF64U
        | O::I64TruncF64S
        | O::I64TruncF64U
        | O::I32TruncSatF64S
        | O::I32TruncSatF64U
        | O::I64TruncSatF64S
        | O::I64TruncSatF64U => Role::Compares(F64),
        O::F32x4Eq
        | O::F32x4Ne
        | O::F32x4Lt
        | O::F32x4Gt
        | O::F32x4Le
        | O::F32x4Ge
        | O::I32x4TruncSatF32x4S
        | O::I32x4TruncSatF32x4U => Role::Compares(F32x4),
        O::F64x2Eq
        | O::F64x2Ne
        | O::F64x2Lt
        | O::F64x2Gt
        | O::F64x2Le
        | O::F64x2Ge
        | O::I32x4TruncSatF64x2SZero
        | O::I32x4TruncSatF64x2UZero => Role::Compares(F64x2),
        O::Drop => Role::Drops,
        O::LocalGet { local_index } => Role::Get(*local_index),
        O::LocalSet { local_index } => Role::Set(*local_index),
        O::LocalTee { local_index } => Role::Tee(*local_index),
        O::F32Const { value } if !f32::from_bits(value.bits()).is_nan() => Role::Number,
        O::F64Const { value } if !f64::from_bits(value.bits()).is_nan() => Role::Number,
        O::V128Const { value } if !has_nan(value.i128().cast_unsigned()) => Role::Number,
        _ => Role::Looks,
    }
}

fn has_nan(lanes: u128) -> bool {
    let bytes = lanes.to_le_bytes();
    let (singles, _) = bytes.as_chunks::<4>();
    let (doubles, _) = bytes.as_chunks::<8>();
    singles.iter().any(|lane| f32::from_le_bytes(*lane).is_nan())
        || doubles.iter().any(|lane| f64::from_le_bytes(*lane).is_nan())
}

/// One operand on the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operand {
    /// The same bits everywhere.
    Exact,
    /// The same bits everywhere, and no NaN.
    Number,
    /// Raw, from the operator with this index.
    Raw(Canon, u32),
}

/// What is known of one local.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Local {
    /// Nothing but numbers was put into it so far.
    Untouched,
    Raw(Canon),
    Exact,
}

/// After which operators a value is made canonical.
///
/// # Errors
/// When the function is not valid.
pub(super) fn canons(
    function: FuncToValidate<ValidatorResources>,
    body: &FunctionBody<'_>,
    params: u32,
    allocations: FuncValidatorAllocations,
) -> Result<(Vec<Option<Canon>>, FuncValidatorAllocations), AdmitError> {
    let (arities, floats, allocations) = arities(function, body, allocations)?;
    if !floats {
        return Ok((Vec::new(), allocations));
    }
    let mut locals = vec![Local::Untouched; arities.locals as usize];
    locals.iter_mut().take(params as usize).for_each(|local| *local = Local::Exact);
    // Each round can only turn locals exact or give them a kind, so this ends.
    loop {
        let canons = vec![None; arities.operators.len()];
        let mut walk = Walk { locals: &locals, next: locals.clone(), canons, stack: Vec::new() };
        walk.function(&arities);
        let Walk { next, canons, .. } = walk;
        if next == locals {
            return Ok((canons, allocations));
        }
        locals = next;
    }
}

/// What a function does to its operands.
struct Arities<'a> {
    locals: u32,
    operators: Vec<Step<'a>>,
}

struct Step<'a> {
    operator: Operator<'a>,
    pops: u32,
    pushes: u32,
    /// Operands that belong to blocks around: code that is never reached may take more than there is, and leaves these.
    base: u32,
    /// Operands on the stack afterwards.
    height: u32,
}

/// Follows the function with the validator, which knows every operator; tells whether it does arithmetic on floats at all.
fn arities<'a>(
    function: FuncToValidate<ValidatorResources>,
    body: &FunctionBody<'a>,
    allocations: FuncValidatorAllocations,
) -> Result<(Arities<'a>, bool, FuncValidatorAllocations), AdmitError> {
    let mut validator: FuncValidator<ValidatorResources> = function.into_validator(allocations);
    let mut reader = body.get_binary_reader();
    validator.read_locals(&mut reader)?;
    let mut reader = OperatorsReader::new(reader);
    let (mut operators, mut floats) = (Vec::new(), false);
    while !reader.eof() {
        let (operator, offset) = reader.read_with_offset()?;
        let (pops, pushes) = operator.operator_arity(&validator).unwrap_or((0, 0));
        let base = validator.get_control_frame(0).map_or(0, |frame| frame.height as u32);
        validator.op(offset, &operator)?;
        floats |= matches!(role(&operator), Role::Arithmetic { .. });
        operators.push(Step { operator, pops, pushes, base, height: validator.operand_stack_height() });
    }
    let arities = Arities { locals: validator.len_locals(), operators };
    Ok((arities, floats, validator.into_allocations()))
}

/// One round over a function.
struct Walk<'a> {
    /// As the round before left them.
    locals: &'a [Local],
    /// With what this round saw.
    next: Vec<Local>,
    canons: Vec<Option<Canon>>,
    stack: Vec<Operand>,
}

impl Walk<'_> {
    fn function(&mut self, arities: &Arities<'_>) {
        for (at, step) in (0u32..).zip(&arities.operators) {
            let height = self.stack.len();
            let kept = height.saturating_sub(step.pops as usize).max(step.base as usize);
            let popped = self.stack.split_off(kept.min(height));
            let pushed = self.step(at, role(&step.operator), &popped);
            let below = step.height.saturating_sub(step.pushes) as usize;
            self.stack.resize(below, Operand::Exact);
            self.stack.resize(step.height as usize, pushed);
        }
    }

    /// What the operator does with what it takes; gives what it leaves.
    fn step(&mut self, at: u32, role: Role, popped: &[Operand]) -> Operand {
        match role {
            Role::Arithmetic { takes, gives } => {
                self.look_unless(takes, popped);
                Operand::Raw(gives, at)
            }
            Role::Compares(takes) => {
                self.look_unless(takes, popped);
                Operand::Exact
            }
            Role::Drops => Operand::Exact,
            Role::Number => Operand::Number,
            Role::Get(local) => match self.local(local) {
                Local::Untouched => Operand::Number,
                Local::Raw(kind) => Operand::Raw(kind, at),
                Local::Exact => Operand::Exact,
            },
            Role::Set(local) | Role::Tee(local) => {
                let Some(operand) = popped.last().copied() else { return Operand::Exact };
                match self.put(local, operand) {
                    // What a `local.tee` leaves on the stack is a copy, which is looked at for itself.
                    Operand::Raw(kind, _) => Operand::Raw(kind, at),
                    operand => operand,
                }
            }
            Role::Looks => {
                popped.iter().for_each(|operand| self.look(*operand));
                Operand::Exact
            }
        }
    }

    fn local(&self, local: u32) -> Local {
        self.locals.get(local as usize).copied().unwrap_or(Local::Exact)
    }

    /// Puts an operand into a local; gives what is left of it.
    fn put(&mut self, local: u32, operand: Operand) -> Operand {
        let (seen, left) = match (operand, self.local(local)) {
            (Operand::Number, _) => return operand,
            (Operand::Raw(kind, _), Local::Untouched) => (Local::Raw(kind), operand),
            (Operand::Raw(kind, _), Local::Raw(same)) if kind == same => (Local::Raw(kind), operand),
            (operand, _) => {
                self.look(operand);
                (Local::Exact, Operand::Exact)
            }
        };
        if let Some(next) = self.next.get_mut(local as usize) {
            *next = match (*next, seen) {
                (Local::Untouched, seen) => seen,
                (next, seen) if next == seen => next,
                _ => Local::Exact,
            };
        }
        left
    }

    fn look(&mut self, operand: Operand) {
        if let Operand::Raw(kind, from) = operand
            && let Some(canon) = self.canons.get_mut(from as usize)
        {
            *canon = Some(kind);
        }
    }

    fn look_unless(&mut self, takes: Canon, popped: &[Operand]) {
        for operand in popped {
            if !matches!(operand, Operand::Raw(kind, _) if *kind == takes) {
                self.look(*operand);
            }
        }
    }
}
