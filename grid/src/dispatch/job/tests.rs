//! Whose receipts count for a shard.

use super::*;
use crate::dispatch::cast::Summary;

const ENGINE: EngineFingerprint = EngineFingerprint([9; 32]);

fn commitment(of: char) -> Commitment {
    Commitment([of as u8; 32])
}

/// Owners' operators have numbers from 100 on.
fn config() -> Config {
    Config { vouched: (100..103).map(|operator| OperatorId([operator; 32])).collect(), ..Config::default() }
}

/// A shard of an audited job whose operators have signed so, newcomers that repeated it among them.
fn shard(quorum: u8, signed: &[(u8, char)], newcomers: &[u8]) -> Shard {
    let slice = Slice { blob: None, start: 0, end: 1 };
    let planned = PlannedShard { slice, input: BlobHash::of(b"") };
    let cast = |(operator, says): &(u8, char)| {
        Cast::Summary(Box::new(Summary {
            purpose: crate::dispatch::Purpose::Work,
            node: NodeId([*operator; 32]),
            operator: OperatorId([*operator; 32]),
            engine: ENGINE,
            commitment: commitment(*says),
            inferred: false,
            price_micro: 0,
        }))
    };
    Shard {
        engine: Some(ENGINE),
        quorum,
        casts: signed.iter().map(cast).collect(),
        probers: newcomers.iter().map(|operator| OperatorId([*operator; 32])).collect::<Vec<_>>().into(),
        ..Shard::new(planned, TaskId([1; 32]), 1)
    }
}

#[test]
fn newcomers_that_agree_with_each_other_outvote_nobody() {
    let config = config();
    let disputed = shard(2, &[(1, 't'), (2, 'f'), (3, 'f'), (4, 'f')], &[2, 3, 4]);
    assert!(disputed.is_disputed(&config), "they are heard");
    assert_eq!(disputed.verdict(&config), Verdict::Open { wanted: 1 });
    let refereed = shard(2, &[(1, 't'), (2, 'f'), (3, 'f'), (4, 'f'), (100, 't')], &[2, 3, 4]);
    assert_eq!(refereed.verdict(&config), Verdict::Accepted(commitment('t')));
    let right = shard(2, &[(1, 'f'), (2, 't'), (100, 't')], &[2]);
    assert_eq!(right.verdict(&config), Verdict::Accepted(commitment('t')), "a referee reproduced the newcomer's");
    assert_eq!(shard(1, &[(2, 'f')], &[2]).verdict(&config), Verdict::Open { wanted: 1 }, "alone it is nothing");
}

#[test]
fn a_dispute_can_be_settled_however_many_newcomers_had_repeated_the_result() {
    let config = config();
    let signed = [(1, 't'), (2, 't'), (3, 't'), (4, 't'), (5, 'f')];
    let repeated = shard(2, &signed, &[2, 3, 4, 5]);
    assert_eq!(repeated.verdict(&config), Verdict::Open { wanted: 1 });
    let lies = [(1, 'f'), (2, 'f'), (3, 'f'), (4, 'f'), (5, 'f'), (100, 't')];
    assert_eq!(shard(2, &lies, &[2, 3, 4, 5]).verdict(&config), Verdict::Open { wanted: 1 });
}

#[test]
fn nobody_has_to_outnumber_whom_a_referee_disagrees_with() {
    let config = config();
    // Three that colluded had the shard when its audit was drawn, so that four had to agree.
    let mut refereed = shard(4, &[(1, 'f'), (2, 'f'), (3, 'f'), (4, 't'), (100, 't')], &[]);
    assert_eq!(refereed.verdict(&config), Verdict::Accepted(commitment('t')));
    refereed.accept(commitment('t'), Output { stdout: BlobHash::of(b""), stdout_bytes: 0, files: Vec::new() }, &config);
    assert_eq!(refereed.quorum, 2, "the record asks for no more than there are");
    assert_eq!(shard(4, &[(1, 'f'), (2, 'f'), (3, 'f')], &[]).verdict(&config), Verdict::Open { wanted: 1 });
}

#[test]
fn what_newcomers_repeat_still_stands_on_one_operators_word() {
    let config = config();
    let output = Output { stdout: BlobHash::of(b""), stdout_bytes: 0, files: Vec::new() };
    let accepted = |signed: &[(u8, char)], newcomers: &[u8]| {
        let mut shard = shard(1, signed, newcomers);
        shard.accept(commitment('t'), output.clone(), &config);
        (shard.sole_witness().map(|operator| operator.0[0]), shard.sole_supporter().map(|operator| operator.0[0]))
    };
    assert_eq!(accepted(&[(1, 't')], &[]), (Some(1), Some(1)));
    assert_eq!(accepted(&[(1, 't'), (2, 't'), (3, 'f')], &[2, 3]), (None, Some(1)));
    assert_eq!(accepted(&[(2, 't'), (100, 't'), (1, 'f')], &[2]), (None, Some(100)));
    assert_eq!(accepted(&[(1, 't'), (100, 't')], &[]), (None, None));
}
