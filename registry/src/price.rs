//! What an execution costs: a host's prices, what a receipt says was used, and the bill that follows from the two.
//!
//! A bill holds nothing but what a receipt and what it names prove, so that anyone can compute it again to the unit: no
//! clock of a host is in it. Time is fuel, at the rate of the guest's own virtual clock ([`FUEL_PER_SECOND`]); memory is the
//! task's limit, which a host has to set aside whatever the task takes of it; output is what the receipt's output hashes to.
//! How a receipt's fuel divides between the guest's operations and its inferences is not in it, so a task that inferred at
//! all has its device for the whole of its virtual time. Which device that was is the host's word, which dispatch holds against
//! what the host offered.
//!
//! Each line of a bill is rounded up to a whole micro-credit, and the total is the sum of the lines: a host never works for a
//! fraction that nobody pays, and a requester pays less than four micro-credits more than the exact product. Products are
//! taken in 128 bits; what does not fit there is far over the bound of [`Credits`], and refused as that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    credits::{self, Credits, CreditsError},
    device::{DeviceAsk, DeviceKind},
    id::{BlobHash, JobId, PriceId},
    job::{JobSpec, Limits},
    preimage::Preimage,
    receipt::{Output, Receipt},
};

/// Fuel of one second of virtual time: the guest's clock passes one nanosecond for each unit.
pub const FUEL_PER_SECOND: u64 = 1_000_000_000;
/// Fuel of one giga-fuel.
pub const FUEL_PER_GIGA: u64 = 1_000_000_000;
/// Bytes of one GiB.
const BYTES_PER_GIB: u64 = 1 << 30;
/// Bytes of one MiB.
const BYTES_PER_MIB: u64 = 1 << 20;
/// Micro-credits that one price may be: a million credits.
pub const PRICE_MICRO_MAX: u64 = 1_000_000_000_000;

/// What a host asks, in micro-credits. What is not in the list costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceTable {
    /// For 10^9 units of fuel.
    #[serde(default)]
    pub giga_fuel_micro: u64,
    /// For a GiB of memory limit over a second of virtual time.
    #[serde(default)]
    pub gib_second_micro: u64,
    /// For a MiB of output.
    #[serde(default)]
    pub mib_out_micro: u64,
    /// For a second of virtual time of a task that infers, by what it infers on; on top of the others.
    #[serde(default)]
    pub model_second_micro: BTreeMap<DeviceKind, u64>,
}

impl Preimage for PriceTable {
    const WHAT: &'static str = "price table";
    const DOMAIN: &'static str = "quorate/price/1";
    const BYTES_MAX: usize = 256;
}

/// What an execution used, as far as it is paid for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Fuel spent.
    pub fuel: u64,
    /// Its limit of memory in bytes.
    pub memory_bytes: u64,
    /// What it wrote, in bytes.
    pub output_bytes: u64,
    /// What its inferences ran on; nothing was inferred when absent.
    pub device: Option<DeviceKind>,
}

/// What an execution costs, line by line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bill {
    /// For its fuel.
    pub fuel: Credits,
    /// For its memory over its virtual time.
    pub memory: Credits,
    /// For its output.
    pub output: Credits,
    /// For its device over its virtual time.
    pub model: Credits,
    /// All of that.
    pub total: Credits,
}

/// Why there is no bill.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// A price is over its bound.
    #[error("price {what} is {micro} micro-credits, over the bound of {PRICE_MICRO_MAX}")]
    Price {
        /// Which price.
        what: &'static str,
        /// As received.
        micro: u64,
    },
    /// A line of the bill, or its total, is over the bound of [`Credits`].
    #[error("bill has no {line}: {source}")]
    Line {
        /// Which line.
        line: &'static str,
        /// The bound.
        source: CreditsError,
    },
}

/// Why what was used does not follow from the given values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// The job is another one.
    #[error("receipt is for job {named}, and this is job {given}")]
    Job {
        /// As the receipt names it.
        named: JobId,
        /// As given.
        given: JobId,
    },
    /// The output is another one.
    #[error("receipt commits to output {named}, and this is output {given}")]
    Output {
        /// As the receipt names it.
        named: BlobHash,
        /// As given.
        given: BlobHash,
    },
}

