//! States that hosts keep of long tasks, and who goes on from them.
//!
//! A host stops what it runs every [`checkpoint_ms`](super::Options::checkpoint_ms) at its next state and tells the coordinator, which has
//! the state once the message has arrived: one that is under way when its host crashes is lost with it. Who may go on from a state is for
//! the machine to say. Whoever goes on from a false one comes to the same false answer, and does not know it.

use super::{
    check::Broken,
    hosts::Stage,
    slab::Ticket,
    work::Answer,
    world::{Happening, World},
};
use crate::{
    dispatch::Event,
    flow::{Assignment, Millis},
};

impl World<'_> {
    /// The machine orders a whole task, perhaps from a state on.
    pub(super) fn resumed(&mut self, order: &Assignment) {
        if let Some(from) = order.from.filter(|_| order.until.is_none()) {
            let checkpoints = &mut self.tally.stepped.checkpoints;
            checkpoints.resumed += 1;
            checkpoints.segments_saved += u64::from(from.index) + 1;
        }
    }

    /// A host begins to run a task: when it keeps a state first, if it ever does.
    pub(super) fn begin_keeping(&mut self, ticket: Ticket) {
        let before = self.given.get(ticket).and_then(|given| given.from).map_or(0, |(state, _)| state + 1);
        self.keep_after(ticket, before);
    }

    /// So many segments are behind a task that a host runs: when it keeps the next state.
    fn keep_after(&mut self, ticket: Ticket, before: u32) {
        let (segments, every_ms) = (self.options.steps, self.options.checkpoint_ms);
        let Some(given) = self.given.get(ticket).filter(|_| self.has_steps() && every_ms > 0) else { return };
        let segment_us = (given.task_us / u64::from(given.segments(segments))).max(1);
        let stride = every_ms.saturating_mul(1_000).div_ceil(segment_us).max(1);
        let state = u64::from(before) + stride - 1;
        // There is no state at the end.
        if let Some(state) = u32::try_from(state).ok().filter(|state| state + 1 < segments) {
            let after: Millis = stride * segment_us / 1_000;
            self.queue.at(self.now + after.max(1), Happening::Keep(ticket, state));
        }
    }

    /// A host has come to a state that it keeps.
    pub(super) fn keep(&mut self, ticket: Ticket, state: u32) {
        let Some(given) = self.given.get(ticket).filter(|given| matches!(given.stage, Stage::Running(_))) else {
            return;
        };
        let machine = &self.hosts[given.host as usize];
        let (is_online, epoch) = (machine.is_online, machine.epoch);
        if is_online {
            let when = self.now + self.delay();
            self.queue.at(when, Happening::Kept(ticket, epoch, state));
        }
        self.keep_after(ticket, state + 1);
    }

    /// The coordinator has it too.
    pub(super) fn kept(&mut self, ticket: Ticket, epoch: u32, state: u32) -> Result<(), Broken> {
        let Some(given) = self.given.get(ticket) else { return Ok(()) };
        let (host, id) = (given.host, given.id);
        let machine = &self.hosts[host as usize];
        let node = machine.node;
        let answer = match given.next {
            Stage::Signed(answer) => answer,
            _ => Answer::TRUTH,
        };
        let checkpoint = self.course(given.number, given.shard.index, answer).checkpoint(state, self.fuel(given));
        if !machine.is_online || machine.epoch != epoch || !self.state.wants_checkpoint(node, id, checkpoint.fuel_used)
        {
            return Ok(());
        }
        self.tally.stepped.checkpoints.kept += 1;
        self.tally.note(8, id.0);
        self.feed(Event::Checkpoint { node, assignment: id, checkpoint })
    }
}
