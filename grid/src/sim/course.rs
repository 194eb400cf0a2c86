//! What a task in steps goes through on its way to an answer.
//!
//! Nothing is executed, so that states are named as outputs are: a [`Course`] is a function of the task and of the answer, and nothing of it
//! is stored. Whoever lies parts from the truth in some segment and does not come back; in which one follows from the answer, so that
//! two who sign the same lie sign the same states. Where a module writes something else each time, it does so in one segment of its task.
//! The roots and proofs over the states are real.

use registry::{
    dispute::{End, Ending},
    id::{BlobHash, StateRoot},
    segment::SegmentRecord,
};

use super::{random::mix, work::Answer};
use crate::flow::Checkpoint;

/// Length in bytes of a snapshot: that of a small task.
const SNAPSHOT_BYTES: u64 = 70_000;

/// Kinds of names.
const STATE: u8 = 0x44;
const FORGED: u8 = 0x45;
const SNAPSHOT: u8 = 0x46;

/// An execution of a task of so many segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) segments: u32,
    pub(super) number: u32,
    pub(super) shard: u32,
    pub(super) answer: Answer,
    /// The module writes something else each time.
    pub(super) is_unsteady: bool,
}

impl Course {
    /// The first segment that does not lead where it should; none of them when it is the number of segments.
    fn parts(&self) -> u32 {
        if self.answer == Answer::TRUTH {
            return self.segments;
        }
        let task = u64::from(self.number) << 32 | u64::from(self.shard);
        let answer = if self.is_unsteady { 0 } else { self.answer.number() };
        let parts = mix(mix(task) ^ u64::from(answer)) % u64::from(self.segments.max(1));
        u32::try_from(parts).unwrap_or(0)
    }

    /// What whoever goes on from a state of it comes to.
    fn carried(&self, state: u32) -> Answer {
        if state < self.parts() { Answer::TRUTH } else { self.answer }
    }

    /// The states between its segments.
    pub(super) fn states(&self) -> SegmentRecord {
        SegmentRecord { states: (0..self.segments.saturating_sub(1)).map(|state| self.state(state)).collect() }
    }

    fn state(&self, state: u32) -> StateRoot {
        StateRoot(self.named(STATE, state))
    }

    /// What a segment leads to, where this is how the task ends.
    pub(super) fn end(&self, segment: u32, ending: Ending) -> End {
        if segment + 1 < self.segments { End::State(self.state(segment)) } else { End::Task(ending) }
    }

    /// A state that nobody has signed.
    pub(super) fn forged(&self, state: u32) -> End {
        End::State(StateRoot(self.named(FORGED, state)))
    }

    /// What is kept of a state of it, if the task takes so much fuel.
    pub(super) fn checkpoint(&self, state: u32, fuel: u64) -> Checkpoint {
        let fuel_used = fuel * u64::from(state + 1) / u64::from(self.segments.max(1));
        let snapshot = BlobHash(self.named(SNAPSHOT, state));
        Checkpoint { index: state, fuel_used, snapshot, bytes: SNAPSHOT_BYTES }
    }

    fn named(&self, kind: u8, state: u32) -> [u8; 32] {
        let mut bytes = [kind; 32];
        let words = [self.number, self.shard, self.carried(state).number(), state];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// What whoever goes on from there comes to.
pub(super) fn carried(checkpoint: &Checkpoint) -> Answer {
    let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = checkpoint.snapshot.0;
    Answer::of(u32::from_le_bytes([a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(answer: Answer) -> Course {
        Course { segments: 16, number: 3, shard: 5, answer, is_unsteady: false }
    }

    #[test]
    fn who_lies_alike_goes_alike_and_parts_from_the_truth_once() {
        let (truth, ring) = (course(Answer::TRUTH), course(Answer::RING));
        assert_eq!((truth.states().states.len(), ring.states()), (15, ring.states()));
        let parts = truth.states().diverge(&ring.states());
        assert_eq!(parts, ring.parts());
        let after = truth.states().states.into_iter().zip(ring.states().states).skip(parts as usize);
        assert!(after.into_iter().all(|(truth, lie)| truth != lie));
        let segments: std::collections::BTreeSet<u32> =
            (1..200).map(|answer| course(Answer::of(answer)).parts()).collect();
        assert_eq!(segments.len(), 16, "every segment, the last one too: {segments:?}");
    }

    #[test]
    fn what_goes_on_from_a_false_state_stays_false() {
        let ring = course(Answer::RING);
        for state in 0..15 {
            let answer = if state < ring.parts() { Answer::TRUTH } else { Answer::RING };
            assert_eq!(carried(&ring.checkpoint(state, 1_600)), answer);
            assert_eq!(ring.checkpoint(state, 1_600).fuel_used, 100 * u64::from(state + 1));
        }
    }

    #[test]
    fn a_module_that_writes_something_else_each_time_parts_in_one_segment() {
        let answers = (3..40).map(|answer| Course { is_unsteady: true, ..course(Answer::of(answer)) });
        let segments: std::collections::BTreeSet<u32> = answers.map(|course| course.parts()).collect();
        assert_eq!(segments.len(), 1);
    }
}
