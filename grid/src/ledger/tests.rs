//! Stories of credits, and every refusal by its name.

mod jobs;
mod quotes;
mod reports;
mod stakes;

use registry::{
    canon,
    credits::CREDITS_MICRO_MAX,
    id::{BlobHash, EngineFingerprint, ModuleHash, NodeId, TaskId},
    job::{Class, JobSpec, Limits, ShardInfo, Stage},
    membership::NodeCert,
    price::{PRICE_MICRO_MAX, PriceTable, Usage},
    receipt::{Accepted, Evidence, Execution, Outcome, Output, Receipt, Record, Witness},
    sign::{SecretKey, Signed},
};

use super::*;
use crate::flow::{AssignmentId, Attested, Verdict};

pub(super) const ALICE: RequesterId = RequesterId([1; 32]);
pub(super) const GIGA: u64 = 1_000_000_000;
/// What a task that uses everything costs at [`prices`], and one that uses a giga-fuel and writes a byte.
pub(super) const WORST: u64 = 6_020;
pub(super) const USUAL: u64 = 1_501;

pub(super) fn micro(micro: u64) -> Credits {
    Credits::from_micro(micro).unwrap()
}

fn stands(micro: i64) -> Delta {
    Delta::from_micro(micro).unwrap()
}

pub(super) fn prices() -> PriceTable {
    let model_second_micro = BTreeMap::new();
    PriceTable { giga_fuel_micro: 1_000, gib_second_micro: 500, mib_out_micro: 20, model_second_micro }
}

pub(super) fn spec(nonce: u64) -> JobSpec {
    let limits =
        Limits { fuel_max: 4 * GIGA, memory_bytes_max: 1 << 30, output_bytes_max: 1 << 20, ..Limits::default() };
    JobSpec { limits, ..JobSpec::new(ModuleHash([7; 32]), nonce) }
}

pub(super) fn shard(index: u32) -> ShardInfo {
    ShardInfo { stage: Stage::Map, index, count: 4 }
}

fn node_key(host: u8) -> SecretKey {
    SecretKey::from_bytes(&[host; 32])
}

fn operator_key(host: u8) -> SecretKey {
    SecretKey::from_bytes(&[host + 100; 32])
}

pub(super) fn node(host: u8) -> NodeId {
    NodeId(node_key(host).public())
}

pub(super) fn operator(host: u8) -> OperatorId {
    OperatorId(operator_key(host).public())
}

pub(super) fn output(byte: u8) -> Output {
    Output { stdout: BlobHash([byte; 32]), stdout_bytes: 1, files: vec![] }
}

/// One execution of a host: an honest one writes 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ran {
    pub(super) job: u64,
    pub(super) shard: u32,
    pub(super) host: u8,
    pub(super) assignment: u64,
    pub(super) fuel: u64,
    pub(super) wrote: u8,
}

impl Ran {
    pub(super) fn receipt(&self) -> Receipt {
        let spec = spec(self.job);
        let execution = Execution {
            task: TaskId([u8::try_from(self.shard).unwrap(); 32]),
            module: spec.module,
            class: Class::Exact,
            engine: EngineFingerprint([5; 32]),
            outcome: Outcome::Ok,
            fuel_used: self.fuel,
            output: output(self.wrote).hash(),
            nn_root: None,
            segment_root: None,
        };
        Receipt {
            job: spec.id(),
            shard: shard(self.shard),
            execution,
            device: None,
            node: node(self.host),
            operator: operator(self.host),
            nonce: self.assignment,
            price_micro: 0,
            nn_record: None,
            segment_record: None,
        }
    }

    pub(super) fn attested(&self) -> Attested {
        Attested::check(Signed::seal(&self.receipt(), &node_key(self.host)), node(self.host)).unwrap()
    }

    /// The verdict that makes it the result.
    pub(super) fn accepted(&self) -> Verdict {
        Verdict::Accepted(self.receipt().execution.commitment())
    }

    fn witness(&self) -> Witness {
        let cert = NodeCert { node: node(self.host), issued_ms: 0 };
        let cert = Signed::seal(&cert, &operator_key(self.host));
        Witness { receipt: Signed::seal(&self.receipt(), &node_key(self.host)), cert }
    }
}

