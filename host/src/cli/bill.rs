//! `quorate bill verify`: an invoice, computed again from the receipts.
//!
//! Offline, with nothing but files: the invoice, the records of its job, the job itself and what its tasks wrote. Each line's receipt
//! has to be in a record that holds, its usage has to be what the receipt says, its prices those that are named, and the sum the total.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use grid::ledger::Invoice;
use registry::{
    id::ReceiptId,
    job::JobSpec,
    price::Usage,
    receipt::{Output, RECORD_BYTES_MAX, Receipt, Record, RecordError, Witness},
};
use serde_json::json;

use super::{CliError, Exit, Outcome, output};
use crate::replay::{CONTENT_DIR, Sources};

/// Files of an invoice's records that are read.
const FILES_MAX: usize = 1_000_000;

#[derive(Debug, Subcommand)]
pub(super) enum BillVerb {
    /// Compute an invoice again from the receipts that it names.
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// The invoice, as `quorate ledger invoice JOB --out FILE` wrote it.
    invoice: PathBuf,
    /// Directories with the job's records and their content, as `quorate receipt get JOB --content --out DIR` wrote them.
    #[arg(required = true)]
    receipts: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(verb: BillVerb) -> Outcome {
    let BillVerb::Verify(args) = verb;
    let invoice = read_invoice(&args.invoice)?;
    let held = check(&invoice, &args.receipts).await;
    if args.json {
        let error = held.as_ref().err().map(ToString::to_string);
        let (job, holds, total) = (invoice.job, held.is_ok(), invoice.total);
        output::json(&json!({ "job": job, "holds": holds, "total_micro": total, "error": error }))?;
    }
    held?;
    if !args.json {
        let (lines, total) = (invoice.lines.len(), invoice.total);
        output::line(&format!("holds: {lines} executions, {total} credits, each computed from its receipt"))?;
    }
    Ok(Exit::Ok)
}

fn read_invoice(path: &Path) -> Result<Invoice, CliError> {
    let text = std::fs::read_to_string(path).map_err(|source| CliError::File { path: path.to_owned(), source })?;
    let refused = |error| CliError::Usage(format!("{} is no invoice: {error}", path.display()));
    serde_json::from_str(&text).map_err(refused)
}

async fn check(invoice: &Invoice, dirs: &[PathBuf]) -> Result<(), CliError> {
    let failed = |message: String| CliError::Failed(format!("bill of job {}: {message}", output::short(invoice.job)));
    invoice.check().map_err(|error| failed(error.to_string()))?;
    let receipts = receipts(dirs)?;
    let sources = Sources::open(dirs).await.map_err(|error| failed(error.to_string()))?;
    let checked = lines(invoice, &receipts, &sources).map_err(failed);
    sources.close().await;
    checked
}

/// Each line against its receipt; says what does not hold.
fn lines(invoice: &Invoice, receipts: &BTreeMap<ReceiptId, Paid>, sources: &Sources) -> Result<(), String> {
    let spec: Option<JobSpec> = sources.preimage(invoice.job.0).map_err(|error| error.to_string())?;
    let spec = spec.ok_or("its job is not in the content: get the receipts with --content")?;
    for line in &invoice.lines {
        let name = line.receipt;
        let Paid { receipt, wrote } = receipts.get(&name).ok_or_else(|| format!("no record has receipt {name}"))?;
        if (receipt.node, receipt.operator, receipt.shard) != (line.node, line.operator, line.shard) {
            return Err(format!("receipt {} is of another execution than its line says", name.short()));
        }
        let written = match wrote {
            Some(output) => Some(output.clone()),
            None => sources.preimage(receipt.execution.output.0).map_err(|error| error.to_string())?,
        };
        let written: Output =
            written.ok_or_else(|| format!("what receipt {} wrote is not in the content", name.short()))?;
        let usage = Usage::proven(receipt, &spec, &written).map_err(|error| error.to_string())?;
        if usage != line.usage {
            let Usage { fuel, output_bytes, .. } = usage;
            return Err(format!(
                "receipt {} says {fuel} units of fuel and {output_bytes} bytes of output, its line {} and {}",
                name.short(),
                line.usage.fuel,
                line.usage.output_bytes,
            ));
        }
        if receipt.price_micro != line.bill.total.micro() {
            let (signed, billed) = (receipt.price_micro, line.bill.total.micro());
            return Err(format!("receipt {} asks {signed} micro-credits, its line {billed}", name.short()));
        }
    }
    Ok(())
}

/// A receipt of a record that holds, with what its task wrote where the record says so itself.
struct Paid {
    receipt: Receipt,
    wrote: Option<Output>,
}

/// The receipts of every record that holds, in these directories; what tasks read and wrote is left aside.
fn receipts(dirs: &[PathBuf]) -> Result<BTreeMap<ReceiptId, Paid>, CliError> {
    let (mut receipts, mut waiting, mut files) = (BTreeMap::new(), dirs.to_vec(), 0);
    let mut accused = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        let failed = |source| CliError::File { path: path.clone(), source };
        if path.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                if entry.file_name() != CONTENT_DIR {
                    waiting.push(entry.path());
                }
            }
            continue;
        }
        files += 1;
        if files > FILES_MAX {
            return Err(CliError::Usage(format!("more than {FILES_MAX} files: name the job's directories alone")));
        }
        if std::fs::metadata(&path).map_err(failed)?.len() > RECORD_BYTES_MAX as u64 {
            continue;
        }
        let Ok(record) = Record::from_bytes(&std::fs::read(&path).map_err(failed)?) else { continue };
        let refused = |error| CliError::Failed(format!("record {}: {error}", path.display()));
        receipts.extend(paid(&record).map_err(refused)?);
        accused.extend(record.accused().map(Witness::open).transpose().map_err(refused)?.map(|receipt| receipt.id()));
    }
    // What is refuted is paid by nobody, whatever other records it is in.
    receipts.retain(|name, _| !accused.contains(name));
    Ok(receipts)
}

/// The receipts of a record that are paid, by name: those that agree on what it says, and all where nobody reproduced anything.
fn paid(record: &Record) -> Result<Vec<(ReceiptId, Paid)>, RecordError> {
    record.check()?;
    let (witnesses, wrote) = match record {
        Record::Inconclusive(record) => (&record.witnesses[..], &record.outputs[..]),
        Record::Accepted(_) | Record::Evidence(_) | Record::Dispute(_) => (record.agreeing(), &[][..]),
    };
    let wrote = wrote.iter().cloned().map(Some).chain(std::iter::repeat(None));
    let open = |(witness, wrote): (&Witness, _)| witness.open().map(|receipt| (receipt.id(), Paid { receipt, wrote }));
    witnesses.iter().zip(wrote).map(open).collect()
}
