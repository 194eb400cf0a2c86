//! Trials, as the world around the machine sees them.
//!
//! ```text
//! Effect::Part ─driver► Event::Parted ─orders► a side gives the state before, or does not ─► a referee runs the segment ─► Record::Dispute
//! ```
//! The driver finds where two results part in what their hosts signed; the receipts that it needs for that are signed here, with the hosts'
//! own keys, as they were sent: no other receipt of a run is signed. So the record of a trial is one that anybody could check, and each that
//! is kept is checked.
//!
//! What has to hold: whoever a trial convicts has signed what is false, its record holds, no lie is accepted while a trial is about it,
//! and nothing of a trial is paid.

use std::collections::BTreeMap;

use registry::{
    dispute::{Ending, Parting},
    id::{BlobHash, JobId, NodeId},
    job::ShardInfo,
    membership::NodeCert,
    receipt::{Receipt, Record, Witness},
    sign::Signed,
};

use super::{
    check::Broken,
    conduct::{self, Reply},
    course::Course,
    hosts::{Given, Stage},
    slab::Ticket,
    stepped::Trials,
    work::{self, Answer},
    world::{Happening, World},
};
use crate::{
    dispatch::Event,
    flow::{Assignment, Found, Millis},
};

/// How long the driver looks where two results part.
const LOOKS_MS: Millis = 1;

/// Which shard: the number of its job, and its own.
type Which = (u32, u32);

/// What is known of trials.
#[derive(Debug, Default)]
pub(super) struct Court {
    /// What each host last signed about a shard, with its answer; of jobs that have not ended.
    signed: BTreeMap<(u32, u32, u32), (Receipt, Answer)>,
    under_way: BTreeMap<Which, Sides>,
}

/// Who differ.
#[derive(Debug)]
struct Sides {
    /// Which trial of the run.
    trial: u64,
    job: JobId,
    shard: ShardInfo,
    certs: [Signed<NodeCert>; 2],
}

