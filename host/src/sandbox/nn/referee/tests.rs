//! The module itself: what lasts in it between calls, the bounds that it was built with, and memories that are kept.

use wasmparser::{Operator, Parser, Payload, TypeRef};

use super::*;

/// The file that the module was built with.
#[path = "../../../../../tasks/referee/src/limits.rs"]
mod built;

#[test]
fn its_memory_is_all_that_lasts_in_it() {
    let mut mutable = Vec::new();
    for payload in Parser::new(0).parse_all(tasks::REFEREE.wasm) {
        match payload.unwrap() {
            Payload::GlobalSection(globals) => {
                mutable.extend(globals.into_iter().map(|global| global.unwrap().ty).filter(|global| global.mutable));
            }
            Payload::ImportSection(imports) => {
                assert!(imports.into_imports().all(|import| matches!(import.unwrap().ty, TypeRef::Func(_))));
            }
            Payload::CodeSectionEntry(body) => {
                for operator in body.get_operators_reader().unwrap() {
                    let operator = operator.unwrap();
                    let lasts = matches!(
                        operator,
                        Operator::TableSet { .. }
                            | Operator::TableGrow { .. }
                            | Operator::TableFill { .. }
                            | Operator::TableInit { .. }
                            | Operator::TableCopy { .. }
                            | Operator::ElemDrop { .. }
                            | Operator::MemoryInit { .. }
                            | Operator::DataDrop { .. }
                    );
                    assert!(!lasts, "{operator:?}");
                }
            }
            Payload::StartSection { .. } => panic!("what is done at the start would be done anew before each call"),
            _ => {}
        }
    }
    // The address of the stack, which every function puts back.
    assert_eq!(mutable.len(), 1, "{mutable:?}");
    assert_eq!(mutable[0].content_type, wasmparser::ValType::I32);
}

#[test]
fn its_bounds_are_those_of_the_host() {
    let pairs = [
        (built::NN_ACTIVATION_BYTES_MAX, limits::NN_ACTIVATION_BYTES_MAX),
        (built::NN_FOLD_BYTES_MAX, limits::NN_FOLD_BYTES_MAX),
        (built::NN_TENSOR_BYTES_MAX, limits::NN_TENSOR_BYTES_MAX),
        (built::MODEL_RANK_MAX, limits::MODEL_RANK_MAX),
    ];
    assert!(pairs.iter().all(|(built, host)| built == host), "{pairs:?}");
}

#[test]
fn it_has_the_version_of_tract_that_the_host_has() {
    let lock = include_str!("../../../../../tasks/referee/Cargo.lock");
    let version = format!("name = \"tract-onnx\"\nversion = \"{TRACT_VERSION}\"");
    assert!(lock.contains(&version), "tasks/referee/Cargo.lock has another than {TRACT_VERSION}");
}

#[test]
fn a_memory_comes_back_as_it_was() {
    let fresh: Vec<u8> = (0..3 * PIECE_BYTES).map(|at| (at / 7) as u8).collect();
    let mut memory = fresh.clone();
    memory.resize(16 * PIECE_BYTES, 0);
    // Zero where it was not, neighbours, one alone, the end.
    memory[PIECE_BYTES..2 * PIECE_BYTES].fill(0);
    for at in [5, 6, 10, 15] {
        memory[at * PIECE_BYTES + at] = 9;
    }
    let kept = Kept::new(&memory, &fresh);
    assert_eq!((kept.bytes, kept.pieces.len(), kept.content.len()), (memory.len() as u64, 4, 5 * PIECE_BYTES));
    let mut again = fresh.clone();
    again.resize(memory.len(), 0);
    kept.restore(&mut again);
    assert!(again == memory);
}
