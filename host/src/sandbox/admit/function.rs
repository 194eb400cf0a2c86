//! Writes one function anew: its own operators as they were, with charges, checks and canonicalisation between them.
//!
//! The body becomes a block of the new one, so that every way out of it, by `return`, by a branch or over the end, meets the
//! same few operators that give back stack and store fuel. A function that loops keeps its fuel in a local; one that does not
//! changes the global, which is one instruction of memory each time.

use registry::job::Profile;
use wasm_encoder::{BlockType, BranchHint, Encode, InstructionSink, ValType};
use wasmparser::{FuncToValidate, FuncType, FuncValidatorAllocations, FunctionBody, Operator, ValidatorResources};

use super::{
    AdmitError, Parts,
    meter::{self, Charges},
    nan::{self, Canon},
    shifted,
};

/// What all functions of a module share while they are written.
pub(super) struct Context<'a> {
    parts: &'a Parts,
    profile: Profile,
    allocations: FuncValidatorAllocations,
    /// Types for the results of several values, which blocks need and the module may lack.
    added: Vec<FuncType>,
}

impl<'a> Context<'a> {
    pub(super) fn new(parts: &'a Parts, profile: Profile) -> Self {
        Self { parts, profile, allocations: FuncValidatorAllocations::default(), added: Vec::new() }
    }

    /// Types to add after the module's own.
    pub(super) fn added_types(self) -> Vec<FuncType> {
        self.added
    }

    /// The type of a block with these results.
    fn block_type(&mut self, results: &[wasmparser::ValType]) -> Result<BlockType, AdmitError> {
        match results {
            [] => Ok(BlockType::Empty),
            [one] => Ok(BlockType::Result(val_type(*one)?)),
            several => {
                let at = self.added.iter().position(|ty| ty.results() == several).unwrap_or_else(|| {
                    self.added.push(FuncType::new([], several.iter().copied()));
                    self.added.len() - 1
                });
                Ok(BlockType::FunctionType((self.parts.types.len() + at) as u32))
            }
        }
    }
}

fn val_type(ty: wasmparser::ValType) -> Result<ValType, AdmitError> {
    Ok(ValType::try_from(ty).map_err(wasm_encoder::reencode::Error::<std::convert::Infallible>::from)?)
}

/// A function as it goes into the new module.
pub(super) struct Written {
    pub(super) bytes: Vec<u8>,
    /// Branches that are hardly ever taken.
    pub(super) unlikely: Vec<BranchHint>,
}

/// Rewrites a function. `frame` is what it takes of the counted stack, if it does.
pub(super) fn rewrite(
    context: &mut Context<'_>,
    validator: FuncToValidate<ValidatorResources>,
    body: &FunctionBody<'_>,
    frame: Option<u32>,
) -> Result<Written, AdmitError> {
    let ty = context.parts.type_at(validator.ty).ok_or_else(|| AdmitError::Invalid("function has no type".into()))?;
    let mut operators = Vec::new();
    let mut starts = Vec::new();
    let mut reader = body.get_operators_reader()?;
    while !reader.eof() {
        let (operator, offset) = reader.read_with_offset()?;
        operators.push(operator);
        starts.push(offset - body.range().start);
    }
    starts.push(body.range().len());
    let carries = |block: wasmparser::BlockType, is_loop: bool| match block {
        wasmparser::BlockType::Empty => false,
        wasmparser::BlockType::Type(_) => !is_loop,
        wasmparser::BlockType::FuncType(index) => context
            .parts
            .type_at(index)
            .is_none_or(|ty| if is_loop { !ty.params().is_empty() } else { !ty.results().is_empty() }),
    };
    let charges = meter::charges(&operators, &carries);
    let canons = match context.profile {
        Profile::Native => Vec::new(),
        Profile::Portable => {
            let allocations = std::mem::take(&mut context.allocations);
            let (canons, allocations) = nan::canons(validator, body, ty.params().len() as u32, allocations)?;
            context.allocations = allocations;
            canons
        }
    };
    let results = context.block_type(ty.results())?;
    let mut locals = Vec::new();
    let mut count = ty.params().len() as u32;
    for group in body.get_locals_reader()? {
        let (many, ty) = group?;
        locals.push((many, val_type(ty)?));
        count += many;
    }
    let own = Own::declare(&mut locals, count, &charges, &operators, &canons);
    let mut writer = Writer {
        imported: context.parts.imported,
        fuel: context.parts.globals_count,
        stack: context.parts.globals_count + 1,
        charges,
        canons,
        own,
        frame,
        wrapped: false,
        bytes: Vec::with_capacity(body.range().len() * 2),
        unlikely: Vec::new(),
    };
    writer.wrapped = writer.own.fuel.is_some() || frame.is_some();
    locals.len().encode(&mut writer.bytes);
    for (many, ty) in locals {
        many.encode(&mut writer.bytes);
        ty.encode(&mut writer.bytes);
    }
    writer.function(&operators, &starts, body.as_bytes(), results);
    Ok(Written { bytes: writer.bytes, unlikely: writer.unlikely })
}

