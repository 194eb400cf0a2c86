//! Histories of operators: whatever happens in any test of the machine, what follows from an operator's history is what the machine
//! decides with.

use registry::{
    log::{History, Kind, chain::START, history},
    reputation::{Availability, CLASSES},
};

use super::*;
use crate::audit::TASK_MICRO;

impl World {
    pub(super) fn changed(&mut self, operator: OperatorId, change: Change) {
        self.shown.entry(operator).or_default().apply(&change).unwrap();
        self.changes.push((operator, change));
    }

    /// A test has given the operator standing by itself.
    pub(super) fn found(&mut self, operator: OperatorId) {
        let class = Class::Exact;
        let standing = self.state.reputation.standing(operator, class);
        let qualified = self.state.reputation.qualified(class).contains(&operator);
        let cause = Cause::Found { class, standing, rules: self.config.audit.rules(), qualified };
        self.changed(operator, Change { at_ms: self.now, cause });
    }

    /// What was said is all that there is to know.
    pub(super) fn check_histories(&self) {
        if !self.state.histories {
            return;
        }
        let hosts = self.hosts.iter().map(|host| OperatorId(host.operator.public()));
        let operators: BTreeSet<OperatorId> = hosts.chain(self.shown.keys().copied()).collect();
        for operator in operators {
            let shown = self.shown.get(&operator).cloned().unwrap_or_default();
            for class in CLASSES {
                assert_eq!(shown.standing(class), self.state.reputation.standing(operator, class), "{operator}");
                let qualified = self.state.reputation.qualified(class).contains(&operator);
                assert_eq!(shown.qualified.contains(&class), qualified, "{operator} in class {}", class.word());
            }
            assert_eq!(shown.vouched, self.state.config.vouched.contains(&operator), "{operator}");
            assert_eq!(shown.expelled, self.state.fleet.is_suspended(operator), "{operator}");
        }
    }

    fn changes_of(&self, index: usize) -> Vec<Change> {
        let operator = OperatorId(self.hosts[index].operator.public());
        self.changes.iter().filter(|(of, _)| *of == operator).map(|(_, change)| *change).collect()
    }

    fn words_of(&self, index: usize) -> Vec<&'static str> {
        self.changes_of(index).iter().map(|change| change.cause.word()).collect()
    }

    /// The file of an operator's history.
    fn history_of(&self, index: usize) -> Vec<u8> {
        let operator = OperatorId(self.hosts[index].operator.public());
        let (mut body, mut prev, mut entries) = (Vec::new(), START, 0);
        for change in self.changes_of(index) {
            history::push(&mut body, &history::Entry { seq: entries, prev, change });
            prev = history::link(operator, entries, prev, &canon::encode(&change));
            entries += 1;
        }
        let coordinator = SecretKey::from_bytes(&[99; 32]);
        let head = history::HistoryHead {
            coordinator: NodeId(coordinator.public()),
            operator,
            entries,
            link: prev,
            at_ms: self.now,
            rules: self.state.config.audit.rules(),
            available: Availability::default(),
        };
        [history::beginning(&head, &coordinator), body].concat()
    }
}

#[test]
fn every_checked_result_and_every_lie_is_in_the_history_of_its_operator_with_its_receipt() {
    let mut world = World::new(&[Conduct::Honest, Conduct::Honest, Conduct::Honest, Conduct::Liar], 2);
    let input: String = (0..30).map(|line| format!("{line}\n")).collect();
    let job = world.submit(input.as_bytes(), |_| {});
    world.run();
    let liar = world.changes_of(3);
    let refuted = liar.iter().filter(|change| matches!(change.cause, Cause::Refuted { .. })).count();
    assert_eq!(refuted, world.evidence.len());
    assert_eq!(liar.iter().filter(|change| matches!(change.cause, Cause::Expelled { .. })).count(), 1);
    let mut receipts = registry::log::Receipts::default();
    let mut heads = registry::log::Heads::default();
    let records = world.accepted.iter().chain(world.evidence.iter().map(|(_, record)| record));
    records.for_each(|record| receipts.add_record(record, &mut heads).unwrap());
    for index in 0..4 {
        let file = world.history_of(index);
        let items = &file[Kind::History.line().len()..];
        let said = History::check(items, &history::Expected::default(), Some(&receipts)).unwrap();
        assert_eq!(said.shown, world.shown[&said.head.operator]);
        assert_eq!((said.receipts, said.certified), (said.confirmed + said.refuted, said.receipts));
        assert_eq!(said.shown.expelled, index == 3);
        let standing = world.state.reputation.standing(said.head.operator, Class::Exact);
        assert_eq!(said.shown.standing(Class::Exact), standing);
        let is_of_job = |change: &Change| match change.cause {
            Cause::Confirmed { work, .. } | Cause::Refuted { work, .. } => work.job == job,
            _ => true,
        };
        assert!(world.changes_of(index).iter().all(is_of_job));
    }
    assert!(world.state.reputation.standing(OperatorId(world.hosts[0].operator.public()), Class::Exact).confirmed > 0);
    world.check_replay();
}

