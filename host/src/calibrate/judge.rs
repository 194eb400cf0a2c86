//! Two answers of one model, held against each other: the same one, as far as a tolerance goes?

use std::fmt;

use guest_sdk::abi::nn::TensorType;
use registry::tolerance::{Tolerance, TopAgreement};
use serde::Serialize;

use crate::sandbox::NnTensor;

/// The first thing that falls outside a tolerance.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "outside", rename_all = "snake_case")]
pub enum Outside {
    /// Another number of outputs.
    Count {
        /// As there.
        there: usize,
        /// As here.
        here: usize,
    },
    /// An output of another type or shape.
    Shape {
        /// Which output, from 0.
        output: usize,
    },
    /// An element that differs by more than it may. Numbers that are none are null in JSON.
    Element {
        /// Which output, from 0.
        output: usize,
        /// Which element, from 0, in row-major order.
        element: usize,
        /// Its value there.
        there: f64,
        /// Its value here.
        here: f64,
        /// The most by which it may differ.
        bound: f64,
    },
}

/// How close answers were, over all that were held against each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Closeness {
    /// Answers.
    pub answers: u64,
    /// Elements of theirs that are floats.
    pub elements: u64,
    /// The largest difference of two.
    pub max_abs: f64,
    /// The largest, as a share of the value here, where that is no smaller than a typical one of its tensor.
    pub max_rel: f64,
    /// Elements that are no floats, and differ.
    pub integers_differing: u64,
    /// Rows whose largest elements were compared.
    pub rows: u64,
    /// Those in which they are not the same ones.
    pub rows_disagreeing: u64,
}

impl Closeness {
    /// Counts two answers in. Rows are those of the first output, if that is one of floats.
    pub fn add(&mut self, there: &[NnTensor], here: &[NnTensor], top_k: Option<u32>) {
        self.answers += 1;
        for (there, here) in there.iter().zip(here) {
            match (floats(there), floats(here)) {
                (Some(there), Some(here)) => self.add_floats(&there, &here),
                _ => self.integers_differing += differing(there, here).count() as u64,
            }
        }
        if let (Some(k), Some(there), Some(here)) = (top_k, there.first(), here.first()) {
            let (rows, disagreeing) = rows(there, here, k);
            self.rows += rows;
            self.rows_disagreeing += disagreeing;
        }
    }

    fn add_floats(&mut self, there: &[f64], here: &[f64]) {
        let typical = typical(here);
        for (there, here) in there.iter().zip(here) {
            self.elements += 1;
            let difference = difference(*there, *here);
            self.max_abs = self.max_abs.max(difference);
            if here.abs() >= typical && typical > 0.0 {
                self.max_rel = self.max_rel.max(difference / here.abs());
            }
        }
    }

    /// The share of rows that agree, in parts per million, rounded down; none when there are no rows.
    pub fn agreement_ppm(&self) -> Option<u32> {
        let agreeing = (self.rows - self.rows_disagreeing) as u128;
        let ppm = (agreeing * 1_000_000).checked_div(self.rows.into())?;
        u32::try_from(ppm).ok()
    }

    /// Whether more rows disagree than may.
    pub fn disagrees(&self, top: &TopAgreement) -> bool {
        self.rows_disagreeing > top.disagreeing_max(self.rows)
    }
}

/// Whether `there` is as good as `here`; without a tolerance it has to be equal.
///
/// # Errors
/// The first element that is not.
pub fn judge(tolerance: Option<&Tolerance>, there: &[NnTensor], here: &[NnTensor]) -> Result<(), Outside> {
    if there.len() != here.len() {
        return Err(Outside::Count { there: there.len(), here: here.len() });
    }
    for (output, (there, here)) in there.iter().zip(here).enumerate() {
        if (there.element, &there.dims) != (here.element, &here.dims) {
            return Err(Outside::Shape { output });
        }
        if there.data == here.data {
            continue;
        }
        if let (Some(tolerance), Some(there), Some(here)) = (tolerance, floats(there), floats(here)) {
            let outside = |(_, (there, here)): &(usize, (&f64, &f64))| !tolerance.allows(**there, **here);
            if let Some((element, (there, here))) = there.iter().zip(&here).enumerate().find(outside) {
                let bound = tolerance.bound(*here);
                return Err(Outside::Element { output, element, there: *there, here: *here, bound });
            }
        } else if let Some((element, there, here)) = differing(there, here).next() {
            return Err(Outside::Element { output, element, there, here, bound: 0.0 });
        }
    }
    Ok(())
}

