//! A grid on virtual time: the real [`dispatch`](crate::dispatch), with everything around it made up from one seed.
//!
//! The coordinator's machine is the shipped one, fed with the events that a driver would feed it; nothing of what it decides is
//! repeated here. Around it there is a world: jobs that are submitted, a network that delays and loses, hosts that crash, leave,
//! are slow or fail, and [`Adversary`]s. Nothing is executed: an honest output is a function of its task, and so are the states of a task
//! in steps. Nothing is signed either, but for the receipts that a trial is about: a receipt is made by
//! [`Attested::simulated`](crate::flow::Attested), which no other part of the program can call.
//!
//! - [`Options`]: what is simulated. [`run`] gives a [`Report`], or the first invariant that was [`Broken`], with the seed.
//! - [`adversary`]: who works against the grid. `conduct`: what each of them does.
//! - `world`: the event loop. `hosts`: what hosts do with assignments. `network`: what becomes of messages and connections.
//! - `work`: jobs, tasks, and what is true of them. `course`: the states that a task in steps goes through. `names`: who is called what.
//! - `trial`: what becomes of two results that part. `checkpoint`: who goes on from where a lost host was. `random`: where chance comes from. `slab`: where things lie.
//! - `purse`: what is paid for tasks, what operators vouch with, and what liars have of it in the end.
//! - `check`: what has to hold at every time. [`statistics`], [`report`], [`stepped`], [`sweep`], [`chart`]: what is told of it.
//!
//! A run is a function of its options: the same ones give the same report, event by event, on every machine. There is no clock in
//! here, so how long a run takes is measured by who calls it.
//!
//! Each operator has a network of its own, but for a flood that has one for all its names.
//!
//! What is not simulated: what a coordinator loses when it crashes. That is tested with the journal.

pub mod adversary;
pub mod chart;
mod check;
mod checkpoint;
mod conduct;
mod course;
mod hosts;
mod names;
mod network;
pub mod purse;
mod random;
pub mod report;
mod slab;
pub mod statistics;
pub mod stepped;
pub mod sweep;
#[cfg(test)]
mod tests;
mod trial;
mod work;
mod world;

use registry::{job::Policy, segment::SEGMENTS_MAX};
use serde::Serialize;

pub use self::{adversary::Adversary, check::Broken, report::Report};
use crate::{
    bounds::{self, OutOfBounds},
    config::Config,
    flow::Millis,
};

/// What is simulated. Shares are in parts per million.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Options {
    /// Decides the run.
    pub seed: u64,
    /// Machines at the start.
    pub hosts: u32,
    /// Who they belong to, evenly.
    pub operators: u32,
    /// Operators that the grid's owner answers for, all of them honest. Without any there is no referee: the machine then
    /// believes majorities, and that no honest operator is accused is counted but not asked for.
    pub vouched: u32,
    /// Tasks that a host runs at a time.
    pub slots: u32,
    /// Tasks in all.
    pub tasks: u32,
    /// Tasks of one job.
    pub job_tasks: u32,
    /// Average time of a task on an average host.
    pub task_ms: u64,
    /// Segments of a task; its states are signed and results that differ go to trial where there are several.
    pub steps: u32,
    /// How often a host keeps a state of what it runs, where tasks have several segments; never when 0.
    pub checkpoint_ms: Millis,
    /// Part of what the hosts with standing can do that is asked of them.
    pub load_ppm: u32,
    /// How results are checked.
    pub policy: Policy,
    /// Who works against the grid.
    pub adversary: Adversary,
    /// Operators that do so, or what else the adversary's share is of.
    pub liars_ppm: u32,
    /// Whether liars begin with as much standing as the honest: they have been honest so far.
    pub liars_established: bool,
    /// When a liar that was caught comes back under a new name; never when absent.
    pub re_entry_ms: Option<Millis>,
    /// Checked tasks that operators begin with, but for newcomers; 0 where the grid begins with nothing.
    pub shown_tasks: u64,
    /// Honest operators that begin with none.
    pub newcomers_ppm: u32,
    /// Stake of every operator, in tasks: each task costs a credit then, and what it costs is in the machine's ledger. Nobody pays
    /// for anything when 0.
    pub stake_tasks: u64,
    /// What a dear task costs, in tasks: one in a hundred is dear.
    pub dear: u64,
    /// What becomes of messages.
    pub network: Network,
    /// What becomes of hosts.
    pub trouble: Trouble,
    /// Events after which everything is derived anew and compared; never but at the end when 0.
    pub check_every_events: u64,
    /// The machine's own parameters; `vouched` is overwritten.
    pub config: Config,
}

