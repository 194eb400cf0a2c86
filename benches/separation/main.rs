//! Does a calibrated tolerance tell what is not the model's answer, and nothing else?
//!
//! For each real model, and the digits, a tolerance is fitted on one set of inputs over all backends of this machine (tract
//! with its two classes of kernels, ONNX Runtime), as `quorate calibrate` does. On another set, of at least 1,000 inferences,
//! it judges what an honest host answers on each backend against an auditor on each other one: every answer told is a false
//! alarm. Then hosts that are not honest answer, on the last backend, and are judged by auditors on each: with another model,
//! one that was trained a little further, a copy of 8 or 16 bits, an input of which the second half is missing, the answer to
//! the inference before, and honest answers with one element moved by twice its bound. An answer counts as told when every
//! auditor tells it, a task of 32 when one of its answers is told or its largest elements are others too often.
//!
//! `of the bound` is by how much the element that is most off differs, as a share of what it may: the median, and the one
//! nearest to the other side, which is the largest of honest hosts and the smallest of others. `other label, untold` counts
//! answers whose largest element is another than the honest one's, in tasks that are not told: the harm that is left.
//!
//! Needs `tools/install-models` first. Arguments name models, e.g. `-- digits silero`.
#![allow(clippy::print_stdout, reason = "a bench prints its table")]

mod inputs;

use std::{error::Error, process::ExitCode, thread};

use benches::{measured, row, table};
use host::{
    calibrate::{
        backends::{AtHand, at_hand},
        judge::{Closeness, Outside, difference, floats, judge},
        measure::{Asked, Pair, compare},
        samples::Sample,
    },
    sandbox::{BackendOptions, NnTensor, Provider, Sandbox, SandboxOptions, find},
};
use registry::tolerance::Tolerance;
use support::{
    models::Models,
    standins::{StandIn, stand_in},
};

use self::inputs::Subject;

/// Inferences of one task.
const TASK: usize = 32;
/// As `quorate calibrate` has it.
const TOP_K: u32 = 1;

/// What a model answers to a sample.
type Answer = Vec<NnTensor>;
type Maker = fn(&Models) -> Result<Subject, Box<dyn Error>>;

const SUBJECTS: [(&str, Maker); 4] =
    [("digits", inputs::digits), ("silero", inputs::silero), ("orient", inputs::orient), ("magika", inputs::magika)];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    measured(measure)
}

fn measure() -> Result<(), Box<dyn Error>> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|own| own == name);
    let models = Models::find().ok_or("real models are not installed: run tools/install-models first")?;
    let backends = backends(&models);
    let mut rows = vec![row![
        "model",
        "host runs",
        "answers",
        "told",
        "tasks",
        "told",
        "by the top alone",
        "of the bound",
        "nearest",
        "other label, untold",
    ]];
    let (mut false_alarms, mut honest, mut true_alarms, mut lies) = (0, 0, 0, 0);
    for (name, subject) in SUBJECTS.into_iter().filter(|(name, _)| is_wanted(name)) {
        let bench = Bench::new(subject(&models)?, &backends)?;
        bench.about();
        let count = bench.honest();
        (false_alarms, honest) = (false_alarms + count.told, honest + count.answers);
        rows.push(count.row(name, "the model"));
        for (what, count) in bench.liars()? {
            (true_alarms, lies) = (true_alarms + count.told, lies + count.answers);
            rows.push(count.row(name, what));
        }
    }
    println!();
    table(&rows);
    println!("\nfalse alarms: {false_alarms} of {honest} honest answers; true alarms: {true_alarms} of {lies} others");
    Ok(())
}

/// What is at hand and starts, and the ONNX Runtime that comes with the models.
fn backends(models: &Models) -> Vec<AtHand> {
    let mut all = at_hand();
    all.retain(|AtHand { name, options }| match Sandbox::new(options.clone()) {
        Ok(_) => true,
        Err(error) => {
            println!("{name} is left out: {error}");
            false
        }
    });
    let is_onnxruntime = |one: &AtHand| one.options.backend.is_native();
    let found = find::find(find::Wanted::Library).into_iter().map(|found| found.path).next();
    let library = found.or_else(|| models.path("libonnxruntime.so").canonicalize().ok());
    let like = all.first().map(|tract| tract.options.clone()).unwrap_or_default();
    if let (false, Some(library)) = (all.iter().any(is_onnxruntime), library) {
        let options =
            SandboxOptions { backend: BackendOptions::Onnxruntime { library, provider: Provider::Cpu }, ..like };
        all.push(AtHand { name: "onnxruntime".to_owned(), options });
    }
    all
}

