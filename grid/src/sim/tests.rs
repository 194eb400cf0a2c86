//! Small grids in which everything happens: what a run asks for at every event holds, and the same seed gives the same run.

use registry::job::Policy;

use super::{
    adversary::{Adversary, LIST},
    chart,
    stepped::Stepped,
    sweep, *,
};
use crate::audit::{AuditConfig, TASK_MICRO};

/// Two hundred hosts, a fifth of them the adversary's, newcomers that can qualify within the run, and trouble of every kind.
fn small(adversary: Adversary, seed: u64) -> Options {
    let audit = AuditConfig { newcomer_micro: 20 * TASK_MICRO, ..AuditConfig::default() };
    Options {
        seed,
        hosts: 200,
        operators: 100,
        slots: 1,
        tasks: 400,
        job_tasks: 100,
        load_ppm: 300_000,
        adversary,
        shown_tasks: 500,
        newcomers_ppm: 100_000,
        network: Network { partition_every_ms: 5_000, partition_ms: 4_000, ..Network::harsh() },
        trouble: Trouble { crash_ppm: 2_000, away_ms: 10_000, ..Trouble::usual() },
        check_every_events: 1_000,
        config: Config { audit, ..Config::default() },
        ..Options::default()
    }
}

fn simulate(options: &Options) -> Report {
    options.check().unwrap();
    run(options).unwrap_or_else(|broken| panic!("{}: {broken}", options.adversary))
}

