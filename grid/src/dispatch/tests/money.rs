//! Jobs that somebody pays for: what is paid, to whom, and what a liar has of it.

use registry::{credits::Credits, device::DeviceAsk, id::RequesterId, job::Limits};

use super::{
    audit::{is_suspended, lines},
    *,
};
use crate::{
    audit::AuditConfig,
    ledger::{Account, Cause, Ground, Holder, LedgerError, Rules, Standing},
};

const ALICE: RequesterId = RequesterId([77; 32]);
/// What one execution costs here: ten units of fuel at a thousand micro-credits a giga-fuel, and an output of 33 bytes.
const TASK_COSTS: u64 = 2;

fn micro(micro: u64) -> Credits {
    Credits::from_micro(micro).unwrap()
}

fn prices() -> PriceTable {
    PriceTable { giga_fuel_micro: 1_000, mib_out_micro: 10, ..PriceTable::default() }
}

/// The most that an execution may cost within [`limits`].
fn worst() -> Credits {
    prices().worst(&limits(), DeviceAsk::Any).unwrap().total
}

pub(super) fn limits() -> Limits {
    Limits { fuel_max: 1_000_000_000, output_bytes_max: 1 << 20, ..Limits::default() }
}

/// A grid in which all hosts ask the same, and Alice has so much and pays for everything.
pub(super) fn grid(vouched: u8, conducts: &[Conduct], seed: u64, alice: u64, cap: u64) -> World {
    let vouched = (1..=vouched).map(|index| OperatorId(operator_key(index).public())).collect();
    let audit = AuditConfig { rate_ppm_min: 100_000, ..AuditConfig::default() };
    let mut world = World::priced(prices(), Config { vouched, audit, ..Config::default() }, conducts, seed);
    deposit(&mut world, Holder::Requester(ALICE), alice);
    world.payer = Some(Payer { requester: ALICE, cap: micro(cap) });
    world
}

fn enter(world: &mut World, entry: Entry) {
    world.state.ledger().admits(&entry).unwrap();
    world.feed(Event::Entered { entry });
}

fn deposit(world: &mut World, to: Holder, amount: u64) {
    enter(world, Entry::Deposit { to, amount: micro(amount) });
}

/// The host's operator vouches with so much.
pub(super) fn stake(world: &mut World, index: usize, amount: u64) -> OperatorId {
    let operator = operator(world, index);
    deposit(world, Holder::Operator(operator), amount);
    enter(world, Entry::Stake { operator, amount: micro(amount) });
    operator
}

fn operator(world: &World, index: usize) -> OperatorId {
    OperatorId(world.hosts[index].operator.public())
}

fn on(world: &World, account: Account) -> u64 {
    world.state.ledger().balance(account).credits().unwrap().micro()
}

/// The host asks this from now on.
fn asks(world: &mut World, index: usize, prices: PriceTable) {
    let others = std::mem::replace(&mut world.prices, prices);
    world.join(index);
    world.prices = others;
}

/// Time passes until everything is settled.
fn settle(world: &mut World) {
    while let Some(due) = world.state.next_timer() {
        world.now = world.now.max(due);
        world.feed(Event::Tick);
        while let Some(busy) = (0..world.hosts.len())
            .find(|index| world.hosts[*index].conduct != Conduct::Silent && !world.hosts[*index].inbox.is_empty())
        {
            world.answer(busy);
        }
    }
}

#[test]
fn each_execution_that_the_verdict_is_for_is_paid_once_and_the_rest_goes_back() {
    let mut world = grid(3, &[Conduct::Honest; 3], 1, 1_000_000, 100_000);
    let job = world.submit(&lines(40), |spec| spec.limits = limits());
    assert_eq!(on(&world, Account::Requester(ALICE)), 900_000, "the whole cap lies in escrow");
    world.run();
    let executions = world.state.job(job).unwrap().executions;
    assert!(executions > 40, "some are audited");
    let earned: u64 = (0..3).map(|index| on(&world, Account::Earned(operator(&world, index)))).sum();
    assert_eq!(earned, executions * TASK_COSTS);
    assert_eq!(on(&world, Account::Requester(ALICE)), 1_000_000 - earned);
    let invoice = world.state.ledger().invoice(job).unwrap();
    invoice.check().unwrap();
    assert_eq!((invoice.lines.len() as u64, invoice.total), (executions, micro(earned)));
    settle(&mut world);
    let own: u64 = (0..3).map(|index| on(&world, Account::Operator(operator(&world, index)))).sum();
    assert_eq!(own, earned);
    world.check_replay();
}