/// Two hosts beyond every other say what is true, and the liar something else.
pub(super) fn evidence(lie: Ran) -> Record {
    let truth = |host| Ran { host, wrote: 0, assignment: 90, ..lie }.witness();
    let accepted = Accepted { quorum: 2, witnesses: vec![truth(90), truth(91)], drawn: None };
    Record::Evidence(Evidence { accepted, accused: lie.witness() })
}

/// A ledger, and an order number for each execution.
struct Grid {
    ledger: Ledger,
    assignment: u64,
}

impl Grid {
    /// Alice has so much.
    fn new(alice: u64) -> Self {
        let mut ledger = Ledger::new(Rules::default()).unwrap();
        ledger.deposit(Holder::Requester(ALICE), micro(alice), 0).unwrap();
        Self { ledger, assignment: 0 }
    }

    fn open(&mut self, job: u64, cap: u64, audit_reserve: u64) -> JobId {
        let spec = spec(job);
        let terms = Terms::of(&spec, ALICE, micro(cap), micro(audit_reserve));
        self.ledger.open(spec.id(), terms, 0).unwrap();
        spec.id()
    }

    /// A host is given a shard.
    fn order(&mut self, job: u64, shard_index: u32, host: u8, role: Role) -> Result<Ran, LedgerError> {
        self.assignment += 1;
        let (assignment, fuel) = (self.assignment, GIGA);
        let (shard, node, operator) = (shard(shard_index), node(host), operator(host));
        let order = Order { assignment: AssignmentId(assignment), shard, node, operator, role };
        self.ledger.hold(spec(job).id(), order, &prices())?;
        Ok(Ran { job, shard: shard_index, host, assignment, fuel, wrote: 0 })
    }

    fn pay(&mut self, ran: Ran, now: Millis) -> Result<PostingId, LedgerError> {
        let (attested, output) = (ran.attested(), output(ran.wrote));
        let payable = Payable::of(ran.accepted(), &attested, &output).unwrap();
        self.ledger.pay(&payable, now)
    }

    /// A host runs a shard and is believed.
    fn run(&mut self, job: u64, shard: u32, host: u8) -> Ran {
        let ran = self.order(job, shard, host, Role::Work).unwrap();
        self.pay(ran, 0).unwrap();
        ran
    }

    /// An operator stakes what it was given.
    fn stake(&mut self, host: u8, amount: u64) {
        self.ledger.deposit(Holder::Operator(operator(host)), micro(amount), 0).unwrap();
        self.ledger.stake(operator(host), micro(amount), 0).unwrap();
    }

    fn has(&self, account: Account) -> i64 {
        self.ledger.balance(account).micro()
    }

    /// Nothing changes, and this is why.
    fn refuses(&mut self, does: impl FnOnce(&mut Self) -> LedgerError) -> String {
        let before = self.ledger.clone();
        let error = does(self).to_string();
        assert_eq!(self.ledger, before, "a refusal changed the ledger: {error}");
        error
    }
}

fn window() -> Millis {
    Rules::default().audit_window_ms
}

