//! What is told of a run whose tasks have steps.

use serde::Serialize;

/// What came of steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stepped {
    /// Segments of each task.
    pub segments: u32,
    /// Two results that differed, and the one segment that told them apart.
    pub trials: Trials,
    /// Executions that went on from where another one was.
    pub checkpoints: Checkpoints,
}

/// Trials, and what they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Trials {
    /// Those that began.
    pub begun: u64,
    /// Those in which one side was refuted.
    pub settled: u64,
    /// Those that came to nothing: a referee ran all of the task.
    pub failed: u64,
    /// Those that nobody waited for any more: the shard had its result, or its job was over.
    pub overtaken: u64,
    /// States that sides were asked for.
    pub states_asked: u64,
    /// Those that were given, and were what both had signed.
    pub states_given: u64,
    /// Segments that sides ran for that.
    pub segments_for_states: u64,
    /// Segments that referees ran, each in place of a whole task.
    pub segments_refereed: u64,
}

/// Executions that went on from where another one was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Checkpoints {
    /// States that were kept.
    pub kept: u64,
    /// Executions that went on from one.
    pub resumed: u64,
    /// Segments that they did not run.
    pub segments_saved: u64,
}

impl Trials {
    /// Segments that were run for trials.
    pub fn segments(&self) -> u64 {
        self.segments_for_states + self.segments_refereed
    }

    /// States that were asked for in vain.
    pub fn states_in_vain(&self) -> u64 {
        self.states_asked - self.states_given
    }
}

impl Stepped {
    /// What trials took, in executions.
    pub fn trial_executions(&self) -> f64 {
        self.executions(self.trials.segments())
    }

    /// What going on from states has saved, in executions.
    pub fn saved_executions(&self) -> f64 {
        self.executions(self.checkpoints.segments_saved)
    }

    fn executions(&self, segments: u64) -> f64 {
        segments as f64 / f64::from(self.segments.max(1))
    }

    /// Both of two.
    pub fn and(self, other: &Self) -> Self {
        let (trials, others) = (self.trials, other.trials);
        let (kept, of_other) = (self.checkpoints, other.checkpoints);
        Self {
            segments: self.segments.max(other.segments),
            trials: Trials {
                begun: trials.begun + others.begun,
                settled: trials.settled + others.settled,
                failed: trials.failed + others.failed,
                overtaken: trials.overtaken + others.overtaken,
                states_asked: trials.states_asked + others.states_asked,
                states_given: trials.states_given + others.states_given,
                segments_for_states: trials.segments_for_states + others.segments_for_states,
                segments_refereed: trials.segments_refereed + others.segments_refereed,
            },
            checkpoints: Checkpoints {
                kept: kept.kept + of_other.kept,
                resumed: kept.resumed + of_other.resumed,
                segments_saved: kept.segments_saved + of_other.segments_saved,
            },
        }
    }

    /// Lines of a report: what, and how much of it.
    pub(super) fn rows(&self) -> [(&'static str, String); 5] {
        let Self { trials, checkpoints, segments } = self;
        let Trials { begun, settled, failed, overtaken, states_asked, segments_refereed, .. } = trials;
        let kept = checkpoints.kept;
        [
            ("segments of a task", segments.to_string()),
            ("trials", format!("{begun} begun, {settled} settled, {failed} failed, {overtaken} overtaken")),
            ("  states", format!("{states_asked} asked for, {} in vain", trials.states_in_vain())),
            (
                "  cost",
                format!("{segments_refereed} segments refereed, {:.1} executions in all", self.trial_executions()),
            ),
            (
                "went on",
                format!("{} executions, {:.1} saved, {kept} states kept", checkpoints.resumed, self.saved_executions()),
            ),
        ]
    }
}
