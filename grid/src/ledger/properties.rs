//! Random events in any order, many of them nonsense: after each the ledger holds, a refusal has changed nothing, and what
//! the model outside adds up agrees.

use std::collections::BTreeMap;

use proptest::prelude::*;
use registry::{canon, job::ShardInfo};

use super::{tests::*, *};
use crate::flow::{AssignmentId, Verdict};

/// Something that happens.
#[derive(Debug, Clone, Copy)]
enum Step {
    Deposit { to: Holder, amount: u64 },
    Withdraw { from: Holder, amount: u64 },
    Open { job: u64, cap: u64, reserve: u64 },
    Hold { job: u64, shard: u32, host: u8, role: Role },
    Release { at: usize },
    Pay { at: usize, fuel: u64, wrote: u8, verdict: Said },
    Close { job: u64 },
    Forget { job: u64 },
    Contest { job: u64, shard: u32 },
    Absolve { job: u64, shard: u32 },
    Stake { host: u8, amount: u64 },
    Unbond { host: u8, amount: u64 },
    Slash { at: usize, auditor: Option<u8> },
    Settle,
    Archive { keep: u64 },
    Wait { ms: u64 },
    Restart,
}

/// What the verdict on a shard is.
#[derive(Debug, Clone, Copy)]
enum Said {
    Own,
    Other,
    Inconclusive,
    Open,
}

const JOBS: u64 = 3;
const HOSTS: std::ops::Range<u8> = 10..14;