#[test]
fn refusals_that_open_and_close_jobs_have_their_names() {
    let mut grid = Grid::new(1_000);
    let (job, id) = (spec(1), spec(1).id());
    let terms = |cap, reserve| Terms::of(&job, ALICE, micro(cap), micro(reserve));
    let open = |cap, reserve| move |grid: &mut Grid| grid.ledger.open(id, terms(cap, reserve), 0).unwrap_err();
    assert!(grid.refuses(open(1_001, 0)).contains("has 0.001000 credits, 0.000001 too few"));
    assert!(grid.refuses(open(10, 11)).contains("over the job's cap of 0.000010"));
    for refusal in [
        grid.refuses(|grid| grid.ledger.close(id, 0).unwrap_err()),
        grid.refuses(|grid| grid.ledger.forget(id).unwrap_err()),
        grid.refuses(|grid| grid.ledger.contest(id, shard(0)).unwrap_err()),
        grid.refuses(|grid| grid.ledger.absolve(id, shard(0)).unwrap_err()),
        grid.refuses(|grid| grid.ledger.release(id, AssignmentId(1), 0).unwrap_err()),
        grid.refuses(|grid| grid.order(1, 0, 10, Role::Work).map(drop).unwrap_err()),
    ] {
        assert!(refusal.contains("has no escrow"), "{refusal}");
    }
    grid.open(1, 1_000, 0);
    assert!(grid.refuses(open(0, 0)).contains("has its escrow already"));
    assert!(grid.refuses(|grid| grid.ledger.invoice(id).unwrap_err()).contains("has not ended"));
    grid.ledger.close(id, 1).unwrap();
    assert!(grid.refuses(|grid| grid.ledger.close(id, 1).unwrap_err()).contains("has ended"));
    let nothing = grid.refuses(|grid| grid.ledger.deposit(Holder::Requester(ALICE), Credits::ZERO, 0).unwrap_err());
    assert_eq!(nothing, "ledger: nothing is deposited: the least amount is one micro-credit");
    grid.refuses(|grid| grid.ledger.unbond(operator(1), Credits::ZERO, 0).unwrap_err());
}

#[test]
fn the_edge_of_the_integers_is_refused_and_everything_within_it_works() {
    let mut grid = Grid::new(CREDITS_MICRO_MAX);
    for to in [Holder::Requester(ALICE), Holder::Operator(operator(10))] {
        let refusal = grid.refuses(|grid| grid.ledger.deposit(to, micro(1), 0).unwrap_err());
        assert!(refusal.contains("over the bound of 1000000000000000000"), "{refusal}");
    }
    let job = grid.open(1, CREDITS_MICRO_MAX, CREDITS_MICRO_MAX);
    grid.refuses(|grid| grid.order(1, 0, 10, Role::Work).unwrap_err());
    let audit = grid.order(1, 0, 10, Role::Audit).unwrap();
    // Time at its end does not wrap either.
    grid.pay(audit, Millis::MAX).unwrap();
    assert_eq!(grid.ledger.next_due(), Some(Millis::MAX));
    grid.ledger.close(job, Millis::MAX).unwrap();
    grid.ledger.settle(Millis::MAX).unwrap();
    let dear = PriceTable { mib_out_micro: PRICE_MICRO_MAX + 1, ..prices() };
    grid.ledger.withdraw(Holder::Requester(ALICE), micro(1), 0).unwrap();
    let spec2 = spec(2);
    grid.ledger.open(spec2.id(), Terms::of(&spec2, ALICE, micro(10), Credits::ZERO), 0).unwrap();
    let order =
        Order { assignment: AssignmentId(9), shard: shard(0), node: node(1), operator: operator(1), role: Role::Work };
    let refusal = grid.refuses(|grid| grid.ledger.hold(spec2.id(), order, &dear).unwrap_err());
    assert!(refusal.contains("price mib_out_micro is 1000000000001 micro-credits"), "{refusal}");
}

#[test]
fn a_grid_without_prices_keeps_books_all_the_same() {
    let mut grid = Grid::new(1);
    let job = spec(1);
    grid.ledger.open(job.id(), Terms::of(&job, ALICE, Credits::ZERO, Credits::ZERO), 0).unwrap();
    let order = Order {
        assignment: AssignmentId(1),
        shard: shard(0),
        node: node(10),
        operator: operator(10),
        role: Role::Work,
    };
    assert_eq!(grid.ledger.hold(job.id(), order, &PriceTable::default()), Ok(Credits::ZERO));
    let ran = Ran { job: 1, shard: 0, host: 10, assignment: 1, fuel: GIGA, wrote: 0 };
    grid.pay(ran, 0).unwrap();
    grid.refuses(|grid| grid.pay(ran, 0).unwrap_err());
    grid.ledger.close(job.id(), 1).unwrap();
    grid.ledger.settle(window()).unwrap();
    assert_eq!(grid.ledger.forget(job.id()).unwrap().lines.len(), 1);
}

