//! `quorate receipt verify`: records, jobs' logs and hosts' logs, checked from their files alone.
//!
//! All files of one call are held against each other: a head in one that contradicts a head in another is evidence against
//! the host that signed both.

use std::path::{Path, PathBuf};

use clap::Args;
use registry::{
    id::{BlobHash, NodeId},
    log::{Heads, HostLog, JobHead, JobLog, Kind, LogError, host::HostSaid, job::JobSaid},
    receipt::Checked,
};
use serde::Serialize;

use super::{EXTENSION, LOG_EXTENSION, begun, files, read, stage};
use crate::cli::{CliError, Exit, Outcome, output};

#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    /// Files of records or logs, or directories with `.cbor` and `.log` files.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The head that the log has to end in, as `receipt list` shows it or the host says: one that was truncated ends elsewhere.
    #[arg(long, value_name = "HASH")]
    head: Option<BlobHash>,
    /// The coordinator that has to have signed the end of each job's log: the node that its ticket and `quorate up` name.
    #[arg(long, value_name = "NODE")]
    coordinator_key: Option<NodeId>,
    /// Write one JSON value to standard output, for programs.
    #[arg(long)]
    json: bool,
}

/// What came of checking one file.
#[derive(Debug, Serialize)]
struct Verified {
    file: PathBuf,
    holds: bool,
    #[serde(flatten)]
    said: Option<Said>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// What a file says that holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Checked(Box<Checked>),
    JobLog(JobSaid),
    HostLog(HostSaid),
}

impl Said {
    /// Where a log ends.
    fn head(&self) -> Option<BlobHash> {
        match self {
            Self::Checked(_) => None,
            Self::JobLog(said) => Some(BlobHash(said.head.0)),
            Self::HostLog(said) => Some(BlobHash(said.head.0)),
        }
    }
}

pub(super) fn run(args: &VerifyArgs) -> Outcome {
    let mut all = Vec::new();
    let mut heads = Heads::default();
    for path in &args.files {
        for file in files(path, &[EXTENSION, LOG_EXTENSION])? {
            let verified = verify(file, args, &mut heads);
            if !args.json {
                output::line(&sentence(&verified))?;
            }
            all.push(verified);
        }
    }
    let broken = all.iter().filter(|verified| !verified.holds).count();
    if args.json {
        output::json(&all)?;
    } else {
        let holding = all.len() - broken;
        output::line(&format!(
            "{holding} of {} hold: signatures, certificates, agreement of distinct operators and the chains of logs were \
             checked. Who the operators are is for you to know.",
            all.len()
        ))?;
    }
    if broken > 0 {
        return Err(CliError::Failed(format!("{broken} of {} files do not hold", all.len())));
    }
    Ok(Exit::Ok)
}

fn verify(file: PathBuf, args: &VerifyArgs, heads: &mut Heads) -> Verified {
    let expected = |said| ends_in(said, args.head).and_then(|said| is_signed_by(said, args.coordinator_key));
    match check(&file, heads).and_then(expected) {
        Ok(said) => Verified { file, holds: true, said: Some(said), error: None },
        Err(error) => Verified { file, holds: false, said: None, error: Some(error) },
    }
}

/// What the file says, by what it is.
fn check(path: &Path, heads: &mut Heads) -> Result<Said, String> {
    let (kind, rest) = begun(path)?;
    let said = match kind {
        None => {
            let checked = read(path)?.check_by(heads).map_err(|error| error.to_string())?;
            return Ok(Said::Checked(Box::new(checked)));
        }
        Some(Kind::Host) => HostLog::check(rest, heads).map(Said::HostLog),
        Some(Kind::Job) => JobLog::check(rest, heads).map(Said::JobLog),
        Some(Kind::History) => {
            return Err("is an operator's history, not a log of receipts: see `quorate reputation verify`".to_owned());
        }
    };
    said.map_err(|place| place.to_string())
}

fn ends_in(said: Said, head: Option<BlobHash>) -> Result<Said, String> {
    match (said.head(), head) {
        (Some(found), Some(expected)) if found != expected => {
            Err(format!("log ends in {found} instead of {expected}: it is truncated, or another one"))
        }
        _ => Ok(said),
    }
}

