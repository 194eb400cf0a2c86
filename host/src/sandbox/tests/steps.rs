//! Tasks in steps: their states follow from the task alone, and wherever one is cut, it ends the same.

use registry::{
    id::TaskId,
    receipt::Trap,
    segment::{SEGMENTS_MAX, SegmentRecord, Snapshot},
};

use super::{
    super::{Ran, Span},
    *,
};

const MAX: u64 = 1 << 30;

/// Functions for steps: `$burn` spends so much fuel and a little more, `$once` counts calls in a global.
const HELP: &str = r#"
    (global $calls (mut i32) (i32.const 0))
    (global $sum (mut i64) (i64.const 0))
    (global $half (mut f64) (f64.const 0.5))
    (global $fixed i32 (i32.const 7))
    (func $burn (param $fuel i32)
        (local.set $fuel (i32.div_u (local.get $fuel) (i32.const 6)))
        (loop $again
            (local.set $fuel (i32.sub (local.get $fuel) (i32.const 1)))
            (br_if $again (local.get $fuel))))
    (func $count (result i32)
        (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (global.get $calls))"#;

/// A module that is called until it was eight times, burns 8 million units of fuel each time, and uses all that a state has.
fn busy() -> Vec<u8> {
    module(
        &format!(
            r#"{HELP}
            (data (i32.const 100) "never written over")
            (func (export "step") (result i32)
                (call $burn (i32.const 8000000))
                (drop (call $random_get (i32.const 1000) (i32.const 5)))
                (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 1008)))
                (i32.store (i32.const 65504) (i32.const 1016))
                (i32.store (i32.const 65508) (i32.const 3))
                (drop (call $fd_read (i32.const 0) (i32.const 65504) (i32.const 1) (i32.const 65512)))
                (global.set $sum (i64.add (global.get $sum) (i64.load (i32.const 1000))))
                (global.set $half (f64.mul (global.get $half) (f64.const 0.5)))
                (i64.store (i32.const 1024) (global.get $sum))
                (f64.store (i32.const 1032) (global.get $half))
                (drop (memory.grow (i32.const 1)))
                (i32.store8 (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1)) (memory.size))
                (memory.fill (i32.const 100) (i32.const 0) (i32.const 18))
                (call $say (i32.const 1) (i32.const 1000) (i32.const 40))
                (call $say (i32.const 2) (i32.const 1000) (i32.const 8))
                (i32.lt_u (call $count) (i32.const 8)))"#
        ),
        "(call $burn (i32.const 1000))",
    )
}

fn busy_request() -> Request {
    Request { stdin: (0..=255).collect(), seed: [7; 32], ..request(&busy()) }
}

fn span(request: &Request, from: Option<&bytes::Bytes>, until: Option<u32>) -> Result<Ran, HostFault> {
    sandbox().run_span(request.clone(), Span { from: from.cloned(), until, pause_ms: None }, None)
}

/// The snapshot of a state.
fn paused(request: &Request, from: Option<&bytes::Bytes>, until: u32) -> bytes::Bytes {
    match span(request, from, Some(until)) {
        Ok(Ran::Paused(snapshot)) => snapshot,
        other => panic!("did not pause at state {until}: {other:?}"),
    }
}

fn done(request: &Request, from: Option<&bytes::Bytes>) -> Finished {
    match span(request, from, None) {
        Ok(Ran::Done(finished)) => Finished { wall_micros: 0, ..*finished },
        other => panic!("did not end: {other:?}"),
    }
}

fn states(finished: &Finished) -> usize {
    finished.segments.as_ref().map_or(0, |record| record.states.len())
}

#[test]
fn wherever_a_task_is_cut_it_ends_the_same() {
    let request = busy_request();
    let whole = run(request.clone());
    assert_eq!((whole.outcome, whole.stdout.len(), whole.stderr.len()), (Outcome::Ok, 8 * 40, 8 * 8));
    let record = whole.segments.clone().unwrap();
    // After `_start`, and after each third step.
    assert_eq!(record.states.len(), 3);
    let mut from_the_one_before = None;
    for (at, root) in (0..).zip(&record.states) {
        let snapshot = paused(&request, None, at);
        assert_eq!(paused(&request, from_the_one_before.as_ref(), at), snapshot, "state {at}");
        let opened = Snapshot::open(&snapshot, MAX).unwrap();
        assert_eq!((opened.state.root(), &opened.earlier[..]), (*root, &record.states[..at as usize]));
        assert_eq!(done(&request, Some(&snapshot)), whole, "from state {at}");
        from_the_one_before = Some(snapshot);
    }
    // No state comes after the last.
    assert!(matches!(span(&request, None, Some(3)), Ok(Ran::Done(_))));
}