#[test]
fn every_adversary_is_held_to_the_invariants_under_either_policy() {
    for (adversary, ..) in LIST {
        for policy in [Policy::Audit, Policy::Quorum(2)] {
            let options = Options { policy, liars_established: true, ..small(adversary, 7) };
            let report = simulate(&options);
            assert_eq!(report.honest_suspended, 0, "{adversary}");
            let all: u64 = report.jobs.values().sum();
            assert_eq!(all, 4, "{adversary}: every job ended");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_run_and_another_one_is_not() {
    let options = Options { liars_established: true, ..small(Adversary::ConfirmingAuditor, 3) };
    let report = simulate(&options);
    assert_eq!(report, simulate(&options));
    assert_ne!(report.digest, simulate(&Options { seed: 4, ..options }).digest);
}

#[test]
fn an_honest_grid_with_standing_costs_its_audits_and_nothing_is_wrong() {
    let options = Options { tasks: 2_000, liars_ppm: 0, ..Options::default() };
    let report = simulate(&options);
    assert_eq!((report.wrong.events, report.withdrawn.of, report.ejection.lied), (0, 0, 0));
    assert!((1.03..=1.07).contains(&report.cost), "{}", report.cost);
}

#[test]
fn newcomers_that_lie_have_nothing_accepted_and_no_job_fails_for_it() {
    for adversary in [Adversary::Whitewasher, Adversary::FalseAccuser, Adversary::Lazy, Adversary::RandomLiar] {
        let options = Options { adversary, tasks: 2_000, hosts: 60, operators: 60, ..Options::default() };
        let report = simulate(&options);
        assert_eq!((report.wrong.events, report.jobs_failed()), (0, 0), "{adversary}");
        assert!(report.ejection.caught > 5, "{adversary}: {} caught", report.ejection.caught);
    }
}

#[test]
fn who_holds_an_answer_back_for_an_accomplice_is_caught_by_audits() {
    let options = Options {
        adversary: Adversary::ColludeWhenSafe,
        liars_established: true,
        re_entry_ms: None,
        hosts: 60,
        operators: 60,
        tasks: 4_000,
        ..Options::default()
    };
    let report = simulate(&options);
    assert!(
        report.ejection.lied > 5 && report.ejection.caught * 4 >= report.ejection.lied * 3,
        "{:?}",
        report.ejection
    );
}

#[test]
fn without_a_referee_a_majority_is_believed_and_that_is_counted() {
    let options = Options {
        vouched: 0,
        shown_tasks: 0,
        liars_ppm: 450_000,
        policy: Policy::Quorum(2),
        hosts: 40,
        operators: 40,
        tasks: 1_000,
        ..small(Adversary::Whitewasher, 1)
    };
    let report = simulate(&options);
    assert!(report.wrong.events > 0, "colluders agree with each other");
}

#[test]
fn a_sweep_sums_up_its_seeds_and_draws_them() {
    let options = Options { tasks: 500, job_tasks: 100, liars_established: true, ..small(Adversary::RandomLiar, 1) };
    let points = sweep::run(&options, &[0, 400_000], 1..3).unwrap();
    assert_eq!(points.iter().map(|point| (point.liars_ppm, point.seeds)).collect::<Vec<_>>(), [(0, 2), (400_000, 2)]);
    assert_eq!((points[0].wrong.events, points[0].wrong.of), (0, 1_000));
    let svg = chart::svg(&points);
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("random-liar, audit"));
    assert_eq!(sweep::Table(&points).to_string().lines().count(), 3);
    assert!(serde_json::to_string(&points).unwrap().contains("\"wrong_bound_95\""));
}

#[test]
fn options_that_make_no_sense_are_refused_by_name() {
    let refusal = Options { operators: 300, hosts: 200, ..Options::default() }.check().unwrap_err().to_string();
    assert_eq!(refusal, "number of operators is 300, outside the bounds of 1 to 200");
    Options::default().check().unwrap();
}

/// The same as [`small`], with tasks in steps.
fn stepped(adversary: Adversary, seed: u64) -> Options {
    Options { steps: 16, liars_established: true, ..small(adversary, seed) }
}

#[test]
fn every_adversary_is_held_to_the_invariants_where_results_go_to_trial() {
    let mut trials = 0;
    for (adversary, ..) in LIST {
        for policy in [Policy::Audit, Policy::Quorum(2)] {
            let report = simulate(&Options { policy, ..stepped(adversary, 7) });
            assert_eq!((report.honest_suspended, report.purse.honest_slashed), (0, 0), "{adversary}");
            assert_eq!(report.jobs.values().sum::<u64>(), 4, "{adversary}: every job ended");
            let of = report.stepped.unwrap().trials;
            assert_eq!(of.begun, of.settled + of.failed + of.overtaken, "{adversary}: {of:?}");
            trials += of.settled;
        }
    }
    assert!(trials > 100, "{trials} trials were settled");
}

#[test]
fn a_trial_spares_referees_the_whole_task_and_is_counted_in_parts_of_executions() {
    let whole = Options { hosts: 60, operators: 60, tasks: 2_000, ..Options::default() };
    let whole = Options { adversary: Adversary::RandomLiar, liars_established: true, ..whole };
    let report = simulate(&Options { steps: 16, ..whole.clone() });
    let Stepped { segments, trials, .. } = report.stepped.unwrap();
    assert_eq!(segments, 16);
    assert!(trials.settled > 10 && trials.segments_refereed >= trials.settled, "{trials:?}");
    // A side runs half of the task on average, and a referee a sixteenth of it.
    let each = trials.segments() as f64 / 16.0 / trials.begun as f64;
    assert!((0.3..0.9).contains(&each), "{each}");
    let disputes = (simulate(&whole).executions.disputes, report.executions.disputes);
    assert!(disputes.1 < disputes.0, "{disputes:?}");
}

#[test]
fn a_withholder_gives_no_state_and_is_caught_all_the_same() {
    let options = Options { hosts: 60, operators: 60, tasks: 20_000, re_entry_ms: None, ..Options::default() };
    let options = Options { adversary: Adversary::Withholder, steps: 16, liars_established: true, ..options };
    let report = simulate(&options);
    let trials = report.stepped.unwrap().trials;
    assert!(trials.states_in_vain() > 0 && trials.settled > 0, "{trials:?}");
    assert!(report.ejection.caught > 0 && report.purse.balance() < 0, "{:?}", report.ejection);
}

#[test]
fn a_long_task_that_loses_its_host_goes_on_where_it_was() {
    let options = Options {
        hosts: 40,
        operators: 8,
        tasks: 200,
        job_tasks: 20,
        task_ms: 300_000,
        steps: 64,
        load_ppm: 300_000,
        liars_ppm: 0,
        trouble: Trouble { crash_ppm: 300_000, ..Trouble::usual() },
        ..Options::default()
    };
    let report = simulate(&options);
    let Stepped { checkpoints, trials, .. } = report.stepped.unwrap();
    assert_eq!((report.wrong.events, report.jobs_failed(), trials.begun), (0, 0, 0));
    // Whoever goes on has a tenth of the task behind it at least, and most of it at most.
    let each = checkpoints.segments_saved as f64 / 64.0 / checkpoints.resumed as f64;
    assert!(checkpoints.resumed > 20 && (0.1..0.9).contains(&each), "{checkpoints:?}");
    let never = simulate(&Options { checkpoint_ms: 0, ..options.clone() });
    assert_eq!(never.stepped.unwrap().checkpoints, Default::default());
    // Errors that a machine does not know of go on with its states, and are found all the same.
    let flaky = Options {
        adversary: Adversary::FlakyHardware,
        liars_ppm: 300_000,
        liars_established: true,
        seed: 2,
        ..options
    };
    assert_eq!(simulate(&flaky).honest_suspended, 0);
}

#[test]
fn a_lie_about_a_dear_task_gains_what_the_task_costs() {
    let options = Options { hosts: 60, operators: 60, tasks: 6_000, re_entry_ms: None, ..Options::default() };
    let options = Options { adversary: Adversary::ValueAsymmetric, liars_established: true, dear: 20, ..options };
    let report = simulate(&options);
    let paid = report.purse.lies_paid;
    assert!(paid > 0 && paid.is_multiple_of(20), "{paid}");
    // One task in a hundred costs twenty.
    let each = report.purse.paid as f64 / report.executions.sum() as f64;
    assert!((1.1..1.3).contains(&each), "{each}");
    assert_eq!(report.jobs_failed(), 0);
}
