//! Stories about histories: whole ones come to the standing that was held, and each way to tamper with one has a name.

use proptest::prelude::*;

use super::*;
use crate::{
    id::{EngineFingerprint, JobId, ModuleHash, ReceiptId, TaskId},
    job::{Class, ShardInfo, Stage},
    log::{Heads, chain::START},
    membership::NodeCert,
    receipt::{Accepted, Evidence, Execution, Outcome, Receipt, Record, Witness},
    reputation::{CLASSES, MACHINES_MAX, Standing, StandingRules, Work},
};

const TASK_MICRO: u64 = 1_000_000;
const DAY_MS: u64 = 24 * 3_600 * 1_000;
const RULES: StandingRules =
    StandingRules { half_life_ms: 90 * DAY_MS, newcomer_micro: 3 * TASK_MICRO, free_task_micro: TASK_MICRO };
/// Entries of [`changes`].
const ENTRIES: u64 = 6;

fn key(of: u8) -> SecretKey {
    SecretKey::from_bytes(&[of; 32])
}

fn operator() -> OperatorId {
    OperatorId(key(101).public())
}

fn shard(index: u32) -> ShardInfo {
    ShardInfo { stage: Stage::Map, index, count: 9 }
}

/// What host `of`, of operator `of + 100`, signed of a shard.
fn receipt(of: u8, index: u32, output: u8) -> Receipt {
    let execution = Execution {
        task: TaskId([index as u8; 32]),
        module: ModuleHash::of(b"module"),
        class: Class::Exact,
        engine: EngineFingerprint([4; 32]),
        outcome: Outcome::Ok,
        fuel_used: 1000,
        output: BlobHash([output; 32]),
        nn_root: None,
        segment_root: None,
    };
    Receipt {
        job: JobId([1; 32]),
        shard: shard(index),
        execution,
        device: None,
        node: NodeId(key(of).public()),
        operator: OperatorId(key(of + 100).public()),
        nonce: index.into(),
        price_micro: 0,
        nn_record: None,
        segment_record: None,
    }
}

fn work(index: u32) -> Work {
    Work { job: JobId([1; 32]), shard: shard(index), task: TaskId([index as u8; 32]) }
}

/// Makes changes with the numbers that follow.
#[derive(Default)]
struct Writer {
    shown: Shown,
    changes: Vec<Change>,
}

impl Writer {
    fn push(&mut self, at_ms: u64, cause: Cause) {
        let change = Change { at_ms, cause };
        self.shown.apply(&change).unwrap();
        self.changes.push(change);
    }

    fn confirm(&mut self, at_ms: u64, class: Class, index: u32) {
        self.confirm_worth(at_ms, class, index, TASK_MICRO);
    }

    fn confirm_worth(&mut self, at_ms: u64, class: Class, index: u32, worth_micro: u64) {
        let after = self.shown.standing(class).confirmed(RULES, worth_micro, at_ms);
        let (work, receipt) = (work(index), Some(receipt(1, index, 0).id()));
        self.push(at_ms, Cause::Confirmed { class, work, receipt, worth_micro, rules: RULES, after });
    }
}

/// Three results hold in class `exact` and one in another, a machine fails once, and the operator is vouched for.
fn changes() -> Vec<Change> {
    let mut writer = Writer::default();
    for (index, at_ms) in [(0, 1_000), (1, 2_000), (2, 90 * DAY_MS + 2_000)] {
        writer.confirm(at_ms, Class::Exact, index);
    }
    let so_far = Availability { given: 4, faults: 1 };
    writer.push(90 * DAY_MS + 3_000, Cause::Faulted { node: NodeId([5; 32]), so_far });
    writer.confirm(90 * DAY_MS + 4_000, Class::Tolerant, 3);
    writer.push(90 * DAY_MS + 5_000, Cause::Vouched);
    writer.changes
}

fn entries(changes: &[Change]) -> Vec<Entry> {
    let mut prev = START;
    let entry = |(change, seq): (&Change, u64)| {
        let entry = Entry { seq, prev, change: *change };
        prev = link(operator(), seq, prev, &canon::encode(change));
        entry
    };
    changes.iter().zip(0..).map(entry).collect()
}