fn holder() -> impl Strategy<Value = Holder> {
    prop_oneof![
        3 => Just(Holder::Requester(ALICE)),
        1 => HOSTS.prop_map(|host| Holder::Operator(operator(host))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let job = || 0..JOBS;
    let amount = || prop_oneof![6 => 0u64..4_000, 1 => Just(registry::credits::CREDITS_MICRO_MAX)];
    let role = prop_oneof![3 => Just(Role::Work), 1 => Just(Role::Audit)];
    let said =
        prop_oneof![6 => Just(Said::Own), 1 => Just(Said::Other), 1 => Just(Said::Inconclusive), 1 => Just(Said::Open)];
    let fuel = prop_oneof![6 => 0..=4 * GIGA, 1 => Just(5 * GIGA), 1 => Just(u64::MAX)];
    prop_oneof![
        2 => (holder(), amount()).prop_map(|(to, amount)| Step::Deposit { to, amount }),
        1 => (holder(), amount()).prop_map(|(from, amount)| Step::Withdraw { from, amount }),
        4 => (job(), 0u64..60_000, 0u64..20_000).prop_map(|(job, cap, reserve)| Step::Open { job, cap, reserve }),
        16 => (job(), 0u32..4, HOSTS, role).prop_map(|(job, shard, host, role)| Step::Hold { job, shard, host, role }),
        2 => any::<usize>().prop_map(|at| Step::Release { at }),
        16 => (any::<usize>(), fuel, 0u8..2, said)
            .prop_map(|(at, fuel, wrote, verdict)| Step::Pay { at, fuel, wrote, verdict }),
        1 => job().prop_map(|job| Step::Close { job }),
        1 => job().prop_map(|job| Step::Forget { job }),
        1 => (job(), 0u32..4).prop_map(|(job, shard)| Step::Contest { job, shard }),
        1 => (job(), 0u32..4).prop_map(|(job, shard)| Step::Absolve { job, shard }),
        3 => (HOSTS, amount()).prop_map(|(host, amount)| Step::Stake { host, amount }),
        3 => (HOSTS, amount()).prop_map(|(host, amount)| Step::Unbond { host, amount }),
        1 => (any::<usize>(), proptest::option::of(HOSTS)).prop_map(|(at, auditor)| Step::Slash { at, auditor }),
        2 => Just(Step::Settle),
        1 => (0u64..20).prop_map(|keep| Step::Archive { keep }),
        2 => (0u64..40_000_000).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Restart),
    ]
}

/// What is known outside the ledger.
#[derive(Default)]
struct Model {
    now: Millis,
    /// Every order that was ever tried.
    orders: Vec<Ran>,
    /// All postings, archived or not.
    archive: Vec<Posting>,
    /// Caps of open jobs, by the posting that opened them.
    caps: BTreeMap<JobId, (PostingId, u64)>,
}

impl Model {
    /// An order that was tried before, or one that never was.
    fn order(&self, at: usize) -> Ran {
        let never = Ran { job: 0, shard: 0, host: HOSTS.start, assignment: 999, fuel: GIGA, wrote: 0 };
        self.orders.get(at % (self.orders.len() + 1)).copied().unwrap_or(never)
    }

    fn take(&mut self, ledger: &mut Ledger, step: Step) -> Result<(), LedgerError> {
        let (now, id) = (self.now, |job: u64| spec(job).id());
        let amount = |micro: u64| Credits::from_micro(micro).unwrap();
        match step {
            Step::Deposit { to, amount: micro } => ledger.deposit(to, amount(micro), now).map(drop),
            Step::Withdraw { from, amount: micro } => ledger.withdraw(from, amount(micro), now).map(drop),
            Step::Open { job, cap, reserve } => {
                let terms = Terms::of(&spec(job), ALICE, amount(cap), amount(reserve));
                let opened = ledger.open(id(job), terms, now)?;
                self.caps.insert(id(job), (opened, cap));
                Ok(())
            }
            Step::Hold { job, shard: index, host, role } => {
                let assignment = self.orders.len() as u64;
                self.orders.push(Ran { job, shard: index, host, assignment, fuel: GIGA, wrote: 0 });
                let (shard, node, operator) = (shard(index), node(host), operator(host));
                let order = Order { assignment: AssignmentId(assignment), shard, node, operator, role };
                ledger.hold(id(job), order, &prices()).map(drop)
            }
            Step::Release { at } => {
                let ran = self.order(at);
                ledger.release(id(ran.job), AssignmentId(ran.assignment), now)
            }
            Step::Pay { at, fuel, wrote, verdict } => self.pay(ledger, Ran { fuel, wrote, ..self.order(at) }, verdict),
            Step::Close { job } => ledger.close(id(job), now),
            Step::Forget { job } => ledger.forget(id(job)).map(|invoice| invoice.check().unwrap()),
            Step::Contest { job, shard: index } => ledger.contest(id(job), shard(index)),
            Step::Absolve { job, shard: index } => ledger.absolve(id(job), shard(index)),
            Step::Stake { host, amount: micro } => ledger.stake(operator(host), amount(micro), now).map(drop),
            Step::Unbond { host, amount: micro } => ledger.unbond(operator(host), amount(micro), now).map(drop),
            Step::Slash { at, auditor } => self.slash(ledger, Ran { wrote: 1, ..self.order(at) }, auditor),
            Step::Settle => ledger.settle(now).map(drop),
            Step::Archive { keep } => {
                let last = ledger.postings().last().map_or(0, |posting| posting.id.0);
                self.archive.extend(ledger.archive(PostingId(last.saturating_sub(keep))));
                Ok(())
            }
            Step::Wait { ms } => {
                self.now += ms;
                Ok(())
            }
            Step::Restart => {
                *ledger = canon::decode(&canon::encode(ledger), usize::MAX).unwrap();
                Ok(())
            }
        }
    }

    fn pay(&self, ledger: &mut Ledger, ran: Ran, said: Said) -> Result<(), LedgerError> {
        let (attested, output) = (ran.attested(), output(ran.wrote));
        let verdict = match said {
            Said::Own => ran.accepted(),
            Said::Other => Ran { wrote: ran.wrote + 1, ..ran }.accepted(),
            Said::Inconclusive => Verdict::Inconclusive,
            Said::Open => Verdict::Open { wanted: 1 },
        };
        let payable = Payable::of(verdict, &attested, &output);
        assert_eq!(payable.is_ok(), matches!(said, Said::Own | Said::Inconclusive));
        let Ok(payable) = payable else { return Ok(()) };
        ledger.pay(&payable, self.now)?;
        // The other coordinator comes second.
        assert!(matches!(ledger.pay(&payable, self.now), Err(LedgerError::AlreadyPaid { .. })));
        Ok(())
    }

    fn slash(&self, ledger: &mut Ledger, lie: Ran, auditor: Option<u8>) -> Result<(), LedgerError> {
        let conviction = Conviction::of(&evidence(lie)).unwrap();
        let conviction = auditor.map_or(conviction, |auditor| conviction.found_by(operator(auditor)));
        let at_risk = ledger.at_risk(conviction.operator());
        let Slashed { returned, requester, auditor, burned } = ledger.slash(&conviction, self.now)?;
        assert_eq!(registry::credits::sum([returned, requester, auditor, burned]), Ok(at_risk));
        assert_eq!(ledger.at_risk(conviction.operator()), Credits::ZERO);
        Ok(())
    }

    /// What the postings say, without the ledger's own sums.
    fn agrees(&self, ledger: &Ledger) {
        let all = || self.archive.iter().chain(ledger.postings());
        for (index, posting) in all().enumerate() {
            assert_eq!(posting.id, PostingId(index as u64), "postings are numbered without gaps");
        }
        for (job, (opened, cap)) in &self.caps {
            let (mut paid, mut once) = (0, BTreeMap::<(ShardInfo, registry::id::NodeId), u32>::new());
            for posting in all().filter(|posting| posting.id >= *opened && posting.cause.job() == Some(*job)) {
                if let Cause::Paid { payment, .. } = posting.cause {
                    paid -= posting.change(Account::Escrow(*job)).unwrap().micro();
                    *once.entry((payment.shard, payment.node)).or_default() += 1;
                }
                if let Cause::Returned { .. } = posting.cause {
                    paid -= posting.entries.iter().map(|(_, delta)| delta.micro().max(0)).sum::<i64>();
                }
                assert!(paid <= *cap as i64, "a job cost more than its cap");
            }
            assert!(once.values().all(|times| *times == 1), "a payment was made twice");
        }
        let mut minted = 0;
        for posting in all() {
            minted -= posting.change(Account::Mint).map_or(0, |delta| delta.micro());
        }
        let held: i64 = ledger.accounts().filter(|(at, _)| *at != Account::Mint).map(|(_, has)| has.micro()).sum();
        assert_eq!(held, minted, "what the mint gave is what there is");
    }

    /// Everything comes to its end: then nothing lies in escrow, earned or unbonding.
    fn end(&mut self, ledger: &mut Ledger) {
        for job in known(ledger) {
            // It may have ended before.
            let _ = ledger.close(spec(job).id(), self.now);
            for ran in self.orders.clone().into_iter().filter(|ran| ran.job == job) {
                // Most were paid or released before.
                let _ = ledger.release(spec(job).id(), AssignmentId(ran.assignment), self.now);
            }
            (0..4).for_each(|index| ledger.absolve(spec(job).id(), shard(index)).unwrap());
        }
        ledger.settle(Millis::MAX).unwrap();
        for job in known(ledger) {
            ledger.forget(spec(job).id()).unwrap().check().unwrap();
        }
        let left: Vec<_> = ledger.accounts().map(|(account, _)| account.word()).collect();
        assert!(left.iter().all(|word| ["mint", "burn", "requester", "operator", "stake"].contains(word)), "{left:?}");
        ledger.check().unwrap();
    }
}

fn known(ledger: &Ledger) -> Vec<u64> {
    (0..JOBS).filter(|job| ledger.budget(spec(*job).id()).is_some()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn a_ledger_holds_whatever_happens(steps in proptest::collection::vec(step(), 1..150)) {
        let mut ledger = Ledger::new(Rules::default()).unwrap();
        let mut model = Model::default();
        let funds = |to, amount| Step::Deposit { to, amount };
        let alice = [funds(Holder::Requester(ALICE), 200_000)].into_iter();
        let hosts = HOSTS.flat_map(|host| {
            [funds(Holder::Operator(operator(host)), 9_000), Step::Stake { host, amount: 5_000 }]
        });
        for step in alice.chain(hosts).chain((0..JOBS).map(|job| Step::Open { job, cap: 40_000, reserve: 8_000 })) {
            model.take(&mut ledger, step).unwrap();
        }
        for step in steps {
            let before = ledger.clone();
            if model.take(&mut ledger, step).is_err() {
                prop_assert_eq!(&ledger, &before, "a refusal changed the ledger: {:?}", step);
            }
            prop_assert_eq!(ledger.check(), Ok(()), "after {:?}", step);
        }
        model.agrees(&ledger);
        model.end(&mut ledger);
    }
}
