//! What operators can lose, and when they do.

use super::*;

#[test]
fn stake_that_is_withdrawn_can_be_lost_until_it_is_there() {
    let mut grid = Grid::new(50_000);
    grid.open(1, 50_000, 0);
    grid.stake(10, 1_000);
    grid.run(1, 0, 10);
    grid.ledger.unbond(operator(10), micro(400), 5).unwrap();
    assert_eq!(grid.ledger.at_risk(operator(10)), micro(1_000 + USUAL));
    let refusal = grid.refuses(|grid| grid.ledger.unbond(operator(10), micro(601), 5).unwrap_err());
    assert!(refusal.contains("has 0.000600 credits, 0.000001 too few"), "{refusal}");
    let unbonding = Rules::default().unbonding_ms;
    grid.ledger.settle(unbonding + 4).unwrap();
    assert_eq!(grid.ledger.at_risk(operator(10)), micro(1_000));
    grid.ledger.settle(unbonding + 5).unwrap();
    assert_eq!(grid.ledger.at_risk(operator(10)), micro(600));
    assert_eq!(grid.has(Account::Operator(operator(10))), 400 + USUAL as i64);
    assert_eq!(grid.ledger.next_due(), None);
}

#[test]
fn a_liar_loses_everything_at_risk_and_no_unit_is_lost_on_the_way() {
    let mut grid = Grid::new(50_000);
    let open = grid.open(1, 20_000, 0);
    let closed = grid.open(2, 20_000, 0);
    grid.stake(10, 1_001);
    grid.ledger.unbond(operator(10), micro(333), 0).unwrap();
    let lie = Ran { wrote: 1, ..grid.order(1, 0, 10, Role::Work).unwrap() };
    grid.pay(lie, 0).unwrap();
    grid.run(2, 0, 10);
    grid.run(2, 0, 11);
    grid.ledger.close(closed, 1).unwrap();
    let alice = grid.has(Account::Requester(ALICE));

    let conviction = Conviction::of(&evidence(lie)).unwrap().found_by(operator(11));
    assert_eq!(conviction.operator(), operator(10));
    let slashed = grid.ledger.slash(&conviction, 2).unwrap();
    // 30 % and 10 % of 1001, rounded down; the rest is burned.
    let expected =
        Slashed { returned: micro(2 * USUAL), requester: micro(300), auditor: micro(100), burned: micro(601) };
    assert_eq!(slashed, expected);
    assert_eq!(grid.ledger.at_risk(operator(10)), Credits::ZERO);
    assert_eq!(grid.has(Account::Burn), 601);
    assert_eq!(grid.has(Account::Operator(operator(11))), 100);
    // An open job can have the work done again; a closed one has its credits back.
    assert_eq!(grid.has(Account::Escrow(open)), 20_000);
    assert_eq!(grid.has(Account::Requester(ALICE)), alice + 300 + USUAL as i64);
    let invoice = grid.ledger.invoice(closed).unwrap();
    invoice.check().unwrap();
    assert_eq!(invoice.total, micro(USUAL));

    let refusal = grid.refuses(|grid| grid.ledger.slash(&conviction, 3).unwrap_err());
    assert!(refusal.contains("was convicted of receipt"), "{refusal}");
    grid.refuses(|grid| grid.ledger.stake(operator(10), micro(1), 3).unwrap_err());
    grid.refuses(|grid| grid.order(1, 1, 10, Role::Work).unwrap_err());
    // It has nothing to come any more, and its payments are not made twice.
    grid.refuses(|grid| grid.pay(lie, 3).unwrap_err());
    grid.ledger.settle(Millis::MAX).unwrap();
    assert_eq!(grid.has(Account::Operator(operator(10))), 0);
    grid.ledger.check().unwrap();
}

#[test]
fn what_a_liar_ran_before_it_was_caught_and_is_judged_later_is_not_paid() {
    let mut grid = Grid::new(50_000);
    let job = grid.open(1, 50_000, 0);
    let late = grid.order(1, 1, 10, Role::Work).unwrap();
    let lie = Ran { wrote: 1, ..grid.order(1, 0, 10, Role::Work).unwrap() };
    let slashed = grid.ledger.slash(&Conviction::of(&evidence(lie)).unwrap(), 1).unwrap();
    assert_eq!(slashed, Slashed::default());
    let refusal = grid.refuses(|grid| grid.pay(late, 2).unwrap_err());
    assert!(refusal.contains("was convicted of receipt"), "{refusal}");
    grid.ledger.release(job, AssignmentId(late.assignment), 2).unwrap();
}

#[test]
fn nobody_is_convicted_without_proof_or_by_itself() {
    let mut grid = Grid::new(50_000);
    grid.open(1, 50_000, 0);
    grid.stake(10, 1_000);
    let honest = Ran { job: 1, shard: 0, host: 10, assignment: 1, fuel: GIGA, wrote: 0 };
    assert!(matches!(Conviction::of(&evidence(honest)), Err(ConvictionError::Record(_))));
    let Record::Evidence(Evidence { accepted, .. }) = evidence(Ran { wrote: 1, ..honest }) else { unreachable!() };
    assert!(matches!(Conviction::of(&Record::Accepted(accepted)), Err(ConvictionError::NoAccused)));
    let own = Conviction::of(&evidence(Ran { wrote: 1, ..honest })).unwrap().found_by(operator(10));
    let refusal = grid.refuses(|grid| grid.ledger.slash(&own, 1).unwrap_err());
    assert!(refusal.contains("cannot be the auditor"), "{refusal}");
}

#[test]
fn a_contested_payment_waits_for_its_dispute() {
    let mut grid = Grid::new(50_000);
    let job = grid.open(1, 50_000, 0);
    grid.run(1, 0, 10);
    grid.ledger.contest(job, shard(0)).unwrap();
    grid.run(1, 0, 11);
    grid.run(1, 1, 10);
    grid.ledger.settle(2 * window()).unwrap();
    assert_eq!(grid.has(Account::Operator(operator(10))), USUAL as i64);
    assert_eq!((grid.has(Account::Earned(operator(10))), grid.ledger.next_due()), (USUAL as i64, None));
    grid.ledger.absolve(job, shard(0)).unwrap();
    grid.ledger.settle(2 * window()).unwrap();
    assert_eq!(grid.has(Account::Operator(operator(10))), 2 * USUAL as i64);
    assert_eq!(grid.has(Account::Operator(operator(11))), USUAL as i64);
}
