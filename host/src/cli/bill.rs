//! `quorate bill verify`: an invoice, computed again from the receipts.
//!
//! Offline, with nothing but files: the invoice, the records of its job, the job itself and what its tasks wrote. Each line's receipt
//! has to be in a record that holds, its usage has to be what the receipt says, its prices those that are named, and the sum the total.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use grid::ledger::Invoice;
use registry::{
    canon,
    id::{BlobHash, ReceiptId},
    job::JobSpec,
    price::Usage,
    receipt::{Output, Receipt, Record, Witness},
};
use serde_json::json;

use super::{CliError, Exit, Outcome, output};
use crate::limits;

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

pub(super) fn run(verb: BillVerb) -> Outcome {
    let BillVerb::Verify(args) = verb;
    let invoice = read_invoice(&args.invoice)?;
    let held = check(&invoice, &args.receipts);
    if args.json {
        let error = held.as_ref().err().map(ToString::to_string);
        output::json(
            &json!({ "job": invoice.job, "holds": held.is_ok(), "total_micro": invoice.total, "error": error }),
        )?;
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

fn check(invoice: &Invoice, dirs: &[PathBuf]) -> Result<(), CliError> {
    let failed = |message: String| CliError::Failed(format!("bill of job {}: {message}", output::short(invoice.job)));
    invoice.check().map_err(|error| failed(error.to_string()))?;
    let evidence = Evidence::read(dirs)?;
    let spec =
        evidence.job(invoice).ok_or_else(|| failed("no file is its job: get the receipts with --content".into()))?;
    for line in &invoice.lines {
        let name = line.receipt;
        let receipt = evidence.receipts.get(&name).ok_or_else(|| failed(format!("no record has receipt {name}")))?;
        let named = (receipt.node, receipt.operator, receipt.shard) == (line.node, line.operator, line.shard);
        if !named {
            return Err(failed(format!("receipt {} is of another execution than its line says", name.short())));
        }
        let output = evidence
            .output(receipt)
            .ok_or_else(|| failed(format!("no file is what receipt {} wrote", name.short())))?;
        let usage = Usage::proven(receipt, &spec, &output).map_err(|error| failed(error.to_string()))?;
        if usage != line.usage {
            let Usage { fuel, output_bytes, .. } = usage;
            return Err(failed(format!(
                "receipt {} says {fuel} units of fuel and {output_bytes} bytes of output, its line {} and {}",
                name.short(),
                line.usage.fuel,
                line.usage.output_bytes,
            )));
        }
        if receipt.price_micro != line.bill.total.micro() {
            let (signed, billed) = (receipt.price_micro, line.bill.total.micro());
            return Err(failed(format!("receipt {} asks {signed} micro-credits, its line {billed}", name.short())));
        }
    }
    Ok(())
}

/// Everything that the files prove.
#[derive(Default)]
struct Evidence {
    receipts: BTreeMap<ReceiptId, Receipt>,
    outputs: BTreeMap<BlobHash, Output>,
    jobs: Vec<JobSpec>,
}

impl Evidence {
    fn read(dirs: &[PathBuf]) -> Result<Self, CliError> {
        let mut evidence = Self::default();
        let mut waiting: Vec<PathBuf> = dirs.to_vec();
        let mut files = 0;
        while let Some(path) = waiting.pop() {
            let failed = |source| CliError::File { path: path.clone(), source };
            if path.is_dir() {
                for entry in std::fs::read_dir(&path).map_err(failed)? {
                    waiting.push(entry.map_err(failed)?.path());
                }
                continue;
            }
            files += 1;
            if files > FILES_MAX {
                return Err(CliError::Usage(format!("more than {FILES_MAX} files: name the job's directories alone")));
            }
            evidence.add(&path)?;
        }
        Ok(evidence)
    }

    /// A file is whatever it decodes as; one that is none of these is content of a task.
    fn add(&mut self, path: &Path) -> Result<(), CliError> {
        let failed = |source| CliError::File { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(failed)?.len() > limits::BILL_FILE_BYTES_MAX {
            return Ok(());
        }
        let bytes = std::fs::read(path).map_err(failed)?;
        if let Ok(record) = Record::from_bytes(&bytes) {
            let refused = |error| CliError::Failed(format!("record {}: {error}", path.display()));
            record.check().map_err(refused)?;
            return self.witnesses(&record).map_err(refused);
        }
        if let Ok(output) = canon::decode::<Output>(&bytes, bytes.len()) {
            self.outputs.insert(output.hash(), output);
        } else if let Ok(spec) = canon::decode::<JobSpec>(&bytes, bytes.len()) {
            self.jobs.push(spec);
        }
        Ok(())
    }

    fn witnesses(&mut self, record: &Record) -> Result<(), registry::receipt::RecordError> {
        let witnesses: Vec<&Witness> = match record {
            Record::Accepted(accepted) => accepted.witnesses.iter().collect(),
            Record::Evidence(evidence) => evidence.accepted.witnesses.iter().chain([&evidence.accused]).collect(),
        };
        for witness in witnesses {
            let receipt = witness.open()?;
            self.receipts.insert(receipt.id(), receipt);
        }
        Ok(())
    }

    fn job(&self, invoice: &Invoice) -> Option<JobSpec> {
        self.jobs.iter().find(|spec| spec.id() == invoice.job).cloned()
    }

    fn output(&self, receipt: &Receipt) -> Option<Output> {
        self.outputs.get(&receipt.execution.output).cloned()
    }
}
