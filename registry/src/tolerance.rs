//! How far two backends may differ on one model: measured by `quorate calibrate`, said in a model's manifest, copied into a job.
//!
//! Bounds are powers of two: they have one encoding without a float, and products and comparisons with them are exact in
//! double precision, so that two auditors never disagree about the bound itself.

use serde::{Deserialize, Serialize};

/// Smallest exponent of a bound: that of the smallest normal double.
pub const EXP2_MIN: i16 = -1022;
/// Largest exponent of a bound.
pub const EXP2_MAX: i16 = 1023;
/// Largest elements of a row that are compared as a set.
pub const TOP_K_MAX: u32 = 1000;
/// Parts in a million that are all.
pub const PPM: u32 = 1_000_000;

/// When `there` and `here` are the same answer of a model: for each element `|there - here| <= atol + rtol * |here|`, and,
/// over all rows of a task, the largest elements agree often enough. Elements that are no floats have to be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tolerance {
    /// The absolute part is 2 to this.
    pub atol_exp2: i16,
    /// The relative part is 2 to this.
    pub rtol_exp2: i16,
    /// What is asked of rows of scores; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<TopAgreement>,
}

/// How often the `k` largest elements of a row, in the model's first output, are the same ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopAgreement {
    /// How many.
    pub k: u32,
    /// The share of a task's rows in which they agree, in parts per million, at least.
    pub agreement_ppm: u32,
}

/// Why a tolerance is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} is {value}, outside the bounds of {min} to {max}")]
pub struct ToleranceError {
    /// Which number.
    pub what: &'static str,
    /// As given.
    pub value: i64,
    /// Smallest allowed.
    pub min: i64,
    /// Largest allowed.
    pub max: i64,
}

impl Tolerance {
    /// Whether every number is within its bounds.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<(), ToleranceError> {
        let within = |what, value: i64, min: i64, max: i64| {
            if (min..=max).contains(&value) { Ok(()) } else { Err(ToleranceError { what, value, min, max }) }
        };
        within("atol_exp2", self.atol_exp2.into(), EXP2_MIN.into(), EXP2_MAX.into())?;
        within("rtol_exp2", self.rtol_exp2.into(), EXP2_MIN.into(), EXP2_MAX.into())?;
        let Some(TopAgreement { k, agreement_ppm }) = self.top else { return Ok(()) };
        within("k", k.into(), 1, TOP_K_MAX.into())?;
        within("agreement_ppm", agreement_ppm.into(), 0, PPM.into())
    }

    /// The most by which an element may differ from `here`.
    pub fn bound(&self, here: f64) -> f64 {
        power(self.atol_exp2) + power(self.rtol_exp2) * here.abs()
    }

    /// Whether `there` is as good as `here`. Not a number is as good as another, an infinity as itself.
    pub fn allows(&self, there: f64, here: f64) -> bool {
        if there.is_nan() || here.is_nan() || there.is_infinite() || here.is_infinite() {
            return there == here || (there.is_nan() && here.is_nan());
        }
        (there - here).abs() <= self.bound(here)
    }
}

impl TopAgreement {
    /// Rows of so many that may disagree. Where calibration saw any disagree, one always may: a task may have few rows.
    pub fn disagreeing_max(&self, rows: u64) -> u64 {
        let missing = u64::from(PPM.saturating_sub(self.agreement_ppm));
        if missing == 0 { 0 } else { rows.saturating_mul(missing).div_ceil(PPM.into()).max(1) }
    }
}

/// Two to this, which has to be within the bounds above.
fn power(exponent: i16) -> f64 {
    2f64.powi(exponent.clamp(EXP2_MIN, EXP2_MAX).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIGHT: Tolerance = Tolerance { atol_exp2: -10, rtol_exp2: -4, top: None };

    #[test]
    fn an_element_may_differ_by_its_bound_and_no_more() {
        let bound = TIGHT.bound(-32.0);
        assert_eq!(bound, 2.0 + 1.0 / 1024.0);
        assert!(TIGHT.allows(-32.0 + bound, -32.0) && !TIGHT.allows(-32.0 + bound + 0.001, -32.0));
        assert!(TIGHT.allows(0.0, -0.0) && !TIGHT.allows(0.001, 0.0));
    }

    #[test]
    fn what_is_no_number_is_only_like_itself() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        assert!(TIGHT.allows(nan, nan) && TIGHT.allows(inf, inf));
        for (there, here) in [(nan, 1.0), (1.0, nan), (inf, 1.0), (1.0, inf), (inf, -inf), (nan, inf)] {
            assert!(!TIGHT.allows(there, here), "{there} {here}");
        }
    }

    #[test]
    fn rows_that_never_disagreed_may_not_and_others_may_in_any_task() {
        let top = |agreement_ppm| TopAgreement { k: 1, agreement_ppm };
        assert_eq!([1, 1000].map(|rows| top(PPM).disagreeing_max(rows)), [0, 0]);
        assert_eq!([1, 1000, 2000].map(|rows| top(999_000).disagreeing_max(rows)), [1, 1, 2]);
    }

    #[test]
    fn numbers_out_of_bounds_are_named() {
        let top = Some(TopAgreement { k: 0, agreement_ppm: 0 });
        assert_eq!(Tolerance { top, ..TIGHT }.check().unwrap_err().what, "k");
        assert_eq!(Tolerance { atol_exp2: i16::MIN, ..TIGHT }.check().unwrap_err().what, "atol_exp2");
        TIGHT.check().unwrap();
    }
}