fn head_of(entries: &[Entry]) -> HistoryHead {
    let last = entries.last().map_or(START, |last| link(operator(), last.seq, last.prev, &canon::encode(&last.change)));
    HistoryHead {
        coordinator: NodeId(key(9).public()),
        operator: operator(),
        entries: entries.len() as u64,
        link: last,
        at_ms: 100 * DAY_MS,
        rules: RULES,
        available: Availability { given: 6, faults: 1 },
    }
}

fn signed(head: &HistoryHead, entries: &[Entry]) -> Vec<u8> {
    let mut file = beginning(head, &key(9));
    entries.iter().for_each(|entry| push(&mut file, entry));
    file
}

fn file(entries: &[Entry]) -> Vec<u8> {
    signed(&head_of(entries), entries)
}

fn check_with(file: &[u8], expected: &Expected) -> Result<HistorySaid, Place> {
    let line = Kind::History.line().len();
    History::check(&file[line.min(file.len())..], expected, None)
}

fn check(file: &[u8]) -> Result<HistorySaid, Place> {
    check_with(file, &Expected::default())
}

fn is_refused(file: &[u8], reason: &str) {
    let refusal = check(file).unwrap_err().to_string();
    assert!(refusal.contains(reason), "{refusal:?} is not {reason:?}");
}

#[test]
fn a_history_comes_to_the_standing_that_its_changes_came_to() {
    let entries = entries(&changes());
    let said = check(&file(&entries)).unwrap();
    assert_eq!((said.head, said.confirmed, said.refuted), (head_of(&entries), 4, 0));
    let exact = said.shown.standing(Class::Exact);
    // Two tasks halve in ninety days, and one comes on top.
    assert_eq!((exact.checked_micro, exact.confirmed), (2 * TASK_MICRO, 3));
    assert_eq!(exact.checked_micro(180 * DAY_MS + 2_000, RULES.half_life_ms), TASK_MICRO);
    assert_eq!(said.shown.standing(Class::Tolerant).confirmed, 1);
    assert_eq!(said.shown.qualified, CLASSES.into(), "the owner answers for it");
    assert_eq!(said.shown.machines[&NodeId([5; 32])].faults, 1);
}

#[test]
fn what_was_shown_at_an_earlier_time_is_computed_too() {
    let file = file(&entries(&changes()));
    let as_of = |at_ms| check_with(&file, &Expected { at_ms: Some(at_ms), ..Expected::default() }).unwrap().shown;
    assert_eq!(as_of(0), Shown::default());
    assert_eq!(as_of(2_000).standing(Class::Exact).checked_micro, 2 * TASK_MICRO);
    assert_eq!(as_of(2_000).rules, Some(RULES));
    assert!(!as_of(90 * DAY_MS + 4_999).vouched && as_of(u64::MAX).vouched);
}

#[test]
fn a_history_without_entries_is_one() {
    let said = check(&file(&[])).unwrap();
    assert_eq!((said.head.entries, said.shown), (0, Shown::default()));
}

#[test]
fn each_way_to_tamper_with_entries_has_a_name() {
    let whole = entries(&changes());
    let head = head_of(&whole);
    let refused = |entries: &[Entry], reason: &str| is_refused(&signed(&head, entries), reason);
    refused(&[&whole[..2], &whole[3..]].concat(), "entry 2: log has a gap: number 2 is missing");
    let mut reordered = whole.clone();
    reordered.swap(2, 3);
    refused(&reordered, "entry 2: log is reordered: number 3 stands where 2 belongs");
    refused(&[&whole[..3], &whole[1..2], &whole[3..]].concat(), "entry 3: number 1 is repeated");
    refused(&whole[..5], "entry 5: log is truncated");
    refused(&[], "entry 0: log is truncated");
    refused(
        &[&whole[..], &[Entry { seq: ENTRIES, prev: head.link, ..whole[5] }]].concat(),
        "log goes on after its end",
    );
    let mut exchanged = whole.clone();
    exchanged[3].change.at_ms += 1;
    refused(&exchanged, "entry 4: entry is chained to");
    let mut last = whole.clone();
    last[5].change.at_ms += 1;
    refused(&last, "entry 6: entry is chained to");
    let cut = signed(&head, &whole);
    is_refused(&cut[..cut.len() - 1], "entry 5: log is truncated");
    is_refused(&cut[..Kind::History.line().len() + 3], "entry 0: log is truncated");
}