#[test]
fn a_task_that_is_stopped_in_time_stops_at_a_state_and_ends_the_same() {
    let request = busy_request();
    let whole = run(request.clone());
    let pausing = |pause_ms, from| Span { from, until: None, pause_ms: Some(pause_ms) };
    // At every state: each is reached later than at once.
    let (mut from, mut states) = (None, 0);
    let finished = loop {
        match sandbox().run_span(request.clone(), pausing(0, from.take()), None).unwrap() {
            Ran::Paused(snapshot) => {
                assert_eq!(Snapshot::open(&snapshot, MAX).unwrap().state.index, states);
                (from, states) = (Some(snapshot), states + 1);
            }
            Ran::Done(finished) => break Finished { wall_micros: 0, ..*finished },
        }
    };
    assert_eq!((states, &finished), (3, &whole));
    // Before its time it does not stop, and what has no steps never does.
    assert!(matches!(sandbox().run_span(request, pausing(600_000, None), None), Ok(Ran::Done(_))));
    let plain = self::request(&module("", ""));
    assert!(matches!(sandbox().run_span(plain, pausing(0, None), None), Ok(Ran::Done(_))));
}

#[test]
fn a_task_that_ends_badly_ends_the_same_from_every_state() {
    let ending = |end: &str| {
        let step = format!(
            r#"{HELP}
            (func (export "step") (result i32)
                (call $burn (i32.const 21000000))
                (if (i32.eq (call $count) (i32.const 3)) (then {end}))
                (i32.const 1))"#
        );
        request(&module(&step, ""))
    };
    let limits = Limits { fuel_max: 100_000_000, ..Limits::default() };
    let cases = [
        (ending("(unreachable)"), Outcome::Trap(Trap::Unreachable)),
        (ending("(call $proc_exit (i32.const 3))"), Outcome::Exit(3)),
        (ending("(call $proc_exit (i32.const 0))"), Outcome::Ok),
        (Request { limits, ..ending("(call $burn (i32.const 90000000))") }, Outcome::FuelOut),
        (ending("(drop (memory.grow (i32.const 60000))) (unreachable)"), Outcome::MemoryOut),
    ];
    for (request, outcome) in cases {
        let whole = run(request.clone());
        assert_eq!((whole.outcome, states(&whole)), (outcome, 3));
        for at in 0..3 {
            assert_eq!(done(&request, Some(&paused(&request, None, at))), whole, "{outcome} from state {at}");
        }
    }
}

#[test]
fn growth_that_was_refused_before_a_state_is_remembered_after_it() {
    let step = format!(
        r#"{HELP}
        (func (export "step") (result i32)
            (drop (memory.grow (i32.const 60000)))
            (call $burn (i32.const 21000000))
            (if (i32.eq (call $count) (i32.const 2)) (then (unreachable)))
            (i32.const 1))"#
    );
    let request = request(&module(&step, ""));
    let whole = run(request.clone());
    assert_eq!(whole.outcome, Outcome::MemoryOut);
    assert_eq!(done(&request, Some(&paused(&request, None, 1))), whole);
}