#[test]
fn a_job_that_nobody_pays_for_waits_for_hosts_that_ask_for_nothing() {
    let mut world = grid(3, &[Conduct::Honest; 3], 2, 1_000, 1_000);
    world.payer = None;
    let job = world.submit(b"a\n", |spec| spec.deadline_ms = 60_000);
    let view = world.state.job_view(job).unwrap();
    let waits = view.waits.unwrap();
    assert!(waits.contains("the job has none: submit it with a cap"), "{waits}");
    world.prices = PriceTable::default();
    world.join(1);
    world.run();
    assert_eq!(phase(&world, job), &Phase::Done);
}

#[test]
fn a_job_that_nobody_pays_for_runs_on_a_host_whose_prices_are_for_something_else() {
    let mut world = grid(3, &[Conduct::Honest; 3], 12, 1_000, 1_000);
    (world.payer, world.prices) =
        (None, PriceTable { model_second_micro: [(DeviceKind::Gpu, 5)].into(), ..PriceTable::default() });
    (0..3).for_each(|index| world.join(index));
    let job = world.submit(b"a\n", |spec| spec.device = DeviceAsk::Cpu);
    world.run();
    assert_eq!(phase(&world, job), &Phase::Done);
}

#[test]
fn a_job_that_is_known_to_the_ledger_alone_is_not_opened_twice() {
    let mut world = grid(3, &[Conduct::Honest; 3], 13, 1_000_000, 5_000);
    world.state.config.finished_jobs_max = 1;
    let nonce = |spec: &mut JobSpec| (spec.nonce, spec.limits) = (7, limits());
    let job = world.submit(b"a\n", nonce);
    world.run();
    world.submit(b"b\n", |spec| spec.limits = limits());
    world.run();
    assert!(world.state.job(job).is_none() && world.state.ledger().knows(job));
    world.ended.remove(&job);
    assert_eq!(world.submit(b"a\n", nonce), job);
    assert!(matches!(phase(&world, job), Phase::Failed { reason } if reason.word == "escrow"));
}

#[test]
fn what_a_requester_has_not_is_refused_and_a_cap_that_is_spent_ends_its_job_with_the_numbers() {
    let mut world = grid(3, &[Conduct::Honest; 3], 3, 5_000, 5_001);
    let job = world.submit(b"a\n", |_| {});
    assert!(
        matches!(phase(&world, job), Phase::Failed { reason } if reason.word == "funds"),
        "{:?}",
        phase(&world, job)
    );
    assert_eq!(on(&world, Account::Requester(ALICE)), 5_000);
    let cap = worst().micro() + 20;
    world.payer = Some(Payer { requester: ALICE, cap: micro(cap) });
    let job = world.submit(&lines(100), |spec| (spec.limits, spec.policy) = (limits(), Policy::None));
    world.run();
    let Phase::Failed { reason } = phase(&world, job) else { panic!("{:?}", phase(&world, job)) };
    assert_eq!(reason.word, "cap");
    assert!(reason.detail.contains("11 of 100 shards are accepted"), "{reason}");
    let invoice = world.state.ledger().invoice(job).unwrap();
    assert_eq!(invoice.total, micro(11 * TASK_COSTS));
    let costs = world.state.job_view(job).unwrap().costs.unwrap();
    assert_eq!((costs.spent, costs.held, costs.refunded), (micro(22), Credits::ZERO, micro(cap - 22)));
    assert_eq!(on(&world, Account::Requester(ALICE)), 5_000 - 11 * TASK_COSTS);
}

