//! `quorate ledger`: accounts, statements, invoices, and credits that come and go.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use grid::ledger::{Account, Entry, Holder, Invoice, Statement};
use registry::{
    credits::{Credits, Delta},
    id::{OperatorId, RequesterId},
};
use serde_json::{Value, json};

use super::{
    CliError, Exit, Outcome,
    connect::{ConnectArgs, find_job},
    output, paths, push,
};
use crate::{client::Client, gateway::wire::AccountRow};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct LedgerArgs {
    #[command(subcommand)]
    verb: Option<LedgerVerb>,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Subcommand)]
enum LedgerVerb {
    /// Say who you are to the ledger: the requester of the key that you publish names with.
    Whoami(WhoamiArgs),
    /// Bring credits into the grid.
    Deposit(MoveArgs),
    /// Take credits out of it.
    Withdraw(MoveArgs),
    /// Let an operator vouch with credits of its own.
    Stake(StakeArgs),
    /// Ask for stake back: it is there when the unbonding time is over.
    Unbond(StakeArgs),
    /// Show what happened on an account.
    Statement(StatementArgs),
    /// Show what a job cost, line by line.
    Invoice(InvoiceArgs),
}

#[derive(Debug, Args)]
struct WhoamiArgs {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct MoveArgs {
    /// Whose: requester:ID or operator:ID; your own requester when left out.
    #[arg(long, value_name = "ACCOUNT", value_parser = holder)]
    account: Option<Holder>,
    /// How many, such as 12 or 0.25.
    amount: Credits,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
struct StakeArgs {
    /// Whose.
    operator: OperatorId,
    /// How many, such as 12 or 0.25.
    amount: Credits,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
}

#[derive(Debug, Args)]
struct StatementArgs {
    /// Which account, as `quorate ledger` lists them; your own requester when left out.
    account: Option<Account>,
    /// From this time on, in milliseconds since 1970.
    #[arg(long, default_value_t = 0)]
    from_ms: u64,
    /// Until before this time.
    #[arg(long, default_value_t = u64::MAX)]
    to_ms: u64,
    #[arg(long, default_value = "table", conflicts_with = "json")]
    format: Format,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
struct InvoiceArgs {
    /// The job, or the beginning of its id.
    job: String,
    #[arg(long, default_value = "table", conflicts_with = "json")]
    format: Format,
    /// Write the invoice to a file, for `quorate bill verify`.
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    out: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(super) async fn run(args: LedgerArgs) -> Outcome {
    match args.verb {
        None => accounts(&args.connect).await,
        Some(LedgerVerb::Whoami(args)) => whoami(&args),
        Some(LedgerVerb::Deposit(args)) => {
            let to = args.account.map_or_else(own, Ok)?;
            enter(&args.connect, Entry::Deposit { to, amount: args.amount }).await
        }
        Some(LedgerVerb::Withdraw(args)) => {
            let from = args.account.map_or_else(own, Ok)?;
            enter(&args.connect, Entry::Withdraw { from, amount: args.amount }).await
        }
        Some(LedgerVerb::Stake(StakeArgs { operator, amount, connect })) => {
            enter(&connect, Entry::Stake { operator, amount }).await
        }
        Some(LedgerVerb::Unbond(StakeArgs { operator, amount, connect })) => {
            enter(&connect, Entry::Unbond { operator, amount }).await
        }
        Some(LedgerVerb::Statement(args)) => statement(args).await,
        Some(LedgerVerb::Invoice(args)) => invoice(args).await,
    }
}

/// Whoever has the key that names are published with.
pub(super) fn own_requester() -> Result<RequesterId, CliError> {
    Ok(RequesterId(push::publisher_key(&paths::publisher_key())?.public()))
}

fn own() -> Result<Holder, CliError> {
    Ok(Holder::Requester(own_requester()?))
}

fn holder(text: &str) -> Result<Holder, String> {
    match text.parse() {
        Ok(Account::Requester(requester)) => Ok(Holder::Requester(requester)),
        Ok(Account::Operator(operator)) => Ok(Holder::Operator(operator)),
        _ => Err("expected requester or operator, a colon, and 64 hexadecimal digits".to_owned()),
    }
}

fn whoami(args: &WhoamiArgs) -> Outcome {
    let requester = own_requester()?;
    if args.json {
        output::json(&json!({ "requester": requester }))?
    } else {
        output::line(&requester.to_string())?
    }
    Ok(Exit::Ok)
}

async fn accounts(connect: &ConnectArgs) -> Outcome {
    let rows: Vec<AccountRow> = connect.client()?.get("/v1/ledger").await?;
    if connect.json {
        output::json(&rows)?;
        return Ok(Exit::Ok);
    }
    let row = |row: &AccountRow| vec![row.account.clone(), amount(row.balance_micro)];
    output::table(&["account", "credits"], &rows.iter().map(row).collect::<Vec<_>>())?;
    Ok(Exit::Ok)
}

fn amount(micro: i64) -> String {
    Delta::try_from(micro).map_or_else(|_| micro.to_string(), |delta| delta.to_string())
}

async fn enter(connect: &ConnectArgs, entry: Entry) -> Outcome {
    connect.client()?.tell("/v1/ledger", &entry).await?;
    if connect.json {
        output::json(&entry)?;
    }
    Ok(Exit::Ok)
}

async fn statement(args: StatementArgs) -> Outcome {
    let client = args.connect.client()?;
    let account = args.account.map_or_else(|| Ok::<_, CliError>(own()?.into()), Ok)?;
    let (from, to) = (args.from_ms, args.to_ms);
    let path = format!("/v1/ledger/statement?account={account}&from_ms={from}&to_ms={to}");
    if args.format == Format::Csv {
        return csv(&client, &format!("{path}&format=csv")).await;
    }
    if args.connect.json {
        output::json(&client.get::<Value>(&path).await?)?;
        return Ok(Exit::Ok);
    }
    let statement: Statement = client.get(&path).await?;
    output::line(&format!("{account}: {} before, {} now", statement.opening, statement.closing))?;
    let row = |line: &grid::ledger::StatementLine| {
        let job = line.cause.job().map_or_else(|| "-".to_owned(), output::short);
        let what = line.cause.word().to_owned();
        vec![line.posting.0.to_string(), what, job, line.change.to_string(), line.balance.to_string()]
    };
    let head = ["posting", "what", "job", "change", "balance"];
    output::table(&head, &statement.lines.iter().map(row).collect::<Vec<_>>())?;
    Ok(Exit::Ok)
}

async fn invoice(args: InvoiceArgs) -> Outcome {
    let client = args.connect.client()?;
    let id = find_job(&client, &args.job).await?;
    let path = format!("/v1/jobs/{id}/invoice");
    if args.format == Format::Csv {
        return csv(&client, &format!("{path}?format=csv")).await;
    }
    if let Some(out) = &args.out {
        let text = client.text(&path).await?;
        std::fs::write(out, text).map_err(|source| CliError::File { path: out.clone(), source })?;
        return Ok(Exit::Ok);
    }
    if args.connect.json {
        output::json(&client.get::<Value>(&path).await?)?;
        return Ok(Exit::Ok);
    }
    show(&client.get(&path).await?)?;
    Ok(Exit::Ok)
}

fn show(invoice: &Invoice) -> Result<(), CliError> {
    let Invoice { job, total, cap, refunded, .. } = invoice;
    output::line(&format!("job {job}: {total} credits of a cap of {cap}, {refunded} refunded"))?;
    let row = |line: &grid::ledger::InvoiceLine| {
        let (stage, shard) = (line.shard.stage.word().to_owned(), line.shard.index.to_string());
        let (fuel, total) = (line.usage.fuel.to_string(), line.bill.total.to_string());
        let (role, standing) = (line.role.word().to_owned(), line.standing.word().to_owned());
        vec![stage, shard, line.node.short(), role, fuel, total, standing]
    };
    let head = ["stage", "shard", "node", "for", "fuel", "credits", "standing"];
    output::table(&head, &invoice.lines.iter().map(row).collect::<Vec<_>>())
}

async fn csv(client: &Client, path: &str) -> Outcome {
    let text = client.text(path).await?;
    output::line(text.trim_end())?;
    Ok(Exit::Ok)
}