/// Elements that are not equal to the bit.
fn differing<'a>(there: &'a NnTensor, here: &'a NnTensor) -> impl Iterator<Item = (usize, f64, f64)> + 'a {
    let element = there.element_type().unwrap_or(TensorType::U8);
    let each = |output: &'a NnTensor| output.data.chunks_exact(element.element_bytes());
    let pairs = each(there).zip(each(here)).enumerate().filter(|(_, (there, here))| there != here);
    pairs.map(move |(at, (there, here))| (at, number(element, there), number(element, here)))
}

/// Elements as doubles; none when they are no floats.
pub fn floats(output: &NnTensor) -> Option<Vec<f64>> {
    let element = output.element_type()?;
    if matches!(element, TensorType::U8 | TensorType::I32 | TensorType::I64) {
        return None;
    }
    Some(output.data.chunks_exact(element.element_bytes()).map(|bytes| number(element, bytes)).collect())
}

/// One element as a double; only those of 64-bit integers beyond 2 to the 53 lose digits.
fn number(element: TensorType, bytes: &[u8]) -> f64 {
    fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
        std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default())
    }
    match element {
        TensorType::F16 => half(u16::from_le_bytes(array(bytes))),
        TensorType::F32 => f32::from_le_bytes(array(bytes)).into(),
        TensorType::F64 => f64::from_le_bytes(array(bytes)),
        TensorType::U8 => bytes.first().copied().unwrap_or_default().into(),
        TensorType::I32 => i32::from_le_bytes(array(bytes)).into(),
        TensorType::I64 => i64::from_le_bytes(array(bytes)) as f64,
    }
}

/// A half as a double, exactly.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
    }
}

/// By how much two values differ: not at all if they are the same infinity or both no numbers, and without bound if one is.
pub fn difference(there: f64, here: f64) -> f64 {
    if there == here || (there.is_nan() && here.is_nan()) {
        return 0.0;
    }
    let difference = (there - here).abs();
    if difference.is_nan() { f64::INFINITY } else { difference }
}

/// The root of the mean of the squares of the finite ones: what counts as no small value of a tensor.
pub fn typical(values: &[f64]) -> f64 {
    let finite = || values.iter().filter(|value| value.is_finite());
    let count = finite().count();
    if count == 0 { 0.0 } else { (finite().map(|value| value * value).sum::<f64>() / count as f64).sqrt() }
}

/// Rows along the last axis of two outputs, and in how many of them the `k` largest elements are not the same ones. None when
/// they are no floats or a row has one element.
fn rows(there: &NnTensor, here: &NnTensor, k: u32) -> (u64, u64) {
    let wide = here.dims.last().map_or(0, |wide| *wide as usize);
    let (Some(there), Some(here)) = (floats(there), floats(here)) else { return (0, 0) };
    if wide <= k as usize || there.len() != here.len() {
        return (0, 0);
    }
    let pairs = there.chunks_exact(wide).zip(here.chunks_exact(wide));
    let (mut rows, mut disagreeing) = (0, 0);
    for (there, here) in pairs {
        rows += 1;
        disagreeing += u64::from(largest(there, k) != largest(here, k));
    }
    (rows, disagreeing)
}