#[test]
fn numbers_that_do_not_follow_are_refused_however_well_they_are_chained_and_signed() {
    let refused = |at: usize, change: &dyn Fn(&mut Change), reason: &str| {
        let mut changes = changes();
        change(&mut changes[at]);
        is_refused(&file(&entries(&changes)), reason);
    };
    let after = |by: fn(&mut Standing)| {
        move |change: &mut Change| match &mut change.cause {
            Cause::Confirmed { after, .. } => by(after),
            other => panic!("{other:?}"),
        }
    };
    refused(2, &after(|after| after.checked_micro += 1), "entry 2: numbers do not follow: 2000001 micro-credits");
    refused(1, &after(|after| after.confirmed = 9), "entry 1: numbers do not follow");
    refused(1, &after(|after| after.at_ms += 1), "entry 1: numbers do not follow: a standing as of 2001 ms");
    refused(2, &|change| change.at_ms -= DAY_MS, "entry 2: numbers do not follow: a standing as of");
    // One that is left out, with the rest chained anew.
    let mut fewer = changes();
    fewer.remove(1);
    is_refused(&file(&entries(&fewer)), "entry 1: numbers do not follow");
    let twice = [changes(), vec![changes()[3]]].concat();
    is_refused(&file(&entries(&twice)), "entry 6: numbers do not follow: machine 0505");
    let released = Change { at_ms: 1, cause: Cause::Released { rules: RULES } };
    is_refused(&file(&entries(&[released])), "entry 0: entry is `released` of an operator");
    let expelled = Cause::Expelled { job: JobId([1; 32]), shard: shard(0), node: NodeId([5; 32]) };
    let expelled = Change { at_ms: 1, cause: expelled };
    is_refused(&file(&entries(&[expelled, changes()[0]])), "entry 1: entry is `confirmed` of an operator");
    is_refused(&file(&entries(&[expelled, expelled])), "entry 1: entry is `expelled` of an operator");
}

#[test]
fn who_signed_and_of_whom_is_held_against_what_is_known() {
    let whole = entries(&changes());
    let file = file(&whole);
    let refused = |expected: Expected, reason: &str| {
        let refusal = check_with(&file, &expected).unwrap_err().to_string();
        assert!(refusal.contains(reason), "{refusal}");
    };
    refused(
        Expected { coordinator: Some(NodeId(key(8).public())), ..Expected::default() },
        "it is signed by coordinator",
    );
    refused(Expected { operator: Some(OperatorId([1; 32])), ..Expected::default() }, "history is of operator");
    let head = head_of(&whole);
    let known = Expected { operator: Some(operator()), coordinator: Some(head.coordinator), ..Expected::default() };
    check_with(&file, &known).unwrap();
    // Another key signs for the coordinator.
    let mut forged = beginning(&head, &key(8));
    whole.iter().for_each(|entry| push(&mut forged, entry));
    is_refused(&forged, "entry 0: head names coordinator");
    // A head of another operator, over the same entries.
    let other = HistoryHead { operator: OperatorId([1; 32]), ..head };
    is_refused(&signed(&other, &whole), "entry 1: entry is chained to");
    let many = HistoryHead { entries: HISTORY_ENTRIES_MAX + 1, ..head };
    is_refused(&signed(&many, &whole), "entry 0: history of 16777217 entries is over the bound of 16777216 entries");
}