#[test]
fn a_liar_loses_its_stake_and_what_it_earned_and_whoever_it_lied_to_is_given_it() {
    // With this seed both are asked about the same result, before one of them is caught alone.
    let mut world = grid(3, &[Conduct::Honest; 5], 5, 1_000_000, 500_000);
    (world.state.config.audit.rate_ppm_min, world.state.config.audit.auditors) = (1_000_000, 2);
    let liar = stake(&mut world, 3, 10_000);
    (3..5).for_each(|index| audit::shown(&mut world, index, 1_000_000));
    let honest = world.submit(&lines(40), |spec| spec.limits = limits());
    world.run();
    let earned = on(&world, Account::Earned(liar));
    assert!(earned > 0);
    assert_eq!(phase(&world, honest), &Phase::Done);
    (3..5).for_each(|index| world.hosts[index].conduct = Conduct::Colluder);
    world.submit(&lines(40), |spec| spec.limits = limits());
    world.run();
    assert!(world.state.ledger().is_slashed(liar));
    for account in [Account::Stake(liar), Account::Earned(liar), Account::Unbonding(liar), Account::Operator(liar)] {
        assert_eq!(on(&world, account), 0, "{account}");
    }
    let slashed = world.state.ledger().postings().find_map(|posting| match posting.cause {
        Cause::Slashed { auditor, .. } => Some((posting.clone(), auditor.unwrap())),
        _ => None,
    });
    let (posting, auditor) = slashed.unwrap();
    assert_eq!(posting.gain(Account::Requester(ALICE)), micro(3_000));
    assert_eq!(posting.gain(Account::Operator(auditor)), micro(1_000));
    assert_eq!(on(&world, Account::Burn), 6_000);
    let refusal = world.state.ledger().admits(&Entry::Stake { operator: liar, amount: micro(1) });
    assert!(matches!(refusal, Err(LedgerError::Convicted { .. })));
    let paid = world.state.ledger().invoice(honest).unwrap();
    assert!(paid.lines.iter().any(|line| line.operator == liar && line.standing == Standing::Returned));
}

#[test]
fn who_errs_alone_loses_what_it_earned_and_keeps_its_stake() {
    let mut world = grid(3, &[Conduct::Honest; 4], 10, 1_000_000, 500_000);
    world.state.config.audit.rate_ppm_min = 1_000_000;
    let flaky = stake(&mut world, 3, 10_000);
    audit::shown(&mut world, 3, 1_000_000);
    world.submit(&lines(40), |spec| spec.limits = limits());
    world.run();
    assert!(on(&world, Account::Earned(flaky)) > 0);
    world.hosts[3].conduct = Conduct::Liar;
    world.submit(&lines(40), |spec| spec.limits = limits());
    world.run();
    assert!(world.state.ledger().convicted(flaky).is_some() && is_suspended(&world, 3));
    assert_eq!((on(&world, Account::Earned(flaky)), on(&world, Account::Stake(flaky))), (0, 10_000));
    enter(&mut world, Entry::Unbond { operator: flaky, amount: micro(10_000) });
    settle(&mut world);
    assert_eq!(on(&world, Account::Operator(flaky)), 10_000, "it may go with what it brought");
}

#[test]
fn newcomers_are_paid_by_nobody_for_what_they_repeat() {
    let mut world = grid(2, &[Conduct::Honest; 3], 5, 1_000_000, 500_000);
    let job = world.submit(&lines(100), |spec| spec.limits = limits());
    world.run();
    settle(&mut world);
    let newcomer = world.hosts[2].node();
    let probed = (0..100).find_map(|index| {
        let why = world.state.why(job, registry::job::Stage::Map, index).unwrap();
        why.shard.executions.into_iter().find(|execution| execution.node == newcomer)
    });
    let Some(Pay::Unpaid { why }) = probed.unwrap().pay else { panic!("a probe is paid") };
    assert!(why.contains("what its operator is worth"), "{why}");
    assert!(world.state.host(newcomer).unwrap().record.confirmed > 0);
    assert_eq!(on(&world, Account::Operator(operator(&world, 2))), 0);
    let shown = world.state.reputation.standing(operator(&world, 2), Class::Exact);
    assert!(shown.confirmed > 0);
    assert_eq!(shown.checked_micro, shown.confirmed * TASK_COSTS, "each is worth what others are paid for it");
    assert!(world.state.ledger().invoice(job).unwrap().lines.iter().all(|line| line.node != newcomer));
}

