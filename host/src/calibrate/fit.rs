//! From differences that were measured to a tolerance.
//!
//! For each pair of answers the relative part is the largest difference as a share of its value, over values that are no
//! smaller than what is typical of their tensor (the root of the mean square); the absolute part is what is left of the largest
//! differences elsewhere. Both are multiplied by [`SAFETY`], raised to a few units in the last place of a float where nothing
//! was seen to differ, and rounded up to a power of two. So a tolerance is 4 to 8 times what was measured, or
//! [`FLOOR_EXP2`].

use registry::tolerance::{EXP2_MAX, EXP2_MIN, PPM, Tolerance, TopAgreement};

use super::judge::{Closeness, difference, floats, typical};
use crate::sandbox::NnTensor;

/// What was measured times this is allowed: other samples, processors and versions differ by more than those at hand.
pub const SAFETY: f64 = 4.0;
/// The least relative tolerance, as an exponent of two: 8 units in the last place of an f32, by which sums in another order may
/// differ even where the backends at hand agree. The least absolute one is as much of a typical value.
pub const FLOOR_EXP2: i16 = -20;
/// An agreement below this says that the outputs are no scores: nothing is asked of their largest elements.
pub const AGREEMENT_PPM_MIN: u32 = 990_000;

/// Takes in pairs of answers of different backends.
#[derive(Debug, Clone, Default)]
pub struct Fit {
    /// All pairs together.
    closeness: Closeness,
    /// Per element that is no small one, the largest share of its value.
    relative: f64,
    /// Differences at small values, with the values: what the absolute part has to cover.
    small: Vec<(f64, f64)>,
    /// The largest typical value of a tensor.
    typical: f64,
}

/// Small values that are kept to fit the absolute part to, before the largest differences among them are picked.
const SMALL_MAX: usize = 1 << 16;

impl Fit {
    /// Takes in what two backends answered to the same inputs. Neither is the reference.
    pub fn add(&mut self, one: &[NnTensor], other: &[NnTensor], top_k: Option<u32>) {
        self.closeness.add(one, other, top_k);
        for (one, other) in one.iter().zip(other) {
            let (Some(one), Some(other)) = (floats(one), floats(other)) else { continue };
            let typical = typical(&other);
            self.typical = self.typical.max(typical);
            for (one, other) in one.iter().zip(&other) {
                self.add_element(difference(*one, *other), one.abs().min(other.abs()), typical);
            }
        }
        if self.small.len() > SMALL_MAX {
            // Those that matter are the largest differences.
            self.small.sort_by(|a, b| b.0.total_cmp(&a.0));
            self.small.truncate(SMALL_MAX / 2);
        }
    }

    fn add_element(&mut self, difference: f64, value: f64, typical: f64) {
        // What is infinitely far apart cannot be tolerated by any bound.
        if difference == 0.0 || !difference.is_finite() {
            return;
        }
        if value >= typical && value > 0.0 {
            self.relative = self.relative.max(difference / value);
        } else {
            self.small.push((difference, value));
        }
    }

    /// How close all pairs were.
    pub fn closeness(&self) -> &Closeness {
        &self.closeness
    }

    /// The tolerance that covers what was taken in, and [`SAFETY`] times as much.
    pub fn tolerance(&self, top_k: Option<u32>) -> Tolerance {
        let rtol_exp2 = exponent(self.relative * SAFETY).max(FLOOR_EXP2);
        let left = |(difference, value): &(f64, f64)| difference - self.relative * value;
        let absolute = self.small.iter().map(left).fold(0.0, f64::max);
        let floor = self.typical * 2f64.powi(FLOOR_EXP2.into());
        let atol_exp2 = exponent((absolute * SAFETY).max(floor));
        Tolerance { atol_exp2, rtol_exp2, top: top_k.and_then(|k| self.top(k)) }
    }

    fn top(&self, k: u32) -> Option<TopAgreement> {
        let measured = self.closeness.agreement_ppm().filter(|ppm| *ppm >= AGREEMENT_PPM_MIN)?;
        // As many times more may disagree as elements may differ by more.
        let missing = (PPM - measured).saturating_mul(SAFETY as u32);
        Some(TopAgreement { k, agreement_ppm: PPM.saturating_sub(missing) })
    }
}

/// The smallest exponent whose power of two is no less.
fn exponent(value: f64) -> i16 {
    let mut exponent = EXP2_MIN;
    if value > 0.0 {
        let log = value.log2().ceil().clamp(EXP2_MIN.into(), EXP2_MAX.into());
        exponent = log as i16;
    }
    // The logarithm may round to the wrong side.
    if exponent < EXP2_MAX && 2f64.powi(exponent.into()) < value { exponent + 1 } else { exponent }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::judge::{judge, tests::output};

    #[test]
    fn exponents_round_up() {
        assert_eq!([1.0, 1.000_1, 0.25, 0.3, 1e-6].map(exponent), [0, 1, -2, -1, -19]);
        assert_eq!((exponent(0.0), exponent(f64::MAX)), (EXP2_MIN, EXP2_MAX));
    }

    #[test]
    fn a_fit_covers_what_it_saw_several_times_over_and_little_more() {
        let here = [output(&[1, 4], &[100.0, -80.0, 0.5, 0.0])];
        let there = [output(&[1, 4], &[100.01, -80.0, 0.5002, 0.0001])];
        let mut fit = Fit::default();
        fit.add(&there, &here, Some(1));
        let tolerance = fit.tolerance(Some(1));
        judge(Some(&tolerance), &there, &here).unwrap();
        judge(Some(&tolerance), &here, &there).unwrap();
        let times = |times: f32| {
            let moved = |there: f32, here: f32| here + times * (there - here);
            [output(&[1, 4], &[moved(100.01, 100.0), -80.0, moved(0.5002, 0.5), moved(0.0001, 0.0)])]
        };
        judge(Some(&tolerance), &times(3.9), &here).unwrap();
        judge(Some(&tolerance), &times(20.0), &here).unwrap_err();
        assert_eq!(tolerance.top, Some(TopAgreement { k: 1, agreement_ppm: PPM }));
        tolerance.check().unwrap();
    }

    #[test]
    fn backends_that_agree_leave_room_for_the_order_of_sums_alone() {
        let here = [output(&[1, 2], &[8.0, 8.0])];
        let mut fit = Fit::default();
        fit.add(&here, &here, Some(1));
        assert_eq!(fit.tolerance(None), Tolerance { atol_exp2: 3 + FLOOR_EXP2, rtol_exp2: FLOOR_EXP2, top: None });
        let nothing = Fit::default().tolerance(Some(1));
        assert_eq!((nothing.atol_exp2, nothing.top), (EXP2_MIN, None));
    }

    #[test]
    fn outputs_whose_largest_element_changes_often_are_no_scores() {
        let mut fit = Fit::default();
        fit.add(&[output(&[1, 2], &[1.0, 1.1])], &[output(&[1, 2], &[1.1, 1.0])], Some(1));
        assert_eq!(fit.tolerance(Some(1)).top, None);
    }
}