/// A model, its tolerance, and what each backend answers to what is judged.
struct Bench<'a> {
    subject: Subject,
    backends: &'a [AtHand],
    pairs: Vec<Pair>,
    tolerance: Tolerance,
    judged: Vec<Vec<Answer>>,
}

impl<'a> Bench<'a> {
    fn new(subject: Subject, backends: &'a [AtHand]) -> Result<Self, Box<dyn Error>> {
        let answers = thread::scope(|scope| {
            let ask = |at_hand: &AtHand| {
                let asked = Asked::start(at_hand.clone(), &subject.model).map_err(|error| error.to_string())?;
                let calibrated = asked.answers(&subject.calibrated).map_err(|error| error.to_string())?;
                let judged = asked.answers(&subject.judged).map_err(|error| error.to_string())?;
                Ok::<_, String>(((at_hand.name.clone(), calibrated), judged))
            };
            let threads: Vec<_> = backends.iter().map(|at_hand| scope.spawn(move || ask(at_hand))).collect();
            let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked")?);
            joined.collect::<Result<Vec<_>, String>>()
        })?;
        let (calibrated, judged): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
        let (pairs, tolerance) = compare(&calibrated, Some(TOP_K));
        Ok(Self { subject, backends, pairs, tolerance, judged })
    }

    fn about(&self) {
        let Subject { name, calibrated, judged, .. } = &self.subject;
        let Tolerance { atol_exp2, rtol_exp2, top } = self.tolerance;
        let top = top.map_or_else(|| "none".to_owned(), |top| format!("{} ppm", top.agreement_ppm));
        println!(
            "{name}: calibrated on {} samples, judged on {}: 2^{atol_exp2} + 2^{rtol_exp2} |b|, top-{TOP_K} {top}",
            calibrated.len(),
            judged.len()
        );
        for Pair { one, other, closeness: Closeness { max_abs, max_rel, rows_disagreeing, rows, .. }, .. } in
            &self.pairs
        {
            println!("    {one} - {other}: {max_abs:.1e}, {max_rel:.1e} |b|, {rows_disagreeing} of {rows} rows");
        }
    }

    /// Each backend as a host, each other one as its auditor.
    fn honest(&self) -> Count {
        let mut count = Count::new(true);
        for (at, host) in self.judged.iter().enumerate() {
            for (_, auditor) in self.judged.iter().enumerate().filter(|(other, _)| *other != at) {
                count.add(&self.tolerance, host, &[auditor]);
            }
        }
        count
    }

    /// Hosts that do something else.
    fn liars(&self) -> Result<Vec<(&'static str, Count)>, Box<dyn Error>> {
        let Some((at_hand, honest)) = self.backends.last().zip(self.judged.last()) else { return Ok(Vec::new()) };
        let Subject { model, judged, padding, .. } = &self.subject;
        let all: Vec<&[Answer]> = self.judged.iter().map(Vec::as_slice).collect();
        let mut counts = Vec::new();
        let mut judge = |what, answers: &[Answer], auditors: &[&[Answer]]| {
            let mut count = Count::new(false);
            count.add(&self.tolerance, answers, auditors);
            counts.push((what, count));
        };
        let stand_ins = [
            ("another model", StandIn::Shuffled),
            ("weights moved by 1 %", StandIn::Moved(0.01)),
            ("weights moved by 0.1 %", StandIn::Moved(0.001)),
            ("weights of 8 bits", StandIn::Int8),
            ("weights of 16 bits", StandIn::Half),
        ];
        for (what, how) in stand_ins {
            let answers = Asked::start(at_hand.clone(), &stand_in(model, how))?.answers(judged)?;
            judge(what, &answers, &all);
        }
        // Where nothing is cut away the input is the honest one.
        let cut: Vec<Sample> = judged.iter().map(|sample| truncated(sample, *padding)).collect();
        let differs: Vec<bool> = cut.iter().zip(judged).map(|(cut, whole)| cut.inputs != whole.inputs).collect();
        let answers = Asked::start(at_hand.clone(), model)?.answers(&cut)?;
        let kept: Vec<Vec<Answer>> = all.iter().map(|answers| keep(answers, &differs)).collect();
        let kept: Vec<&[Answer]> = kept.iter().map(Vec::as_slice).collect();
        judge("half of the input", &keep(&answers, &differs), &kept);

        let later: Vec<&[Answer]> = all.iter().map(|answers| &answers[1..]).collect();
        judge("the answer before", &honest[..honest.len() - 1], &later);
        let shifted: Vec<Answer> = honest.iter().map(|answer| shifted(answer, &self.tolerance)).collect();
        judge("one element moved", &shifted, &all);
        Ok(counts)
    }
}

/// What is counted of hosts.
struct Count {
    is_honest: bool,
    answers: usize,
    told: usize,
    tasks: usize,
    tasks_told: usize,
    by_top: usize,
    untold: usize,
    shares: Vec<f64>,
}