#[test]
fn where_nothing_reproduces_everybody_is_paid_and_nobody_slashed() {
    let mut world = grid(0, &[Conduct::Liar; 6], 6, 1_000_000, 500_000);
    let job = world.submit(b"a\n", |spec| (spec.limits, spec.policy) = (limits(), Policy::Quorum(2)));
    world.run();
    let invoice = world.state.ledger().invoice(job).unwrap();
    assert_eq!(invoice.lines.len(), 5);
    assert!(invoice.lines.iter().all(|line| line.ground == Ground::Inconclusive));
}

#[test]
fn a_receipt_that_asks_another_price_is_a_fault_and_costs_nothing() {
    let mut world = grid(3, &[Conduct::Honest; 3], 7, 1_000_000, 500_000);
    let job = world.submit(b"a\n", |spec| (spec.limits, spec.policy) = (limits(), Policy::None));
    let cheater = (0..3).find(|index| !world.hosts[*index].inbox.is_empty()).unwrap();
    world.prices.giga_fuel_micro = u64::MAX >> 32;
    world.answer(cheater);
    let node = world.hosts[cheater].node();
    assert_eq!(world.state.host(node).unwrap().record.faults, 1);
    let why = world.state.why(job, registry::job::Stage::Map, 0).unwrap();
    assert!(why.shard.last_fault.unwrap().detail.contains("asks another price"));
    world.prices = prices();
    world.run();
    assert_eq!(world.state.ledger().invoice(job).unwrap().total, micro(TASK_COSTS));
}

#[test]
fn who_says_that_it_took_more_fuel_is_contradicted_and_beyond_the_limit_is_not_even_heard() {
    let mut world =
        grid(3, &[Conduct::Honest, Conduct::Honest, Conduct::Honest, Conduct::Greedy], 14, 1_000_000, 500_000);
    world.state.config.audit.rate_ppm_min = 1_000_000;
    audit::shown(&mut world, 3, 1_000_000);
    let job = world.submit(&lines(40), |spec| spec.limits = limits());
    world.run();
    let greedy = operator(&world, 3);
    assert!(world.state.ledger().convicted(greedy).is_some() && is_suspended(&world, 3));
    let invoice = world.state.ledger().invoice(job).unwrap();
    assert!(invoice.lines.iter().all(|line| line.operator != greedy && line.usage.fuel == 10), "{invoice:?}");

    let mut world = grid(3, &[Conduct::Greedy, Conduct::Honest, Conduct::Honest], 15, 1_000_000, 500_000);
    let job = world.submit(&lines(4), |spec| {
        (spec.limits, spec.policy) = (Limits { fuel_max: 15, ..limits() }, Policy::Quorum(3));
        (spec.attempts_max, spec.deadline_ms) = (4, 60_000);
    });
    world.run();
    let why = world.state.why(job, registry::job::Stage::Map, 0).unwrap();
    assert!(why.shard.last_fault.unwrap().detail.contains("more fuel than the task's limit"));
}

#[test]
fn settled_jobs_leave_with_their_invoice_and_old_postings_are_archived() {
    let mut world = grid(3, &[Conduct::Honest; 3], 8, 1_000_000, 10_000);
    (world.state.config.finished_jobs_max, world.state.config.postings_max) = (1, 64);
    for _ in 0..4 {
        world.submit(&lines(20), |spec| spec.limits = Limits { fuel_max: 1_000_000, ..limits() });
        world.run();
    }
    assert!(world.invoices.is_empty(), "nothing is settled before its audit window is over");
    settle(&mut world);
    assert_eq!(world.invoices.len(), 3);
    world.invoices.iter().for_each(|invoice| invoice.check().unwrap());
    assert!(!world.archived.is_empty() && world.state.ledger().postings_len() <= 64);
    let ids: Vec<u64> = world.archived.iter().map(|posting| posting.id.0).collect();
    assert!(ids.iter().zip(0..).all(|(id, place)| *id == place), "nothing is left out of the archive");
}

