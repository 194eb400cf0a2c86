//! `quorate reputation verify`: an operator's history, checked from its file alone.

use std::path::{Path, PathBuf};

use clap::Args;
use registry::{
    id::{LinkId, NodeId, OperatorId},
    job::Class,
    log::{
        Heads, History, HostLog, JobLog, Kind, Receipts,
        file::HISTORY_BYTES_MAX,
        history::{Expected, HistorySaid},
    },
    reputation::{Availability, CLASSES},
};
use serde_json::json;

use super::{tasks, word};
use crate::cli::{
    CliError, Exit, Outcome, output,
    receipt::{EXTENSION, LOG_EXTENSION, begun, files, read},
};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The history, as `quorate reputation export` wrote it.
    file: PathBuf,
    /// The operator whose history it has to be.
    #[arg(long, value_name = "ID")]
    operator: Option<OperatorId>,
    /// The coordinator that has to have signed it: the node that its ticket and `quorate up` name.
    #[arg(long, value_name = "NODE")]
    coordinator_key: Option<NodeId>,
    /// A head that the history has to go through: one that the list, or an earlier file, has shown.
    #[arg(long, value_name = "HASH")]
    head: Option<LinkId>,
    /// Files of records or logs, or directories of them, that have to hold every receipt which the history names.
    #[arg(long, value_name = "PATH", num_args = 1..)]
    receipts: Vec<PathBuf>,
    /// The time that the standing is asked of, in milliseconds since 1970; when the history was signed, when left out.
    #[arg(long)]
    at_ms: Option<u64>,
    /// Write one JSON value to standard output, for programs.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &VerifyArgs) -> Outcome {
    let receipts = gather(&args.receipts)?;
    let expected =
        Expected { operator: args.operator, coordinator: args.coordinator_key, through: args.head, at_ms: args.at_ms };
    let checked = check(&args.file, &expected, receipts.as_ref());
    if args.json {
        let (said, error) = (checked.as_ref().ok(), checked.as_ref().err());
        output::json(&json!({ "file": args.file, "holds": said.is_some(), "said": said, "error": error }))?;
    }
    let refused = |error| CliError::Failed(format!("{}: {error}", args.file.display()));
    let said = checked.map_err(refused)?;
    if !args.json {
        tell(&args.file, &said, receipts.is_some())?;
    }
    Ok(Exit::Ok)
}

fn check(path: &Path, expected: &Expected, receipts: Option<&Receipts>) -> Result<HistorySaid, String> {
    let bytes = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if bytes > HISTORY_BYTES_MAX {
        return Err(format!("file of {bytes} bytes is over the bound of {HISTORY_BYTES_MAX} bytes"));
    }
    match begun(path)? {
        (Some(Kind::History), rest) => History::check(rest, expected, receipts).map_err(|place| place.to_string()),
        _ => Err("is no history of an operator: write one with `quorate reputation export`".to_owned()),
    }
}

/// Every receipt in these files, each checked; nothing when none are given.
fn gather(paths: &[PathBuf]) -> Result<Option<Receipts>, CliError> {
    let (mut receipts, mut heads) = (Receipts::default(), Heads::default());
    for path in paths {
        for file in files(path, &[EXTENSION, LOG_EXTENSION])? {
            let refused = |error| CliError::Failed(format!("{}: {error}", file.display()));
            add(&file, &mut receipts, &mut heads).map_err(refused)?;
        }
    }
    Ok((!paths.is_empty()).then_some(receipts))
}

fn add(path: &Path, receipts: &mut Receipts, heads: &mut Heads) -> Result<(), String> {
    let (kind, rest) = begun(path)?;
    match kind {
        None => receipts.add_record(&read(path)?, heads).map_err(|error| error.to_string()),
        Some(Kind::Job) => {
            // A record is checked beside the heads of its own file first, and then beside all.
            let add = |record: &_| receipts.add_record(record, heads);
            JobLog::check_each(rest, &mut Heads::default(), add).map(drop).map_err(|place| place.to_string())
        }
        Some(Kind::Host) => {
            let add = |receipt: &_| Ok(receipts.add(receipt)?);
            HostLog::check_each(rest, heads, add).map(drop).map_err(|place| place.to_string())
        }
        Some(Kind::History) => Err("is a history, and holds no receipts".to_owned()),
    }
}

fn tell(path: &Path, said: &HistorySaid, with_receipts: bool) -> Result<(), CliError> {
    let HistorySaid { head, confirmed, refuted, as_of_ms, shown, receipts, certified, .. } = said;
    let Availability { given, faults } = head.available;
    output::line(&format!("ok   {}: history of operator {}", path.display(), head.operator))?;
    output::line(&format!(
        "signed by coordinator {} at {} ms: {} entries, {confirmed} confirmed and {refuted} refuted results; head {}",
        head.coordinator, head.at_ms, head.entries, head.link
    ))?;
    output::line(&format!("its machines were given {given} executions by then, {faults} of which gave no result"))?;
    if with_receipts {
        output::line(&format!(
            "{receipts} receipts that it names are at hand, {certified} of them by machines with the operator's certificate"
        ))?;
    }
    output::line(&format!("standing at {as_of_ms} ms, computed from the entries:"))?;
    let rows: Vec<Vec<String>> = CLASSES.into_iter().filter_map(|class| row(said, class)).collect();
    if rows.is_empty() {
        return output::line(&format!("none: {}", word(shown.expelled, shown.vouched, false)));
    }
    output::table(&["class", "standing", "tasks", "checked", "reckoned at"], &rows)
}

/// What the operator has shown in a class, if anything.
fn row(said: &HistorySaid, class: Class) -> Option<Vec<String>> {
    let (shown, standing) = (&said.shown, said.shown.standing(class));
    let qualified = shown.qualified.contains(&class);
    let worth = standing.checked_micro(said.as_of_ms, said.rules.half_life_ms);
    (qualified || standing.confirmed > 0).then(|| {
        vec![
            class.word().to_owned(),
            word(shown.expelled, shown.vouched, qualified).to_owned(),
            tasks(worth),
            standing.confirmed.to_string(),
            format!("{} ms", standing.at_ms),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_history_does_not_hold_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("standing.log");
        let refusal = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            check(&path, &Expected::default(), None).unwrap_err()
        };
        assert!(refusal(b"").contains("is no history"));
        assert!(refusal(Kind::Host.line()).contains("is no history"));
        assert!(refusal(Kind::History.line()).contains("entry 0: log is truncated"));
        let large = std::fs::File::options().write(true).open(&path).unwrap();
        large.set_len(HISTORY_BYTES_MAX + 1).unwrap();
        let refusal = check(&path, &Expected::default(), None).unwrap_err();
        assert!(refusal.contains("over the bound of 17179869184 bytes"), "{refusal}");
    }

    #[test]
    fn receipts_that_do_not_hold_bear_nothing_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("map-000000.cbor"), b"nonsense").unwrap();
        let refusal = gather(&[dir.path().to_owned()]).unwrap_err().to_string();
        assert!(refusal.contains("map-000000.cbor") && refusal.contains("not a record"), "{refusal}");
        assert!(gather(&[]).unwrap().is_none());
    }
}
