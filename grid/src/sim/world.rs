//! The event loop: what happens next, what the machine says to it, and what follows from that in the world.

use std::collections::{BTreeMap, VecDeque};

use registry::{
    id::{NodeId, OperatorId},
    job::{Class, Stage},
    receipt::Record,
};

use super::{
    Options, Report,
    check::Broken,
    hosts::{Given, Host},
    names::{Kind, Names},
    purse::Till,
    random::Random,
    report::Tally,
    slab::{Slab, Ticket},
    trial::Court,
    work::{self, Answer, Jobs},
};
use crate::{
    audit::TASK_MICRO,
    config::Config,
    dispatch::{self, Effect, Event, Notice, State},
    flow::{AssignmentId, Millis},
    reputation::Standing,
};

/// When a run begins: late enough that no age is cut off at zero.
const START_MS: Millis = 1_000_000;

/// What will happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// The next job is submitted.
    Submit,
    /// An assignment reaches its host.
    Arrive(Ticket),
    /// A host looks again at a task that it holds back.
    Look(Ticket),
    /// An execution ends.
    Done(Ticket),
    /// A host's answer reaches the coordinator, if the connection is still the same.
    Receive(Ticket, u32),
    /// A host hears that an assignment is not wanted any more.
    Revoke(u32, AssignmentId),
    /// A host's connection stands.
    Join(u32, u32),
    /// The coordinator notices that a host's connection is gone.
    Lost(u32, u32),
    /// A host crashes.
    Crash(u32),
    /// A host is there again.
    Return(u32),
    /// Somebody takes a host away.
    Churn,
    /// The network parts.
    Cut,
    /// It is one again.
    Heal,
    /// Who was caught comes back under a new name.
    ReEnter(u32),
    /// The driver has found where two results of a shard of this job part.
    Part(u32, u32),
    /// A host comes to a state that it keeps.
    Keep(Ticket, u32),
    /// The coordinator has the state, if the connection is still the same.
    Kept(Ticket, u32, u32),
}

/// What will happen when, in order; at the same time first what was said first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// There are far fewer milliseconds than happenings.
    times: BTreeMap<Millis, VecDeque<Happening>>,
    /// Lists of times that are over, for others.
    spent: Vec<VecDeque<Happening>>,
    len: usize,
}

impl Queue {
    pub(super) fn at(&mut self, when: Millis, what: Happening) {
        let spent = &mut self.spent;
        self.times.entry(when).or_insert_with(|| spent.pop().unwrap_or_default()).push_back(what);
        self.len += 1;
    }

    fn next(&self) -> Option<Millis> {
        self.times.first_key_value().map(|(when, _)| *when)
    }