/// What becomes of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Least delay of a message.
    pub delay_ms_min: Millis,
    /// Largest, if it is not lost.
    pub delay_ms_max: Millis,
    /// Messages that are lost, each time that they are sent.
    pub loss_ppm: u32,
    /// When a lost one is sent again.
    pub resend_ms: Millis,
    /// Time from one partition to the next; none when 0.
    pub partition_every_ms: Millis,
    /// How long one lasts.
    pub partition_ms: Millis,
    /// Hosts that it cuts off.
    pub partition_ppm: u32,
    /// When the coordinator notices that a host is gone.
    pub notice_ms: Millis,
}

/// What becomes of hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// Executions during which the host crashes.
    pub crash_ppm: u32,
    /// How long it is away then.
    pub restart_ms: Millis,
    /// Hosts that are away at any time, since their owners come and go.
    pub churn_ppm: u32,
    /// How long they are.
    pub away_ms: Millis,
    /// Hosts that are slow.
    pub slow_ppm: u32,
    /// How many times longer they take.
    pub slow_factor: u64,
    /// Hosts that often fail to run a task.
    pub flaky_ppm: u32,
    /// How often.
    pub flaky_fault_ppm: u32,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            delay_ms_min: 5,
            delay_ms_max: 60,
            loss_ppm: 1_000,
            resend_ms: 200,
            partition_every_ms: 0,
            partition_ms: 60_000,
            partition_ppm: 500_000,
            notice_ms: 3_000,
        }
    }
}

impl Network {
    /// Losses, and half of the hosts cut off now and then.
    pub fn harsh() -> Self {
        Self { loss_ppm: 100_000, delay_ms_max: 200, partition_every_ms: 300_000, ..Self::default() }
    }
}

impl Default for Trouble {
    fn default() -> Self {
        Self {
            crash_ppm: 0,
            restart_ms: 5_000,
            churn_ppm: 0,
            away_ms: 120_000,
            slow_ppm: 0,
            slow_factor: 8,
            flaky_ppm: 0,
            flaky_fault_ppm: 100_000,
        }
    }
}

impl Trouble {
    /// A tenth of the hosts come and go, some are slow, some fail, some crash.
    pub fn usual() -> Self {
        Self { crash_ppm: 100, churn_ppm: 100_000, slow_ppm: 50_000, flaky_ppm: 20_000, ..Self::default() }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            hosts: 100,
            operators: 100,
            vouched: 3,
            slots: 2,
            tasks: 100_000,
            job_tasks: 1_000,
            task_ms: 1_000,
            steps: 0,
            checkpoint_ms: 30_000,
            load_ppm: 600_000,
            policy: Policy::Audit,
            adversary: Adversary::RareCheat,
            liars_ppm: 200_000,
            liars_established: false,
            re_entry_ms: Some(10_000),
            shown_tasks: 60_000,
            newcomers_ppm: 0,
            stake_tasks: 25,
            dear: 1,
            network: Network::default(),
            trouble: Trouble::default(),
            check_every_events: 100_000,
            config: Config::default(),
        }
    }
}

impl Options {
    /// Whether a run of these makes sense.
    ///
    /// # Errors
    /// Names the first number that is out of its bounds.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        let ppm = 1_000_000;
        bounds::check([
            ("number of hosts", self.hosts.into(), 1, 1_000_000),
            ("number of operators", self.operators.into(), 1, self.hosts.into()),
            ("number of vouched operators", self.vouched.into(), 0, self.operators.into()),
            ("number of slots", self.slots.into(), 1, 1_000),
            ("number of tasks", self.tasks.into(), 1, 1_000_000_000),
            ("number of tasks of a job", self.job_tasks.into(), 1, 1_000_000),
            ("stake in tasks", self.stake_tasks, 0, 1_000_000),
            ("price of a dear task in tasks", self.dear, 1, 1_000),
            ("time of a task in ms", self.task_ms, 1, 600_000),
            ("number of segments of a task", self.steps.into(), 0, SEGMENTS_MAX.into()),
            ("load in ppm", self.load_ppm.into(), 1, 10 * ppm),
            ("share of liars in ppm", self.liars_ppm.into(), 0, 900_000),
            ("share of newcomers in ppm", self.newcomers_ppm.into(), 0, ppm),
            ("share of lost messages in ppm", self.network.loss_ppm.into(), 0, 900_000),
            ("largest delay in ms", self.network.delay_ms_max, self.network.delay_ms_min, 60_000),
            ("share of hosts that are away in ppm", self.trouble.churn_ppm.into(), 0, 900_000),
            ("factor of slow hosts", self.trouble.slow_factor, 1, 100),
        ])
    }
}

/// Simulates a grid until all jobs have ended.
///
/// # Errors
/// The first invariant that did not hold, with the seed that shows it again.
pub fn run(options: &Options) -> Result<Report, Broken> {
    world::World::new(options).run()
}