#[test]
fn a_head_that_was_seen_before_shows_a_history_that_was_shortened_or_written_anew() {
    let whole = entries(&changes());
    let through =
        |entries: &[Entry], head| check_with(&file(entries), &Expected { through: Some(head), ..Expected::default() });
    let (seen, last) = (head_of(&whole[..4]).link, head_of(&whole).link);
    for head in [START, seen, last] {
        through(&whole, head).unwrap();
    }
    let refusal = through(&whole[..4], last).unwrap_err().to_string();
    assert!(refusal.contains("history of 4 entries does not go through head"), "{refusal}");
    let mut other = changes();
    other[3].at_ms += 1;
    assert!(through(&entries(&other), seen).is_err());
}

#[test]
fn entries_and_machines_are_bounded() {
    let mut long = file(&entries(&changes())[..1]);
    file::push(&mut long, &vec![0; HISTORY_ITEM_BYTES_MAX + 1]);
    is_refused(&long, "entry 1: entry of 2049 bytes is over the bound of 2048 bytes");
    let mut shown = Shown::default();
    let so_far = Availability { given: 1, faults: 1 };
    let fault = |number: usize| {
        let mut node = [0; 32];
        node[..8].copy_from_slice(&(number as u64).to_be_bytes());
        Change { at_ms: 1, cause: Cause::Faulted { node: NodeId(node), so_far } }
    };
    (0..MACHINES_MAX).for_each(|number| shown.apply(&fault(number)).unwrap());
    let refusal = shown.apply(&fault(MACHINES_MAX)).unwrap_err().to_string();
    assert!(refusal.contains("more than 65536 machines"), "{refusal}");
}

#[test]
fn the_largest_entry_and_head_are_within_their_bound() {
    let shard = ShardInfo { stage: Stage::Reduce, index: u32::MAX, count: u32::MAX };
    let work = Work { job: JobId([255; 32]), shard, task: TaskId([255; 32]) };
    let after = Standing { checked_micro: u64::MAX, at_ms: u64::MAX, confirmed: u64::MAX };
    let rules = StandingRules { half_life_ms: u64::MAX, newcomer_micro: u64::MAX, free_task_micro: u64::MAX };
    let receipt = Some(ReceiptId([255; 32]));
    let cause = Cause::Confirmed { class: Class::Homogeneous, work, receipt, worth_micro: u64::MAX, rules, after };
    let entry = Entry { seq: u64::MAX, prev: LinkId([255; 32]), change: Change { at_ms: u64::MAX, cause } };
    // Half of what an item may have, so that a file of as many entries as may be is within its own bound.
    assert!(canon::encode(&entry).len() < 1000, "{}", canon::encode(&entry).len());
    let available = Availability { given: u64::MAX, faults: u64::MAX };
    let head = HistoryHead { entries: u64::MAX, at_ms: u64::MAX, rules, available, ..head_of(&[]) };
    assert!(canon::encode(&head).len() <= HistoryHead::BYTES_MAX);
    assert!(canon::encode(&Signed::seal(&head, &key(9))).len() <= HISTORY_ITEM_BYTES_MAX);
}

fn witness(receipt: &Receipt, of: u8) -> Witness {
    let cert = NodeCert { node: NodeId(key(of).public()), issued_ms: 0 };
    Witness { receipt: Signed::seal(receipt, &key(of)), cert: Signed::seal(&cert, &key(of + 100)) }
}