/// Where the `k` largest of a row are, sorted; of equals the first.
fn largest(row: &[f64], k: u32) -> Vec<usize> {
    let mut at: Vec<usize> = (0..row.len()).collect();
    at.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
    at.truncate(k as usize);
    at.sort_unstable();
    at
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count { there, here } => write!(f, "{there} outputs there, {here} here"),
            Self::Shape { output } => write!(f, "output {output} has another type or shape"),
            Self::Element { output, element, there, here, bound } => write!(
                f,
                "output {output}, element {element}: {there} there, {here} here, which may differ by {bound:.3e} and differ \
                 by {:.3e}",
                difference(*there, *here)
            ),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An output of floats.
    pub(crate) fn output(dims: &[u32], values: &[f32]) -> NnTensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        NnTensor { element: TensorType::F32 as u8, dims: dims.to_vec(), data: data.into() }
    }

    fn integers(values: &[i64]) -> NnTensor {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        NnTensor { element: TensorType::I64 as u8, dims: vec![values.len() as u32], data: data.into() }
    }

    const TOLERANCE: Tolerance = Tolerance { atol_exp2: -20, rtol_exp2: -10, top: None };

    #[test]
    fn halves_are_read_exactly() {
        let cases =
            [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0x0001, 2f64.powi(-24)), (0x3555, 0.333_251_953_125)];
        for (bits, value) in cases {
            assert_eq!(half(bits), value, "{bits:x}");
        }
        assert!(half(0xfc00) == f64::NEG_INFINITY && half(0x7e00).is_nan());
    }

    #[test]
    fn the_first_element_outside_is_named_with_its_bound() {
        let here = [output(&[2], &[1.0, 2.0]), output(&[2], &[0.0, 1024.0])];
        assert_eq!(judge(None, &here, &here), Ok(()));
        let near = [here[0].clone(), output(&[2], &[0.0, 1024.5])];
        assert_eq!(judge(Some(&TOLERANCE), &near, &here), Ok(()));
        let outside = judge(None, &near, &here).unwrap_err();
        assert_eq!(outside, Outside::Element { output: 1, element: 1, there: 1024.5, here: 1024.0, bound: 0.0 });
        let far = [here[0].clone(), output(&[2], &[0.001, 9.0])];
        let outside = judge(Some(&TOLERANCE), &far, &here).unwrap_err();
        assert!(matches!(outside, Outside::Element { output: 1, element: 0, here: 0.0, .. }), "{outside:?}");
        assert!(outside.to_string().starts_with("output 1, element 0: 0.001"), "{outside}");
        let shapes = [output(&[1, 2], &[1.0, 2.0]), here[1].clone()];
        assert_eq!(judge(Some(&TOLERANCE), &shapes, &here), Err(Outside::Shape { output: 0 }));
        assert_eq!(judge(Some(&TOLERANCE), &here[..1], &here), Err(Outside::Count { there: 1, here: 2 }));
    }

    #[test]
    fn what_is_no_float_has_to_be_equal() {
        let outside = judge(Some(&TOLERANCE), &[integers(&[5, 100_001])], &[integers(&[5, 100_000])]).unwrap_err();
        assert!(matches!(outside, Outside::Element { element: 1, bound: 0.0, .. }), "{outside:?}");
        let mut closeness = Closeness::default();
        closeness.add(&[integers(&[5, 6])], &[integers(&[5, 7])], Some(1));
        assert_eq!((closeness.integers_differing, closeness.elements, closeness.rows), (1, 0, 0));
    }

    #[test]
    fn rows_disagree_when_their_largest_are_others() {
        let here = [output(&[3, 3], &[1.0, 2.0, 3.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0])];
        let there = [output(&[3, 3], &[1.0, 3.1, 3.0, 3.0, 1.0, 2.0, 1.0, 1.0, 1.0])];
        let closeness = |k| {
            let mut closeness = Closeness::default();
            closeness.add(&there, &here, Some(k));
            (closeness.rows, closeness.rows_disagreeing, closeness.agreement_ppm())
        };
        assert_eq!(closeness(1), (3, 1, Some(666_666)));
        assert_eq!(closeness(2), (3, 1, Some(666_666)));
        assert_eq!(closeness(3), (0, 0, None));
        let top = TopAgreement { k: 1, agreement_ppm: 1_000_000 };
        assert!(Closeness { rows: 3, rows_disagreeing: 1, ..Closeness::default() }.disagrees(&top));
        assert!(!Closeness { rows: 3, ..Closeness::default() }.disagrees(&top));
    }

    #[test]
    fn a_small_value_does_not_make_a_large_relative_difference() {
        let mut closeness = Closeness::default();
        closeness.add(&[output(&[3], &[100.0, 1e-9, -100.5])], &[output(&[3], &[100.0, 0.0, -100.0])], None);
        assert_eq!((closeness.max_abs, closeness.max_rel), (0.5, 0.005));
    }
}