impl Usage {
    /// What the receipt says was used, by its own output and its job's limit of memory.
    pub fn of(receipt: &Receipt, output: &Output, memory_bytes: u64) -> Self {
        let named = receipt.device.as_ref().map(|device| device.kind);
        // An engine that depends on no device infers on the processor and names none.
        let device = receipt.execution.nn_root.map(|_| named.unwrap_or(DeviceKind::Cpu));
        Self { fuel: receipt.execution.fuel_used, memory_bytes, output_bytes: output.bytes(), device }
    }

    /// The same, once it is clear that the job and the output are the receipt's own: for who believes nobody.
    ///
    /// # Errors
    /// When the receipt names another job or output.
    pub fn proven(receipt: &Receipt, job: &JobSpec, output: &Output) -> Result<Self, UsageError> {
        let (named, given) = (receipt.job, job.id());
        if named != given {
            return Err(UsageError::Job { named, given });
        }
        let (named, given) = (receipt.execution.output, output.hash());
        if named != given {
            return Err(UsageError::Output { named, given });
        }
        Ok(Self::of(receipt, output, job.limits.memory_bytes_max))
    }
}

impl PriceTable {
    /// The hash that names it.
    pub fn id(&self) -> PriceId {
        PriceId(self.name())
    }

    /// Whether it asks for nothing.
    pub fn is_free(&self) -> bool {
        let Self { giga_fuel_micro, gib_second_micro, mib_out_micro, model_second_micro } = self;
        [giga_fuel_micro, gib_second_micro, mib_out_micro]
            .into_iter()
            .chain(model_second_micro.values())
            .all(|micro| *micro == 0)
    }

    /// Whether every price is within its bound.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<(), PriceError> {
        let models = self.model_second_micro.iter().map(|(kind, micro)| match kind {
            DeviceKind::Cpu => ("model_second_micro.cpu", *micro),
            DeviceKind::Gpu => ("model_second_micro.gpu", *micro),
        });
        let plain = [
            ("giga_fuel_micro", self.giga_fuel_micro),
            ("gib_second_micro", self.gib_second_micro),
            ("mib_out_micro", self.mib_out_micro),
        ];
        match plain.into_iter().chain(models).find(|(_, micro)| *micro > PRICE_MICRO_MAX) {
            Some((what, micro)) => Err(PriceError::Price { what, micro }),
            None => Ok(()),
        }
    }

    /// What this usage costs.
    ///
    /// # Errors
    /// When a price, a line or the total is over its bound.
    pub fn bill(&self, usage: &Usage) -> Result<Bill, PriceError> {
        self.check()?;
        let Usage { fuel, memory_bytes, output_bytes, device } = *usage;
        let model_second = device.map_or(0, |kind| self.model_second(kind));
        let gib_seconds = (u128::from(BYTES_PER_GIB), u128::from(FUEL_PER_SECOND));
        let bill = Bill {
            fuel: line("fuel", [self.giga_fuel_micro, fuel, 1], FUEL_PER_GIGA.into())?,
            memory: line("memory", [self.gib_second_micro, memory_bytes, fuel], gib_seconds.0 * gib_seconds.1)?,
            output: line("output", [self.mib_out_micro, output_bytes, 1], BYTES_PER_MIB.into())?,
            model: line("model", [model_second, fuel, 1], FUEL_PER_SECOND.into())?,
            total: Credits::ZERO,
        };
        let total = credits::sum([bill.fuel, bill.memory, bill.output, bill.model]);
        Ok(Bill { total: total.map_err(|source| PriceError::Line { line: "total", source })?, ..bill })
    }

    /// What a task within these limits costs at most, on the dearest device that it may get. That a task has no models says
    /// nothing: one of class `exact` may bring its own.
    ///
    /// # Errors
    /// When a price, a line or the total is over its bound.
    pub fn worst(&self, limits: &Limits, device: DeviceAsk) -> Result<Bill, PriceError> {
        let kinds = [DeviceKind::Cpu, DeviceKind::Gpu].into_iter().filter(|kind| device.takes(*kind));
        let dearest = kinds.max_by_key(|kind| self.model_second(*kind));
        let (fuel, memory_bytes) = (limits.fuel_max, limits.memory_bytes_max);
        self.bill(&Usage { fuel, memory_bytes, output_bytes: limits.output_bytes_max, device: dearest })
    }

    fn model_second(&self, kind: DeviceKind) -> u64 {
        self.model_second_micro.get(&kind).copied().unwrap_or(0)
    }
}