#[test]
fn the_receipts_that_a_history_names_have_to_be_there_and_to_be_the_operators() {
    let mut writer = Writer::default();
    writer.confirm(1, Class::Exact, 0);
    let (lie, truth) = (receipt(1, 1, 7), receipt(2, 1, 0));
    writer.push(2, Cause::Refuted { work: work(1), receipt: lie.id(), against: Some(truth.id()) });
    let accepted = |index| {
        let witnesses = [1, 2].map(|of| witness(&receipt(of, index, 0), of)).to_vec();
        Record::Accepted(Accepted { quorum: 2, witnesses, drawn: None })
    };
    let right = Accepted { quorum: 1, witnesses: vec![witness(&truth, 2)], drawn: None };
    let evidence = Record::Evidence(Evidence { accepted: right, accused: witness(&lie, 1) });
    let whole = file(&entries(&writer.changes));
    let check = |file: &[u8], receipts: &Receipts| {
        History::check(&file[Kind::History.line().len()..], &Expected::default(), Some(receipts))
    };
    let mut receipts = Receipts::default();
    let missing = check(&whole, &receipts).unwrap_err().to_string();
    assert!(missing.contains("entry 0: receipt") && missing.contains("in none of the files"), "{missing}");
    // By its machine's word.
    receipts.add(&receipt(1, 0, 0)).unwrap();
    let missing = check(&whole, &receipts).unwrap_err().to_string();
    assert!(missing.contains("entry 1: receipt"), "{missing}");
    receipts.add_record(&evidence, &mut Heads::default()).unwrap();
    let said = check(&whole, &receipts).unwrap();
    assert_eq!((said.receipts, said.certified, said.refuted), (2, 2, 1), "the certificate is in the evidence");
    receipts.add_record(&accepted(1), &mut Heads::default()).unwrap();

    let with = |cause: Cause| file(&entries(&[Change { at_ms: 3, cause }]));
    let refused = |file: &[u8], reason: &str| {
        let refusal = check(file, &receipts).unwrap_err().to_string();
        assert!(refusal.contains(reason), "{refusal}");
    };
    let refuted = |work, receipt: &Receipt, against: &Receipt| {
        with(Cause::Refuted { work, receipt: receipt.id(), against: Some(against.id()) })
    };
    refused(&refuted(work(1), &truth, &lie), "is of operator");
    refused(&refuted(work(2), &lie, &truth), "is of other work than the entry says");
    refused(&refuted(work(1), &receipt(1, 1, 0), &truth), "does not contradict receipt");
    let mut dear = Writer::default();
    dear.confirm_worth(3, Class::Exact, 1, TASK_MICRO + 1);
    refused(&file(&entries(&dear.changes)), "entry adds 1000001 and may add 1000000");
}

fn causes() -> impl Strategy<Value = Vec<(u8, u64)>> {
    proptest::collection::vec((0u8..7, 0..40 * DAY_MS), 0..40)
}

/// What could happen to an operator, with the numbers that follow.
fn written(steps: &[(u8, u64)]) -> Writer {
    let (mut writer, mut at_ms, mut faults) = (Writer::default(), 0, 0);
    for (index, (step, later)) in (0..).zip(steps) {
        at_ms += later;
        match step {
            0..=2 if !writer.shown.expelled => writer.confirm(at_ms, CLASSES[usize::from(*step)], index),
            3 => writer.push(at_ms, Cause::Vouched),
            4 if writer.shown.vouched => writer.push(at_ms, Cause::Released { rules: RULES }),
            5 => {
                faults += 1;
                let so_far = Availability { given: 2 * faults, faults };
                writer.push(at_ms, Cause::Faulted { node: NodeId([5; 32]), so_far });
            }
            6 if !writer.shown.expelled => {
                let cause = Cause::Expelled { job: JobId([1; 32]), shard: shard(index), node: NodeId([5; 32]) };
                writer.push(at_ms, cause);
            }
            _ => {}
        }
    }
    writer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_history_holds_and_comes_to_what_it_came_to(steps in causes()) {
        let written = written(&steps);
        let said = check(&file(&entries(&written.changes))).unwrap();
        prop_assert_eq!(said.shown, written.shown);
    }

    #[test]
    fn any_changed_byte_is_noticed(at in any::<prop::sample::Index>(), change in 1u8..) {
        let file = file(&entries(&changes()));
        let line = Kind::History.line().len();
        let mut changed = file.clone();
        changed[line + at.index(file.len() - line)] ^= change;
        prop_assert!(check(&changed).is_err());
    }

    #[test]
    fn nothing_that_is_left_out_goes_unnoticed(keep in proptest::collection::vec(any::<bool>(), ENTRIES as usize)) {
        let whole = entries(&changes());
        let kept: Vec<_> = whole.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(entry, _)| *entry).collect();
        prop_assert_eq!(check(&signed(&head_of(&whole), &kept)).is_ok(), kept.len() == whole.len());
    }
}
