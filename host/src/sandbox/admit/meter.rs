//! Where a function pays for itself: fuel by the operator, charged as seldom as control flow allows.
//!
//! The price list is wasmtime's default: an operator costs one, those that make no code cost nothing, entering a function
//! costs one, bulk operations cost one more for each byte or element. What differs is placement. Fuel has to be exact only
//! where somebody looks at it: at the head of a loop and the entry of a function, which check it, and around calls. Between
//! two such places a path is charged once, in advance, at its beginning. Every point of the code then has a *debt*: what
//! has been charged for operators that are still to come. Paths that meet must have equal debts, so where control leaves
//! the expected path, the difference is settled:
//!
//! ```text
//! loop            check; charge A + B            A, B: costs of the two pieces
//!   ..A..
//!   br_if out     taken: give B back             leaving a loop is rare: the way out settles
//!   ..B..
//!   br_if loop    debt is 0 on both sides
//! end
//! ```
//! Within a loop a branch forward is taken often, so there it is the way on that settles. A label that a `br_table` leads to
//! has no debt, because no code fits between a table and its targets.
//!
//! The sum is exact: at each check and at the end it is what counting operator by operator gives, as long as nothing traps
//! in between. After a trap, what was charged since the last call of anything stays unsaid, at most one slice of fuel (see
//! [`super`]).

use wasmparser::{BlockType, Operator};

/// Where to charge and where to look, by the index of the operator.
pub(super) struct Charges {
    /// To charge when the function is entered.
    pub(super) entry: i64,
    /// To charge after an operator; negative gives back.
    pub(super) after: Vec<i64>,
    /// To charge where this `br_if` is taken; negative gives back. Only for labels without values.
    pub(super) taken: Vec<i64>,
    /// Whether the function has a loop.
    pub(super) loops: bool,
    /// Whether it leaves for another function, or pays by the byte.
    pub(super) leaves: bool,
}

/// What one operator costs.
pub(super) fn cost(operator: &Operator<'_>) -> i64 {
    match operator {
        Operator::Nop
        | Operator::Drop
        | Operator::Block { .. }
        | Operator::Loop { .. }
        | Operator::Unreachable
        | Operator::Return
        | Operator::Else
        | Operator::End => 0,
        _ => 1,
    }
}

/// Whether the operator costs as much more as the number on top of its operands.
pub(super) fn is_bulk(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::MemoryCopy { .. }
            | Operator::MemoryFill { .. }
            | Operator::MemoryInit { .. }
            | Operator::TableCopy { .. }
            | Operator::TableFill { .. }
            | Operator::TableInit { .. }
            | Operator::TableGrow { .. }
    )
}

/// One block, by what the backward pass needs.
struct Frame {
    is_loop: bool,
    /// Loops around its label's target: for a loop's own label, those around its head, itself among them.
    loops: u32,
    /// A `br_table` leads here.
    tabled: bool,
    /// Branches carry values.
    carries: bool,
    /// The `else`, if it has one.
    otherwise: Option<usize>,
    /// Debt at its label.
    debt: i64,
    /// Debt at the beginning of the `else` arm.
    else_debt: i64,
}

/// The frame that each branch, `else` and `end` belongs to.
struct Shape {
    frames: Vec<Frame>,
    /// By operator: the target of a branch, or the frame that an `end` or `else` belongs to.
    frame_of: Vec<u32>,
    /// By operator: loops around it.
    loops: Vec<u32>,
}