/// Locals that are added, where they are needed.
struct Own {
    /// Fuel, while the function loops.
    fuel: Option<u32>,
    /// The length of a bulk operation.
    bulk: u32,
    /// A value that is made canonical, by its [`Canon`].
    canon: [u32; 3],
}

impl Own {
    fn declare(
        locals: &mut Vec<(u32, ValType)>,
        first: u32,
        charges: &Charges,
        operators: &[Operator<'_>],
        canons: &[Option<Canon>],
    ) -> Self {
        let mut next = first;
        let mut declare = |needed: bool, ty: ValType| {
            let at = next;
            if needed {
                locals.push((1, ty));
                next += 1;
            }
            at
        };
        let fuel = declare(charges.loops, ValType::I64);
        let bulk = declare(operators.iter().any(meter::is_bulk), ValType::I32);
        let has = |ty: ValType| canons.iter().flatten().any(|canon| canon.val_type() == ty);
        let canon = [ValType::F32, ValType::F64, ValType::V128].map(|ty| declare(has(ty), ty));
        Self { fuel: charges.loops.then_some(fuel), bulk, canon }
    }

    fn canon(&self, canon: Canon) -> u32 {
        match canon.val_type() {
            ValType::F32 => self.canon[0],
            ValType::F64 => self.canon[1],
            _ => self.canon[2],
        }
    }
}

struct Writer {
    imported: u32,
    /// Index of the global.
    fuel: u32,
    /// Index of the global.
    stack: u32,
    charges: Charges,
    /// By operator; empty where nothing is made canonical.
    canons: Vec<Option<Canon>>,
    own: Own,
    frame: Option<u32>,
    /// Whether the body is a block, with something after it.
    wrapped: bool,
    bytes: Vec<u8>,
    unlikely: Vec<BranchHint>,
}

impl Writer {
    fn function(&mut self, operators: &[Operator<'_>], starts: &[usize], body: &[u8], results: BlockType) {
        self.enter();
        if self.wrapped {
            self.sink().block(results);
        }
        let mut depth = 0u32;
        let last = operators.len().saturating_sub(1);
        for (at, operator) in operators.iter().enumerate() {
            let raw =
                starts.get(at).zip(starts.get(at + 1)).and_then(|(from, to)| body.get(*from..*to)).unwrap_or_default();
            match operator {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => depth += 1,
                Operator::End if at == last => break,
                Operator::End => depth -= 1,
                _ => {}
            }
            self.operator(at, operator, raw, depth);
            if let Some(canon) = self.canons.get(at).copied().flatten() {
                let local = self.own.canon(canon);
                canon.write(&mut self.sink(), local);
            }
        }
        if self.wrapped {
            self.sink().end();
            self.leave();
        }
        self.sink().end();
    }

    fn operator(&mut self, at: usize, operator: &Operator<'_>, raw: &[u8], depth: u32) {
        let after = self.charges.after[at];
        match operator {
            Operator::Call { function_index } => {
                self.store_fuel();
                let callee = shifted(*function_index, self.imported);
                self.sink().call(callee);
                self.load_fuel();
                self.charge(after);
            }
            Operator::CallIndirect { .. } => {
                self.store_fuel();
                self.bytes.extend_from_slice(raw);
                self.load_fuel();
                self.charge(after);
            }
            Operator::RefFunc { function_index } => {
                let function = shifted(*function_index, self.imported);
                self.sink().ref_func(function);
                self.charge(after);
            }
            Operator::Return if self.wrapped => {
                self.sink().br(depth);
            }
            Operator::Loop { .. } => {
                self.bytes.extend_from_slice(raw);
                self.check(0);
                self.charge(after);
            }
            Operator::BrIf { relative_depth } if self.charges.taken[at] != 0 => {
                self.sink().if_(BlockType::Empty);
                self.charge(self.charges.taken[at]);
                self.sink().br(relative_depth + 1).end();
                self.charge(after);
            }
            _ if meter::is_bulk(operator) => {
                self.charge_bulk();
                self.bytes.extend_from_slice(raw);
                self.charge(after);
            }
            _ => {
                self.bytes.extend_from_slice(raw);
                self.charge(after);
            }
        }
    }

    fn sink(&mut self) -> InstructionSink<'_> {
        InstructionSink::new(&mut self.bytes)
    }