impl World<'_> {
    /// Whether tasks have several segments.
    pub(super) fn has_steps(&self) -> bool {
        self.options.steps > 1
    }

    /// What a task goes through on its way to this answer.
    pub(super) fn course(&self, number: u32, shard: u32, answer: Answer) -> Course {
        let is_unsteady = self.jobs.get(number).is_some_and(|work| work.is_unsteady);
        Course { segments: self.options.steps.max(1), number, shard, answer, is_unsteady }
    }

    fn trials(&mut self) -> &mut Trials {
        &mut self.tally.stepped.trials
    }

    /// A host has sent a receipt that the machine waits for.
    pub(super) fn signed(&mut self, host: u32, number: u32, receipt: &Receipt, answer: Answer) {
        if self.has_steps() {
            self.court.signed.insert((number, receipt.shard.index, host), (receipt.clone(), answer));
        }
    }

    /// The driver is to find where two results part.
    pub(super) fn part(&mut self, job: JobId, shard: ShardInfo, sides: [(Witness, BlobHash); 2]) {
        let Some(number) = self.jobs.number(job) else { return };
        self.trials().begun += 1;
        let trial = self.tally.stepped.trials.begun;
        let certs = sides.map(|(witness, _)| witness.cert);
        self.court.under_way.insert((number, shard.index), Sides { trial, job, shard, certs });
        self.tally.note(6, u64::from(number) << 32 | u64::from(shard.index));
        self.queue.at(self.now + LOOKS_MS, Happening::Part(number, shard.index));
    }

    /// It has.
    pub(super) fn parted(&mut self, number: u32, shard: u32) -> Result<(), Broken> {
        let Some(Sides { job, shard, certs, .. }) = self.court.under_way.get(&(number, shard)) else { return Ok(()) };
        let side = |cert: &Signed<NodeCert>| {
            let host = self.names.host(cert.peek().ok()?.node);
            let (receipt, answer) = self.court.signed.get(&(number, shard.index, host))?;
            let witness = Witness { receipt: self.names.sealed(receipt, host), cert: cert.clone() };
            Some((witness, self.course(number, shard.index, *answer).states()))
        };
        let (job, shard) = (*job, *shard);
        let [Some(first), Some(second)] = certs.each_ref().map(side) else {
            return Err(self.broken("what goes to trial was signed", format!("job {number}, shard {}", shard.index)));
        };
        let parting = Parting::new((first.0, &first.1), (second.0, &second.1));
        self.feed(Event::Parted { job, shard, parting: Some(Box::new(parting)) })
    }

    /// The machine orders something of a shard.
    pub(super) fn summon(&mut self, number: u32, order: &Assignment) -> Result<(), Broken> {
        let which = (number, order.shard.index);
        let Some(until) = order.until else {
            // As long as a trial is under way nobody is asked for the whole task.
            self.failed(which);
            return Ok(());
        };
        self.trials().states_asked += u64::from(until.keeps);
        self.check_unpaid(order.job, order.id)
    }

    /// Decides what a host does that is asked for a piece of a task.
    pub(super) fn search(&mut self, ticket: Ticket) {
        let Some(&Given { host, number, shard, id, until: Some(until), from, .. }) = self.given.get(ticket) else {
            return;
        };
        let reply = match self.hosts[host as usize].lies {
            true => conduct::reply(self.options.adversary, until, id.0),
            false => Reply::Give,
        };
        if reply == Reply::Withhold {
            return self.withhold(ticket);
        }
        let signed = self.court.signed.get(&(number, shard.index, host)).filter(|_| until.keeps);
        let answer = match signed {
            Some((_, answer)) => *answer,
            None => self.comes_of(number, from),
        };
        let (task_ms, fails) = self.draw(host, true);
        let segments = self.options.steps.max(1);
        let run = self.given.get(ticket).map_or(1, |given| given.segments(segments));
        let piece_ms = task_ms * u64::from(run) / u64::from(segments);
        let is_forged = reply == Reply::Forge;
        if let Some(given) = self.given.get_mut(ticket) {
            given.next = if fails { Stage::Failed } else { Stage::Found { answer, is_forged } };
        }
        self.queue.at(self.now + piece_ms.max(1), Happening::Done(ticket));
    }

    /// What a host found reaches the coordinator.
    pub(super) fn found(&mut self, ticket: Ticket, answer: Answer, is_forged: bool) -> Result<(), Broken> {
        let Some(given) = self.given.get(ticket) else { return Ok(()) };
        let &Given { host, number, shard, id, until: Some(until), .. } = given else { return Ok(()) };
        let run = u64::from(given.segments(self.options.steps));
        let (node, course) = (self.hosts[host as usize].node, self.course(number, shard.index, answer));
        let ending = Ending::from(&self.execution(given, answer).0);
        let checkpoint = course.checkpoint(until.state, ending.fuel_used);
        let end = if is_forged { course.forged(until.state) } else { course.end(until.state, ending) };
        let is_open = self.state.open_job(node, id).is_some();
        let trials = self.trials();
        if until.keeps {
            trials.segments_for_states += run;
            trials.states_given += u64::from(is_open && !is_forged);
        } else {
            trials.segments_refereed += run;
        }
        self.tally.note(7, id.0);
        self.check_unpaid(self.jobs.id(number), id)?;
        let found = Found { end, checkpoint: until.keeps.then_some(checkpoint) };
        let which = (number, shard.index);
        let trial = |world: &Self| world.court.under_way.get(&which).map(|sides| sides.trial);
        let before = trial(self);
        self.feed(Event::Found { node, assignment: id, found })?;
        // What a referee found has settled it, or nothing will; the shard may have another one by now.
        if !until.keeps && is_open && trial(self) == before {
            self.failed(which);
        }
        Ok(())
    }

    fn failed(&mut self, which: Which) {
        let was_under_way = self.court.under_way.remove(&which).is_some();
        self.trials().failed += u64::from(was_under_way);
    }

    /// A trial has its record.
    pub(super) fn settled(&mut self, job: JobId, shard: u32, node: NodeId, record: &Record) -> Result<(), Broken> {
        let Some(number) = self.jobs.number(job) else { return Ok(()) };
        let accused = record.check().map(|checked| checked.accused);
        match accused {
            Ok(Some((accused, _))) if accused == node => {}
            Ok(other) => return Err(self.broken("a dispute accuses whom it refutes", format!("{other:?}, not {node}"))),
            Err(refusal) => return Err(self.broken("a dispute that is kept holds", refusal.to_string())),
        }
        let signed = self.court.signed.get(&(number, shard, self.names.host(node)));
        if signed.is_none_or(|(_, answer)| *answer == Answer::TRUTH) {
            return Err(
                self.broken("a trial convicts who signed what is false", format!("job {number}, shard {shard}"))
            );
        }
        let was_under_way = self.court.under_way.remove(&(number, shard)).is_some();
        self.trials().settled += u64::from(was_under_way);
        Ok(())
    }

    /// A shard has its result.
    pub(super) fn overtaken(&mut self, job: JobId, shard: u32) -> Result<(), Broken> {
        let Some(number) = self.jobs.number(job) else { return Ok(()) };
        if self.court.under_way.remove(&(number, shard)).is_none() {
            return Ok(());
        }
        self.trials().overtaken += 1;
        let output = self
            .state
            .job(job)
            .and_then(|job| job.work(registry::job::Stage::Map, shard))
            .and_then(|(_, output)| output);
        let is_steady = self.jobs.get(number).is_some_and(|work| !work.is_unsteady);
        if is_steady && output.is_some_and(|output| work::answered(output) != Answer::TRUTH) {
            let detail = format!("job {number}, shard {shard}");
            return Err(self.broken("no lie is accepted while a trial is about it", detail));
        }
        Ok(())
    }

    /// Nothing more of a job goes to trial.
    pub(super) fn adjourned(&mut self, number: u32) {
        let mut later = self.court.signed.split_off(&(number, 0, 0));
        self.court.signed.append(&mut later.split_off(&(number + 1, 0, 0)));
        let over: Vec<Which> =
            self.court.under_way.range((number, 0)..(number + 1, 0)).map(|(which, _)| *which).collect();
        self.trials().overtaken += over.len() as u64;
        over.iter().for_each(|which| drop(self.court.under_way.remove(which)));
    }
}
