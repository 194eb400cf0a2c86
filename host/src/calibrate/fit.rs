//! From differences that were measured to a tolerance.
//!
//! A tolerance has two parts, `atol + rtol |b|`, and many pairs of them cover the same measurements: scores of a softmax differ
//! by a share of their value, however small that is, and sums that cancel by as much at nothing as at one. So for each relative
//! part the least absolute one is found that still covers [`SAFETY`] times every difference, and of all these pairs the
//! tightest is taken: that whose bounds, over all elements that were seen, have the smallest geometric mean. Both parts are
//! rounded up to a power of two, so a tolerance is 4 to 8 times what was measured where it is narrowest.
//!
//! Backends that agree on everything still get room for sums in another order: [`FLOOR_EXP2`].

use std::collections::BTreeMap;

use registry::tolerance::{EXP2_MAX, EXP2_MIN, PPM, Tolerance, TopAgreement};

use super::judge::{Closeness, difference, floats, typical};
use crate::sandbox::NnTensor;

/// What was measured times this is allowed: other samples, processors and versions differ by more than those at hand.
pub const SAFETY: f64 = 4.0;
/// The least relative tolerance, as an exponent of two: 8 units in the last place of an f32, by which sums in another order may
/// differ even where the backends at hand agree. Where they agree everywhere, the least absolute one is as much of a typical
/// value.
pub const FLOOR_EXP2: i16 = -20;
/// The least absolute tolerance where backends differ, as an exponent of two, of a typical value: less counts as nothing.
pub const NOTHING_EXP2: i16 = -40;
/// The largest relative tolerance that is tried for the sake of small values, as an exponent of two: no large one may move by
/// more than a part in 128 because of them.
const SMALL_RTOL_EXP2_MAX: i16 = -7;
/// An agreement below this says that the outputs are no scores: nothing is asked of their largest elements.
pub const AGREEMENT_PPM_MIN: u32 = 990_000;

/// Takes in pairs of answers of different backends.
#[derive(Debug, Clone, Default)]
pub struct Fit {
    /// All pairs together.
    closeness: Closeness,
    /// What was seen of elements, by the exponent of their value.
    seen: BTreeMap<i16, Seen>,
    /// The largest typical value of a tensor.
    typical: f64,
}

/// Elements of about the same value.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    elements: u64,
    /// The largest difference.
    difference: f64,
    /// The largest, as a share of its value.
    share: f64,
}

impl Fit {
    /// Takes in what two backends answered to the same inputs. Neither is the reference.
    pub fn add(&mut self, one: &[NnTensor], other: &[NnTensor], top_k: Option<u32>) {
        self.closeness.add(one, other, top_k);
        for (one, other) in one.iter().zip(other) {
            let (Some(one), Some(other)) = (floats(one), floats(other)) else { continue };
            self.typical = self.typical.max(typical(&other));
            for (one, other) in one.iter().zip(&other) {
                self.add_element(difference(*one, *other), one.abs().min(other.abs()));
            }
        }
    }

    fn add_element(&mut self, difference: f64, value: f64) {
        // What is infinitely far apart cannot be tolerated by any bound.
        if !difference.is_finite() || !value.is_finite() {
            return;
        }
        let seen = self.seen.entry(magnitude(value)).or_default();
        seen.elements += 1;
        seen.difference = seen.difference.max(difference);
        seen.share = seen.share.max(if difference == 0.0 { 0.0 } else { difference / value });
    }

    /// How close all pairs were.
    pub fn closeness(&self) -> &Closeness {
        &self.closeness
    }

    /// The tolerance that covers [`SAFETY`] times what was taken in.
    pub fn tolerance(&self, top_k: Option<u32>) -> Tolerance {
        let differs = self.seen.values().any(|seen| seen.difference > 0.0);
        let floor = self.typical * 2f64.powi(if differs { NOTHING_EXP2 } else { FLOOR_EXP2 }.into());
        // What nothing differs by needs no more than the floor.
        let rtols = FLOOR_EXP2..=if differs { self.rtol_exp2_max() } else { FLOOR_EXP2 };
        let pair = |rtol_exp2| (exponent(self.left(rtol_exp2).max(floor)), rtol_exp2);
        let pairs = rtols.map(pair).map(|pair| (self.looseness(pair), pair));
        let tightest = pairs.min_by(|(one, _), (other, _)| one.total_cmp(other));
        let (atol_exp2, rtol_exp2) = tightest.map_or((EXP2_MIN, FLOOR_EXP2), |(_, pair)| pair);
        Tolerance { atol_exp2, rtol_exp2, top: top_k.and_then(|k| self.top(k)) }
    }

    /// The largest relative part that is tried: what values that are no small ones need, or small ones are given.
    fn rtol_exp2_max(&self) -> i16 {
        let large = self.seen.range(magnitude(self.typical)..).map(|(_, seen)| seen.share).fold(0.0, f64::max);
        exponent(large * SAFETY).clamp(SMALL_RTOL_EXP2_MAX, 0)
    }

