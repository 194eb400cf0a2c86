//! A job's credits: cap, orders, payments.

use super::*;

#[test]
fn a_job_from_deposit_to_settlement() {
    let mut grid = Grid::new(50_000);
    let job = grid.open(1, 20_000, 0);
    assert_eq!((grid.has(Account::Requester(ALICE)), grid.has(Account::Escrow(job))), (30_000, 20_000));
    grid.run(1, 0, 10);
    grid.run(1, 0, 11);
    assert_eq!(grid.has(Account::Earned(operator(10))), USUAL as i64);
    grid.ledger.close(job, 5).unwrap();
    assert_eq!((grid.has(Account::Requester(ALICE)), grid.has(Account::Escrow(job))), (50_000 - 2 * 1_501, 0));
    assert_eq!(grid.ledger.next_due(), Some(window()));
    assert_eq!(grid.ledger.settle(window() - 1), Ok(None));
    grid.ledger.settle(window()).unwrap().unwrap();
    assert_eq!(grid.has(Account::Earned(operator(10))), 0);
    assert_eq!(grid.has(Account::Operator(operator(10))), USUAL as i64);
    let invoice = grid.ledger.forget(job).unwrap();
    invoice.check().unwrap();
    assert_eq!((invoice.total, invoice.refunded), (micro(2 * USUAL), micro(20_000 - 2 * USUAL)));
    assert_eq!(grid.ledger.withdraw(Holder::Operator(operator(10)), micro(USUAL), 9), Ok(PostingId(6)));
    grid.ledger.check().unwrap();
}

#[test]
fn what_is_not_judged_or_judged_otherwise_cannot_be_paid() {
    let ran = Ran { job: 1, shard: 0, host: 10, assignment: 1, fuel: GIGA, wrote: 0 };
    let (attested, out) = (ran.attested(), output(0));
    let refusal = |verdict| Payable::of(verdict, &attested, &out).unwrap_err();
    assert!(matches!(refusal(Verdict::Open { wanted: 1 }), NotPayable::Open { .. }));
    assert!(matches!(refusal(Ran { wrote: 1, ..ran }.accepted()), NotPayable::Contradicted { .. }));
    // A verdict on another shard accepts another commitment.
    assert!(matches!(refusal(Ran { shard: 1, ..ran }.accepted()), NotPayable::Contradicted { .. }));
    let longer = Output { stdout_bytes: 1 << 20, ..output(0) };
    assert!(matches!(Payable::of(ran.accepted(), &attested, &longer), Err(NotPayable::Output { .. })));
}

#[test]
fn where_nothing_reproduces_the_requester_pays_for_what_ran() {
    let mut grid = Grid::new(50_000);
    let job = grid.open(1, 50_000, 0);
    for (host, wrote) in [(10, 1), (11, 2), (12, 3)] {
        let ran = Ran { wrote, ..grid.order(1, 0, host, Role::Work).unwrap() };
        let (attested, output) = (ran.attested(), output(wrote));
        let payable = Payable::of(Verdict::Inconclusive, &attested, &output).unwrap();
        grid.ledger.pay(&payable, 0).unwrap();
    }
    assert_eq!(grid.ledger.budget(job).unwrap().spent(), Ok(micro(3 * USUAL)));
}

#[test]
fn two_coordinators_pay_the_same_job_once() {
    let mut grid = Grid::new(50_000);
    grid.open(1, 50_000, 0);
    let ran = grid.run(1, 0, 10);
    let refusal = grid.refuses(|grid| grid.pay(ran, 1).unwrap_err());
    assert!(refusal.contains("shard 0 node") && refusal.contains("was paid already"), "{refusal}");
    // Another order to the same machine, and one to another machine of the same operator.
    let again = grid.order(1, 0, 10, Role::Work).unwrap();
    let refusal = grid.refuses(|grid| grid.pay(again, 1).unwrap_err());
    assert!(refusal.contains("was paid already"), "{refusal}");
    let order = Order {
        assignment: AssignmentId(70),
        shard: shard(0),
        node: node(12),
        operator: operator(10),
        role: Role::Work,
    };
    grid.ledger.hold(spec(1).id(), order, &prices()).unwrap();
    let receipt = Receipt { operator: operator(10), ..Ran { host: 12, assignment: 70, ..ran }.receipt() };
    let attested = Attested::check(Signed::seal(&receipt, &node_key(12)), node(12)).unwrap();
    let out = output(0);
    let payable = Payable::of(ran.accepted(), &attested, &out).unwrap();
    let refusal = grid.refuses(|grid| grid.ledger.pay(&payable, 1).unwrap_err());
    assert!(refusal.contains("was paid for shard 0 of job"), "{refusal}");
}

#[test]
fn a_job_that_is_run_again_is_not_billed_with_its_old_receipts() {
    let mut grid = Grid::new(50_000);
    let job = grid.open(1, 10_000, 0);
    let ran = grid.run(1, 0, 10);
    grid.ledger.close(job, 1).unwrap();
    grid.ledger.settle(window()).unwrap();
    grid.ledger.forget(job).unwrap();
    let refusal = grid.refuses(|grid| grid.pay(ran, window()).unwrap_err());
    assert!(refusal.contains("has no escrow"), "{refusal}");
    grid.open(1, 10_000, 0);
    let refusal = grid.refuses(|grid| grid.pay(ran, window()).unwrap_err());
    assert!(refusal.contains("has no hold for assignment 1"), "{refusal}");
    grid.run(1, 0, 10);
    grid.ledger.check().unwrap();
}

