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
    Ok(ValType::try_from(ty)?)
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
        parts: context.parts,
        imported: context.parts.imported,
        fuel: context.parts.globals_count,
        stack: context.parts.globals_count + 1,
        charges,
        canons,
        own,
        frame,
        wrapped: false,
        open: Vec::new(),
        depth: 0,
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

/// A block of the old function.
struct Open {
    /// How many blocks of the new one are open inside its label, itself among them.
    label: u32,
    /// A loop that is left for fuel and entered again.
    resumes: bool,
}

struct Writer<'a> {
    parts: &'a Parts,
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
    /// Blocks of the old function that are open, the function itself first.
    open: Vec<Open>,
    /// Blocks of the new function that are open.
    depth: u32,
    bytes: Vec<u8>,
    unlikely: Vec<BranchHint>,
}

impl Writer<'_> {
    fn function(&mut self, operators: &[Operator<'_>], starts: &[usize], body: &[u8], results: BlockType) {
        self.enter();
        if self.wrapped {
            self.sink().block(results);
            self.depth += 1;
        }
        self.open.push(Open { label: self.depth, resumes: false });
        let last = operators.len().saturating_sub(1);
        for (at, operator) in operators.iter().enumerate().take(last) {
            let raw = starts.get(at).zip(starts.get(at + 1)).and_then(|(from, to)| body.get(*from..*to));
            self.operator(at, operator, raw.unwrap_or_default());
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

    fn operator(&mut self, at: usize, operator: &Operator<'_>, raw: &[u8]) {
        match operator {
            Operator::Call { function_index } => {
                self.store_fuel();
                let callee = shifted(*function_index, self.imported);
                self.sink().call(callee);
                self.load_fuel();
            }
            Operator::CallIndirect { .. } => {
                self.store_fuel();
                self.bytes.extend_from_slice(raw);
                self.load_fuel();
            }
            Operator::RefFunc { function_index } => {
                let function = shifted(*function_index, self.imported);
                self.sink().ref_func(function);
            }
            Operator::Block { .. } | Operator::If { .. } => {
                self.bytes.extend_from_slice(raw);
                self.depth += 1;
                self.open.push(Open { label: self.depth, resumes: false });
            }
            Operator::Loop { blockty } => self.begin_loop(*blockty, raw),
            Operator::End => self.end(),
            Operator::Return if self.wrapped => {
                let label = self.depth - 1;
                self.sink().br(label);
            }
            Operator::Br { relative_depth } => {
                let label = self.label(*relative_depth);
                self.sink().br(label);
            }
            Operator::BrIf { relative_depth } => self.br_if(*relative_depth, self.charges.taken[at]),
            Operator::BrTable { targets } => {
                let labels: Vec<u32> = targets.targets().flatten().map(|depth| self.label(depth)).collect();
                let default = self.label(targets.default());
                self.sink().br_table(labels, default);
            }
            _ if meter::is_bulk(operator) => {
                self.charge_bulk();
                self.bytes.extend_from_slice(raw);
            }
            _ => self.bytes.extend_from_slice(raw),
        }
        self.charge(self.charges.after[at]);
    }

    /// The new depth of a label.
    fn label(&self, depth: u32) -> u32 {
        let open = self.open.len().checked_sub(1 + depth as usize).and_then(|at| self.open.get(at));
        self.depth - open.map_or(self.depth, |open| open.label)
    }

    fn br_if(&mut self, depth: u32, taken: i64) {
        let label = self.label(depth);
        if taken == 0 {
            self.sink().br_if(label);
            return;
        }
        // It leaves a loop.
        self.unlikely(|writer| {
            writer.charge(taken);
            writer.sink().br(label + 1);
        });
    }

    /// A loop looks at the fuel at its head. It is left when that is spent, and entered again with more:
    ///
    /// ```text
    /// block $done
    ///   loop $again
    ///     block $spent
    ///       loop          the guest's
    ///         (br_if $spent (fuel <= 0))
    ///         ...
    ///       end
    ///       br $done
    ///     end
    ///     refuel
    ///     br $again
    ///   end
    /// end
    /// ```
    /// A call within the loop would cost more than the check does: what lives across a call has no registers. A loop that takes
    /// operands cannot be entered again like this, and calls.
    fn begin_loop(&mut self, ty: wasmparser::BlockType, raw: &[u8]) {
        let results = self.results(ty);
        let resumes = results.is_some();
        if let Some(results) = results {
            self.sink().block(results).loop_(BlockType::Empty).block(BlockType::Empty);
            self.depth += 3;
        }
        self.bytes.extend_from_slice(raw);
        self.depth += 1;
        self.open.push(Open { label: self.depth, resumes });
        if !resumes {
            return self.check(0);
        }
        self.is_spent(0);
        self.hint();
        self.sink().br_if(1);
    }

    /// The type of a block with the results of this one, if it takes nothing.
    fn results(&self, ty: wasmparser::BlockType) -> Option<BlockType> {
        match ty {
            wasmparser::BlockType::Empty => Some(BlockType::Empty),
            wasmparser::BlockType::Type(ty) => val_type(ty).ok().map(BlockType::Result),
            wasmparser::BlockType::FuncType(index) => {
                let takes_nothing = self.parts.type_at(index).is_some_and(|ty| ty.params().is_empty());
                takes_nothing.then_some(BlockType::FunctionType(index))
            }
        }
    }

    fn end(&mut self) {
        self.sink().end();
        self.depth -= 1;
        if self.open.pop().is_some_and(|open| open.resumes) {
            self.sink().br(2).end();
            self.refuel(0);
            self.sink().br(0).end().unreachable().end();
            self.depth -= 3;
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
        self.is_spent(debt);
        self.unlikely(|writer| writer.refuel(debt));
    }

    /// Whether fuel is spent, as an operand.
    fn is_spent(&mut self, debt: i64) {
        let fuel = self.fuel;
        match self.own.fuel {
            Some(local) => self.sink().local_get(local),
            None => self.sink().global_get(fuel),
        };
        self.sink().i64_const(-debt).i64_le_s();
    }

    fn refuel(&mut self, debt: i64) {
        let refuel = self.imported;
        self.store_fuel();
        self.sink().i64_const(debt).call(refuel);
        self.load_fuel();
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
        self.hint();
        self.sink().if_(BlockType::Empty);
        then(self);
        self.sink().end();
    }

    /// The branch that comes next is hardly ever taken.
    fn hint(&mut self) {
        let offset = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.unlikely.push(BranchHint { branch_func_offset: offset, branch_hint_value: 0 });
    }
}