    /// What a relative part leaves for the absolute one to cover.
    fn left(&self, rtol_exp2: i16) -> f64 {
        let rtol = 2f64.powi(rtol_exp2.into());
        let left = |(magnitude, seen): (&i16, &Seen)| {
            // No value is smaller than the least of its magnitude.
            let covered = if seen.share * SAFETY <= rtol { seen.difference * SAFETY } else { rtol * least(*magnitude) };
            seen.difference * SAFETY - covered
        };
        self.seen.iter().map(left).fold(0.0, f64::max)
    }

    /// The mean of the logarithms of all bounds.
    fn looseness(&self, (atol_exp2, rtol_exp2): (i16, i16)) -> f64 {
        let tolerance = Tolerance { atol_exp2, rtol_exp2, top: None };
        let elements: u64 = self.seen.values().map(|seen| seen.elements).sum();
        let log = |(magnitude, seen): (&i16, &Seen)| {
            tolerance.bound(least(*magnitude)).log2() * seen.elements as f64 / elements.max(1) as f64
        };
        self.seen.iter().map(log).sum()
    }

    fn top(&self, k: u32) -> Option<TopAgreement> {
        let measured = self.closeness.agreement_ppm().filter(|ppm| *ppm >= AGREEMENT_PPM_MIN)?;
        // As many times more may disagree as elements may differ by more.
        let missing = (PPM - measured).saturating_mul(SAFETY as u32);
        Some(TopAgreement { k, agreement_ppm: PPM.saturating_sub(missing) })
    }
}

/// The exponent of a value, rounded down; that of the smallest bound for zero.
fn magnitude(value: f64) -> i16 {
    if value > 0.0 { value.log2().floor().clamp(EXP2_MIN.into(), EXP2_MAX.into()) as i16 } else { EXP2_MIN }
}

/// The least value of a magnitude.
fn least(magnitude: i16) -> f64 {
    // The logarithm may round to the wrong side, and nothing is below zero.
    if magnitude == EXP2_MIN { 0.0 } else { 2f64.powi(magnitude.into()) * (1.0 - f64::EPSILON) }
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
        let here = [output(&[1, 3], &[8.0, 8.0, 8.0])];
        let mut fit = Fit::default();
        fit.add(&here, &here, Some(1));
        assert_eq!(fit.tolerance(None), Tolerance { atol_exp2: 3 + FLOOR_EXP2, rtol_exp2: FLOOR_EXP2, top: None });
        let nothing = Fit::default().tolerance(Some(1));
        assert_eq!((nothing.atol_exp2, nothing.top), (EXP2_MIN, None));
    }

    #[test]
    fn the_tightest_pair_follows_how_differences_grow() {
        // By a share of the value, over twelve magnitudes: scores.
        let scores: Vec<f32> = (0..40).map(|at| 0.5f32.powi(at)).collect();
        let moved: Vec<f32> = scores.iter().map(|score| score * 1.000_01).collect();
        let mut fit = Fit::default();
        fit.add(&[output(&[1, 40], &scores)], &[output(&[1, 40], &moved)], None);
        let Tolerance { atol_exp2, rtol_exp2, .. } = fit.tolerance(None);
        assert!((-15..=-14).contains(&rtol_exp2) && atol_exp2 < -40, "{rtol_exp2} {atol_exp2}");
        // By as much everywhere: sums.
        let moved: Vec<f32> = scores.iter().map(|score| score + 0.000_01).collect();
        let mut fit = Fit::default();
        fit.add(&[output(&[1, 40], &scores)], &[output(&[1, 40], &moved)], None);
        let Tolerance { atol_exp2, rtol_exp2, .. } = fit.tolerance(None);
        assert!(rtol_exp2 < -17 && (-15..=-14).contains(&atol_exp2), "{rtol_exp2} {atol_exp2}");
    }

    #[test]
    fn small_values_that_differ_by_half_leave_large_ones_where_they_are() {
        let mut scores = vec![1e-12f32; 100];
        scores[0] = 1.0;
        let mut moved = vec![1.5e-12f32; 100];
        moved[0] = 1.000_001;
        let mut fit = Fit::default();
        fit.add(&[output(&[1, 100], &scores)], &[output(&[1, 100], &moved)], None);
        assert!(fit.tolerance(None).bound(1.0) <= 1.0 / 128.0 + 1e-6, "{:?}", fit.tolerance(None));
    }

    #[test]
    fn outputs_whose_largest_element_changes_often_are_no_scores() {
        let mut fit = Fit::default();
        fit.add(&[output(&[1, 2], &[1.0, 1.1])], &[output(&[1, 2], &[1.1, 1.0])], Some(1));
        assert_eq!(fit.tolerance(Some(1)).top, None);
    }
}