#[test]
fn a_cap_is_never_exceeded_and_nobody_works_for_what_is_not_there() {
    let mut grid = Grid::new(50_000);
    // Room for the worst case of one, twice as they are.
    let job = grid.open(1, WORST + 2 * USUAL, 0);
    grid.run(1, 0, 10);
    grid.run(1, 1, 10);
    let last = grid.order(1, 2, 10, Role::Work).unwrap();
    let refusal = grid.refuses(|grid| grid.order(1, 3, 10, Role::Work).unwrap_err());
    assert!(refusal.contains("may cost 0.006020 credits") && refusal.contains("leaves 0.000000"), "{refusal}");
    // The last one uses all that it may, and is paid in full.
    grid.pay(Ran { fuel: 4 * GIGA, ..last }, 0).unwrap();
    let budget = grid.ledger.budget(job).unwrap();
    assert!(budget.spent().unwrap() <= budget.cap && budget.work.held.is_zero());
}

#[test]
fn a_receipt_that_claims_more_than_the_limits_is_not_paid() {
    let mut grid = Grid::new(50_000);
    grid.open(1, 50_000, 0);
    let ran = grid.order(1, 0, 10, Role::Work).unwrap();
    let refusal = grid.refuses(|grid| grid.pay(Ran { fuel: 5 * GIGA, ..ran }, 0).unwrap_err());
    assert!(refusal.contains("bill of 0.007501 credits is over the 0.006020"), "{refusal}");
}

#[test]
fn audits_have_a_part_of_the_cap_that_work_cannot_take() {
    let mut grid = Grid::new(50_000);
    let job = grid.open(1, 2 * WORST, WORST);
    grid.order(1, 0, 10, Role::Work).unwrap();
    let refusal = grid.refuses(|grid| grid.order(1, 1, 10, Role::Work).unwrap_err());
    assert!(refusal.contains("leaves 0.000000"), "{refusal}");
    let audit = grid.order(1, 0, 11, Role::Audit).unwrap();
    grid.pay(audit, 0).unwrap();
    let budget = grid.ledger.budget(job).unwrap();
    assert_eq!((budget.audits.spent, budget.work.held), (micro(USUAL), micro(WORST)));
    // What an audit left is for the next audit, and not for work.
    grid.refuses(|grid| grid.order(1, 1, 10, Role::Work).unwrap_err());
}

#[test]
fn an_audit_that_outlives_its_job_is_paid_and_the_rest_goes_back() {
    let mut grid = Grid::new(2 * WORST);
    let job = grid.open(1, 2 * WORST, 0);
    let (audit, lost) = (grid.order(1, 0, 10, Role::Audit).unwrap(), grid.order(1, 0, 11, Role::Work).unwrap());
    grid.ledger.close(job, 1).unwrap();
    assert_eq!((grid.has(Account::Escrow(job)), grid.has(Account::Requester(ALICE))), (2 * WORST as i64, 0));
    let refusal = grid.refuses(|grid| grid.order(1, 1, 10, Role::Work).unwrap_err());
    assert!(refusal.contains("has ended"), "{refusal}");
    let refusal = grid.refuses(|grid| grid.ledger.forget(job).unwrap_err());
    assert!(refusal.contains("2 executions under way, 0 payments"), "{refusal}");
    grid.ledger.release(job, AssignmentId(lost.assignment), 2).unwrap();
    grid.pay(audit, 3).unwrap();
    assert_eq!(grid.has(Account::Escrow(job)), 0);
    assert_eq!(grid.has(Account::Requester(ALICE)), (2 * WORST - USUAL) as i64);
    let refusal = grid.refuses(|grid| grid.ledger.forget(job).unwrap_err());
    assert!(refusal.contains("0 executions under way, 1 payments"), "{refusal}");
}

#[test]
fn qualification_is_ordered_without_a_hold_and_paid_by_nobody() {
    let mut grid = Grid::new(50_000);
    grid.open(1, 50_000, 0);
    let settled = grid.run(1, 0, 10);
    let newcomer = Ran { host: 12, assignment: 80, ..settled };
    let refusal = grid.refuses(|grid| grid.pay(newcomer, 0).unwrap_err());
    assert!(refusal.contains("has no hold for assignment 80"), "{refusal}");
}

#[test]
fn a_receipt_answers_its_own_order_and_no_other() {
    let mut grid = Grid::new(50_000);
    grid.open(1, 50_000, 0);
    let ran = grid.order(1, 0, 10, Role::Work).unwrap();
    for (other, what) in [(Ran { shard: 1, ..ran }, "another shard"), (Ran { host: 11, ..ran }, "another node")] {
        let refusal = grid.refuses(|grid| grid.pay(other, 0).unwrap_err());
        assert!(refusal.contains(what), "{refusal}");
    }
    grid.ledger.release(spec(1).id(), AssignmentId(ran.assignment), 0).unwrap();
    grid.refuses(|grid| grid.pay(ran, 0).unwrap_err());
    grid.refuses(|grid| grid.ledger.release(spec(1).id(), AssignmentId(ran.assignment), 0).unwrap_err());
}

#[test]
fn an_order_is_held_for_once() {
    let mut grid = Grid::new(50_000);
    grid.open(1, 50_000, 0);
    grid.order(1, 0, 10, Role::Work).unwrap();
    grid.assignment = 0;
    let refusal = grid.refuses(|grid| {
        let refusal = grid.order(1, 0, 10, Role::Work).unwrap_err();
        grid.assignment = 1;
        refusal
    });
    assert_eq!(refusal, "ledger: assignment 1 is held for already");
}
