//! A stack machine that runs a small loop `n` times: one instruction after another through a table of jumps.

use super::mix;

/// One instruction. Arithmetic takes its operands from the stack and leaves its result there.
#[derive(Clone, Copy)]
enum Op {
    /// Puts a number on the stack.
    Push(u32),
    /// Puts a variable on the stack.
    Load(u8),
    /// Takes a variable from the stack.
    Store(u8),
    Add,
    Sub,
    Mul,
    Xor,
    Shift,
    /// Swaps the two topmost.
    Swap,
    /// Takes the topmost; goes on at the given instruction when it is not 0.
    JumpIf(u8),
    /// Takes the topmost; leaves out the next instruction when it is even.
    SkipEven,
    Stop,
}

const COUNT: u8 = 0;
const SUM: u8 = 1;
const SEED: u8 = 2;

/// Steps a congruential generator, adds or mixes it in depending on its bits, counts down.
const PROGRAM: [Op; 23] = [
    Op::Load(SEED),
    Op::Push(1_664_525),
    Op::Mul,
    Op::Push(1_013_904_223),
    Op::Add,
    Op::Store(SEED),
    Op::Load(SEED),
    Op::Push(13),
    Op::Shift,
    Op::Load(SUM),
    Op::Swap,
    Op::Add,
    Op::Load(SEED),
    Op::Load(SEED),
    Op::SkipEven,
    Op::Swap,
    Op::Xor,
    Op::Store(SUM),
    Op::Load(COUNT),
    Op::Push(1),
    Op::Sub,
    Op::Store(COUNT),
    Op::Stop,
];

pub(super) fn run(n: u32) -> u64 {
    // The loop's end, written over the stop.
    let mut program = PROGRAM.to_vec();
    program.pop();
    program.extend([Op::Load(COUNT), Op::JumpIf(0), Op::Stop]);
    let mut variables = [0; 4];
    variables[usize::from(COUNT)] = n;
    let steps = execute(&program, &mut variables);
    variables.iter().fold(steps, |sum, variable| mix(sum, (*variable).into()))
}

/// Runs a program to its stop; gives the instructions that ran.
fn execute(program: &[Op], variables: &mut [u32; 4]) -> u64 {
    let mut stack = [0u32; 16];
    let (mut top, mut at, mut steps) = (0, 0, 0);
    // Indices stay in the stack by the mask: this machine's programs are its own.
    let slot = |position: usize| position % 16;
    loop {
        let op = program[at];
        at += 1;
        steps += 1;
        let (one, two) = (stack[slot(top + 14)], stack[slot(top + 15)]);
        let mut binary = |result: u32| {
            stack[slot(top + 14)] = result;
            top += 15;
        };
        match op {
            Op::Push(number) => {
                stack[slot(top)] = number;
                top += 1;
            }
            Op::Load(variable) => {
                stack[slot(top)] = variables[usize::from(variable % 4)];
                top += 1;
            }
            Op::Store(variable) => {
                variables[usize::from(variable % 4)] = two;
                top += 15;
            }
            Op::Add => binary(one.wrapping_add(two)),
            Op::Sub => binary(one.wrapping_sub(two)),
            Op::Mul => binary(one.wrapping_mul(two)),
            Op::Xor => binary(one ^ two),
            Op::Shift => binary(one >> (two % 32)),
            Op::Swap => {
                stack[slot(top + 14)] = two;
                stack[slot(top + 15)] = one;
            }
            Op::JumpIf(target) => {
                top += 15;
                if two != 0 {
                    at = usize::from(target);
                }
            }
            Op::SkipEven => {
                top += 15;
                if two.is_multiple_of(2) {
                    at += 1;
                }
            }
            Op::Stop => return steps,
        }
        top %= 16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_counts_down_and_sums() {
        let program = [
            Op::Load(SUM),
            Op::Load(COUNT),
            Op::Add,
            Op::Store(SUM),
            Op::Load(COUNT),
            Op::Push(1),
            Op::Sub,
            Op::Store(COUNT),
            Op::Load(COUNT),
            Op::JumpIf(0),
            Op::Stop,
        ];
        let mut variables = [100, 0, 0, 0];
        assert_eq!(execute(&program, &mut variables), 10 * 100 + 1);
        assert_eq!(variables, [0, 5050, 0, 0]);
    }
}
