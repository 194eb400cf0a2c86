//! What a job cost, line by line, with everything that each line follows from.
//!
//! An invoice is given once its job has ended, since it says which executions were audits. Whoever has the receipts
//! computes it again: the receipts' ids are those named, `registry::price::Usage::proven` says what was used, the
//! price tables are named by their hashes, and their bills are the amounts.

use std::collections::{BTreeMap, BTreeSet};

use registry::{
    credits::{Credits, CreditsError},
    id::{JobId, NodeId, OperatorId, PriceId, ReceiptId, RequesterId},
    job::ShardInfo,
    price::{Bill, PriceError, PriceTable, Usage},
};
use serde::{Deserialize, Serialize};

use super::{
    Ledger,
    budget::Role,
    error::LedgerError,
    paid::Paid,
    payment::{Ground, Payment, Standing},
    table::{Cell, Table, json_object, json_value},
};
use crate::flow::Millis;

/// One execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InvoiceLine {
    /// Which part of the job.
    pub shard: ShardInfo,
    /// Who ran it.
    pub node: NodeId,
    /// Who answers for that.
    pub operator: OperatorId,
    /// What was signed.
    pub receipt: ReceiptId,
    /// What it was for.
    pub role: Role,
    /// What the verdict said.
    pub ground: Ground,
    /// What was used.
    pub usage: Usage,
    /// At which prices.
    pub prices: PriceId,
    /// What that costs.
    pub bill: Bill,
    /// Whether it is settled, or was returned because its operator was convicted.
    pub standing: Standing,
}

/// What a job cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoice {
    /// The job.
    pub job: JobId,
    /// Who pays.
    pub requester: RequesterId,
    /// When it was accepted.
    pub opened_ms: Millis,
    /// When it ended.
    pub closed_ms: Millis,
    /// What it was allowed to cost.
    pub cap: Credits,
    /// The executions, by shard.
    pub lines: Vec<InvoiceLine>,
    /// The prices that the lines name.
    pub prices: BTreeMap<PriceId, PriceTable>,
    /// What it cost: the lines that were not returned.
    pub total: Credits,
    /// What came back to the requester: unused, or returned after the job had ended.
    pub refunded: Credits,
}