    /// Takes the frame, and pays for what comes first.
    fn enter(&mut self) {
        if let Some(frame) = self.frame {
            let (stack, frame) = (self.stack, frame.cast_signed());
            self.sink().global_get(stack).i32_const(frame).i32_sub().global_set(stack);
            self.sink().global_get(stack).i32_const(0).i32_lt_s();
            let overflow = self.imported + 1;
            self.unlikely(|writer| {
                writer.sink().call(overflow);
            });
        }
        let (fuel, debt) = (self.fuel, self.charges.entry);
        if let Some(local) = self.own.fuel {
            self.sink().global_get(fuel).i64_const(1).i64_sub().local_set(local);
            self.check(0);
            self.charge(debt);
        } else {
            self.charge(1 + debt);
            // What neither loops nor calls ends soon, and whoever called it looks at the fuel.
            if self.charges.leaves || self.frame.is_some() {
                self.check(debt);
            }
        }
    }

    /// Gives the frame back, and stores what is left of the fuel.
    fn leave(&mut self) {
        self.store_fuel();
        if let Some(frame) = self.frame {
            let stack = self.stack;
            self.sink().global_get(stack).i32_const(frame.cast_signed()).i32_add().global_set(stack);
        }
    }

    fn store_fuel(&mut self) {
        let fuel = self.fuel;
        if let Some(local) = self.own.fuel {
            self.sink().local_get(local).global_set(fuel);
        }
    }

    fn load_fuel(&mut self) {
        let fuel = self.fuel;
        if let Some(local) = self.own.fuel {
            self.sink().global_get(fuel).local_set(local);
        }
    }

    fn charge(&mut self, cost: i64) {
        if cost == 0 {
            return;
        }
        let fuel = self.fuel;
        match self.own.fuel {
            Some(local) => self.sink().local_get(local).i64_const(cost).i64_sub().local_set(local),
            None => self.sink().global_get(fuel).i64_const(cost).i64_sub().global_set(fuel),
        };
    }

    /// Calls the host where fuel is spent; `debt` was charged for what is still to come.
    fn check(&mut self, debt: i64) {
        let (fuel, refuel) = (self.fuel, self.imported);
        match self.own.fuel {
            Some(local) => self.sink().local_get(local),
            None => self.sink().global_get(fuel),
        };
        self.sink().i64_const(-debt).i64_le_s();
        self.unlikely(|writer| {
            writer.store_fuel();
            writer.sink().i64_const(debt).call(refuel);
            writer.load_fuel();
        });
    }

    /// Charges a bulk operation for the length on top of its operands, and looks at the fuel.
    fn charge_bulk(&mut self) {
        let (fuel, length) = (self.fuel, self.own.bulk);
        self.sink().local_set(length);
        match self.own.fuel {
            Some(local) => {
                self.sink().local_get(local).local_get(length).i64_extend_i32_u().i64_sub().local_set(local);
            }
            None => {
                self.sink().global_get(fuel).local_get(length).i64_extend_i32_u().i64_sub().global_set(fuel);
            }
        }
        self.check(0);
        self.sink().local_get(length);
    }

    /// An `if` over the condition on top of the operands, which hardly ever holds.
    fn unlikely(&mut self, then: impl FnOnce(&mut Self)) {
        let offset = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.unlikely.push(BranchHint { branch_func_offset: offset, branch_hint_value: 0 });
        self.sink().if_(BlockType::Empty);
        then(self);
        self.sink().end();
    }
}