/// `values(block type, of a loop)` tells whether a branch to the block carries values.
fn shape(operators: &[Operator<'_>], values: &dyn Fn(BlockType, bool) -> bool) -> Shape {
    let frame = |is_loop, loops, carries| Frame {
        is_loop,
        loops,
        tabled: false,
        carries,
        otherwise: None,
        debt: 0,
        else_debt: 0,
    };
    // The function's own label: a branch to it returns. It is never converted, so what it carries does not matter.
    let mut shape = Shape {
        frames: vec![frame(false, 0, true)],
        frame_of: vec![0; operators.len()],
        loops: vec![0; operators.len()],
    };
    let (mut open, mut loops) = (vec![0u32], 0u32);
    let target = |open: &[u32], depth: u32| {
        let at = open.len().saturating_sub(1 + depth as usize);
        open.get(at).copied().unwrap_or(0)
    };
    for (at, operator) in operators.iter().enumerate() {
        shape.loops[at] = loops;
        match operator {
            Operator::Block { blockty } | Operator::If { blockty } | Operator::Loop { blockty } => {
                let is_loop = matches!(operator, Operator::Loop { .. });
                loops += u32::from(is_loop);
                open.push(shape.frames.len() as u32);
                shape.frames.push(frame(is_loop, loops, values(*blockty, is_loop)));
            }
            Operator::Else => {
                let own = target(&open, 0);
                shape.frame_of[at] = own;
                shape.frames[own as usize].otherwise = Some(at);
            }
            Operator::End => {
                let own = open.pop().unwrap_or(0);
                shape.frame_of[at] = own;
                loops -= u32::from(shape.frames[own as usize].is_loop);
            }
            Operator::Br { relative_depth } | Operator::BrIf { relative_depth } => {
                shape.frame_of[at] = target(&open, *relative_depth);
            }
            Operator::BrTable { targets } => {
                for depth in targets.targets().flatten().chain([targets.default()]) {
                    shape.frames[target(&open, depth) as usize].tabled = true;
                }
            }
            _ => {}
        }
    }
    shape
}

/// Places the charges of a function, walking backwards with the debt of each point.
pub(super) fn charges(operators: &[Operator<'_>], values: &dyn Fn(BlockType, bool) -> bool) -> Charges {
    let mut shape = shape(operators, values);
    let mut charges = Charges {
        entry: 0,
        after: vec![0; operators.len()],
        taken: vec![0; operators.len()],
        loops: false,
        leaves: false,
    };
    let mut debt = 0i64;
    // Frames whose `end` was met and whose beginning was not.
    let mut open: Vec<usize> = Vec::new();
    for (at, operator) in operators.iter().enumerate().rev() {
        let own = shape.frame_of[at] as usize;
        match operator {
            Operator::End => {
                let frame = &mut shape.frames[own];
                if !frame.is_loop {
                    if frame.tabled {
                        charges.after[at] = std::mem::take(&mut debt);
                    }
                    frame.debt = debt;
                }
                open.push(own);
            }
            Operator::Else => {
                let frame = &mut shape.frames[own];
                frame.else_debt = debt;
                debt = frame.debt;
            }
            Operator::If { .. } => {
                let Some(frame) = open.pop().map(|own| &shape.frames[own]) else { continue };
                let common = match frame.otherwise {
                    Some(otherwise) => {
                        let common = debt.min(frame.else_debt);
                        charges.after[otherwise] = frame.else_debt - common;
                        common
                    }
                    None => frame.debt,
                };
                charges.after[at] = debt - common;
                debt = cost(operator) + common;
            }
            Operator::Loop { .. } => {
                open.pop();
                charges.loops = true;
                charges.after[at] = std::mem::take(&mut debt);
            }
            Operator::Block { .. } => {
                open.pop();
            }
            Operator::Br { .. } => debt = cost(operator) + shape.frames[own].debt,
            Operator::BrIf { .. } => {
                let (frame, way_on) = (&shape.frames[own], debt);
                let leaves_loop = frame.loops < shape.loops[at];
                if leaves_loop && !frame.carries {
                    charges.taken[at] = frame.debt - way_on;
                    debt = cost(operator) + way_on;
                } else {
                    charges.after[at] = way_on - frame.debt;
                    debt = cost(operator) + frame.debt;
                }
            }
            Operator::BrTable { .. } => debt = cost(operator),
            Operator::Return | Operator::Unreachable => debt = 0,
            Operator::Call { .. } | Operator::CallIndirect { .. } => {
                charges.leaves = true;
                charges.after[at] = debt;
                debt = cost(operator);
            }
            _ if is_bulk(operator) => {
                charges.leaves = true;
                charges.after[at] = debt;
                debt = cost(operator);
            }
            _ => debt += cost(operator),
        }
    }
    charges.entry = debt;
    charges
}
