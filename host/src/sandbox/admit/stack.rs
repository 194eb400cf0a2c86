//! How deep calls may nest, the same on every host.
//!
//! The native stack overflows where compiled code decides. So a module counts its own: a global holds how much stack is
//! left, in bytes by our own estimate, a function takes its frame when it is entered and gives it back at the end.
//! Most functions need not: what is not recursive nests as deep as the call graph, which is known beforehand. Only functions
//! in a cycle of the graph count, each for itself and for the longest chain of uncounted functions below it. A call through
//! a table may reach every function of its type that a table or a reference can hold.
//!
//! The estimate is generous with what compiled frames usually need, and the native stack has several times the counted one,
//! so that the count is what ends a recursion. Where it is not, the engine's own guard is: a fault of the host.

use std::collections::HashMap;

use petgraph::{algo::kosaraju_scc, graph::DiGraph};
use wasmparser::FuncType;

use crate::limits;

/// What is known of one function of the module, imported ones apart.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Functions that it calls, by index; imported ones are left out.
    pub(super) calls: Vec<u32>,
    /// Types that it calls through tables, by [`Types`] number.
    pub(super) indirect: Vec<u32>,
    /// Estimated length of its frame in bytes.
    pub(super) frame_bytes: u32,
}

/// Length of a frame, by what the function has.
pub(super) fn frame_bytes(slots: u64, code_bytes: u64) -> u32 {
    const FRAME: u64 = 64;
    const SLOT: u64 = 8;
    // Compiled code keeps values longer than its operands live, at most some of what it computes.
    const CODE_PER_BYTE: u64 = 8;
    u32::try_from(FRAME + SLOT * slots + code_bytes / CODE_PER_BYTE).unwrap_or(u32::MAX)
}

/// Equal function types have equal numbers.
#[derive(Debug, Default)]
pub(super) struct Types(HashMap<FuncType, u32>);

impl Types {
    pub(super) fn number(&mut self, ty: &FuncType) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(ty.clone()).or_insert(next)
    }

    pub(super) fn get(&self, ty: &FuncType) -> Option<u32> {
        self.0.get(ty).copied()
    }
}

/// What each function takes of the counted stack: none when it is not recursive. `reachable` are functions that a table or
/// a reference can hold, with their type's number.
pub(super) fn counted(functions: &[Facts], types: &Types, reachable: &[(u32, u32)]) -> Vec<Option<u32>> {
    let count = functions.len();
    // Functions first, then types, which stand for every function of theirs that is reachable.
    let mut callees: Vec<Vec<u32>> = functions
        .iter()
        .map(|facts| facts.calls.iter().copied().chain(facts.indirect.iter().map(|ty| count as u32 + ty)).collect())
        .collect();
    callees.resize(count + types.0.len(), Vec::new());
    for (function, ty) in reachable {
        callees[count + *ty as usize].push(*function);
    }
    let edges = (0u32..).zip(&callees).flat_map(|(caller, all)| all.iter().map(move |callee| (caller, *callee)));
    let mut graph = DiGraph::<(), (), u32>::from_edges(edges);
    // Functions without any edge have no node yet.
    while graph.node_count() < callees.len() {
        graph.add_node(());
    }

    let mut counted = vec![None; count];
    // The longest chain of uncounted frames from each node on, its own among them. Types have no frame.
    let mut chain = vec![0u64; callees.len()];
    // Callees come before callers.
    for mut group in kosaraju_scc(&graph) {
        let recursive = match group.as_slice() {
            [alone] => graph.contains_edge(*alone, *alone),
            _ => true,
        };
        // Types first: what they lead to beside the cycle is below each function of the cycle that calls them.
        group.sort_unstable_by_key(|node| std::cmp::Reverse(node.index()));
        for node in group.into_iter().map(|node| node.index()) {
            let below = callees[node].iter().map(|callee| chain[*callee as usize]).max().unwrap_or(0);
            match functions.get(node) {
                None => chain[node] = below,
                Some(facts) if recursive => {
                    let own = below.saturating_add(facts.frame_bytes.into());
                    counted[node] = Some(u32::try_from(own).unwrap_or(u32::MAX));
                }
                Some(facts) => chain[node] = below.saturating_add(facts.frame_bytes.into()),
            }
        }
    }
    if chain.iter().any(|bytes| *bytes > limits::STACK_CHAIN_BYTES_MAX) {
        return functions.iter().map(|facts| Some(facts.frame_bytes)).collect();
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(calls: &[u32], indirect: &[u32]) -> Facts {
        Facts { calls: calls.to_vec(), indirect: indirect.to_vec(), frame_bytes: 100 }
    }

    fn types(count: usize) -> Types {
        Types((0..count).map(|at| (FuncType::new(vec![wasmparser::ValType::I32; at], []), at as u32)).collect())
    }

    #[test]
    fn only_cycles_count_and_for_what_is_below_them_too() {
        // 0 calls 1; 1 calls itself and 2; 2 calls 3.
        let functions = [facts(&[1], &[]), facts(&[1, 2], &[]), facts(&[3], &[]), facts(&[], &[])];
        assert_eq!(counted(&functions, &types(0), &[]), [None, Some(300), None, None]);
    }

    #[test]
    fn a_call_through_a_table_may_reach_all_of_its_type() {
        // 0 calls type 0, which 0 and 1 have; 1 calls 2.
        let functions = [facts(&[], &[0]), facts(&[2], &[]), facts(&[], &[])];
        assert_eq!(counted(&functions, &types(1), &[(0, 0), (1, 0)]), [Some(300), None, None]);
        assert_eq!(counted(&functions, &types(1), &[(1, 0)]), [None, None, None]);
    }

    #[test]
    fn a_call_graph_deeper_than_the_bound_counts_everything() {
        let deep = limits::STACK_CHAIN_BYTES_MAX as u32 / 100 + 2;
        let functions: Vec<Facts> =
            (0..deep).map(|at| facts(if at + 1 < deep { vec![at + 1] } else { vec![] }.as_slice(), &[])).collect();
        assert!(counted(&functions, &types(0), &[]).iter().all(|frame| *frame == Some(100)));
    }
}
