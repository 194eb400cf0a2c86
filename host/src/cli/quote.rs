//! What a job would cost: `quorate submit --quote`.

use std::path::Path;

use grid::dispatch::HostQuote;
use serde::Deserialize;

use super::{CliError, Exit, Outcome, output};
use crate::{
    client::Client,
    gateway::wire::{JobRequest, QuoteRequest, SampleRequest},
};

/// What is read of a report of `quorate run --json`.
#[derive(Deserialize)]
struct Sample {
    outcome: String,
    fuel_used: u64,
    output_bytes: u64,
}

pub(super) async fn tell(client: &Client, job: JobRequest, path: &Path, json: bool) -> Outcome {
    let file = |source| CliError::File { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(file)?;
    let refused = |error| CliError::Usage(format!("{} is no report of `quorate run --json`: {error}", path.display()));
    let Sample { outcome, fuel_used, output_bytes } = serde_json::from_str(&text).map_err(refused)?;
    if outcome != "ok" {
        output::note(&format!("the task that was tried ended with {outcome}"));
    }
    let sample = SampleRequest { fuel: fuel_used, output_bytes };
    let rows: Vec<HostQuote> = client.post("/v1/quote", &QuoteRequest { job, sample }).await?;
    if json {
        output::json(&rows)?;
        return Ok(Exit::Ok);
    }
    if rows.is_empty() {
        return Err(CliError::Failed("no host is connected that could run the job".to_owned()));
    }
    let row = |row: &HostQuote| {
        let quote = &row.quote;
        let amounts = [quote.task.total, quote.expected, quote.cap_least, quote.worst].map(|amount| amount.to_string());
        let prices = quote.prices.short();
        [vec![prices, row.hosts.to_string()], amounts.to_vec()].concat()
    };
    let head = ["prices", "hosts", "a task", "the job", "least cap", "never more than"];
    output::table(&head, &rows.iter().map(row).collect::<Vec<_>>())?;
    Ok(Exit::Ok)
}