#[test]
fn a_beginning_that_ends_the_task_has_no_steps() {
    let step = r#"(func (export "step") (result i32) (unreachable))"#;
    for (start, outcome) in [
        ("(call $proc_exit (i32.const 0))", Outcome::Ok),
        ("(call $proc_exit (i32.const 9))", Outcome::Exit(9)),
        ("(unreachable)", Outcome::Trap(Trap::Unreachable)),
    ] {
        let finished = run(request(&module(step, start)));
        assert_eq!((finished.outcome, finished.segments), (outcome, None));
    }
    let finished = run(request(&module(r#"(func (export "step") (result i32) (i32.const 0))"#, "")));
    assert_eq!((finished.outcome, states(&finished)), (Outcome::Ok, 1));
}

#[test]
fn a_module_without_steps_has_none() {
    let request = request(&module("", ""));
    assert_eq!(run(request.clone()).segments, None);
    for span in [Span { until: Some(0), ..Span::WHOLE }, Span { from: Some(bytes::Bytes::new()), ..Span::WHOLE }] {
        let fault = sandbox().run_span(request.clone(), span, None).unwrap_err();
        assert_eq!(fault.to_string(), "snapshot is refused: the module has no steps");
    }
}

#[test]
fn steps_that_do_nothing_cost_fuel_and_end() {
    let endless = r#"(func (export "step") (result i32) (i32.const 1))"#;
    let limits = Limits { fuel_max: 10_000_000, ..Limits::default() };
    let finished = run(Request { limits, ..request(&module(endless, "")) });
    assert_eq!((finished.outcome, finished.fuel_used, states(&finished)), (Outcome::FuelOut, 10_000_000, 1));
    // And a deadline ends them too.
    let limits = Limits { fuel_max: u64::MAX, wall_ms_max: 50, ..Limits::default() };
    let fault = fault(Request { limits, ..request(&module(endless, "")) });
    assert!(matches!(fault, HostFault::Deadline { .. }), "{fault}");
}

#[test]
fn the_number_of_segments_is_bounded_by_a_share_of_the_fuel() {
    // So much fuel that the share is more than the least of a segment.
    let fuel_max = 120_000_000_000;
    let step = format!(
        r#"{HELP} (func (export "step") (result i32) (call $burn (i32.const 9000000)) (i32.lt_u (call $count) (i32.const 10)))"#
    );
    let limits = Limits { fuel_max, ..Limits::default() };
    let finished = run(Request { limits, ..request(&module(&step, "")) });
    // 29.3 million a segment, that is four steps.
    assert_eq!(fuel_max.div_ceil(u64::from(SEGMENTS_MAX) - 2) / 100_000, 293);
    assert_eq!((finished.outcome, states(&finished)), (Outcome::Ok, 1 + 2));
}

#[test]
fn while_a_task_has_something_open_its_segment_goes_on() {
    // Opens a file in its second step, and closes it in its fourth; or leaves something behind for ever.
    let opens = |zone: &str, name: &str, flags: u32, closes: bool| {
        let close = if closes {
            "(if (i32.eq (global.get $calls) (i32.const 4)) (then (drop (call $fd_close (i32.load (i32.const 900))))))"
        } else {
            ""
        };
        let path = format!("{zone}/{name}");
        // What is read only cannot be opened to write.
        let rights = if zone == "in" { 2 } else { 66 };
        let length = path.len();
        let step = format!(
            r#"{HELP}
            (data (i32.const 800) "{path}")
            (func (export "step") (result i32)
                (call $burn (i32.const 21000000))
                (drop (call $count))
                (if (i32.eq (global.get $calls) (i32.const 2)) (then
                    (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 800) (i32.const {length}) (i32.const {flags})
                            (i64.const {rights}) (i64.const 0) (i32.const 0) (i32.const 900)) (then (unreachable)))))
                {close}
                (i32.lt_u (global.get $calls) (i32.const 6)))"#
        );
        let files = [("a".to_owned(), bytes::Bytes::from_static(b"file"))].into();
        Request { files, ..request(&module(&step, "")) }
    };
    // States after `_start`, steps 1, 4 and 5; without closing, after `_start` and step 1.
    let read = |closes| opens("in", "a", 0, closes);
    for (request, count) in
        [(read(true), 4), (read(false), 2), (opens("out", "b", 1, true), 2), (opens("tmp", "b", 1, true), 2)]
    {
        let whole = run(request.clone());
        assert_eq!((whole.outcome, states(&whole)), (Outcome::Ok, count));
        for at in 0..count as u32 {
            assert_eq!(done(&request, Some(&paused(&request, None, at))), whole, "state {at} of {count}");
        }
    }
}

#[test]
fn what_no_state_could_tell_is_refused_by_name() {
    let refusal = |declared: &str| {
        let bytes = module(declared, "");
        Sandbox::preflight(&bytes).unwrap_err()
    };
    let step = r#"(func (export "step") (result i32) (i32.const 0))"#;
    let cases = [
        (r#"(func (export "step"))"#, "export `step` must be a function without parameters whose result is an i32"),
        (r#"(func (export "step") (param i32) (result i32) (i32.const 0))"#, "export `step` must be"),
        (r#"(func (export "step") (result i64) (i64.const 0))"#, "export `step` must be"),
        (r#"(global (export "step") i32 (i32.const 0))"#, "export `step` must be"),
        (
            "(global (mut v128) (v128.const i64x2 0 0))",
            "must not have a mutable global that is a vector or a reference",
        ),
        ("(global (mut funcref) (ref.null func))", "must not have a mutable global that is a vector or a reference"),
        ("(table 1 funcref) (func (table.set (i32.const 0) (ref.null func)))", "must not change a table"),
        ("(table 1 funcref) (func (drop (table.grow (ref.null func) (i32.const 1))))", "must not change a table"),
        (r#"(data $d "x") (func (data.drop $d))"#, "must not drop a segment"),
        (r#"(elem $e func) (func (elem.drop $e))"#, "must not drop a segment"),
    ];
    for (declared, expected) in cases {
        let text = if declared.contains("step") { declared.to_owned() } else { format!("{declared} {step}") };
        let refused = refusal(&text);
        assert!(refused.to_string().contains(expected), "{declared}: {refused}");
        // Without steps, all but the export's own type is as it was.
        if !declared.contains("step") {
            Sandbox::preflight(&module(declared, "")).unwrap();
        }
    }
}

#[test]
fn a_snapshot_that_is_altered_or_of_something_else_is_refused_by_name() {
    let request = busy_request();
    let snapshot = paused(&request, None, 1);
    let refused = |request: &Request, snapshot: Vec<u8>| match span(request, Some(&snapshot.into()), None) {
        Err(fault @ HostFault::Snapshot { .. }) => fault.to_string(),
        other => panic!("not refused: {other:?}"),
    };
    let altered = |at: usize| {
        let mut bytes = snapshot.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    assert!(refused(&request, altered(0)).contains("does not start with"));
    assert!(refused(&request, altered(snapshot.len() - 1)).contains("its log hash to"));
    assert!(refused(&request, altered(snapshot.len() - 1000)).contains("its pages hash to"));
    assert!(refused(&request, snapshot[..snapshot.len() - 1].to_vec()).contains("cut short"));
    assert!(refused(&request, [&snapshot[..], b"x"].concat()).contains("bytes after its end"));
    let small = Request {
        limits: Limits { memory_bytes_max: 65_536, output_bytes_max: 0, ..request.limits },
        ..request.clone()
    };
    assert!(refused(&small, [&snapshot[..], &vec![0; 1 << 20]].concat()).contains("over the bound of"));
    // Of another task, and of another module.
    let other = Request { seed: [8; 32], ..request.clone() };
    assert!(refused(&other, snapshot.to_vec()).contains("snapshot is of task 0707"));
    let module = super::request(&module(r#"(func (export "step") (result i32) (i32.const 0))"#, ""));
    assert!(refused(&module, snapshot.to_vec()).contains("snapshot is of module"));
    // Nothing lies between a state and itself.
    let none = span(&request, Some(&snapshot), Some(1)).unwrap_err();
    assert_eq!(none.to_string(), "snapshot is refused: it is of state 1, and state 1 lies not after it");
}

/// A state that hashes as it should and that no task comes to: whoever makes one must not hurt the host.
#[test]
fn a_state_that_no_task_comes_to_is_refused_by_name() {
    let request = busy_request();
    let bytes = paused(&request, None, 1);
    let opened = Snapshot::open(&bytes, MAX).unwrap();
    type Change = fn(&mut registry::segment::State, &mut Vec<u8>);
    let cases: [(Change, &str); 7] = [
        (|state, _| state.fuel_used = u64::MAX, "18446744073709551615 fuel, over the task's"),
        (|state, _| state.stdin_bytes = 257, "257 bytes of input, over the task's 256"),
        (|state, _| state.globals.truncate(1), "globals other than the module's"),
        (|state, _| state.globals[0] = registry::segment::Global::F32(0), "globals other than the module's"),
        (|state, memory| (state.memory.pages, *memory) = (0, Vec::new()), "less memory, or more, other than"),
        (|state, memory| (state.memory.pages, *memory) = (4097, vec![0; 4097 << 16]), "4097 pages of memory, over"),
        (|state, _| state.random_bytes = u64::MAX, "18446744073709551615 random bytes, over"),
    ];
    for (change, expected) in cases {
        let zero = vec![0; 65_536];
        let mut memory = opened.all_pages().map(|(_, page)| page.unwrap_or(&zero)).collect::<Vec<_>>().concat();
        let mut state = opened.state.clone();
        change(&mut state, &mut memory);
        state.memory.root = registry::segment::memory_root(&memory);
        let forged = Snapshot::encode(&state, &opened.earlier, &memory, opened.stdout, opened.log);
        match span(&request, Some(&forged.into()), None) {
            Err(fault @ HostFault::Snapshot { .. }) => assert!(fault.to_string().contains(expected), "{fault}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn a_task_may_be_called_by_another_name() {
    // The id of a real task is its seed, and its states carry it.
    let request = busy_request();
    let snapshot = paused(&request, None, 0);
    assert_eq!(Snapshot::open(&snapshot, MAX).unwrap().state.task, TaskId(request.seed));
    let other = run(Request { seed: [8; 32], ..request.clone() });
    let SegmentRecord { states } = run(request).segments.unwrap();
    assert!(other.segments.unwrap().states.iter().zip(&states).all(|(other, own)| other != own));
}
