//! What a job will cost, against what it does.

use super::*;

fn ask(tasks: u32) -> Ask {
    let usage = Usage { fuel: GIGA, memory_bytes: 1 << 30, output_bytes: 1, device: None };
    let (limits, device) = (spec(1).limits, spec(1).device);
    let (replicas, replicas_max, audit_ppm, auditors, cap) = (1, 5, 50_000, 1, micro(1_000_000));
    Ask { sample: usage, limits, device, tasks, replicas, replicas_max, audit_ppm, auditors, cap }
}

#[test]
fn a_quote_says_what_is_expected_what_is_needed_and_what_is_the_worst() {
    let quote = quote(&ask(100), &prices()).unwrap();
    assert_eq!((quote.task.total, quote.task_worst), (micro(USUAL), micro(WORST)));
    assert_eq!((quote.executions, quote.audits, quote.audits_reserved), (100, 5, 17));
    assert_eq!(quote.expected, micro(105 * USUAL));
    assert_eq!(quote.audit_reserve, micro(16 * USUAL + WORST));
    assert_eq!(quote.cap_least, micro(99 * USUAL + WORST + 16 * USUAL + WORST));
    assert_eq!(quote.worst, micro(WORST * 600));
    assert!(quote.fits);
    let tight = Ask { cap: quote.cap_least.minus(micro(1)).unwrap(), ..ask(100) };
    assert!(!super::quote(&tight, &prices()).unwrap().fits);
    let none = super::quote(&Ask { audit_ppm: 0, ..ask(0) }, &prices()).unwrap();
    assert_eq!((none.expected, none.cap_least, none.worst), (Credits::ZERO, Credits::ZERO, Credits::ZERO));
}

#[test]
fn a_job_under_the_least_cap_of_its_quote_ends_with_all_its_audits() {
    let quote = quote(&Ask { audit_ppm: 1_000_000, ..ask(4) }, &prices()).unwrap();
    let mut grid = Grid::new(quote.cap_least.micro());
    let job = grid.open(1, quote.cap_least.micro(), quote.audit_reserve.micro());
    for shard in 0..4 {
        grid.run(1, shard, 10);
    }
    for shard in 0..4 {
        let audit = grid.order(1, shard, 11, Role::Audit).unwrap();
        grid.pay(audit, 0).unwrap();
    }
    assert_eq!(grid.ledger.budget(job).unwrap().spent(), Ok(quote.expected));
}

#[test]
fn a_quote_is_refused_where_it_would_mean_nothing() {
    let mut greedy = ask(1);
    greedy.sample.fuel = 5 * GIGA;
    let refusal = quote(&greedy, &prices()).unwrap_err().to_string();
    assert_eq!(refusal, "no quote: the task that was tried used 5000000000 of fuel, and the limit is 4000000000");
    let dear = PriceTable { giga_fuel_micro: PRICE_MICRO_MAX, ..prices() };
    let refusal = quote(&ask(u32::MAX), &dear).unwrap_err().to_string();
    assert!(refusal.contains("over the bound") && refusal.contains("split the job"), "{refusal}");
}

#[test]
fn fewer_than_one_job_in_a_thousand_draws_more_audits_than_are_reserved() {
    // Audits are rare and independent: their number is close to Poisson's, and no wider.
    for expected in 1..=500u64 {
        let mean = expected as f64;
        let (mut term, mut below) = ((-mean).exp(), 0.0);
        for drawn in 0..=quote::reserved(expected) {
            below += term;
            term *= mean / (drawn + 1) as f64;
        }
        assert!(1.0 - below < 1e-3, "of {expected} expected, more are drawn with {:.1e}", 1.0 - below);
    }
}
