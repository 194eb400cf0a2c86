//! Statements and invoices, and that they can be computed again.

use super::*;

#[test]
fn anyone_computes_the_bill_again_from_receipts_and_prices() {
    let mut grid = Grid::new(50_000);
    let job = grid.open(1, 50_000, 0);
    let ran: Vec<Ran> = [(0, 10), (0, 11), (1, 12)].map(|(shard, host)| grid.run(1, shard, host)).into();
    grid.ledger.close(job, 5).unwrap();
    let invoice = grid.ledger.invoice(job).unwrap();
    let mut total = Credits::ZERO;
    for ran in &ran {
        let receipt = ran.receipt();
        let line = invoice.lines.iter().find(|line| line.receipt == receipt.id()).unwrap();
        let usage = Usage::proven(&receipt, &spec(1), &output(0)).unwrap();
        let bill = invoice.prices[&line.prices].bill(&usage).unwrap();
        assert_eq!((line.usage, line.bill), (usage, bill));
        total = total.plus(bill.total).unwrap();
    }
    assert_eq!(invoice.total, total);
}

#[test]
fn an_invoice_that_was_changed_anywhere_does_not_hold() {
    let mut grid = Grid::new(50_000);
    let job = grid.open(1, 50_000, 0);
    grid.run(1, 0, 10);
    grid.run(1, 1, 10);
    grid.ledger.close(job, 5).unwrap();
    let invoice = grid.ledger.invoice(job).unwrap();
    let check = |change: &dyn Fn(&mut Invoice)| {
        let mut changed = invoice.clone();
        change(&mut changed);
        changed.check().unwrap_err()
    };
    assert!(matches!(check(&|invoice| invoice.lines[0].usage.fuel += 1), InvoiceError::Line { .. }));
    assert!(matches!(check(&|invoice| invoice.total = micro(1)), InvoiceError::Total { .. }));
    assert!(matches!(check(&|invoice| invoice.cap = micro(1)), InvoiceError::Cap { .. }));
    assert!(matches!(check(&|invoice| invoice.lines[1] = invoice.lines[0]), InvoiceError::Twice { .. }));
    assert!(matches!(check(&|invoice| invoice.prices.clear()), InvoiceError::Prices { .. }));
    let forged = |invoice: &mut Invoice| invoice.prices.values_mut().for_each(|table| table.giga_fuel_micro = 1);
    assert!(matches!(check(&forged), InvoiceError::Prices { .. }));
}

#[test]
fn a_statement_adds_up_and_goes_on_where_the_archive_ends() {
    let mut grid = Grid::new(50_000);
    let job = grid.open(1, 20_000, 0);
    grid.run(1, 0, 10);
    grid.ledger.close(job, 500).unwrap();
    let alice = Account::Requester(ALICE);
    let whole = grid.ledger.statement(alice, 0..Millis::MAX).unwrap();
    let words: Vec<_> = whole.lines.iter().map(|line| line.cause.word()).collect();
    assert_eq!(words, ["deposited", "escrowed", "refunded"]);
    assert_eq!(whole.closing, grid.ledger.balance(alice));
    let late = grid.ledger.statement(alice, 400..Millis::MAX).unwrap();
    assert_eq!((late.opening, late.lines.len()), (stands(30_000), 1));

    let archived = grid.ledger.archive(PostingId(3));
    assert_eq!(archived.len(), 3);
    grid.ledger.check().unwrap();
    assert_eq!(grid.ledger.statement(alice, 400..Millis::MAX).unwrap(), late);
    let refusal = grid.refuses(|grid| grid.ledger.statement(alice, 0..9).unwrap_err());
    assert!(refusal.contains("postings of before 1 are archived"), "{refusal}");
    let all = archived.iter().chain(grid.ledger.postings());
    assert_eq!(Statement::of(alice, Delta::ZERO, all, 0..Millis::MAX).unwrap(), whole);
    grid.ledger.archive(PostingId(u64::MAX));
    grid.ledger.settle(window()).unwrap();
    grid.ledger.forget(job).unwrap().check().unwrap();
}

#[test]
fn what_an_operator_reads_does_not_say_which_executions_were_audits() {
    let mut grid = Grid::new(50_000);
    let job = grid.open(1, 50_000, 0);
    let audit = grid.order(1, 0, 10, Role::Audit).unwrap();
    grid.pay(audit, 0).unwrap();
    let statement = grid.ledger.statement(Account::Earned(operator(10)), 0..9).unwrap();
    assert!(!format!("{statement:?}{}", statement.table().csv()).to_lowercase().contains("audit"));
    grid.refuses(|grid| grid.ledger.invoice(job).unwrap_err());
    grid.ledger.close(job, 1).unwrap();
    assert!(grid.ledger.invoice(job).unwrap().table().csv().contains(",audit,"));
}

#[test]
fn accounts_statements_and_invoices_as_csv_and_json() {
    let mut grid = Grid::new(50_000);
    let job = grid.open(1, 20_000, 0);
    let ran = grid.run(1, 0, 10);
    grid.ledger.close(job, 5).unwrap();
    let accounts = grid.ledger.table().csv();
    let lines: Vec<_> = accounts.lines().collect();
    assert_eq!(lines[0], "kind,account,balance_micro");
    assert_eq!(lines[1], "mint,mint,-50000");
    assert_eq!(lines[2], format!("requester,requester:{},48499", "01".repeat(32)));
    let statement = grid.ledger.statement(Account::Escrow(job), 0..9).unwrap().table();
    let receipt = ran.receipt().id();
    assert!(statement.csv().contains(&format!("2,0,paid,{job},map,0,{receipt},-1501,18499\n")), "{}", statement.csv());
    let invoice = grid.ledger.invoice(job).unwrap();
    let csv = invoice.table().csv();
    assert!(csv.contains(",1000000000,1073741824,1,,1000,500,1,0,1501,pending\n"), "{csv}");
    let json = invoice.json();
    assert!(json.starts_with(&format!(r#"{{"job":"{job}","requester":"0101"#)), "{json}");
    assert!(json.contains(r#""total_micro":1501,"refunded_micro":18499,"prices":[{"prices":"#), "{json}");
    assert!(
        json.contains(r#""device":null,"fuel_micro":1000"#) && json.ends_with(r#""standing":"pending"}]}"#),
        "{json}"
    );
}

#[test]
fn an_account_reads_back_from_its_own_text() {
    let mut grid = Grid::new(5);
    grid.open(1, 1, 0);
    for account in [
        Account::Mint,
        Account::Burn,
        Account::Requester(ALICE),
        Account::Operator(operator(1)),
        Account::Escrow(spec(1).id()),
        Account::Earned(operator(1)),
        Account::Stake(operator(1)),
        Account::Unbonding(operator(1)),
    ] {
        assert_eq!(account.to_string().parse(), Ok(account));
    }
    for text in ["", "mint:", "stake", "stake:12", &format!("fees:{}", "0".repeat(64))] {
        assert!(text.parse::<Account>().unwrap_err().to_string().contains("is no account"), "{text}");
    }
}