#[test]
fn rules_that_do_not_fit_together_change_nothing() {
    let mut world = grid(3, &[Conduct::Honest; 3], 9, 1_000_000, 10_000);
    let ledger = Rules { unbonding_ms: 1, ..Rules::default() };
    world.feed(Event::Configured { config: Box::new(Config { ledger, ..world.config.clone() }) });
    let job = world.submit(b"a\n", |spec| spec.limits = limits());
    world.run();
    assert_eq!(phase(&world, job), &Phase::Done);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// `World::feed` checks the ledger and the holds after every event.
    #[test]
    fn whatever_happens_no_job_costs_more_than_its_cap_and_no_credit_is_lost(
        conducts in conducts(),
        seed in any::<u64>(),
        lines_of in 0usize..12,
        vouched in 0u8..3,
        policy in prop_oneof![Just(Policy::Audit), Just(Policy::Quorum(2)), Just(Policy::None)],
        cap in 0u64..5_000,
        crashes in proptest::collection::vec((0usize..7, 0usize..40), 0..4),
    ) {
        let mut world = grid(vouched, &conducts, seed, 1_000_000, cap);
        for index in 0..world.hosts.len() {
            stake(&mut world, index, 1_000);
        }
        let jobs: Vec<JobId> = (0..2).map(|_| world.submit(&lines(lines_of), |spec| {
            (spec.policy, spec.attempts_max, spec.limits) = (policy, 30, limits());
        })).collect();
        world.run_with(&crashes);
        let deposited = 1_000_000 + 1_000 * world.hosts.len() as u64;
        for job in jobs {
            let invoice = world.state.ledger().invoice(job).unwrap();
            prop_assert!(invoice.check().is_ok());
        }
        settle(&mut world);
        let all: u64 = world.state.ledger().accounts().filter_map(|(_, balance)| balance.credits()).map(Credits::micro).sum();
        prop_assert_eq!(all, deposited);
        for (index, host) in world.hosts.iter().enumerate().filter(|(_, host)| host.conduct == Conduct::Honest) {
            let operator = OperatorId(host.operator.public());
            prop_assert_eq!(on(&world, Account::Stake(operator)), 1_000, "host {} is honest", index);
        }
        world.check_replay();
    }
}

/// A job with a cap of so many executions, of which an honest host and one that colludes have had the only shard, and its referee does not
/// know yet: who comes next does.
fn disputed(cap: u64) -> (World, JobId) {
    let conducts = [Conduct::Honest, Conduct::Honest, Conduct::Colluder, Conduct::Colluder];
    let mut world = grid(1, &conducts, 3, 1 << 40, 0);
    for absent in [0, 3] {
        let node = world.hosts[absent].node();
        world.feed(Event::HostDown { node });
    }
    world.payer = Some(Payer { requester: ALICE, cap: micro(cap * worst().micro() + 1) });
    let job = world.submit(b"a\n", |spec| (spec.policy, spec.limits) = (Policy::Quorum(2), limits()));
    (1..3).for_each(|index| world.answer(index));
    (world, job)
}

#[test]
fn a_referee_that_the_job_cannot_pay_is_not_waited_for() {
    let (mut world, job) = disputed(4);
    asks(&mut world, 0, PriceTable { giga_fuel_micro: 1 << 30, ..prices() });
    world.join(3);
    assert_eq!((world.hosts[0].inbox.len(), world.hosts[3].inbox.len()), (0, 1));
    world.answer(3);
    assert_eq!(world.state.job(job).unwrap().phase, Phase::Done, "others decide");
}

#[test]
fn a_job_whose_credits_are_held_for_what_waits_for_a_referee_has_not_spent_them() {
    let (mut world, job) = disputed(3);
    world.join(3);
    // A referee that asks for nothing comes, and has enough to do for who pays nothing.
    asks(&mut world, 0, PriceTable::default());
    world.payer = None;
    world.submit(&lines(60), |spec| (spec.policy, spec.limits) = (Policy::None, limits()));
    world.answer(3);
    assert_eq!(world.state.job(job).unwrap().phase, Phase::Mapping, "it waits for the referee");
    world.prices = PriceTable::default();
    world.run();
    assert_eq!(world.state.job(job).unwrap().phase, Phase::Done);
    assert!(is_suspended(&world, 2) && is_suspended(&world, 3));
}