    fn pop(&mut self) -> Option<(Millis, Happening)> {
        let mut first = self.times.first_entry()?;
        let (when, what) = (*first.key(), first.get_mut().pop_front()?);
        if first.get().is_empty() {
            self.spent.push(first.remove());
        }
        self.len -= 1;
        Some((when, what))
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Who answers for hosts.
#[derive(Debug)]
pub(super) struct Operator {
    pub(super) id: OperatorId,
    /// Whether it is of the adversary's.
    pub(super) lies: bool,
    /// Tasks that its hosts have done.
    pub(super) done: u32,
    /// Its hosts.
    pub(super) hosts: Vec<u32>,
    /// When it first signed what is wrong.
    pub(super) first_lie_ms: Option<Millis>,
    /// Wrong results that were delivered and that it signed first.
    pub(super) wrong: u64,
    pub(super) caught_ms: Option<Millis>,
}

/// Streams of chance, so that what one concern draws does not shift the others.
#[derive(Debug)]
pub(super) struct Chance {
    pub(super) network: Random,
    pub(super) hosts: Random,
    pub(super) liars: Random,
    pub(super) work: Random,
    /// Pieces of tasks, which there are where tasks have steps.
    pub(super) pieces: Random,
}

/// Everything that is simulated.
pub(super) struct World<'a> {
    pub(super) options: &'a Options,
    pub(super) state: State,
    pub(super) now: Millis,
    pub(super) queue: Queue,
    pub(super) hosts: Vec<Host>,
    pub(super) operators: Vec<Operator>,
    pub(super) jobs: Jobs,
    pub(super) given: Slab<Given>,
    pub(super) chance: Chance,
    pub(super) tally: Tally,
    pub(super) till: Till,
    pub(super) names: Names,
    pub(super) court: Court,
    /// Tasks after which an operator has standing, as far as it can tell.
    pub(super) standing_tasks: u32,
    /// Room for what the machine says to an event.
    effects: Vec<Effect>,
    job_numbers: u32,
    submitted: u32,
    /// Time from one job to the next.
    job_every_ms: Millis,
    open_jobs_max: usize,
}

impl<'a> World<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        let random = Random::new(options.seed);
        let [network, hosts, liars, work, pieces] = [1, 2, 3, 4, 5].map(|concern| random.fork(concern));
        let newcomer_tasks = options.config.audit.newcomer_micro / TASK_MICRO;
        let mut world = Self {
            options,
            state: State::new(Config::default()),
            now: START_MS,
            queue: Queue::default(),
            hosts: Vec::new(),
            operators: Vec::new(),
            jobs: Jobs::default(),
            given: Slab::default(),
            chance: Chance { network, hosts, liars, work, pieces },
            tally: Tally::new(START_MS),
            till: Till::default(),
            names: Names::new(options.seed, options.steps > 1),
            court: Court::default(),
            // Beyond it, since not every task of a newcomer is known to have been counted.
            standing_tasks: u32::try_from(newcomer_tasks * 5 / 4).unwrap_or(u32::MAX),
            effects: Vec::new(),
            job_numbers: 0,
            submitted: 0,
            job_every_ms: 1,
            open_jobs_max: 0,
        };
        world.people();
        world
    }

    /// Who is there at the start, with what they have shown so far.
    fn people(&mut self) {
        let options = self.options;
        let lying = u64::from(options.operators) * u64::from(options.liars_ppm) / 1_000_000;
        let lying = if options.adversary.lies() { u32::try_from(lying).unwrap_or(0) } else { 0 };
        let first_liar = options.operators.saturating_sub(lying).max(options.vouched);
        let mut standings = Vec::new();
        for number in 0..options.operators {
            let lies = number >= first_liar;
            let is_new = number >= options.vouched && self.chance.hosts.happens(options.newcomers_ppm);
            let is_known = if lies { options.liars_established } else { !is_new };
            let times = if lies { options.adversary.multiplies() } else { 1 };
            for _ in 0..times {
                let operator = self.operator(lies);
                if is_known && options.shown_tasks > 0 {
                    self.operators[operator as usize].done = u32::MAX / 2;
                    let checked_micro = options.shown_tasks * TASK_MICRO;
                    let standing = Standing { checked_micro, at_ms: START_MS, confirmed: options.shown_tasks };
                    standings.push((self.operators[operator as usize].id, Class::Exact, standing));
                }
                let hosts = options.hosts / options.operators + u32::from(number < options.hosts % options.operators);
                (0..hosts).for_each(|_| self.machine(operator));
            }
        }
        let vouched = (0..options.vouched).map(|number| self.operators[number as usize].id).collect();
        let config = Config { vouched, finished_jobs_max: 64, finished_shards_max: 20_000, ..options.config.clone() };
        self.state = State::with_standings(config, standings);
    }

    /// A new name.
    pub(super) fn operator(&mut self, lies: bool) -> u32 {
        let number = u32::try_from(self.operators.len()).unwrap_or(u32::MAX);
        let id = OperatorId(self.names.give(Kind::Operator, number));
        let (hosts, first_lie_ms, caught_ms) = (Vec::new(), None, None);
        self.operators.push(Operator { id, lies, done: 0, hosts, first_lie_ms, wrong: 0, caught_ms });
        number
    }

    pub(super) fn machine(&mut self, operator: u32) {
        let number = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
        let node = NodeId(self.names.give(Kind::Host, number));
        let host =
            Host::new(self.options, node, operator, self.operators[operator as usize].lies, &mut self.chance.hosts);
        self.operators[operator as usize].hosts.push(number);
        self.hosts.push(host);
    }

    pub(super) fn run(mut self) -> Result<Report, Broken> {
        self.begin()?;
        while self.submitted < self.options.tasks || self.state.open_jobs() > 0 || self.state.open_count() > 0 {
            self.step()?;
        }
        self.check_ended()?;
        let (ended_ms, purse) = (self.now, self.settle()?);
        Ok(Report::of(self, ended_ms, purse))
    }

    fn begin(&mut self) -> Result<(), Broken> {
        self.fund()?;
        for host in 0..self.hosts.len() {
            self.join(u32::try_from(host).unwrap_or(u32::MAX))?;
        }
        let known = |host: &&Host| self.state.is_qualified(self.operators[host.operator as usize].id, Class::Exact);
        let power: u64 = self.hosts.iter().filter(known).map(Host::power_ppm).sum();
        let power = if power > 0 { power } else { self.hosts.iter().map(Host::power_ppm).sum() };
        let Options { job_tasks, task_ms, load_ppm, slots, .. } = *self.options;
        let asked = (u128::from(power) * u128::from(load_ppm) / 1_000_000).max(1);
        let every = u128::from(job_tasks) * u128::from(task_ms) * 1_000_000 / asked;
        self.job_every_ms = Millis::try_from(every).unwrap_or(Millis::MAX).max(1);
        let at_once = self.hosts.len() as u64 * u64::from(slots) / u64::from(job_tasks);
        self.open_jobs_max = usize::try_from(3 * at_once + 4).unwrap_or(usize::MAX);
        self.queue.at(self.now, Happening::Submit);
        self.begin_trouble();
        Ok(())
    }

    /// The next thing that happens, be it in the world or because time has passed.
    fn step(&mut self) -> Result<(), Broken> {
        let next = self.queue.next();
        self.tally.events += 1;
        match self.state.next_timer() {
            Some(due) if next.is_none_or(|next| due <= next) => {
                self.now = self.now.max(due);
                self.feed(Event::Tick)?;
            }
            _ => {
                let Some((when, what)) = self.queue.pop() else {
                    return Err(self.broken("every job ends", "nothing is due and jobs are open"));
                };
                self.now = self.now.max(when);
                self.happen(what)?;
            }
        }
        self.tally.peak(self.state.open_count(), self.queue.len(), self.jobs.open(), self.hosts.len());
        let every = self.options.check_every_events;
        if every > 0 && self.tally.events.is_multiple_of(every) { self.check_all() } else { Ok(()) }
    }

    fn happen(&mut self, what: Happening) -> Result<(), Broken> {
        match what {
            Happening::Submit => return self.submit(),
            Happening::Arrive(ticket) => self.arrive(ticket),
            Happening::Look(ticket) => self.proceed(ticket),
            Happening::Done(ticket) => self.done(ticket),
            Happening::Receive(ticket, epoch) => return self.receive(ticket, epoch),
            Happening::Revoke(host, assignment) => self.drop_assignment(host, assignment),
            Happening::Join(host, epoch) if self.hosts[host as usize].epoch == epoch => return self.join(host),
            Happening::Lost(host, epoch) if self.hosts[host as usize].epoch == epoch => {
                let node = self.hosts[host as usize].node;
                return self.feed(Event::HostDown { node });
            }
            Happening::Join(..) | Happening::Lost(..) => {}
            Happening::Crash(host) => self.leave(host, self.options.trouble.restart_ms, self.options.network.notice_ms),
            Happening::Return(host) => self.come_back(host),
            Happening::Churn => self.churn(),
            Happening::Cut => self.cut(),
            Happening::Heal => self.heal(),
            Happening::ReEnter(operator) => return self.re_enter(operator),
            Happening::Part(number, shard) => return self.parted(number, shard),
            Happening::Keep(ticket, state) => self.keep(ticket, state),
            Happening::Kept(ticket, epoch, state) => return self.kept(ticket, epoch, state),
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<(), Broken> {
        if self.jobs.open() >= self.open_jobs_max {
            self.queue.at(self.now + self.job_every_ms.div_ceil(4), Happening::Submit);
            return Ok(());
        }
        let tasks = self.options.job_tasks.min(self.options.tasks - self.submitted);
        self.submitted += tasks;
        let number = self.job_numbers;
        self.job_numbers += 1;
        let (spec, plan, mut work) = work::submit(self.options, number, tasks, self.now, &mut self.chance.work);
        let unsteady = self.options.adversary == super::Adversary::NondeterministicModule;
        work.is_unsteady = unsteady && self.chance.work.happens(self.options.liars_ppm);
        let secret = work.secret;
        self.jobs.insert(number, work);
        if self.submitted < self.options.tasks {
            self.queue.at(self.now + self.job_every_ms, Happening::Submit);
        }
        self.feed(Event::Submitted { spec: Box::new(spec), plan, secret, payer: self.payer(tasks) })
    }

    /// The machine takes an event; the world takes its effects.
    pub(super) fn feed(&mut self, event: Event) -> Result<(), Broken> {
        let mut effects = std::mem::take(&mut self.effects);
        dispatch::take(&mut self.state, event, self.now, &mut effects);
        let taken = effects.drain(..).try_for_each(|effect| self.perform(effect));
        self.effects = effects;
        taken
    }

    fn perform(&mut self, effect: Effect) -> Result<(), Broken> {
        match effect {
            Effect::Assign { node, assignment } => self.assign(node, &assignment)?,
            Effect::Revoke { node, assignment } => {
                let when = self.now + self.delay();
                self.tally.note(3, assignment.0);
                self.queue.at(when, Happening::Revoke(self.names.host(node), assignment));
            }
            Effect::Acknowledge { node, assignment } => self.drop_assignment(self.names.host(node), assignment),
            Effect::Keep { job, shard, accused: None, record: Record::Accepted(record) } => {
                self.overtaken(job, shard.index)?;
                self.accepted(job, shard.index, &record)?
            }
            Effect::Keep { job, shard, accused: Some(node), record } => {
                self.check_accused(self.hosts[self.names.host(node) as usize].operator)?;
                if let Record::Dispute(_) = record {
                    self.settled(job, shard.index, node, &record)?;
                }
            }
            Effect::Part { job, shard, sides } => self.part(job, shard, *sides),
            Effect::Notify { job, notice } => self.noticed(job, notice)?,
            Effect::Forget { job, .. } => self.jobs.forget(job),
            Effect::Archive { postings } => self.posted(&postings),
            Effect::Invoice { invoice } => self.invoiced(&invoice),
            // Jobs reduce nothing, and histories have not begun.
            Effect::Keep { .. } | Effect::Concat { .. } | Effect::Changed { .. } => {}
        }
        Ok(())
    }

    fn accepted(
        &mut self,
        job: registry::id::JobId,
        shard: u32,
        record: &registry::receipt::Accepted,
    ) -> Result<(), Broken> {
        let output = self.state.job(job).and_then(|job| job.work(Stage::Map, shard)).and_then(|(_, output)| output);
        // Withdrawn by the same event: what follows says so.
        let Some(answer) = output.map(work::answered) else { return Ok(()) };
        let Some(number) = self.jobs.number(job) else { return Ok(()) };
        let has_ended = self.jobs.get(number).is_some_and(|work| work.has_ended);
        if let Some(work) = self.jobs.get(number) {
            self.check_accepted(work, shard, answer, record)?;
        }
        self.tally.note(4, u64::from(number) << 32 | u64::from(shard));
        if let Some(task) = self.jobs.task_mut(number, shard) {
            task.stands = Some((answer, self.now));
        }
        // A result that was delivered is replaced by what a referee reproduced.
        self.tally.put_right += u64::from(has_ended);
        if has_ended && answer != Answer::TRUTH && self.options.vouched > 0 {
            return Err(self.broken("nothing is put right that was right", format!("job {number}, shard {shard}")));
        }
        Ok(())
    }

    fn noticed(&mut self, job: registry::id::JobId, notice: Notice) -> Result<(), Broken> {
        match notice {
            Notice::Withdrawn { shard } => {
                let number = self.jobs.number(job);
                if let Some(task) = number.and_then(|number| self.jobs.task_mut(number, shard.index)) {
                    let stood = task.stands.take();
                    self.tally.withdrawn(stood.map(|(answer, _)| answer));
                }
            }
            Notice::Faulted { .. } => self.tally.faults += 1,
            Notice::Caught { operator, .. } => return self.caught(self.names.operator(operator)),
            Notice::Ended { phase } => {
                if let Some(number) = self.jobs.number(job) {
                    self.adjourned(number);
                }
                let Some(work) = self.jobs.end(job) else {
                    return Err(self.broken("a job ends once", format!("{job}")));
                };
                self.tally.ended(work, &phase, &mut self.operators);
                if phase == "done" && !work.tasks.iter().all(|task| task.stands.is_some()) {
                    return Err(self.broken("a job that is done has all its results", format!("{job}")));
                }
            }
            Notice::Planned { .. } | Notice::Accepted { .. } => {}
        }
        Ok(())
    }

    /// An operator was caught: its hosts go, and come back under another name where that is free.
    fn caught(&mut self, operator: u32) -> Result<(), Broken> {
        self.check_accused(operator)?;
        let now = self.now;
        let caught = &mut self.operators[operator as usize];
        if caught.caught_ms.is_some() {
            return Ok(());
        }
        caught.caught_ms = Some(now);
        self.tally.note(5, operator.into());
        for host in caught.hosts.clone() {
            self.expel(host);
        }
        if let Some(after) = self.options.re_entry_ms.filter(|_| self.options.adversary.comes_back()) {
            self.queue.at(now + after, Happening::ReEnter(operator));
        }
        Ok(())
    }

    fn re_enter(&mut self, operator: u32) -> Result<(), Broken> {
        let hosts = self.operators[operator as usize].hosts.len();
        let (lies, first) = (self.operators[operator as usize].lies, self.hosts.len());
        let operator = self.operator(lies);
        self.vouch(operator as usize)?;
        (0..hosts).for_each(|_| self.machine(operator));
        (first..first + hosts).try_for_each(|host| self.join(u32::try_from(host).unwrap_or(u32::MAX)))
    }
}