/// Why an invoice does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvoiceError {
    /// A line names prices that are not in it, or that are others than named.
    #[error("invoice has no prices {}", .prices.short())]
    Prices {
        /// Which ones.
        prices: PriceId,
    },
    /// There is no such bill.
    #[error("invoice: {0}")]
    Bill(#[from] PriceError),
    /// A line's bill does not follow from its usage and prices.
    #[error("invoice bills receipt {} at {billed} credits, and its usage costs {computed}", .receipt.short())]
    Line {
        /// Which line.
        receipt: ReceiptId,
        /// As it says.
        billed: Credits,
        /// As computed.
        computed: Credits,
    },
    /// An execution is billed twice.
    #[error("invoice bills receipt {} twice", .receipt.short())]
    Twice {
        /// Which one.
        receipt: ReceiptId,
    },
    /// The lines do not add up.
    #[error("invoice says {total} credits, and its lines are {computed}")]
    Total {
        /// As it says.
        total: Credits,
        /// As computed.
        computed: Credits,
    },
    /// It is over the cap.
    #[error("invoice over {total} credits is over the job's cap of {cap}")]
    Cap {
        /// As it says.
        total: Credits,
        /// The cap.
        cap: Credits,
    },
    /// A sum is out of bounds.
    #[error("invoice: {0}")]
    Credits(#[from] CreditsError),
}

impl Invoice {
    /// Computes every bill and the total again.
    ///
    /// # Errors
    /// Names the first thing that does not hold.
    pub fn check(&self) -> Result<(), InvoiceError> {
        let mut billed = BTreeSet::new();
        let mut computed = Credits::ZERO;
        for line in &self.lines {
            let named = self.prices.get(&line.prices).filter(|table| table.id() == line.prices);
            let prices = named.ok_or(InvoiceError::Prices { prices: line.prices })?;
            let bill = prices.bill(&line.usage)?;
            let receipt = line.receipt;
            if bill != line.bill {
                return Err(InvoiceError::Line { receipt, billed: line.bill.total, computed: bill.total });
            }
            if !billed.insert(receipt) {
                return Err(InvoiceError::Twice { receipt });
            }
            if line.standing != Standing::Returned {
                computed = computed.plus(bill.total)?;
            }
        }
        let Self { total, cap, .. } = *self;
        if computed != total {
            return Err(InvoiceError::Total { total, computed });
        }
        if total > cap { Err(InvoiceError::Cap { total, cap }) } else { Ok(()) }
    }

    /// A row an execution.
    pub fn table(&self) -> Table {
        let columns = vec![
            "stage",
            "shard",
            "role",
            "node",
            "operator",
            "receipt",
            "verdict",
            "prices",
            "fuel",
            "memory_bytes",
            "output_bytes",
            "device",
            "fuel_micro",
            "memory_micro",
            "output_micro",
            "model_micro",
            "total_micro",
            "standing",
        ];
        Table { columns, rows: self.lines.iter().map(row).collect() }
    }

    /// An object with the executions under `lines`.
    pub fn json(&self) -> String {
        let Self { job, requester, opened_ms, closed_ms, cap, total, refunded, .. } = self;
        let head: [(&str, Cell); 7] = [
            ("job", job.to_string().into()),
            ("requester", requester.to_string().into()),
            ("opened_ms", (*opened_ms).into()),
            ("closed_ms", (*closed_ms).into()),
            ("cap_micro", (*cap).into()),
            ("total_micro", (*total).into()),
            ("refunded_micro", (*refunded).into()),
        ];
        let head = head.into_iter().map(|(name, cell)| (name, json_value(&cell)));
        json_object(head.chain([("prices", self.price_table().json()), ("lines", self.table().json())]))
    }

    /// A row a price table.
    pub fn price_table(&self) -> Table {
        use registry::device::DeviceKind::{Cpu, Gpu};
        let columns = vec![
            "prices",
            "giga_fuel_micro",
            "gib_second_micro",
            "mib_out_micro",
            "model_second_cpu_micro",
            "model_second_gpu_micro",
        ];
        let row = |(id, table): (&PriceId, &PriceTable)| {
            let model = |kind| table.model_second_micro.get(&kind).copied().into();
            let PriceTable { giga_fuel_micro, gib_second_micro, mib_out_micro, .. } = *table;
            let rates = [giga_fuel_micro, gib_second_micro, mib_out_micro].map(Cell::from);
            std::iter::once(id.to_string().into()).chain(rates).chain([model(Cpu), model(Gpu)]).collect()
        };
        Table { columns, rows: self.prices.iter().map(row).collect() }
    }
}

fn row(line: &InvoiceLine) -> Vec<Cell> {
    let InvoiceLine { shard, node, operator, receipt, role, ground, usage, prices, bill, standing } = line;
    let verdict = match ground {
        Ground::Accepted(commitment) => format!("accepted:{commitment}"),
        Ground::Inconclusive => "inconclusive".to_owned(),
    };
    vec![
        shard.stage.word().into(),
        u64::from(shard.index).into(),
        role.word().into(),
        node.to_string().into(),
        operator.to_string().into(),
        receipt.to_string().into(),
        verdict.into(),
        prices.to_string().into(),
        usage.fuel.into(),
        usage.memory_bytes.into(),
        usage.output_bytes.into(),
        usage.device.map(|device| device.word()).into(),
        bill.fuel.into(),
        bill.memory.into(),
        bill.output.into(),
        bill.model.into(),
        bill.total.into(),
        standing.word().into(),
    ]
}

impl Ledger {
    /// What a job cost, once it has ended. Executions that are still held may follow, and what is pending may be returned.
    ///
    /// # Errors
    /// When there is no such job, or it has not ended.
    pub fn invoice(&self, job: JobId) -> Result<Invoice, LedgerError> {
        let open = self.jobs.get(&job).ok_or(LedgerError::JobUnknown { job })?;
        let closed_ms = open.closed_ms.ok_or(LedgerError::JobRunning { job })?;
        let line = |(_, &Paid { shard, node, payment }): (_, &Paid)| {
            let Payment { receipt, operator, role, ground, usage, prices, standing, .. } = payment;
            let bill = open.prices.get(&prices).map_or(Ok(Bill::default()), |table| table.bill(&usage))?;
            Ok(InvoiceLine { shard, node, operator, receipt, role, ground, usage, prices, bill, standing })
        };
        let mut lines = open.payments.iter().map(line).collect::<Result<Vec<_>, PriceError>>()?;
        lines.sort_unstable_by_key(|line| (line.shard, line.node));
        let named: BTreeSet<PriceId> = lines.iter().map(|line| line.prices).collect();
        let mut prices = open.prices.clone();
        prices.retain(|id, _| named.contains(id));
        Ok(Invoice {
            job,
            requester: open.terms.requester,
            opened_ms: open.opened_ms,
            closed_ms,
            cap: open.budget.cap,
            lines,
            prices,
            total: open.budget.spent()?,
            refunded: open.budget.refunded,
        })
    }
}
