//! A task in steps, span by span: from a snapshot on, and with a snapshot after each of its segments.

use std::{fs, path::Path};

use bytes::Bytes;
use registry::segment::{SegmentRecord, Snapshot};

use super::{RunArgs, local::Reason};
use crate::sandbox::{self, Finished, HostFault, Ran, Request, Sandbox, Span};

/// The file that the states of a task are in, by their roots.
const RECORD: &str = "segments.cbor";

/// Why it did not come to its end.
pub(super) enum Stopped {
    /// What was given cannot be gone on from.
    Refused(Reason),
    /// A file could not be written.
    File(Reason),
    /// As without spans.
    Fault(HostFault),
}

impl From<HostFault> for Stopped {
    fn from(fault: HostFault) -> Self {
        Self::Fault(fault)
    }
}

/// Runs a task to its end.
pub(super) fn run(own: &Sandbox, request: &Request, args: &RunArgs) -> Result<Finished, Stopped> {
    let bytes_max = sandbox::snapshot_bytes_max(&request.limits);
    let open = |snapshot: &[u8]| {
        let opened = Snapshot::open(snapshot, bytes_max).map_err(|error| Reason::new(error.word(), error));
        opened.map(|opened| opened.state.index)
    };
    let (mut from, mut next) = (None, 0);
    if let Some(path) = &args.resume {
        let bytes = super::local::read(path, bytes_max).map_err(Stopped::Refused)?;
        next = open(&bytes).map_err(Stopped::Refused)? + 1;
        from = Some(Bytes::from(bytes));
    }
    loop {
        let span = Span { from: from.take(), until: args.snapshots.as_ref().map(|_| next), pause_ms: None };
        match (own.run_span(request.clone(), span, None)?, &args.snapshots) {
            (Ran::Done(finished), None) => return Ok(*finished),
            (Ran::Done(finished), Some(dir)) => {
                let record = finished.segments.as_ref().map_or_else(Vec::new, SegmentRecord::to_bytes);
                write(dir, RECORD, &record)?;
                return Ok(*finished);
            }
            (Ran::Paused(snapshot), dir) => {
                // Of a process, which is believed nothing.
                let index = open(&snapshot).map_err(Stopped::Refused)?;
                if let Some(dir) = dir {
                    write(dir, &format!("state-{index:06}.snapshot"), &snapshot)?;
                }
                next = index + 1;
                from = Some(snapshot);
            }
        }
    }
}

/// The file appears when it is whole; one that is there is of the same task, or of another run into the same directory, and is
/// replaced.
fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Stopped> {
    let path = dir.join(name);
    let part = path.with_extension("part");
    let written =
        fs::create_dir_all(dir).and_then(|()| fs::write(&part, bytes)).and_then(|()| fs::rename(&part, &path));
    written.map_err(|error| Stopped::File(Reason::new("file", format!("{}: {error}", path.display()))))
}