/// The product by the unit, rounded up. Units are below 2^60: a product that does not fit in 128 bits would be over 2^68.
fn line(line: &'static str, factors: [u64; 3], unit: u128) -> Result<Credits, PriceError> {
    let over = |source| PriceError::Line { line, source };
    if factors.contains(&0) {
        return Ok(Credits::ZERO);
    }
    let product = factors.into_iter().try_fold(1u128, |product, factor| product.checked_mul(factor.into()));
    Credits::from_micro(product.ok_or_else(|| over(CreditsError::Bound))?.div_ceil(unit)).map_err(over)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        id::{ModuleHash, OperatorId},
        job::{ShardInfo, Stage},
        receipt::{Execution, Outcome},
    };

    fn table() -> PriceTable {
        PriceTable {
            giga_fuel_micro: 1_000,
            gib_second_micro: 500,
            mib_out_micro: 20,
            model_second_micro: [(DeviceKind::Cpu, 100), (DeviceKind::Gpu, 9_000)].into(),
        }
    }

    fn micro(micro: u64) -> Credits {
        Credits::from_micro(micro).unwrap()
    }

    #[test]
    fn a_bill_line_by_line() {
        let usage = Usage { fuel: 2_500_000_000, memory_bytes: 512 << 20, output_bytes: 3 << 20, device: None };
        let bill = table().bill(&usage).unwrap();
        let lines = (bill.fuel, bill.memory, bill.output, bill.model, bill.total);
        assert_eq!(lines, (micro(2_500), micro(625), micro(60), micro(0), micro(3_185)));
        let gpu = table().bill(&Usage { device: Some(DeviceKind::Gpu), ..usage }).unwrap();
        assert_eq!((gpu.model, gpu.total), (micro(22_500), micro(25_685)));
    }

    #[test]
    fn each_line_is_rounded_up() {
        let usage = Usage { fuel: 1, memory_bytes: 1, output_bytes: 1, device: Some(DeviceKind::Cpu) };
        let bill = table().bill(&usage).unwrap();
        assert_eq!([bill.fuel, bill.memory, bill.output, bill.model], [micro(1); 4]);
        assert_eq!(bill.total, micro(4));
        assert_eq!(table().bill(&Usage::default()).unwrap(), Bill::default());
        assert_eq!(PriceTable::default().bill(&usage).unwrap(), Bill::default());
    }

    #[test]
    fn the_edge_of_the_integers_is_an_error_that_names_the_line() {
        let dear = PriceTable { gib_second_micro: PRICE_MICRO_MAX, ..PriceTable::default() };
        let usage = Usage { fuel: u64::MAX, memory_bytes: u64::MAX, ..Usage::default() };
        let refusal = dear.bill(&usage).unwrap_err().to_string();
        assert!(refusal.contains("no memory: amount is over the bound of 1000000000000000000"), "{refusal}");
        let free = PriceTable { mib_out_micro: 1, ..PriceTable::default() };
        assert_eq!(free.bill(&usage).unwrap().total, Credits::ZERO);
        // Two lines that fit each and not together.
        let both = PriceTable { giga_fuel_micro: 60_000_000, ..PriceTable::default() };
        let both = PriceTable { model_second_micro: [(DeviceKind::Cpu, 60_000_000)].into(), ..both };
        let usage = Usage { fuel: 10_000_000_000_000_000_000, device: Some(DeviceKind::Cpu), ..Usage::default() };
        let refusal = both.bill(&usage).unwrap_err().to_string();
        assert!(refusal.starts_with("bill has no total"), "{refusal}");
        let over = PriceTable { mib_out_micro: PRICE_MICRO_MAX + 1, ..PriceTable::default() };
        let refusal = over.bill(&Usage::default()).unwrap_err().to_string();
        assert_eq!(refusal, "price mib_out_micro is 1000000000001 micro-credits, over the bound of 1000000000000");
        let over = PriceTable { model_second_micro: [(DeviceKind::Gpu, u64::MAX)].into(), ..PriceTable::default() };
        assert!(over.check().unwrap_err().to_string().contains("model_second_micro.gpu"));
    }

    #[test]
    fn the_worst_case_takes_the_dearest_device_that_the_job_lets_in() {
        let limits = Limits { fuel_max: FUEL_PER_SECOND, ..Limits::default() };
        let model = |ask| table().worst(&limits, ask).unwrap().model;
        assert_eq!([DeviceAsk::Any, DeviceAsk::Cpu, DeviceAsk::Gpu].map(model), [9_000, 100, 9_000].map(micro));
    }

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_cost_nothing() {
        assert_eq!(serde_json::from_str::<PriceTable>("{}").unwrap(), PriceTable::default());
        assert!(serde_json::from_str::<PriceTable>(r#"{"wall_second_micro":1}"#).is_err());
    }

    fn receipt(job: &JobSpec, output: &Output) -> Receipt {
        let execution = Execution {
            task: crate::id::TaskId([1; 32]),
            module: job.module,
            class: job.class,
            engine: crate::id::EngineFingerprint([2; 32]),
            outcome: Outcome::Ok,
            fuel_used: 77,
            output: output.hash(),
            nn_root: None,
            segment_root: None,
        };
        let shard = ShardInfo { stage: Stage::Map, index: 0, count: 1 };
        let (node, operator) = (crate::id::NodeId([3; 32]), OperatorId([4; 32]));
        let (job, device, nn_record) = (job.id(), None, None);
        Receipt {
            job,
            shard,
            execution,
            device,
            node,
            operator,
            nonce: 1,
            price_micro: 0,
            nn_record,
            segment_record: None,
        }
    }

    #[test]
    fn usage_is_proven_by_the_receipts_own_job_and_output_alone() {
        let job = JobSpec::new(ModuleHash([1; 32]), 1);
        let output = Output { stdout: BlobHash([5; 32]), stdout_bytes: 9, files: vec![] };
        let mut receipt = receipt(&job, &output);
        let usage = Usage { fuel: 77, memory_bytes: 256 << 20, output_bytes: 9, device: None };
        assert_eq!(Usage::proven(&receipt, &job, &output), Ok(usage));
        let other = JobSpec { nonce: 2, ..job.clone() };
        assert!(matches!(Usage::proven(&receipt, &other, &output), Err(UsageError::Job { .. })));
        let longer = Output { stdout_bytes: 8, ..output.clone() };
        assert!(matches!(Usage::proven(&receipt, &job, &longer), Err(UsageError::Output { .. })));
        receipt.execution.nn_root = Some(BlobHash([6; 32]));
        assert_eq!(Usage::of(&receipt, &output, 0).device, Some(DeviceKind::Cpu));
    }

    proptest! {
        #[test]
        fn more_of_anything_never_costs_less_and_rounding_is_below_a_unit_a_line(
            fuel in 0u64..1 << 45, memory in 0u64..1 << 36, output in 0u64..1 << 36, more in 0u64..1 << 30,
        ) {
            let usage = Usage { fuel, memory_bytes: memory, output_bytes: output, device: Some(DeviceKind::Gpu) };
            let table = table();
            let bill = table.bill(&usage).unwrap();
            for larger in [
                Usage { fuel: fuel + more, ..usage },
                Usage { memory_bytes: memory + more, ..usage },
                Usage { output_bytes: output + more, ..usage },
            ] {
                prop_assert!(table.bill(&larger).unwrap().total >= bill.total);
            }
            let unit = u128::from(BYTES_PER_GIB) * u128::from(FUEL_PER_SECOND);
            let exact = u128::from(table.gib_second_micro) * u128::from(memory) * u128::from(fuel);
            let charged = u128::from(bill.memory.micro()) * unit;
            prop_assert!(charged >= exact && charged - exact < unit);
        }
    }
}