fn is_signed_by(said: Said, coordinator: Option<NodeId>) -> Result<Said, String> {
    match (&said, coordinator) {
        (Said::JobLog(log), Some(expected)) => signed_by(log.signed.as_ref(), expected)?,
        (Said::Checked(_) | Said::HostLog(_), Some(_)) => {
            return Err("is no job's log, and no coordinator has signed for it: leave --coordinator-key out".to_owned());
        }
        (_, None) => {}
    }
    Ok(said)
}

/// Whether this coordinator has signed the end of a job's log.
pub(in crate::cli) fn signed_by(head: Option<&JobHead>, expected: NodeId) -> Result<(), String> {
    match head.map(|head| head.coordinator) {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(LogError::OtherCoordinator { expected, found }.to_string()),
        None => Err("nobody has signed its end: ask for the log again, of a coordinator that signs".to_owned()),
    }
}

fn sentence(verified: &Verified) -> String {
    let file = verified.file.display();
    match &verified.said {
        None => format!("BAD  {file}: {}", verified.error.as_deref().unwrap_or("not checked")),
        Some(Said::Checked(checked)) => format!("ok   {file}: {}", of_record(checked)),
        Some(Said::JobLog(said)) => {
            let JobSaid { job, records, evidence, inconclusive, accepted, shards, head, signed } = said;
            let job = output::short(*job);
            let inconclusive = match inconclusive {
                0 => String::new(),
                count => format!(" and {count} of results that differ"),
            };
            let signed = signed.as_ref().map_or_else(
                || "not signed".to_owned(),
                |signed| format!("signed by coordinator {} at {} ms", signed.coordinator, signed.at_ms),
            );
            format!(
                "ok   {file}: job {job}: log of {records} records, {evidence} of them evidence{inconclusive}, with {accepted} of {shards} shards accepted; {signed}; head {head}"
            )
        }
        Some(Said::HostLog(said)) => {
            let HostSaid { node, first, last, head, receipts } = said;
            format!(
                "ok   {file}: node {}: log of heads {first} to {last}, which sign {receipts} receipts; head {head}",
                node.short()
            )
        }
    }
}

fn of_record(checked: &Checked) -> String {
    let operators = checked.operators.len();
    let shard = format!("{} {} of {}", stage(checked.shard), checked.shard.index, checked.shard.count);
    let job = output::short(checked.job);
    let commitment = checked.commitment.short();
    let devices: Vec<String> = checked.devices.iter().map(|device| output::shown(&device.to_string())).collect();
    let on = if devices.is_empty() { String::new() } else { format!(", models on {}", devices.join(" and ")) };
    if let Some(commitments) = checked.differing {
        return format!(
            "job {job}, {shard}: {operators} operators signed {commitments} different results, and nobody is accused{on}"
        );
    }
    match &checked.accused {
        None => format!("job {job}, {shard}: {operators} operators signed result {commitment}{on}"),
        Some((node, lie)) => format!(
            "job {job}, {shard}: node {} signed {}, where {operators} operators signed {commitment}{on}",
            node.short(),
            lie.short()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(file: &Path) -> VerifyArgs {
        VerifyArgs { files: vec![file.to_owned()], head: None, coordinator_key: None, json: false }
    }

    fn verified(file: &Path) -> Verified {
        verify(file.to_owned(), &args(file), &mut Heads::default())
    }

    #[test]
    fn what_is_no_record_does_not_hold_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map-000000.cbor");
        std::fs::write(&path, b"nonsense").unwrap();
        assert_eq!(run(&args(dir.path())).unwrap_err().exit(), Exit::Failed);
        let verified = verified(&path);
        assert!(
            sentence(&verified).starts_with("BAD  ") && sentence(&verified).contains("not a record"),
            "{verified:?}"
        );
    }

    #[test]
    fn a_log_without_entries_does_not_hold_and_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty.log");
        for (kind, reason) in [(Kind::Host, "entry 0: log has no entries"), (Kind::Job, "entry 0: log is truncated")] {
            std::fs::write(&path, kind.line()).unwrap();
            let said = sentence(&verified(&path));
            assert!(said.starts_with("BAD  ") && said.contains(reason), "{said}");
        }
    }

    #[test]
    fn an_empty_directory_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(files(dir.path(), &[EXTENSION]).unwrap_err().exit(), Exit::Usage);
    }
}