#[test]
fn the_owners_word_is_in_the_history_as_it_comes_and_goes() {
    let mut world = World::new(&[Conduct::Honest; 3], 3);
    let operator = OperatorId(world.hosts[0].operator.public());
    let mut say = |vouched: &[OperatorId], newcomer_micro| {
        let mut config = Config { vouched: vouched.iter().copied().collect(), ..world.state.config.clone() };
        config.audit.newcomer_micro = newcomer_micro;
        world.feed(Event::Configured { config: Box::new(config) });
    };
    say(&[operator], TASK_MICRO);
    // Said again it is no news.
    say(&[operator], 2 * TASK_MICRO);
    say(&[], TASK_MICRO);
    say(&[operator], TASK_MICRO);
    assert_eq!(world.words_of(0), ["vouched", "released", "vouched"]);
    assert!(world.words_of(1).is_empty());
}

#[test]
fn faults_are_said_at_each_doubling_and_change_no_standing() {
    let mut world = World::new(&[Conduct::Faulty, Conduct::Honest, Conduct::Honest], 5);
    for _ in 0..12 {
        world.submit(&b"line\n".repeat(30), |spec| spec.attempts_max = 30);
        world.run();
    }
    let faults = world.state.host(world.hosts[0].node()).unwrap().record.faults;
    let said: Vec<u64> = world
        .changes_of(0)
        .iter()
        .map(|change| match change.cause {
            Cause::Faulted { so_far, .. } => so_far.faults,
            other => panic!("{other:?}"),
        })
        .collect();
    let doublings: Vec<u64> = (0..64).map(|by| 1 << by).take_while(|count| *count <= faults).collect();
    assert!(faults > 4);
    assert_eq!(said, doublings);
}

#[test]
fn a_grid_that_is_older_than_its_histories_says_first_what_was_so() {
    let mut world = World::new(&[Conduct::Honest, Conduct::Honest, Conduct::Honest, Conduct::Liar], 2);
    // As a version without them left it.
    world.state.histories = false;
    (world.changes, world.shown) = (Vec::new(), BTreeMap::new());
    let input: String = (0..30).map(|line| format!("{line}\n")).collect();
    world.submit(input.as_bytes(), |_| {});
    world.run();
    let config =
        Config { vouched: [OperatorId(world.hosts[0].operator.public())].into(), ..world.state.config.clone() };
    world.feed(Event::Configured { config: Box::new(config) });
    assert!(world.changes.is_empty(), "nothing is said before histories begin");
    let older = canon::encode(&world.state);
    world.state = canon::decode(&older, older.len()).unwrap();
    world.feed(Event::HistoriesBegin);
    assert_eq!(world.words_of(0)[0], "vouched");
    assert_eq!(world.words_of(1), ["found"]);
    assert_eq!(world.words_of(3)[0], "expelled");
    // It begins once, and goes on from there.
    let said = world.changes.len();
    world.feed(Event::HistoriesBegin);
    assert_eq!(world.changes.len(), said);
    world.submit(b"more\nwork\n", |_| {});
    world.run();
    assert!(world.words_of(1).contains(&"confirmed"));
}