#[test]
fn rules_that_do_not_fit_together_are_refused() {
    let refusal = |rules: Rules| Ledger::new(rules).unwrap_err().to_string();
    let short = Rules { unbonding_ms: 1, ..Rules::default() };
    assert!(refusal(short).contains("unbonding_ms is 1, below audit_window_ms of 86400000"));
    let generous = Rules { slash_requester_ppm: u32::MAX, slash_auditor_ppm: u32::MAX, ..Rules::default() };
    assert!(refusal(generous).contains("over the bound of 1000000"));
}

#[test]
fn a_snapshot_is_canonical_and_reads_back() {
    let mut grid = Grid::new(50_000);
    grid.open(1, 20_000, 5_000);
    grid.stake(10, 10);
    grid.ledger.unbond(operator(10), micro(5), 0).unwrap();
    grid.run(1, 0, 10);
    grid.order(1, 1, 10, Role::Work).unwrap();
    let bytes = canon::encode(&grid.ledger);
    assert_eq!(canon::decode::<Ledger>(&bytes, usize::MAX).unwrap(), grid.ledger);
}

#[test]
fn a_ledger_that_was_tampered_with_is_noticed() {
    let mut grid = Grid::new(50_000);
    let job = grid.open(1, 20_000, 5_000);
    grid.stake(10, 10);
    grid.ledger.unbond(operator(10), micro(5), 0).unwrap();
    grid.run(1, 0, 10);
    let violation = |change: &dyn Fn(&mut Ledger)| {
        let mut ledger = grid.ledger.clone();
        change(&mut ledger);
        ledger.check().unwrap_err()
    };
    let forge = |ledger: &mut Ledger, cause, from, to, amount| {
        let draft = books::Draft::transfer(cause, from, to, micro(amount)).unwrap();
        ledger.books.commit(vec![draft], 0).unwrap();
    };
    let (mine, earned) = (Account::Operator(operator(10)), Account::Earned(operator(10)));
    let forged = violation(&|ledger| forge(ledger, Cause::Staked, Account::Escrow(job), earned, 1));
    assert!(matches!(forged, Violation::NoVerdict { .. }), "{forged}");
    let forged = violation(&|ledger| forge(ledger, Cause::Deposited, Account::Escrow(job), mine, 1));
    assert!(matches!(forged, Violation::Budget { what: "escrow", .. }), "{forged}");
    let forged = violation(&|ledger| forge(ledger, Cause::Staked, earned, mine, 1));
    assert!(matches!(forged, Violation::AtRisk { .. }), "{forged}");
    // The verdict of another payment does not do for a second one.
    let paid = grid.ledger.postings().find(|posting| posting.cause.word() == "paid").unwrap().cause;
    let forged = violation(&|ledger| forge(ledger, paid, Account::Escrow(job), earned, 1));
    assert!(matches!(forged, Violation::Payment { .. }), "{forged}");
    let dateless = violation(&|ledger| ledger.due.clear());
    assert!(matches!(dateless, Violation::Index { what: "dates" }), "{dateless}");
    let ownerless = violation(&|ledger| ledger.unsettled.clear());
    assert!(matches!(ownerless, Violation::Index { .. }), "{ownerless}");
    let twice = violation(&|ledger| {
        let payments = &mut ledger.jobs.get_mut(&job).unwrap().payments;
        let payment = payments.at(0).unwrap().payment;
        payments.push(1, paid::Paid { shard: shard(1), node: node(11), payment });
    });
    assert!(matches!(twice, Violation::Twice { .. }), "{twice}");
    let unpunished = violation(&|ledger| {
        let receipt = ledger.jobs[&job].payments.at(0).unwrap().payment.receipt;
        ledger.convicted.insert(operator(10), receipt);
    });
    assert!(matches!(unpunished, Violation::Convicted { .. }), "{unpunished}");
    let over = violation(&|ledger| ledger.jobs.get_mut(&job).unwrap().budget.work.held = micro(1));
    assert!(matches!(over, Violation::Budget { what: "budget", .. }), "{over}");
    let dearer = violation(&|ledger| {
        let job = ledger.jobs.get_mut(&job).unwrap();
        job.prices.values_mut().for_each(|table| table.giga_fuel_micro += 1);
    });
    assert!(matches!(dearer, Violation::Budget { what: "bills", .. }), "{dearer}");
}