impl Count {
    fn new(is_honest: bool) -> Self {
        Self { is_honest, answers: 0, told: 0, tasks: 0, tasks_told: 0, by_top: 0, untold: 0, shares: Vec::new() }
    }

    /// Judges a host's answers by each of these auditors'; for the host counts the auditor who tells least.
    fn add(&mut self, tolerance: &Tolerance, host: &[Answer], auditors: &[&[Answer]]) {
        let tasks = (0..host.len()).step_by(TASK).map(|from| from..host.len().min(from + TASK));
        for task in tasks {
            let (mut told, mut told_by_top) = (usize::MAX, true);
            let mut shares = vec![f64::INFINITY; task.len()];
            let mut others = usize::MAX;
            for auditor in auditors {
                let (mut closeness, mut own, mut labels) = (Closeness::default(), 0, 0);
                for ((host, auditor), least) in host[task.clone()].iter().zip(&auditor[task.clone()]).zip(&mut shares) {
                    own += usize::from(judge(Some(tolerance), host, auditor).is_err());
                    *least = least.min(share(tolerance, host, auditor));
                    closeness.add(host, auditor, Some(TOP_K));
                    labels = closeness.rows_disagreeing as usize;
                }
                told = told.min(own);
                told_by_top &= tolerance.top.is_some_and(|top| closeness.disagrees(&top));
                others = others.min(labels);
            }
            self.answers += task.len();
            self.told += told;
            self.tasks += 1;
            self.tasks_told += usize::from(told > 0 || told_by_top);
            self.by_top += usize::from(told == 0 && told_by_top);
            self.untold += if told == 0 && !told_by_top { others } else { 0 };
            self.shares.extend(shares);
        }
    }

    fn row(mut self, model: &str, what: &str) -> Vec<String> {
        self.shares.sort_unstable_by(f64::total_cmp);
        let median = self.shares.get(self.shares.len() / 2).copied().unwrap_or_default();
        let nearest = if self.is_honest { self.shares.last() } else { self.shares.first() };
        let share = |part: usize, of: usize| format!("{part} ({:.1} %)", 100.0 * part as f64 / of.max(1) as f64);
        let Self { answers, told, tasks, tasks_told, by_top, untold, .. } = self;
        row![
            model,
            what,
            answers,
            share(told, answers),
            tasks,
            share(tasks_told, tasks),
            by_top,
            format!("{median:.3}"),
            format!("{:.3}", nearest.copied().unwrap_or_default()),
            untold,
        ]
    }
}

/// By how much the element that is most off differs, as a share of its bound.
fn share(tolerance: &Tolerance, there: &[NnTensor], here: &[NnTensor]) -> f64 {
    if let Err(Outside::Count { .. } | Outside::Shape { .. }) = judge(Some(tolerance), there, here) {
        return f64::INFINITY;
    }
    let each = |(there, here): (&NnTensor, &NnTensor)| match (floats(there), floats(here)) {
        (Some(there), Some(here)) => {
            let shares =
                there.iter().zip(&here).map(|(there, here)| difference(*there, *here) / tolerance.bound(*here));
            shares.fold(0.0, f64::max)
        }
        _ if there == here => 0.0,
        _ => f64::INFINITY,
    };
    there.iter().zip(here).map(each).fold(0.0, f64::max)
}

/// The sample with the second half of its first input missing.
fn truncated(sample: &Sample, padding: i32) -> Sample {
    let mut inputs = sample.inputs.clone();
    if let Some(first) = inputs.first_mut() {
        let elements = first.data.len() / 4;
        // Elements of four bytes, which are floats where the padding is zero.
        for element in first.data.0.chunks_mut(4).skip(elements / 2) {
            element.copy_from_slice(&padding.to_le_bytes());
        }
    }
    Sample { name: sample.name.clone(), inputs }
}

/// The answers where it says so.
fn keep(answers: &[Answer], where_it_is: &[bool]) -> Vec<Answer> {
    answers.iter().zip(where_it_is).filter(|(_, keep)| **keep).map(|(answer, _)| answer.clone()).collect()
}

/// An honest answer, of which the first element is moved by twice what it may be.
fn shifted(answer: &[NnTensor], tolerance: &Tolerance) -> Answer {
    let mut answer = answer.to_vec();
    let value = answer.first().and_then(floats).and_then(|values| values.first().copied());
    if let (Some(value), Some(first)) = (value, answer.first_mut()) {
        let moved = (value + 2.0 * tolerance.bound(value)) as f32;
        first.data.0[..4].copy_from_slice(&moved.to_le_bytes());
    }
    answer
}
